"""What the ranking's result files hold."""

import polars as pl

from resonance.record.rows import Kind

ACCURACIES = {
    "in_distribution": "accuracy over what is asked below L",
    "to_2L": "the same from L to 2L - 1",
    "to_4L": "the same from 2L to 4L - 1",
}
# One row a metric of every training. `made` is the key of what made it in the file's run.
RANKING = Kind(
    "ranking",
    {**dict.fromkeys(("encoding", "task", "metric", "made"), pl.String), "seed": pl.Int64, "value": pl.Float64},
    {
        **ACCURACIES,
        "step_ms": "median time of a training step, one thread, whatever else ran then",
        "step_ratio": "time of a step over RoPE's, in turns, one thread; one measurement an encoding",
        "parameters": "numbers that the encoding trains",
    },
)
