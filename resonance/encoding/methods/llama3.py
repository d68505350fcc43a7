"""The scaling of Llama 3.1 and later."""

import numpy as np

from resonance.encoding.methods import Constants, powers, register

OWN = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}


@register("llama3", needs_train_length=True, needs_scale=True, parameters=OWN)
def llama3(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j * ((1 - gamma_j)/s + gamma_j), gamma_j linear in L/lambda_j from low_freq_factor (interpolated by s) to
    high_freq_factor (kept). Meta's released code for Llama 3.1, as in transformers: YaRN's paper form without its
    temperature, with other constants."""
    low, high = spec.parameters["low_freq_factor"], spec.parameters["high_freq_factor"]
    if not 0 < low < high:
        raise ValueError(
            f"low_freq_factor and high_freq_factor must satisfy 0 < low < high, got {low} and {high}; Llama 3.1's are "
            "1 and 4"
        )
    theta = powers(spec.base, head_dim)
    gamma = np.clip((spec.train_length * theta / (2 * np.pi) - low) / (high - low), 0.0, 1.0)
    return theta * ((1 - gamma) / spec.scale + gamma)
