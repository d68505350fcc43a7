"""Resonance: one step after any method, which moves every wavelength to an integer (Algorithm 1).

Other rules than `nearest` are ours: other integers, and controls that round to none. Imports numpy alone.
"""

import math
from collections.abc import Callable
from itertools import count

import numpy as np

CONTROLS = ("reflected", "half", "lowered", "raised")
"""Rules that round to no integer, beside the ones that do."""


def resonate(theta: np.ndarray, rounding: str = "nearest") -> tuple[np.ndarray, np.ndarray]:
    """theta~_j = 2*pi / round(2*pi/theta_j). Algorithm 1; other rules than `nearest` are ours.

    rounding  one of `ROUNDINGS`; `EncodingSpec` says what each does

    Returns (theta~, period), float64 and int64 [d/2]; `CONTROLS` round to no integer, so their
    period is 0. Rounding is done in float64: in float32 two wavelengths come out as the wrong integer
    at base 1e6. Raises ValueError for a wavelength that would vanish.
    """
    wavelength = 2 * np.pi / theta
    moved = _RULES[rounding](wavelength)
    if (moved <= 0 if rounding in CONTROLS else moved < 1).any():
        j = int(np.argmin(moved))
        raise ValueError(
            f"resonance needs wavelengths that round to at least 1 position, got {2 * np.pi / theta[j]:.3g} "
            f"for feature {j}; lower theta or leave resonance out"
        )
    period = np.zeros(len(theta), dtype=np.int64) if rounding in CONTROLS else moved.astype(np.int64)
    return 2 * np.pi / moved, period


def _nearest_free(wavelength: np.ndarray, fits: Callable[[int, list[int]], bool]) -> np.ndarray:
    """For each feature, fastest first, the nearest integer >= 2 that fits beside those already taken."""
    taken: list[int] = []
    for value in wavelength:
        middle = round(float(value))
        # Steps away from the nearest integer, either side by its distance: nearer ones come first.
        near = (n for step in count() for n in sorted({middle - step, middle + step}, key=lambda n: abs(n - value)))
        taken.append(next(n for n in near if n >= 2 and fits(n, taken)))
    return np.array(taken)


def _is_prime(n: int) -> bool:
    return n >= 2 and all(n % divisor for divisor in range(2, math.isqrt(n) + 1))


_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nearest": np.rint,
    "floor": np.floor,
    "ceil": np.ceil,
    "even": lambda wavelength: np.maximum(2 * np.rint(wavelength / 2), 2),
    "odd": lambda wavelength: 2 * np.floor(wavelength / 2) + 1,
    "prime": lambda wavelength: _nearest_free(wavelength, lambda n, taken: n not in taken and _is_prime(n)),
    "coprime": lambda wavelength: _nearest_free(
        wavelength, lambda n, taken: all(math.gcd(n, other) == 1 for other in taken)
    ),
    "reflected": lambda wavelength: 2 * wavelength - np.rint(wavelength),
    "half": lambda wavelength: np.floor(wavelength) + 0.5,
    "lowered": lambda wavelength: wavelength - 0.5,
    "raised": lambda wavelength: wavelength + 0.5,
}

ROUNDINGS = tuple(_RULES)
"""Every rule by name, the paper's first."""
