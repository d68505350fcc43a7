"""What the figures of studies share: one name for what is one run; probes, and their numbers by model."""

from pathlib import Path

import polars as pl

from figures import inputs
from resonance.posgen.probe_rows import PROBES
from resonance.posgen.protocol import VARIANTS

MODEL = ["protocol", "task", "encoding", "seed"]


def read(paths: list[Path]) -> tuple[pl.DataFrame, list[dict]]:
    """Rows of a collected study of probes, every model once, and what made them. Raises ValueError for none."""
    rows, made = inputs.read_study(paths, PROBES, "probes")
    return under_one_name(rows), made


def under_one_name(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a study where `paper+beta32`, which moves YaRN's constants alone, names YaRN's rows alone.

    Encodings without `yarn` in their name stand under `paper`, once. Raises ValueError where the two differ on one.
    """
    plain = pl.col("protocol").str.replace(rf"\+({'|'.join(VARIANTS)})\b", "")
    yarn = pl.col("encoding").str.contains("yarn")
    rows = rows.with_columns(protocol=pl.when(yarn).then("protocol").otherwise(plain))
    rows = rows.unique([*inputs.key_of(rows), "value"], keep="first", maintain_order=True)
    inputs.check_once(rows, inputs.key_of(rows))
    return rows


def by_model(rows: pl.DataFrame, mask: str, metric: str) -> dict[tuple, float]:
    """One number a model; a model without it is left out."""
    found = rows.filter(pl.col("position").is_null(), mask=mask, metric=metric)
    return {tuple(row[name] for name in MODEL): row["value"] for row in found.iter_rows(named=True)}


def by_position(rows: pl.DataFrame, mask: str, metric: str) -> pl.DataFrame:
    """The rows of one model by position, or by distance."""
    return rows.filter(pl.col("position").is_not_null(), mask=mask, metric=metric).sort("position")
