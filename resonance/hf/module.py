"""Our table where transformers' models expect a rotary module.

Legend: B batch, T positions, R rotary dimension.
"""

import warnings

import torch

from resonance.encoding.frequencies import depends_on_length
from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec


class RotaryEmbedding(torch.nn.Module):
    """A Rotary where transformers' models expect a rotary module.

    spec           the encoding
    head_dim       R
    num_positions  positions to make at once; more are made when they are met
    device         of the table
    for_op         return what `attention.apply_by_op` takes, cos and sin [T, R/2] or
                   [B, T, R/2] in float32; else what transformers' own function takes: [B, T, R],
                   the halves repeated, in the model's dtype

    A method whose table depends on the current length L_c (dynamic_ntk) gets the table of exactly
    that length, max(position) + 1, at every call. transformers keeps the table of the longest
    sequence since one shorter than L came by, so that its logits depend on what ran before. Under
    either, keys in a cache keep the table of the length that they were computed at: this module
    says so once when it meets such a call; `use_cache=False` is exact.

    The table stays float32 whatever `model.to(...)` or `model.half()` ask: in bfloat16 it would be
    off by 2^-9, and positions past 256 alias.
    """

    def __init__(
        self,
        spec: EncodingSpec,
        *,
        head_dim: int,
        num_positions: int,
        device: torch.device | str | None = None,
        for_op: bool = False,
    ) -> None:
        super().__init__()
        self.spec, self.head_dim, self.for_op = spec, head_dim, for_op
        self.follows_length = depends_on_length(spec, head_dim)
        self.rotary = Rotary(spec, head_dim=head_dim, num_positions=max(1, num_positions), device=device)
        self._said = False

    @torch.no_grad()
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if position_ids.shape[0] == 1 and self.for_op:
            position_ids = position_ids[0]
        self._cover(position_ids)
        cos, sin = self.rotary.tables(position_ids)
        if self.for_op:
            return cos, sin
        return tuple(torch.cat((half, half), dim=-1).to(x.dtype) for half in (cos, sin))

    def _cover(self, positions: torch.Tensor) -> None:
        """See to it that the table is the one for these positions."""
        if not positions.numel():
            return
        least, most = (int(value) for value in positions.aminmax())
        length = most + 1
        if self.follows_length:
            length = max(length, self.spec.train_length or 1)
            if least > 0 and most >= (self.spec.train_length or 0) and not self._said:
                self._said = True
                warnings.warn(
                    f"{self.spec.method} is continuing from a cache past L: the cached keys keep the table of the "
                    "length they were computed at; call the model with use_cache=False for the exact encoding",
                    stacklevel=2,
                )
            if length == self.rotary.num_positions:
                return
        elif length <= self.rotary.num_positions or self.rotary.periodic_everywhere:
            return
        else:
            length = 1 << (length - 1).bit_length()  # the entries at hand stay as they are, bit for bit
        device = self.rotary.start.device
        self.rotary = Rotary(self.spec, head_dim=self.head_dim, num_positions=length, device=device)

    def _apply(self, fn, recurse: bool = True):
        """Follow the model to its device, never to its dtype."""
        for name, kept in list(self.rotary.named_buffers()):
            self.rotary.register_buffer(name, kept.to(fn(kept).device), persistent=False)
        return self


def follows_length(model: torch.nn.Module) -> bool:
    """Whether a model's table depends on the length of what it reads (dynamic_ntk)."""
    return any(isinstance(m, RotaryEmbedding) and m.follows_length for m in model.modules())
