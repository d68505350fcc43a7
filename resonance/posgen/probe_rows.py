"""What the files of probes hold; apart from `rows`, so that what is added here reruns no training."""

import polars as pl

from resonance.posgen.rows import EVALUATION, MEASURED, SUMMARIES
from resonance.record.rows import Kind

PROBED = {
    **{name: SUMMARIES[name] for name in SUMMARIES if "accuracy" in name and "first" not in name},
    "accuracy": MEASURED["accuracy"],
    "hidden": "how many untrained distances the mask hides",
    "first_fall": "distance from query to first token where accuracy first falls past the trained distances",
    "first_alias": "the first untrained distance that is an alias, by the weights alone",
    "predicted_fall": "where they lead to expect the first fall",
    "predicted_leak": "the share of attention past the trained distances that they lead to expect",
    "above_trained": "nats that the mean logit of some head stands above its best at a trained distance, by distance",
    "attention": "mean attention of queries past the trained length, by distance",
}
_NAMES = "protocol task train_encoding encoding seed mask position metric value"
_COLUMNS = {name: EVALUATION.columns.get(name, pl.String) for name in _NAMES.split()}
# Accuracy under masks on the distances that attention may look over (`aliases.masks`), and what the weights say of
# distances. `position` is a position of the sequence, or a distance, in what goes by it; null in the rest.
PROBE = Kind("probe", _COLUMNS, PROBED)
# A study of them collected in one file, each with the key of what made it in the file's run.
PROBES = Kind("probes", {**_COLUMNS, "made": pl.String}, PROBED)
