"""PosGen's tasks as pure functions of integers (section 5). Imports numpy alone.

Every new token is h of j + k earlier ones. The paper's three tasks take addition modulo m for h
(section 6.1.1), so the difficulty of a token does not depend on its position:

    x_l = (far_0 + .. + far_{j-1} + x_{l-k} + .. + x_{l-1}) mod m        for l >= j + k

and differ in where the j far tokens stand:

    recursive       x_{l-(j+k)} .. x_{l-k-1}     right before the k near ones
    cot             x_0 .. x_{j-1}               the question, as in chain-of-thought
    semi_recursive  x_p .. x_{p+j-1}             p = floor((l - (j+k)) / 2), one step every two tokens

Paper: semi_recursive's index is printed floor(l - (j+k)/2) - j, which read literally is a constant
distance; released code and Figure 2: the moving pointer above, taken here.

Addition leaves shortcuts that never look far (`local_rule`). Three more tasks, ours, leave none that
is simpler than the rule: far tokens enter through a fixed random substitution,

    x_l = (S[far_0, x_{l-1}] + .. + S[far_{j-1}, x_{l-1}] + x_{l-k}) mod m

in cot_keyed and semi_recursive_keyed, where every row of S is a random permutation of 0 .. m-1
(`substitution`) and far tokens choose the row; in recursive_keyed x_{l-1} does, S[x_{l-1}, far_0] ..,
or else different prefixes would run into one sequence. The near tokens in between play no part: a sum
of more terms is learned by its shortcuts or, at small budgets, not at all.

Legend: N sequences, T positions, W = j + k the length of a prefix.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations, cycle, islice

import numpy as np

PAPER_TASKS = ("recursive", "cot", "semi_recursive")
PREFIX_RULES = ("distinct", "combinations")
SPLITS = ("train", "validation", "test")
LARGEST = 2**31
"""Of a modulus: sums of tokens are int64."""


@dataclass(frozen=True)
class Task:
    """One task. Of each function the first argument is the rule that asks.

    far         the index of the first of the j far tokens that x_position depends on
    h           the tokens at `dependencies`, [W, N], to the one that they determine, [N]
    local_rule  what a solver that never looks far would say, int64 [N, T], -1 for nothing
    keyed       whether far tokens are keys of a substitution, or terms of a sum
    """

    far: Callable[["Rule", int], int]
    h: Callable[["Rule", np.ndarray], np.ndarray]
    local_rule: Callable[["Rule", np.ndarray], np.ndarray]
    keyed: bool = False


@dataclass(frozen=True, kw_only=True)
class Rule:
    """h and its dependencies: the task, the modulus m, and how many far (j) and near (k) tokens."""

    task: str
    modulus: int
    j: int
    k: int

    def __post_init__(self) -> None:
        check_task(self.task)
        for name, least in (("modulus", 2), ("j", 1), ("k", 1)):
            if not least <= getattr(self, name) <= LARGEST:
                raise ValueError(f"{name} must be {least} to {LARGEST:,}, got {getattr(self, name)}")

    @property
    def keyed(self) -> bool:
        return TASKS[self.task].keyed

    @property
    def prefix_length(self) -> int:
        """W = j + k, the tokens that must be given."""
        return self.j + self.k

    def far_start(self, position: int) -> int:
        """The index of the first of the j far tokens that x_position depends on."""
        return TASKS[self.task].far(self, position)

    def dependencies(self, position: int) -> list[int]:
        """The positions that x_position is h of, far ones first. Figure 2."""
        far = self.far_start(position)
        near = (position - self.k, position - 1) if self.keyed else range(position - self.k, position)
        return [*range(far, far + self.j), *near]

    def h(self, x_WN: np.ndarray) -> np.ndarray:
        """The tokens that others determine: those at `dependencies`, [W, N], to [N]."""
        return TASKS[self.task].h(self, x_WN)


def check_task(name: str) -> str:
    """The name of a task. Raises ValueError for any other."""
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return name


@cache
def substitution(modulus: int) -> np.ndarray:
    """S [m, m]: one fixed random permutation of 0 .. m-1 for every key; the same on every machine."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([modulus])))
    table = np.stack([rng.permutation(modulus) for _ in range(modulus)])
    table.setflags(write=False)
    return table


def generate(rule: Rule, prefixes_NW: np.ndarray, length: int) -> np.ndarray:
    """The sequences that prefixes determine: int64 [N, T], T = length.

    Raises ValueError if prefixes are not [N, j + k], leave 0 .. m-1, or length is shorter.
    """
    prefixes_NW = np.asarray(prefixes_NW)
    width = rule.prefix_length
    if prefixes_NW.ndim != 2 or prefixes_NW.shape[1] != width:
        raise ValueError(f"prefixes must have shape [N, j + k = {width}], got {list(prefixes_NW.shape)}")
    if length < width:
        raise ValueError(f"length must be >= j + k = {width}, the given tokens, got {length}")
    if prefixes_NW.size and (prefixes_NW.min() < 0 or prefixes_NW.max() >= rule.modulus):
        raise ValueError(f"prefixes must lie in 0 .. {rule.modulus - 1}, got up to {prefixes_NW.max()}")
    x_TN = np.empty((length, len(prefixes_NW)), dtype=np.int64)  # position first: every step adds whole rows
    x_TN[:width] = prefixes_NW.T
    for position in range(width, length):
        x_TN[position] = rule.h(x_TN[rule.dependencies(position)])
    return np.ascontiguousarray(x_TN.T)


def local_rule(rule: Rule, x_NT: np.ndarray) -> np.ndarray:
    """What a solver that never looks far would say: int64 [N, T], -1 where it has nothing to say.

    Two successive sums share all but a few terms, so modular addition leaves shortcuts:

        recursive            x_{l+1} = 2*x_l - x_{l-(j+k)}    exact for every l >= j + k
        cot, semi_recursive  x_{l+1} = 2*x_l - x_{l-k}        exact where both sums share their far
                                                              tokens: always for cot, every second
                                                              token for semi_recursive

    In nobody's paper; without it an accuracy of 53 % on semi_recursive looks like half a solution.
    """
    return TASKS[rule.task].local_rule(rule, x_NT)


def _sum(rule: Rule, x_WN: np.ndarray) -> np.ndarray:
    return x_WN.sum(axis=0) % rule.modulus


def _keyed_sum(rule: Rule, x_WN: np.ndarray, by_nearest: bool = False) -> np.ndarray:
    """S[far, nearest] of every far token plus x_{l-k}; by_nearest: S[nearest, far]."""
    far, near, nearest = x_WN[: rule.j], x_WN[-2], x_WN[-1]
    table = substitution(rule.modulus)
    terms = table[nearest, far] if by_nearest else table[far, nearest]
    return (terms.sum(axis=0) + near) % rule.modulus


def _far_before(rule: Rule, position: int) -> int:
    return position - rule.prefix_length


def _far_question(rule: Rule, position: int) -> int:
    return 0


def _far_pointer(rule: Rule, position: int) -> int:
    return (position - rule.prefix_length) // 2


def _twice_less(rule: Rule, x_NT: np.ndarray, distance: int) -> np.ndarray:
    """2*x_l - x_{l-distance}, from the second token that the rule determines on."""
    said, first = np.full_like(x_NT, -1), rule.prefix_length + 1
    said[:, first:] = (2 * x_NT[:, first - 1 : -1] - x_NT[:, first - 1 - distance : -1 - distance]) % rule.modulus
    return said


def _likeliest(rule: Rule, x_NT: np.ndarray) -> np.ndarray:
    """The guess of a solver who knows S by heart: the likeliest token under the far tokens that the token before
    allows, where both share theirs, and under all of them otherwise. With j > 1 nothing is said."""
    said, first = np.full_like(x_NT, -1), rule.prefix_length + 1
    if rule.j > 1:
        return said
    table = substitution(rule.modulus)
    for position in range(rule.prefix_length, x_NT.shape[1]):
        terms_NK = table.T[x_NT[:, position - 1]]  # S[key, x_{l-1}] of every key
        possible_NK = np.ones_like(terms_NK, dtype=bool)
        if position >= first and rule.far_start(position) == rule.far_start(position - 1):
            term = (x_NT[:, position - 1] - x_NT[:, position - 1 - rule.k]) % rule.modulus
            possible_NK = table.T[x_NT[:, position - 2]] == term[:, None]
        votes_NM = (possible_NK[:, :, None] & (terms_NK[:, :, None] == np.arange(rule.modulus))).sum(axis=1)
        said[:, position] = (votes_NM.argmax(axis=1) + x_NT[:, position - rule.k]) % rule.modulus
    return said


def _nothing(rule: Rule, x_NT: np.ndarray) -> np.ndarray:
    """recursive_keyed: no guess is better than chance."""
    return np.full_like(x_NT, -1)


TASKS = {
    "recursive": Task(_far_before, _sum, lambda rule, x: _twice_less(rule, x, rule.prefix_length)),
    "cot": Task(_far_question, _sum, lambda rule, x: _twice_less(rule, x, rule.k)),
    "semi_recursive": Task(_far_pointer, _sum, lambda rule, x: _twice_less(rule, x, rule.k)),
    "recursive_keyed": Task(_far_before, partial(_keyed_sum, by_nearest=True), _nothing, keyed=True),
    "cot_keyed": Task(_far_question, _keyed_sum, _likeliest, keyed=True),
    "semi_recursive_keyed": Task(_far_pointer, _keyed_sum, _likeliest, keyed=True),
}
"""Every task by name. New ones go to the end: a task's place seeds its prefixes."""


def draw_prefixes(
    prefix_rule: str, rule: Rule, counts: dict[str, int], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The given tokens of every split: {split: int64 [count, j + k]}.

    `distinct` (paper, 6.1.1): all different, drawn from the m^(j+k) there are, so no split shares
    one with another. `combinations` (released code): strictly increasing tuples in lexicographic
    order, cycled; validation and test are the first rows of the *training* list.
    """
    width = rule.prefix_length
    if prefix_rule == "distinct":
        total, wanted = rule.modulus**width, sum(counts.values())
        if wanted > total:
            raise ValueError(
                f"num_train + num_validation + num_test must be <= modulus^(j+k) = {total}, the distinct prefixes "
                f"there are, got {wanted}; ask for fewer sequences or a larger modulus"
            )
        if total > 2**62:
            raise ValueError(f"modulus^(j+k) must be <= 2^62, got {rule.modulus}^{width}; lower modulus, j or k")
        codes = rng.choice(total, size=wanted, replace=False)
        powers = rule.modulus ** np.arange(width - 1, -1, -1, dtype=np.int64)
        rows = codes[:, None] // powers % rule.modulus
        ends = np.cumsum(list(counts.values()))[:-1]
        return dict(zip(counts, np.split(rows, ends), strict=True))
    if prefix_rule == "combinations":
        if rule.modulus < width:
            raise ValueError(
                f"modulus must be >= j + k = {width} for prefixes `combinations`, got {rule.modulus}: "
                "there is no strictly increasing prefix"
            )
        needed = max(counts["train"], counts["validation"] + counts["test"])
        rows = np.array(list(islice(cycle(combinations(range(rule.modulus), width)), needed)), dtype=np.int64)
        middle = counts["validation"]
        return {
            "train": rows[: counts["train"]],
            "validation": rows[:middle],
            "test": rows[middle : middle + counts["test"]],
        }
    raise ValueError(f"prefixes must be one of {', '.join(PREFIX_RULES)}, got {prefix_rule!r}")


def prefix_generator(seed: int, task: str) -> np.random.Generator:
    """The generator of a task's prefixes; the same everywhere for the same seed and task."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, list(TASKS).index(task)])))


def digest(x_NT: np.ndarray) -> str:
    """SHA-256 of a set of sequences, independent of file format and machine."""
    return hashlib.sha256(np.ascontiguousarray(x_NT, dtype="<i8").tobytes()).hexdigest()
