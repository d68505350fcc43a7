"""From an EncodingSpec to the angular frequencies theta_j of its features, in float64.

A method is one function in one registry; Resonance is one step after the look-up, the same for
every method. Imports numpy alone.

Legend: d head dimension (even), j = 0 .. d/2-1 the feature, theta_j angular frequency in rad per
position, lambda_j = 2*pi/theta_j wavelength in positions (eq. 7).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from itertools import count

import numpy as np

from resonance.encoding.spec import CONTROLS, EncodingSpec


@dataclass(frozen=True)
class FrequencyTable:
    """What an encoding is, numerically, for one head dimension.

    theta             float64 [d/2], rad per position
    period            int64 [d/2], the wavelength where it is an exact integer, 0 elsewhere
    attention_factor  the amplitude of rotated vectors (1 but for YaRN)
    """

    theta: np.ndarray
    period: np.ndarray
    attention_factor: float = 1.0

    @property
    def wavelength(self) -> np.ndarray:
        """lambda_j = 2*pi/theta_j in positions (eq. 7); exact integers where there is a period."""
        return np.where(self.period > 0, self.period, 2 * np.pi / self.theta)


Method = Callable[[EncodingSpec, int, int | None], np.ndarray]
_METHODS: dict[str, Method] = {}
_NEEDS_TRAIN_LENGTH: set[str] = set()
ENTRY_POINT_GROUP = "resonance.methods"


def register(name: str, *, needs_train_length: bool = False) -> Callable[[Method], Method]:
    """Add a method to the registry: a function (spec, head_dim, seq_len) -> theta, float64 [d/2].

    It may set the amplitude by a function attribute `attention_factor(spec) -> float`.
    """

    def add(method: Method) -> Method:
        _METHODS[name] = method
        if needs_train_length:
            _NEEDS_TRAIN_LENGTH.add(name)
        return method

    return add


@cache
def _load_entry_points() -> None:
    for point in entry_points(group=ENTRY_POINT_GROUP):
        register(point.name)(point.load())


def method_names() -> list[str]:
    """Every method that a spec may name, ours first."""
    _load_entry_points()
    return list(_METHODS)


def needs_train_length(name: str) -> bool:
    return name in _NEEDS_TRAIN_LENGTH


def frequency_table(spec: EncodingSpec, head_dim: int, seq_len: int | None = None) -> FrequencyTable:
    """theta_j and integer periods of an encoding: the method, then Resonance where the spec asks.

    head_dim  d, even
    seq_len   L_c, the current length in positions; only `dynamic_ntk` depends on it, and None
              means at most L

    Raises ValueError for an odd head_dim.
    """
    if isinstance(head_dim, bool) or not isinstance(head_dim, int | np.integer) or head_dim < 2 or head_dim % 2:
        raise ValueError(
            f"head_dim must be an even integer >= 2, got {head_dim!r}; a rotation turns pairs of dimensions"
        )
    _load_entry_points()
    method = _METHODS[spec.method]
    theta = np.asarray(method(spec, int(head_dim), seq_len), dtype=np.float64)
    period = np.zeros(len(theta), dtype=np.int64)
    if spec.resonance:
        theta, period = resonate(theta, spec.rounding)
    amplitude = spec.attention_factor
    if amplitude is None:
        amplitude = getattr(method, "attention_factor", lambda _: 1.0)(spec)
    return FrequencyTable(theta=theta, period=period, attention_factor=float(amplitude))


def resonate(theta: np.ndarray, rounding: str = "nearest") -> tuple[np.ndarray, np.ndarray]:
    """theta~_j = 2*pi / round(2*pi/theta_j). Algorithm 1; other rules than `nearest` are ours.

    rounding  one of `spec.ROUNDINGS`; `EncodingSpec` says what each does

    Returns (theta~, period), float64 and int64 [d/2]; `spec.CONTROLS` round to no integer, so their
    period is 0. Rounding is done in float64: in float32 two wavelengths come out as the wrong integer
    at base 1e6. Raises ValueError for a wavelength that would vanish.
    """
    wavelength = 2 * np.pi / theta
    moved = _ROUNDINGS[rounding](wavelength)
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


_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
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


def precritical(theta: np.ndarray, train_length: int) -> np.ndarray:
    """Which features turn fully within L: lambda_j < L (section 3.2). bool [d/2].

    For d = 64, b = 10,000, L = 64 these are nine features, that is dimensions 0..17; the paper's
    "first 17" of 32 is the last such dimension's index.
    """
    return 2 * np.pi / theta < train_length


@register("rope")
def rope(spec: EncodingSpec, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-2j/d). RoFormer, eq. 15; here eq. 1."""
    return _powers(spec.base, head_dim)


@register("linear")
def linear(spec: EncodingSpec, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-2j/d) / s. Position Interpolation (Chen et al., 2023), eq. 4."""
    return _powers(spec.base, head_dim) / spec.scale


@register("ntk")
def ntk(spec: EncodingSpec, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b'^(-2j/d), b' = b*s (paper, C.2) or b*s^(d/(d-2)) (bloc97; released code)."""
    return _powers(_grown_base(spec, head_dim, spec.scale), head_dim)


@register("dynamic_ntk", needs_train_length=True)
def dynamic_ntk(spec: EncodingSpec, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """NTK-aware scaling by the current length L_c: s = L_c/L (paper, C.2), or s*L_c/L - (s-1)
    (released code and transformers). Nothing changes up to L."""
    ratio = max(1.0, (seq_len or 0) / spec.train_length)
    growth = ratio if spec.ntk_rule == "paper" else spec.scale * ratio - (spec.scale - 1)
    return _powers(_grown_base(spec, head_dim, growth), head_dim)


@register("yarn", needs_train_length=True)
def yarn(spec: EncodingSpec, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """NTK-by-parts: gamma_j keeps a feature, 1 - gamma_j interpolates it by s. Section 3.3.

    Paper (blend `wavelength`): lambda^_j = (1 - gamma_j)*s*lambda_j + gamma_j*lambda_j. YaRN's
    own paper and code (blend `frequency`): theta^_j = (1 - gamma_j)*theta_j/s + gamma_j*theta_j.
    They agree where gamma is 0 or 1.
    """
    theta = _powers(spec.base, head_dim)
    gamma = _gamma_by_wavelength(spec, theta) if spec.ramp == "wavelength" else _gamma_by_index(spec, head_dim)
    if spec.blend == "wavelength":
        return theta / ((1 - gamma) * spec.scale + gamma)
    return theta * ((1 - gamma) / spec.scale + gamma)


def _yarn_temperature(spec: EncodingSpec) -> float:
    """sqrt(1/t) = 0.1*ln(s) + 1. YaRN, eq. 22: both q and k carry it, so the logits its square."""
    return 0.1 * math.log(spec.scale) + 1.0


yarn.attention_factor = _yarn_temperature


def _powers(base: float, head_dim: int) -> np.ndarray:
    return base ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)


def _grown_base(spec: EncodingSpec, head_dim: int, growth: float) -> float:
    if spec.ntk_rule == "paper":
        return spec.base * growth
    if head_dim == 2:
        raise ValueError("head_dim must be >= 4 for ntk_rule bloc97, got 2: its exponent is d/(d-2)")
    return spec.base * growth ** (head_dim / (head_dim - 2))


def _gamma_by_wavelength(spec: EncodingSpec, theta: np.ndarray) -> np.ndarray:
    turns = spec.train_length * theta / (2 * np.pi)  # L/lambda_j, how often a feature turns over L
    return np.clip((turns - spec.beta_slow) / (spec.beta_fast - spec.beta_slow), 0.0, 1.0)


def _gamma_by_index(spec: EncodingSpec, head_dim: int) -> np.ndarray:
    def index_of(turns: float) -> float:
        """The (fractional) feature that turns so many times over L; inverse of L/lambda_j."""
        return head_dim * math.log(spec.train_length / (turns * 2 * math.pi)) / (2 * math.log(spec.base))

    low, high = index_of(spec.beta_fast), index_of(spec.beta_slow)
    if spec.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)  # d-1, not d/2-1: as in YaRN's code
    if low == high:
        high += 0.001  # as in YaRN's code: a step instead of a division by zero
    return 1 - np.clip((np.arange(head_dim // 2) - low) / (high - low), 0.0, 1.0)
