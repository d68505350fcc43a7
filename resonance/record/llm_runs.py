"""The runs that the language-model half's settings stand for: what each depends on, and no more. No torch."""

from pathlib import Path

from resonance.record.llm import (
    TINY,
    FinetuneSettings,
    LlmSettings,
    PerplexitySettings,
    Text,
    TinyModel,
)
from resonance.record.llm_protocol import FinetuneChoices, LlmProtocol, PerplexityChoices
from resonance.record.passkey import PasskeyRun
from resonance.record.settings import Settings, SettingsError

TOKEN_TOLERANCE = 0.1


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
