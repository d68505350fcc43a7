"""FoPE: every feature a fixed random mixture of the frequencies that training sees whole (Hua et al., 2024, arXiv
2412.17739, and its released code).

    theta_j < 2 pi / L are dropped; of the D' that stay, min(D', D/4) features are sum_i A_ji cos(m theta_i) and
    sum_i B_ji sin(m theta_i), A and B the identity (spread where D' is more) plus Xavier noise of gain 0.3, a head's
    own and not trained. The other features have cosine and sine 1: they compare content alone.
"""

import math

import torch
from torch import nn

from resonance.encoding.reference import turn
from resonance.posgen.ranking.encoding import PositionEncoding, Sizes
from resonance.posgen.ranking.encodings import register


@register("fope")
class FoPE(PositionEncoding):
    gain = 0.3

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        theta = 10_000 ** (-torch.arange(0, sizes.head_dim, 2, dtype=torch.float64) / sizes.head_dim)
        self.theta = theta[theta >= 2 * math.pi / sizes.train_length]
        self.num_features = min(len(self.theta), sizes.head_dim // 4)
        step = math.ceil(len(self.theta) / self.num_features)
        for name in ("cos", "sin"):
            mixture_HDd = torch.empty(sizes.num_heads, len(self.theta), self.num_features)
            for of_head in mixture_HDd:
                nn.init.xavier_normal_(of_head, gain=self.gain)
            for j in range(0, len(self.theta), step):
                mixture_HDd[:, j, j // step] += 1
            self.register_buffer(name, mixture_HDd)

    def turn(
        self, q_BHTD: torch.Tensor, k_BHTD: torch.Tensor, positions_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angle = positions_T.double()[:, None] * self.theta
        mixed = (angle.cos().float() @ self.cos, angle.sin().float() @ self.sin)  # [H, T, d] each
        rest = self.sizes.head_dim // 2 - self.num_features
        cos, sin = (nn.functional.pad(x, (0, rest), value=1.0) for x in mixed)
        return turn(q_BHTD, cos, sin, "half_split"), turn(k_BHTD, cos, sin, "half_split")
