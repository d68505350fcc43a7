"""p-RoPE: RoPE without its slowest features (Barbero et al., 2024, arXiv 2410.06205, section 6).

theta_j = b^(-2j/D) for j < p * D/2, and 0 for the rest, which then compare content alone; p = 0.75
"""

import torch

from resonance.encoding.reference import turn
from resonance.posgen.ranking.encoding import PositionEncoding
from resonance.posgen.ranking.encodings import register


@register("p_rope")
class PRoPE(PositionEncoding):
    p = 0.75

    def turn(
        self, q_BHTD: torch.Tensor, k_BHTD: torch.Tensor, positions_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        half = self.sizes.head_dim // 2
        j = torch.arange(half, dtype=torch.float64)
        theta = torch.where(j < self.p * half, 10_000 ** (-j / half), 0.0)
        angle = positions_T.double()[:, None] * theta
        cos, sin = angle.cos().float(), angle.sin().float()
        return turn(q_BHTD, cos, sin, "interleaved"), turn(k_BHTD, cos, sin, "interleaved")
