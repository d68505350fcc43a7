"""EncodingSpec: one rotary position encoding as data.

Holds no arithmetic and imports no torch. The names are the paper's: `train_length` is L,
`scale` is s = L'/L, `base` is b. A spec is checked where it is made; whoever holds one may trust
it.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches

from resonance.encoding.methods import method_names, method_of
from resonance.encoding.rounding import ROUNDINGS

RAMPS = ("index", "wavelength")
BLENDS = ("frequency", "wavelength")
NTK_RULES = ("bloc97", "paper")


@dataclass(frozen=True, kw_only=True)
class EncodingSpec:
    """One rotary encoding: a method, its constants, and whether Resonance follows.

    method            `rope`, `linear`, `ntk`, `dynamic_ntk`, `yarn`, `llama3`, `longrope`, `factors`, or a name
                      that an installed package registers under the entry point group `resonance.methods`
    resonance         round every wavelength to an integer after the method (Algorithm 1)
    rounding          to which one, with resonance: `nearest` (the paper), `floor`, `ceil`, the nearest
                      `even` or `odd`, the nearest `prime` or pairwise `coprime` integer that no faster
                      feature has; or, as controls, to no integer at all: `reflected`,
                      2*lambda - round(lambda), as far from lambda as nearest is, the other way;
                      `half`, floor(lambda) + 1/2; `lowered` and `raised`, lambda -+ 1/2, which move
                      every wavelength as far as floor and ceil do on average
    base              b, the rotary base
    scale             s = L'/L, how much longer the test sequences are; >= 1
    train_length      L in positions; needed by `dynamic_ntk`, `yarn`, `llama3` and `longrope`
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
                      0.1*ln(s) + 1 for YaRN (its temperature, sqrt(1/t)), sqrt(1 + ln(s)/ln(L)) for
                      LongRoPE, and 1 elsewhere
    parameters        what a method has for itself, by name: `low_freq_factor` and `high_freq_factor` of `llama3`,
                      `short_factor` and `long_factor` of `longrope`, `factors` of `factors` (one a feature)

    method, base, scale and train_length may be None: whoever holds a model fills them from it
    (`resonance.hf.swap`), and `filled` does where there is none.

    The defaults of `ramp`, `blend`, `truncate` and `ntk_rule` are those of the released codes, so
    that a checkpoint trained elsewhere with YaRN meets the table that it was trained with.

    Raises ValueError: one line that names the field, the rule, the value and the cure.
    """

    method: str | None = None
    resonance: bool = False
    rounding: str = "nearest"
    base: float | None = None
    scale: float | None = None
    train_length: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ramp: str = "index"
    blend: str = "frequency"
    truncate: bool = True
    ntk_rule: str = "bloc97"
    attention_factor: float | None = None
    parameters: dict[str, float | tuple[float, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.method is not None and (not isinstance(self.method, str) or self.method not in method_names()):
            raise ValueError(
                f"method must be one of {', '.join(method_names())}, got {self.method!r}{_nearest(self.method)}; "
                "a method of your own registers under the entry point group resonance.methods"
            )
        for name in ("resonance", "truncate"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("base", "scale", "beta_fast", "beta_slow", "attention_factor"):
            if getattr(self, name) is not None or name.startswith("beta"):
                object.__setattr__(self, name, _number(name, getattr(self, name)))
        if self.base is not None and self.base <= 1:
            raise ValueError(f"base is the rotary base b and must be > 1, got {self.base}; RoPE's is 10000")
        if self.scale is not None and self.scale < 1:
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
        if self.attention_factor is not None and self.attention_factor <= 0:
            raise ValueError(
                f"attention_factor must be > 0, got {self.attention_factor}; leave it out for the method's own"
            )
        if not isinstance(self.parameters, Mapping):
            raise ValueError(f"parameters must be a mapping of names to values, got {self.parameters!r}")
        known = method_of(self.method or "rope").parameters
        for name in self.parameters:
            if name not in known:
                raise ValueError(
                    f"parameters.{name} is not a parameter of method {self.method or 'rope'}, which has "
                    f"{', '.join(known) or 'none of its own'}{_nearest(name, known)}"
                )
        numbers = {name: _numbers(f"parameters.{name}", value) for name, value in self.parameters.items()}
        object.__setattr__(self, "parameters", numbers)

    def filled(self, **values: object) -> "EncodingSpec":
        """The spec with every field that is None given a value: that of values, else `rope`, b = 10,000 (RoFormer),
        s = 1 and the method's own parameters.

        Raises ValueError where the method needs L, s or a parameter and nobody gave it.
        """
        values = {name: value for name, value in values.items() if getattr(self, name) is None}
        spec = replace(self, **{"method": self.method or "rope", **values})
        method = method_of(spec.method)
        for name, needed, what in (
            ("train_length", method.needs_train_length, "L, the length trained on"),
            ("scale", method.needs_scale, "L'/L, how much longer to go"),
        ):
            if needed and getattr(spec, name) is None:
                raise ValueError(f"{name} must be given for method {spec.method}, got None; it is {what}")
        parameters = {**method.parameters, **spec.parameters}
        for name, value in parameters.items():
            if value is None:
                raise ValueError(f"parameters.{name} must be given for method {spec.method}, got None")
        return replace(
            spec,
            base=10_000.0 if spec.base is None else spec.base,
            scale=1.0 if spec.scale is None else spec.scale,
            parameters=parameters,
        )

    def to_dict(self) -> dict:
        """Every field by name, parameters where there are any; the inverse of `from_dict`."""
        values = asdict(self)
        if not values["parameters"]:
            del values["parameters"]
        return values

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
                raise ValueError(
                    f"{key} is not a field of an encoding{_nearest(key, known)}; the fields are {', '.join(known)}"
                )
        return cls(**values)


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer past the largest float
        value = "an integer past 1e308"
    raise ValueError(f"{name} must be a finite number, got {value!r}")


def _numbers(name: str, value: object) -> float | tuple[float, ...]:
    """A number, or a sequence of numbers as a tuple."""
    if isinstance(value, list | tuple):
        return tuple(_number(f"{name}[{j}]", one) for j, one in enumerate(value))
    return _number(name, value)


def _nearest(name: object, known: Iterable[str] | None = None) -> str:
    """ ", did you mean X?" where a known name is near."""
    near = get_close_matches(str(name), list(method_names() if known is None else known), 1)
    return f", did you mean {near[0]}?" if near else ""
