"""What PosGen's result files hold."""

import polars as pl

from resonance.record.rows import Kind

SUMMARIES = {
    "in_distribution_accuracy": "mean accuracy over x[j+k] .. x[L-1]",
    "ood_accuracy": "mean accuracy over x[L] .. x[L'-1] (Table 1)",
    "ood_accuracy_even": "the same at even positions",
    "ood_accuracy_odd": "the same at odd positions",
    "first_token_accuracy": "accuracy at x[j+k], the one token that no local shortcut gives for cot",
    "loss": "cross-entropy in nats per token over x[j+k] .. x[L'-1]",
    "in_distribution_loss": "the same over x[j+k] .. x[L-1]",
    "ood_loss": "the same over x[L] .. x[L'-1]",
}
MEASURED = {"accuracy": "teacher-forced argmax accuracy at one position, over sequences", **SUMMARIES}

_TYPES = {
    **dict.fromkeys(("protocol", "task", "train_encoding", "encoding", "split", "metric", "made"), pl.String),
    **dict.fromkeys(("seed", "step", "position"), pl.Int64),
    **dict.fromkeys(("epoch", "value"), pl.Float64),
}


def _columns(names: str) -> dict[str, type[pl.DataType]]:
    return {name: _TYPES[name] for name in names.split()}


# One row a look of training at the validation split, in distribution.
TRAINING = Kind(
    "training",
    _columns("step epoch metric value"),
    {
        "train_loss": "mean training loss since the last look",
        "learning_rate": "at that step",
        "in_distribution_accuracy": SUMMARIES["in_distribution_accuracy"],
        "in_distribution_loss": SUMMARIES["in_distribution_loss"],
    },
)

# split `validation`: Figure 3's curve, every look; split `test`: the selected step, with `accuracy` by position
# (`position` is null in summaries).
EVALUATION = Kind(
    "evaluation",
    _columns("protocol task train_encoding encoding seed split step epoch position metric value"),
    MEASURED,
)

# What needs no training: `encoding` is `local_rule` or `chance`.
BASELINE = Kind("baseline", _columns("protocol task encoding split position metric value"), MEASURED)

# A study collected in one file: the test split's summaries, each with the key of what made it in the file's run.
STUDY = Kind("study", _columns("protocol task train_encoding encoding seed step metric value made"), SUMMARIES)
