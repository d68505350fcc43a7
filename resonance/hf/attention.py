"""Our op where transformers' attention turns q and k."""

import sys
import types

import torch

from resonance.encoding.ops import Table, rotate


def apply_by_op(q, k, cos, sin, *_: object, unsqueeze_dim: int = 1, **__: object):
    """transformers' `apply_rotary_pos_emb`, by our op: float32 arithmetic whatever q's dtype."""
    return rotate(q, k, Table(cos, sin), axes="BHTD" if unsqueeze_dim == 1 else "BTHD")


def patch_attention(model: torch.nn.Module) -> bool:
    """Let every attention of this model call our op; no other model is touched. False: none does.

    transformers' attention calls `apply_rotary_pos_emb` of its own module by name. The instance
    gets the same function with that one name bound anew. All or none: a model in which one layer
    cannot is left as it is.
    """
    layers = [m for m in model.modules() if "apply_rotary_pos_emb" in _names(type(m).forward)]
    if not layers or not all(_same_rotation(sys.modules[type(m).__module__].apply_rotary_pos_emb) for m in layers):
        return False
    for module in layers:
        theirs = type(module).forward
        ours = types.FunctionType(
            theirs.__code__,
            {**theirs.__globals__, "apply_rotary_pos_emb": apply_by_op},
            theirs.__name__,
            theirs.__defaults__,
            theirs.__closure__,
        )
        ours.__kwdefaults__, ours.__annotations__ = theirs.__kwdefaults__, theirs.__annotations__
        module.forward = types.MethodType(ours, module)
    return True


def _names(function) -> tuple[str, ...]:
    return getattr(getattr(function, "__code__", None), "co_names", ())


def _same_rotation(theirs) -> bool:
    """Whether a model's rotation is ours in other words: half-split pairs of the whole head."""
    draw = torch.Generator().manual_seed(0)
    q, k, half_cos, half_sin = (torch.randn(shape, generator=draw) for shape in ((1, 2, 3, 8),) * 2 + ((1, 3, 4),) * 2)
    full = [torch.cat((half, half), dim=-1) for half in (half_cos, half_sin)]
    try:
        expected = theirs(q, k, *full)
    except (TypeError, RuntimeError, IndexError):  # another signature: another structure
        return False
    ours = apply_by_op(q, k, half_cos, half_sin)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, expected, strict=True))
