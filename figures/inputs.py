"""What the tables and figures read, checked where it comes in; and the one way that they fail."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from figures import style
from resonance.record.paths import UNTUNED
from resonance.record.results import read_rows, read_run

Output = Annotated[Path, typer.Option(help="Path of the files to write, without a suffix.")]
Preset = Annotated[str, typer.Option(help="The preset's name, as it is to be printed.")]
Protocol = Annotated[str, typer.Option(help="The one protocol that every file must be of.")]
Evaluations = Annotated[list[Path], typer.Option(help="An evaluation's parquet; once a file.")]
Study = Annotated[list[Path], typer.Option(help="The collected study; once a file.")]
Title = Annotated[str, typer.Option(help="The model, as it is to be called.")]
StandIn = Annotated[bool, typer.Option(help="Whether it is another model than the paper's, which is then said.")]
TableFiles = Annotated[Path, typer.Option(help="Path of the table's files, without a suffix.")]

Baselines = Annotated[list[Path], typer.Option(help="A baseline's parquet; once a file.")]

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


def read_evaluations(paths: list[Path], protocol: str, split: str) -> pl.DataFrame:
    """Summaries (position is null) of one split, every run once.

    Raises ValueError for no files, files of another protocol, or one run given twice.
    """
    rows = _of_protocol(paths, "evaluation", protocol)
    summaries = rows.filter(pl.col("position").is_null(), pl.col("split") == split)
    if summaries.is_empty():
        raise ValueError(f"--evaluation must hold rows of split {split}, got none; run the evaluation again")
    _check_once(summaries, ["task", "encoding", "seed", "step", "metric"])
    return summaries


def read_positions(paths: list[Path], protocol: str) -> pl.DataFrame:
    """Test accuracy by position, every run once."""
    rows = _of_protocol(paths, "evaluation", protocol)
    found = rows.filter(pl.col("position").is_not_null(), pl.col("metric") == "accuracy", pl.col("split") == "test")
    if found.is_empty():
        raise ValueError("--evaluation must hold accuracy by position, got none; run the evaluation again")
    _check_once(found, ["task", "encoding", "seed", "position"])
    return found


def train_length(paths: list[Path]) -> int:
    """L of the runs behind the files. Raises ValueError if they do not share one."""
    found = {read_run(path)["settings"]["data"]["train_length"] for path in paths}
    if len(found) != 1:
        raise ValueError(f"--evaluation files must share one train_length, got {sorted(found)}")
    return found.pop()


def read_baselines(paths: list[Path], protocol: str) -> pl.DataFrame:
    """Summaries of the test split of what needs no training: `chance` and `local_rule`."""
    rows = _of_protocol(paths, "baseline", protocol)
    summaries = rows.filter(pl.col("position").is_null(), pl.col("split") == "test")
    _check_once(summaries, ["task", "encoding", "metric"])
    return summaries


def read_study(paths: list[Path]) -> tuple[pl.DataFrame, dict]:
    """The summaries of a study collected in one file or several, every run once, and what they were made with.

    Raises ValueError for files without rows, of several models, or with one run twice.
    """
    rows, runs = read_rows(paths, "evaluation"), [read_run(path) for path in paths]
    if rows.is_empty():
        raise ValueError(f"--study must hold evaluations, got none in {', '.join(map(str, paths))}; collect it again")
    _check_once(rows, ["protocol", "task", "encoding", "seed", "metric"])
    made = dict(runs[0])
    for run in runs[1:]:
        if run["model"] != made["model"]:
            raise ValueError(f"--study files must be of one model, got {made['model']} and {run['model']}")
        made["layers"] = made["layers"] | run["layers"]
        made["steps"] = made["steps"] | {p: made["steps"].get(p, {}) | by_task for p, by_task in run["steps"].items()}
    return rows, made


def seeds_text(seeds: list[int]) -> str:
    """`seeds 42, 49`; a single one is said to be single."""
    return f"a single seed ({seeds[0]})" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"


def seeds_of_study(rows: pl.DataFrame) -> str:
    """The same of a study, some of whose tasks may have been run with fewer."""
    seeds = sorted(rows["seed"].unique())
    fewest = rows.group_by("protocol", "task").agg(pl.col("seed").n_unique())["seed"].min()
    return seeds_text(seeds) if fewest == len(seeds) else f"{fewest} to {seeds_text(seeds)}"


def sizes_text(made: list[dict]) -> str:
    """What was trained, from runs (`read_run`), or from a collected study: depth, width, steps by task.

    Raises ValueError if the files come of models of different sizes.
    """
    if len(made) == 1 and "study" in made[0]:
        return style.sizes(made[0])
    sizes, steps = set(), {}
    for settings in (run["settings"] for run in made):
        model, layers = settings["model"], settings["model"]["num_layers"] or settings["choices"]["num_layers"]
        sizes.add(f"{layers} layers of width {model['d_model']}, {model['num_heads']} heads of {model['head_dim']}")
        steps[settings["task"]] = settings["steps"]
    if len(sizes) > 1:
        raise ValueError(f"--evaluation files must be of one size of model, got {'; '.join(sorted(sizes))}")
    by_task = ", ".join(f"{steps[task]:,} on {style.task_title(task)}" for task in style.in_order(set(steps)))
    return f"{sizes.pop()}; steps: {by_task}"


def has_papers_sizes(made: dict) -> bool:
    """Whether a collected study, or the settings of one run, has the sizes of PosGen that the paper states.

    Told by what was trained and not by the preset's name: a preset may be edited, and others have these sizes.
    """
    for part, theirs in (("model", PAPER_MODEL), ("data", PAPER_DATA)):
        if any(made[part][name] != value for name, value in theirs.items()):
            return False
    steps = made["steps"]
    fewest = min(n for by_task in steps.values() for n in by_task.values()) if isinstance(steps, dict) else steps
    return fewest * made["training"]["batch_size"] >= PAPER_EPOCHS * made["data"]["num_train"]


def all_have_papers_sizes(made: list[dict]) -> bool:
    """The same of runs (`read_run`), or of a collected study."""
    return all(has_papers_sizes(each if "study" in each else each["settings"]) for each in made)


def read_of_one_model(paths: list[Path], kind: str) -> pl.DataFrame:
    """Rows that were measured on one language model. Raises ValueError for no files, or files of several."""
    if not paths:
        raise ValueError(f"--{kind} must name at least one file, got none; give it once a file")
    rows = read_rows(paths, kind)
    models = sorted(rows["model"].unique())
    if len(models) != 1:
        raise ValueError(f"--{kind} files must be of one model, got {', '.join(models)}; draw each by itself")
    return rows


def about_model(paths: list[Path]) -> dict:
    """What the runs behind one language model's files have in common, and the strategies that were fine-tuned."""
    made = [read_run(path) for path in paths]
    return {
        "model": made[0]["model"],
        "num_parameters": made[0]["num_parameters"],
        "precision": made[0]["settings"]["precision"],
        "train_length": next((r["spec"]["train_length"] for r in made if r["spec"]["train_length"]), None),
        "scale": max(r["spec"]["scale"] for r in made),
        "strategies": sorted({r["strategy"] for r in made} - {UNTUNED}),
    }


def _of_protocol(paths: list[Path], kind: str, protocol: str) -> pl.DataFrame:
    if not paths:
        raise ValueError(f"--{kind} must name at least one file, got none; give it once a file")
    rows = read_rows(paths, kind)
    found = sorted(rows["protocol"].unique())
    if found != [protocol]:
        raise ValueError(
            f"--{kind} files must all be of protocol {protocol}, got {', '.join(found) or 'no rows'}; "
            "protocols are never averaged, render each by itself"
        )
    return rows


def _check_once(rows: pl.DataFrame, key: list[str]) -> None:
    twice = rows.group_by(key).len().filter(pl.col("len") > 1).sort(key)
    if not twice.is_empty():
        named = ", ".join(f"{name} {value}" for name, value in twice.row(0, named=True).items() if name != "len")
        raise ValueError(f"every run must be given once, got {named} twice; leave one file out")
