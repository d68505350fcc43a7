"""Means over seeds with their spread: standard deviation, variance, 95 % intervals, paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEAST_RUNS = 3
"""Fewer runs get no interval: with two a 95 % t-interval is 18 standard deviations wide and says nothing."""


@dataclass(frozen=True)
class Estimate:
    """A mean over n runs. `sd`: nan for a single run. `low` and `high`: the 95 % t-interval, nan below LEAST_RUNS."""

    mean: float
    sd: float
    low: float
    high: float
    n: int

    @property
    def variance(self) -> float:
        return self.sd**2

    def known(self, name: str) -> float | None:
        """A field, or None where a single run leaves it nan: nothing, and not nan, in a file."""
        value = getattr(self, name)
        return None if math.isnan(value) else value


def estimate(values: np.ndarray) -> Estimate:
    """Mean, sample standard deviation and 95 % t-interval of independent runs."""
    values = np.asarray(values, dtype=float)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), float("nan"), n)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd / n**0.5 if n >= LEAST_RUNS else float("nan")
    return Estimate(mean, sd, mean - half, mean + half, n)


def paired_difference(ours: dict[int, float], theirs: dict[int, float]) -> Estimate:
    """ours - theirs over the seeds that both have, as an Estimate of the paired differences."""
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        raise ValueError("a paired difference needs runs with a seed in common, got none")
    return estimate(np.array([ours[seed] - theirs[seed] for seed in seeds]))


def detectable(found: Estimate, power: float = 0.8) -> float | None:
    """The true mean that a t-test at 5 % finds with this power, given the spread and number of runs; None for too few.

    By the usual approximation (t_0.975 + t_power) sd / sqrt(n).
    """
    if found.n < LEAST_RUNS:
        return None
    return float((stats.t.ppf(0.975, found.n - 1) + stats.t.ppf(power, found.n - 1)) * found.sd / found.n**0.5)


def p_value(found: Estimate) -> float:
    """Two-sided p of a mean of zero by the t-test whose interval an Estimate holds; nan for a single run, and for runs
    that are all zero."""
    if found.sd == 0:
        return 0.0 if found.mean else float("nan")
    return float(2 * stats.t.sf(abs(found.mean) / (found.sd / found.n**0.5), found.n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below alpha, the share of false claims among all of these stays below alpha."""
    order, adjusted, most = np.argsort(p_values), [1.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        most = max(most, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = most
    return adjusted


def correlation(ours: np.ndarray, theirs: np.ndarray, lost: int = 0) -> tuple[float, float, float]:
    """Pearson's r of pairs, and its 95 % interval (Fisher's z). Raises ValueError for fewer than four pairs.

    lost  degrees of freedom that went into means which were taken off before: of n groups, n - 1
    """
    if (n := len(ours) - lost) < 4:
        raise ValueError(f"a correlation with an interval needs at least 4 pairs, got {n}")
    r = float(stats.pearsonr(ours, theirs).statistic)
    with np.errstate(divide="ignore"):  # r of 1 has an interval of no width
        ends = np.tanh(np.arctanh(r) + np.array([-1, 1]) * stats.norm.ppf(0.975) / (n - 3) ** 0.5)
    return r, float(ends[0]), float(ends[1])


def weighted_estimate(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """The weighted mean of independent units, its interval by the jackknife over them.

    With equal weights this is `estimate`. Where values are a unit's mean nats and weights
    its tokens, the mean is the one over all tokens.
    """
    values, weights = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    n, total = len(values), weights.sum()
    mean = float((values * weights).sum() / total)
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), float("nan"), n)
    without = ((values * weights).sum() - values * weights) / (total - weights)
    spread = estimate(n * mean - (n - 1) * without)
    half = spread.high - spread.mean
    return Estimate(mean, spread.sd, mean - half, mean + half, n)


def share_interval(credit: float, n: int) -> tuple[float, float]:
    """95 % Clopper-Pearson interval of a mean credit over n questions, each in [0, 1].

    Exact for whole credits; fractional ones spread less than whole ones of the same sum, so that it is
    then too wide and never too narrow.
    """
    low = float(stats.beta.ppf(0.025, credit, n - credit + 1)) if credit > 0 else 0.0
    high = float(stats.beta.ppf(0.975, credit + 1, n - credit)) if credit < n else 1.0
    return low, high


@dataclass(frozen=True)
class Paired:
    """The difference of two averages over tasks on the same questions.

    `low`, `high`: 95 % bootstrap interval over questions within tasks, nan where nothing varies or a task has a
    single question. `p`: two-sided sign-flip permutation test. `better`, `worse`: questions with more and with
    less credit; `mcnemar`: the exact test of those two counts. Questions count as independent.
    """

    difference: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    mcnemar: float
    n: int


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided McNemar test: of the questions that differ, is each side as likely to be better?"""
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def paired_tasks(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], seed: int = 0) -> Paired:
    """ours - theirs, task -> credit by question, the tasks weighing the same.

    Raises ValueError unless both have the same tasks with the same questions.
    """
    if not ours or ours.keys() != theirs.keys():
        raise ValueError(f"a paired test needs the same tasks on both sides, got {sorted(ours)} and {sorted(theirs)}")
    for task in ours:
        if len(ours[task]) != len(theirs[task]) or not len(ours[task]):
            raise ValueError(
                f"a paired test needs the same questions on both sides, got {len(ours[task])} and "
                f"{len(theirs[task])} of {task}"
            )
    by_task = [np.asarray(ours[task], dtype=float) - np.asarray(theirs[task], dtype=float) for task in ours]
    every = np.concatenate(by_task)
    difference = float(np.mean([np.mean(part) for part in by_task]))
    better, worse = int((every > 0).sum()), int((every < 0).sum())
    low = high = float("nan")
    p = 1.0
    if any(np.ptp(part) > 0 for part in by_task) and all(len(part) > 1 for part in by_task):
        low, high = _bootstrap(by_task, seed)
    if better + worse:
        # A question's share in the average over tasks; the test flips the sign of every question by itself.
        weighted = np.concatenate([part / len(part) / len(by_task) for part in by_task])
        p = float(
            stats.permutation_test(
                (np.append(weighted[weighted != 0], 0.0),),  # scipy wants two at least; a zero changes nothing
                lambda flipped, axis: np.sum(flipped, axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=9999,
                batch=1000,
                rng=np.random.default_rng(seed),
            ).pvalue
        )
    return Paired(difference, low, high, p, better, worse, mcnemar(better, worse), len(every))


def _bootstrap(by_task: list[np.ndarray], seed: int) -> tuple[float, float]:
    found = stats.bootstrap(
        by_task,
        lambda *parts, axis: np.mean([np.mean(part, axis=axis) for part in parts], axis=0),
        method="percentile",
        vectorized=True,
        n_resamples=9999,
        batch=1000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
