"""What several methods share: a grown base, stretched wavelengths. Registers none itself."""

import numpy as np

from resonance.encoding.methods import Constants, powers


def grown_base(spec: Constants, head_dim: int, growth: float) -> float:
    """b grown: by growth, under ntk_rule `bloc97` by growth^(d/(d-2)).

    Raises ValueError where the exponent has no value.
    """
    if spec.ntk_rule == "paper":
        return spec.base * growth
    if head_dim == 2:
        raise ValueError("head_dim must be >= 4 for ntk_rule bloc97, got 2: its exponent is d/(d-2)")
    return spec.base * growth ** (head_dim / (head_dim - 2))


def stretched(spec: Constants, head_dim: int, name: str) -> np.ndarray:
    """b^(-2j/d) / factor_j by the factors of this name: lambda_j times factor_j.

    Raises ValueError unless there is one factor > 0 a feature.
    """
    factors = np.asarray(spec.parameters[name], dtype=np.float64)
    if factors.shape != (head_dim // 2,) or not (factors > 0).all():
        raise ValueError(
            f"{name} must hold {head_dim // 2} numbers > 0, one a feature of head_dim {head_dim}, got {factors.size} "
            f"from {factors.min(initial=np.inf):g} on"
        )
    return powers(spec.base, head_dim) / factors
