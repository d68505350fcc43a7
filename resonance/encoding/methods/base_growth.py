"""The rotary base of the NTK-aware methods. Registers none itself."""

from resonance.encoding.methods import Constants


def grown_base(spec: Constants, head_dim: int, growth: float) -> float:
    """b grown: by growth, under ntk_rule `bloc97` by growth^(d/(d-2)).

    Raises ValueError where the exponent has no value.
    """
    if spec.ntk_rule == "paper":
        return spec.base * growth
    if head_dim == 2:
        raise ValueError("head_dim must be >= 4 for ntk_rule bloc97, got 2: its exponent is d/(d-2)")
    return spec.base * growth ** (head_dim / (head_dim - 2))
