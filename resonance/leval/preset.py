"""A preset's key `leval`, beside `llm`, whose models it names: whose answers are asked for, to which questions, how;
and the runs that it stands for. Imports no torch."""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from resonance.leval.catalogue import MADE_TASKS, TASKS
from resonance.leval.settings import MADE, AnswerRun, MadeQuestions, Prompts, TasksRun
from resonance.llm.paths import UNTUNED
from resonance.llm.preset import Llm
from resonance.record.settings import Count, Settings, SettingsError, check_known

_SOURCES = rf"{MADE}|path:.+|hf:[\w.-]+/[\w.-]+@[\w.-]+"


class AnsweringModel(Settings):
    """One model that answers."""

    family: str
    """How its chat turns are marked: a family of config/leval.yaml."""
    context: Count
    """Positions, the paper's "Ctx Len."; the document's budget follows from it."""
    encodings: dict[str, list[str]] = Field(min_length=1)
    """Names of encodings.yaml by strategy: untuned, or a fine-tuning strategy of the model."""


class LevalSettings(Settings):
    """L-Eval's closed-ended tasks: Table 2."""

    source: str
    """`path:FOLDER` of TASK.jsonl, `hf:OWNER/NAME@COMMIT`, or `made`: questions made in the run."""
    made: MadeQuestions | None = None
    """What is made, for source `made` and no other."""
    tasks: list[str] = Field(min_length=1)
    """Tasks asked for; one that the source does not hold is left out by name."""
    documents: Count | None = None
    """The first so many of every task; left out: all."""
    models: dict[str, AnsweringModel] = Field(min_length=1)
    """By names of `llm.models`."""
    max_new_tokens: Count
    """Longest answer (L-Eval: 512)."""
    batch_size: Count
    """Questions on one document that are answered at a time: its keys are held once, each question adds its own."""
    precision: Literal["fp32", "bf16"]
    """Of weights and activations, on a GPU as on a CPU (L-Eval: bf16); the rotary table stays float32."""
    prefill: Literal["exact", "shared"]
    """Of an encoding whose table follows the length (dynamic_ntk); the others always share a document's keys.
    exact: every prompt is read anew with the table of its own length, as by L-Eval's script. shared: the
    document's keys keep the table of the document's length."""

    @model_validator(mode="after")
    def _check(self) -> "LevalSettings":
        if not re.fullmatch(_SOURCES, self.source, re.ASCII):
            raise ValueError(f"source must be path:FOLDER, hf:OWNER/NAME@COMMIT or {MADE}, got {self.source!r}")
        if (self.source == MADE) != (self.made is not None):
            raise ValueError(f"made must be given for source {MADE} and for no other, got source {self.source}")
        known = MADE_TASKS if self.made else TASKS
        for name in self.tasks:
            check_known("tasks", name, known, f"source {self.source}")
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must name each entry once, got {self.tasks}")
        return self


@dataclass(frozen=True)
class Leval:
    """The settings of a preset's key `leval`, with the models that it names and what is said to them."""

    settings: LevalSettings
    llm: Llm
    prompts: Prompts

    def tasks_run(self) -> TasksRun:
        asked = self.settings
        text = self.llm.settings.texts[asked.made.text] if asked.made else None
        return TasksRun(source=asked.source, tasks=asked.tasks, made=asked.made, text=text)

    def answer_run(self, model: str) -> AnswerRun:
        leval, llm = self.settings, self.llm.settings
        asked = leval.models[model]
        return AnswerRun(
            model=model,
            family=asked.family,
            context=asked.context,
            documents=leval.documents,
            max_new_tokens=leval.max_new_tokens,
            batch_size=leval.batch_size,
            prefill=leval.prefill,
            prompts=self.prompts.of(asked.family),
            **(llm.running() | {"precision": leval.precision}),
        )

    def sets(self) -> list[tuple[str, str, str]]:
        """(model, encoding, strategy) of every set of answers."""
        return [
            (model, encoding, strategy)
            for model, asked in self.settings.models.items()
            for strategy, names in asked.encodings.items()
            for encoding in names
        ]

    def stand_ins(self) -> list[str]:
        """The models whose scores are never in Table 2."""
        return [name for name in self.settings.models if self.llm.settings.models[name].stand_in]


def complete(leval: LevalSettings, llm: Llm | None, prompts: Prompts, source: str) -> Leval:
    """The preset with what its names stand for. Raises SettingsError: one line."""
    if llm is None:
        raise SettingsError(f"{source}: leval: llm must be given too, whose models answer")
    texts, models = llm.settings.texts, llm.settings.models
    if leval.made:
        check_known(f"{source}: leval.made.text", leval.made.text, texts, "llm.texts")
    for name, asked in leval.models.items():
        key = f"{source}: leval.models.{name}"
        check_known(f"{source}: leval.models", name, models, "llm.models")
        check_known(f"{key}.family", asked.family, prompts.families, "leval.yaml")
        if leval.made and not models[name].stand_in:
            raise SettingsError(
                f"{key}: questions of source {MADE} are a stand-in for L-Eval's and are for models with stand_in: "
                "true; name L-Eval's files by path: or hf:"
            )
        for strategy, names in asked.encodings.items():
            _check_strategy(f"{key}.encodings.{strategy}", strategy, names, llm, name)
    return Leval(leval, llm, prompts)


def _check_strategy(key: str, strategy: str, names: list[str], llm: Llm, model: str) -> None:
    known = [UNTUNED, *llm.settings.models[model].strategies]
    check_known(key.rpartition(".")[0], strategy, known, f"the strategies of {model}")
    if len(set(names)) != len(names) or not names:
        raise SettingsError(f"{key}: must name at least one encoding, each once, got {names}")
    tuned = llm.settings.finetuning.encodings
    for name in names:
        if strategy != UNTUNED:
            check_known(key, name, tuned, "llm.finetuning.encodings")
        llm.check_encoding(key, name, model)
