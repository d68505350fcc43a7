"""Passkey retrieval: a number hidden in filler, asked for at the end (Mohtashami and Jaggi 2023; L14 for YaRN's
protocol, which is followed here). The paper does not have it: an extra beside perplexity.

The frame says the same as theirs in our words, so that a score compares encodings here and not with published ones.
"""

import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from resonance.llm.evaluations import Units
from resonance.llm.evaluations.passkey import PasskeyRun
from resonance.llm.generate import answers
from resonance.llm.models import autocast
from resonance.llm.text import Tokenizer

LARGEST_KEY = 50_000
STEP = 128
"""Characters by which the filler grows."""
MAX_NEW_TOKENS = 10

_TASK = "One important number, the pass key, is hidden in the long text below. Remember it; you will be asked for it."
_FILLER = "The river runs on. The hills are green. The wind turns. Morning comes and evening follows. Round it goes. "
_KEY = "The pass key is {key}. Keep it in mind. {key} is the pass key."
_QUESTION = "What is the pass key? The pass key is"


@dataclass(frozen=True)
class Hidden:
    """One prompt. `depth`: where its key stands, 0 (beginning) to 1 (end) of the filler."""

    key: int
    depth: float
    text: str
    ids: list[int]


def prompt(key: int, depth: float, num_characters: int) -> str:
    """The frame with num_characters of filler around the key."""
    before = round(depth * num_characters)
    filler = _FILLER * (num_characters // len(_FILLER) + 1)
    return "\n".join((_TASK, filler[:before], _KEY.format(key=key), filler[: num_characters - before], _QUESTION))


def hide(tokenizer: Tokenizer, length: int, repetition: int, seed: int) -> Hidden:
    """The prompt of one repetition: the longest of at most `length` tokens, BOS included, the filler in steps of 128.

    The key is uniform in 1 .. 50,000, its place uniform in the filler; both depend on seed, length and repetition
    alone. Raises ValueError if the frame alone is longer.
    """
    draw = np.random.default_rng([seed, length, repetition])
    key, depth = int(draw.integers(1, LARGEST_KEY, endpoint=True)), float(draw.random())
    beginning = [] if tokenizer.bos is None else [tokenizer.bos]

    def made(steps: int) -> Hidden:
        text = prompt(key, depth, steps * STEP)
        return Hidden(key, depth, text, beginning + tokenizer.encode(text))

    if (shortest := len(made(0).ids)) > length:
        raise ValueError(f"passkey length must hold the frame of {shortest} tokens, got {length}; ask at longer ones")
    fits, too_long = 0, 1
    while len(made(too_long).ids) <= length:
        fits, too_long = too_long, 2 * too_long
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if len(made(middle).ids) <= length else (fits, middle)
    return made(fits)


def found_in(answer: str, key: int) -> bool:
    """Whether the first number of an answer is the key."""
    number = re.search(r"\d+", answer, re.ASCII)
    return number is not None and int(number[0]) == key


def units(model: torch.nn.Module, tokenizer: Tokenizer, run: PasskeyRun) -> Units:
    """Every key of every length."""
    return {
        f"{length} tokens, key {repetition + 1}": partial(ask, model, tokenizer, run, length, repetition)
        for length in run.lengths
        for repetition in range(run.repetitions)
    }


def ask(model: torch.nn.Module, tokenizer: Tokenizer, run: PasskeyRun, length: int, repetition: int) -> list[dict]:
    """One row: the key, where it was hidden, what was answered, and whether that is it."""
    hidden, ends = hide(tokenizer, length, repetition, run.seed), {tokenizer.eos} - {None}
    with autocast(next(model.parameters()).device, run.precision):
        said = next(answers(model, [hidden.ids], max_new_tokens=MAX_NEW_TOKENS, ends=ends, share=False))
    answer = tokenizer.decode(said)
    return [
        {
            "length": length,
            "repetition": repetition,
            "num_tokens": len(hidden.ids),
            "depth": hidden.depth,
            "key": hidden.key,
            "answer": answer,
            "metric": "found",
            "value": float(found_in(answer, hidden.key)),
        }
    ]
