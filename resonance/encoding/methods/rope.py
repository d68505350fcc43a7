"""RoPE (Su et al., 2021)."""

import numpy as np

from resonance.encoding.methods import Constants, powers, register


@register("rope")
def rope(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-2j/d). RoFormer, eq. 15; here eq. 1."""
    return powers(spec.base, head_dim)
