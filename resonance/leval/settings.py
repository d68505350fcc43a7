"""What L-Eval's questions and answers depend on, as their settings files hold it. Imports no torch."""

from pydantic import Field, model_validator

from resonance.leval.catalogue import ALL_TASKS
from resonance.llm.settings import Running, Text
from resonance.record.settings import Count, Settings, check_known

EXAM = "exam"
MADE = "made"
"""The source of questions that are made in the run."""
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
    """By task; `exam` for those that have none of their own."""
    families: dict[str, Family]

    @model_validator(mode="after")
    def _check(self) -> "Prompts":
        for name in self.system_texts:
            check_known("system_texts", name, [EXAM, *ALL_TASKS], "what is asked")
        if EXAM not in self.system_texts:
            raise ValueError(f"system_texts must have {EXAM}, which all tasks without a text of their own get")
        return self

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


class TasksRun(Settings):
    """What the files of questions depend on."""

    source: str
    tasks: list[str]
    made: MadeQuestions | None
    text: Text | None


class AnswerRun(Running):
    """What answers depend on beside the questions, the model's weights and its encoding."""

    model: str
    family: str
    context: int
    documents: int | None
    max_new_tokens: int
    batch_size: int
    prefill: str
    prompts: Prompts
