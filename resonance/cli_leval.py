"""The command line of L-Eval: `resonance leval ...`. Joined to `cli` as a sub-app; only `answer` loads torch."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from resonance import cli_llm
from resonance.record import files, results, runs
from resonance.record import leval_settings as settings_of

app = typer.Typer(no_args_is_help=True, help="L-Eval's closed-ended tasks: gather, answer, score, compare.")

Task = Annotated[str | None, typer.Option(help="The files' task, coursera or codeu, say; else their names tell.")]


@app.command("tasks")
def tasks(
    settings: Path,
    output_folder: Path,
    source: Annotated[Path | None, typer.Option(help="Where the plays' package was unpacked.")] = None,
) -> None:
    """Gather the questions: copy them from a folder or the hub, or make them."""
    from resonance.llm import questions

    found = questions.gather(runs.read_settings(settings_of.TasksRun, settings), output_folder, source)
    for name, own in found["tasks"].items():
        print(f"{name}: {own['documents']} documents, {own['questions']} questions")
    if found["missing"]:
        print(f"not in {found['source']}, left out: {', '.join(found['missing'])}")


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
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with.")] = 1,
) -> None:
    """Have a model answer every question, greedily. A killed run goes on when started again."""
    run = runs.read_settings(settings_of.AnswerRun, settings)
    spec = runs.read_encoding(encoding)
    watch, made = runs.Stopwatch(), cli_llm.provenance()
    cli_llm.torch_on(run.device, threads)
    from resonance.llm import answering
    from resonance.llm.models import Base, load, tokenizer_of
    from resonance.llm.perplexity import follows_length

    found, kept = Base.read(base), []

    def make() -> object:
        wanted = {"device": run.device, "precision": run.precision, "attention": run.attention}
        kept.append(load(found, spec, **wanted, folder=model, generating=True))
        return kept[0]

    identity = {"spec": json.loads(spec.to_json()), "base": files.read_json(base), "strategy": strategy}
    if model is not None:  # the weights themselves: another training of the same settings may end elsewhere
        identity["weights"] = {path.name: files.sha256(path) for path in sorted(model.glob("*.safetensors"))}
    said = answering.answer(run, identity, make, tokenizer_of(found), tasks, output, journal)
    names = {"model": run.model, "encoding": encoding.stem, "strategy": strategy}
    values = cli_llm.measured(names, run, found, kept[0], spec, threads, made, watch)
    values |= {"answers": said, "cached_keys": "the table of their length" if follows_length(kept[0]) else "exact"}
    files.write_json(record, values)
    answering.discard(journal)


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
    from resonance.llm import leval

    rows, seen = [], {}
    for path in _predictions(predictions):
        answers = leval.read_predictions(path, task)
        named = model or answers.model
        if (named, answers.task) in seen:
            raise ValueError(f"{path}: {answers.task} of {named} stands in {seen[named, answers.task]} too")
        seen[named, answers.task] = path
        rows += [
            {"model": named, "encoding": encoding, "strategy": strategy, **row} for row in leval.score_rows(answers)
        ]
        if answers.torn:
            used = len(answers.rows)
            print(f"note: {path}: the last line is torn; the {used} whole lines before it are used", file=sys.stderr)
    frame = pl.DataFrame(rows, schema=results.SCHEMAS["leval"])
    for named in frame["model"].unique(maintain_order=True):
        _print_scores(named, frame.filter(pl.col("model") == named))
    if output:
        made = {"files": [str(path) for path in seen.values()], "provenance": runs.provenance()}
        if record:
            made |= {"answered": files.read_json(record)}
        results.write_rows(output, "leval", rows, made)


def _predictions(given: list[Path]) -> list[Path]:
    """The files, and those of the folders. Raises ValueError for a folder without any."""
    found = []
    for path in given:
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} must hold predictions as .jsonl, got none; answer the questions first")
        found += inside
    return found


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
    from resonance.record.leval_tasks import ALL_TASKS, TASKS

    print(f"{model}\n  {'task':15}{'questions':>11}  {'released':>8}  {'95%':16}  {'strict':>8}  {'95%':16}  misread")
    scores = {parser: leval.credits_of(rows, parser) for parser in leval.PARSERS}
    misread = rows.filter(pl.col("misread").is_not_null())
    for task in scores["released"]:
        cells = []
        for parser in leval.PARSERS:
            credit, count = scores[parser][task].sum(), len(scores[parser][task])
            low, high = stats.share_interval(credit, count)
            cells.append(f"{100 * credit / count:8.2f}  {f'[{100 * low:.2f}, {100 * high:.2f}]':16}")
        asked = f"{count}/{known}" if (known := ALL_TASKS[task].num_questions) else str(count)
        wrong = misread.filter(pl.col("task") == task).height
        print(f"  {task:15}{asked:>11}  {'  '.join(cells)}  {wrong:7}")
    theirs = [task for task in TASKS if task in scores["released"]]  # ours are in no average
    missing = [task for task in TASKS if task not in theirs] if theirs else []
    if len(theirs) > 1:
        cells = []
        for parser in leval.PARSERS:
            own = {task: scores[parser][task] for task in theirs}
            shares = {task: float(credit.mean()) for task, credit in own.items()}
            mean, low, high = leval.average(shares, {task: len(credit) for task, credit in own.items()})
            cells.append(f"{mean:8.2f}  {f'[{low:.2f}, {high:.2f}]':16}")
        print(f"  {'average':15}{'':11}  {'  '.join(cells)}  {misread.height:7}")
    if missing:
        without = "; the average is without them" if len(theirs) > 1 else ""
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
