"""EncodingSpec: one rotary position encoding as data.

Holds no arithmetic and imports no torch. The names are the paper's: `train_length` is L,
`scale` is s = L'/L, `base` is b. A spec is checked where it is made; whoever holds one may trust
it.
"""

import json
import math
from dataclasses import asdict, dataclass, fields

from resonance.encoding.methods import method_names, method_of
from resonance.encoding.rounding import ROUNDINGS

RAMPS = ("index", "wavelength")
BLENDS = ("frequency", "wavelength")
NTK_RULES = ("bloc97", "paper")


@dataclass(frozen=True, kw_only=True)
class EncodingSpec:
    """One rotary encoding: a method, its constants, and whether Resonance follows.

    method            `rope`, `linear`, `ntk`, `dynamic_ntk`, `yarn`, or a name that an installed
                      package registers under the entry point group `resonance.methods`
    resonance         round every wavelength to an integer after the method (Algorithm 1)
    rounding          to which one, with resonance: `nearest` (the paper), `floor`, `ceil`, the nearest
                      `even` or `odd`, the nearest `prime` or pairwise `coprime` integer that no faster
                      feature has; or, as controls, to no integer at all: `reflected`,
                      2*lambda - round(lambda), as far from lambda as nearest is, the other way;
                      `half`, floor(lambda) + 1/2; `lowered` and `raised`, lambda -+ 1/2, which move
                      every wavelength as far as floor and ceil do on average
    base              b, the rotary base (RoFormer: 10,000)
    scale             s = L'/L, how much longer the test sequences are; >= 1
    train_length      L in positions; needed by `dynamic_ntk` and `yarn`
    beta_fast         YaRN's beta: features that turn more often than this over L stay as they are
    beta_slow         YaRN's alpha: features that turn less often are fully interpolated
    ramp              what YaRN's gamma is linear in between the two: `index`, the feature's index
                      (YaRN's released code and transformers), or `wavelength`, L/lambda_j (section
                      3.3 of the Resonance paper)
    blend             what gamma mixes: `frequency`, theta_j (YaRN's paper, code and transformers),
                      or `wavelength`, lambda_j (section 3.3)
    truncate          with ramp `index`: widen the ramp to whole feature indices, as YaRN's code does
    ntk_rule          `bloc97`: the base grows by s^(d/(d-2)), dynamic NTK by
                      (s*L_c/L - (s-1))^(d/(d-2)) (the released codes); `paper`: the base grows by
                      s, dynamic NTK by L_c/L (appendix C.2)
    attention_factor  the amplitude of the rotated vectors; None: the method's own, which is
                      0.1*ln(s) + 1 for YaRN (its temperature, sqrt(1/t)) and 1 elsewhere

    The defaults of `ramp`, `blend`, `truncate` and `ntk_rule` are those of the released codes, so
    that a checkpoint trained elsewhere with YaRN meets the table that it was trained with.

    Raises ValueError: one line that names the field, the rule, the value and the cure.
    """

    method: str = "rope"
    resonance: bool = False
    rounding: str = "nearest"
    base: float = 10_000.0
    scale: float = 1.0
    train_length: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ramp: str = "index"
    blend: str = "frequency"
    truncate: bool = True
    ntk_rule: str = "bloc97"
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or self.method not in method_names():
            raise ValueError(
                f"method must be one of {', '.join(method_names())}, got {self.method!r}; "
                "a method of your own registers under the entry point group resonance.methods"
            )
        for name in ("resonance", "truncate"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("base", "scale", "beta_fast", "beta_slow"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if self.base <= 1:
            raise ValueError(f"base is the rotary base b and must be > 1, got {self.base}; RoPE's is 10000")
        if self.scale < 1:
            raise ValueError(f"scale is L'/L and must be >= 1, got {self.scale}; leave it out for an unscaled encoding")
        if not 0 < self.beta_slow < self.beta_fast:
            raise ValueError(
                f"beta_slow and beta_fast must satisfy 0 < beta_slow < beta_fast, got {self.beta_slow} and "
                f"{self.beta_fast}; YaRN's own are 1 and 32"
            )
        for name, allowed in (
            ("ramp", RAMPS), ("blend", BLENDS), ("ntk_rule", NTK_RULES), ("rounding", ROUNDINGS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.rounding != "nearest" and not self.resonance:
            raise ValueError(
                f"rounding must be left out without resonance, got {self.rounding!r}; set resonance: true, or nothing "
                "is rounded"
            )
        if self.train_length is not None and (
            isinstance(self.train_length, bool) or not isinstance(self.train_length, int) or self.train_length < 1
        ):
            raise ValueError(f"train_length is L in positions and must be an integer >= 1, got {self.train_length!r}")
        if self.train_length is None and method_of(self.method).needs_train_length:
            raise ValueError(
                f"train_length must be given for method {self.method}, got None; it is L, the length trained on"
            )
        if self.attention_factor is not None:
            object.__setattr__(self, "attention_factor", _number("attention_factor", self.attention_factor))
            if self.attention_factor <= 0:
                raise ValueError(
                    f"attention_factor must be > 0, got {self.attention_factor}; leave it out for the method's own"
                )

    def to_dict(self) -> dict:
        """Every field by name; the inverse of `from_dict`."""
        return asdict(self)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, every field, no spaces. Equal specs give equal strings."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "EncodingSpec":
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: dict) -> "EncodingSpec":
        """A spec from a mapping. Raises ValueError on a key that is no field: none is ignored."""
        if not isinstance(values, dict):
            raise ValueError(f"an encoding must be a mapping of fields to values, got {type(values).__name__}")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(f"{key} is not a field of an encoding; the fields are {', '.join(known)}")
        return cls(**values)


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer past the largest float
        value = "an integer past 1e308"
    raise ValueError(f"{name} must be a finite number, got {value!r}")
