"""`resonance::rotate`, the rotation of queries and keys as one torch op.

The front, the schemas and their registration live here; the rules and the reference kernels in
`reference`. `csrc/`, where it was built, brings kernels under the same names: same rules, same
numbers bit for bit, and its own autograd. Knows tables and a pair layout; no method's name.

Legend: B batch, H heads, T positions, D head dimension, R <= D rotary dimension (even; the rest
of a head is copied), N rows of a dense table, P entries of a packed one.
"""

import importlib
import os
import warnings
from typing import NamedTuple

import torch

from resonance.encoding import reference
from resonance.encoding.reference import DTYPES, PAIR_LAYOUTS, turn

__all__ = ["AXES", "DTYPES", "PAIR_LAYOUTS", "Table", "implementation", "rotate", "rotate_one", "turn"]

AXES = ("BHTD", "BTHD")
# What the schemas below have for the arguments behind positions.
_DEFAULTS = (-1, False, False, 1.0)


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
    positions    int64 [T], or [B, T] for a row of its own for every sequence: arange(T) +
                 offsets[:, None] with a cache, say. None: 0 .. T-1. Sequences packed into one row
                 with cu_seqlens count anew in each: arange(T) - repeat_interleave(cu_seqlens[:-1],
                 cu_seqlens.diff())
    pair_layout  which two dimensions make pair j: `half_split` (j, j + R/2), as in LLaMA, or
                 `interleaved` (2j, 2j+1), as in the paper
    conjugate    turn back
    in_place     write into q and k; out: write into these two. Neither has a gradient

    Tables are float32 (float64 allowed for float64 data). The arithmetic is float32 for float32,
    bfloat16 and float16 data, and rounded to the data's dtype once, at the store.

    Gradients of any order by autograd (torch.func's transforms but vmap refuse custom backwards in
    C++); `torch.vmap` of fresh outputs over q, k and positions; autocast leaves dtypes alone. A CUDA
    call waits for nothing, so a graph can capture it; a position outside the table traps on the
    device there.

    Raises ValueError for whatever does not fit, a position outside the table included.
    """
    if pair_layout not in PAIR_LAYOUTS:
        raise ValueError(f"pair_layout must be one of {', '.join(PAIR_LAYOUTS)}, got {pair_layout!r}")
    if axes not in AXES:
        raise ValueError(f"axes must be one of {', '.join(AXES)}, got {axes!r}")
    q4, k4 = _to_BHTD("q", q, axes), _to_BHTD("k", k, axes)
    if positions is not None and positions.dtype != torch.int64:
        if positions.is_floating_point() or positions.dtype == torch.bool:
            raise ValueError(f"positions must be integers, got {positions.dtype}: in bfloat16 they are off by up to pi")
        positions = positions.long()
    limit = -1 if table.num_positions is None else table.num_positions
    arguments = (table.cos, table.sin, table.start, table.modulus, positions)
    options = (limit, pair_layout == "interleaved", conjugate, table.amplitude)
    if options != _DEFAULTS:  # to pass them costs the dispatcher half a microsecond
        arguments += options
    if not (in_place or out):
        turned = _ops.rotate(q4, k4, *arguments)
        if q.ndim == k.ndim == 4 and axes == "BHTD":
            return turned
        return _from_BHTD(turned[0], q, axes), _from_BHTD(turned[1], k, axes)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, *(out or ()))):
        raise ValueError(
            "in_place and out have no gradient, but q, k or out requires one; leave them out, or use no_grad"
        )
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


_TABLE = (
    "Tensor cos, Tensor sin, Tensor? start, Tensor? modulus, Tensor? positions, "
    "int num_positions=-1, bool interleaved=False, bool conjugate=False, float amplitude=1.0"
)
_SCHEMAS = {
    "rotate": f"(Tensor q, Tensor k, {_TABLE}) -> (Tensor, Tensor)",
    "rotate_": f"(Tensor(a!) q, Tensor(b!) k, {_TABLE}) -> ()",
    "rotate_into": f"(Tensor q, Tensor k, Tensor(a!) q_out, Tensor(b!) k_out, {_TABLE}) -> ()",
}


def _contiguous_last(x: torch.Tensor) -> torch.Tensor:
    """Gradients may come expanded, with stride 0 where the op wants 1."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _register(namespace: str, *, autograd: bool) -> torch.library.Library:
    """Define the ops in a namespace with reference and fake kernels; the tests make a second one."""
    library = torch.library.Library(namespace, "DEF")
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)
    for name, kernel, fake in (
        ("rotate", reference.rotate, reference.fake),
        ("rotate_", reference.rotate_, reference.fake_),
        ("rotate_into", reference.rotate_into, reference.fake_into),
    ):
        library.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)

    def batch(info, in_dims, q, k, cos, sin, start, modulus, positions, *options):
        """vmap: its dimension joins B, for q, k and positions."""
        if any(dim is not None for dim in in_dims[2:6]):
            raise ValueError("vmap goes over q, k and positions, got a table with a dimension of its own; loop over it")
        size = info.batch_size

        def join(x, dim):
            x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            return x.flatten(0, 1)

        q, k = (_contiguous_last(join(x, dim)) for x, dim in zip((q, k), in_dims, strict=False))
        if cos.ndim == 3:
            cos, sin = join(cos, None), join(sin, None)
        dim = in_dims[6]
        if positions is not None and (dim is not None or positions.ndim == 2):
            if positions.ndim == 2 and dim is not None:  # [T] each: the same for every sequence
                positions, dim = positions.movedim(dim, 0)[:, None].expand(-1, q.shape[0] // size, -1), 0
            positions = join(positions, dim)
        turned = getattr(torch.ops, namespace).rotate(q, k, cos, sin, start, modulus, positions, *options)
        return tuple(x.unflatten(0, (size, -1)) for x in turned), (0, 0)

    torch.library.register_vmap(f"{namespace}::rotate", batch, lib=library)
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
