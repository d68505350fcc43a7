"""Where L-Eval's files lie. Wildcards: preset, stage, model, encoding, strategy."""

from resonance.record.paths import RESULTS, TABLES

_LEVAL = RESULTS + "/leval"
SETTINGS = _LEVAL + "/settings/{stage}.json"
TASKS = _LEVAL + "/tasks"
FOLDER = _LEVAL + "/{model}/{encoding}/{strategy}"
PREDICTIONS = FOLDER + "/predictions"
RUN = FOLDER + "/run.json"
SCORES = FOLDER + "/scores.parquet"
# Declared by no rule, as PosGen's checkpoints: answers that a killed run goes on from.
JOURNAL = FOLDER + "/journal"

TABLE2 = TABLES + "/table2_leval"
TABLE2_STAND_IN = TABLES + "/table2_stand_in_{model}"

CODE = "resonance.leval.stages:{stage}"
"""Where the code of a stage begins, for `record.identity`."""
