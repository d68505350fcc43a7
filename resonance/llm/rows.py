"""What the language models' result files hold; each evaluation has its own kind with it."""

import polars as pl

from resonance.record.rows import Kind

NAMES = {"model": pl.String, "encoding": pl.String, "strategy": pl.String}
"""The columns of whatever is measured of a model, an encoding and a fine-tuning strategy."""

TRAINING = Kind(
    "llm_training",
    {"step": pl.Int64, "epoch": pl.Float64, "metric": pl.String, "value": pl.Float64},
    {
        "train_loss": "mean loss of the step",
        "learning_rate": "at that step",
        "gradient_norm": "at that step, before any clipping",
    },
)

# A packed text: where each document lies in tokens.bin, and what it may be used for.
DOCUMENTS = Kind(
    "documents",
    {"document": pl.String, "title": pl.String, "split": pl.String, "start": pl.Int64, "num_tokens": pl.Int64},
)
