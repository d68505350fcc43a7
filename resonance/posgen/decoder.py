"""The decoder that PosGen trains: T5-Small's parts, decoder only, with a Rotary handed in.

Parts (Raffel et al., 2020): RMSNorm before each block, ReLU feed-forward, no biases, tied
embeddings with the last hidden state scaled by d_model^-0.5. It never learns which encoding it is
given, nor which protocol asked for it.

Legend: B batch, H heads, T positions, D head dimension, M d_model, F d_ff, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from resonance.encoding.rotary import Rotation

RMS_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and the two choices that change the arithmetic.

    divide_by_sqrt_head_dim  softmax(q.k/sqrt(D)) (section 3.1) with q initialised sqrt(D) wider,
                             or T5's softmax(q.k) that leaves the scale to the initialisation:
                             the same function at step 0, another learning rate for q after it
    dropout                  after the embedding, on attention probabilities, inside and after
                             every block, and before the output, as in T5
    """

    vocab_size: int
    d_model: int
    d_ff: int
    num_heads: int
    head_dim: int
    num_layers: int
    divide_by_sqrt_head_dim: bool
    dropout: float


class Dropout(nn.Module):
    """Dropout whose masks come from random bytes that the trainer draws (`posgen.train`).

    Eight masks come out of one int64 draw, which costs a CPU a small part of drawing a float for
    each element, and keeps random state out of the compiled graph. The rate is rounded to 1/256
    (0.1 becomes 26/256 = 0.1016) and the scale follows the rounded rate, so the mean is kept.
    Without bytes (evaluation) it is the identity.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = min(round(rate * 256), 255)
        self.scale = 256 / (256 - self.threshold)
        self.bytes: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.bytes is None else x * self.kept(x) * self.scale

    def kept(self, x: torch.Tensor) -> torch.Tensor:
        """1 where an element of x is kept, 0 elsewhere: byte >= threshold, in arithmetic that vectorises."""
        return (self.bytes.view(x.shape).to(x.dtype) - (self.threshold - 1)).clamp(0, 1)


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.head_dim
        self.num_heads = config.num_heads
        self.scale = config.head_dim**-0.5 if config.divide_by_sqrt_head_dim else 1.0
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTM: torch.Tensor, rotation: Rotation, seen_TT: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (w(x_BTM).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for w in (self.q, self.k, self.v))
        q, k = rotation(q, k)
        if self.dropout.bytes is None:
            causal = seen_TT is None
            mixed_BHTD = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_TT, is_causal=causal, scale=self.scale)
        else:  # written out, since our dropout goes between softmax and values
            num_positions = q.shape[-2]
            mask_TT = torch.full((num_positions, num_positions), float("-inf"), device=q.device).triu(1)
            scores_BHTT = (q @ k.transpose(-1, -2)).float() * self.scale + mask_TT
            mixed_BHTD = self.dropout(scores_BHTT.softmax(-1)).to(v.dtype) @ v
        return self.o(mixed_BHTD.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTM: torch.Tensor) -> torch.Tensor:
        hidden_BTF = self.wi(x_BTM)
        if self.dropout.bytes is None:
            return self.wo(F.relu(hidden_BTF))
        # relu(x) as (x + |x|)/2: the same numbers, and a backward by sign(x), which vectorises where
        # relu's own keeps a boolean for every element and does not.
        return self.wo((hidden_BTF + hidden_BTF.abs()) * self.dropout.kept(hidden_BTF) * (0.5 * self.dropout.scale))


class Layer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=RMS_EPSILON)
        self.attention = Attention(config)
        self.attention_dropout = Dropout(config.dropout)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, eps=RMS_EPSILON)
        self.feed_forward = FeedForward(config)
        self.feed_forward_dropout = Dropout(config.dropout)

    def forward(self, x_BTM: torch.Tensor, rotation: Rotation, seen_TT: torch.Tensor | None = None) -> torch.Tensor:
        x_BTM = x_BTM + self.attention_dropout(self.attention(self.attention_norm(x_BTM), rotation, seen_TT))
        return x_BTM + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(x_BTM)))


class Decoder(nn.Module):
    """Tokens [B, T] and the rotation of T positions -> logits [B, T, V], at t of the token at t + 1.

    The rotation is `rotary.at(...)`, looked up once by the caller, so that one decoder serves any
    encoding and a compiled graph holds no table. seen, bool [T, T], is which keys each query may see
    (`posgen.probe`; evaluation only, and never more than the past); None: its past.
    """

    def __init__(self, config: DecoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.embedding_dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.final_norm = nn.RMSNorm(config.d_model, eps=RMS_EPSILON)
        self.final_dropout = Dropout(config.dropout)
        self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """T5's standard deviations: embedding 1, q (M*D)^-1/2, k and v M^-1/2, o (H*D)^-1/2,
        wi M^-1/2, wo F^-1/2. Norm weights stay 1."""
        c = self.config
        q_std = c.d_model**-0.5 * (1.0 if c.divide_by_sqrt_head_dim else c.head_dim**-0.5)
        self.embedding.weight.normal_(0, 1.0, generator=generator)
        for layer in self.layers:
            a, f = layer.attention, layer.feed_forward
            for weight, std in (
                (a.q, q_std),
                (a.k, c.d_model**-0.5),
                (a.v, c.d_model**-0.5),
                (a.o, (c.num_heads * c.head_dim) ** -0.5),
                (f.wi, c.d_model**-0.5),
                (f.wo, c.d_ff**-0.5),
            ):
                weight.weight.normal_(0, std, generator=generator)

    def forward(self, tokens_BT: torch.Tensor, rotation: Rotation, seen_TT: torch.Tensor | None = None) -> torch.Tensor:
        x_BTM = self.embedding_dropout(self.embedding(tokens_BT))
        for layer in self.layers:
            x_BTM = layer(x_BTM, rotation, seen_TT)
        x_BTM = self.final_dropout(self.final_norm(x_BTM)) * self.config.d_model**-0.5
        return F.linear(x_BTM, self.embedding.weight)
