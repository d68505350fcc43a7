"""Rotary: from a spec to tables to the rotation; the only caller of `frequencies` and `ops`.

A model is handed a Rotary and never learns which method stands behind it.

Legend: T positions, D head dimension, P entries of the packed table.
"""

from typing import NamedTuple

import numpy as np
import torch

from resonance.encoding.frequencies import frequency_table
from resonance.encoding.ops import Table, rotate, warn_if_missing
from resonance.encoding.reference import PAIR_LAYOUTS, check_positions, look_up, turn
from resonance.encoding.spec import EncodingSpec


class Rotary(torch.nn.Module):
    """One encoding, ready to turn queries and keys.

    spec           the encoding
    head_dim       D, even
    num_positions  how many positions the table covers
    pair_layout    `half_split` (j, j + D/2) or `interleaved` (2j, 2j+1)

    The table is packed: a feature with an integer period of at most num_positions stores one
    period and is looked up at m mod period, any other stores num_positions entries. So a periodic
    feature takes *the same stored numbers* at m and at m + period: the feature gap of Theorem 1 is
    zero bit for bit, which m*theta in floating point cannot give (2e-3 in float32 at 32,768).
    Entries are made in float64 and stored in float32. YaRN's amplitude is folded into the table
    here and applied nowhere else.

    Memory: 8 bytes (cos and sin) for every packed entry. Buffers are not part of the state dict:
    they are a function of the spec.
    """

    def __init__(
        self,
        spec: EncodingSpec,
        *,
        head_dim: int,
        num_positions: int,
        pair_layout: str = "half_split",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_positions < 1:
            raise ValueError(f"num_positions must be >= 1, got {num_positions}; it is the longest sequence")
        if pair_layout not in PAIR_LAYOUTS:
            raise ValueError(f"pair_layout must be one of {', '.join(PAIR_LAYOUTS)}, got {pair_layout!r}")
        self.spec = spec = spec.filled()
        self.head_dim, self.num_positions, self.pair_layout = head_dim, num_positions, pair_layout
        table = frequency_table(spec, head_dim, seq_len=num_positions)
        packed = (table.period > 0) & (table.period <= num_positions)
        entries = np.where(packed, table.period, num_positions)
        cos, sin, start = pack(table.theta, entries, table.attention_factor)
        for name, values in (
            ("packed_cos", cos), ("packed_sin", sin), ("start", start), ("modulus", torch.from_numpy(entries))
        ):  # fmt: skip
            self.register_buffer(name, values.to(device), persistent=False)
        # A position past the table is exact for packed features and unknown for the others.
        self.periodic_everywhere = bool(packed.all())
        warn_if_missing()

    def tables(self, positions: torch.Tensor | int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin at some positions: float32 [..., D/2] each.

        positions  int64 [...], or an int T for 0 .. T-1

        Raises ValueError for a negative position, or for one past the table where a feature has
        no period.
        """
        limit = -1 if self.periodic_everywhere else self.num_positions
        cure = "make the Rotary with a larger num_positions"
        if isinstance(positions, int):
            if positions < 0:
                raise ValueError(f"a number of positions must be >= 0, got {positions}")
            check_positions(0, positions - 1, limit, cure)
            positions = torch.arange(positions, device=self.start.device)
        elif positions.is_floating_point():
            raise ValueError(f"positions must be integers, got {positions.dtype}: in bfloat16 they are off by up to pi")
        elif positions.numel():
            check_positions(*(int(value) for value in positions.aminmax()), limit, cure)
        positions = positions.long()
        return tuple(look_up(x, self.start, self.modulus, positions) for x in (self.packed_cos, self.packed_sin))

    def at(self, positions: torch.Tensor | int) -> "Rotation":
        """The rotation at some positions, looked up once to be used in every layer."""
        return Rotation(*self.tables(positions), self.pair_layout)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """q and k [B, H, T, D], [B, T, D] or [T, D], turned; positions [T] or [B, T]; None: 0 .. T-1.

        Straight from the packed table, position by position, in one op (`ops.rotate`).
        """
        return rotate(q, k, self.table, positions, pair_layout=self.pair_layout)

    @property
    def table(self) -> Table:
        """The packed table, for `ops.rotate` and all that it can do (out, in place, [B, T, H, D])."""
        buffers = self._buffers  # as attributes they cost a decoding step more than the rotation
        limit = None if self.periodic_everywhere else self.num_positions
        return Table(buffers["packed_cos"], buffers["packed_sin"], buffers["start"], buffers["modulus"], limit)

    def extra_repr(self) -> str:
        return f"{self.spec.to_json()}, head_dim={self.head_dim}, num_positions={self.num_positions}"


def pack(theta: np.ndarray, entries: np.ndarray, amplitude: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A packed table: cos and sin float32 [P] of every feature's first entries, and where each feature starts.

    Made in float64. amplitude multiplies both.
    """
    start = np.concatenate(([0], np.cumsum(entries)))
    # An entry's position is below the period where there is one: m*theta loses what m adds.
    angle = (np.arange(start[-1]) - np.repeat(start[:-1], entries)) * np.repeat(theta, entries)
    cos, sin = (torch.from_numpy(amplitude * values).float() for values in (np.cos(angle), np.sin(angle)))
    return cos, sin, torch.from_numpy(start[:-1])


class Rotation(NamedTuple):
    """cos and sin [..., T, D/2] of some positions, ready to turn queries and keys.

    q and k are [B, H, T, D], [B, T, D] or [T, D]; the tables [T, D/2] or, for positions of its own
    for every sequence, [B, T, D/2].
    """

    cos: torch.Tensor
    sin: torch.Tensor
    pair_layout: str

    def __call__(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.cos, self.sin
        if torch.compiler.is_compiling():
            # Written out: the compiler fuses it with its neighbours, which it cannot do to an op.
            if cos.ndim == 3 and q.ndim == 4:
                cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
            return turn(q, cos, sin, self.pair_layout), turn(k, cos, sin, self.pair_layout)
        return rotate(q, k, Table(cos, sin), pair_layout=self.pair_layout)
