"""Scores of L-Eval's closed-ended tasks as data, and what can be said of scores of which only the counts are known.

A published cell is a percentage of two decimals; it decodes to a whole count of credits (L13). Of a
count, the pairing of questions between two models is lost: `compare_counts` therefore gives the
unpaired test, and the bound that no pairing can beat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose

import numpy as np
import polars as pl
from scipy import stats

from resonance.leval.catalogue import ALL_TASKS, TASKS
from resonance.leval.catalogue import PARSERS as PARSERS

Z95 = float(stats.norm.ppf(0.975))


Credits = dict[str, np.ndarray]
"""Task -> credit by question, in the paper's order of tasks."""


def credits_of(rows: pl.DataFrame, parser: str) -> Credits:
    """The credits of one model's rows (of the kind `leval`) under a parser.

    In the questions' order. Raises ValueError where a question stands twice.
    """
    by_task = {}
    for task in ALL_TASKS:
        found = rows.filter(pl.col("task") == task, pl.col("parser") == parser).sort("question")
        if found.is_empty():
            continue
        if found["question"].n_unique() != len(found):
            raise ValueError(f"questions of {task} must be there once each, got some twice; score it again")
        by_task[task] = found["value"].to_numpy()
    return by_task


def decode(task: str, percent: float) -> int:
    """The count of smallest credits behind a published percentage of two decimals.

    Raises ValueError if no count rounds to it.
    """
    units = TASKS[task].units
    count = round(percent * units / 100)
    if not 0 <= count <= units or not isclose(round(100 * count / units, 2), percent, abs_tol=1e-6):
        raise ValueError(f"{task}: must be a whole count over {units} in percent with two decimals, got {percent}")
    return count


@dataclass(frozen=True)
class Difference:
    """A difference of two averages in percentage points, from counts alone.

    `low`, `high`, `p`: as if the two answered unrelated samples of questions (unpaired). `least_p`: no
    pairing of the questions gives a smaller two-sided p.
    """

    points: float
    low: float
    high: float
    p: float
    least_p: float


def standard_error(shares: Mapping[str, float], counts: Mapping[str, int] | None = None) -> float:
    """Of the unweighted average over tasks, at most: sqrt(sum p(1-p)/n) / number of tasks.

    shares: a task's mean credit in [0, 1]. counts: its questions; all of them if not given. A question's
    credit lies in [0, 1], so its variance is at most p(1-p); for the tasks of whole credits it is just that.
    Questions count as independent.
    """
    counts = counts or {task: TASKS[task].num_questions for task in shares}
    return sum(p * (1 - p) / counts[task] for task, p in shares.items()) ** 0.5 / len(shares)


def average(shares: Mapping[str, float], counts: Mapping[str, int] | None = None) -> tuple[float, float, float]:
    """The unweighted average over tasks in percent, with its 95 % interval (normal)."""
    mean, half = sum(shares.values()) / len(shares), Z95 * standard_error(shares, counts)
    return 100 * mean, 100 * (mean - half), 100 * (mean + half)


def compare_counts(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Difference:
    """ours - theirs over the same tasks. Raises ValueError where the tasks differ.

    The bound: on a task of credits in steps of g the per-question difference is a multiple of g with a
    known mean, whose variance is least when it takes the two neighbouring multiples only.
    """
    if ours.keys() != theirs.keys() or not ours:
        raise ValueError(f"both sides must have the same tasks, got {sorted(ours)} and {sorted(theirs)}")
    points = 100 * sum(ours[task] - theirs[task] for task in ours) / len(ours)
    error = 100 * (standard_error(ours) ** 2 + standard_error(theirs) ** 2) ** 0.5
    least = 0.0
    for task in ours:
        step = TASKS[task].step
        rest = round(abs(ours[task] - theirs[task]) / step, 9) % 1
        least += step**2 * rest * (1 - rest) / TASKS[task].num_questions
    least = 100 * least**0.5 / len(ours)
    return Difference(points, points - Z95 * error, points + Z95 * error, _p(points, error), _p(points, least))


def _p(points: float, error: float) -> float:
    """Two-sided, normal. Without any spread a difference is certain, and none is none."""
    if isclose(points, 0, abs_tol=1e-9):
        return 1.0
    return float(2 * stats.norm.sf(abs(points) / error)) if error else 0.0
