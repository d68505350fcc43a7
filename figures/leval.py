"""What Table 2 is made of: the paper's rows, decoded to counts, and ours, from per-question rows."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from figures import style
from resonance.record import leval
from resonance.record.results import read_rows
from resonance.record.settings import Settings, SettingsError, parse, read_yaml

AVERAGE = "average"
"""The column beside the tasks: their unweighted mean."""

ROUNDING = 0.011
"""How far a printed average may lie from its printed cells' mean: both are rounded."""

Name = tuple[str, str, str]
"""(model, encoding, strategy)"""


class Row(Settings):
    """A published row: what was fine-tuned, and its scores in percent."""

    model: str
    encoding: str
    strategy: str
    context: int
    scores: dict[str, float]
    average: float
    scale: int | None = None
    train_length: int | None = None
    steps: int | None = None

    @property
    def name(self) -> Name:
        return self.model, self.encoding, self.strategy

    @property
    def shares(self) -> dict[str, float]:
        """Task -> mean credit, from the count that the printed percentage decodes to."""
        return {task: leval.decode(task, self.scores[task]) / leval.TASKS[task].units for task in leval.TASKS}

    @property
    def title(self) -> str:
        scale = f"s = {self.scale}, " if self.scale else ""
        tuned = f"FT@{self.train_length // 1024}K, {self.steps} steps" if self.steps else "no FT"
        return f"{style.encoding_title(self.encoding)} ({scale}{tuned})"

    def percent(self, column: str) -> float:
        return self.average if column == AVERAGE else self.scores[column]


class Published(Settings):
    """Section table2 of config/published.yaml."""

    source: str
    models: dict[str, str]
    rows: list[Row]

    def of(self, model: str) -> list[Row]:
        return [row for row in self.rows if row.model == model]


@dataclass(frozen=True)
class Ours:
    """What we measured for one name under one parser: credit by question, and the golds of the questions."""

    name: Name
    parser: str
    credits: leval.Credits
    golds: dict[str, list[tuple[int, str]]]

    @property
    def complete(self) -> bool:
        """All questions of all tasks: what an average needs."""
        return all(len(self.credits.get(name, ())) == task.num_questions for name, task in leval.TASKS.items())


def read_published(path: Path) -> Published:
    sections = read_yaml(path)
    if not isinstance(sections, dict) or "table2" not in sections:
        raise SettingsError(f"{path}: table2 must be given, the paper's scores by model, encoding and strategy")
    paper = parse(Published, sections["table2"], f"{path}: table2")
    for row in paper.rows:
        where = f"{path}: table2: {' '.join(row.name)}"
        if row.model not in paper.models or row.scores.keys() != leval.TASKS.keys():
            raise SettingsError(f"{where}: must have a titled model and a score of {', '.join(leval.TASKS)}")
        mean = sum(row.scores.values()) / len(row.scores)
        if abs(mean - row.average) > ROUNDING:
            raise SettingsError(f"{where}: average must be the mean of its scores, {mean:.2f}, got {row.average}")
        try:
            row.shares  # noqa: B018
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from None
    if len({row.name for row in paper.rows}) != len(paper.rows):
        raise SettingsError(f"{path}: table2: every row must be given once")
    return paper


def read_ours(paths: list[Path]) -> list[Ours]:
    if not paths:
        return []
    rows = read_rows(paths, "leval").with_columns(pl.col("encoding", "strategy").fill_null("–"))
    names = rows.select("model", "encoding", "strategy").unique(maintain_order=True).rows()
    found = []
    for name in names:
        own = rows.filter(model=name[0], encoding=name[1], strategy=name[2])
        for parser in leval.PARSERS:
            asked = own.filter(parser=parser).sort("question")
            golds = {task: asked.filter(task=task).select("question", "gold").rows() for task in asked["task"].unique()}
            found.append(Ours(name, parser, leval.credits_of(own, parser), golds))
    return found
