"""From an EncodingSpec to the angular frequencies theta_j of its features, in float64.

A method is one function in one registry (`methods`); Resonance is one step after it (`rounding`), the same for
every method. Imports numpy alone.

Legend: d head dimension (even), j = 0 .. d/2-1 the feature, theta_j angular frequency in rad per
position, lambda_j = 2*pi/theta_j wavelength in positions (eq. 7).
"""

from dataclasses import dataclass

import numpy as np

from resonance.encoding.methods import method_of
from resonance.encoding.rounding import resonate
from resonance.encoding.spec import EncodingSpec


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


def frequency_table(spec: EncodingSpec, head_dim: int, seq_len: int | None = None) -> FrequencyTable:
    """theta_j and integer periods of an encoding: the method, then Resonance where the spec asks.

    head_dim  d, even
    seq_len   L_c, the current length in positions; only `dynamic_ntk` depends on it, and None
              means at most L

    Raises ValueError for an odd head_dim, for a spec that `EncodingSpec.filled` cannot fill, and for a method that
    returns anything but d/2 finite, positive frequencies.
    """
    if isinstance(head_dim, bool) or not isinstance(head_dim, int | np.integer) or head_dim < 2 or head_dim % 2:
        raise ValueError(
            f"head_dim must be an even integer >= 2, got {head_dim!r}; a rotation turns pairs of dimensions"
        )
    spec = spec.filled()
    method = method_of(spec.method)
    theta = np.asarray(method(spec, int(head_dim), seq_len), dtype=np.float64)
    amplitude = spec.attention_factor
    if amplitude is None:
        amplitude = getattr(method, "attention_factor", lambda _: 1.0)(spec)
    if theta.shape != (head_dim // 2,) or not (np.isfinite(theta) & (theta > 0)).all():
        raise ValueError(
            f"method {spec.method} must return d/2 = {head_dim // 2} finite frequencies > 0, got {_brief(theta)}"
        )
    if not (np.isfinite(amplitude) and amplitude > 0):
        raise ValueError(f"the attention_factor of method {spec.method} must be a finite number > 0, got {amplitude}")
    period = np.zeros(len(theta), dtype=np.int64)
    if spec.resonance:
        theta, period = resonate(theta, spec.rounding)
    return FrequencyTable(theta=theta, period=period, attention_factor=float(amplitude))


def _brief(theta: np.ndarray) -> str:
    if theta.ndim != 1:
        return f"an array of shape {list(theta.shape)}"
    wrong = np.flatnonzero(~(np.isfinite(theta) & (theta > 0)))
    return f"{theta[wrong[0]]} for feature {wrong[0]}" if len(wrong) else f"{len(theta)} of them"


def precritical(theta: np.ndarray, train_length: int) -> np.ndarray:
    """Which features turn fully within L: lambda_j < L (section 3.2). bool [d/2].

    For d = 64, b = 10,000, L = 64 these are nine features, that is dimensions 0..17; the paper's
    "first 17" of 32 is the last such dimension's index.
    """
    return 2 * np.pi / theta < train_length


def depends_on_length(spec: EncodingSpec, head_dim: int) -> bool:
    """Whether a spec's table changes with the current length (as dynamic_ntk's does)."""
    long = 64 * (spec.train_length or 4096)
    return not np.array_equal(
        frequency_table(spec, head_dim).theta, frequency_table(spec, head_dim, seq_len=long).theta
    )
