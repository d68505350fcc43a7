"""A study in one file: the summaries of all its evaluations, or all its probes, each row with what made it.

Small enough to be kept (`results-published/`), and what the tables of many runs read. Imports no torch.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import polars as pl

from resonance.posgen import paths
from resonance.posgen.preset import PROBED, Cell, Posgen
from resonance.posgen.probe_rows import PROBE, PROBES
from resonance.posgen.rows import EVALUATION, STUDY
from resonance.record.identity import code_of, differences, digest, identity
from resonance.record.rows import read_rows, read_run, write_rows
from resonance.workflow.preset import did_you_mean

SETTINGS = ("settings", "train_spec", "evaluation", "spec")
"""What a row's numbers depend on, of what its run says; the code beside them."""
NEEDED = (*SETTINGS, "train_code", "code", "train_precision", "precision")


def measured_path(preset: str, study: str, cell: Cell, root: Path = Path()) -> Path:
    """Where that lies which a study takes of a cell: its evaluation, or its probe."""
    return root / (paths.PROBE if study in PROBED else paths.EVALUATION).format(preset=preset, **cell._asdict())


def collect(
    posgen: Posgen,
    preset: str,
    study: str,
    output: Path,
    *,
    root: Path = Path(),
    only: Mapping[str, Collection] | None = None,
    kept: Path | None = None,
    any_code: bool = False,
) -> str:
    """Write the test split's summaries of every cell of a study, and return what was written, in one line.

    only      the values of a cell's fields to take; none given: all
    kept      a file that was collected before: cells without an evaluation here are taken from it, so that a study
              may be run in parts, on several machines
    any_code  take kept rows though other code made them than is here, or none knows which

    Raises ValueError for a study that is none, holds no such cells, or has rows of other settings than the preset's
    (or, kept, of other code), and FileNotFoundError for an evaluation that was not made.
    """
    if study not in (known := posgen.settings.all_studies):
        raise ValueError(f"study must be one of {', '.join(known)}, got {study!r}{did_you_mean(study, known)}")
    cells = posgen.cells(study)
    for field, values in (only or {}).items():
        cells = [cell for cell in cells if not values or getattr(cell, field) in values]
        if not cells:
            raise ValueError(f"{field} must name cells of study {study}, got {', '.join(map(str, values))}")
    kind = PROBES if study in PROBED else STUDY
    before, made_before = (read_rows(kept, kind), read_run(kept)["made"]) if kept else (None, {})
    rows, made = [], {}
    for cell in cells:
        path = measured_path(preset, study, cell, root)
        names = {name: getattr(cell, name) for name in ("protocol", "task", "encoding", "seed")}
        if before is not None and not path.exists() and len(found := before.filter(**names)):
            own = {key: made_before[key] for key in found["made"].unique()}
            for each in own.values():
                _check(wanted(posgen, cell, study), each, f"{kept}: {_title(cell)}", code=not any_code)
        else:
            run = read_run(path)
            if missing := [key for key in NEEDED if key not in run]:
                raise ValueError(f"{path} must say what made it, got no {', '.join(missing)}; run the workflow again")
            own = dict([_made_of(run)])
            # Whether the code is today's Snakemake asks.
            _check(wanted(posgen, cell, study), run, str(path), code=False)
            found = read_rows(path, PROBE if kind is PROBES else EVALUATION)
            if kind is STUDY:
                found = found.filter(pl.col("position").is_null(), split="test")
            if (of := found.select(list(names)).unique().rows(named=True)) != [names]:
                raise ValueError(f"{path}: must be of {_title(cell)}, got {of[:1]}; run its rule again")
            found = found.with_columns(made=pl.lit(next(iter(own))))
        made |= own
        rows += found.select(list(kind.columns)).iter_rows(named=True)
    computed = {(each["train_precision"], each["precision"]) for each in made.values()}
    if kept and len(computed) > 1 and not any_code:
        raise ValueError(
            f"{kept}: must be computed in the precision of the rows here, got {sorted(computed)} of training and "
            "evaluation; --any-code takes both"
        )
    write_rows(output, kind, rows, {"study": study, "preset": preset, "made": made})
    return f"{output}: {len(cells)} {'probes' if kind is PROBES else 'evaluations'} of {study}"


def wanted(posgen: Posgen, cell: Cell, study: str) -> dict:
    """What the preset would make a cell of a study with now, in the words of a measurement's run."""
    train_spec, spec = posgen.spec(cell.train_protocol, cell.train_encoding), posgen.spec(cell.protocol, cell.encoding)
    return {
        "settings": posgen.train_run(cell.train_protocol, cell.task).model_dump(mode="json"),
        "train_spec": train_spec.to_dict(),
        "evaluation": posgen.settings.evaluation.model_dump(mode="json"),
        "spec": spec.to_dict(),
        "train_code": code_of(paths.CODE.format(stage="train"), methods=[train_spec.method]),
        "code": code_of(paths.CODE.format(stage="probe" if study in PROBED else "evaluate"), methods=[spec.method]),
    }


def _made_of(run: dict) -> tuple[str, dict]:
    """What made one evaluation, without what is its own (seed, time, cost), under a name of its contents."""
    provenance = run["provenance"]
    made = {key: run[key] for key in (*NEEDED, "threads", "device")}
    made |= {key: provenance[key] for key in ("commit", "versions")} | {"recorded": "with the run"}
    return digest(identity(made)), made


def _check(ours: dict, theirs: dict, where: str, *, code: bool) -> None:
    """Raises ValueError, by name, where rows are of other settings than ours; code: or of other code."""
    parts = [({key: side[key] for key in SETTINGS}) for side in (ours, theirs)]
    flat = [identity({f"{key}.{name}": value for key in part for name, value in part[key].items()}) for part in parts]
    if code:
        if not (theirs["code"] and theirs["train_code"]):
            commit = theirs["commit"]
            raise ValueError(f"{where}: nobody recorded what code made it (commit {commit}); --any-code takes it")
        for side, of in zip(flat, (ours, theirs), strict=True):
            side |= dict(f"{kind} {line}".rsplit(" ", 1) for kind in ("train_code", "code") for line in of[kind])
    if found := differences(*flat):
        raise ValueError(f"{where}: must be made as the preset says now, but {'; '.join(found)}")


def _title(cell: Cell) -> str:
    return f"{cell.encoding} on {cell.task} under {cell.protocol}, seed {cell.seed}"
