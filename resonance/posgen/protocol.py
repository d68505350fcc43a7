"""Protocol: every choice of PosGen where the paper's text and its released code differ.

One field a choice, P1 to P15 as in config/protocols.yaml, where the two named protocols stand.
Further protocols are further entries there; those with a choice flipped need none (`with_choices`).
"""

import re
from typing import Literal

from resonance.encoding.spec import EncodingSpec
from resonance.posgen.settings import DataSettings, TrainChoices
from resonance.record.choices import YarnChoices
from resonance.record.settings import Count, SettingsError, parse

CHOICES = {
    "P1": ("prefixes",),
    "P2": ("train_encoding",),
    "P3": ("yarn_ramp", "yarn_blend", "yarn_beta_fast", "yarn_beta_slow", "yarn_lengths"),
    "P4": ("yarn_temperature",),
    "P5": ("num_layers",),
    "P6": ("trained",),
    "P7": ("attention_scale",),
    "P8": ("pair_layout",),
    # The end token needs an entry of the vocabulary, so P15 goes with P9.
    "P9": ("start_token", "num_extra_tokens"),
    "P10": ("schedule", "dropout", "selection"),
}
"""The fields that a P number stands for. P11 to P14 are the same in both protocols here."""
_UNSCALED = ("resonance", "rounding", "base")
"""What an encoding without its scaling keeps."""
VARIANTS = {"beta32": {"yarn_beta_fast": 32.0}}
"""Values that neither protocol takes. `beta32`: YaRN's alpha 1 and beta 32, which the text states for the LLaMA family
(C.2) and the protocol `paper` does not carry over to L = 64, where they interpolate even the fastest feature."""
LENGTHS = {"L": "train_length", "k": "k"}
"""What a variant like `L56` or `k5` replaces, of the preset's data."""


class Protocol(TrainChoices, YarnChoices):
    """How PosGen is drawn, trained and measured. P3 is YaRN's choices."""

    prefixes: Literal["distinct", "combinations"]
    """P1. `distinct`: drawn from all m^(j+k), none shared between splits. `combinations`: strictly
    increasing tuples, cycled; validation and test are rows of the training list."""
    train_encoding: Literal["evaluated", "unscaled"]
    """P2. `evaluated`: trained with the encoding it is tested with. `unscaled`: trained with RoPE
    (or Resonance RoPE); the scaled table is used in evaluation only."""
    yarn_lengths: Literal["sequence", "table"]
    """P3. `sequence`: L and s = L'/L. `table`: L'+1 in L's place and s = (L'+1)/(L+1), the sizes of
    the released code's tables."""
    yarn_temperature: bool
    """P4. Whether cos and sin carry YaRN's 0.1*ln(s) + 1 (wherever the scaled table is used)."""
    train_length: Count | None = None
    """L of a variant; None: the preset's."""
    k: Count | None = None
    """How many near tokens a token depends on, of a variant; None: the preset's."""

    def data(self, settings: DataSettings) -> DataSettings:
        """The sequences' settings with what is this protocol's own. Raises SettingsError where they do not fit."""
        own = {name: value for name in LENGTHS.values() if (value := getattr(self, name)) is not None}
        return parse(DataSettings, settings.model_dump() | own, "a variant's data") if own else settings

    def train_choices(self) -> TrainChoices:
        return TrainChoices(**{name: getattr(self, name) for name in TrainChoices.model_fields})

    def encoding_spec(self, fields: dict, train_length: int, test_length: int) -> EncodingSpec:
        """An encoding's fields of config/encodings.yaml, completed for a train-short-test-long task.

        What the entry leaves out is filled in: L and s from the lengths (P3), YaRN's constants
        from the protocol. What it says wins.
        """
        spec = dict(fields)
        if spec.get("method", "rope") != "rope":
            spec.setdefault("train_length", train_length)
            spec.setdefault("scale", test_length / train_length)
        if spec.get("method") == "yarn":
            if self.yarn_lengths == "table":
                spec["train_length"] = fields.get("train_length", test_length + 1)
                spec["scale"] = fields.get("scale", (test_length + 1) / (train_length + 1))
            self.fill(spec)
            if not self.yarn_temperature:
                spec.setdefault("attention_factor", 1.0)
        return EncodingSpec.from_dict(spec).filled()

    def train_encoding_name(self, name: str, encodings: dict[str, dict]) -> str:
        """The encoding that is in the model while `name` is trained for (P2)."""
        fields = encodings[name]
        if self.train_encoding == "evaluated" or fields.get("method", "rope") == "rope":
            return name
        wanted = EncodingSpec.from_dict({key: fields[key] for key in _UNSCALED if key in fields}).filled()
        specs = {
            other: EncodingSpec.from_dict(of).filled()
            for other, of in encodings.items()
            if of.get("method", "rope") == "rope"
        }
        alike = [
            other for other, spec in specs.items() if all(getattr(spec, k) == getattr(wanted, k) for k in _UNSCALED)
        ]
        if alike:
            return min(alike, key=lambda other: specs[other] != wanted)  # one that says no more, where there is one
        raise SettingsError(
            f"config/encodings.yaml: train_encoding `unscaled` (P2) trains {name} with its unscaled encoding "
            f"(method rope, base {wanted.base:g}, resonance {str(wanted.resonance).lower()}, rounding "
            f"{wanted.rounding}), which no entry is; add one"
        )


def base_and_choice(protocol: str) -> tuple[str, str]:
    """`paper+beta32+P5` as its base `paper+beta32`, which takes no choice of the other protocol, and `P5`."""
    base, *parts = protocol.split("+")
    while parts and parts[0] in VARIANTS:
        base = f"{base}+{parts.pop(0)}"
    return base, "+".join(parts)


def with_choices(name: str, protocols: dict[str, Protocol]) -> Protocol:
    """The protocol that a name like `paper+P5`, `released+P2+P3`, `paper+beta32` or `paper+L56` stands for: the one
    named first, with the named choices of the other one of `paper` and `released`, or a variant's values, from left to
    right.

    Raises SettingsError for an unknown base or choice, or for choices that do not go together.
    """
    base, *flipped = name.split("+")
    if not flipped and base in protocols:
        return protocols[base]
    others = {"paper": "released", "released": "paper"}
    if base not in others or not {*others} <= protocols.keys():
        raise SettingsError(
            f"{name!r} is not defined; config/protocols.yaml names {', '.join(protocols)}, and paper+P5, say, is paper "
            "with choice P5 of released"
        )
    fields, other = protocols[base].model_dump(), protocols[others[base]]
    given = set()
    for choice in flipped:
        length = re.fullmatch(r"([Lk])([1-9]\d{0,5})", choice)
        if (key := length[1] if length else choice) in given:
            raise SettingsError(f"{name!r}: a choice must be given once, got {', '.join(flipped)}")
        given.add(key)
        if length:
            fields[LENGTHS[length[1]]] = int(length[2])
        elif choice in VARIANTS:
            fields.update(VARIANTS[choice])
        elif choice in CHOICES:
            fields.update({field: getattr(other, field) for field in CHOICES[choice]})
        else:
            known = ", ".join([*CHOICES, *VARIANTS])
            raise SettingsError(f"{name!r}: a choice must be one of {known}, L56 or k5, say, got {choice!r}")
    return parse(Protocol, fields, name)
