"""What the tables and figures read, checked where it comes in, and say of it alike; and the one way that they fail."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from figures import style
from resonance.llm.paths import UNTUNED
from resonance.posgen.rows import BASELINE, EVALUATION, STUDY
from resonance.record.rows import Kind, kind_of, read_rows, read_run
from resonance.record.settings import S, SettingsError, parse, read_yaml

Output = Annotated[Path, typer.Option(help="Path of the files to write, without a suffix.")]
Preset = Annotated[str, typer.Option(help="The preset's name, as it is to be printed.")]
Protocol = Annotated[str, typer.Option(help="The one protocol that every file must be of.")]
Evaluations = Annotated[list[Path], typer.Option(help="An evaluation's parquet; once a file.")]
Study = Annotated[list[Path], typer.Option(help="The collected study; once a file.")]
Title = Annotated[str, typer.Option(help="The model, as it is to be called.")]
StandIn = Annotated[bool, typer.Option(help="Whether it is another model than the paper's, which is then said.")]
Draw = Annotated[Path, typer.Option(help="Path of the figure's files, without a suffix.")]
Published = Annotated[Path, typer.Option(help="config/published.yaml.")]
Scores = Annotated[list[Path], typer.Option(help="Per-question rows of `resonance leval score`; once a file.")]
TableFiles = Annotated[Path, typer.Option(help="Path of the table's files, without a suffix.")]
Baselines = Annotated[list[Path], typer.Option(help="A baseline's parquet; once a file.")]

LINE = ["encoding", "strategy"]
"""What a language model's line in a figure is of."""

PAPER_MODEL = {"d_model": 512, "d_ff": 2048, "num_heads": 8, "head_dim": 64}
"""T5-Small's widths, section 6.1.1."""
PAPER_DATA = {"modulus": 17, "train_length": 64, "test_length": 256, "num_train": 10_000}
PAPER_EPOCHS = 150
"""Appendix C.1."""


def run(main: Callable) -> None:
    """`main` as a typer command; for bad input one line on stderr and status 2, no traceback."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def read_section(path: Path, section: str, kind: type[S], what: str) -> S:
    """A section of config/published.yaml. Raises SettingsError where it is missing, or not of its kind."""
    sections = read_yaml(path)
    if not isinstance(sections, dict) or section not in sections:
        raise SettingsError(f"{path}: {section} must be given, {what}")
    return parse(kind, sections[section], f"{path}: {section}")


def read_evaluations(paths: list[Path], protocol: str, split: str) -> pl.DataFrame:
    """Summaries (position is null) of one split, every run once."""
    return _of_protocol(paths, EVALUATION, protocol, pl.col("position").is_null(), pl.col("split") == split)


def read_positions(paths: list[Path], protocol: str) -> pl.DataFrame:
    """Test accuracy by position, every run once."""
    by_position = pl.col("position").is_not_null(), pl.col("metric") == "accuracy", pl.col("split") == "test"
    return _of_protocol(paths, EVALUATION, protocol, *by_position)


def read_baselines(paths: list[Path], protocol: str) -> pl.DataFrame:
    """Summaries of the test split of what needs no training: `chance` and `local_rule`."""
    return _of_protocol(paths, BASELINE, protocol, pl.col("position").is_null(), pl.col("split") == "test")


def train_length(paths: list[Path]) -> int:
    """L of the runs behind the files. Raises ValueError if they do not share one."""
    found = {run["settings"]["data"]["train_length"] for run in runs_behind(paths)}
    if len(found) != 1:
        raise ValueError(f"--evaluation files must share one train_length, got {sorted(found)}")
    return found.pop()


def read_study(paths: list[Path], kind: Kind = STUDY, what: str = "evaluations") -> tuple[pl.DataFrame, list[dict]]:
    """What was collected of a study in one file or several, every run once, and what made it.

    Raises ValueError for files without rows, or with one run twice.
    """
    rows = read_rows(paths, kind)
    if rows.is_empty():
        raise ValueError(f"--study must hold {what}, got none in {', '.join(map(str, paths))}; collect it again")
    check_once(rows, key_of(rows))
    return rows, runs_behind(paths)


def key_of(rows: pl.DataFrame) -> list[str]:
    """What tells one row of a study from another."""
    key = ("protocol", "task", "encoding", "seed", "mask", "metric", "position")
    return [name for name in key if name in rows.columns]


def where(rows: list[dict], **values: object) -> list[dict]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def distinct(rows: list[dict], name: str) -> list:
    """What stands under a name, in the order met."""
    return list(dict.fromkeys(row[name] for row in rows))


def by_seed(rows: pl.DataFrame, *names: str) -> dict[tuple, dict[int, float]]:
    """Values in percent by seed, under the names that some columns give them."""
    parts = rows.sort("seed").group_by(names, maintain_order=True)
    return {key: dict(part.select("seed", 100 * pl.col("value")).iter_rows()) for key, part in parts}


def runs_behind(paths: list[Path]) -> list[dict]:
    """What made the rows of evaluations or of collected studies: settings, spec and the like, once a kind of run."""
    runs = [read_run(path) for path in paths]
    return [made for run in runs for made in (run["made"].values() if "made" in run else [run])]


def specs_of(paths: list[Path]) -> dict[str, dict]:
    """Encoding -> its spec, of collected studies: what the rows were made with, whatever the config says now.

    Under several protocols an encoding has several specs; the first is given.
    """
    found: dict[str, dict] = {}
    for path in paths:
        made = read_run(path)["made"]
        for row in read_rows(path, STUDY).unique("encoding", keep="first", maintain_order=True).iter_rows(named=True):
            found.setdefault(row["encoding"], made[row["made"]]["spec"])
    return found


def seeds_text(seeds: Iterable[int]) -> str:
    """`2 seeds (42, 49)`; a single one is said to be single."""
    seeds = sorted(set(seeds))
    return f"a single seed ({seeds[0]})" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"


def seeds_of_study(rows: pl.DataFrame) -> str:
    """The same of a study, some of whose tasks may have been run with fewer."""
    fewest = rows.group_by("protocol", "task").agg(pl.col("seed").n_unique())["seed"].min()
    return ("" if fewest == rows["seed"].n_unique() else f"{fewest} to ") + seeds_text(rows["seed"])


def sizes_text(made: list[dict]) -> str:
    """What was trained, of runs (`runs_behind`): width, depth and steps, by protocol and task where they differ.

    Raises ValueError if they are of models of different sizes.
    """
    every = [run["settings"] for run in made]
    model, layers, steps = every[0]["model"], {}, {}
    for settings in sorted(every, key=lambda settings: settings["protocol"]):
        if settings["model"] != model:
            raise ValueError(f"files must be of one size of model, got {model} and {settings['model']}")
        name, depth = settings["protocol"], model["num_layers"] or settings["choices"]["num_layers"]
        task, long = settings["task"], settings["steps"]
        for found, ours, what in (
            (layers.setdefault(name, depth), depth, "depth"),
            (steps.setdefault(name, {}).setdefault(task, long), long, f"length on {task}"),
        ):
            if found != ours:
                raise ValueError(f"files must be of one size of model, got a {what} of {found} and {ours} under {name}")
    titles = {task: style.task_title(task) for task in style.in_order({settings["task"] for settings in every})}
    depth = _by_protocol({name: f"{number} layers" for name, number in layers.items()})
    long = _by_protocol(
        {
            name: ", ".join(f"{by_task[task]:,} on {title}" for task, title in titles.items() if task in by_task)
            for name, by_task in steps.items()
        }
    )
    return f"width {model['d_model']}, {model['num_heads']} heads of {model['head_dim']}; {depth}; steps: {long}"


def _by_protocol(said: dict[str, str]) -> str:
    """One text where all protocols agree, else `text (protocols); ..`."""
    texts = list(dict.fromkeys(said.values()))
    if len(texts) == 1:
        return texts[0]
    return "; ".join(f"{text} ({', '.join(name for name in said if said[name] == text)})" for text in texts)


def have_papers_sizes(made: list[dict]) -> bool:
    """Whether all runs (`runs_behind`) have the sizes of PosGen that the paper states.

    Told by what was trained and not by the preset's name: a preset may be edited, and others have these sizes.
    """
    return all(
        PAPER_MODEL.items() <= settings["model"].items()
        and PAPER_DATA.items() <= settings["data"].items()
        and settings["steps"] * settings["training"]["batch_size"] >= PAPER_EPOCHS * settings["data"]["num_train"]
        for settings in (run["settings"] for run in made)
    )


def model_text(made: list[dict], instead: str = ", and what is said holds for this size alone.") -> str:
    """What was trained, and what may be read out of its numbers where it has not the paper's sizes: then `instead`."""
    if have_papers_sizes(made):
        return f"{sizes_text(made)}. The preset has the paper's sizes, as far as the paper states them."
    return (
        f"{sizes_text(made)}. The preset is a small stand-in for the paper's model, trained for less: its absolute "
        f"numbers are not comparable with the paper's{instead}"
    )


def read_lines(paths: list[Path], kind: Kind, unit: list[str], same: list[str]) -> pl.DataFrame:
    """Rows of one language model, a line of a figure for every encoding and strategy.

    unit  the columns that tell one measurement of a line from another
    same  those that all lines must have alike: what was read

    Raises ValueError for no files, files of several models, one line given twice, or lines that read something else.
    """
    rows = _read(paths, kind)
    models = sorted(rows["model"].unique())
    if len(models) != 1:
        raise ValueError(f"--{kind.name} files must be of one model, got {', '.join(models)}; draw each by itself")
    check_once(rows, [*LINE, *unit, "metric"])
    read = rows.select(*LINE, *same).unique(maintain_order=True).partition_by(LINE, as_dict=True, include_key=False)
    first = next(iter(read.values())).sort(same)
    for (encoding, strategy), found in read.items():
        if not found.sort(same).equals(first):
            raise ValueError(
                f"every line must have read the same text, but {encoding} {strategy} did not; run it again"
            )
    return rows


def sorted_lines(rows: list[dict], *before: str) -> list[dict]:
    """Cells of lines by some columns, then untuned ones first, encodings in their order, and by length."""
    encodings = style.encodings_in_order({row["encoding"] for row in rows})

    def place(row: dict) -> tuple:
        tuned = row["strategy"] != UNTUNED
        return *(row[name] for name in before), tuned, row["strategy"], encodings.index(row["encoding"]), row["length"]

    return sorted(rows, key=place)


def paired_lines(rows: pl.DataFrame, unit: list[str], by: list[str]) -> Iterator[tuple[dict, pl.DataFrame]]:
    """Resonance beside plain (columns `_plain`), unit by unit, of every strategy that both have; in parts by some
    columns, with their names."""
    for resonance, plain in style.pairs(style.encodings_in_order(set(rows["encoding"]))):
        ours, theirs = (rows.filter(encoding=name) for name in (resonance, plain))
        both = ours.join(theirs, on=["strategy", *unit], suffix="_plain", maintain_order="left")
        for key, part in both.group_by(by, maintain_order=True):
            yield {"resonance": resonance, "plain": plain, **dict(zip(by, key, strict=True))}, part


def about_model(paths: list[Path]) -> dict:
    """What the runs behind one language model's files have in common, and the strategies that were fine-tuned."""
    made = [read_run(path) for path in paths]
    return {
        "model": made[0]["model"],
        "num_parameters": made[0]["num_parameters"],
        "precision": " and ".join(sorted({r.get("precision", r["settings"]["precision"]) for r in made})),
        "train_length": next((r["spec"]["train_length"] for r in made if r["spec"]["train_length"]), None),
        "scale": max(r["spec"]["scale"] for r in made),
        "strategies": sorted({r["strategy"] for r in made} - {UNTUNED}),
    }


def _of_protocol(paths: list[Path], kind: Kind, protocol: str, *where: pl.Expr) -> pl.DataFrame:
    """Rows of one protocol. Raises ValueError for no files or rows, another protocol's, or one run given twice."""
    rows = _read(paths, kind)
    found = sorted(rows["protocol"].unique())
    if found != [protocol]:
        raise ValueError(
            f"--{kind.name} files must all be of protocol {protocol}, got {', '.join(found) or 'no rows'}; "
            "protocols are never averaged, render each by itself"
        )
    rows = rows.filter(*where)
    if rows.is_empty():
        raise ValueError(f"--{kind.name} must hold what is to be shown, got nothing of it; run the workflow again")
    names = ("task", "encoding", "seed", "step", "position", "metric")
    check_once(rows, [name for name in names if name in rows.columns])
    return rows


def _read(paths: list[Path], kind: Kind) -> pl.DataFrame:
    """Rows of a kind; of evaluations a collected study is as good, which has the test split's summaries."""
    if not paths:
        raise ValueError(f"--{kind.name} must name at least one file, got none; give it once a file")
    missing = {"split": pl.lit("test"), "epoch": pl.lit(None, pl.Float64), "position": pl.lit(None, pl.Int64)}
    kept = [path for path in paths if kind is EVALUATION and kind_of(path) == STUDY.name]
    rows = (read_rows(path, STUDY).with_columns(**missing) if path in kept else read_rows(path, kind) for path in paths)
    return pl.concat([part.select(list(kind.columns)) for part in rows])


def check_once(rows: pl.DataFrame, key: list[str]) -> None:
    twice = rows.group_by(key).len().filter(pl.col("len") > 1).sort(key)
    if not twice.is_empty():
        named = ", ".join(f"{name} {value}" for name, value in twice.row(0, named=True).items() if name != "len")
        raise ValueError(f"every run must be given once, got {named} twice; leave one file out")
