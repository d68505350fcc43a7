"""L-Eval's closed-ended tasks, and ours in their format, by name. Light: the config is read with it."""

from dataclasses import dataclass

PARSERS = ("released", "strict")


@dataclass(frozen=True)
class Task:
    """One closed-ended task: its name in a table, its questions (None: as many as are made), the smallest credit
    that a question earns, the mean credit of a guess where it is known, and whether it is a control, which no
    encoding is judged by."""

    title: str
    num_questions: int | None
    step: float
    chance: float | None = None
    control: bool = False

    @property
    def units(self) -> int:
        """Credits of the smallest size in a perfect score."""
        return round(self.num_questions / self.step)


TASKS = {
    "coursera": Task("Coursera", 172, 0.25),
    "gsm100": Task("GSM", 100, 1.0),
    "quality": Task("QuALITY", 202, 1.0),
    "tpo": Task("TOEFL", 269, 1.0),
    "codeu": Task("CodeU", 90, 1.0),
    "sci_fi": Task("SFiction", 64, 0.5),
}
"""In the order of the paper's columns."""

MADE_TASKS = {
    "line_end": Task("Line ends (made in the run)", None, 1.0, chance=0.25),
    "line_end_blind": Task("Line ends, the document withheld (made in the run)", None, 1.0, chance=0.25, control=True),
}
"""Ours, in L-Eval's format: a stand-in for its documents, never in the paper's columns or averages."""

ALL_TASKS = TASKS | MADE_TASKS
