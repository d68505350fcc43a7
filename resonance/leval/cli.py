"""The command line of L-Eval: `resonance leval ...`. Parses, calls one function, exits."""

from pathlib import Path
from typing import Annotated

import typer

from resonance.leval import stages

app = typer.Typer(no_args_is_help=True, help="L-Eval's closed-ended tasks: gather, answer, score, compare.")

Task = Annotated[str | None, typer.Option(help="The files' task, coursera or codeu, say; else their names tell.")]


@app.command("tasks")
def tasks(
    settings: Path,
    output_folder: Path,
    source: Annotated[Path | None, typer.Option(help="Where the plays' package was unpacked.")] = None,
) -> None:
    """Gather the questions: copy them from a folder or the hub, or make them."""
    stages.tasks(settings, output_folder, source)


@app.command("answer")
def answer(
    settings: Path,
    encoding: Path,
    base: Path,
    strategy: str,
    tasks: Annotated[Path, typer.Argument(help="The folder of gathered tasks.")],
    output: Annotated[Path, typer.Argument(help="The folder of predictions, a file a task.")],
    record: Annotated[Path, typer.Argument(help="What made them, as JSON.")],
    journal: Annotated[Path, typer.Option(help="Where answers are kept until all are there.")],
    model: Annotated[Path | None, typer.Option(help="Fine-tuned weights in place of the base's.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads to compute with.")] = 1,
) -> None:
    """Have a model answer every question, greedily. A killed run goes on when started again."""
    stages.answer(settings, encoding, base, strategy, tasks, output, record, journal, model, threads)


@app.command("score")
def score(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Predictions as JSONL, a task a file; or their folder.")
    ],
    task: Task = None,
    model: Annotated[str | None, typer.Option(help="Whose they are; else the prediction key's name.")] = None,
    encoding: Annotated[str | None, typer.Option(help="The encoding they were made with.")] = None,
    strategy: Annotated[str | None, typer.Option(help="The fine-tuning strategy they were made with.")] = None,
    record: Annotated[Path | None, typer.Option(help="What `answer` wrote of them; kept in the output.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write a row a question and parser, as parquet.")] = None,
) -> None:
    """Score predictions under both parsers: L-Eval's own rules, and a parser that reads the answer."""
    stages.score(predictions, task, model, encoding, strategy, record, output)


@app.command("compare")
def compare(
    ours: Annotated[Path, typer.Argument(help="Predictions (JSONL) or their rows (parquet).")],
    theirs: Annotated[Path, typer.Argument(help="The same for the other side: the same tasks and questions.")],
    task: Task = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and the permutations.")] = 0,
) -> None:
    """Ours minus theirs on the same questions: bootstrap interval, sign-flip test, exact McNemar test."""
    stages.compare(ours, theirs, task, seed)
