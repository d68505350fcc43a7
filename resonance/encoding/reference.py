"""The rotary op in torch: the rules that every call keeps, and the rotation written out.

What runs where `csrc/` was not built, what its kernels are tested against, and what a compiler is
given to fuse. The rules in words are here alone: `csrc/module.cpp` checks the same ones silently, and
asks for the words where one is broken. `ops` registers the functions below; their arguments are its
schemas'.

Legend: B batch, H heads, T positions, D head dimension, R <= D rotary dimension (even; the rest
of a head is copied), N rows of a dense table, P entries of a packed one.
"""

import torch

PAIR_LAYOUTS = ("half_split", "interleaved")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, pair_layout: str = "half_split") -> torch.Tensor:
    """The rotation written out in torch: what the op computes, and what a compiler can fuse.

    x            [..., T, D]
    cos, sin     [T, R/2], or anything that broadcasts to [..., T, R/2]
    Returns a tensor like x. The arithmetic is that of cos's and x's promoted dtype (give float32
    tables, and bfloat16 data is turned in float32), rounded to x's dtype once, at the end.

    Raises ValueError for tables wider than x, or of two shapes, or an unknown layout.
    """
    rotary_dim = 2 * cos.shape[-1]
    if rotary_dim > x.shape[-1] or cos.shape != sin.shape:
        raise ValueError(
            f"cos and sin must have one shape that ends in at most {x.shape[-1] // 2}, half of the last dimension "
            f"of the data, got {tuple(cos.shape)} and {tuple(sin.shape)}; make the table for this head dimension"
        )
    if pair_layout not in PAIR_LAYOUTS:
        raise ValueError(f"pair_layout must be one of {', '.join(PAIR_LAYOUTS)}, got {pair_layout!r}")
    x, rest = (x, None) if rotary_dim == x.shape[-1] else (x[..., :rotary_dim], x[..., rotary_dim:])
    if pair_layout == "half_split":
        a, b = x.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)
    else:
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
    return turned if rest is None else torch.cat((turned, rest), dim=-1)


def look_up(table: torch.Tensor, start: torch.Tensor, modulus: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """A packed table's entries at some positions: [..., R/2]."""
    return table[start + positions.unsqueeze(-1) % modulus]


def check_positions(least: int, most: int, limit: int, cure: str = "make the table longer") -> None:
    """limit: the first position that is not known, or -1."""
    if least < 0:
        raise ValueError(f"positions must be >= 0, got {least}")
    if 0 <= limit <= most:
        raise ValueError(f"positions must be < num_positions = {limit}, got {most}; {cure}")


def _has_contiguous_last(x: torch.Tensor) -> bool:
    return x.numel() == 0 or x.shape[-1] <= 1 or x.stride(-1) == 1


def _check(q, k, cos, sin, start, modulus, positions) -> None:
    for name, x in (("q", q), ("k", k)):
        if x.ndim != 4:
            raise ValueError(f"{name} must be [B, H, T, D], got {x.ndim} dimensions")
        if not _has_contiguous_last(x):
            raise ValueError(f"{name} must have a contiguous last dimension, got stride {x.stride(3)}; call contiguous")
    if q.dtype not in DTYPES or k.dtype != q.dtype:
        raise ValueError(
            f"q and k must have one dtype of float32, bfloat16, float16, float64, got {q.dtype} and {k.dtype}"
        )
    if (q.shape[0], q.shape[2], q.shape[3]) != (k.shape[0], k.shape[2], k.shape[3]):
        raise ValueError(f"q and k may differ in heads only, got {list(q.shape)} and {list(k.shape)} as [B, H, T, D]")
    named = {"k": k, "cos": cos, "sin": sin, "start": start, "modulus": modulus, "positions": positions}
    for name, x in named.items():
        if x is not None and x.device != q.device:
            raise ValueError(f"{name} must be on q's device {q.device}, got {x.device}; move it there")
    if cos.dtype != sin.dtype or cos.dtype not in (torch.float32, torch.float64) or cos.shape != sin.shape:
        raise ValueError(
            f"cos and sin must have one shape and one dtype, float32 or float64, "
            f"got {list(cos.shape)} {cos.dtype} and {list(sin.shape)} {sin.dtype}"
        )
    if cos.dtype == torch.float64 and q.dtype != torch.float64:
        raise ValueError(f"cos and sin must be float32 for {q.dtype} data, got float64; make the table float32")
    if cos.stride() != sin.stride() or (cos.ndim and not _has_contiguous_last(cos)):
        raise ValueError("cos and sin must have the same strides and a contiguous last dimension; call contiguous")
    if (start is None) != (modulus is None):
        raise ValueError("start and modulus must be given together, got one of them; both make a packed table")
    batch, _, num_positions, head_dim = q.shape
    if start is not None:
        if cos.ndim != 1 or start.ndim != 1 or start.shape != modulus.shape:
            raise ValueError(
                f"a packed table has cos, sin [P] and start, modulus [R/2], got {list(cos.shape)}, "
                f"{list(start.shape)} and {list(modulus.shape)}"
            )
        if start.dtype != torch.int64 or modulus.dtype != torch.int64:
            raise ValueError(f"start and modulus must be int64, got {start.dtype} and {modulus.dtype}")
        if not (_has_contiguous_last(start) and _has_contiguous_last(modulus)) or cos.numel() >= 2**31:
            raise ValueError(
                "start and modulus must be contiguous, and a packed table shorter than 2^31 entries, got strides "
                f"{start.stride()} and {modulus.stride()}, and {cos.numel()} entries; call contiguous"
            )
        half = start.shape[0]
    else:
        if cos.ndim not in (2, 3):
            raise ValueError(f"a dense table is [N, R/2] or [B, T, R/2], got {list(cos.shape)}")
        if cos.ndim == 3 and (cos.shape[0] != batch or cos.shape[1] != num_positions or positions is not None):
            raise ValueError(
                f"a table [B, T, R/2] must fit q's B = {batch} and T = {num_positions} and takes no positions, "
                f"got {list(cos.shape)}"
            )
        half = cos.shape[-1]
    if 2 * half > head_dim or half > 4096:
        raise ValueError(
            f"the table's rotary dimension must be at most D = {head_dim} and 8192, got {2 * half}; "
            "make the table for this head dimension"
        )
    if positions is not None and (
        positions.dtype != torch.int64 or list(positions.shape) not in ([num_positions], [batch, num_positions])
    ):
        raise ValueError(
            f"positions must be int64 [T] or [B, T] with B = {batch}, T = {num_positions}, "
            f"got {list(positions.shape)} {positions.dtype}"
        )


def check_values(q, cos, start, modulus, positions, num_positions=-1, *_) -> None:
    """The rules on what tables and positions hold."""
    if start is not None and start.numel():
        least, most = int(start.min()), int((start + modulus).max())
        if least < 0 or int(modulus.min()) < 1 or most > cos.shape[0]:
            raise ValueError(
                f"start and modulus must stay within the packed table's {cos.shape[0]} entries; pack it again"
            )
    if cos.ndim == 3 or not q.numel():
        return
    least, most = 0, q.shape[2] - 1
    if positions is not None and positions.numel():
        least, most = (int(value) for value in positions.aminmax())
    check_positions(least, most, num_positions if start is not None else cos.shape[0])


def check_written(written: dict[str, torch.Tensor], read: dict[str, torch.Tensor | None]) -> None:
    """The rules on what is written into: tensors by their names, against each other and what is read.

    Raises ValueError; RuntimeError, as torch's own operators do, for a write that would be lost.
    """
    seen = {name: x for name, x in read.items() if x is not None}
    for name, x in written.items():
        if x.is_inference() and not torch.is_inference_mode_enabled():
            raise RuntimeError(
                f"{name} must not be an inference tensor outside inference_mode, where a write into it cannot be "
                "tracked; clone it, or enter torch.inference_mode"
            )
        if _nested(x, x) is None:
            raise ValueError(
                f"{name} must not overlap itself, got shape {list(x.shape)} and strides {x.stride()}; call contiguous"
            )
        for other, y in seen.items():
            if overlap(x, y):
                raise ValueError(f"{name} must not share memory with {other}, which is read or written too; clone one")
        seen[name] = x


def _nested(x: torch.Tensor, y: torch.Tensor) -> list[tuple[int, int, int]] | None:
    """(x's size, y's size, stride) of the dimensions that have neighbours, widest first; None where one is
    not wider than all it holds, or x and y differ in a stride."""
    dims = [(n, m, s if n > 1 else t) for n, m, s, t in zip(x.shape, y.shape, x.stride(), y.stride(), strict=True)]
    if any(n > 1 and m > 1 and s != t for n, m, s, t in zip(x.shape, y.shape, x.stride(), y.stride(), strict=True)):
        return None
    dims, held = sorted((d for d in dims if d[0] > 1 or d[1] > 1), key=lambda d: d[2]), 1
    for n, m, stride in dims if x.numel() else ():
        if stride < held:
            return None
        held += (max(n, m) - 1) * stride
    return dims[::-1]


def _span(x: torch.Tensor) -> int:
    """Elements from the first to behind the last."""
    return 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0


def overlap(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether x and y may share memory: by their ranges, but element by element for data that are
    slices of one projection (as many dimensions, the same strides)."""
    apart = y.data_ptr() - x.data_ptr()
    if not x.numel() or not y.numel() or apart >= _span(x) * x.itemsize or -apart >= _span(y) * y.itemsize:
        return False
    if x.ndim != y.ndim or x.itemsize != y.itemsize or apart % x.itemsize or (dims := _nested(x, y)) is None:
        return True

    def meet(dims: list[tuple[int, int, int]], apart: int) -> bool:
        """Only two differences of index bring the inner dimensions near each other."""
        if not dims:
            return apart == 0
        (n, m, stride), *inner = dims
        near = apart // stride
        return any(meet(inner, apart - i * stride) for i in (near, near + 1) if -m < i < n)

    return meet(dims, apart // x.itemsize)


def _rows(q, cos, sin, start, modulus, positions) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of every row: [T, R/2] or [B, 1, T, R/2]."""
    if cos.ndim == 3:
        return cos.unsqueeze(1), sin.unsqueeze(1)
    if start is not None:
        m = torch.arange(q.shape[2], device=q.device) if positions is None else positions
        cos, sin = look_up(cos, start, modulus, m), look_up(sin, start, modulus, m)
    elif positions is None:
        cos, sin = cos[: q.shape[2]], sin[: q.shape[2]]
    else:
        cos, sin = cos[positions], sin[positions]
    return (cos.unsqueeze(1), sin.unsqueeze(1)) if cos.ndim == 3 else (cos, sin)


def check_call(q, k, q_out, k_out, *rest) -> None:
    """Every rule of a call, also those on values and memory, which `fake_into` cannot see."""
    fake_into(q, k, q_out, k_out, *rest)
    table = dict(zip(("cos", "sin", "start", "modulus", "positions"), rest, strict=False))
    if q_out is q and k_out is k:
        check_written({"q": q, "k": k}, table)
    else:
        check_written({"out[0]": q_out, "out[1]": k_out}, {"q": q, "k": k, **table})
    check_values(q, rest[0], *rest[2:])


def rotate_into(q, k, q_out, k_out, *rest) -> None:
    check_call(q, k, q_out, k_out, *rest)
    interleaved, conjugate, amplitude = (*rest[6:], *(False, False, 1.0)[len(rest[6:]) :])
    cos, sin = _rows(q, *rest[:5])
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    cos, sin = cos.to(exact) * amplitude, sin.to(exact) * (-amplitude if conjugate else amplitude)
    for x, y in ((q, q_out), (k, k_out)):
        y.copy_(turn(x, cos, sin, PAIR_LAYOUTS[interleaved]))


def _check_out(x: torch.Tensor, y: torch.Tensor) -> None:
    if x is y:
        return
    if y.shape != x.shape or y.dtype != x.dtype or y.device != x.device or not _has_contiguous_last(y):
        raise ValueError(
            f"out must have its input's shape {list(x.shape)}, dtype {x.dtype} and device, and a contiguous last "
            f"dimension, got {list(y.shape)}, {y.dtype} on {y.device}"
        )


def rotate(q, k, *rest):
    out = fake(q, k, *rest)
    rotate_into(q, k, *out, *rest)
    return out


def rotate_(q, k, *rest) -> None:
    rotate_into(q, k, q, k, *rest)


def fake(q, k, *rest):
    _check(q, k, *rest[:5])
    return torch.empty_like(q), torch.empty_like(k)


def fake_(q, k, *rest) -> None:
    _check(q, k, *rest[:5])


def fake_into(q, k, q_out, k_out, *rest) -> None:
    _check(q, k, *rest[:5])
    _check_out(q, q_out)
    _check_out(k, k_out)
