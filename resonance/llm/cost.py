"""What the language models' jobs cost, from their sizes alone: arithmetic.

Legend: N parameters, T tokens of a sequence, d width, l layers, V vocabulary.
"""

from dataclasses import replace

from resonance.llm.preset import Llm
from resonance.llm.settings import LOGIT_ROWS, HalfSettings, ModelSize, ModelSource
from resonance.llm.text import BYTE_VOCABULARY
from resonance.record.job import Job, Work, fetching

BF16, FP32, MB = 2, 4, 1e6
LOGIT = 16
"""Bytes of a logit: in bfloat16 and float32, with its softmax, and in training its gradient."""
OFFLOADED = 4 / 3
"""Products wait for the host under ZeRO-3 Offload: 30 % of a GPU's peak assumed in place of 40 %."""
# Fitted to the laptop preset on two shared CPU cores, 2026-11-22, CPU time for time.
START = 4.5
"""Seconds of a job before its first step."""
TRAINER, EVALUATOR = 540.0, 470.0
"""MB that imports take."""
TRAIN_ELEMENTS, EVALUATE_ELEMENTS = 48.0, 10.0
"""Elements of activations a token, layer and unit of width, in those of compiled forward and backward."""
CPU_ACTIVATIONS = 1.3
"""Activations on a CPU in place of those of a GPU, where bf16 is of products alone."""


def size_of(model: ModelSource) -> ModelSize | None:
    """The size that the preset gives, or that of a tiny model; None: not known."""
    if (tiny := model.tiny) is None:
        return model.size
    layer = 4 * tiny.d_model**2 + 3 * tiny.d_model * tiny.d_ff + 2 * tiny.d_model
    held = tiny.num_layers * layer + tiny.d_model * (1 + BYTE_VOCABULARY)
    return ModelSize(num_parameters=held, d_model=tiny.d_model, num_layers=tiny.num_layers, vocabulary=BYTE_VOCABULARY)


def train_flops(size: ModelSize, tokens: int, length: int, checkpointing: bool) -> float:
    """6 N per token and 6 l d T for causal attention; a third more to recompute activations."""
    per_token = 6 * size.num_parameters + 6 * size.num_layers * size.d_model * length
    return per_token * tokens * (4 / 3 if checkpointing else 1.0)


def evaluate_flops(size: ModelSize, length: int) -> float:
    """2 N per token and causal attention, over one window."""
    return 2 * size.num_parameters * length + attention_flops(size, length)


def attention_flops(size: ModelSize, length: int) -> float:
    """2 l d T per token, over one window."""
    return 2 * size.num_layers * size.d_model * length**2


def _fetch(llm: Llm, job: Job) -> Job:
    return fetching(job, {**llm.settings.texts, **llm.settings.models}[job.wildcards["source"]].source)


def _pack(llm: Llm, job: Job) -> Job:
    name = job.wildcards["text"]
    source = llm.settings.texts[name].source
    read = fetching(job, source) if source.startswith("hf:") else job
    return replace(read, unknown=f"texts.{name}: its size is known when it is read")


def _base(llm: Llm, job: Job) -> Job:
    """A tiny model's pretraining; any other is only found, or converted."""
    model = llm.settings.models[job.wildcards["model"]]
    if (tiny := model.tiny) is None:
        return replace(job, unknown="a model is looked at, or converted")
    size, length = size_of(model), model.train_length
    tokens = tiny.steps * tiny.sequences_per_step * length
    return on_device(
        llm.settings, job, train_flops(size, tokens, length, False), tokens, size,
        rows=tiny.sequences_per_step * length, training=True, disk=FP32 * size.num_parameters,
    )  # fmt: skip


def _finetune(llm: Llm, job: Job) -> Job:
    name, asked = job.wildcards["model"], llm.settings.finetuning
    if (size := size_of(llm.settings.models[name])) is None:
        return without_size(job)
    run, offload = llm.finetune_run(name, job.wildcards["strategy"]), asked.deepspeed == "zero3_offload"
    flop = train_flops(size, run.num_tokens, run.length, asked.gradient_checkpointing)
    job = replace(job, processes=asked.processes, slowdown=OFFLOADED if offload else 1.0)
    attention = 3 * attention_flops(size, run.length) * run.num_tokens / run.length  # backward is twice the forward
    return on_device(
        llm.settings, job, flop, run.num_tokens, size, rows=asked.micro_batch_size * run.length, training=True,
        disk=FP32 * size.num_parameters, attention=attention,
    )  # fmt: skip


def _evaluate(llm: Llm, job: Job) -> Job:
    """A job that reads the windows of its evaluation."""
    names, evaluation = job.wildcards, llm.evaluations()[job.wildcards["evaluation"]]
    if (size := size_of(llm.settings.models[names["model"]])) is None:
        return without_size(job)
    follows = llm.follows_length(names["model"], names["encoding"])
    lengths = evaluation.windows(llm.settings, names["model"], follows)
    flop, attention = (sum(each(size, length) for length in lengths) for each in (evaluate_flops, attention_flops))
    return on_device(
        llm.settings, job, flop, sum(lengths), size,
        rows=max(lengths), training=False, disk=evaluation.disk, attention=attention,
    )  # fmt: skip


def key_bytes(size: ModelSize) -> int:
    """Of a token's keys and values in all layers, in bfloat16; with grouped heads it is less."""
    return 2 * BF16 * size.num_layers * size.d_model


def without_size(job: Job) -> Job:
    """A job of a model whose size the preset does not give: named, and not guessed."""
    return replace(job, unknown=f"models.{job.wildcards['model']}.size is not given")


def on_device(
    llm: HalfSettings,
    job: Job,
    flop: float,
    tokens: int,
    size: ModelSize,
    *,
    rows: int,
    training: bool,
    disk: float,
    attention: float = 0.0,
    keys: int = 0,
    traffic: float = 0.0,
) -> Job:
    """A job with its arithmetic and its memory. rows: tokens in memory at a time, keys: those whose keys and values are
    kept; disk in bytes; attention: how many of the FLOP are its, where windows are long; traffic as in `Work`."""
    n, cuda = size.num_parameters, llm.device == "cuda"
    asked = llm.finetuning
    offload = training and asked.deepspeed == "zero3_offload"
    recompute = training and asked.gradient_checkpointing
    some = 0 if keys else min(rows, LOGIT_ROWS)  # who answers shows one position
    logits = (rows if training and not (recompute and not offload) else some) * size.vocabulary * LOGIT
    if recompute:
        kept = size.num_layers * rows * size.d_model * BF16  # a checkpoint a layer
        alive = kept + 34 * rows * size.d_model + 4 * BF16 * n // size.num_layers  # one recomputed; two gathered
    else:
        alive = (34 * size.num_layers if training else 10) * BF16 * rows * size.d_model
    # Weights and gradients, fp32 weights and AdamW's two: 18 bytes on the host where they are offloaded.
    state = (0 if offload else 16 * n // job.processes) if training else BF16 * n
    held = (alive + logits + state + keys * key_bytes(size)) / MB
    host = (18 * n if offload else BF16 * n) / MB if cuda else FP32 * n / MB + CPU_ACTIVATIONS * held
    elements = TRAIN_ELEMENTS if training else EVALUATE_ELEMENTS
    return replace(
        job,
        work=Work(flop, 0 if cuda else elements * tokens * size.num_layers * size.d_model, attention, traffic),
        precision=llm.precision,
        start=START,
        memory=(TRAINER if training else EVALUATOR) + host,
        device_memory=held if cuda else 0.0,
        disk=disk / MB,
        scratch=3 * 14 * n / MB if training else 0.0,  # two checkpoints are kept while a third is written
        computes=True,
        only_gpu=cuda,
    )


COSTS = {
    "llm_fetch": _fetch, "llm_pack": _pack, "llm_base": _base, "llm_finetune": _finetune, "llm_evaluate": _evaluate,
}  # fmt: skip
"""By rule: a job as the workflow asks for it, to the same with what it costs."""
