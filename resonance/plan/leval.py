"""The jobs of L-Eval: questions, answers, scores, tables. What an answer reads and says, before anything runs.

Legend: N parameters, T tokens of a prompt, d width, l layers.
"""

from dataclasses import dataclass, replace

from resonance.plan.job import Job, light_job
from resonance.plan.llm import attention_flops, evaluate_flops, on_device, size_of, without_size
from resonance.record.config import Config
from resonance.record.leval_settings import answered
from resonance.record.leval_tasks import MADE_TASKS
from resonance.record.llm import ModelSize

# Texts that are read, questions, and tokens of a text in the mean, by LLaMA2's tokenizer. gsm100's hundred documents
# are one text. codeU's length is not at hand: it is not counted.
TEXTS = {
    "coursera": (15, 172, 8975),
    "gsm100": (1, 100, 5451),
    "quality": (15, 202, 7054),
    "tpo": (15, 269, 3802),
    "sci_fi": (7, 64, 16317),
}
QUESTION_TOKENS = 120
"""Of a question with its options and the request, about."""
TOKENS_A_WORD = 1.75
"""Of plays, by SmolLM2's tokenizer, about."""


@dataclass(frozen=True)
class Answering:
    """One set of answers. read: tokens of prompts, shared ones once; said: tokens of answers, at most.

    flop: None for a model whose preset gives no size; attention: how many of them are its, of the documents.
    uncounted: tasks whose length nobody knows beforehand.
    """

    model: str
    encoding: str
    strategy: str
    questions: int
    read: int
    said: int
    flop: float | None
    attention: float
    uncounted: tuple[str, ...]


def jobs(config: Config) -> list[Job]:
    """Every job of the key `leval`; without it Table 2 is drawn of the published half alone."""
    leval, llm = config.preset.leval, config.preset.llm
    if leval is None:
        return [light_job(config, "table2")]
    tasks = light_job(config, "leval_tasks")
    made = [replace(tasks, unknown=f"{leval.source} is a download") if leval.source.startswith("hf:") else tasks]
    for answering in answerings(config):
        name, names = answering.model, (answering.model, answering.encoding, answering.strategy)
        size, left_out = size_of(llm.models[name]), ", ".join(answering.uncounted)
        job = Job("leval_answer", names, config.preset.resources.of("llm_evaluate"))
        job = replace(job, left_out=left_out and f"{left_out}, whose length is not known")
        if size is None:
            made.append(without_size(job))
        else:
            made.append(
                on_device(
                    llm, job, answering.flop, answering.read + answering.said, size,
                    rows=leval.models[name].context, training=False, disk=1e5, attention=answering.attention,
                )
            )  # fmt: skip
        made.append(light_job(config, "leval_score", *names))
    stand_ins = [name for name in leval.models if llm.models[name].stand_in]
    return [*made, light_job(config, "table2"), *(light_job(config, "table2_stand_in", name) for name in stand_ins)]


def answerings(config: Config) -> list[Answering]:
    """Every set of answers of a preset; none without the key `leval`."""
    leval, found = config.preset.leval, []
    for model, encoding, strategy in answered(leval) if leval else ():
        size = size_of(config.preset.llm.models[model])
        follows = config.encodings[encoding].get("method") == "dynamic_ntk"
        alone, flop, attention, read, count = follows and leval.prefill == "exact", 0.0, 0.0, 0, 0
        known = {name: _texts(config, name) for name in leval.tasks if name in TEXTS or name in MADE_TASKS}
        for texts, questions, length in known.values():
            prefills = questions if alone else texts
            read += prefills * length + questions * QUESTION_TOKENS
            count += questions
            if size:
                flop += prefills * evaluate_flops(size, length)
                attention += prefills * attention_flops(size, length)
                flop += questions * (QUESTION_TOKENS + leval.max_new_tokens) * _token(size, length)
        unknown = tuple(name for name in leval.tasks if name not in known)
        said = count * leval.max_new_tokens
        found.append(
            Answering(model, encoding, strategy, count, read, said, flop if size else None, attention, unknown)
        )
    return found


def _texts(config: Config, task: str) -> tuple[int, int, int]:
    leval = config.preset.leval
    if task in MADE_TASKS:
        length = 0 if MADE_TASKS[task].control else round(leval.made.words * TOKENS_A_WORD)
        return leval.made.documents, leval.made.documents * leval.made.questions, length
    texts, questions, length = TEXTS[task]
    share = min(1.0, leval.documents / texts) if leval.documents else 1.0
    return max(1, round(share * texts)), round(share * questions), length


def _token(size: ModelSize, length: int) -> float:
    """One token behind `length` others: 2 N and 4 l d T."""
    return 2 * size.num_parameters + 4 * size.num_layers * size.d_model * length
