"""Means over seeds with their spread: standard deviation, variance, 95 % intervals, paired differences."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over n runs. `low` and `high`: the 95 % t-interval, nan for a single run."""

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
    half = float(stats.t.ppf(0.975, n - 1)) * sd / n**0.5
    return Estimate(mean, sd, mean - half, mean + half, n)


def paired_difference(ours: dict[int, float], theirs: dict[int, float]) -> Estimate:
    """ours - theirs over the seeds that both have, as an Estimate of the paired differences."""
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        raise ValueError("a paired difference needs runs with a seed in common, got none")
    return estimate(np.array([ours[seed] - theirs[seed] for seed in seeds]))


def weighted_estimate(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """The weighted mean of independent units, its interval by the jackknife over them.

    With equal weights this is `estimate`. For a perplexity: values are a unit's mean nats, weights
    its tokens, so that the mean is the one over all tokens.
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
