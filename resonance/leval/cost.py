"""What L-Eval's jobs cost: what an answer reads and says, before anything runs.

Legend: N parameters, T tokens of a prompt, d width, l layers.
"""

from dataclasses import dataclass, replace

from resonance.leval.catalogue import MADE_TASKS
from resonance.leval.preset import Leval
from resonance.llm.cost import BF16, attention_flops, evaluate_flops, key_bytes, on_device, size_of, without_size
from resonance.llm.settings import ModelSize
from resonance.record.job import Job, fetching, light

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
    """One set of answers. read: tokens of prompts, shared ones once; said: tokens of answers, at most; traffic: bytes
    that saying them reads, a batch of them at a time.

    flop: None for a model whose preset gives no size; attention: how many of them are its, of the documents.
    uncounted: tasks whose length nobody knows beforehand.
    """

    questions: int
    read: int
    said: int
    flop: float | None
    attention: float
    traffic: float
    uncounted: tuple[str, ...]


def answering(leval: Leval, model: str, encoding: str) -> Answering:
    """What one set of answers reads and says."""
    asked, size = leval.settings, size_of(leval.llm.settings.models[model])
    alone = leval.llm.follows_length(model, encoding) and asked.prefill == "exact"
    flop, attention, traffic, read, count = 0.0, 0.0, 0.0, 0, 0
    known = {name: _texts(leval, name) for name in asked.tasks if name in TEXTS or name in MADE_TASKS}
    for texts, questions, length in known.values():
        prefills = questions if alone else texts
        read += prefills * length + questions * QUESTION_TOKENS
        count += questions
        if size:
            flop += prefills * evaluate_flops(size, length)
            attention += prefills * attention_flops(size, length)
            flop += questions * (QUESTION_TOKENS + asked.max_new_tokens) * _token(size, length)
            batch = 1 if alone else min(asked.batch_size, -(-questions // texts))
            kept = length + batch * (QUESTION_TOKENS + asked.max_new_tokens)
            steps = questions / batch * asked.max_new_tokens
            traffic += steps * (BF16 * size.num_parameters + kept * key_bytes(size))
    unknown = tuple(name for name in asked.tasks if name not in known)
    said = count * asked.max_new_tokens
    return Answering(count, read, said, flop if size else None, attention, traffic, unknown)


def _tasks(leval: Leval, job: Job) -> Job:
    source = leval.settings.source
    return fetching(light(job), source) if source.startswith("hf:") else light(job)


def _answer(leval: Leval, job: Job) -> Job:
    names = job.wildcards
    asked, model = answering(leval, names["model"], names["encoding"]), names["model"]
    left_out = ", ".join(asked.uncounted)
    job = replace(job, left_out=left_out and f"{left_out}, whose length is not known")
    if (size := size_of(leval.llm.settings.models[model])) is None:
        return without_size(job)
    tail, context = QUESTION_TOKENS + leval.settings.max_new_tokens, leval.settings.models[model].context
    if MADE_TASKS.keys() >= {*leval.settings.tasks}:  # whose texts are of one length
        context = min(context, tail + max(_texts(leval, task)[2] for task in leval.settings.tasks))
    keys = context + leval.settings.batch_size * tail
    return on_device(
        leval.llm.settings, job, asked.flop, asked.read + asked.said, size,
        rows=context, training=False, disk=1e5, attention=asked.attention, keys=keys, traffic=asked.traffic,
    )  # fmt: skip


def _texts(leval: Leval, task: str) -> tuple[int, int, int]:
    asked = leval.settings
    if task in MADE_TASKS:
        length = 0 if MADE_TASKS[task].control else round(asked.made.words * TOKENS_A_WORD)
        return asked.made.documents, asked.made.documents * asked.made.questions, length
    texts, questions, length = TEXTS[task]
    share = min(1.0, asked.documents / texts) if asked.documents else 1.0
    return max(1, round(share * texts)), round(share * questions), length


def _token(size: ModelSize, length: int) -> float:
    """One token behind `length` others: 2 N and 4 l d T."""
    return 2 * size.num_parameters + 4 * size.num_layers * size.d_model * length


COSTS = {"leval_tasks": _tasks, "leval_answer": _answer}
"""By rule: a job as the workflow asks for it, to the same with what it costs."""
