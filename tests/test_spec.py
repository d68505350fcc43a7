"""EncodingSpec: checked where it is made, canonical as JSON, and refused in one line that tells the cure."""

import json
from pathlib import Path

import numpy as np
import pytest

from resonance.encoding.frequencies import frequency_table
from resonance.encoding.rounding import ROUNDINGS
from resonance.encoding.spec import EncodingSpec
from resonance.record.settings import read_yaml

SPECS = [
    EncodingSpec(),
    EncodingSpec(resonance=True, base=500_000),
    EncodingSpec(method="linear", scale=4),
    EncodingSpec(method="ntk", scale=2.5, ntk_rule="paper"),
    EncodingSpec(method="dynamic_ntk", scale=4, train_length=64, resonance=True),
    EncodingSpec(method="yarn", scale=257 / 65, train_length=257, beta_fast=2, attention_factor=1.25),
    EncodingSpec(method="yarn", train_length=4096, ramp="wavelength", blend="wavelength", truncate=False),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.method)
def test_json_round_trip_gives_an_equal_spec(spec: EncodingSpec) -> None:
    again = EncodingSpec.from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.method)
def test_json_is_canonical(spec: EncodingSpec) -> None:
    values = json.loads(spec.to_json())
    assert spec.to_json() == json.dumps(values, sort_keys=True, separators=(",", ":"))
    assert len(values) == 13, "every field is written, defaults too"
    assert EncodingSpec(**dict(reversed(values.items()))).to_json() == spec.to_json()


def test_equal_specs_give_equal_strings_whatever_the_number_type() -> None:
    as_integers = EncodingSpec(method="yarn", base=10_000, scale=4, train_length=64, beta_fast=32, attention_factor=1)
    as_floats = EncodingSpec(
        method="yarn", base=np.float64(1e4), scale=4.0, train_length=64, beta_fast=32.0, attention_factor=1.0
    )
    assert as_integers == as_floats and hash(as_integers) == hash(as_floats)
    assert as_integers.to_json() == as_floats.to_json()


def test_different_specs_give_different_strings() -> None:
    assert len({spec.to_json() for spec in SPECS}) == len(SPECS)


def test_spec_is_frozen_and_keyword_only() -> None:
    with pytest.raises(AttributeError):
        EncodingSpec().scale = 2.0
    with pytest.raises(TypeError):
        EncodingSpec("yarn")


def test_the_named_encodings_of_config_are_what_their_names_say() -> None:
    """Five methods times Resonance; RoPE and YaRN by every other rule of rounding; YaRN with one wavelength moved."""
    named = read_yaml(Path(__file__).parents[1] / "config/encodings.yaml")
    specs = {name: EncodingSpec(**{"train_length": 64} | fields) for name, fields in named.items()}
    methods = ("rope", "linear", "ntk", "dynamic_ntk", "yarn")
    expected = {"resonance_" * on + method: (method, on, "nearest") for method in methods for on in (False, True)}
    others = [rule for rule in ROUNDINGS if rule != "nearest"]
    expected |= {f"{method}_{rule}": (method, True, rule) for method in ("rope", "yarn") for rule in others}
    moved = {"yarn_fastest_19": 19, "yarn_fastest_19_5": 19.5, "yarn_fastest_20": 20, "yarn_fastest_20_5": 20.5,
             "yarn_fastest_21": 21, "yarn_but_fastest": None}  # fmt: skip
    expected |= dict.fromkeys(moved, ("factors", False, "nearest"))
    assert {name: (spec.method, spec.resonance, spec.rounding) for name, spec in specs.items()} == expected
    yarn = EncodingSpec(method="yarn", train_length=64, scale=4.0, ramp="wavelength", blend="wavelength")
    plain = frequency_table(yarn, 64)
    for name, fastest in moved.items():
        wavelength = plain.wavelength if fastest else np.rint(plain.wavelength)
        wavelength = [fastest or plain.wavelength[0], *wavelength[1:]]
        table = frequency_table(specs[name], 64)
        assert table.wavelength == pytest.approx(wavelength, rel=1e-6), name
        assert table.attention_factor == pytest.approx(plain.attention_factor, rel=1e-12)


@pytest.mark.parametrize(
    ("fields", "named", "rule"),
    [
        ({"resonance": True, "rounding": "up"}, "rounding", "must be one of nearest, floor, ceil, even"),
        ({"rounding": "floor"}, "rounding", "must be left out without resonance, got 'floor'; set resonance: true"),
        (
            {"method": "yarm"},
            "method",
            "longrope, ntk, yarn, got 'yarm', did you mean yarn",
        ),
        ({"method": ["rope"]}, "method", "must be one of"),
        ({"resonance": 1}, "resonance", "must be true or false"),
        ({"resonance": "yes"}, "resonance", "must be true or false"),
        ({"truncate": None}, "truncate", "must be true or false"),
        ({"base": 1.0}, "base", "must be > 1"),
        ({"base": -10_000}, "base", "must be > 1"),
        ({"base": "10000"}, "base", "must be a finite number"),
        ({"base": True}, "base", "must be a finite number"),
        ({"base": float("nan")}, "base", "must be a finite number"),
        ({"base": float("inf")}, "base", "must be a finite number"),
        ({"scale": 0.25}, "scale", "must be >= 1"),
        ({"scale": "4"}, "scale", "must be a finite number"),
        ({"beta_slow": 0.0}, "beta_slow", "0 < beta_slow < beta_fast"),
        ({"beta_slow": 32.0}, "beta_slow", "0 < beta_slow < beta_fast"),
        ({"beta_fast": 0.5}, "beta_fast", "0 < beta_slow < beta_fast"),
        ({"beta_fast": []}, "beta_fast", "must be a finite number"),
        ({"ramp": "indices"}, "ramp", "must be one of index, wavelength"),
        ({"blend": "linear"}, "blend", "must be one of frequency, wavelength"),
        ({"blend": {}}, "blend", "must be one of"),
        ({"ntk_rule": "released"}, "ntk_rule", "must be one of bloc97, paper"),
        ({"train_length": 0}, "train_length", "must be an integer >= 1"),
        ({"train_length": 64.0}, "train_length", "must be an integer >= 1"),
        ({"train_length": True}, "train_length", "must be an integer >= 1"),
        ({"method": "rope", "parameters": 3}, "parameters", "must be a mapping"),
        ({"attention_factor": 0.0}, "attention_factor", "must be > 0"),
        ({"attention_factor": "1"}, "attention_factor", "must be a finite number"),
    ],
)
def test_bad_field_is_one_line_with_field_rule_and_value(fields: dict, named: str, rule: str) -> None:
    with pytest.raises(ValueError) as error:
        EncodingSpec.from_dict(fields)
    message = str(error.value)
    assert "\n" not in message
    assert named in message.split("must")[0] and rule in message
    assert repr(fields.get(named)) in message.split("got", 1)[1]


def test_an_integer_past_the_largest_float_is_refused_as_any_other_bad_number() -> None:
    with pytest.raises(ValueError, match=r"^base must be a finite number, got .*"):
        EncodingSpec(base=10**400)


def test_unknown_key_is_refused_and_never_ignored() -> None:
    with pytest.raises(ValueError, match=r"^scales is not a field of an encoding, did you mean scale\?; the fields"):
        EncodingSpec.from_dict({"method": "linear", "scales": 4})
    with pytest.raises(ValueError, match="1 is not a field"):
        EncodingSpec.from_dict({1: "rope"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"method": "llama3", "parameters": {"low_freq": 1}},
            "parameters.low_freq is not a parameter of method llama3, which has low_freq_factor, high_freq_factor, did "
            "you mean low_freq_factor?",
        ),
        ({"parameters": {"factors": [1]}}, "parameters.factors is not a parameter of method rope, which has none"),
        (
            {"method": "factors", "parameters": {"factors": [1, None]}},
            "parameters.factors[1] must be a finite number, got None",
        ),
    ],
)
def test_parameters_are_those_of_the_method(fields: dict, said: str) -> None:
    with pytest.raises(ValueError) as error:
        EncodingSpec(**fields)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"rope"'])
def test_json_that_is_no_mapping_is_a_value_error_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as error:
        EncodingSpec.from_json(text)
    assert "\n" not in str(error.value)


def test_a_spec_is_filled_by_what_is_known_and_then_by_roformers_own() -> None:
    assert EncodingSpec().filled() == EncodingSpec(method="rope", base=10_000, scale=1)
    filled = EncodingSpec(method="llama3", scale=8).filled(base=5e5, scale=2.0, train_length=8192)
    assert (filled.base, filled.scale, filled.train_length) == (5e5, 8.0, 8192)
    assert filled.parameters == {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert filled.filled() == filled == EncodingSpec.from_json(filled.to_json())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "yarn"}, "train_length must be given for method yarn, got None; it is L"),
        ({"method": "dynamic_ntk"}, "train_length must be given for method dynamic_ntk"),
        ({"method": "linear"}, "scale must be given for method linear, got None; it is L'/L"),
        ({"method": "factors"}, "parameters.factors must be given for method factors"),
    ],
)
def test_what_nobody_knows_is_asked_for(fields: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EncodingSpec(**fields).filled()
