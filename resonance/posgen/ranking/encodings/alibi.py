"""ALiBi: a penalty that grows with distance (Press et al., 2022, arXiv 2108.12409, section 3).

score += -slope_h * (m - n),   slope_h = 2^(-8h/H), h = 1 .. H
"""

import torch

from resonance.posgen.ranking.encoding import PositionEncoding, distances
from resonance.posgen.ranking.encodings import register


@register("alibi")
class ALiBi(PositionEncoding):
    def score(self, score_BHTT: torch.Tensor, q_BHTD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        num_heads = self.sizes.num_heads
        slope_H = 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)
        return score_BHTT - slope_H[:, None, None] * distances(positions_T)
