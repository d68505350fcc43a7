"""Our op where transformers' attention turns q and k."""

import inspect
import sys
import types

import torch

from resonance.encoding.ops import Table, rotate
from resonance.encoding.reference import turn
from resonance.hf.module import FORMS

NAME = "apply_rotary_pos_emb"


def _rotation(pair_layout: str):
    """transformers' `apply_rotary_pos_emb` by our op, float32 arithmetic whatever q's dtype: q and k [B, H, T, D]
    (with unsqueeze_dim 2: [B, T, H, D]), cos and sin [T, R/2] or [B, T, R/2]."""

    def apply_by_op(q, k, cos, sin, *_: object, unsqueeze_dim: int = 1, **__: object):
        if torch.compiler.is_compiling():
            # Written out: the compiler fuses it with its neighbours, which it cannot do to an op.
            if unsqueeze_dim == 2 or cos.ndim == 3:
                heads = -2 if unsqueeze_dim == 2 else 1
                cos, sin = cos.unsqueeze(heads), sin.unsqueeze(heads)
            return turn(q, cos, sin, pair_layout), turn(k, cos, sin, pair_layout)
        axes = "BHTD" if unsqueeze_dim == 1 else "BTHD"
        return rotate(q, k, Table(cos, sin), axes=axes, pair_layout=pair_layout)

    return apply_by_op


ROTATIONS = {layout: _rotation(layout) for layout in ("half_split", "interleaved")}


def patch_attention(model: torch.nn.Module, form: str) -> bool:
    """Let every attention of this model call our op; no other model is touched. False: none does.

    form  what their rotation takes of cos and sin, one of `module.FORMS`

    transformers' attention calls `apply_rotary_pos_emb` of its own module by name. The instances become ones of a class
    below their own whose forward is the same code with that one name bound anew. (Its own hook for such kernels,
    `kernelize`, needs the package `kernels` and changes every model of the process.) All or none: a model in which one
    layer cannot is left as it is.
    """
    kinds = {type(m) for m in model.modules() if not isinstance(m, _ByOp)}
    callers = {kind for kind in kinds if NAME in _names(kind.forward)}
    if any(_takes_angles(kind) for kind in kinds - callers):
        return False
    layouts = {kind: _layout_of(getattr(sys.modules[kind.__module__], NAME, None), form) for kind in callers}
    if not all(layouts.values()):
        return False
    for module in model.modules():
        if layout := layouts.get(type(module)):
            module.__class__ = _by_op(type(module), layout)
    return any(isinstance(m, _ByOp) for m in model.modules())


def restore_attention(model: torch.nn.Module) -> None:
    """Undo `patch_attention`."""
    for module in model.modules():
        if isinstance(module, _ByOp):
            module.__class__ = type(module).__bases__[1]


class _ByOp:
    """Marks a class made by `_by_op`."""


_CLASSES: dict[tuple[type, str], type] = {}


def _by_op(theirs: type, layout: str) -> type:
    """The class below an attention's own in which our op rotates."""
    if (theirs, layout) not in _CLASSES:
        forward = theirs.forward
        scope = {**forward.__globals__, NAME: ROTATIONS[layout]}
        del scope["__name__"]  # torch.compile would look names up in their module instead
        ours = types.FunctionType(forward.__code__, scope, "forward", forward.__defaults__, forward.__closure__)
        ours.__kwdefaults__, ours.__annotations__ = forward.__kwdefaults__, forward.__annotations__
        # To pickle and to copy: by their class, which can be found by its name.
        reduce = {"__reduce_ex__": lambda self, _: (_remake, (theirs, layout), self.__getstate__())}
        body = {"forward": ours, "__module__": theirs.__module__, **reduce}
        _CLASSES[theirs, layout] = type(theirs.__name__, (_ByOp, theirs), body)
    return _CLASSES[theirs, layout]


def _remake(theirs: type, layout: str) -> torch.nn.Module:
    made = _by_op(theirs, layout)
    return made.__new__(made)


def _names(function) -> tuple[str, ...]:
    return getattr(getattr(function, "__code__", None), "co_names", ())


def _takes_angles(kind: type) -> bool:
    """Whether modules of a class are attentions that are handed cos and sin."""
    given = inspect.signature(inspect.unwrap(kind.forward)).parameters
    return kind.__name__.endswith("Attention") and "position_embeddings" in given


def _layout_of(theirs, form: str) -> str | None:
    """The pair layout by which a model's rotation is ours in other words; None where it is none of them."""
    draw = torch.Generator("cpu").manual_seed(0)
    shapes = ((1, 2, 3, 8),) * 2 + ((1, 3, 4),) * 2
    q, k, cos, sin = (torch.randn(s, generator=draw, dtype=torch.float32, device="cpu") for s in shapes)
    try:
        expected = theirs(q, k, *FORMS[form](cos, sin, q.dtype))
    except (TypeError, RuntimeError, IndexError):  # another signature: another structure
        return None
    for layout, ours in ROTATIONS.items():
        pairs = zip(ours(q, k, cos, sin), expected, strict=True)
        if all(a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in pairs):
            return layout
    return None
