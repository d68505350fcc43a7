"""A position encoding of your own: RoPE whose exponents are bent."""

import numpy as np

from resonance.encoding.methods import Constants, powers


def flattened(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-(2j/d)^power), float64 [d/2], in radians per position.

    The spec comes filled: base, scale, train_length, and the parameters named below.
    """
    exponents = -np.log(powers(spec.base, head_dim)) / np.log(spec.base)
    return spec.base ** -(exponents ** spec.parameters["power"])


flattened.parameters = {"power": 1.0}  # fields of its own and their defaults; None: must be given
flattened.needs_train_length = False  # True: no table without L, which is then in spec.train_length
flattened.attention_factor = lambda spec: 1.0  # the amplitude of the rotated vectors, like YaRN's temperature
