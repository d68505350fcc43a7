"""The rotation itself, on torch tensors. Knows cos, sin and a pair layout; no method's name.

Legend: B batch, H heads, T positions, D head dimension (even).
"""

import torch

PAIR_LAYOUTS = ("half_split", "interleaved")


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, pair_layout: str = "half_split") -> torch.Tensor:
    """Turn every pair of dimensions of x by its position's angle. Eqs. 3 to 5.

    x            [..., T, D]
    cos, sin     [T, D/2], or anything that broadcasts to [..., T, D/2]
    pair_layout  which two dimensions make pair j: `half_split` (j, j + D/2), as in LLaMA, or
                 `interleaved` (2j, 2j+1), as in the paper
    Returns a tensor like x. The arithmetic is that of cos's and x's promoted dtype (give float32
    tables, and bfloat16 data is turned in float32), rounded to x's dtype once, at the end.

    Raises ValueError for an odd D, tables of another width, or an unknown layout.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"x must have an even last dimension, got {x.shape[-1]}; pairs of dimensions are turned")
    if cos.shape[-1] * 2 != x.shape[-1] or cos.shape != sin.shape:
        raise ValueError(
            f"cos and sin must both end in {x.shape[-1] // 2}, half of x's last dimension, "
            f"got {tuple(cos.shape)} and {tuple(sin.shape)}"
        )
    if pair_layout == "half_split":
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)
    if pair_layout == "interleaved":
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
    raise ValueError(f"pair_layout must be one of {', '.join(PAIR_LAYOUTS)}, got {pair_layout!r}")
