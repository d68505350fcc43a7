"""What is wrong with a rotary encoding that a config.json asks for, as named findings. Loads no torch.

One rule, one function: from facts to findings, each a name and a sentence with its cure. A rule is about what programs
do in silence: take a default, drop a key, read one of two places. transformers logs a part of it
(`modeling_rope_utils`), and goes on.

Legend: L training length, L' the length to run at, s scale.
"""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np

from resonance.encoding.frequencies import frequency_table
from resonance.encoding.methods import powers
from resonance.hf.facts import (
    CONSTANTS,
    ENCODING,
    LISTS,
    NEED_LENGTH,
    NEEDS,
    OWN,
    OWN_LENGTH,
    USES,
    Facts,
    known_types,
    number,
)

_SHARED = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
_POSITIVE = ("attention_factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor")
_NUMBERS = sorted(CONSTANTS - {*LISTS, "truncate"} | {"original_max_position_embeddings"})
_SMALLEST_BASES = {("llama", 128256): 500_000, ("llama", 32016): 1_000_000, ("mistral", 32768): 1_000_000}
"""By model type and vocabulary, the base of pretraining of Llama 3, Code Llama and Mistral 0.3; what descends from them
only raised it. Other vocabularies were trained with several bases."""
_DTYPES = ("float32", "float16", "bfloat16", "float64", "auto")
_RATIO = 0.01  # how far L'/L may be from a factor: a length is rounded to an integer
_SQUARE = 1e-3  # how near the square of an amplitude counts as it: such a number was rounded


class Finding(NamedTuple):
    """One thing that is wrong: a name to search for, and a sentence with its cure."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def find(facts: Facts) -> list[Finding]:
    """Every finding, in the order of the rules."""
    return [finding for rule in RULES for finding in rule(facts)]


def _types(facts: Facts) -> Iterator[Finding]:
    rope, kind, known = facts.rope, facts.kind, known_types()
    if None not in (rope.get("type"), rope.get("rope_type")) and rope["type"] != rope["rope_type"]:
        yield Finding("two_types", f"rope_type is {rope['rope_type']!r} and type {rope['type']!r}; keep rope_type")
    given = sorted(name for name in CONSTANTS & set(rope) if rope[name] not in (None, 1))
    if given and not {"rope_type", "type"} & set(rope):
        yield Finding(
            "factor_without_type", f"{', '.join(given)} is dropped without a rope_type; name it, linear or yarn, say"
        )
    elif kind not in known:
        near = get_close_matches(kind, known, 1)
        mean = f"did you mean {near[0]}?" if near else f"it must be one of {', '.join(known)}"
        yield Finding("unknown_rope_type", f"rope_type {kind!r} is read by nobody; {mean}")
    elif ENCODING not in rope and (unused := [name for name in given if name not in USES.get(kind, ())]):
        yield Finding(
            "parameter_unused", f"{', '.join(unused)} is dropped by rope_type {kind}; remove it or mend the type"
        )


def _keys(facts: Facts) -> Iterator[Finding]:
    known = sorted({*CONSTANTS, *_SHARED, ENCODING})
    for name in set(facts.rope) - {*known, OWN, OWN_LENGTH}:
        if near := get_close_matches(name, known, 1, cutoff=0.85):
            yield Finding("unknown_key", f"{name} is read by nobody; did you mean {near[0]}?")


def _places(facts: Facts) -> Iterator[Finding]:
    old, new = facts.raw.get("rope_scaling"), facts.raw.get("rope_parameters")
    if old and new and old != new:
        yield Finding(
            "two_places", "rope_scaling and rope_parameters differ, and transformers reads the first; keep one"
        )


def _missing(facts: Facts) -> Iterator[Finding]:
    for name in NEEDS.get(facts.kind, ()):
        if facts.rope.get(name) is None and not (name == "factor" and facts.rope.get("alpha")):
            yield Finding(f"{name}_missing", f"rope_type {facts.kind} needs {name}; add it")
    if facts.kind in NEED_LENGTH and not facts.length:
        yield Finding(
            "original_length_missing",
            f"rope_type {facts.kind} needs original_max_position_embeddings, else max_position_embeddings "
            f"{facts.max_length} is taken for L; add the length of pretraining",
        )


def _values(facts: Facts) -> Iterator[Finding]:
    for name in _NUMBERS:
        if facts.rope.get(name) is not None and facts.number(name) is None:
            yield Finding("not_a_number", f"{name} is {facts.rope[name]!r}; write a number")
    for name in _POSITIVE:
        if (value := facts.number(name)) is not None and value <= 0:
            yield Finding("not_positive", f"{name} must be > 0, it is {value:g}; leave it out for the default")
    if (factor := facts.number("factor")) is not None and factor < 1:
        yield Finding("factor_below_one", f"factor is L'/L and must be >= 1, it is {factor:g}; write its inverse")
    if facts.raw.get("alibi"):
        yield Finding("alibi", "alibi is true, so the model turns nothing; leave it as it is")
    given = "max_position_embeddings" in facts.raw or facts.max_length is not None
    if given and (number(facts.max_length) or 0) < 1:
        yield Finding(
            "max_length_invalid", f"max_position_embeddings must be >= 1, it is {facts.max_length!r}; mend it"
        )


def _pairs(facts: Facts) -> Iterator[Finding]:
    fast, slow = facts.number("beta_fast") or 32.0, facts.number("beta_slow") or 1.0
    if 0 < fast <= slow:
        said = f"beta_fast must be above beta_slow, they are {fast:g} and {slow:g}; YaRN's are 32 and 1"
        yield Finding("betas_exchanged", said)
    low, high = facts.number("low_freq_factor"), facts.number("high_freq_factor")
    if low is not None and high is not None and low >= high > 0:
        said = f"low_freq_factor must be below high_freq_factor, they are {low:g} and {high:g}; Llama 3.1's are 1 and 4"
        yield Finding("frequency_factors_exchanged", said)


def _lengths(facts: Facts) -> Iterator[Finding]:
    original, longest = facts.length, number(facts.max_length)
    if original is None or longest is None or original < 1:
        return
    if original > longest:
        yield Finding(
            "original_length_too_large",
            f"original_max_position_embeddings {original:g} is above max_position_embeddings {longest:g}; mend one",
        )
        return
    # llama3's factor is that of the slowest features and says nothing of L'. Qwen's manual says a ratio of 1.
    scale, ratio = facts.number("factor") if facts.kind in ("yarn", "longrope") else None, longest / original
    if scale and scale >= 1 and ratio != 1 and abs(ratio - scale) > _RATIO * scale:
        yield Finding(
            "factor_contradicts_lengths",
            f"factor is {scale:g}, max_position_embeddings / original_max_position_embeddings {ratio:g}; mend one",
        )


def _amplitude(facts: Facts) -> Iterator[Finding]:
    given = [name for name in ("mscale", "mscale_all_dim") if facts.rope.get(name)]
    if len(given) == 1:
        yield Finding("mscale_alone", f"{given[0]} is dropped without its partner; give mscale and mscale_all_dim")
    if given and facts.rope.get("attention_factor") is not None:
        yield Finding("two_amplitudes", f"attention_factor overrules {' and '.join(given)}; keep one of them")
    if facts.amplitudes is not None:
        asked, own = facts.amplitudes
        if abs(asked / own**2 - 1) < _SQUARE < own - 1:
            yield Finding(
                "attention_factor_squared",
                f"attention_factor is {asked:g}, the square of the method's own {own:.6g}: q and k both carry it, so "
                "the logits take its square already; leave it out",
            )


def _base(facts: Facts) -> Iterator[Finding]:
    top, inner, used = facts.raw.get("rope_theta"), facts.rope.get("rope_theta"), number(facts.base)
    if used is None or used <= 1:
        yield Finding("base_invalid", f"rope_theta is the rotary base and must be > 1, it is {facts.base!r}; mend it")
        return
    if None not in (top, inner) and top != inner and not facts.by_layer:
        yield Finding("base_contradicted", f"rope_theta is {top} at the top and {inner} inside; keep the model's own")
    least = _SMALLEST_BASES.get((facts.model_type, number(facts.raw.get("vocab_size"))))
    if least and used < least:
        said = (
            f"{facts.model_type} with a vocabulary of {facts.raw['vocab_size']} was pretrained with {least:,} or more"
        )
        yield Finding("base_of_another_model", f"rope_theta is {used:g}, and {said}; write the model's own")


def _factors(facts: Facts) -> Iterator[Finding]:
    lists = {name: facts.rope[name] for name in LISTS if facts.rope.get(name) is not None}
    sound = len(lists) == 2
    for name, values in lists.items():
        if not isinstance(values, list) or any((number(value) or 0) <= 0 for value in values):
            sound = False
            yield Finding("factors_not_positive", f"{name} must be a list of numbers > 0; write the model's own")
        elif facts.rotary_dim and len(values) != facts.rotary_dim // 2:
            said = f"must have one number for each of {facts.rotary_dim // 2} features, it has {len(values)}"
            yield Finding("factors_wrong_length", f"{name} {said}; it is another model's, or head_dim is")
    if sound and np.mean(lists["short_factor"]) > np.mean(lists["long_factor"]):
        yield Finding(
            "factors_exchanged", "short_factor stretches more than long_factor, the one past L; exchange them"
        )


def _dimensions(facts: Facts) -> Iterator[Finding]:
    hidden, heads, partial = facts.raw.get("hidden_size"), facts.raw.get("num_attention_heads"), number(facts.partial)
    named = any(facts.raw.get(name) is not None for name in ("head_dim", "qk_rope_head_dim"))
    if not named and number(hidden) and number(heads) and hidden % heads:
        said = f"hidden_size {hidden} is no multiple of num_attention_heads {heads} and there is no head_dim; add it"
        yield Finding("head_dim_undefined", said)
    if partial is None or not 0 < partial <= 1:
        yield Finding("partial_rotary_factor_invalid", f"it must be in (0, 1], it is {facts.partial!r}; mend it")
    elif facts.rotary_dim is not None and (facts.rotary_dim % 2 or facts.rotary_dim < 2):
        said = f"head_dim {facts.head_dim} times partial_rotary_factor {partial:g} is {facts.rotary_dim}"
        yield Finding("rotary_dim_odd", f"{said}, and a rotation turns pairs; mend one of them")


def _dtype(facts: Facts) -> Iterator[Finding]:
    given = facts.raw.get("dtype", facts.raw.get("torch_dtype"))
    if isinstance(given, str) and given.removeprefix("torch.") not in _DTYPES:
        said = f"dtype is {given}, and tables and activations take it too: it must be one of {', '.join(_DTYPES)}"
        yield Finding("dtype_ruins_tables", f"{said}; narrower weights belong under quantization_config")


def _encoding(facts: Facts) -> Iterator[Finding]:
    rope, kind = facts.rope, facts.kind
    if ENCODING not in rope:
        if kind.startswith(("exact_", "resonance_")):
            yield Finding("encoding_missing", f"rope_type {kind} needs {ENCODING}; swap_rotary writes it")
        return
    try:
        spec = facts.read_spec()
    except ValueError as error:
        yield Finding("encoding_unreadable", str(error))
        return
    cure = "swap the encoding again, or mend the one that was edited"
    wanted = f"{'resonance' if spec.resonance else 'exact'}_{spec.method}"
    if kind in known_types() and kind not in (wanted, "longrope"):
        yield Finding("encoding_contradicts_type", f"rope_type is {kind} and the encoding {wanted}; {cure}")
    if facts.number("rope_theta") not in (None, spec.base):
        said = f"rope_theta is {rope['rope_theta']} and the encoding's base {spec.base:g}"
        yield Finding("encoding_contradicts_base", f"{said}; {cure}")
    factors, dim = rope.get("short_factor"), facts.rotary_dim
    if isinstance(factors, list) and dim and len(factors) == dim // 2:
        ours = powers(spec.base, dim) / frequency_table(spec, dim).theta
        if not np.allclose(ours, factors, rtol=1e-5):
            yield Finding("encoding_contradicts_factors", f"short_factor is another table than the encoding's; {cure}")
    original, longest = facts.length, number(facts.max_length)
    if original is None or longest is None:
        return
    if spec.train_length not in (None, original):
        said = f"its train_length is {spec.train_length}, original_max_position_embeddings {original:g}"
        yield Finding("encoding_contradicts_length", f"{said}; {cure}")
        return
    own = rope.get(OWN) or {}
    if (own.get("method"), own.get("scale")) == (spec.method, spec.scale):
        return  # the pretrained model's own L', which its scale need not tell
    reach = original if spec.method == "dynamic_ntk" else spec.scale * (spec.train_length or original)
    if reach - longest > _RATIO * reach or (longest - reach > _RATIO * reach and not facts.by_layer):
        said = f"max_position_embeddings is {longest:g} and the encoding's s*L {reach:g}"
        yield Finding("encoding_contradicts_max_length", f"{said}; {cure}")


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *(_types, _keys, _places, _missing, _values, _pairs, _lengths),
    *(_amplitude, _base, _factors, _dimensions, _dtype, _encoding),
)
