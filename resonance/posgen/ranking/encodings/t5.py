"""T5's bias: one learned number a head and bucket of distances, shared by all layers (Raffel et al., 2020, arXiv
1910.10683, section 2.1).

    32 buckets: distances 0 to 15 one each, then ever wider ones up to 128, past which all share the last
"""

import math

import torch
from torch import nn

from resonance.posgen.ranking.encoding import PositionEncoding, Sizes, distances
from resonance.posgen.ranking.encodings import register


@register("t5")
class T5Bias(PositionEncoding):
    num_buckets, max_distance = 32, 128

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.bias = nn.Embedding(self.num_buckets, sizes.num_heads)
        nn.init.normal_(self.bias.weight, std=sizes.d_model**-0.5)

    def bucket(self, distance: torch.Tensor) -> torch.Tensor:
        """int64, of distances >= 0."""
        exact = self.num_buckets // 2
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (far * (self.num_buckets - exact)).long()).clamp(max=self.num_buckets - 1)
        return torch.where(distance < exact, distance, far)

    def score(self, score_BHTT: torch.Tensor, q_BHTD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        return score_BHTT + self.bias(self.bucket(distances(positions_T))).permute(2, 0, 1)
