# Names and paths of the language models, for llm.smk: what a preset's key `llm` asks for.
from importlib.util import find_spec

from snakemake.settings.types import DeploymentMethod

from resonance.llm import paths as llm_paths
from resonance.llm.settings import TINY

LLM = CONFIG.llm
LLM_SETTINGS = LLM.settings if LLM else None
LLM_ENVIRONMENT = environment("llm", LLM_SETTINGS.device if LLM else "cpu")
# What is fetched, by the name of the text or the model that wants it; equal sources are fetched once.
LLM_SOURCES = {}
for kinds, entries in ((("pypi:",), LLM_SETTINGS.texts), (("pypi:", "hf:"), LLM_SETTINGS.models)) if LLM else ():
    for name, entry in entries.items():
        if entry.source.startswith(kinds) and entry.source not in LLM_SOURCES.values():
            LLM_SOURCES[name] = entry.source
# The hub's texts are read as they are packed, and no further than the preset asks: some are far larger.
PACKS_FROM_HUB = bool(LLM) and any(text.source.startswith("hf:") for text in LLM_SETTINGS.texts.values())


def llm_drawn(evaluation):
    """What a figure of a model is called -> the model: another than the paper's is named a stand-in."""
    if not LLM or evaluation not in LLM.evaluations():
        return {}
    models = {name: LLM_SETTINGS.models[name] for name in LLM.evaluations()[evaluation].models(LLM_SETTINGS)}
    return {("stand_in_" if model.stand_in else "") + name: name for name, model in models.items()}


def llm_source(entry):
    """Where a text's or a model's source is fetched to; nothing for those that are not."""
    by_source = {source: name for name, source in LLM_SOURCES.items()}
    return {"source": at(llm_paths.SOURCE).format(source=by_source[entry.source])} if entry.source in by_source else {}


def is_made(model):
    """Whether a model is pretrained in the run, or found: by path, package or hub."""
    return LLM_SETTINGS.models[model].tiny is not None


def base_asks(name):
    """One of the resources of a base: a training's where it is made, else those of a measurement, without a GPU."""
    made, found = asked("llm_train"), asked("llm_evaluate") | {"gpu": 0}

    def chosen(wildcards, attempt):
        value = (made if is_made(wildcards.model) else found)[name]
        return value(wildcards, attempt) if callable(value) else value

    return chosen


def llm_base_to_tune(wildcards):
    """base.json, once DeepSpeed is at hand where the preset wants it: else jobs of four GPUs would queue, and fail."""
    by_conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    # A report, a lint or a dry run starts no job.
    runs = workflow.executor_plugin is not None and not workflow.dryrun and not workflow.touch
    if runs and LLM_SETTINGS.finetuning.deepspeed != "none" and not by_conda and not find_spec("deepspeed"):
        raise WorkflowError(
            f"preset {PRESET} fine-tunes under DeepSpeed (llm.finetuning.deepspeed), which is not installed here; "
            "say make setup GPU=1, or run with --sdm conda"
        )
    return at(llm_paths.BASE).format(model=wildcards.model)


def llm_texts(model, names):
    return expand(at(llm_paths.TEXT), model=model, text=names)


def llm_pack_inputs(wildcards):
    """A text's package, and the model whose tokenizer it is, where it has either."""
    own = LLM_SETTINGS.models[wildcards.model].source != TINY
    base = {"base": at(llm_paths.BASE).format(model=wildcards.model)} if own else {}
    return {**llm_source(LLM_SETTINGS.texts[wildcards.text]), **base}


def llm_base_inputs(wildcards):
    """A model's package, or the text that a tiny one is pretrained on."""
    model = LLM_SETTINGS.models[wildcards.model]
    return {**llm_source(model), **({"text": llm_texts(wildcards.model, model.tiny.text)[0]} if model.tiny else {})}


def llm_model_inputs(wildcards):
    """The fine-tuned weights of a strategy, and what is known of them; nothing where the base's are measured."""
    files = {"model": llm_paths.MODEL, "tuning": llm_paths.RUN} if wildcards.strategy != llm_paths.UNTUNED else {}
    return {name: at(path).format(**wildcards) for name, path in files.items()}


def llm_evaluate_inputs(wildcards):
    """The weights, and the packed texts that an evaluation reads, with the one that was trained on."""
    names = LLM.evaluations()[wildcards.evaluation].texts(LLM_SETTINGS)
    trained_on = {"train_text": llm_texts(wildcards.model, LLM_SETTINGS.finetuning.text)} if names else {}
    return {**llm_model_inputs(wildcards), "texts": llm_texts(wildcards.model, names), **trained_on}


def llm_evaluate_options(wildcards, input):
    names = LLM.evaluations()[wildcards.evaluation].texts(LLM_SETTINGS)
    texts = [f"--text={name}={os.path.dirname(path)}" for name, path in zip(names, input.texts)]
    trained_on = [f"--train-text={os.path.dirname(input.train_text[0])}"] if names else []
    return texts + trained_on + options_of("model")(wildcards, input)


def options_of(*names):
    """--name=path for those inputs that a job has; a packed text is given by its folder."""

    def given(wildcards, input):
        paths = {name: input[name] for name in names if name in input.keys()}
        return [f"--{name}={os.path.dirname(path) if name == 'text' else path}" for name, path in paths.items()]

    return given


def llm_measured(evaluation, model):
    """A file of every encoding and strategy under which a model is measured."""
    return [
        at(llm_paths.MEASURED).format(evaluation=evaluation, model=model, encoding=encoding, strategy=strategy)
        for encoding, strategy in LLM_SETTINGS.sets(model)
    ]


def llm_finetuned():
    """Every fine-tuned model."""
    return [
        at(llm_paths.MODEL).format(model=model, encoding=encoding, strategy=strategy)
        for model in (LLM.measured() if LLM else [])
        for encoding, strategy in LLM_SETTINGS.sets(model)
        if strategy != llm_paths.UNTUNED
    ]


PERPLEXITY_FILES, PASSKEY_FILES = (
    [
        *expand(at(drawing) + ".{kind}", drawn=llm_drawn(evaluation), kind=FIGURE_KINDS),
        *expand(at(numbers) + "{kind}", drawn=llm_drawn(evaluation), kind=PAIRED_KINDS),
    ]
    for evaluation, drawing, numbers in (
        ("perplexity", llm_paths.FIGURE4, llm_paths.FIGURE4_TABLE),
        ("passkey", llm_paths.PASSKEY, llm_paths.PASSKEY_TABLE),
    )
)
