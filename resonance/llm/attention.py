"""Which attention runs, and one for CPUs with products in bfloat16 but without AMX.

There torch's bfloat16 kernel multiplies no faster than its float32 one, at a fifth of what the CPU can. The float32
kernel hands its products to oneDNN, which may be told to make them in bfloat16: queries, keys and values were rounded
to it already, scores and sums stay in float32, and the forward pass takes half the time. The backward pass is torch's.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import is_flash_attn_2_available

from resonance.record.settings import SettingsError

NAME = "sdpa_float32"
"""The attention's name among transformers', and in the rows of what it measured."""
ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""What SDPA calls on a CPU."""


def attention_of(asked: str, device: str, precision: str) -> str:
    """What a model is loaded with: `auto` is FlashAttention-2 where it is installed and can, else SDPA."""
    can_flash = device == "cuda" and precision == "bf16" and is_flash_attn_2_available()
    if asked == "flash_attention_2" and not can_flash:
        raise SettingsError(
            "llm.attention must be auto or sdpa here, got flash_attention_2, which needs the package flash-attn, a "
            "GPU and precision bf16"
        )
    return ("flash_attention_2" if can_flash else "sdpa") if asked == "auto" else asked


def attend_faster(model: torch.nn.Module, asked: str, device: str, precision: str) -> None:
    """Give a model the attention of this module, where `auto` was asked for and this CPU gains by it."""
    known = torch.cpu.get_capabilities()
    gains = known.get("avx512_bf16") and not known.get("amx_bf16") and (device, precision) == ("cpu", "bf16")
    if asked == "auto" and gains and model._supports_attention_backend:
        model.set_attn_implementation(NAME)


@contextmanager
def _bf16_products() -> Iterator[None]:
    """Float32 products in bfloat16, sums in float32; for attention alone: positions do not bear it."""
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


class _Attend(torch.autograd.Function):
    """Causal attention [B, H, T, D] of bfloat16 tensors."""

    @staticmethod
    def forward(ctx, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
        with _bf16_products():
            out, log_sums = ON_CPU(query.float(), key.float(), value.float(), is_causal=True, scale=scale)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, log_sums)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, log_sums = ctx.saved_tensors
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return *backward(grad, query, key, value, out, log_sums, 0.0, True, scale=ctx.scale), None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: object,
) -> tuple[torch.Tensor, None]:
    """SDPA [B, T, H, D] of query [B, H, T, D], key and value [B, K, T, D]; transformers' own unless plainly causal."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    whole = query.shape[2] == key.shape[2] > 1 and query.dtype == torch.bfloat16 and query.shape[3] == value.shape[3]
    more = any(options.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    if not (causal and whole) or attention_mask is not None or dropout or more:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **options
        )  # fmt: skip
    groups = query.shape[1] // key.shape[1]
    return _Attend.apply(query, repeat_kv(key, groups), repeat_kv(value, groups), scaling).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
