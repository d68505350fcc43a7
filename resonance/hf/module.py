"""Our angles where transformers' models expect a rotary module.

Legend: B batch, T positions, R rotary dimension, d/2 = R/2 features.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch

from resonance.encoding.frequencies import depends_on_length, frequency_table
from resonance.encoding.methods import method_of
from resonance.encoding.reference import look_up
from resonance.encoding.rotary import pack
from resonance.encoding.spec import EncodingSpec

ONLY = "all_layers"
"""The name that an encoding goes by where a model has one for all its layers."""

Pair = tuple[torch.Tensor, torch.Tensor]
FORMS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.dtype], Pair | torch.Tensor]] = {
    "op": lambda cos, sin, dtype: (cos, sin),
    "halves": lambda cos, sin, dtype: tuple(torch.cat((x, x), dim=-1).to(dtype) for x in (cos, sin)),
    "pairs": lambda cos, sin, dtype: tuple(x.repeat_interleave(2, dim=-1).to(dtype) for x in (cos, sin)),
    "features": lambda cos, sin, dtype: (cos.to(dtype), sin.to(dtype)),
    "complex": lambda cos, sin, dtype: torch.complex(cos, sin),
}
"""What a model's rotary module returns of cos and sin float32 [B, T, R/2]: `op`, what `attention`'s functions take;
else what models of transformers take in their own dtype: the `halves` repeated, [B, T, R]; every entry twice (`pairs`);
one a feature, [B, T, R/2]; or one complex number a feature."""


class Angles(torch.nn.Module):
    """cos and sin of one table at any position, with nothing to grow and nothing that waits for a device.

    A feature with an integer period that the table holds is looked up at m mod period, so it takes the same stored
    numbers at m and at m + period: Theorem 1's gap is zero bit for bit. The angle of any other is made in float64
    (float32 on a device without, Apple's), reduced by its period first where it has one.

    seq_len        L_c, for a table that depends on it
    num_positions  periods up to here are stored, 8 bytes an entry
    """

    def __init__(self, spec: EncodingSpec, head_dim: int, seq_len: int | None, num_positions: int) -> None:
        super().__init__()
        table = frequency_table(spec, head_dim, seq_len)
        stored = (table.period > 0) & (table.period <= num_positions)
        cos, sin, start = pack(table.theta[stored], table.period[stored], table.attention_factor)
        never = np.iinfo(np.int64).max
        buffers = {
            "theta": table.theta[~stored],
            "period": np.where(table.period > 0, table.period, never)[~stored],
            "modulus": table.period[stored],
            "order": np.argsort(np.concatenate((np.flatnonzero(stored), np.flatnonzero(~stored)))),
        }
        buffers = {"packed_cos": cos, "packed_sin": sin, "start": start} | {
            name: torch.from_numpy(values) for name, values in buffers.items()
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)
        self.amplitude = table.attention_factor

    def forward(self, positions: torch.Tensor) -> Pair:
        """cos and sin, float32 [..., R/2], at positions int64 [...]."""
        angle = (positions[..., None] % self.period).to(self.theta.dtype) * self.theta
        both = []
        for packed, made in ((self.packed_cos, angle.cos()), (self.packed_sin, angle.sin())):
            looked_up = look_up(packed, self.start, self.modulus, positions)
            both.append(torch.cat((looked_up, (made * self.amplitude).float()), dim=-1)[..., self.order])
        return tuple(both)

    def _apply(self, fn, recurse: bool = True):
        """Follow the model to its device, never to its dtype: in bfloat16 positions past 256 alias."""
        device = fn(self.order).device
        for name, kept in list(self.named_buffers(recurse=False)):
            wide = kept.dtype == torch.float64 and device.type == "mps"
            self.register_buffer(name, kept.to(device, torch.float32 if wide else kept.dtype), persistent=False)
        return self


class RotaryEmbedding(torch.nn.Module):
    """One encoding, or one a layer type, where transformers' models expect a rotary module.

    specs          the encodings, filled; the key is `ONLY`, or the layer types of the model
    head_dim       R
    num_positions  periods up to here are stored
    form           one of `FORMS`
    axes           int64 [R/2]: which of the positions of a token (time, height, width) a feature turns by, for a model
                   that hands over three, [3, B, T]; None: a token has one

    A method whose table takes few forms over the current length L_c = max(position) + 1 (longrope) holds them all and
    chooses on the device. One whose table follows L_c (dynamic_ntk) gets the table of exactly that length at every
    call, which the host has to wait for. transformers keeps the table of the longest sequence since one shorter than L
    came by, so that its logits depend on what ran before. Under either, keys in a cache keep the table of the length
    that they were computed at; `use_cache=False` is exact. This module says so once when it meets such a call under
    the latter, whose length the host knows.
    """

    def __init__(
        self,
        specs: Mapping[str, EncodingSpec],
        *,
        head_dim: int,
        num_positions: int,
        form: str,
        axes: torch.Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("axes", axes, persistent=False)
        self.specs, self.head_dim, self.num_positions, self.form = dict(specs), head_dim, num_positions, form
        self.breaks = {name: getattr(method_of(s.method), "breaks", lambda _: ())(s) for name, s in specs.items()}
        self.follows_length = any(depends_on_length(s, head_dim) and not self.breaks[n] for n, s in specs.items())
        self.angles = torch.nn.ModuleDict(
            {
                name: torch.nn.ModuleList(self._angles(name, length) for length in (1, *(b + 1 for b in breaks)))
                for name, breaks in self.breaks.items()
            }
        )
        if device is not None:
            self.to(device)
        self._said = False

    def _angles(self, name: str, length: int) -> Angles:
        # What holds for one call alone is computed where it is asked for: to store periods takes milliseconds a token.
        return Angles(self.specs[name], self.head_dim, length, 0 if self.follows_length else self.num_positions)

    @torch.no_grad()
    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None
    ) -> Pair | torch.Tensor:
        if position_ids.shape[-2] == 1 and self.form == "op":
            position_ids = position_ids.squeeze(-2)  # one row for the whole batch
        name = ONLY if ONLY in self.specs else layer_type
        if self.follows_length:
            self._follow(name, position_ids)
        first, *later = self.angles[name]
        cos, sin = first(position_ids)
        for limit, angles in zip(self.breaks[name], later, strict=True):
            past, (long_cos, long_sin) = position_ids.max() + 1 > limit, angles(position_ids)
            cos, sin = torch.where(past, long_cos, cos), torch.where(past, long_sin, sin)
        if self.axes is not None and position_ids.shape[0] == 3:
            chosen = self.axes.expand(cos.shape[1:])[None]
            cos, sin = (values.gather(0, chosen)[0] for values in (cos, sin))
        return FORMS[self.form](cos, sin, x.dtype)

    def _follow(self, name: str, positions: torch.Tensor) -> None:
        """Make the table of this length."""
        if not positions.numel():
            return
        spec, train_length = self.specs[name], self.specs[name].train_length or 0
        least, most = (int(value) for value in positions.aminmax())
        if least > 0 and most >= train_length and not self._said:
            self._said = True
            warnings.warn(
                f"{spec.method} is continuing from a cache past L: the cached keys keep the table of the length they "
                "were computed at; call the model with use_cache=False for the exact encoding",
                stacklevel=3,
            )
        device = self.angles[name][0].order.device
        self.angles[name] = torch.nn.ModuleList([self._angles(name, max(most + 1, train_length, 1)).to(device)])

    def tables_at(self, length: int) -> tuple[int, ...]:
        """What tells the tables of a length L_c from those of another: equal where they are the same."""
        if self.follows_length:
            return (max(length, min(spec.train_length or 0 for spec in self.specs.values())),)
        return tuple(sum(length > limit for limit in breaks) for breaks in self.breaks.values())

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {spec.to_json()}" for name, spec in self.specs.items()) + f", form={self.form}"


def same_tables(model: torch.nn.Module, *lengths: int) -> bool:
    """Whether what a model reads is encoded alike at some lengths: past L not so under dynamic_ntk and longrope."""
    ours = [m for m in model.modules() if isinstance(m, RotaryEmbedding)]
    return len({tuple(m.tables_at(length) for m in ours) for length in lengths}) <= 1
