"""Where the language models' files lie.

Wildcards: preset, model, text, source, stage, encoding, strategy, evaluation; drawn, a model with `stand_in_` before it
where it is not the paper's.
"""

from resonance.record.paths import FIGURES, RESULTS, TABLES

UNTUNED = "untuned"
"""The strategy of a model whose encoding was exchanged and whose weights were not."""

_LLM = RESULTS + "/llm"
SOURCE = _LLM + "/sources/{source}"
SETTINGS = _LLM + "/{model}/settings/{stage}.json"
ENCODING = _LLM + "/{model}/encodings/{encoding}.json"
BASE = _LLM + "/{model}/base/base.json"
TEXT_FOLDER = _LLM + "/{model}/texts/{text}"
TEXT = TEXT_FOLDER + "/documents.parquet"
TOKENS = TEXT_FOLDER + "/tokens.bin"
RUN_FOLDER = _LLM + "/{model}/runs/{encoding}/{strategy}"
RUN = RUN_FOLDER + "/run.json"
MODEL = RUN_FOLDER + "/model"
TRAINING = RUN_FOLDER + "/train.parquet"
MEASURED = RUN_FOLDER + "/{evaluation}.parquet"
JOURNAL = RUN_FOLDER + "/journal"

FIGURE4 = FIGURES + "/fig4_perplexity_{drawn}"
FIGURE4_TABLE = TABLES + "/fig4_perplexity_{drawn}"
PASSKEY = FIGURES + "/passkey_{drawn}"
PASSKEY_TABLE = TABLES + "/passkey_{drawn}"

CODE = "resonance.llm.stages:{stage}"
"""Where the code of a stage begins, for `record.identity`."""


def evaluate_code(name: str) -> list[str]:
    """The same of an evaluation, whose own module the registry finds."""
    return [CODE.format(stage="evaluate"), f"resonance.llm.evaluations.{name}"]
