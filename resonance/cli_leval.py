"""The command line of L-Eval's scores: `resonance leval ...`. Joined to `cli` as a sub-app; loads no torch."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from resonance.record import results, runs

app = typer.Typer(no_args_is_help=True, help="L-Eval's closed-ended tasks: score predictions, compare two sets.")

Task = Annotated[str | None, typer.Option(help="The files' task, coursera or codeu, say; else their names tell.")]


@app.command("score")
def score(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Predictions as JSONL, a task a file.")],
    task: Task = None,
    model: Annotated[str | None, typer.Option(help="Whose they are; else the prediction key's name.")] = None,
    encoding: Annotated[str | None, typer.Option(help="The encoding they were made with.")] = None,
    strategy: Annotated[str | None, typer.Option(help="The fine-tuning strategy they were made with.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write a row a question and parser, as parquet.")] = None,
) -> None:
    """Score prediction files under both parsers: L-Eval's own rules, and a parser that reads the answer."""
    from resonance.llm import leval

    rows, seen = [], {}
    for path in files:
        predictions = leval.read_predictions(path, task)
        named = model or predictions.model
        if (named, predictions.task) in seen:
            raise ValueError(f"{path}: {predictions.task} of {named} stands in {seen[named, predictions.task]} too")
        seen[named, predictions.task] = path
        rows += [
            {"model": named, "encoding": encoding, "strategy": strategy, **row} for row in leval.score_rows(predictions)
        ]
        if predictions.torn:
            used = len(predictions.rows)
            print(f"note: {path}: the last line is torn; the {used} whole lines before it are used", file=sys.stderr)
    frame = pl.DataFrame(rows, schema=results.SCHEMAS["leval"])
    for named in frame["model"].unique(maintain_order=True):
        _print_scores(named, frame.filter(pl.col("model") == named))
    if output:
        made = {"files": [str(path) for path in files], "provenance": runs.provenance()}
        results.write_rows(output, "leval", rows, made)


@app.command("compare")
def compare(
    ours: Annotated[Path, typer.Argument(help="Predictions (JSONL) or their rows (parquet).")],
    theirs: Annotated[Path, typer.Argument(help="The same for the other side: the same tasks and questions.")],
    task: Task = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and the permutations.")] = 0,
) -> None:
    """Ours minus theirs on the same questions: bootstrap interval, sign-flip test, exact McNemar test."""
    from resonance.record import leval, stats

    frames = [_read(path, task) for path in (ours, theirs)]
    golds = [_golds(frame) for frame in frames]
    if golds[0].keys() != golds[1].keys():
        raise ValueError(
            f"both sides must have the same tasks and questions, got {_size(golds[0])} in {ours} and "
            f"{_size(golds[1])} in {theirs}"
        )
    for key, gold in golds[0].items():
        if gold != golds[1][key]:
            raise ValueError(
                f"both sides must have the same questions, got other golds for question {key[1] + 1} of {key[0]}: "
                f"{gold!r} and {golds[1][key]!r}"
            )
    for parser in leval.PARSERS:
        credits = [leval.credits_of(frame, parser) for frame in frames]
        groups = [{name: credits[0][name]} for name in credits[0]]
        if len(groups) > 1:
            groups.append(credits[0])
        for group in groups:
            found = stats.paired_tasks(group, {name: credits[1][name] for name in group}, seed)
            label = "average" if len(group) > 1 else next(iter(group))
            print(
                f"{parser:8}  {label:8}  {100 * found.difference:+7.2f} points, 95% [{100 * found.low:+.2f}, "
                f"{100 * found.high:+.2f}], p {_p(found.p)}; {found.n} questions, {found.better} better, {found.worse} "
                f"worse, McNemar p {_p(found.mcnemar)}"
            )


def _print_scores(model: str, rows: pl.DataFrame) -> None:
    from resonance.record import leval, stats

    print(f"{model}\n  {'task':10}{'questions':>11}  {'released':>8}  {'95%':16}  {'strict':>8}  {'95%':16}  misread")
    scores = {parser: leval.credits_of(rows, parser) for parser in leval.PARSERS}
    misread = rows.filter(pl.col("misread").is_not_null())
    for task in scores["released"]:
        cells = []
        for parser in leval.PARSERS:
            credit, count = scores[parser][task].sum(), len(scores[parser][task])
            low, high = stats.share_interval(credit, count)
            cells.append(f"{100 * credit / count:8.2f}  {f'[{100 * low:.2f}, {100 * high:.2f}]':16}")
        asked = f"{count}/{leval.TASKS[task].num_questions}"
        wrong = misread.filter(pl.col("task") == task).height
        print(f"  {task:10}{asked:>11}  {'  '.join(cells)}  {wrong:7}")
    missing = [task for task in leval.TASKS if task not in scores["released"]]
    if len(scores["released"]) > 1:
        cells = []
        for parser in leval.PARSERS:
            shares = {task: float(credit.mean()) for task, credit in scores[parser].items()}
            mean, low, high = leval.average(shares, {task: len(credit) for task, credit in scores[parser].items()})
            cells.append(f"{mean:8.2f}  {f'[{low:.2f}, {high:.2f}]':16}")
        print(f"  {'average':10}{'':11}  {'  '.join(cells)}  {misread.height:7}")
    if missing:
        without = "; the average is without them" if len(scores["released"]) > 1 else ""
        print(f"  not given: {', '.join(missing)}{without}")
    for (task, kind), count in sorted(Counter(misread.select("task", "misread").iter_rows()).items()):
        print(f"  misread by released: {count:3}  {task}, {kind}")


def _read(path: Path, task: str | None) -> pl.DataFrame:
    """The scored rows of one set of predictions, from either kind of file."""
    from resonance.llm import leval

    if path.suffix != ".parquet":
        predictions = leval.read_predictions(path, task)
        if predictions.torn:
            raise ValueError(f"{path}: the last line is torn; a comparison needs every question, mend the file first")
        names = {"model": predictions.model, "encoding": None, "strategy": None}
        return pl.DataFrame([names | row for row in leval.score_rows(predictions)], schema=results.SCHEMAS["leval"])
    rows = results.read_rows(path, "leval")
    sets = rows.select("model", "encoding", "strategy").unique()
    if sets.height != 1:
        raise ValueError(f"{path} must hold one model's predictions, got {sets.height}; score them into one file each")
    return rows if task is None else rows.filter(pl.col("task") == task)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else "< 0.0001"


def _golds(rows: pl.DataFrame) -> dict[tuple[str, int], str]:
    kept = rows.filter(pl.col("parser") == "released").select("task", "question", "gold")
    return {(task, question): gold for task, question, gold in kept.iter_rows()}


def _size(golds: dict) -> str:
    counts = Counter(task for task, _ in golds)
    return ", ".join(f"{count} of {task}" for task, count in counts.items()) or "none"
