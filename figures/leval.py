"""What Table 2 is made of: the paper's rows, decoded to counts, and ours, from per-question rows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import polars as pl

from figures import inputs, style
from resonance.leval import counts
from resonance.leval.rows import ANSWERS
from resonance.record.rows import read_rows
from resonance.record.settings import Settings, SettingsError
from resonance.record.stats import paired_tasks, share_interval
from resonance.record.tables import interval, number, write_csv

AVERAGE = "average"
"""The column beside the tasks: their unweighted mean."""

SCORE_COLUMNS = ["preset", "source", "parser", "model", "encoding", "strategy", "context", "task"]
SCORE_COLUMNS += ["num_questions", "count", "percent", "low95_percent", "high95_percent", "mark"]
PAIR_COLUMNS = ["preset", "source", "parser", "model", "encoding", "strategy", "than_encoding", "than_strategy", "task"]
PAIR_COLUMNS += ["difference_points", "low95_points", "high95_points", "p", "least_p", "better", "worse", "mcnemar_p"]
PAIR_COLUMNS += ["verdict"]

LEVEL = 0.05
"""Of every test."""

ROUNDING = 0.011
"""How far a printed average may lie from its printed cells' mean: both are rounded."""


class Name(NamedTuple):
    """What was asked."""

    model: str
    encoding: str
    strategy: str

    @property
    def title(self) -> str:
        return f"{style.encoding_title(self.encoding)} ({self.strategy})"


class Row(Settings):
    """A published row: what was fine-tuned, and its scores in percent."""

    source: ClassVar[str] = "paper"
    parser: ClassVar[str] = "released"
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
        return Name(self.model, self.encoding, self.strategy)

    @property
    def shares(self) -> dict[str, float]:
        """Task -> mean credit, from the count that the printed percentage decodes to."""
        return {task: counts.decode(task, self.scores[task]) / counts.TASKS[task].units for task in counts.TASKS}

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

    source: ClassVar[str] = "ours"
    name: Name
    parser: str
    credits: counts.Credits
    golds: dict[str, list[tuple[int, str]]]

    @property
    def complete(self) -> bool:
        """All questions of all tasks: what an average needs."""
        return all(len(self.credits.get(name, ())) == task.num_questions for name, task in counts.TASKS.items())


def read_published(path: Path) -> Published:
    paper = inputs.read_section(path, "table2", Published, "the paper's scores by model, encoding and strategy")
    for row in paper.rows:
        where = f"{path}: table2: {' '.join(row.name)}"
        if row.model not in paper.models or row.scores.keys() != counts.TASKS.keys():
            raise SettingsError(f"{where}: must have a titled model and a score of {', '.join(counts.TASKS)}")
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
    rows = read_rows(paths, ANSWERS).with_columns(pl.col("encoding", "strategy").fill_null("–"))
    found = []
    for name, own in rows.group_by(Name._fields, maintain_order=True):
        for parser in counts.PARSERS:
            asked = own.filter(parser=parser).sort("question").select("task", "question", "gold")
            found.append(Ours(Name(*name), parser, counts.credits_of(own, parser), asked.rows_by_key("task")))
    return found


# What tables say of a row, the paper's or ours


def our_cells(ours: Ours) -> list[dict]:
    cells = []
    for task, credit in ours.credits.items():
        ends = share_interval(credit.sum(), len(credit))
        count = round(credit.sum() / counts.ALL_TASKS[task].step)
        percent = [100 * share for share in (credit.mean(), *ends)]
        cells.append(cell_of(ours, task, percent, num_questions=len(credit), count=count))
    if ours.complete:
        average = counts.average({task: credit.mean() for task, credit in ours.credits.items()})
        cells.append(cell_of(ours, AVERAGE, average))
    return cells


def cell_of(row: Row | Ours, task: str, percent: Sequence[float], **more: object) -> dict:
    """A cell for machines. percent: the score and its interval's ends; more: of SCORE_COLUMNS, what is known."""
    scores = dict(zip(("percent", "low95_percent", "high95_percent"), map(float, percent), strict=True))
    return {**names_of(row), "task": task, **scores, **more}


def names_of(row: Row | Ours) -> dict:
    return {"source": row.source, "parser": row.parser, **row.name._asdict()}


def counterparts(rows: list, kind: str = "resonance") -> Iterator[tuple]:
    """(row, than) of rows of the paper or of ours, under the same model, strategy and parser.

    kind  what stands beside a row: the plain encoding (`resonance`), or plain RoPE (`rope`)
    """
    by_key = {(row.name, row.parser): row for row in rows}
    for row in rows:
        plain = "rope" if kind == "rope" else row.name.encoding.removeprefix("resonance_")
        than = by_key.get((row.name._replace(encoding=plain), row.parser))
        if than is not None and than is not row:
            yield row, than


def our_pairs(ours: list[Ours], kind: str = "resonance") -> list[dict]:
    """`counterparts` on the questions that both answered, all tasks together."""
    pairs = []
    for measured, than in counterparts(ours, kind):
        model, encoding, strategy = measured.name
        if measured.golds != than.golds:
            than_name = than.name.encoding
            raise ValueError(f"--scores of {model} {strategy}: {encoding} and {than_name} must have the same questions")
        found = paired_tasks(measured.credits, than.credits)
        points = [None if math.isnan(share) else 100 * share for share in (found.difference, found.low, found.high)]
        pair = pair_of(measured, than, AVERAGE if measured.complete else " ".join(measured.credits), points, found.p)
        pair |= {"better": found.better, "worse": found.worse, "mcnemar_p": found.mcnemar, "kind": kind}
        than_title = style.encoding_title(than.name.encoding)
        pairs.append(pair | {"title": f"{measured.name.title}, {measured.parser}", "than_title": than_title})
    return pairs


def pair_of(
    row: Row | Ours, than: Row | Ours, task: str, points: Sequence[float | None], p: float, least_p: float | None = None
) -> dict:
    """A difference for machines. points: the difference and its interval's ends."""
    names = {"than_encoding": than.name.encoding, "than_strategy": than.name.strategy, "verdict": verdict(p, least_p)}
    ends = dict(zip(("difference_points", "low95_points", "high95_points"), points, strict=True))
    return names_of(row) | names | {"task": task, **ends, "p": p, "least_p": least_p}


def pair_cells(pair: dict) -> list[str]:
    """A difference as every table has it: what, points, interval and p."""
    ends = interval(pair["low95_points"], pair["high95_points"], "+")
    return [f"{pair['title']} − {pair['than_title']}", number(pair["difference_points"], "+"), ends, p_text(pair["p"])]


def verdict(p: float, least_p: float | None) -> str:
    if p < LEVEL:
        return "significant"
    if least_p is None:
        return "not significant"
    return "not significant, however paired" if least_p >= LEVEL else "not significant unpaired"


def p_text(p: float | None) -> str:
    return "–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def write_scores(output: Path, preset: str, cells: list[dict], pairs: list[dict]) -> None:
    """STEM.csv and STEM_pairs.csv: every cell, and every difference."""
    for suffix, columns, found in (("", SCORE_COLUMNS, cells), ("_pairs", PAIR_COLUMNS, pairs)):
        write_csv(Path(f"{output}{suffix}"), [{"preset": preset} | row for row in found], columns)
