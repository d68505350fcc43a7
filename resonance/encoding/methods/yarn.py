"""YaRN (Peng et al., 2023): NTK-by-parts, and a temperature of the logits."""

import math

import numpy as np

from resonance.encoding.methods import Constants, powers, register


@register("yarn", needs_train_length=True, needs_scale=True)
def yarn(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """NTK-by-parts: gamma_j keeps a feature, 1 - gamma_j interpolates it by s. Section 3.3.

    Paper (blend `wavelength`): lambda^_j = (1 - gamma_j)*s*lambda_j + gamma_j*lambda_j. YaRN's
    own paper and code (blend `frequency`): theta^_j = (1 - gamma_j)*theta_j/s + gamma_j*theta_j.
    They agree where gamma is 0 or 1.
    """
    theta = powers(spec.base, head_dim)
    gamma = _gamma_by_wavelength(spec, theta) if spec.ramp == "wavelength" else _gamma_by_index(spec, head_dim)
    if spec.blend == "wavelength":
        return theta / ((1 - gamma) * spec.scale + gamma)
    return theta * ((1 - gamma) / spec.scale + gamma)


def _yarn_temperature(spec: Constants) -> float:
    """sqrt(1/t) = 0.1*ln(s) + 1. YaRN, eq. 22: both q and k carry it, so the logits its square."""
    return 0.1 * math.log(spec.scale) + 1.0


yarn.attention_factor = _yarn_temperature


def _gamma_by_wavelength(spec: Constants, theta: np.ndarray) -> np.ndarray:
    turns = spec.train_length * theta / (2 * np.pi)  # L/lambda_j, how often a feature turns over L
    return np.clip((turns - spec.beta_slow) / (spec.beta_fast - spec.beta_slow), 0.0, 1.0)


def _gamma_by_index(spec: Constants, head_dim: int) -> np.ndarray:
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
