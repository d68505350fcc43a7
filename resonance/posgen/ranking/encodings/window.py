"""RoPE that sees its last L/2 tokens alone, in every layer (a sliding window, as in Mistral 7B, arXiv 2310.06825).

score = -inf where m - n >= L/2
"""

import torch

from resonance.posgen.ranking.encoding import distances
from resonance.posgen.ranking.encodings import register
from resonance.posgen.ranking.encodings.rotary import Rotating


@register("window")
class Window(Rotating):
    fields = {"method": "rope"}  # noqa: RUF012

    def score(self, score_BHTT: torch.Tensor, q_BHTD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        return score_BHTT.masked_fill(distances(positions_T) >= self.sizes.train_length // 2, float("-inf"))
