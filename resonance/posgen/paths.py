"""Where PosGen's files lie.

Wildcards: preset, study, protocol, task, stage, split, train_encoding, encoding, seed. The protocol of a run is the one
it was trained under, that of an evaluation the one it is measured under: `paper+P2` measures what `paper` trained.
"""

from resonance.record.paths import RESULTS

_POSGEN = RESULTS + "/posgen"
SETTINGS = _POSGEN + "/settings/{protocol}/{task}/{stage}.json"
ENCODING = _POSGEN + "/encodings/{protocol}/{encoding}.json"

SEQUENCES = _POSGEN + "/data/{protocol}/{task}/{split}.parquet"
BASELINE = _POSGEN + "/data/{protocol}/{task}/baseline.parquet"

RUN_FOLDER = _POSGEN + "/runs/{protocol}/{task}/{train_encoding}/seed{seed}"
RUN = RUN_FOLDER + "/run.json"
MODEL = RUN_FOLDER + "/model.safetensors"
SNAPSHOTS = RUN_FOLDER + "/snapshots.safetensors"
TRAINING = RUN_FOLDER + "/train.parquet"
# Declared by no rule, so that Snakemake never deletes it: a killed training goes on from it.
CHECKPOINTS_FOLDER = "checkpoints"
EVALUATION = RUN_FOLDER + "/eval/{encoding}.parquet"

PROBE = RUN_FOLDER + "/probe/{encoding}.parquet"

STUDY = _POSGEN + "/studies/{study}.parquet"

CODE = "resonance.posgen.stages:{stage}"
"""Where the code of a stage begins, for `record.identity`."""
