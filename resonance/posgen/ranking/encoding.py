"""What a position encoding is here: the four places of a decoder where it may act. Override what yours does.

Legend: B batch, H heads, T positions, D head dimension, M width of the residual stream.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What an encoding may know of the decoder that it is built for.

    train_length  L, tokens of a training sequence
    test_length   L', tokens of the longest test sequence
    num_heads     H
    head_dim      D, even
    d_model       M
    """

    train_length: int
    test_length: int
    num_heads: int
    head_dim: int
    d_model: int


class PositionEncoding(nn.Module):
    """A decoder's only source of positions, beside its causal mask. As it stands it is none (NoPE).

    Parameters of its own are trained with the decoder's. `shared` is whether all layers have one, or one each.
    What it does to a query may depend on the query and on keys at or before it, and on nothing later:
    `ranking.check` tries that before anything is trained.
    """

    shared = True

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    def positions(self, num_tokens: int, draws: torch.Generator) -> torch.Tensor:
        """The positions of a sequence's tokens, int64 [T], ascending; asked for anew at every step.

        draws  for an encoding that draws them
        """
        return torch.arange(num_tokens)

    def embed(self, x_BTM: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        """The embedded tokens with what is added to them."""
        return x_BTM

    def turn(
        self, q_BHTD: torch.Tensor, k_BHTD: torch.Tensor, positions_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys as attention is to compare them."""
        return q_BHTD, k_BHTD

    def score(self, score_BHTT: torch.Tensor, q_BHTD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        """The scores q.k / sqrt(D) of every query (row) and key (column) with what is added to them.

        The causal mask follows, so what stands above the diagonal has no effect. q as `turn` left it.
        """
        return score_BHTT


def distances(positions_T: torch.Tensor) -> torch.Tensor:
    """Query's position minus key's, int64 [T, T]; 0 above the diagonal, which nobody reads."""
    return (positions_T[:, None] - positions_T).clamp(min=0)
