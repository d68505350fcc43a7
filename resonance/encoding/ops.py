"""`resonance::rotate`, the rotation of queries and keys as one torch op.

The front, the schemas, their registration and derivatives live here; the rules and the reference
kernels in `reference`. `csrc/`, where it was built, is one function that takes the reference's place:
same rules, same numbers bit for bit. Knows tables and a pair layout; no method's name.

A call in eager mode, on plain tensors, goes straight to that function: a decoding step would spend
more on torch's dispatcher than on the rotation. Whatever wants to see the op (a compiler, a mode, a
transform, a tensor subclass) finds `torch.ops.resonance`.

Legend: B batch, H heads, T positions, D head dimension, R <= D rotary dimension (even; the rest
of a head is copied), N rows of a dense table, P entries of a packed one.
"""

import importlib
import os
import warnings
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from resonance.encoding import reference
from resonance.encoding.reference import DTYPES, PAIR_LAYOUTS, turn

__all__ = ["AXES", "DTYPES", "PAIR_LAYOUTS", "Table", "implementation", "rotate", "rotate_one", "turn"]

AXES = ("BHTD", "BTHD")
# What the schemas below have for the arguments behind positions.
_DEFAULTS = (-1, False, False, 1.0)
_compiling = torch.compiler.is_compiling
_transformed = torch._C._are_functorch_transforms_active


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
    in_place     write into q and k; out: write into these two, which share no memory with each other
                 or with what is read. Neither has a derivative

    Tables are float32 (float64 allowed for float64 data). The arithmetic is float32 for float32,
    bfloat16 and float16 data, and rounded to the data's dtype once, at the store.

    Fresh outputs have derivatives in q and k of any order, backward and forward (`forward_ad`,
    torch.func's transforms), and `torch.vmap` over q, k and positions; autocast leaves dtypes alone. A
    CUDA call waits for nothing, so a graph can capture it; a position outside the table traps on the
    device there.

    Raises ValueError for whatever does not fit, a position outside the table included; RuntimeError
    for a write into an inference tensor outside inference mode.
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
        turned = _fresh(_ops.rotate, q4, k4, *arguments)
        if q.ndim == k.ndim == 4 and axes == "BHTD":
            return turned
        return _from_BHTD(turned[0], q, axes), _from_BHTD(turned[1], k, axes)
    if in_place and out:
        raise ValueError("in_place and out exclude each other, got both; choose one")
    if in_place:
        _check_no_derivative(q, k, q, k)
        if _direct(q4, k4, q4, k4, arguments) is None:
            _ops.rotate_(q4, k4, *arguments)
        return q, k
    _check_no_derivative(q, k, *out)
    q_out, k_out = (_to_BHTD(name, x, axes) for name, x in zip(("out[0]", "out[1]"), out, strict=True))
    if _direct(q4, k4, q_out, k_out, arguments) is None:
        _ops.rotate_into(q4, k4, q_out, k_out, *arguments)
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


def _check_no_derivative(q, k, q_out, k_out) -> None:
    """For calls that write into their arguments."""
    tensors = q, k, q_out, k_out
    if not _compiling():
        if _transformed() and any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors)):
            raise ValueError(
                "in_place and out do not go under torch.func's transforms, but q, k or out does; leave them out"
            )
        if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
            raise ValueError("in_place and out have no tangent, but q, k or out carries one; leave them out")
    # Spelled out: a generator takes as long as a row of the rotation.
    required = q.requires_grad or k.requires_grad or q_out.requires_grad or k_out.requires_grad
    if required and torch.is_grad_enabled():
        raise ValueError(
            "in_place and out have no gradient, but q, k or out requires one; leave them out, or use no_grad"
        )


def _differentiated(q, k) -> bool:
    return forward_ad._current_level >= 0 or ((q.requires_grad or k.requires_grad) and torch.is_grad_enabled())


def _listened() -> bool:
    """Whether somebody wants to find the op at the dispatcher: a compiler, a mode, a tracer, a transform."""
    return _compiling() or torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state() or _transformed()


def _fresh(op, q, k, *rest):
    """op with fresh outputs, and with derivatives where somebody asks for them."""
    listened = _listened()
    if listened and _compiling():
        return op(q, k, *rest)
    if listened and _transformed():
        return _Rotate.apply(op, q, k, *rest)
    if _differentiated(q, k):
        return _apply(op, q, k, *rest)
    return (_compiled and not listened and _run(q, k, None, None, rest, True)) or op(q, k, *rest)


def _direct(q, k, q_out, k_out, rest):
    """The compiled function, past the dispatcher: the outputs. None where somebody listens there."""
    return None if _compiled is None or _listened() else _run(q, k, q_out, k_out, rest, True)


def _run(q, k, q_out, k_out, rest, exact: bool):
    """The compiled function: the outputs, or None where it does not take such tensors. Fresh outputs for None."""
    fresh, untracked = q_out is None, False
    if fresh:
        q_out, k_out = torch.empty_like(q), torch.empty_like(k)
    elif (untracked := q_out.is_inference() or k_out.is_inference()) and not torch.is_inference_mode_enabled():
        reference.check_written({"q or out[0]": q_out, "k or out[1]": k_out}, {})
    options = rest if len(rest) == 9 else (*rest, *_DEFAULTS[len(rest) - 5 :])
    done = _compiled.rotate(q, k, q_out, k_out, *options, fresh, exact)
    if done:
        # Who saved the old values for backward must find that they changed, as with torch's own operators.
        tracked = () if fresh else (q_out, k_out)
        if untracked:
            tracked = [x for x in tracked if not x.is_inference()]
        if tracked:
            torch._C._increment_version(tracked)
        return q_out, k_out
    if done is False:
        reference.check_call(q, k, q_out, k_out, *rest)
        raise RuntimeError("resonance::rotate: the compiled op refuses what the rules allow; please report this call")
    return None


class _Rotate(torch.autograd.Function):
    """The derivatives of an op's fresh outputs: a rotation's transpose is the rotation back, and its
    tangent the tangent rotated."""

    @staticmethod
    def forward(op, *arguments):
        with torch._C._AutoDispatchBelowAutograd():
            return _direct(*arguments[:2], None, None, arguments[2:]) or op(*arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.op, _, _, *table = inputs
        ctx.save_for_backward(*table[:5])
        ctx.save_for_forward(*table[:5])
        ctx.options = (*table[5:], *_DEFAULTS[len(table) - 5 :])

    @staticmethod
    def backward(ctx, *grads):
        num_positions, interleaved, conjugate, amplitude = ctx.options
        grads = (_contiguous_last(grad) for grad in grads)
        turned = _fresh(ctx.op, *grads, *ctx.saved_tensors, num_positions, interleaved, not conjugate, amplitude)
        return None, *turned, *[None] * (len(ctx.needs_input_grad) - 3)

    @staticmethod
    def jvp(ctx, _, *tangents):
        tangents = (_contiguous_last(tangent) for tangent in tangents[:2])
        return _fresh(ctx.op, *tangents, *ctx.saved_tensors, *ctx.options)

    @staticmethod
    def vmap(info, in_dims, op, q, k, cos, sin, start, modulus, positions, *options):
        """Its dimension joins B, for q, k and positions."""
        in_dims, size = in_dims[1:], info.batch_size
        if any(dim is not None for dim in in_dims[2:6]):
            raise ValueError("vmap goes over q, k and positions, got a table with a dimension of its own; loop over it")

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
        turned = _fresh(op, q, k, cos, sin, start, modulus, positions, *options)
        return tuple(x.unflatten(0, (size, -1)) for x in turned), (0, 0)


# Without the binding of defaults that torch.func's transforms need, which takes 25 us.
_apply = super(torch.autograd.Function, _Rotate).apply

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
    """Gradients may come expanded, with stride 0 where the op wants 1; tangents as zeros without memory."""
    if x._is_zerotensor():
        return torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    return x if x.stride(-1) == 1 else x.contiguous()


def _register(namespace: str, compiled=None) -> torch.library.Library:
    """Define the ops in a namespace with their kernels; the tests make a second one without compiled kernels."""
    library = torch.library.Library(namespace, "DEF")
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)
    ops = getattr(torch.ops, namespace)

    def fresh(q, k, *rest):
        return _run(q, k, None, None, rest, exact=False) or reference.rotate(q, k, *rest)

    def in_place(q, k, *rest):
        _run(q, k, q, k, rest, exact=False) or reference.rotate_(q, k, *rest)

    def into(q, k, q_out, k_out, *rest):
        _run(q, k, q_out, k_out, rest, exact=False) or reference.rotate_into(q, k, q_out, k_out, *rest)

    for name, kernel in (("rotate", fresh), ("rotate_", in_place), ("rotate_into", into)):
        library.impl(name, getattr(reference, name), "CompositeExplicitAutograd")
        torch.library.register_fake(
            f"{namespace}::{name}", getattr(reference, name.replace("rotate", "fake")), lib=library
        )
        if compiled:
            library.impl(name, kernel, "CPU")
            if compiled.build()["cuda"]:
                library.impl(name, kernel, "CUDA")

    def autograd(q, k, *rest):
        if _transformed() and any(map(torch._C._functorch.is_functorch_wrapped_tensor, (q, k))):
            raise RuntimeError(
                "torch.func's transforms do not go through torch.ops; call resonance.encoding.ops.rotate"
            )
        if _differentiated(q, k):
            return _apply(ops.rotate, q, k, *rest)
        return (compiled and _direct(q, k, None, None, rest)) or below(ops.rotate, q, k, *rest)

    def autograd_(q, k, *rest):
        _check_no_derivative(q, k, q, k)
        (compiled and _direct(q, k, q, k, rest)) or below(ops.rotate_, q, k, *rest)

    def autograd_into(q, k, q_out, k_out, *rest):
        _check_no_derivative(q, k, q_out, k_out)
        (compiled and _direct(q, k, q_out, k_out, rest)) or below(ops.rotate_into, q, k, q_out, k_out, *rest)

    def below(op, *arguments):
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)

    library.impl("rotate", autograd, "Autograd")
    library.impl("rotate_", autograd_, "Autograd")
    library.impl("rotate_into", autograd_into, "Autograd")
    torch.library.register_vmap(
        f"{namespace}::rotate",
        lambda info, dims, *args: _Rotate.vmap(info, (None, *dims), ops.rotate, *args),
        lib=library,
    )
    return library


def _load():
    """The compiled module, or None and why there is none."""
    if os.environ.get("RESONANCE_EXTENSION") == "0":
        return None, "RESONANCE_EXTENSION=0"
    try:
        return importlib.import_module("resonance.encoding._op"), ""
    except ImportError as error:  # never built, or a torch older than 2.10
        return None, str(error).splitlines()[0]


_compiled, _missing = _load()
_library = _register("resonance", _compiled)
_ops = torch.ops.resonance
_said = False


def warn_if_missing() -> None:
    """Say once in a process, and aloud, that the compiled op is missing."""
    global _said
    if _compiled is None and not _said:
        _said = True
        warnings.warn(
            f"the compiled rotary op is missing ({_missing}): its torch reference runs, with the same numbers and "
            "several times slower. Install a C++ compiler (and torch >= 2.10), then this package again",
            stacklevel=3,
        )
