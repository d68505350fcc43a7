"""What the figures of why models fail past L share: the probes of a study, and their numbers by model."""

from pathlib import Path

import polars as pl

from figures import inputs
from resonance.posgen.probe_rows import PROBES

MODEL = ["protocol", "task", "encoding", "seed"]


def read(paths: list[Path]) -> tuple[pl.DataFrame, list[dict]]:
    """Rows of a collected study of probes, every model once, and what made them. Raises ValueError for none."""
    return inputs.read_study(paths, PROBES, "probes")


def by_model(rows: pl.DataFrame, mask: str, metric: str) -> dict[tuple, float]:
    """One number a model; a model without it is left out."""
    found = rows.filter(pl.col("position").is_null(), mask=mask, metric=metric)
    return {tuple(row[name] for name in MODEL): row["value"] for row in found.iter_rows(named=True)}


def by_position(rows: pl.DataFrame, mask: str, metric: str) -> pl.DataFrame:
    """The rows of one model by position, or by distance."""
    return rows.filter(pl.col("position").is_not_null(), mask=mask, metric=metric).sort("position")
