# Names and paths of L-Eval, for leval.smk: what a preset's key `leval` asks for.
from resonance.leval import paths as leval_paths

LEVAL = CONFIG.leval
LEVAL_STAND_INS = LEVAL.stand_ins() if LEVAL else []


def leval_tasks_inputs(wildcards):
    """The package of the plays that questions are made of; nothing for L-Eval's own."""
    made = LEVAL.settings.made
    return llm_source(LLM_SETTINGS.texts[made.text]) if made else {}


def leval_scores(*models, but=()):
    """The scores of every set of answers of some models; of all but some, where none is named."""
    return [
        at(leval_paths.SCORES).format(model=model, encoding=encoding, strategy=strategy)
        for model, encoding, strategy in (LEVAL.sets() if LEVAL else [])
        if (model in models if models else model not in but)
    ]


TABLE2_FILES = [at(leval_paths.TABLE2) + kind for kind in PAIRED_KINDS]
TABLE2_FILES += expand(at(leval_paths.TABLE2_STAND_IN) + "{kind}", model=LEVAL_STAND_INS, kind=PAIRED_KINDS)
