"""Wavelengths stretched by a factor a feature."""

import numpy as np

from resonance.encoding.methods import Constants, register
from resonance.encoding.methods.shared import stretched


@register("factors", parameters={"factors": None})
def factors(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-2j/d) / factors_j: whatever table one likes."""
    return stretched(spec, head_dim, "factors")
