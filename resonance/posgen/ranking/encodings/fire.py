"""FIRE: a learned function of the distance as a share of the query's position (Li et al., 2024, arXiv 2310.04418,
equation 4).

    score += f( psi(m - n) / psi(max(m, threshold)) ),   psi(x) = log(c x + 1)

    f: 1 -> 32 -> H with ReLU; c starts at 0.1 and the threshold at L, both learned and kept positive
"""

import torch
from torch import nn

from resonance.posgen.ranking.encoding import PositionEncoding, Sizes, distances
from resonance.posgen.ranking.encodings import register


@register("fire")
class FIRE(PositionEncoding):
    shared = False

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.f = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, sizes.num_heads))
        self.c = nn.Parameter(torch.tensor(0.1))
        self.share_of_length = nn.Parameter(torch.tensor(1.0))

    def psi(self, x: torch.Tensor) -> torch.Tensor:
        return (self.c.abs() * x + 1).log()

    def score(self, score_BHTT: torch.Tensor, q_BHTD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        threshold = self.share_of_length.abs() * self.sizes.train_length
        longest_T1 = torch.maximum(positions_T.float(), threshold)[:, None]
        share_TT = self.psi(distances(positions_T).float()) / self.psi(longest_T1).clamp(min=1e-6)
        return score_BHTT + self.f(share_TT[..., None]).permute(2, 0, 1)
