# Names and paths of the language-model half, for llm.smk: what a preset's key `llm` asks for.
from resonance.record import llm as llm_record, llm_runs

LLM = CONFIG.preset.llm
# What a figure of a model is called: another model than the paper's is named a stand-in. One without lengths has none.
LLM_DRAWN = (
    {("stand_in_" if m.stand_in else "") + name: name for name, m in LLM.models.items() if m.lengths} if LLM else {}
)
# A pypi: source by the name of the text or the model that wants it; equal ones are fetched once.
LLM_SOURCES = {}
if LLM:
    for name, entry in [*LLM.texts.items(), *LLM.models.items()]:
        if entry.source.startswith("pypi:") and entry.source not in LLM_SOURCES.values():
            LLM_SOURCES[name] = entry.source
LLM_LAUNCH = (
    f"torchrun --standalone --nproc-per-node {LLM.finetuning.processes}"
    if LLM and LLM.finetuning.processes > 1
    else "python"
)


def llm_settings_json(wildcards):
    """What one stage of one model depends on, as JSON."""
    stage, _, name = wildcards.stage.partition("_")
    made = {
        "base": lambda: llm_runs.model_run(LLM, wildcards.model),
        "text": lambda: llm_runs.text_run(LLM, wildcards.model, name),
        "finetune": lambda: llm_runs.finetune_run(LLM, CONFIG.llm_protocol, wildcards.model, name),
        "passkey": lambda: llm_runs.passkey_run(LLM, wildcards.model),
        "perplexity": lambda: llm_runs.perplexity_run(LLM, CONFIG.llm_protocol, wildcards.model),
    }
    return made[stage]().to_json()


def llm_source(entry):
    """Where a text's or a model's package is unpacked; nothing for other sources."""
    by_source = {source: name for name, source in LLM_SOURCES.items()}
    return {"source": at(paths.LLM_SOURCE).format(source=by_source[entry.source])} if entry.source in by_source else {}


def llm_pack_inputs(wildcards):
    """A text's package, and the model whose tokenizer it is, where it has either."""
    own = LLM.models[wildcards.model].source != llm_record.TINY
    base = {"base": at(paths.LLM_BASE).format(model=wildcards.model)} if own else {}
    return {**llm_source(LLM.texts[wildcards.text]), **base}


def llm_base_inputs(wildcards):
    """A model's package, or the text that a tiny one is pretrained on."""
    model = LLM.models[wildcards.model]
    text = {"text": at(paths.LLM_TEXT).format(model=wildcards.model, text=model.tiny.text)} if model.tiny else {}
    return {**llm_source(model), **text}


def llm_model_inputs(wildcards):
    """The fine-tuned weights of a strategy; nothing where the base's are measured."""
    if wildcards.strategy == llm_record.UNTUNED:
        return {}
    return {"model": at(paths.LLM_MODEL).format(**wildcards)}


def options_of(*names):
    """--name=path for those inputs that a job has; a packed text is given by its folder."""

    def options(wildcards, input):
        given = {name: input[name] for name in names if name in input.keys()}
        return [f"--{name}={os.path.dirname(path) if name == 'text' else path}" for name, path in given.items()]

    return options


def parent_of(name):
    """The folder of an input."""
    return lambda wildcards, input: os.path.dirname(input[name])


def llm_measured(template, model):
    """A file of every encoding and strategy under which a model is measured."""
    return [
        at(template).format(model=model, encoding=encoding, strategy=strategy)
        for encoding, strategy in llm_record.measured(LLM, model)
    ]


def llm_model_options(wildcards):
    """What a figure is told of its model."""
    model = LLM.models[LLM_DRAWN[wildcards.drawn]]
    return [f"--title={model.title}", "--stand-in" if model.stand_in else "--no-stand-in"]


def llm_finetuned():
    """Every fine-tuned model."""
    return [
        at(paths.LLM_MODEL).format(model=model, encoding=encoding, strategy=strategy)
        for model in LLM_DRAWN.values()
        for encoding, strategy in llm_record.measured(LLM, model)
        if strategy != llm_record.UNTUNED
    ]


FIGURES += expand(at(paths.FIGURE4) + ".{kind}", drawn=LLM_DRAWN, kind=["pdf", "svg", "png"])
TABLES += expand(
    at(paths.FIGURE4_TABLE) + "{kind}", drawn=LLM_DRAWN, kind=[".csv", "_pairs.csv", ".md", ".tex", ".html"]
)


wildcard_constraints:
    model="[^/]+",
    text="[^/]+",
    source="[^/]+",
    drawn="[^/]+",
    strategy="[^/]+",
