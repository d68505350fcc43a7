"""What bfloat16 is computed in here. Imports torch where it is asked."""

import sys
from functools import cache


def has_bf16_products() -> bool:
    """Whether this CPU multiplies in bfloat16 itself (AMX, AVX-512, Arm); yes where an older torch cannot say."""
    import torch

    known = getattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})()
    return any(known.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


@cache
def precision_here(device: str, precision: str) -> str:
    """What `precision` is computed in: fp32 for bf16 on a CPU that would emulate it.

    Emulated products are 4 times as slow as fp32 with AVX-512 and 33 times with AVX2.
    """
    if precision == "bf16" and device == "cpu" and not has_bf16_products():
        print("this CPU has no bfloat16 products: bf16 computes in fp32, faster here and more exact", file=sys.stderr)
        return "fp32"
    return precision
