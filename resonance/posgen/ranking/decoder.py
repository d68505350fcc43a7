"""The decoder of `posgen.decoder`, its rotation replaced by any position encoding. Weights are drawn as there.

Legend: B batch, H heads, T positions, D head dimension, M width, V vocabulary.
"""

import torch
from torch import nn
from torch.nn import functional as F

from resonance.posgen.decoder import Attention, Decoder, DecoderConfig
from resonance.posgen.ranking.encoding import PositionEncoding, Sizes


class _PlacedAttention(nn.Module):
    """An Attention whose queries, keys and scores an encoding has seen."""

    def __init__(self, attention: Attention, encoding: PositionEncoding) -> None:
        super().__init__()
        self.attention, self.encoding = attention, encoding
        self.scores_differ = type(encoding).score is not PositionEncoding.score

    def forward(
        self, x_BTM: torch.Tensor, positions_T: torch.Tensor, seen_TT: torch.Tensor | None = None
    ) -> torch.Tensor:
        a = self.attention
        q, k, v = (w(x_BTM).unflatten(-1, (a.num_heads, -1)).transpose(1, 2) for w in (a.q, a.k, a.v))
        q, k = self.encoding.turn(q, k, positions_T)
        if not self.scores_differ:
            mixed_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=a.scale)
        else:
            score_BHTT = self.encoding.score(q @ k.transpose(-1, -2) * a.scale, q, positions_T)
            later_TT = torch.ones(score_BHTT.shape[-2:], dtype=torch.bool).triu(1)
            mixed_BHTD = score_BHTT.masked_fill(later_TT, float("-inf")).softmax(-1) @ v
        return a.o(mixed_BHTD.transpose(1, 2).flatten(-2))


class PlacedDecoder(Decoder):
    """Tokens [B, T] and their positions [T] -> logits [B, T, V].

    make  an encoding of some sizes; its random numbers are torch's own, which a caller seeds
    """

    def __init__(
        self, config: DecoderConfig, sizes: Sizes, make: type[PositionEncoding], generator: torch.Generator
    ) -> None:
        super().__init__(config, generator)
        self.encoding = make(sizes)
        for number, layer in enumerate(self.layers):
            encoding = self.encoding if number == 0 or make.shared else make(sizes)
            layer.attention = _PlacedAttention(layer.attention, encoding)

    def forward(self, tokens_BT: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        x_BTM = self.encoding.embed(self.embedding(tokens_BT), positions_T)
        for layer in self.layers:
            x_BTM = layer(x_BTM, positions_T)
        return F.linear(self.final_norm(x_BTM) * self.config.d_model**-0.5, self.embedding.weight)
