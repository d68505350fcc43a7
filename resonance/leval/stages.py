"""What each command of L-Eval does, from the files it reads to those it writes or the table it prints. Only `answer`
loads torch."""

import math
import sys
from collections import Counter
from pathlib import Path

import polars as pl

from resonance.leval import files, paths
from resonance.leval.catalogue import ALL_TASKS, PARSERS, TASKS
from resonance.leval.rows import ANSWERS
from resonance.leval.settings import AnswerRun, TasksRun
from resonance.record.encoding import read_encoding
from resonance.record.files import read_record, sha256, write_record
from resonance.record.identity import code_of
from resonance.record.journal import discard
from resonance.record.provenance import Stopwatch, provenance
from resonance.record.rows import read_rows, write_rows
from resonance.record.settings import read_settings


def tasks(settings: Path, folder: Path, source: Path | None) -> None:
    """Gather the questions: copy them from a folder or the hub, or make them."""
    from resonance.leval import questions

    found = questions.gather(read_settings(TasksRun, settings), folder, source)
    for name, own in found["tasks"].items():
        print(f"{name}: {own['documents']} documents, {own['questions']} questions")
    if found["missing"]:
        print(f"not in {found['source']}, left out: {', '.join(found['missing'])}")


def answer(
    settings: Path,
    encoding: Path,
    base: Path,
    strategy: str,
    tasks: Path,
    output: Path,
    record: Path,
    journal: Path,
    model: Path | None,
    threads: int,
) -> None:
    """Have a model answer every question, greedily. A killed run goes on when started again."""
    watch, run, spec = Stopwatch(), read_settings(AnswerRun, settings), read_encoding(encoding)
    from resonance.hf.module import same_tables
    from resonance.leval import answering
    from resonance.llm.models import PACKAGES, Base, load, made_of, measured, tokenizer_of, torch_on

    torch_on(run.device, threads)
    made = provenance(PACKAGES)
    found, kept, code = Base.read(base), [], code_of(paths.CODE.format(stage="answer"), methods=[spec.method])

    def make() -> object:
        kept.append(load(found, spec, **run.where(), folder=model, generating=True))
        return kept[0]

    if model is not None:
        found.check_tuned(model, run.model, strategy, spec.to_dict())
    asked_of = made_of(run, spec, base, model) | {"strategy": strategy}
    said = answering.answer(run, asked_of, code, make, tokenizer_of(found), tasks, output, journal)
    names = {"model": run.model, "encoding": encoding.stem, "strategy": strategy}
    values = measured(names, run, found, kept[0], spec, code, threads, made, watch)
    values |= {
        "names": names,
        "answers": said,
        "cached_keys": "exact" if same_tables(kept[0], 1, run.context) else "the table of their length",
    }
    write_record(record, "answers", values)
    discard(journal, said["digest"])


def score(
    predictions: list[Path],
    task: str | None,
    model: str | None,
    encoding: str | None,
    strategy: str | None,
    record: Path | None,
    output: Path | None,
) -> None:
    """Score predictions under both parsers: L-Eval's own rules, and a parser that reads the answer."""
    rows, seen, given = [], {}, _predictions(predictions)
    if output and output.resolve() in {path.resolve() for path in (*given, *([record] if record else []))}:
        raise ValueError(f"--output must be another file than what is scored, got {output}")
    answered = read_record(record, "answers") if record else None
    if answered:
        _check_answered(answered, record, given, {"model": model, "encoding": encoding, "strategy": strategy})
    for path in given:
        answers = files.read_predictions(path, task)
        named = model or answers.model
        if (named, answers.task) in seen:
            raise ValueError(f"{path}: {answers.task} of {named} stands in {seen[named, answers.task]} too")
        seen[named, answers.task] = path
        rows += [
            {"model": named, "encoding": encoding, "strategy": strategy, **row} for row in files.score_rows(answers)
        ]
        if answers.torn:
            used = len(answers.rows)
            print(f"note: {path}: the last line is torn; the {used} whole lines before it are used", file=sys.stderr)
    frame = pl.DataFrame(rows, schema=dict(ANSWERS.columns))
    for named in frame["model"].unique(maintain_order=True):
        _print_scores(named, frame.filter(pl.col("model") == named))
    if output:
        made = {"files": [str(path) for path in seen.values()], "provenance": provenance()}
        if answered:
            made |= {"answered": answered}
        write_rows(output, ANSWERS, rows, made)


def _check_answered(answered: dict, record: Path, given: list[Path], names: dict) -> None:
    """Raises ValueError where a record is of other answers than those that are scored."""
    theirs = answered.get("names", {})
    if other := [name for name, value in names.items() if value is not None and theirs.get(name) != value]:
        raise ValueError(
            f"{record} must be of the answers that are scored, got {other[0]} {theirs.get(other[0])} where "
            f"--{other[0]} is {names[other[0]]}; name their own"
        )
    known, found = answered["answers"]["files"], {path.name: sha256(path) for path in given}
    if other := [name for name in sorted(known | found) if known.get(name) != found.get(name)]:
        raise ValueError(f"{other[0]} must be the file that {record} names, got another or none; answer again")


def _predictions(given: list[Path]) -> list[Path]:
    """The files, and those of the folders. Raises ValueError for a folder without any."""
    found = []
    for path in given:
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} must hold predictions as .jsonl, got none; answer the questions first")
        found += inside
    return found


def compare(ours: Path, theirs: Path, task: str | None, seed: int) -> None:
    """Ours minus theirs on the same questions: bootstrap interval, sign-flip test, exact McNemar test."""
    from resonance.leval import counts
    from resonance.record.stats import paired_tasks

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
    for parser in PARSERS:
        credits = [counts.credits_of(frame, parser) for frame in frames]
        groups = [{name: credits[0][name]} for name in credits[0]]
        averaged = {name: credit for name, credit in credits[0].items() if name in TASKS}  # ours are in no average
        if len(averaged) > 1:
            groups.append(averaged)
        for group in groups:
            found = paired_tasks(group, {name: credits[1][name] for name in group}, seed)
            label = "average" if len(group) > 1 else next(iter(group))
            known = not math.isnan(found.low)  # of equal credits there is no interval
            between = f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]" if known else "–"
            print(
                f"{parser:8}  {label:8}  {100 * found.difference:+7.2f} points, 95% {between}, p {_p(found.p)}; "
                f"{found.n} questions, {found.better} better, {found.worse} worse, McNemar p {_p(found.mcnemar)}"
            )


def _print_scores(model: str, rows: pl.DataFrame) -> None:
    from resonance.leval import counts  # brings scipy: half a second that no other command need wait
    from resonance.record.stats import share_interval

    print(f"{model}\n  {'task':15}{'questions':>11}  {'released':>8}  {'95%':16}  {'strict':>8}  {'95%':16}  misread")
    scores = {parser: counts.credits_of(rows, parser) for parser in PARSERS}
    misread = rows.filter(pl.col("misread").is_not_null())
    for task in scores["released"]:
        cells = []
        for parser in PARSERS:
            credit, count = scores[parser][task].sum(), len(scores[parser][task])
            low, high = share_interval(credit, count)
            cells.append(f"{100 * credit / count:8.2f}  {f'[{100 * low:.2f}, {100 * high:.2f}]':16}")
        asked = f"{count}/{known}" if (known := ALL_TASKS[task].num_questions) else str(count)
        wrong = misread.filter(pl.col("task") == task).height
        print(f"  {task:15}{asked:>11}  {'  '.join(cells)}  {wrong:7}")
    theirs = [task for task in TASKS if task in scores["released"]]  # ours are in no average
    missing = [task for task in TASKS if task not in theirs] if theirs else []
    if len(theirs) > 1:
        cells = []
        for parser in PARSERS:
            own = {task: scores[parser][task] for task in theirs}
            shares = {task: float(credit.mean()) for task, credit in own.items()}
            mean, low, high = counts.average(shares, {task: len(credit) for task, credit in own.items()})
            cells.append(f"{mean:8.2f}  {f'[{low:.2f}, {high:.2f}]':16}")
        print(f"  {'average':15}{'':11}  {'  '.join(cells)}  {misread.height:7}")
    if missing:
        without = "; the average is without them" if len(theirs) > 1 else ""
        print(f"  not given: {', '.join(missing)}{without}")
    for (task, kind), count in sorted(Counter(misread.select("task", "misread").iter_rows()).items()):
        print(f"  misread by released: {count:3}  {task}, {kind}")


def _read(path: Path, task: str | None) -> pl.DataFrame:
    """The scored rows of one set of predictions, from either kind of file."""

    if path.suffix != ".parquet":
        predictions = files.read_predictions(path, task)
        if predictions.torn:
            raise ValueError(f"{path}: the last line is torn; a comparison needs every question, mend the file first")
        names = {"model": predictions.model, "encoding": None, "strategy": None}
        return pl.DataFrame([names | row for row in files.score_rows(predictions)], schema=dict(ANSWERS.columns))
    rows = read_rows(path, ANSWERS)
    if task is not None and (task := task.lower()) not in rows["task"]:
        raise ValueError(f"{path} must hold task {task}, got {', '.join(sorted(set(rows['task']))) or 'none'}")
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
    sizes = Counter(task for task, _ in golds)
    return ", ".join(f"{count} of {task}" for task, count in sizes.items()) or "none"
