"""The command line of the synthetic half: `resonance posgen ...`. Parses, calls one function, exits."""

from pathlib import Path
from typing import Annotated

import typer

from resonance.posgen import stages

app = typer.Typer(no_args_is_help=True, help="The synthetic half: generate, train, evaluate.")

Threads = Annotated[int, typer.Option(min=1, help="Threads to compute with.")]


@app.command("generate")
def generate(settings: Path, output: Annotated[list[Path], typer.Option(help="One file a split.")]) -> None:
    """Draw the prefixes of a task and write its train, validation and test sequences."""
    stages.generate(settings, output)


@app.command("baseline")
def baseline(settings: Path, test: Path, protocol: str, output: Path) -> None:
    """Score what needs no training on a task's test split: the best local rule, and chance."""
    stages.baseline(settings, test, protocol, output)


@app.command("train")
def train(
    settings: Path,
    encoding: Path,
    train_data: Path,
    validation_data: Path,
    output_folder: Path,
    seed: Annotated[int, typer.Option(min=0)],
    threads: Threads = 1,
    checkpoint_seconds: Annotated[int, typer.Option(min=0, help="Between two checkpoints.")] = 60,
) -> None:
    """Train one decoder: weights, weights of every look, curve and run.json into a folder.

    A killed training, started again, goes on from the last checkpoint in the folder.
    """
    stages.train(settings, encoding, train_data, validation_data, output_folder, seed, threads, checkpoint_seconds)


@app.command("evaluate")
def evaluate(
    model: Path,
    encoding: Path,
    settings: Path,
    validation_data: Path,
    test_data: Path,
    output: Path,
    protocol: Annotated[str, typer.Option(help="The protocol to file it under; default: the training's.")] = "",
    threads: Threads = 1,
) -> None:
    """Measure a trained decoder with an encoding, in and out of distribution, position by position."""
    stages.evaluate(model, encoding, settings, validation_data, test_data, output, protocol, threads)


@app.command("probe")
def probe(
    model: Path,
    encoding: Path,
    settings: Path,
    test_data: Path,
    output: Path,
    protocol: Annotated[str, typer.Option(help="The protocol to file it under; default: the training's.")] = "",
    threads: Threads = 1,
) -> None:
    """Say why a trained decoder fails past L: its accuracy with distances hidden from attention, and its aliases."""
    stages.probe(model, encoding, settings, test_data, output, protocol, threads)
