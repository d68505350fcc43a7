"""The command line for models of others: `resonance inspect`, `resonance export`. Parses, calls one function, exits."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from resonance.encoding.spec import EncodingSpec


class Form(StrEnum):
    transformers = "transformers"
    gguf = "gguf"


def _spec(text: str) -> EncodingSpec:
    """An encoding as JSON, or the file that holds it."""
    given = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
    try:
        return EncodingSpec.from_json(given)
    except json.JSONDecodeError as error:
        raise ValueError(f"--spec must be JSON, got {given.strip()[:60]!r}: {error}; quote it for the shell") from None


def inspect(
    target: Annotated[str, typer.Argument(help="A folder, a config.json, or a model's name on the hub.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the wavelengths into this file.")] = None,
    download: Annotated[bool, typer.Option(help="Fetch a hub model's config.json, never its weights.")] = False,
) -> None:
    """Print a model's rotary encoding, what Resonance does to it, and what is wrong with its config (status 1)."""
    from resonance.hf import inspect as inspection

    if plot is not None and (plot.is_dir() or not plot.suffix):
        raise ValueError(f"--plot must be a file whose ending says its kind (.png, .svg, .pdf), got {plot}")
    report = inspection.inspect(target, download)
    print(json.dumps(report, indent=2) if as_json else inspection.as_text(report))
    if plot is not None:
        inspection.plot(report, plot)
    if report["findings"]:
        raise typer.Exit(1)


def export(
    model: Annotated[Path, typer.Argument(help="A folder with config.json; for gguf also a GGUF with plain RoPE.")],
    out: Annotated[Path, typer.Argument(help="A new folder; for gguf a new file.")],
    to: Annotated[Form, typer.Option(help="What is to open it: transformers, vLLM and SGLang; or llama.cpp.")],
    spec: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="The encoding; default: the one in the model's config.")
    ] = None,
    converter: Annotated[Path | None, typer.Option(help="llama.cpp's convert_hf_to_gguf.py; default: on PATH.")] = None,
    outtype: Annotated[
        str | None, typer.Option(help="What the converter makes of weights: f32, f16, bf16, q8_0; default: auto.")
    ] = None,
) -> None:
    """Write a model with our encoding for programs that do not know it, read it back, and say what is lost."""
    asked = None if spec is None else _spec(spec)
    if to is Form.gguf:
        from resonance.hf.gguf_file import export_gguf

        print(export_gguf(model, out, asked, converter=converter, outtype=outtype or "auto"))
    elif converter or outtype:
        raise ValueError("--converter and --outtype must go with --to gguf, got --to transformers; leave them out")
    else:
        from resonance.hf.export import export_transformers

        print(export_transformers(model, out, asked))
