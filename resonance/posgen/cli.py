"""The command line of the synthetic half: `resonance posgen ...`. Parses, calls one function, exits."""

from pathlib import Path
from typing import Annotated

import typer

from resonance.posgen import stages
from resonance.record.files import alone

app = typer.Typer(no_args_is_help=True, help="The synthetic half: generate, train, evaluate, rank.")

Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads to compute with.")]


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
    with alone(output_folder):
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


@app.command("rank")
def rank(
    encodings: Annotated[list[str], typer.Argument(help="Names, FILE.py[:CLASS], or all.")],
    output: Annotated[Path, typer.Option(help="A folder for rows and leaderboard.")] = Path("ranking"),
    against: Annotated[Path | None, typer.Option(help="Kept rows of the others; default: this repository's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0 on.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time, a thread each.")] = 2,
    quick: Annotated[bool, typer.Option(help="One seed: a look that decides nothing.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Write all rows, the kept ones too, into this file.")] = None,
) -> None:
    """Try a position encoding: train it at the ranking's size and put it beside the others."""
    from resonance.posgen.ranking import rank as ranking

    ranking.rank(encodings, output, against or ranking.KEPT, range(1 if quick else seeds), workers, keep)


@app.command("template")
def template() -> None:
    """Print a position encoding to start from."""
    print((Path(__file__).parent / "ranking/template.py").read_text(encoding="utf-8"), end="")


@app.command("data")
def data(
    task: str, folder: Path, form: Annotated[str, typer.Option("--format", help="parquet or jsonl.")] = "parquet"
) -> None:
    """Write a task of the ranking for other tools: its splits, and a card that says what they are."""
    from resonance.posgen.ranking.data import write_data

    write_data(task, folder, form)
