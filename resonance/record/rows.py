"""The result files: long parquet, one value a row, every name a column; and their only reader and writer.

What a file is stands in its metadata: `kind`, `schema_version`, and the `run` that made it as JSON. A kind with its
columns and metrics belongs to the wing that measures it.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from resonance.record.files import UNSEALED, check_seal, replacing

SCHEMA_VERSION = "1"


@dataclass(frozen=True)
class Kind:
    """A kind of rows: its name, its columns, and what may stand in the column `metric` with what it means (none: the
    kind has no such column)."""

    name: str
    columns: Mapping[str, pl.DataType]
    metrics: Mapping[str, str] = field(default_factory=dict)


SEQUENCES = "sequences"


def write_rows(path: Path, kind: Kind, rows: Iterable[dict], run: dict) -> None:
    """Rows of a kind, checked against its columns and its metrics' names, with the run that made them."""
    rows = list(rows)
    for name in {name for row in rows for name in row.keys() ^ kind.columns.keys()}:
        raise ValueError(
            f"{path}: rows of {kind.name} must have the columns {', '.join(kind.columns)}; {name} is not in both"
        )
    frame = pl.DataFrame(rows, schema=dict(kind.columns), strict=True)
    if kind.metrics:
        unknown = set(frame["metric"].unique()) - set(kind.metrics)
        if unknown:
            raise ValueError(f"metric must be one of {', '.join(kind.metrics)}, got {', '.join(sorted(unknown))}")
        if frame["value"].is_nan().any() or frame["value"].is_infinite().any() or frame["value"].null_count():
            raise ValueError(f"{path}: a value is not a finite number; nothing was written")
    _write(path, frame, kind.name, run)


def read_rows(paths: Iterable[Path] | Path, kind: Kind) -> pl.DataFrame:
    """The rows of one file or several of a kind. Raises ValueError for a file of another kind or version."""
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    return pl.concat([_read(path, kind.name).select(list(kind.columns)) for path in paths])


def read_run(path: Path) -> dict:
    """The run that made a result file."""
    return json.loads(_metadata(path)["run"])


def kind_of(path: Path) -> str:
    """The name of a result file's kind."""
    return _metadata(path)["kind"]


def write_sequences(path: Path, x_NT: np.ndarray, run: dict) -> None:
    """Token sequences, one a row: column `tokens`, fixed-size arrays of the smallest unsigned type."""
    if x_NT.min(initial=0) < 0:
        raise ValueError(f"{path}: tokens must be >= 0, got {x_NT.min()}; nothing was written")
    x_NT = x_NT.astype(np.min_scalar_type(x_NT.max(initial=0)))
    column = pl.Series("tokens", x_NT, dtype=pl.Array(pl.Series(x_NT[:0, 0]).dtype, x_NT.shape[1]))
    _write(path, pl.DataFrame([column]), SEQUENCES, run)


def read_sequences(path: Path) -> np.ndarray:
    """Token sequences as int64 [N, T]."""
    return _read(path, SEQUENCES)["tokens"].to_numpy().astype(np.int64)


def _write(path: Path, frame: pl.DataFrame, kind: str, run: dict) -> None:
    metadata = {"kind": kind, "schema_version": SCHEMA_VERSION, "run": json.dumps(run, sort_keys=True)}
    written = io.BytesIO()  # polars itself does not say that a disk is full
    frame.write_parquet(written, compression="zstd", metadata=metadata | {"checksum": UNSEALED})
    with replacing(path, sealed=True) as temporary:
        temporary.write_bytes(written.getbuffer())


def _read(path: Path, kind: str) -> pl.DataFrame:
    metadata = _metadata(path)
    if metadata.get("kind") != kind or metadata.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path} must hold {kind} of schema version {SCHEMA_VERSION}, got {metadata.get('kind')!r} of "
            f"{metadata.get('schema_version')!r}; delete it and run the workflow again, or name another"
        )
    return pl.read_parquet(path)


def _metadata(path: Path) -> dict[str, str]:
    """Of a whole file alone: on a damaged one polars may fail in many ways, and may not."""
    check_seal(path)
    try:
        return pl.read_parquet_metadata(path)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} must be a parquet file, got another ({reason}); run the rule again") from None
