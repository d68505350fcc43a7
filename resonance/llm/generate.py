"""Greedy answers to many prompts that begin alike: what they share is read once, its keys and values kept.

Prompts of one document differ only behind it. L-Eval's own script reads the document anew for every
question; here the longest common beginning is one prefill, and every batch of questions goes on from a
copy of its cache. In float32 the answers are those of the unshared path (tested).

Legend: B batch, P positions of the shared beginning, S of the rest, left-padded.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile

import torch
from transformers import DynamicCache

from resonance.hf.module import follows_length


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, one at least left to each."""
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False)))
    return min(shared, min(map(len, prompts)) - 1)


@torch.inference_mode()
def answers(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    ends: Collection[int],
    batch_size: int = 1,
    share: bool = True,
    exact: bool = True,
) -> Iterator[list[int]]:
    """The greedy continuation of every prompt, in order, without the token of `ends` that ended it.

    share  read the common beginning once.
    exact  of a model whose table follows the length (dynamic_ntk): read every prompt by itself, one at a
           time, since its keys hold for one length alone. Else its prompts share their beginning as well,
           whose keys then keep the table of the beginning's length, and a batch has the table of its
           longest prompt. Under either, keys cached while it answers past L keep the table of their
           length, as in transformers; our rotary module says so.

    Raises ValueError for an empty prompt.
    """
    if not prompts:
        return
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("prompt must hold at least one token, got an empty one")
    if exact and follows_length(model):
        share, batch_size = False, 1
    shared = common_beginning(prompts) if share else 0
    device = next(model.parameters()).device
    beginning = DynamicCache(config=model.config)
    if shared:
        first = torch.tensor([prompts[0][:shared]], device=device)
        model(input_ids=first, past_key_values=beginning, use_cache=True, logits_to_keep=1)
    for start in range(0, len(prompts), batch_size):
        rests = [list(prompt[shared:]) for prompt in prompts[start : start + batch_size]]
        cache = _branch(beginning)
        if shared and len(rests) > 1:
            cache.batch_repeat_interleave(len(rests))
        yield from _continue(model, cache, shared, rests, max_new_tokens, ends, device)


def _branch(cache: DynamicCache) -> DynamicCache:
    """A cache that goes on from another. Its layers replace their tensors and never write into them: none is copied."""
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    return branch


def _continue(
    model: torch.nn.Module,
    cache: DynamicCache,
    shared: int,
    rests: list[list[int]],
    max_new_tokens: int,
    ends: Collection[int],
    device: torch.device,
) -> list[list[int]]:
    longest = max(map(len, rests))
    ids_BS = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests], device=device)
    real_BS = torch.tensor([[0] * (longest - len(rest)) + [1] * len(rest) for rest in rests], device=device)
    positions_BS = (shared + real_BS.cumsum(-1) - 1).clamp(min=0)
    mask = torch.cat((real_BS.new_ones(len(rests), shared), real_BS), dim=-1)
    said: list[list[int]] = [[] for _ in rests]
    ended = [False] * len(rests)
    for _ in range(max_new_tokens):
        logits = model(
            input_ids=ids_BS,
            attention_mask=mask,
            position_ids=positions_BS,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        chosen = logits[:, -1].argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            ended[row] = ended[row] or token in ends
            if not ended[row]:
                said[row].append(token)
        if all(ended):
            break
        ids_BS, positions_BS = chosen[:, None], positions_BS[:, -1:] + 1
        mask = torch.cat((mask, mask.new_ones(len(rests), 1)), dim=-1)
    return said
