"""What encodings are ranked on: the paper's three tasks, and three of ours that near tokens cannot solve.

Of the paper's tasks a few near tokens give the answer away (`oracle`), so they measure whether a model finds those
again past L. In ours the token asked for repeats one far token that nothing else repeats, so a window that does not
hold it leaves chance; the filler between is uniform noise, and no token but those asked for is counted, in training or
test.

    look_back  an exact distance     after the query, the token 24 before:          position alone
    flip_flop  the last of its kind  what the last write wrote, once for each:      content, and the latest
    recall     a key                 the value of a key among the first 8 tokens:   content alone

flip_flop is Liu et al.'s (2023, arXiv 2306.00946) with one read a write, or an earlier read would give it away. The
distances of look_back are those of training at every length; flip_flop's and recall's grow with the sequence.

Legend: N sequences, T positions. Imports numpy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from resonance.posgen import tasks as posgen

MODULUS, J, K = 17, 1, 3
"""Of the paper's tasks, as in its section 6.1.1."""
TRAIN_LENGTH, TEST_LENGTH = 64, 256
"""L and 4L."""
NUM_TRAIN, NUM_TEST = 10_000, 250
BACK = 24
NUM_KEYS = NUM_VALUES = 8
WINDOWS = (4, 8, 16, 32, 64, 128)
"""Tokens before the one asked for, in the oracle's table."""


@dataclass(frozen=True)
class Drawn:
    """tokens, int64 [N, T]; source, int64 [N, T]: where the far token stands that a token repeats, 0 or more where it
    is asked for (the paper's tasks: 0, the rule says where) and -1 where nothing is asked."""

    tokens: np.ndarray
    source: np.ndarray

    @property
    def asked(self) -> np.ndarray:
        return self.source >= 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the ranking.

    draw        (random numbers, N, T, split) -> sequences
    vocabulary  tokens are 0 .. this - 1
    chance      accuracy of a guess
    steps       of training, at the ranking's size
    far         whether near tokens leave chance
    """

    draw: Callable[[np.random.Generator, int, int, str], Drawn]
    vocabulary: int
    chance: float
    steps: int
    far: bool


def rule_of(task: str) -> posgen.Rule:
    return posgen.Rule(task=task, modulus=MODULUS, j=J, k=K)


def _paper(task: str, rng: np.random.Generator, num: int, length: int, split: str) -> Drawn:
    tokens = posgen.generate(rule_of(task), rng.integers(0, MODULUS, (num, J + K)), length)
    source = np.where(np.arange(length) < J + K, -1, 0)
    return Drawn(tokens, np.broadcast_to(source, tokens.shape))


def _look_back(rng: np.random.Generator, num: int, length: int, split: str) -> Drawn:
    """Noise of 0 .. 16; after a query (17) follows what stood 24 before that, which is noise and never used again."""
    x = rng.integers(0, MODULUS, (num, length))
    source, noise = np.full_like(x, -1), np.ones_like(x, dtype=bool)
    for t in range(BACK, length):
        asks = x[:, t - 1] == MODULUS
        x[asks, t], source[asks, t] = x[asks, t - BACK], t - BACK
        queries = ~asks & noise[:, t + 1 - BACK] & (rng.random(num) < 0.3)
        x[queries, t] = MODULUS
        noise[:, t] = ~asks & ~queries
    return Drawn(x, source)


def _flip_flop(rng: np.random.Generator, num: int, length: int, split: str) -> Drawn:
    """Pairs of an instruction (8 write, 9 read, 10 ignore) and a value 0 .. 7. A read comes up to half of the sequence
    after its write, and the next write one to three pairs after that. In training, where it must be found out, short
    distances are likelier (log-uniform); in the test all are alike."""
    write, read, ignore = NUM_VALUES, NUM_VALUES + 1, NUM_VALUES + 2
    num_pairs = length // 2
    value = rng.integers(0, NUM_VALUES, (num, num_pairs))
    instruction = np.full_like(value, ignore)
    source = np.full((num, length), -1)
    row, last = np.arange(num), np.zeros(num, dtype=int)
    next_write, next_read = np.zeros(num, dtype=int), np.full(num, -1)
    for pair in range(num_pairs):
        writes, reads = row[next_write == pair], row[next_read == pair]
        instruction[writes, pair], last[writes] = write, pair
        share = rng.random(len(writes))
        delay = num_pairs**share if split == "train" else 1 + share * (num_pairs - 1)
        next_read[writes] = pair + delay.astype(int)
        instruction[reads, pair], value[reads, pair] = read, value[reads, last[reads]]
        source[reads, 2 * pair + 1] = 2 * last[reads] + 1
        next_write[reads] = pair + 1 + rng.integers(0, 3, len(reads))
    tokens = rng.integers(0, NUM_VALUES, (num, length))  # an odd length ends on half a pair
    tokens[:, : 2 * num_pairs] = np.stack([instruction, value], axis=-1).reshape(num, -1)
    return Drawn(tokens, source)


def _recall(rng: np.random.Generator, num: int, length: int, split: str) -> Drawn:
    """Eight tokens, each a key with its value; then noise, and among it every key once, followed by its value.

    Tokens: 8 * key + value, 64 + key for the question, 72 + value for noise and answers.
    """
    row, pairs = np.arange(num), NUM_KEYS * NUM_VALUES
    keys = rng.permuted(np.tile(np.arange(NUM_KEYS), (num, 1)), axis=1)
    values = rng.integers(0, NUM_VALUES, (num, NUM_KEYS))
    x = pairs + NUM_KEYS + rng.integers(0, NUM_VALUES, (num, length))
    x[:, :NUM_KEYS] = NUM_VALUES * keys + values
    source = np.full_like(x, -1)
    places = np.tile(np.arange((length - NUM_KEYS) // 2), (num, 1))
    for number, place in enumerate(rng.permuted(places, axis=1)[:, :NUM_KEYS].T):
        at = NUM_KEYS + 2 * place
        x[row, at], x[row, at + 1] = pairs + keys[:, number], pairs + NUM_KEYS + values[:, number]
        source[row, at + 1] = number
    return Drawn(x, source)


_SUM = {"vocabulary": MODULUS, "chance": 1 / MODULUS, "far": False}
_FAR = {"chance": 1 / NUM_VALUES, "far": True}
TASKS = {
    "look_back": Task(draw=_look_back, vocabulary=MODULUS + 1, steps=200, **(_FAR | {"chance": 1 / MODULUS})),
    "flip_flop": Task(draw=_flip_flop, vocabulary=NUM_VALUES + 3, steps=700, **_FAR),
    "recall": Task(draw=_recall, vocabulary=NUM_KEYS * NUM_VALUES + NUM_KEYS + NUM_VALUES, steps=250, **_FAR),
    "recursive": Task(draw=partial(_paper, "recursive"), steps=500, **_SUM),
    "cot": Task(draw=partial(_paper, "cot"), steps=500, **_SUM),
    "semi_recursive": Task(draw=partial(_paper, "semi_recursive"), steps=600, **_SUM),
}
"""Every task by name. New ones go to the end: a task's place seeds its sequences."""


SPLITS = {"train": (NUM_TRAIN, TRAIN_LENGTH), "test": (NUM_TEST, TEST_LENGTH)}
"""Sequences and tokens of each."""


def drawn_for(task: str, split: str) -> Drawn:
    """The sequences that encodings are ranked on, the same everywhere."""
    return draw(task, split, *SPLITS[split])


def draw(task: str, split: str, num: int, length: int) -> Drawn:
    """Sequences of a split (`train` or `test`) in any number and length."""
    place = list(TASKS).index(task), list(SPLITS).index(split)
    return TASKS[task].draw(np.random.default_rng(np.random.SeedSequence([20240301, *place])), num, length, split)


def oracle(task: str, window: int, drawn: Drawn, past: int) -> float:
    """What a solver reaches at best that knows the task and the position, and sees the `window` tokens before the one
    asked for; over what is asked from position `past` on.

    Ours: 1 where the source is in view, chance elsewhere. The paper's: tokens are sums of the prefix's j + k, which are
    uniform, so one follows from a window where its coefficients lie in the window's span modulo 17, and else nothing
    is known of it.
    """
    position = np.arange(drawn.tokens.shape[1])
    if TASKS[task].far:
        asked = drawn.asked & (position >= past)
        in_view = (position - drawn.source <= window)[asked]
        return float(np.where(in_view, 1.0, TASKS[task].chance).mean())
    rule = rule_of(task)
    coefficients = np.zeros((len(position), rule.prefix_length), dtype=np.int64)
    coefficients[: rule.prefix_length] = np.eye(rule.prefix_length, dtype=np.int64)
    for t in range(rule.prefix_length, len(position)):
        coefficients[t] = coefficients[rule.dependencies(t)].sum(axis=0) % MODULUS
    known = [_spans(coefficients[max(0, t - window) : t], coefficients[t]) for t in position[past:]]
    return float(np.where(known, 1.0, TASKS[task].chance).mean())


def _spans(rows: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether wanted is a combination of rows modulo 17, which is prime."""
    return _rank(rows) == _rank(np.vstack([rows, wanted]))


def _rank(rows: np.ndarray) -> int:
    rows, rank = rows.copy() % MODULUS, 0
    for column in range(rows.shape[1]):
        pivots = np.flatnonzero(rows[rank:, column])
        if len(pivots) == 0:
            continue
        rows[[rank, rank + pivots[0]]] = rows[[rank + pivots[0], rank]]
        rows[rank] = rows[rank] * pow(int(rows[rank, column]), -1, MODULUS) % MODULUS
        below = rows[rank + 1 :]
        rows[rank + 1 :] = (below - below[:, [column]] * rows[rank]) % MODULUS
        rank += 1
        if rank == len(rows):
            break
    return rank
