"""A model with our encoding as files that others open as they are: transformers, vLLM and SGLang here, llama.cpp in
`gguf_file`.

    export_transformers("swapped-model", "out")                   # the encoding that its config holds
    export_transformers("llama-3.1", "out", EncodingSpec(resonance=True))  # another one

transformers' rope type `longrope` has one divisor a feature and an explicit amplitude, so it can say every table that
does not follow the length. What no other program has is the lookup at m mod period: theirs is m*theta in float32.

Legend: T positions, d/2 features, L' = s*L positions.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from resonance.encoding.frequencies import FrequencyTable, frequency_table
from resonance.encoding.spec import EncodingSpec
from resonance.hf.module import ONLY
from resonance.hf.parameters import (
    as_longrope,
    fill,
    keys_of_model,
    length_of,
    original_length,
    own_specs,
    read_specs,
    rope_type,
    rotary_dim,
)

_TOLERANCE = 1e-5  # of theta, relative: five times what float32 loses on the way through llama.cpp's chain of products
_SAMPLE = 2048  # the last positions of L', where float32 loses most
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_BASE_NAMES = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}
"""What transformers before 5 calls rope_theta and partial_rotary_factor where it has names of their own."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how far what others compute from it is from our table.

    path       the folder or file
    form       how it says the encoding
    spec       the encoding
    length     L' in positions
    theta      largest relative difference of theta_j, as read back from the file
    amplitude  relative difference of the attention factor, as read back
    table      largest difference of cos or sin in the last 2,048 positions of L'
    gap        largest difference of cos or sin between m and m mod period there; 0 in our table
    """

    path: Path
    form: str
    spec: EncodingSpec
    length: int
    theta: float
    amplitude: float
    table: float
    gap: float

    def __str__(self) -> str:
        zero = f"; the gap of Theorem 1 is {self.gap:.1e} there and exactly 0 here" if self.spec.resonance else ""
        return (
            f"{self.path}: {rope_type(self.spec)} as {self.form}\n"
            f"read back: theta within {self.theta:.1e} of ours (relative), the amplitude within {self.amplitude:.1e}\n"
            f"lost: angles are m*theta in float32, cos and sin up to {self.table:.1e} off just below position "
            f"{self.length:,}{zero}"
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model to export: its encoding, R, L and L' in positions, and the rope parameters that its other code reads."""

    spec: EncodingSpec
    head_dim: int
    train_length: int
    length: int
    others: Mapping[str, object] = field(default_factory=dict)

    def table(self, seq_len: int | None = None) -> FrequencyTable:
        return frequency_table(self.spec, self.head_dim, seq_len)


def export_transformers(model: str | Path, out: str | Path, spec: EncodingSpec | None = None) -> Exported:
    """Write a folder that transformers, vLLM and SGLang open without this package.

    model  a folder with config.json; weights are linked where the file system can, else copied, never changed
    out    a folder that does not exist or is empty
    spec   the encoding to write, filled from the model as by `swap_rotary`; None: the one that the config holds

    Raises ValueError for an encoding that one table cannot say (it follows the length), for one that contradicts the
    model, and where transformers reads another table from what was written: then nothing is left at out.
    """
    model, out = Path(model), Path(out)
    source = read_source(model, spec)
    rope = as_longrope(source.spec, source.head_dim) | {
        "rope_theta": source.spec.base,
        "factor": source.others.get("factor", max(1.0, source.length / source.train_length)),
        "original_max_position_embeddings": source.train_length,
    }
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, got {out}; nothing in it is overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        written = Path(folder, out.name)
        written.mkdir()
        write_config(model, written, source, rope)
        link_files(model, written)
        figures = _compare_longrope(AutoConfig.from_pretrained(written).get_text_config(), source)
        written.rename(out)
    return Exported(path=out, form="transformers' longrope", spec=source.spec, length=source.length, **figures)


def read_source(model: Path, spec: EncodingSpec | None) -> Source:
    """The model in a folder, with the encoding to export. Raises ValueError as `export_transformers`."""
    if not (model / "config.json").is_file():
        raise ValueError(f"model must be a folder with config.json, got {model}; save_pretrained writes one")
    config = AutoConfig.from_pretrained(model).get_text_config()
    specs, train_length = read_specs(config), original_length(config)
    if ONLY not in specs:
        raise ValueError(f"the model must have one encoding for all layers, got one for each of {', '.join(specs)}")
    now = specs[ONLY]
    asked = now if spec is None or spec == now else fill(spec, own_specs(config)[ONLY])
    length = config.max_position_embeddings if asked == now else length_of(config, {ONLY: asked})
    if length >= 2**31:
        raise ValueError(f"scale * L must be below 2^31 positions, got {length:,}; lower scale")
    return Source(
        spec=asked,
        head_dim=rotary_dim(config),
        train_length=train_length,
        length=length,
        others=keys_of_model(config.rope_parameters),
    )


def write_config(model: Path, out: Path, source: Source, rope: Mapping[str, object] | None) -> None:
    """The model's config.json with another encoding, in the words of transformers 4, which 5 reads too.

    rope  the rope parameters; None: plain RoPE of the same base
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    partial = source.others.get("partial_rotary_factor")
    names = _BASE_NAMES.get(text.get("model_type"), ("rope_theta", "partial_rotary_factor"))
    text.pop("rope_parameters", None)
    text.pop("rope_scaling", None)
    text[names[0]] = source.spec.base
    text["max_position_embeddings"] = source.length
    if partial is not None:
        text[names[1]] = partial
    if rope is None and source.others.keys() - {"partial_rotary_factor"}:
        text["rope_scaling"] = {"rope_type": "default", **source.others}
    if rope is not None:
        text["rope_scaling"] = {**source.others, **rope}
        # Phi-3 reads L from here, and takes a default of its own for a config's silence.
        text["original_max_position_embeddings"] = source.train_length
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def link_files(model: Path, out: Path) -> None:
    """Every file beside config.json: weights are linked where the file system can, all else is copied, to be edited."""
    for path in sorted(model.iterdir()):
        if not path.is_file() or path.name == "config.json":
            continue
        if path.suffix in _WEIGHTS:
            try:
                os.link(path.resolve(), out / path.name)
                continue
            except OSError:  # another file system, or one without links
                pass
        shutil.copy2(path, out / path.name)


def compare(
    ours: FrequencyTable,
    theta: np.ndarray,
    amplitude: float,
    angles: Callable[[np.ndarray], np.ndarray],
    length: int,
) -> dict[str, float]:
    """How far another program's table is from ours, as the figures of `Exported`.

    theta      float [d/2], its frequencies
    amplitude  its attention factor
    angles     its angles, float32 [T, d/2], at positions int64 [T, d/2]
    length     L' in positions

    Raises ValueError where theta or the amplitude is another than ours.
    """
    figures = {
        "theta": float(np.abs(theta / ours.theta - 1).max()),
        "amplitude": abs(amplitude / ours.attention_factor - 1),
    }
    if max(figures.values()) > _TOLERANCE:
        raise ValueError(
            f"the file must give our table when read back, got theta off by {figures['theta']:.1e} and the amplitude "
            f"by {figures['amplitude']:.1e} (relative); this model's family reads its config in another way"
        )
    m = np.arange(max(0, length - _SAMPLE), length)[:, None]
    m = np.broadcast_to(m, (len(m), len(ours.theta)))
    reduced = np.where(ours.period > 0, m % np.maximum(ours.period, 1), m)
    there, near = angles(m), angles(reduced)
    exact = reduced * ours.theta

    def largest(a: np.ndarray, b: np.ndarray) -> float:
        return float(ours.attention_factor * max(np.abs(turn(a) - turn(b)).max() for turn in (np.cos, np.sin)))

    return figures | {"table": largest(there, exact), "gap": largest(there, near)}


def _compare_longrope(config, source: Source) -> dict[str, float]:
    """What transformers computes of a config, up to L and past it, beside our tables."""
    if config.rope_parameters.get("rope_type") != "longrope":
        raise ValueError(f"{type(config).__name__} must keep rope type longrope, got {config.rope_parameters}")
    figures: dict[str, float] = {}
    for length in {source.train_length, max(source.length, source.train_length + 1)}:
        inv_freq, amplitude = ROPE_INIT_FUNCTIONS["longrope"](config, "cpu", seq_len=length)
        theta = inv_freq.numpy()
        got = compare(
            source.table(length), theta, float(amplitude), lambda m, theta=theta: m.astype(np.float32) * theta, length
        )
        figures = {name: max(value, figures.get(name, 0.0)) for name, value in got.items()}
    return figures
