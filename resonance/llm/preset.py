"""A preset's language-model half, its key `llm`, with a key for every registered evaluation; the runs of its stages;
and the check of its names. Imports no torch."""

from dataclasses import dataclass

from pydantic import create_model, model_validator

from resonance.encoding.frequencies import depends_on_length
from resonance.encoding.spec import EncodingSpec
from resonance.llm.evaluations import Evaluation, evaluations
from resonance.llm.protocol import LlmProtocol
from resonance.llm.settings import (
    TINY,
    FinetuneChoices,
    FinetuneLoop,
    FinetuneRun,
    HalfSettings,
    ModelRun,
    TextRun,
)
from resonance.record.settings import Settings, SettingsError, check_known

TOKEN_TOLERANCE = 0.1


class _Checked(HalfSettings):
    @model_validator(mode="after")
    def _check_evaluations(self) -> "_Checked":
        for evaluation in evaluations().values():
            if evaluation.settings_of(self) is not None:
                evaluation.check(self)
        return self


LlmSettings = create_model(
    "LlmSettings",
    __base__=_Checked,
    __doc__="The language-model half: Figure 4, and what else is measured of its models.",
    **{name: (evaluation.settings | None, None) for name, evaluation in evaluations().items()},
)


@dataclass(frozen=True)
class Llm:
    """The settings of a preset's key `llm` with the encodings and the protocol that its names stand for."""

    settings: LlmSettings
    encodings: dict[str, dict]
    protocol: LlmProtocol

    def spec(self, model: str, encoding: str) -> EncodingSpec:
        """The encoding as a model gets it."""
        return self.protocol.encoding_spec(encoding, self.encodings[encoding], self.settings.models[model])

    def evaluations(self) -> dict[str, Evaluation]:
        """Those that the preset asks for, by name."""
        every = evaluations().items()
        return {name: evaluation for name, evaluation in every if evaluation.settings_of(self.settings) is not None}

    def measured(self) -> list[str]:
        """The models that an evaluation is asked of."""
        asked = {model for evaluation in self.evaluations().values() for model in evaluation.models(self.settings)}
        return [model for model in self.settings.models if model in asked]

    def follows_length(self, model: str, encoding: str) -> bool:
        """Whether the table depends on the length of what is read, so that each length is read by itself."""
        return depends_on_length(self.spec(model, encoding), head_dim=64)  # of whatever head: it shows in any

    def model_run(self, model: str) -> ModelRun:
        asked, llm = self.settings.models[model], self.settings
        return ModelRun(
            source=asked.source,
            train_length=asked.train_length,
            rope_base=asked.rope_base,
            tiny=asked.tiny,
            device=llm.device,
            precision=llm.precision,
        )

    def text_run(self, model: str, text: str) -> TextRun:
        own = self.settings.models[model].source != TINY
        return TextRun(text=self.settings.texts[text], tokenizer="model" if own else "bytes")

    def finetune_run(self, model: str, strategy: str) -> FinetuneRun:
        llm, protocol = self.settings, self.protocol
        source, asked = llm.models[model], llm.finetuning
        spent = source.strategies[strategy]
        loop = FinetuneLoop(**asked.model_dump(include=set(FinetuneLoop.model_fields)))
        return FinetuneRun(
            choices=protocol.choices(FinetuneChoices),
            model=model,
            strategy=strategy,
            length=spent.length,
            steps=spent.steps,
            sequences_per_step=asked.sequences_per_step or protocol.sequences_per_step,
            learning_rate=asked.learning_rate or protocol.learning_rate,
            train_length=source.train_length,
            settings=loop if spent.seed is None else loop.model_copy(update={"seed": spent.seed}),
            **llm.running(),
        )

    def strategies_told(self, model: str) -> list[str]:
        """`NAME: what it is` of every strategy of a model, for captions."""
        runs = [self.finetune_run(model, name) for name in self.settings.models[model].strategies]
        return [f"{run.strategy}: {run.num_tokens:,} tokens in sequences of {run.length:,}" for run in runs]

    def evaluation_run(self, model: str, name: str) -> Settings:
        """What an evaluation of a model depends on beside its weights, its encoding and its texts."""
        return evaluations()[name].run_of(self.settings, self.protocol, model)

    def check_encoding(self, key: str, name: str, model: str) -> None:
        """Raises SettingsError where a model cannot have the encoding of this name."""
        check_known(key, name, self.encodings, "encodings.yaml")
        try:
            self.spec(model, name)
        except ValueError as error:
            raise SettingsError(f"{key}: {error}") from None


def complete(llm: LlmSettings, encodings: dict[str, dict], protocols: dict[str, LlmProtocol], source: str) -> Llm:
    """The preset with what its names stand for, its token counts checked. Raises SettingsError: one line."""
    check_known(f"{source}: llm.protocol", llm.protocol, protocols, "llm_protocols.yaml")
    made, asked = Llm(llm, encodings, protocols[llm.protocol]), llm.finetuning
    for key, names in (("untuned", llm.untuned), ("finetuning.encodings", asked.encodings)):
        for name in names:
            for model in llm.models:
                made.check_encoding(f"{source}: llm.{key}", name, model)
    for model, given in llm.models.items():
        for strategy in given.strategies if asked.encodings else ():
            run = made.finetune_run(model, strategy)
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
    return made
