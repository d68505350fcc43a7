"""NTK-aware scaling whose base grows with the current length."""

import numpy as np

from resonance.encoding.methods import Constants, powers, register
from resonance.encoding.methods.shared import grown_base


@register("dynamic_ntk", needs_train_length=True)
def dynamic_ntk(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """NTK-aware scaling by the current length L_c: s = L_c/L (paper, C.2), or s*L_c/L - (s-1)
    (released code and transformers). Nothing changes up to L."""
    ratio = max(1.0, (seq_len or 0) / spec.train_length)
    growth = ratio if spec.ntk_rule == "paper" else spec.scale * ratio - (spec.scale - 1)
    return powers(grown_base(spec, head_dim, growth), head_dim)
