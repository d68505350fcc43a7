"""The encoding in a config of transformers: read, completed, written. Importing this registers our rope types.

L is the training length in positions.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from difflib import get_close_matches

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RotaryEmbeddingConfigMixin

from resonance.encoding.frequencies import depends_on_length, frequency_table
from resonance.encoding.methods import method_names, method_of, powers
from resonance.encoding.spec import EncodingSpec
from resonance.hf.facts import CONSTANTS, OWN, OWN_LENGTH
from resonance.hf.facts import ENCODING as FIELD
from resonance.hf.module import ONLY

_CONSTANTS = {
    field.name: field.default
    for field in fields(EncodingSpec)
    if field.name not in ("method", "resonance", "rounding", "base", "train_length", "parameters")
}
"""The fields that say how a method scales, and their defaults."""
_OF_TYPES = {"rope_type", "type", "rope_theta", "original_max_position_embeddings", FIELD, OWN, OWN_LENGTH, *CONSTANTS}
"""Keys of a config that are written with every encoding; a model may keep others of its own beside them."""
_OF_MLA = {"factor", "mscale", "mscale_all_dim"}
"""What multi-head latent attention scales its logits by, whatever its rope type (DeepSeek and its kin)."""
_THEIRS = {
    "default": "rope", "linear": "linear", "dynamic": "dynamic_ntk", "yarn": "yarn", "llama3": "llama3",
    "longrope": "longrope",
}  # fmt: skip
"""transformers' types, and the methods that they are."""


def rope_type(spec: EncodingSpec) -> str:
    """The name of a spec's type in a config: `resonance_yarn`, `exact_linear`."""
    return f"{'resonance' if spec.resonance else 'exact'}_{spec.method or 'rope'}"


def original_length(config) -> int:
    """L of the pretrained model in positions, however often its encoding was exchanged since."""
    config = config.get_text_config()
    return min(_length(config, given) for given in _by_layer(config).values())


def _length(config, given: dict) -> int:
    length = (
        given.get("original_max_position_embeddings")
        or getattr(config, "original_max_position_embeddings", None)
        or getattr(config, "max_position_embeddings", None)
    )
    if not length:
        raise ValueError(f"{type(config).__name__} must say L as max_position_embeddings, got none")
    return int(length)


def rotary_dim(config) -> int:
    """R: the dimensions of a head that are turned."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head_dim * (next(iter(_by_layer(config).values())).get("partial_rotary_factor") or 1.0))


def spec_of(config) -> EncodingSpec:
    """The encoding that a config asks for, ours or transformers' own, as a filled spec.

    Raises ValueError for a type that no spec expresses, and for a model with an encoding a layer type.
    """
    specs = read_specs(config)
    if ONLY not in specs:
        raise ValueError(f"the model must have one encoding, got one for each of {', '.join(specs)}; use read_specs")
    return specs[ONLY]


def read_specs(config) -> dict[str, EncodingSpec]:
    """The encodings that a config asks for, by layer type; under `ONLY` where it has one for all."""
    config = config.get_text_config()
    return {
        name: _read_ours(given) if FIELD in given else _read_theirs(config, given)
        for name, given in _by_layer(config).items()
    }


def own_specs(config) -> dict[str, EncodingSpec]:
    """The encodings that a model was pretrained with, by layer type, whatever it holds now."""
    own = {}
    for name, given in _by_layer(config).items():
        if FIELD not in given:
            own[name] = _read_theirs(config, given)
        elif OWN in given:
            own[name] = EncodingSpec.from_dict(given[OWN]).filled()
        else:
            spec = _read_ours(given)
            own[name] = EncodingSpec(base=spec.base, train_length=original_length(config)).filled()
    return own


def fill(spec: EncodingSpec, own: EncodingSpec, override: Collection[str] = ()) -> EncodingSpec:
    """A spec completed from the model's own encoding.

    Raises ValueError where it contradicts the model in a field that override does not name: base and training length;
    the method of a model that was pretrained with a scaling; and, under that method, every constant but those left at
    the class's default.
    """
    given, facts = spec.to_dict(), own.to_dict()
    checked = ["base", "train_length"]
    if own.method != "rope":
        checked.append("method")
        if spec.method in (None, own.method):
            left_out = [name for name in _CONSTANTS if given[name] == _CONSTANTS[name] and name not in override]
            checked += [name for name in _CONSTANTS if name not in left_out]
            given |= {name: facts[name] for name in left_out}
            for name, value in spec.parameters.items():
                _check_fact(f"parameters.{name}", value, own.parameters[name], override)
            given["parameters"] = own.parameters | spec.parameters
            given["method"] = own.method
        given["scale"] = own.scale if spec.scale is None else spec.scale
    for name in checked:
        if getattr(spec, name) is not None:
            _check_fact(name, getattr(spec, name), facts[name], override)
    return EncodingSpec.from_dict(given).filled(base=own.base, train_length=own.train_length)


def _check_fact(name: str, given: object, own: object, override: Collection[str]) -> None:
    if given != own and name not in override:
        raise ValueError(
            f"{name} must be the model's own, {own}, got {given}; leave it out, or pass override=({name!r},) if the "
            "contradiction is meant"
        )


def length_of(config, specs: Mapping[str, EncodingSpec]) -> int:
    """L' of a config's model with these encodings: the pretrained one's own, except where they extend otherwise.

    A method's scale need not tell it: Llama 3.1's factor of 8 goes with 16 times its L.
    """
    own, original, unchanged = own_specs(config), original_length(config), _own_length(config)
    return max(
        unchanged
        if (spec.method, spec.scale) == (own[name].method, own[name].scale)
        else round(spec.scale * (spec.train_length or original))
        for name, spec in specs.items()
    )


def _own_length(config) -> int:
    """The pretrained model's max_position_embeddings, whatever the config says now."""
    given = next(iter(_by_layer(config).values()))
    if FIELD in given:
        return given.get(OWN_LENGTH) or _derived_length(config)
    return getattr(config, "max_position_embeddings", None) or original_length(config)


def _derived_length(config) -> int:
    return round(max(spec.scale for spec in own_specs(config).values()) * original_length(config))


def keys_of_model(given: Mapping[str, object]) -> dict[str, object]:
    """What a model's other code reads of its rope parameters, whatever their type: no encoding may take it away."""
    of_types = _OF_TYPES - _OF_MLA if given.get("mscale_all_dim") else _OF_TYPES
    return {key: value for key, value in given.items() if key not in of_types}


def write_specs(config, specs: Mapping[str, EncodingSpec], length: int) -> None:
    """Say in a config what its model now turns by."""
    own, before, original = own_specs(config), _by_layer(config), original_length(config)
    own_length = _own_length(config)
    length_told = own_length == _derived_length(config)
    written = {}
    for name, spec in specs.items():
        derived = EncodingSpec(base=spec.base, train_length=original).filled()
        written[name] = keys_of_model(before[name]) | {
            "rope_type": rope_type(spec),
            "rope_theta": spec.base,
            "original_max_position_embeddings": original,
            FIELD: spec.to_dict(),
        }
        written[name] |= {} if own[name] == derived else {OWN: own[name].to_dict()}
        written[name] |= {} if length_told else {OWN_LENGTH: own_length}
        if spec.method == "longrope":  # transformers' module follows the length for a type of this name alone
            written[name] |= as_longrope(spec, rotary_dim(config))
    config.rope_parameters = written.get(ONLY, {**config.rope_parameters, **written})
    # transformers' module for "dynamic" types reads L from here; ours reads the spec.
    follows = any(spec.method == "dynamic_ntk" for spec in specs.values())
    config.max_position_embeddings = original if follows else length
    try:
        config.validate_rope()
    except (TypeError, ValueError):
        # Phi-3's config takes longrope alone; every table that stays as it is can be said so.
        for name, spec in specs.items():
            written[name] |= as_longrope(spec, rotary_dim(config))
        config.rope_parameters = written.get(ONLY, {**config.rope_parameters, **written})


def as_longrope(spec: EncodingSpec, head_dim: int) -> dict[str, object]:
    """A spec in transformers' own words: `longrope` with one factor a feature, and the amplitude.

    Raises ValueError for a table that follows the length.
    """
    if depends_on_length(spec, head_dim) and spec.method != "longrope":
        raise ValueError(f"method must have one table to be written as longrope, got {spec.method}, which follows L_c")
    lengths = {"short_factor": 1, "long_factor": (spec.train_length or 0) + 1}
    plain = powers(spec.base, head_dim)
    amplitude = frequency_table(spec, head_dim).attention_factor
    return {
        "rope_type": "longrope",
        # transformers reads the first of these; vLLM and Phi-MoE the other two.
        **dict.fromkeys(("attention_factor", "short_mscale", "long_mscale"), amplitude),
        **{name: (plain / frequency_table(spec, head_dim, n).theta).tolist() for name, n in lengths.items()},
    }


def check_type(config) -> None:
    """Raises ValueError for a rope type that nobody has registered."""
    for given in _by_layer(config).values():
        kind = given.get("rope_type", "default")
        if kind not in ROPE_INIT_FUNCTIONS and kind != "default":
            _unknown_type(kind)


def _by_layer(config) -> dict[str, dict]:
    """A config's rope parameters by layer type, or under `ONLY`."""
    given = getattr(config, "rope_parameters", None)
    if not given:
        raise ValueError(f"the model must have rotary encodings, got {type(config).__name__} without rope_parameters")
    used = getattr(config, "layer_types", None) or ()
    nested = [name for name in config.nested_rope_parameter_keys(given) if given[name] and name in used]
    if any(isinstance(value, dict) and "rope_type" in value for value in given.values()) and not nested:
        raise ValueError(f"rope_parameters must go by layer type, got {', '.join(given)} in {type(config).__name__}")
    return {name: given[name] for name in nested} if nested else {ONLY: given}


def _read_ours(given: dict) -> EncodingSpec:
    """The spec in a config's rope parameters. Raises ValueError where the parts contradict each other."""
    spec, kind = EncodingSpec.from_dict(given[FIELD]).filled(), given.get("rope_type")
    if kind not in (rope_type(spec), "longrope"):
        raise ValueError(f"rope_type must be {rope_type(spec)} for this encoding, got {kind!r}; save the model again")
    if float(given.get("rope_theta", spec.base)) != spec.base:
        raise ValueError(f"rope_theta must be the encoding's base {spec.base}, got {given['rope_theta']}")
    return spec


def _read_theirs(config, given: dict) -> EncodingSpec:
    """One of transformers' own types as a spec."""
    kind = given.get("rope_type", "default")
    if kind not in _THEIRS:
        _unknown_type(kind)
    method, original = _THEIRS[kind], original_length(config)
    if kind == "dynamic" and given.get("alpha"):  # HunYuan: one table, whatever the length
        return EncodingSpec(
            method="ntk", base=given["rope_theta"], scale=given["alpha"], train_length=original
        ).filled()
    spec = {"method": method, "base": given["rope_theta"], "train_length": original}
    spec["parameters"] = {name: given[name] for name in getattr(method_of(method), "parameters", ())}
    if kind != "default":
        factor = given.get("factor")
        spec["scale"] = float(config.max_position_embeddings / original if factor is None else factor)
    if kind in ("yarn", "longrope"):
        spec["attention_factor"] = given.get("attention_factor")
    if kind != "yarn":
        return EncodingSpec(**spec).filled()
    if spec["attention_factor"] is None and given.get("mscale") and given.get("mscale_all_dim"):
        # DeepSeek: the quotient of two temperatures; attention carries the rest.
        temperatures = (0.1 * given[name] * math.log(spec["scale"]) + 1 for name in ("mscale", "mscale_all_dim"))
        spec["attention_factor"] = next(temperatures) / next(temperatures)
    return EncodingSpec(
        beta_fast=given.get("beta_fast") or 32.0,
        beta_slow=given.get("beta_slow") or 1.0,
        truncate=given.get("truncate", True),
        **spec,
    ).filled()


def _unknown_type(kind: object) -> None:
    if kind in ROPE_INIT_FUNCTIONS:
        raise ValueError(f"rope_type {kind} has no spec: it leaves features unturned; such a model keeps its own")
    known = [*_THEIRS, *(name for name in ROPE_INIT_FUNCTIONS if name.startswith(("exact_", "resonance_")))]
    near = get_close_matches(str(kind), known, 1)
    raise ValueError(
        f"rope_type must be one of {', '.join(known)}, got {kind!r}{f', did you mean {near[0]}?' if near else ''}; "
        "mend rope_parameters in the model's config.json, or ask for an encoding by name"
    )


# The rope types that transformers meets in a config of ours.


def _init_parameters(config, device=None, seq_len=None, layer_type=None, **_) -> tuple[torch.Tensor, float]:
    """A spec's (inv_freq, attention_scaling), for transformers' own rotary module."""
    given = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
    table = frequency_table(_read_ours(given), rotary_dim(config), None if seq_len is None else int(seq_len))
    return torch.from_numpy(table.theta).to(device=device, dtype=torch.float32), table.attention_factor


def _validate_parameters(self, rope_parameters: dict, ignore_keys: set | None = None) -> None:
    if FIELD not in rope_parameters:
        raise ValueError(
            f"rope_parameters.{FIELD} must hold the fields of an encoding for rope_type "
            f"{rope_parameters.get('rope_type')!r}, got none; swap_rotary writes them"
        )
    _read_ours(rope_parameters)


for _method in method_names():
    for _kind in (f"exact_{_method}", f"resonance_{_method}"):
        ROPE_INIT_FUNCTIONS.setdefault(_kind, _init_parameters)
        setattr(RotaryEmbeddingConfigMixin, f"_validate_{_kind}_rope_parameters", _validate_parameters)
