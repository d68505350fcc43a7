"""L-Eval's settings: whose answers are asked for, to which questions, how; and the run that they stand for.

Joined to a preset as its optional key `leval`, beside `llm`, whose models it names. Imports no torch.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from resonance.encoding.spec import EncodingSpec
from resonance.record.leval_tasks import MADE_TASKS, TASKS
from resonance.record.llm import UNTUNED, LlmSettings, Text
from resonance.record.llm_protocol import LlmProtocol
from resonance.record.settings import Count, Settings, SettingsError

MADE = "made"
_SOURCES = rf"{MADE}|path:.+|hf:[\w.-]+/[\w.-]+@[\w.-]+"
NUM_OPTIONS = 4


class Family(Settings):
    """How chat models of one family mark the turns."""

    start: str
    between: str
    end: str
    end_open: str
    stop: str | None
    """The token that ends a turn, where it is another than the tokenizer's end of text."""


class Prompts(Settings):
    """config/leval.yaml."""

    system_texts: dict[str, str]
    families: dict[str, Family]

    def of(self, family: str) -> "Prompts":
        """What the prompts of one family depend on."""
        return Prompts(system_texts=self.system_texts, families={family: self.families[family]})


class MadeQuestions(Settings):
    """Questions of ours in L-Eval's format, made in the run from plays: a stand-in for L-Eval's documents."""

    text: str
    """Name of `llm.texts`: its plays, read in the order of their names."""
    documents: Count
    """Documents, one a play."""
    words: Count
    """Words of a document: its first whole speeches of so many words."""
    questions: Count
    """Questions a document; a multiple of 4, so that every letter is the answer as often."""
    seed: int = Field(ge=0)
    """Of the choice of lines, options and their order."""

    @model_validator(mode="after")
    def _check(self) -> "MadeQuestions":
        if self.questions % NUM_OPTIONS:
            raise ValueError(f"questions must be a multiple of {NUM_OPTIONS}, got {self.questions}")
        return self


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
    """`path:FOLDER` of TASK.jsonl, `hf:OWNER/NAME@REVISION`, or `made`: questions made in the run."""
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
    """Questions on one document that are answered at a time."""
    precision: Literal["fp32", "bf16"]
    """Of weights and activations, on a GPU as on a CPU (L-Eval: bf16); the rotary table stays float32."""
    prefill: Literal["exact", "shared"]
    """Of an encoding whose table follows the length (dynamic_ntk); the others always share a document's keys.
    exact: every prompt is read anew with the table of its own length, as by L-Eval's script. shared: the
    document's keys keep the table of the document's length."""

    @model_validator(mode="after")
    def _check(self) -> "LevalSettings":
        if not re.fullmatch(_SOURCES, self.source, re.ASCII):
            raise ValueError(f"source must be path:FOLDER, hf:OWNER/NAME@REVISION or {MADE}, got {self.source!r}")
        if (self.source == MADE) != (self.made is not None):
            raise ValueError(f"made must be given for source {MADE} and for no other, got source {self.source}")
        known = MADE_TASKS if self.made else TASKS
        for name in self.tasks:
            if name not in known:
                raise ValueError(f"tasks of source {self.source} must be of {', '.join(known)}, got {name!r}")
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must name each entry once, got {self.tasks}")
        return self

    @property
    def follows_l_eval(self) -> bool:
        """Whether these are L-Eval's own questions."""
        return self.made is None


class TasksRun(Settings):
    """What the files of questions depend on."""

    source: str
    tasks: list[str]
    made: MadeQuestions | None
    text: Text | None


class AnswerRun(Settings):
    """What answers depend on beside the questions, the model's weights and its encoding."""

    model: str
    family: str
    context: int
    documents: int | None
    max_new_tokens: int
    batch_size: int
    prefill: str
    prompts: Prompts
    device: str
    precision: str
    attention: str


def tasks_run(leval: LevalSettings, llm: LlmSettings) -> TasksRun:
    text = llm.texts[leval.made.text] if leval.made else None
    return TasksRun(source=leval.source, tasks=leval.tasks, made=leval.made, text=text)


def answer_run(leval: LevalSettings, llm: LlmSettings, prompts: Prompts, model: str) -> AnswerRun:
    asked = leval.models[model]
    return AnswerRun(
        model=model,
        family=asked.family,
        context=asked.context,
        documents=leval.documents,
        max_new_tokens=leval.max_new_tokens,
        batch_size=leval.batch_size,
        prefill=leval.prefill,
        prompts=prompts.of(asked.family),
        device=llm.device,
        precision=leval.precision,
        attention=llm.attention,
    )


def answered(leval: LevalSettings) -> list[tuple[str, str, str]]:
    """(model, encoding, strategy) of every set of answers."""
    return [
        (model, encoding, strategy)
        for model, asked in leval.models.items()
        for strategy, names in asked.encodings.items()
        for encoding in names
    ]


def check_leval(
    leval: LevalSettings,
    llm: LlmSettings | None,
    protocols: dict[str, LlmProtocol],
    encodings: dict[str, dict],
    prompts: Prompts,
    source: Path,
) -> None:
    """The names of a preset's key `leval`. Raises SettingsError: one line."""
    if llm is None:
        raise SettingsError(f"{source}: leval: llm must be given too, whose models answer")
    if leval.made and leval.made.text not in llm.texts:
        raise SettingsError(
            f"{source}: leval.made.text: {leval.made.text!r} is not in llm.texts, which names {', '.join(llm.texts)}"
        )
    for name, asked in leval.models.items():
        key = f"{source}: leval.models.{name}"
        if name not in llm.models:
            raise SettingsError(f"{key}: not in llm.models, which names {', '.join(llm.models)}")
        if asked.family not in prompts.families:
            raise SettingsError(
                f"{key}.family: {asked.family!r} is not defined; leval.yaml names {', '.join(prompts.families)}"
            )
        if leval.made and not llm.models[name].stand_in:
            raise SettingsError(
                f"{key}: questions of source {MADE} are a stand-in for L-Eval's and are for models with stand_in: "
                "true; name L-Eval's files by path: or hf:"
            )
        for strategy, names in asked.encodings.items():
            _check_strategy(f"{key}.encodings.{strategy}", strategy, names, llm, name)
            for encoding in names:
                _check_encoding(f"{key}.encodings.{strategy}", encoding, protocols[llm.protocol], encodings, llm, name)


def _check_strategy(key: str, strategy: str, names: list[str], llm: LlmSettings, model: str) -> None:
    known = [UNTUNED, *llm.models[model].strategies]
    if strategy not in known:
        raise SettingsError(f"{key}: a strategy must be one of {', '.join(known)}, got {strategy!r}")
    if len(set(names)) != len(names) or not names:
        raise SettingsError(f"{key}: must name at least one encoding, each once, got {names}")
    for name in names if strategy != UNTUNED else ():
        if name not in llm.finetuning.encodings:
            raise SettingsError(
                f"{key}: {name!r} is not fine-tuned; llm.finetuning.encodings names "
                f"{', '.join(llm.finetuning.encodings) or 'none'}"
            )


def _check_encoding(
    key: str, name: str, protocol: LlmProtocol, encodings: dict[str, dict], llm: LlmSettings, model: str
) -> EncodingSpec:
    if name not in encodings:
        raise SettingsError(f"{key}: {name!r} is not defined; encodings.yaml names {', '.join(encodings)}")
    try:
        return protocol.encoding_spec(name, encodings[name], llm.models[model])
    except ValueError as error:
        raise SettingsError(f"{key}: {error}") from None
