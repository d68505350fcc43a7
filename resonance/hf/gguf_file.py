"""A model with our encoding as a GGUF file, which llama.cpp and what stands on it run as it is.

llama.cpp turns feature j by m*b^(-2j/d)/factor_j with the factors of the tensor `rope_freqs.weight` (`ggml_rope_ext`,
`freq_factors`), and multiplies cos and sin by `rope.scaling.attn_factor`. Both are written; a scaling type of its own
is not, for its YaRN would change theta and the amplitude once more. Weights and tokenizer are converted by llama.cpp's
own convert_hf_to_gguf.py, or taken from a GGUF at hand.

Read in llama.cpp at commit 0c1e570; tests/test_export.py runs it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from resonance.encoding.frequencies import depends_on_length
from resonance.encoding.spec import EncodingSpec
from resonance.hf.export import Exported, Source, compare, link_files, read_source, write_config
from resonance.hf.parameters import fill

CONVERTER = "convert_hf_to_gguf.py"
"""llama.cpp's converter: in its repository, in the source of llama-cpp-python, on PATH where a package put it."""

_FREQS = ("apertus", "arcee", "deci", "exaone", "granite", "llama", "llama4", "mistral3")
_SHORT_AND_LONG = ("minicpm3", "phi3")
"""Architectures whose attention takes factors in llama.cpp, by the tensors that it reads them from."""

_FREQS_TENSOR = ("rope_freqs.weight",)
_SHORT_AND_LONG_TENSORS = ("rope_factors_short.weight", "rope_factors_long.weight")


def export_gguf(
    model: str | Path,
    out: str | Path,
    spec: EncodingSpec | None = None,
    *,
    converter: str | Path | None = None,
    outtype: str = "auto",
) -> Exported:
    """Write a GGUF that llama.cpp runs with our frequencies and amplitude.

    model      a folder with config.json, or a GGUF of a model with plain RoPE: its weights stay as they are
    out        a file that does not exist yet
    spec       the encoding to write, filled from the model as by `swap_rotary`; None: the one that the folder's config
               holds
    converter  llama.cpp's convert_hf_to_gguf.py; None: the one on PATH. Not needed for a GGUF
    outtype    what it makes of weights: f32, f16, bf16, q8_0, auto

    Raises ValueError for an encoding that one table cannot say, for an architecture that takes no factors in
    llama.cpp, and where the file gives another table when read back: then nothing is left at out.
    """
    model, out = Path(model), Path(out)
    if out.exists():
        raise ValueError(f"out must not exist yet, got {out}; nothing is overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        plain, written = Path(folder, "plain.gguf"), Path(folder, "out.gguf")
        is_gguf = model.suffix == ".gguf"
        source = _read_gguf(model, spec) if is_gguf else read_source(model, spec)
        if depends_on_length(source.spec, source.head_dim):
            raise ValueError(
                f"method must have one table for every length to be written as a GGUF, got {source.spec.method}, whose "
                "frequencies follow the current length; export another, yarn say"
            )
        if is_gguf:
            plain = model
        else:
            _convert(model, plain, source, converter, outtype)
        _graft(plain, written, source)
        figures = _compare(written, source)
        written.rename(out)
    return Exported(
        path=out,
        form=f"GGUF with {', '.join(_tensors(_text(gguf.GGUFReader(out), gguf.Keys.General.ARCHITECTURE)))}",
        spec=source.spec,
        length=source.length,
        **figures,
    )


def _read_gguf(path: Path, spec: EncodingSpec | None) -> Source:
    """A GGUF with plain RoPE as a source."""
    if spec is None:
        raise ValueError("spec must say which encoding to write into a GGUF, got none; give --spec")
    reader = gguf.GGUFReader(path)
    arch = _text(reader, gguf.Keys.General.ARCHITECTURE)
    scaling = _value(reader, gguf.Keys.Rope.SCALING_TYPE.format(arch=arch), "none")
    factors = {tensor.name for tensor in reader.tensors} & {*_FREQS_TENSOR, *_SHORT_AND_LONG_TENSORS}
    if scaling != "none" or factors or _value(reader, gguf.Keys.Rope.SCALING_ATTN_FACTOR.format(arch=arch), 1.0) != 1:
        raise ValueError(
            f"a GGUF must hold plain RoPE to take another encoding, got scaling type {scaling} and "
            f"{', '.join(sorted(factors)) or 'no factors'} in {path}; export from the folder that it was made of"
        )
    if _value(reader, gguf.Keys.Split.LLM_KV_SPLIT_COUNT, 1) > 1:
        raise ValueError(
            f"a GGUF must be one file, got a part in {path}; join them with llama.cpp's gguf-split --merge"
        )
    train_length = int(_value(reader, gguf.Keys.LLM.CONTEXT_LENGTH.format(arch=arch)))
    asked = fill(spec, EncodingSpec(method="rope", base=_base(reader, arch), train_length=train_length).filled())
    return Source(
        spec=asked,
        head_dim=_head_dim(reader, arch),
        train_length=train_length,
        length=round(asked.scale * train_length),
    )


def _convert(model: Path, out: Path, source: Source, converter: str | Path | None, outtype: str) -> None:
    """The model with plain RoPE as a GGUF, by llama.cpp's converter."""
    script = Path(converter or shutil.which(CONVERTER) or CONVERTER)
    if not script.is_file():
        raise ValueError(
            f"converter must be llama.cpp's {CONVERTER}, got {script}, which is no file; give --converter its path in "
            "llama.cpp's repository or in the source of llama-cpp-python"
        )
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        write_config(model, Path(folder), source, None)
        link_files(model, Path(folder))
        command = [sys.executable, str(script), folder, "--outfile", str(out), "--outtype", outtype]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"{CONVERTER} must take the model, got: {last}; llama.cpp says which families it converts")


def _graft(plain: Path, out: Path, source: Source) -> None:
    """A GGUF's metadata and tensors, with our factors and amplitude beside them."""
    reader = gguf.GGUFReader(plain)
    arch = _text(reader, gguf.Keys.General.ARCHITECTURE)
    factors = _factors(_base(reader, arch), source)
    tensors, rope = _tensors(arch), gguf.Keys.Rope
    ours = {
        rope.SCALING_TYPE: ("none", gguf.GGUFValueType.STRING),
        rope.SCALING_ATTN_FACTOR: (source.table().attention_factor, gguf.GGUFValueType.FLOAT32),
        rope.SCALING_ORIG_CTX_LEN: (source.train_length, gguf.GGUFValueType.UINT32),
        gguf.Keys.LLM.CONTEXT_LENGTH: (source.length, gguf.GGUFValueType.UINT32),
    }
    ours = {key.format(arch=arch): value for key, value in ours.items()}
    made = ("GGUF.", gguf.Keys.General.ARCHITECTURE, gguf.Keys.General.ALIGNMENT)  # the writer writes these itself
    writer = gguf.GGUFWriter(out, arch, endianess=reader.endianess)
    if gguf.Keys.General.ALIGNMENT in reader.fields:
        writer.add_custom_alignment(reader.alignment)
    for name, field in reader.fields.items():
        if name not in ours and not name.startswith(made):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for name, (value, kind) in ours.items():
        writer.add_key_value(name, value, kind)
    # First: llama.cpp maps tensors where they lie, and these are used in every layer.
    for name in tensors:
        writer.add_tensor_info(name, factors.shape, factors.dtype, factors.nbytes)
    for tensor in reader.tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for data in [factors] * len(tensors):
        writer.write_tensor_data(data)
    for tensor in reader.tensors:
        writer.write_tensor_data(tensor.data, tensor_endianess=reader.endianess)
    writer.close()


def _factors(base: float, source: Source) -> np.ndarray:
    """factor_j, float32 [d/2], by which llama.cpp arrives at our theta_j.

    It divides powers of b^(-2/d) in float32, whose error grows with j; the factors are those of its powers, not of
    the exact ones.
    """
    chain = np.float64(_step(base, source.head_dim)) ** np.arange(source.head_dim // 2)
    return (chain / source.table().theta).astype(np.float32)


def _step(base: float, head_dim: int) -> np.float32:
    return np.float32(np.float32(base) ** np.float32(-2.0 / head_dim))


def _compare(path: Path, source: Source) -> dict[str, float]:
    """The table that llama.cpp makes of a file (`ggml_rope_cache_init`), beside ours."""
    reader = gguf.GGUFReader(path)
    arch = _text(reader, gguf.Keys.General.ARCHITECTURE)
    written = {tensor.name: np.array(tensor.data) for tensor in reader.tensors if tensor.name in _tensors(arch)}
    base, head_dim = _base(reader, arch), _head_dim(reader, arch)
    if head_dim != source.head_dim or base != np.float32(source.spec.base):
        raise ValueError(
            f"the GGUF must have base {source.spec.base:g} and {source.head_dim} rotary dimensions, got {base:g} and "
            f"{head_dim}; the converter read another config"
        )
    amplitude = float(_value(reader, gguf.Keys.Rope.SCALING_ATTN_FACTOR.format(arch=arch)))
    factors, step = next(iter(written.values())), _step(base, head_dim)

    def angles(m: np.ndarray) -> np.ndarray:
        theta = m.astype(np.float32)
        for j in range(1, theta.shape[1]):
            theta[:, j:] *= step
        return theta / factors

    theta = np.float64(step) ** np.arange(len(factors)) / factors
    return compare(source.table(), theta, amplitude, angles, source.length)


def _tensors(arch: str) -> tuple[str, ...]:
    """The tensors that llama.cpp reads factors from. Raises ValueError for an architecture with none."""
    if arch in _FREQS:
        return _FREQS_TENSOR
    if arch in _SHORT_AND_LONG:
        return _SHORT_AND_LONG_TENSORS
    raise ValueError(
        f"architecture must be one whose attention takes factors in llama.cpp ({', '.join(_FREQS + _SHORT_AND_LONG)}), "
        f"got {arch}; export --to transformers, which takes every family"
    )


def _value(reader: gguf.GGUFReader, key: str, default: object = None) -> object:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _text(reader: gguf.GGUFReader, key: str) -> str:
    return str(_value(reader, key))


def _base(reader: gguf.GGUFReader, arch: str) -> float:
    return float(_value(reader, gguf.Keys.Rope.FREQ_BASE.format(arch=arch), 10_000.0))


def _head_dim(reader: gguf.GGUFReader, arch: str) -> int:
    """R, as llama.cpp finds it."""
    heads = _value(reader, gguf.Keys.Attention.HEAD_COUNT.format(arch=arch))
    width = _value(reader, gguf.Keys.LLM.EMBEDDING_LENGTH.format(arch=arch))
    key_length = _value(reader, gguf.Keys.Attention.KEY_LENGTH.format(arch=arch), width // heads)
    return int(_value(reader, gguf.Keys.Rope.DIMENSION_COUNT.format(arch=arch), key_length))
