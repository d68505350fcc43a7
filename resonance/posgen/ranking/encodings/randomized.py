"""RoPE at randomized positions: T of them drawn from 0 .. 2L'-1 and sorted, in training and in the test (Ruoss et al.,
2023, arXiv 2305.16843)."""

import torch

from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.ranking.encoding import PositionEncoding, Sizes
from resonance.posgen.ranking.encodings import register


@register("randomized")
class Randomized(PositionEncoding):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.rotary = Rotary(
            EncodingSpec(method="rope").filled(),
            head_dim=sizes.head_dim,
            num_positions=2 * sizes.test_length,
            pair_layout="interleaved",
        )

    def positions(self, num_tokens: int, draws: torch.Generator) -> torch.Tensor:
        return torch.randperm(2 * self.sizes.test_length, generator=draws)[:num_tokens].sort().values

    def turn(
        self, q_BHTD: torch.Tensor, k_BHTD: torch.Tensor, positions_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.rotary.at(positions_T)(q_BHTD, k_BHTD)
