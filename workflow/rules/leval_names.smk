# Names and paths of L-Eval, for leval.smk: what a preset's key `leval` asks for.
from resonance.record import leval_settings as leval_record

LEVAL = CONFIG.preset.leval
# (model, encoding, strategy) of every set of answers; a stand-in's are never in Table 2.
LEVAL_SETS = leval_record.answered(LEVAL) if LEVAL else []
LEVAL_STAND_INS = [name for name in LEVAL.models if LLM.models[name].stand_in] if LEVAL else []


def leval_settings_json(wildcards):
    """What the questions, or one model's answers, depend on, as JSON."""
    stage, _, model = wildcards.stage.partition("_")
    if stage == "tasks":
        return leval_record.tasks_run(LEVAL, LLM).to_json()
    return leval_record.answer_run(LEVAL, LLM, CONFIG.prompts, model).to_json()


def leval_tasks_inputs(wildcards):
    """The package of the plays that questions are made of; nothing for L-Eval's own."""
    return llm_source(LLM.texts[LEVAL.made.text]) if LEVAL.made else {}


def leval_scores(models):
    """The scores of every set of answers of some models."""
    return [
        at(paths.LEVAL_SCORES).format(model=model, encoding=encoding, strategy=strategy)
        for model, encoding, strategy in LEVAL_SETS
        if model in models
    ]


TABLE_KINDS = [".csv", "_pairs.csv", ".md", ".tex", ".html"]
TABLE2_FILES = multiext(at(paths.TABLE2), *TABLE_KINDS)
TABLE2_FILES += expand(at(paths.TABLE2_STAND_IN) + "{kind}", model=LEVAL_STAND_INS, kind=TABLE_KINDS)
TABLES += TABLE2_FILES
