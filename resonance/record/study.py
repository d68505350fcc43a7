"""A study in one file: the summaries of all its evaluations, and what they were made with.

Small enough to be kept (`results-published/`), and what the tables of many runs read. Knows paths and
files; imports no torch.
"""

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
    config: Config, study: str, root: Path = Path(), only: dict[str, Collection] | None = None
) -> tuple[list[dict], dict]:
    """Rows of kind `evaluation` (test split, summaries) of every cell, and the run that they come of.

    only  the values of a cell's fields to take; none given: all

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
    rows, runs = [], []
    for cell in cells:
        path = evaluation_path(config, cell, root)
        found = read_rows(path, "evaluation").filter(pl.col("position").is_null(), pl.col("split") == "test")
        run, steps = read_run(path), posgen.steps(cell.protocol, cell.task)
        if run["settings"]["steps"] != steps:
            raise ValueError(
                f"{path} must come of {steps} training steps as its preset says, got {run['settings']['steps']}; "
                "run the workflow again"
            )
        rows += found.iter_rows(named=True)
        runs.append(run)
    made = [run["provenance"] for run in runs]
    protocols, tasks = (list(dict.fromkeys(getattr(cell, field) for cell in cells)) for field in ("protocol", "task"))
    return rows, {
        "preset": config.preset.preset,
        "study": study,
        "num_evaluations": len(cells),
        "model": posgen.model.model_dump(mode="json"),
        "data": posgen.data.model_dump(mode="json"),
        "training": posgen.training.model_dump(mode="json", exclude={"steps"}),
        "evaluation": posgen.evaluation.model_dump(mode="json"),
        "steps": {p: {t: posgen.steps(p, t) for t in tasks} for p in protocols},
        "layers": {p: posgen.model.num_layers or config.protocols[p].num_layers for p in protocols},
        "devices": sorted({run["device"] for run in runs}),
        "threads": sorted({run["threads"] for run in runs}),
        "commits": sorted({run["commit"] for run in made if run["commit"]}),
        "versions": {name: sorted({run["versions"].get(name, "-") for run in made}) for name in made[0]["versions"]},
        "first": min(run["started"] for run in made),
        "last": max(run["started"] for run in made),
    }
