"""Position Interpolation (Chen et al., 2023)."""

import numpy as np

from resonance.encoding.methods import Constants, powers, register


@register("linear", needs_scale=True)
def linear(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-2j/d) / s. Position Interpolation (Chen et al., 2023), eq. 4."""
    return powers(spec.base, head_dim) / spec.scale
