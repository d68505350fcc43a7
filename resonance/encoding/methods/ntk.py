"""NTK-aware scaling: the base grows with the scale."""

import numpy as np

from resonance.encoding.methods import Constants, powers, register
from resonance.encoding.methods.shared import grown_base


@register("ntk", needs_scale=True)
def ntk(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b'^(-2j/d), b' = b*s (paper, C.2) or b*s^(d/(d-2)) (bloc97; released code)."""
    return powers(grown_base(spec, head_dim, spec.scale), head_dim)
