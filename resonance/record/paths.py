"""Every path template of the workflow, once. A wildcard is a name; a value never enters a path.

Legend of wildcards: preset, study, protocol, task, stage, split, train_encoding, encoding, seed. The
protocol of a run is the one it was trained under, that of an evaluation the one it is measured under:
`paper+P2` measures what `paper` trained. Of the language models: model, text, source, strategy, stage;
drawn, a model with `stand_in_` before it where it is not the paper's.
"""

RESULTS = "results/{preset}"
LOGS = "logs/{preset}"
BENCHMARKS = "results/{preset}/benchmarks"

_POSGEN = RESULTS + "/posgen"
SETTINGS = _POSGEN + "/settings/{protocol}/{task}/{stage}.json"
ENCODING = _POSGEN + "/encodings/{protocol}/{encoding}.json"

SEQUENCES = _POSGEN + "/data/{protocol}/{task}/{split}.parquet"
BASELINE = _POSGEN + "/data/{protocol}/{task}/baseline.parquet"

RUN_FOLDER = _POSGEN + "/runs/{protocol}/{task}/{train_encoding}/seed{seed}"
RUN = RUN_FOLDER + "/run.json"
MODEL = RUN_FOLDER + "/model.safetensors"
SNAPSHOTS = RUN_FOLDER + "/snapshots.safetensors"
# Declared by no rule, so that Snakemake never deletes it: a killed training goes on from it.
CHECKPOINTS = RUN_FOLDER + "/checkpoints"
TRAINING = RUN_FOLDER + "/train.parquet"
EVALUATION = RUN_FOLDER + "/eval/{encoding}.parquet"

STUDY = _POSGEN + "/studies/{study}.parquet"

TABLES = RESULTS + "/tables"
STUDY_TABLE = TABLES + "/{study}_{protocol}"

_LLM = RESULTS + "/llm"
LLM_SOURCE = _LLM + "/sources/{source}"
LLM_SETTINGS = _LLM + "/{model}/settings/{stage}.json"
LLM_ENCODING = _LLM + "/{model}/encodings/{encoding}.json"
LLM_BASE = _LLM + "/{model}/base/base.json"
LLM_TEXT_FOLDER = _LLM + "/{model}/texts/{text}"
LLM_TEXT = LLM_TEXT_FOLDER + "/documents.parquet"
LLM_TOKENS = LLM_TEXT_FOLDER + "/tokens.bin"
UNTUNED = "untuned"
"""The strategy of a model whose encoding was exchanged and whose weights were not."""
LLM_RUN_FOLDER = _LLM + "/{model}/runs/{encoding}/{strategy}"
LLM_RUN = LLM_RUN_FOLDER + "/run.json"
LLM_MODEL = LLM_RUN_FOLDER + "/model"
LLM_TRAINING = LLM_RUN_FOLDER + "/train.parquet"
LLM_PERPLEXITY = LLM_RUN_FOLDER + "/perplexity.parquet"
LLM_PASSKEY = LLM_RUN_FOLDER + "/passkey.parquet"

FIGURE4 = RESULTS + "/figures/fig4_perplexity_{drawn}"
FIGURE4_TABLE = RESULTS + "/tables/fig4_perplexity_{drawn}"
PASSKEY = RESULTS + "/figures/passkey_{drawn}"
PASSKEY_TABLE = RESULTS + "/tables/passkey_{drawn}"

_LEVAL = RESULTS + "/leval"
LEVAL_SETTINGS = _LEVAL + "/settings/{stage}.json"
LEVAL_TASKS = _LEVAL + "/tasks"
LEVAL_FOLDER = _LEVAL + "/{model}/{encoding}/{strategy}"
LEVAL_PREDICTIONS = LEVAL_FOLDER + "/predictions"
LEVAL_RUN = LEVAL_FOLDER + "/run.json"
LEVAL_SCORES = LEVAL_FOLDER + "/scores.parquet"
# Declared by no rule, as CHECKPOINTS: answers that a killed run goes on from.
LEVAL_JOURNAL = LEVAL_FOLDER + "/journal"

TABLE2 = RESULTS + "/tables/table2_leval"
TABLE2_STAND_IN = RESULTS + "/tables/table2_stand_in_{model}"

FIGURES = RESULTS + "/figures"
REPORT = RESULTS + "/report.html"

# Measured rows that the repository keeps, and what is drawn of them without running anything.
KEPT = "results-published/{preset}"
PUBLISHED = RESULTS + "/published"
