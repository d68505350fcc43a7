"""Greedy answers to many prompts that begin alike: what they share is read once, its keys and values kept.

Prompts of one document differ only behind it. L-Eval's own script reads the document anew for every
question; here the longest common beginning is one prefill, and the questions go on from its keys as one batch
(`tails`). In float32 the answers are those of the unshared path (tested).

Legend: B batch, S tokens of the rest, left-padded, N positions of the rest and of what was said.
"""

import copy
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile

import torch
from transformers import Cache, DynamicCache

from resonance.hf.module import same_tables
from resonance.llm.tails import Tails, can_share, over_tails


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

    batch_size  how many prompts go on at a time from what they share
    share       read the common beginning once; else every prompt by itself
    exact       where the beginning has another table than a prompt (past L under dynamic_ntk and longrope): read every
                prompt by itself, since keys hold for one table alone. Else the beginning's keys keep the table of its
                length, and a batch has the table of its longest prompt. Under either, keys cached while it answers past
                L keep the table of their length, as in transformers; our rotary module says so of dynamic_ntk.

    Raises ValueError for an empty prompt.
    """
    if not prompts:
        return
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("prompt must hold at least one token, got an empty one")
    shared, asked = common_beginning(prompts) if share else 0, (max_new_tokens, ends)
    if exact and not same_tables(model, shared, *map(len, prompts)):
        shared = 0
    beginning = DynamicCache(config=model.config)
    if shared:
        _read(model, beginning, prompts[0][:shared])
    rests = [list(prompt[shared:]) for prompt in prompts]
    if shared and can_share(model, beginning):
        for start in range(0, len(rests), batch_size):
            yield from _continue(model, beginning, rests[start : start + batch_size], *asked)
        return
    for rest in rests:  # by themselves, or from a copy of what a sliding window left of the beginning
        cache = _branch(beginning)
        first = _read(model, cache, rest)
        said = [] if first in ends else [first]
        if said and max_new_tokens > 1:
            left = max_new_tokens - 1, ends
            goes_on = _continue if can_share(model, cache) else _continue_one
            said += goes_on(model, cache, [said], *left)[0]
        yield said


def _branch(cache: DynamicCache) -> DynamicCache:
    """A cache that goes on from another. Its layers replace their tensors and never write into them: none is copied."""
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    return branch


def _read(model: torch.nn.Module, cache: Cache, tokens: Sequence[int]) -> int:
    """Read one sequence into a cache, behind what it holds: the token that the model chooses next."""
    ids = torch.tensor([tokens], device=next(model.parameters()).device)
    positions = cache.get_seq_length() + torch.arange(len(tokens), device=ids.device)[None]
    said = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return int(said.logits[0, -1].argmax())


def _continue_one(
    model: torch.nn.Module, cache: Cache, rests: list[list[int]], max_new_tokens: int, ends: Collection[int]
) -> list[list[int]]:
    """What `_continue` gives of one rest, by the model's own attention and cache."""
    (rest,), said = rests, []
    while len(said) < max_new_tokens and (chosen := _read(model, cache, rest)) not in ends:
        said.append(chosen)
        rest = [chosen]
    return [said]


def _continue(
    model: torch.nn.Module, beginning: Cache, rests: list[list[int]], max_new_tokens: int, ends: Collection[int]
) -> list[list[int]]:
    """What a model says behind each rest of a batch, whose sequences share what the cache holds."""
    start, longest, device = beginning.get_seq_length(), max(map(len, rests)), next(model.parameters()).device
    room = longest + max_new_tokens
    tails = Tails(beginning, len(rests), room)
    pads = torch.tensor([[longest - len(rest)] for rest in rests], device=device)
    ids_BS = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests], device=device)
    real_BN = torch.arange(room, device=device) >= pads
    positions_BS = (start + real_BN[:, :longest].cumsum(-1) - 1).clamp(min=0)
    mask = real_BN[:, None, None, :longest] & torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    said: list[list[int]] = [[] for _ in rests]
    ended = [False] * len(rests)
    with over_tails(model):
        for held in range(longest, room):
            logits = model(
                input_ids=ids_BS,
                attention_mask=mask,
                position_ids=positions_BS,
                past_key_values=tails,
                tails=tails,
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
            mask = real_BN[:, None, None, : held + 1]
    return said
