"""`resonance::rotate`, the rotation of queries and keys as one torch op, and its torch reference.

The schema, the shape rules, the fake kernels and the reference live here. `csrc/`, where it was
built, brings kernels under the same names: same rules, same numbers bit for bit, and its own
autograd. Knows tables and a pair layout; no method's name.

Legend: B batch, H heads, T positions, D head dimension, R <= D rotary dimension (even; the rest
of a head is copied), N rows of a dense table, P entries of a packed one.
"""

import importlib
import os
import warnings
from typing import NamedTuple

import torch

PAIR_LAYOUTS = ("half_split", "interleaved")
AXES = ("BHTD", "BTHD")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Table(NamedTuple):
    """cos and sin, by row or packed, and how many positions they know.

    dense   cos, sin [N, R/2], row m for position m, or [B, T, R/2], already looked up
    packed  cos, sin [P]; feature j at position m is entry start[j] + m % modulus[j]; start and
            modulus int64 [R/2]. num_positions: the first position that a feature does not know,
            None where every feature is periodic and so knows them all
    amplitude multiplies cos and sin (YaRN's, where the table does not hold it already)
    """

    cos: torch.Tensor
    sin: torch.Tensor
    start: torch.Tensor | None = None
    modulus: torch.Tensor | None = None
    num_positions: int | None = None
    amplitude: float = 1.0


def rotate(
    q: torch.Tensor,
    k: torch.Tensor,
    table: Table,
    positions: torch.Tensor | None = None,
    *,
    pair_layout: str = "half_split",
    axes: str = "BHTD",
    conjugate: bool = False,
    in_place: bool = False,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn every pair of dimensions of q and k by its position's angle. Eqs. 3 to 5.

    q, k         [B, H, T, D], or [B, T, H, D] with axes "BTHD"; [B, T, D] and [T, D] have one
                 head. Head counts may differ. Any strides but the last, which must be 1
    positions    int64 [T], or [B, T] for a row of its own for every sequence (offsets; packed
                 sequences are one row of several counts); None: 0 .. T-1
    pair_layout  which two dimensions make pair j: `half_split` (j, j + R/2), as in LLaMA, or
                 `interleaved` (2j, 2j+1), as in the paper
    conjugate    turn back
    in_place     write into q and k; out: write into these two. Neither has a gradient

    Tables are float32 (float64 allowed for float64 data). The arithmetic is float32 for float32,
    bfloat16 and float16 data, and rounded to the data's dtype once, at the store.

    Raises ValueError for whatever does not fit, a position outside the table included.
    """
    if pair_layout not in PAIR_LAYOUTS:
        raise ValueError(f"pair_layout must be one of {', '.join(PAIR_LAYOUTS)}, got {pair_layout!r}")
    if axes not in AXES:
        raise ValueError(f"axes must be one of {', '.join(AXES)}, got {axes!r}")
    q4, k4 = (_to_BHTD(name, x, axes) for name, x in (("q", q), ("k", k)))
    if positions is not None and positions.dtype != torch.int64:
        if positions.is_floating_point() or positions.dtype == torch.bool:
            raise ValueError(f"positions must be integers, got {positions.dtype}: in bfloat16 they are off by up to pi")
        positions = positions.long()
    limit = -1 if table.num_positions is None else table.num_positions
    options = (pair_layout == "interleaved", conjugate, table.amplitude)
    arguments = (table.cos, table.sin, table.start, table.modulus, positions, limit, *options)
    if not (in_place or out):
        turned = _ops.rotate(q4, k4, *arguments)
        if q.ndim == k.ndim == 4 and axes == "BHTD":
            return turned
        return _from_BHTD(turned[0], q, axes), _from_BHTD(turned[1], k, axes)
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        raise ValueError("in_place and out have no gradient, but q or k requires one; leave them out, or use no_grad")
    if in_place and out:
        raise ValueError("in_place and out exclude each other, got both; choose one")
    if in_place:
        _ops.rotate_(q4, k4, *arguments)
        return q, k
    into = (_to_BHTD(name, x, axes) for name, x in zip(("out[0]", "out[1]"), out, strict=True))
    _ops.rotate_into(q4, k4, *into, *arguments)
    return out


def rotate_one(x: torch.Tensor, table: Table, positions: torch.Tensor | None = None, **options) -> torch.Tensor:
    """`rotate` of one tensor: the other has no heads."""
    axes = options.get("axes", "BHTD")
    none = _to_BHTD("x", x, axes)[:, :0]
    return rotate(x, none.transpose(1, 2) if axes == "BTHD" else none, table, positions, **options)[0]


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


def implementation() -> str:
    """What turns tensors on this machine's CPU: "C++ (avx512)", or "torch reference"."""
    return f"C++ ({_compiled.build()['variant']})" if _compiled else "torch reference"


def _to_BHTD(name: str, x: torch.Tensor, axes: str) -> torch.Tensor:
    """A view of x as [B, H, T, D]."""
    if x.ndim == 4:
        return x if axes == "BHTD" else x.transpose(1, 2)
    if x.ndim == 3:
        return x.unsqueeze(1)
    if x.ndim == 2:
        return x[None, None]
    raise ValueError(f"{name} must have 2 to 4 dimensions, {axes}, [B, T, D] or [T, D], got {tuple(x.shape)}")


def _from_BHTD(turned: torch.Tensor, x: torch.Tensor, axes: str) -> torch.Tensor:
    if x.ndim == 4:
        return turned if axes == "BHTD" else turned.transpose(1, 2)
    return turned.squeeze(1) if x.ndim == 3 else turned[0, 0]


# The op. Its rules (`_check`) and `csrc/module.cpp`'s are the same, in the same words.

_TABLE = (
    "Tensor cos, Tensor sin, Tensor? start, Tensor? modulus, Tensor? positions, "
    "int num_positions=-1, bool interleaved=False, bool conjugate=False, float amplitude=1.0"
)
_SCHEMAS = {
    "rotate": f"(Tensor q, Tensor k, {_TABLE}) -> (Tensor, Tensor)",
    "rotate_": f"(Tensor(a!) q, Tensor(b!) k, {_TABLE}) -> ()",
    "rotate_into": f"(Tensor q, Tensor k, Tensor(a!) q_out, Tensor(b!) k_out, {_TABLE}) -> ()",
}


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


def _rows(q, cos, sin, start, modulus, positions, num_positions) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of every row: [T, R/2] or [B, 1, T, R/2]."""
    if start is not None and start.numel():
        least, most = int(start.min()), int((start + modulus).max())
        if least < 0 or int(modulus.min()) < 1 or most > cos.shape[0]:
            raise ValueError(
                f"start and modulus must stay within the packed table's {cos.shape[0]} entries; pack it again"
            )
    if cos.ndim == 3:
        return cos.unsqueeze(1), sin.unsqueeze(1)
    limit = num_positions if start is not None else cos.shape[0]
    least, most = 0, q.shape[2] - 1
    if positions is not None and positions.numel():
        least, most = (int(value) for value in positions.aminmax())
    if least < 0:
        raise ValueError(f"positions must be >= 0, got {least}")
    if limit >= 0 and most >= limit and q.numel():
        raise ValueError(f"positions must be < num_positions = {limit}, got {most}; make the table longer")
    if start is not None:
        m = torch.arange(q.shape[2], device=q.device) if positions is None else positions
        index = start + m.unsqueeze(-1) % modulus
        cos, sin = cos[index], sin[index]
    elif positions is None:
        cos, sin = cos[: q.shape[2]], sin[: q.shape[2]]
    else:
        cos, sin = cos[positions], sin[positions]
    return (cos.unsqueeze(1), sin.unsqueeze(1)) if cos.ndim == 3 else (cos, sin)


def _reference_into(
    q, k, q_out, k_out, cos, sin, start, modulus, positions, num_positions=-1, interleaved=False, conjugate=False,
    amplitude=1.0,
) -> None:  # fmt: skip
    _fake_into(q, k, q_out, k_out, cos, sin, start, modulus, positions)
    cos, sin = _rows(q, cos, sin, start, modulus, positions, num_positions)
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    cos, sin = cos.to(exact) * amplitude, sin.to(exact) * (-amplitude if conjugate else amplitude)
    for x, y in ((q, q_out), (k, k_out)):
        y.copy_(turn(x, cos, sin, PAIR_LAYOUTS[interleaved]))


def _check_out(x: torch.Tensor, y: torch.Tensor) -> None:
    if y.shape != x.shape or y.dtype != x.dtype or y.device != x.device or not _has_contiguous_last(y):
        raise ValueError(
            f"out must have its input's shape {list(x.shape)}, dtype {x.dtype} and device, and a contiguous last "
            f"dimension, got {list(y.shape)}, {y.dtype} on {y.device}"
        )


def _reference(q, k, *rest):
    out = _fake(q, k, *rest)
    _reference_into(q, k, *out, *rest)
    return out


def _reference_(q, k, *rest) -> None:
    _reference_into(q, k, q, k, *rest)


def _fake(q, k, *rest):
    _check(q, k, *rest[:5])
    return torch.empty_like(q), torch.empty_like(k)


def _fake_(q, k, *rest) -> None:
    _check(q, k, *rest[:5])


def _fake_into(q, k, q_out, k_out, *rest) -> None:
    _check(q, k, *rest[:5])
    _check_out(q, q_out)
    _check_out(k, k_out)


def _contiguous_last(x: torch.Tensor) -> torch.Tensor:
    """Gradients may come expanded, with stride 0 where the op wants 1."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _register(namespace: str, *, autograd: bool) -> torch.library.Library:
    """Define the ops in a namespace with reference and fake kernels; the tests make a second one."""
    library = torch.library.Library(namespace, "DEF")
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)
    for name, reference, fake in (
        ("rotate", _reference, _fake),
        ("rotate_", _reference_, _fake_),
        ("rotate_into", _reference_into, _fake_into),
    ):
        library.impl(name, reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
    if autograd:

        def save(ctx, inputs, output):
            ctx.save_for_backward(*inputs[2:7])
            ctx.options = inputs[7:]

        def backward(ctx, q_grad, k_grad):
            """A rotation's transpose is the rotation back."""
            num_positions, interleaved, conjugate, amplitude = ctx.options
            grads = getattr(torch.ops, namespace).rotate(
                *(_contiguous_last(grad) for grad in (q_grad, k_grad)),
                *ctx.saved_tensors,
                num_positions,
                interleaved,
                not conjugate,
                amplitude,
            )
            return *grads, *[None] * 9

        torch.library.register_autograd(f"{namespace}::rotate", backward, setup_context=save, lib=library)
    return library


def _load():
    """The compiled module, or None and why there is none."""
    if os.environ.get("RESONANCE_EXTENSION") == "0":
        return None, "RESONANCE_EXTENSION=0"
    try:
        return importlib.import_module("resonance.encoding._op"), ""
    except ImportError as error:  # never built, or built for another torch
        return None, str(error).splitlines()[0]


_compiled, _missing = _load()
_library = _register("resonance", autograd=_compiled is None)
_ops = torch.ops.resonance
_said = False


def warn_if_missing() -> None:
    """Say once in a process, and aloud, that the compiled op is missing."""
    global _said
    if _compiled is None and not _said:
        _said = True
        warnings.warn(
            f"the compiled rotary op is missing ({_missing}): its torch reference runs, with the same numbers and "
            "several times slower. Install a C++ compiler, then: pip install --no-build-isolation .",
            stacklevel=3,
        )
