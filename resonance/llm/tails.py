"""Many sequences that go on from one beginning: its keys and values lie there once, each sequence adds a tail.

transformers' caches grow by a copy of all that they hold for every token, and a batch repeats what it shares. Here
the tails lie in memory that is theirs from the start, and attention is one softmax over the beginning, read once for
the whole batch, and the tail.

Legend: B sequences, H heads, K key heads, G = H/K, P positions of the beginning, N of a tail, S queries, D head size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

NAME = "resonance_tails"
"""The attention's name among transformers'."""
SCORES = 2**27
"""How many scores are held at a time, where a question has many tokens; half a GB in float32."""


class _Tail(CacheLayerMixin):
    """One layer: keys and values [1, K, P, D] of the beginning, and [B, K, N, D] of the tails."""

    is_sliding = False

    def __init__(self, beginning: DynamicLayer, batch: int, room: int) -> None:
        super().__init__()
        self.beginning, self.held = (beginning.keys, beginning.values), 0
        self.keys, self.values = (kept.new_empty(batch, kept.shape[1], room, kept.shape[3]) for kept in self.beginning)
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: it has its memory from the start."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_, **__) -> tuple[torch.Tensor, ...]:
        """Write the new ones; the tails so far."""
        start, self.held = self.held, self.held + key_states.shape[2]
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            kept[:, :, start : self.held] = new
        return self.keys[:, :, : self.held], self.values[:, :, : self.held]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.held + query_length, 0

    def get_seq_length(self) -> int:
        return self.beginning[0].shape[2] + self.held

    def get_max_length(self) -> int:
        return self.beginning[0].shape[2] + self.keys.shape[2]


class Tails(Cache):
    """The cache of B sequences behind a beginning that was read into a cache of one; room: most tokens of a tail."""

    def __init__(self, beginning: Cache, batch: int, room: int) -> None:
        super().__init__(layers=[_Tail(layer, batch, room) for layer in beginning.layers])


def can_share(model: torch.nn.Module, beginning: Cache) -> bool:
    """Whether a model's attention is transformers' own over all positions: no sliding window, no state."""
    return model._supports_attention_backend and all(type(layer) is DynamicLayer for layer in beginning.layers)


@contextmanager
def over_tails(model: torch.nn.Module) -> Iterator[None]:
    """Let the model attend over `Tails`, which it is handed as `past_key_values` and as `tails`."""
    own = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    scaling: float,
    tails: Tails,
    **options: object,
) -> tuple[torch.Tensor, None]:
    """softmax(q K^T) V over the beginning and the tail, softmax in float32: [B, S, H, D].

    query [B, H, S, D]; key, value [B, K, N, D]; attention_mask bool [B, 1, S, N], of the tail: the beginning is before
    every query.
    """
    if wrong := [name for name in ("softcap", "s_aux", "sliding_window") if options.get(name) is not None]:
        raise ValueError(f"a model whose attention has {wrong[0]} cannot share a beginning; answer with share=False")
    first_key, first_value = (kept[0] for kept in tails.layers[module.layer_idx].beginning)
    (B, H, S, D), (K, P, _) = query.shape, first_key.shape
    at_once = max(1, SCORES // (H * S * P))
    made = []
    for q, k, v, mask in zip(*(x.split(at_once) for x in (query, key, value, attention_mask)), strict=True):
        q = (q * scaling).reshape(len(q), K, -1, D)  # key heads, each with the S queries of its G heads
        rows = q.transpose(0, 1).reshape(K, -1, D)  # all sequences' queries, that the beginning is read once
        far = (rows @ first_key.mT).float().view(K, len(q), -1, P).transpose(0, 1)
        near = (q @ k.mT).float().view(len(q), K, -1, S, k.shape[2])
        near = near.masked_fill(~mask[:, :, None], -torch.inf).flatten(2, 3)
        weights = torch.cat((far, near), dim=-1).softmax(-1).to(v.dtype)
        far, near = weights[..., :P], weights[..., P:]
        read = far.transpose(0, 1).reshape(K, -1, P) @ first_value
        made.append(read.view(K, len(q), -1, D).transpose(0, 1) + near @ v)
    return torch.cat(made).view(B, H, S, D).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
