"""CoPE: positions that count what the query cares for (Golovneva et al., 2024, arXiv 2405.18719, equations 3 to 5).

g_mn = sigmoid(score_mn),   p_mn = sum of g_mi over i = n .. m, at most L,   score += q_m . e[p_mn]

e: learned, L + 1 vectors of a layer, zero at first; between whole p linear
"""

import torch
from torch import nn

from resonance.posgen.ranking.encoding import PositionEncoding, Sizes
from resonance.posgen.ranking.encodings import register


@register("cope")
class CoPE(PositionEncoding):
    shared = False

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.e = nn.Parameter(torch.zeros(sizes.head_dim, sizes.train_length + 1))

    def score(self, score_BHTT: torch.Tensor, q_BHTD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        gate_BHTT = score_BHTT.sigmoid().tril()
        # From key n to the query's own: all of a row less what comes before n.
        p_BHTT = (gate_BHTT.flip(-1).cumsum(-1).flip(-1)).clamp(max=self.sizes.train_length)
        below = p_BHTT.detach().floor().long().clamp(max=self.sizes.train_length - 1)
        at_BHTP = q_BHTD @ self.e
        low, high = at_BHTP.gather(-1, below), at_BHTP.gather(-1, below + 1)
        return score_BHTT + low + (high - low) * (p_BHTT - below)
