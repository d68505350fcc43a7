"""A study in one file: the summaries of all its evaluations, and what they were made with.

Small enough to be kept (`results-published/`), and what the tables of many runs read. Knows paths and
files; imports no torch.
"""

import operator
from collections.abc import Collection
from pathlib import Path

import polars as pl

from resonance.record import paths
from resonance.record.config import Cell, Config
from resonance.record.results import read_rows, read_run


def evaluation_path(config: Config, cell: Cell, root: Path = Path()) -> Path:
    """Where the evaluation of a cell lies."""
    return root / paths.EVALUATION.format(preset=config.preset.preset, **cell._asdict())


def collect(
    config: Config, study: str, root: Path = Path(), only: dict[str, Collection] | None = None, kept: Path | None = None
) -> tuple[list[dict], dict]:
    """Rows of kind `evaluation` (test split, summaries) of every cell, and the run that they come of.

    only  the values of a cell's fields to take; none given: all
    kept  a file that was collected before: cells without an evaluation here are taken from it, so that a study
          may be run in parts, on several machines

    Raises ValueError for a study that is none, holds no such cells, or has an evaluation of other
    settings, and FileNotFoundError for one that was not made.
    """
    posgen = config.preset.posgen
    if study not in posgen.all_studies:
        raise ValueError(f"study must be one of {', '.join(posgen.all_studies)}, got {study!r}")
    cells = config.study_cells(study)
    for field, values in (only or {}).items():
        cells = [cell for cell in cells if not values or getattr(cell, field) in values]
        if not cells:
            raise ValueError(f"{field} must name cells of study {study}, got {', '.join(map(str, values))}")
    protocols, tasks = (list(dict.fromkeys(getattr(cell, field) for cell in cells)) for field in ("protocol", "task"))
    settings = {
        "preset": config.preset.preset,
        "model": posgen.model.model_dump(mode="json"),
        "data": posgen.data.model_dump(mode="json"),
        "training": posgen.training.model_dump(mode="json", exclude={"steps"}),
        "evaluation": posgen.evaluation.model_dump(mode="json"),
        "steps": {p: {t: posgen.steps(p, t) for t in tasks} for p in protocols},
        "layers": {p: posgen.model.num_layers or config.protocols[p].num_layers for p in protocols},
    }
    before = _Kept(kept, settings) if kept else None
    rows, made = [], []
    for cell in cells:
        path = evaluation_path(config, cell, root)
        if before and not path.exists() and (found := before.rows_of(cell)):
            rows += found
            made += [] if before.made in made else [before.made]
            continue
        found = read_rows(path, "evaluation").filter(pl.col("position").is_null(), pl.col("split") == "test")
        run, steps = read_run(path), posgen.steps(cell.protocol, cell.task)
        if run["settings"]["steps"] != steps:
            raise ValueError(
                f"{path} must come of {steps} training steps as its preset says, got {run['settings']['steps']}; "
                "run the workflow again"
            )
        rows += found.iter_rows(named=True)
        made.append(_made_of(run))
    return rows, settings | {"study": study, "num_evaluations": len(cells)} | _joined(made)


def _made_of(run: dict) -> dict:
    """What one evaluation was made with, in the form of a collected study's."""
    made = run["provenance"]
    return {
        "devices": [run["device"]],
        "threads": [run["threads"]],
        "commits": [made["commit"]] if made["commit"] else [],
        "versions": {name: [version] for name, version in made["versions"].items()},
        "first": made["started"],
        "last": made["started"],
    }


def _joined(made: list[dict]) -> dict:
    """What several were made with: every value that occurs, and the time from the first to the last."""
    names = dict.fromkeys(name for each in made for name in each["versions"])
    return {
        **{key: sorted({v for each in made for v in each[key]}) for key in ("devices", "threads", "commits")},
        "versions": {name: sorted({v for each in made for v in each["versions"].get(name, ["-"])}) for name in names},
        "first": min(each["first"] for each in made),
        "last": max(each["last"] for each in made),
    }


class _Kept:
    """A study that was collected before."""

    def __init__(self, path: Path, settings: dict) -> None:
        """Raises ValueError for one of other settings than those of this preset."""
        self.made, self.rows = read_run(path), read_rows(path, "evaluation")
        for key, ours in settings.items():
            same = _agree if key in ("steps", "layers") else operator.eq  # those are by protocol, and may be of others
            if not same(ours, self.made[key]):
                raise ValueError(f"{path} must be of this preset's {key}, got {self.made[key]}; leave it out")

    def rows_of(self, cell: Cell) -> list[dict]:
        names = {"protocol": cell.protocol, "task": cell.task, "encoding": cell.encoding, "seed": cell.seed}
        return list(self.rows.filter(**names).iter_rows(named=True))


def _agree(ours: object, theirs: object) -> bool:
    """Whether two are equal in whatever keys both have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(_agree(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    return ours == theirs
