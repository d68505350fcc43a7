"""The result files: their schemas, and their only reader and writer.

Long parquet, one value a row, every name a column. What a file is stands in its metadata: `kind`,
`schema_version`, and the `run` that made it as JSON.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from resonance.record.files import replacing

SCHEMA_VERSION = "1"

# What may stand in the column `metric`, and what it means.
METRICS = {
    "accuracy": "teacher-forced argmax accuracy at one position, over sequences",
    "in_distribution_accuracy": "mean accuracy over x[j+k] .. x[L-1]",
    "ood_accuracy": "mean accuracy over x[L] .. x[L'-1] (Table 1)",
    "ood_accuracy_even": "the same at even positions",
    "ood_accuracy_odd": "the same at odd positions",
    "first_token_accuracy": "accuracy at x[j+k], the one token that no local shortcut gives for cot",
    "loss": "cross-entropy in nats per token over x[j+k] .. x[L'-1]",
    "in_distribution_loss": "the same over x[j+k] .. x[L-1]",
    "ood_loss": "the same over x[L] .. x[L'-1]",
    "train_loss": "mean training loss since the last look",
    "learning_rate": "at that step",
    "gradient_norm": "at that step, before any clipping",
    "token_loss": "mean nats per predicted token of a stretch at a length",
    "window_loss": "unweighted mean of its windows' mean losses (L10: what the released code averages)",
    "num_windows": "how many windows that stretch was read in",
    "found": "1 if the first number of the answer is the hidden key, else 0",
    "credit": "what one answer to one question of L-Eval earns, 0 to 1",
}

SCHEMAS = {
    # One row a look of training at the validation split, in distribution.
    "training": {"step": pl.Int64, "epoch": pl.Float64, "metric": pl.String, "value": pl.Float64},
    # split `validation`: Figure 3's curve, every look; split `test`: the selected step, with
    # `accuracy` by position (`position` is null in summaries).
    "evaluation": {
        "protocol": pl.String,
        "task": pl.String,
        "train_encoding": pl.String,
        "encoding": pl.String,
        "seed": pl.Int64,
        "split": pl.String,
        "step": pl.Int64,
        "epoch": pl.Float64,
        "position": pl.Int64,
        "metric": pl.String,
        "value": pl.Float64,
    },
    # What needs no training: `encoding` is `local_rule` or `chance`.
    "baseline": {
        "protocol": pl.String,
        "task": pl.String,
        "encoding": pl.String,
        "split": pl.String,
        "position": pl.Int64,
        "metric": pl.String,
        "value": pl.Float64,
    },
    # A language model on held-out documents: one row a document, piece, length and metric.
    "perplexity": {
        "model": pl.String,
        "encoding": pl.String,
        "strategy": pl.String,
        "corpus": pl.String,
        "document": pl.String,
        "piece": pl.Int64,
        "length": pl.Int64,
        "num_tokens": pl.Int64,
        "metric": pl.String,
        "value": pl.Float64,
    },
    # Passkey retrieval: one row a length and repetition. `depth`: where the key was hidden, 0 to 1.
    "passkey": {
        "model": pl.String,
        "encoding": pl.String,
        "strategy": pl.String,
        "length": pl.Int64,
        "repetition": pl.Int64,
        "num_tokens": pl.Int64,
        "depth": pl.Float64,
        "key": pl.Int64,
        "answer": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
    },
    # Answers to L-Eval's closed-ended questions: one row a question and parser. `answer` is what the parser
    # read, `misread` the kind of mistake of `released`; `encoding` and `strategy` are null where nobody said.
    "leval": {
        "model": pl.String,
        "encoding": pl.String,
        "strategy": pl.String,
        "task": pl.String,
        "question": pl.Int64,
        "parser": pl.String,
        "gold": pl.String,
        "answer": pl.String,
        "misread": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
    },
}

# A packed text: where each document lies in tokens.bin, and what it may be used for.
_DOCUMENTS = {
    "document": pl.String,
    "title": pl.String,
    "split": pl.String,
    "start": pl.Int64,
    "num_tokens": pl.Int64,
}


def write_rows(path: Path, kind: str, rows: Iterable[dict], run: dict) -> None:
    """Rows of a kind, checked against its schema and its metrics' names, with the run that made them."""
    rows = list(rows)
    for name in {name for row in rows for name in row.keys() ^ SCHEMAS[kind].keys()}:
        raise ValueError(
            f"{path}: rows of {kind} must have the columns {', '.join(SCHEMAS[kind])}; {name} is not in both"
        )
    frame = pl.DataFrame(rows, schema=SCHEMAS[kind], strict=True)
    unknown = set(frame["metric"].unique()) - set(METRICS)
    if unknown:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {', '.join(sorted(unknown))}")
    if frame["value"].is_nan().any() or frame["value"].is_infinite().any() or frame["value"].null_count():
        raise ValueError(f"{path}: a value is not a finite number; nothing was written")
    _write(path, frame, kind, run)


def read_rows(paths: Iterable[Path] | Path, kind: str) -> pl.DataFrame:
    """The rows of one file or several of a kind. Raises ValueError for a file of another kind or version."""
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    return pl.concat([_read(path, kind).select(list(SCHEMAS[kind])) for path in paths])


def read_run(path: Path) -> dict:
    """The run that made a result file."""
    metadata = _metadata(path)
    if "run" not in metadata:
        raise ValueError(f"{path} must name the run that made it, got a parquet file of somebody else")
    return json.loads(metadata["run"])


def write_sequences(path: Path, x_NT: np.ndarray, run: dict) -> None:
    """Token sequences, one a row: column `tokens`, fixed-size arrays of the smallest unsigned type."""
    if x_NT.min(initial=0) < 0:
        raise ValueError(f"{path}: tokens must be >= 0, got {x_NT.min()}; nothing was written")
    x_NT = x_NT.astype(np.min_scalar_type(x_NT.max(initial=0)))
    column = pl.Series("tokens", x_NT, dtype=pl.Array(pl.Series(x_NT[:0, 0]).dtype, x_NT.shape[1]))
    _write(path, pl.DataFrame([column]), "sequences", run)


def read_sequences(path: Path) -> np.ndarray:
    """Token sequences as int64 [N, T]."""
    return _read(path, "sequences")["tokens"].to_numpy().astype(np.int64)


def write_documents(path: Path, rows: Iterable[dict], run: dict) -> None:
    """The documents of a packed text."""
    _write(path, pl.DataFrame(list(rows), schema=_DOCUMENTS, strict=True), "documents", run)


def read_documents(path: Path) -> pl.DataFrame:
    return _read(path, "documents")


def _write(path: Path, frame: pl.DataFrame, kind: str, run: dict) -> None:
    metadata = {"kind": kind, "schema_version": SCHEMA_VERSION, "run": json.dumps(run, sort_keys=True)}
    with replacing(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", metadata=metadata)


def _read(path: Path, kind: str) -> pl.DataFrame:
    metadata = _metadata(path)
    if metadata.get("kind") != kind or metadata.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path} must hold {kind} of schema version {SCHEMA_VERSION}, got {metadata.get('kind')!r} of "
            f"{metadata.get('schema_version')!r}; delete it and run the workflow again"
        )
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_whole(path, error) from None


def _metadata(path: Path) -> dict[str, str]:
    try:
        return pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_whole(path, error) from None


def _not_whole(path: Path, error: Exception) -> Exception:
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{path} is missing; run the workflow to make it")
    reason = " ".join(str(error).split())
    return ValueError(f"{path} is not a whole parquet file ({reason}); delete it and run the rule again")
