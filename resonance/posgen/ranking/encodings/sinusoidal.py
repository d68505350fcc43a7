"""Sinusoids added to the embedding (Vaswani et al., 2017, arXiv 1706.03762, section 3.5).

PE(m, 2i) = sin(m / 10000^(2i/M)),   PE(m, 2i+1) = cos(m / 10000^(2i/M))
"""

import torch

from resonance.posgen.ranking.encoding import PositionEncoding
from resonance.posgen.ranking.encodings import register


@register("sinusoidal")
class Sinusoidal(PositionEncoding):
    def embed(self, x_BTM: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        theta = 10_000 ** (-torch.arange(0, self.sizes.d_model, 2, dtype=torch.float64) / self.sizes.d_model)
        angle = positions_T.double()[:, None] * theta
        return x_BTM + torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2).to(x_BTM.dtype)
