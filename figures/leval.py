"""What Table 2 is made of: the paper's rows, decoded to counts, and ours, from per-question rows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from figures import style
from resonance.leval import counts
from resonance.leval.rows import ANSWERS
from resonance.record.rows import read_rows
from resonance.record.settings import Settings, SettingsError, parse, read_yaml
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

    name: Name
    parser: str
    credits: counts.Credits
    golds: dict[str, list[tuple[int, str]]]

    @property
    def complete(self) -> bool:
        """All questions of all tasks: what an average needs."""
        return all(len(self.credits.get(name, ())) == task.num_questions for name, task in counts.TASKS.items())


def read_published(path: Path) -> Published:
    sections = read_yaml(path)
    if not isinstance(sections, dict) or "table2" not in sections:
        raise SettingsError(f"{path}: table2 must be given, the paper's scores by model, encoding and strategy")
    paper = parse(Published, sections["table2"], f"{path}: table2")
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
    names = rows.select("model", "encoding", "strategy").unique(maintain_order=True).rows()
    found = []
    for name in names:
        own = rows.filter(model=name[0], encoding=name[1], strategy=name[2])
        for parser in counts.PARSERS:
            asked = own.filter(parser=parser).sort("question")
            golds = {task: asked.filter(task=task).select("question", "gold").rows() for task in asked["task"].unique()}
            found.append(Ours(name, parser, counts.credits_of(own, parser), golds))
    return found


# What tables say of ours


def our_cells(ours: Ours) -> list[dict]:
    cells = []
    for task, credit in ours.credits.items():
        low, high = share_interval(credit.sum(), len(credit))
        count = round(credit.sum() / counts.ALL_TASKS[task].step)
        cells.append(cell_of(task, 100 * credit.mean(), 100 * low, 100 * high, len(credit), count))
    if ours.complete:
        cells.append(cell_of(AVERAGE, *counts.average({task: credit.mean() for task, credit in ours.credits.items()})))
    named = {"source": "ours", "parser": ours.parser, **names_of(ours.name), "context": None, "mark": None}
    return [named | cell for cell in cells]


def cell_of(
    task: str, percent: float, low: float, high: float, questions: int | None = None, count: int | None = None
) -> dict:
    return {
        "task": task,
        "num_questions": questions,
        "count": count,
        "percent": float(percent),
        "low95_percent": float(low),
        "high95_percent": float(high),
    }


def our_pairs(ours: list[Ours]) -> list[dict]:
    """Resonance minus plain on the questions that both answered, all tasks together."""
    pairs = []
    for measured, plain in _against(ours, lambda encoding: encoding.removeprefix("resonance_")):
        pairs.append(our_pair(measured, plain) | {"kind": "resonance"})
    return pairs


def rope_pairs(ours: list[Ours]) -> list[dict]:
    """Every encoding minus plain RoPE of the same strategy, likewise."""
    return [our_pair(measured, plain) | {"kind": "rope"} for measured, plain in _against(ours, lambda _: "rope")]


def _against(ours: list[Ours], other: Callable[[str], str]) -> list[tuple[Ours, Ours]]:
    """(measured, than) of all that have a counterpart under the same model, strategy and parser."""
    by_key = {(*measured.name, measured.parser): measured for measured in ours}
    found = []
    for measured in ours:
        model, encoding, strategy = measured.name
        than = by_key.get((model, other(encoding), strategy, measured.parser))
        if than is not None and than is not measured:
            found.append((measured, than))
    return found


def our_pair(measured: Ours, than: Ours) -> dict:
    model, encoding, strategy = measured.name
    if measured.golds != than.golds:
        raise ValueError(f"--scores of {model} {strategy}: {encoding} and {than.name[1]} must have the same questions")
    found = paired_tasks(measured.credits, than.credits)
    low, high = (None if math.isnan(end) else 100 * end for end in (found.low, found.high))
    return {
        "source": "ours", "parser": measured.parser, **names_of(measured.name),
        "than_encoding": than.name[1], "than_strategy": strategy,
        "task": AVERAGE if measured.complete else " ".join(measured.credits),
        "difference_points": 100 * found.difference, "low95_points": low, "high95_points": high,
        "p": found.p, "least_p": None, "better": found.better, "worse": found.worse,
        "mcnemar_p": found.mcnemar, "verdict": verdict(found.p, None),
        "title": f"{style.encoding_title(encoding)} ({strategy}), {measured.parser}",
        "than_title": style.encoding_title(than.name[1]),
    }  # fmt: skip


def pair_cells(pair: dict) -> list[str]:
    """A difference as every table has it: what, points, interval and p."""
    return [
        f"{pair['title']} − {pair['than_title']}",
        number(pair["difference_points"], "+"),
        interval(pair["low95_points"], pair["high95_points"], "+"),
        p_text(pair["p"]),
    ]


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


def names_of(name: Name) -> dict:
    return dict(zip(("model", "encoding", "strategy"), name, strict=True))
