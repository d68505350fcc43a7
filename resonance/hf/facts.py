"""What a config.json says of a rotary encoding, as the rules of `findings` need it. Loads no torch.

Legend: L training length, s scale, R rotary dimension.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from resonance.encoding.frequencies import frequency_table
from resonance.encoding.methods import method_names
from resonance.encoding.spec import EncodingSpec

ENCODING = "encoding"
"""The key that holds a spec of ours."""
OWN = "own_encoding"
"""The key that holds the encoding that the model was pretrained with, where the spec does not tell it."""
OWN_LENGTH = "own_max_position_embeddings"
"""The key that holds the pretrained model's max_position_embeddings, where L and its encoding do not tell it."""

USES = {
    "default": (),
    "proportional": ("factor",),
    "linear": ("factor",),
    "dynamic": ("factor", "alpha"),
    "yarn": ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("factor", "attention_factor", "short_factor", "long_factor", "short_mscale", "long_mscale"),
}
"""The constants that each of transformers' types reads."""
NEEDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
NEED_LENGTH = ("yarn", "llama3", "longrope")
LISTS = ("short_factor", "long_factor")
CONSTANTS = {name for names in USES.values() for name in names}
_ALIASES = {"su": "longrope", "mrope": "default"}  # of Phi-3's and Qwen2-VL's first configs


def number(value: object) -> float | None:
    """A value, where it is a finite number."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def known_types() -> list[str]:
    """Every rope type that somebody reads: transformers' and ours."""
    return [*USES, *(f"{way}_{method}" for way in ("exact", "resonance") for method in method_names())]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One encoding in a config.json, with what its class adds where the file is silent.

    raw         the part of the file that is about text
    rope        the encoding's parameters, as they stand in the file
    model_type  the family
    base, max_length, partial  b, max_position_embeddings and partial_rotary_factor that are used
    head_dim    a head's dimension; None where nothing tells it
    original    L as the class adds it
    by_layer    whether the config has other encodings beside this one, a layer type each
    """

    raw: Mapping[str, object]
    rope: Mapping[str, object]
    model_type: str
    base: object
    max_length: object
    head_dim: int | None
    partial: object = 1.0
    original: object = None
    by_layer: bool = False

    @property
    def kind(self) -> str:
        given = self.rope.get("rope_type", self.rope.get("type", "default"))
        return _ALIASES.get(given, given) if isinstance(given, str) else repr(given)

    def number(self, name: str) -> float | None:
        """One of the encoding's parameters, where it is given as a number."""
        return number(self.rope.get(name))

    @property
    def length(self) -> float | None:
        """L, where the file or the class tells it."""
        given = (where.get("original_max_position_embeddings") for where in (self.rope, self.raw))
        return next((value for value in map(number, (*given, self.original)) if value), None)

    @property
    def rotary_dim(self) -> int | None:
        head, partial = number(self.head_dim), number(self.partial)
        return None if head is None or partial is None else int(head * partial)

    def read_spec(self) -> EncodingSpec:
        """Our spec in the config. Raises KeyError where there is none, ValueError where it cannot be read."""
        spec = EncodingSpec.from_dict(self.rope[ENCODING]).filled()
        if self.rotary_dim and self.rotary_dim % 2 == 0:
            frequency_table(spec, self.rotary_dim)
        return spec

    @property
    def spec(self) -> EncodingSpec | None:
        """Our spec in the config, where there is one that can be read."""
        try:
            return self.read_spec()
        except (KeyError, ValueError):
            return None

    @property
    def amplitudes(self) -> tuple[float, float] | None:
        """The attention factor that is given, and the method's own; None where either is not known."""
        spec, scale, longest = self.spec, self.number("factor"), number(self.max_length)
        given, own = self.number("attention_factor"), None
        if spec is not None and self.rotary_dim:
            given = spec.attention_factor
            values = {name: value for name, value in spec.to_dict().items() if name != "attention_factor"}
            own = frequency_table(EncodingSpec.from_dict(values), self.rotary_dim).attention_factor
        elif self.kind == "yarn" and scale and scale > 1:
            own = 0.1 * math.log(scale) + 1
        elif self.kind == "longrope" and self.length and longest and longest > self.length > 1:
            own = math.sqrt(1 + math.log(longest / self.length) / math.log(self.length))
        return None if given is None or own is None else (given, own)
