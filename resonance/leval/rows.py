"""What L-Eval's result files hold."""

import polars as pl

from resonance.record.rows import Kind

# One row a question and parser. `answer` is what the parser read, `misread` the kind of mistake of `released`;
# `encoding` and `strategy` are null where nobody said.
ANSWERS = Kind(
    "leval",
    {
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
    {"credit": "what one answer to one question of L-Eval earns, 0 to 1"},
)
