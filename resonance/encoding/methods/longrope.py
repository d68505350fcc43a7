"""LongRoPE (Ding et al., 2024), as Phi-3 and transformers use it."""

import math

import numpy as np

from resonance.encoding.methods import Constants, register
from resonance.encoding.methods.shared import stretched


@register("longrope", needs_train_length=True, needs_scale=True, parameters={"short_factor": None, "long_factor": None})
def longrope(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-2j/d) / factor_j, by short_factor up to L, by long_factor past it."""
    long = seq_len is not None and seq_len > spec.train_length
    return stretched(spec, head_dim, "long_factor" if long else "short_factor")


def _amplitude(spec: Constants) -> float:
    """sqrt(1 + ln(s)/ln(L)). LongRoPE's released code."""
    return math.sqrt(1 + math.log(spec.scale) / math.log(spec.train_length))


longrope.attention_factor = _amplitude
longrope.breaks = lambda spec: (spec.train_length,)
