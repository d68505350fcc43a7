"""PosGen's tasks: Figure 2 by hand, a slow scalar implementation, the splits, and the shortcuts they leave open."""

from itertools import combinations

import numpy as np
import pytest

from resonance.posgen.tasks import (
    PAPER_TASKS,
    PREFIX_RULES,
    TASKS,
    Rule,
    digest,
    draw_prefixes,
    generate,
    local_rule,
    prefix_generator,
    substitution,
)

KEYED = ("recursive_keyed", "cot_keyed", "semi_recursive_keyed")
COUNTS = {"train": 10_000, "validation": 1_000, "test": 1_000}


def rule(task: str, modulus: int = 17, j: int = 1, k: int = 3) -> Rule:
    return Rule(task=task, modulus=modulus, j=j, k=k)


def sequences(task: str, count: int = 200, length: int = 256, **sizes: int) -> np.ndarray:
    of = rule(task, **sizes)
    prefixes = draw_prefixes("distinct", of, {"test": count}, prefix_generator(0, task))
    return generate(of, prefixes["test"], length)


# Figure 2: modulus 7, j = 1, k = 3, the 12th token (index 11)

FIGURE_2 = {
    #                                          index  4  5  6  7  8  9  10 11
    "recursive": ([7, 8, 9, 10], [1, 2, 3, 4, 3, 5, 1, 6, 1, 6, 0, 6]),  # 6 + 1 + 6 + 0 = 13
    "cot": ([0, 8, 9, 10], [1, 2, 3, 4, 3, 4, 5, 6, 2, 0, 2, 5]),  # 1 + 2 + 0 + 2 = 5
    "semi_recursive": ([3, 8, 9, 10], [1, 2, 3, 4, 3, 4, 6, 1, 0, 3, 1, 1]),  # 4 + 0 + 3 + 1 = 8
}


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_figure_2_by_hand(task: str) -> None:
    dependencies, tokens = FIGURE_2[task]
    of = rule(task, modulus=7)
    assert of.dependencies(11) == dependencies
    assert generate(of, [[1, 2, 3, 4]], 12).tolist() == [tokens]


def scalar(task: str, modulus: int, j: int, k: int, prefix: list[int], length: int) -> list[int]:
    """The rule of section 5, one token at a time, with P12's moving pointer."""
    x = list(prefix)
    while len(x) < length:
        here = len(x)
        if task.startswith("recursive"):
            far = x[here - (j + k) : here - k]
        elif task.startswith("cot"):
            far = x[:j]
        else:
            pointer = int((here - (j + k)) / 2)
            far = x[pointer : pointer + j]
        assert len(far) == j
        if task in PAPER_TASKS:
            x.append((sum(far) + sum(x[here - k :])) % modulus)
            continue
        s = substitution(modulus).tolist()
        terms = [s[x[-1]][key] if task == "recursive_keyed" else s[key][x[-1]] for key in far]
        x.append((sum(terms) + x[here - k]) % modulus)
    return x


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("modulus", "j", "k", "length"),
    [(17, 1, 3, 64), (5, 3, 1, 33), (17, 1, 3, 4)],
)
def test_generation_equals_a_scalar_implementation(task: str, modulus: int, j: int, k: int, length: int) -> None:
    prefixes = np.random.default_rng(0).integers(0, modulus, size=(25, j + k))
    found = generate(rule(task, modulus=modulus, j=j, k=k), prefixes, length)
    assert found.dtype == np.int64 and found.flags.c_contiguous
    assert found.tolist() == [scalar(task, modulus, j, k, row, length) for row in prefixes.tolist()]


@pytest.mark.parametrize(("row", "task"), list(enumerate(PAPER_TASKS)))
def test_generation_equals_the_released_sequences(row: int, task: str, released_golden: dict[str, np.ndarray]) -> None:
    """An end token, then 256 tokens of each task."""
    released = released_golden["input_ids"][row]
    assert released[0] == 21
    assert generate(rule(task), released[None, 1:5], 256)[0].tolist() == released[1:].tolist()


# Prefixes and splits (P1)


def test_a_tasks_place_which_seeds_its_prefixes_stays() -> None:
    assert list(TASKS)[:6] == [*PAPER_TASKS, *KEYED]
    assert [task for task in TASKS if rule(task).keyed] == list(KEYED)


def test_distinct_prefixes_are_all_different_within_and_between_splits() -> None:
    splits = draw_prefixes("distinct", rule("cot"), COUNTS, prefix_generator(0, "cot"))
    assert {name: rows.shape for name, rows in splits.items()} == {name: (n, 4) for name, n in COUNTS.items()}
    together = np.concatenate(list(splits.values()))
    assert together.min() == 0 and together.max() == 16
    assert len(np.unique(together, axis=0)) == 12_000


def test_distinct_prefixes_can_use_all_there_are() -> None:
    splits = draw_prefixes(
        "distinct", rule("cot", modulus=3, j=1, k=2), {"train": 20, "test": 7}, prefix_generator(1, "cot")
    )
    together = np.concatenate(list(splits.values()))
    assert sorted(map(tuple, together.tolist())) == [(a, b, c) for a in range(3) for b in range(3) for c in range(3)]


def test_released_splits_overlap_exactly_as_in_the_released_code() -> None:
    """2,380 increasing tuples, cycled; validation and test are rows 0..999 and 1000..1999 of the training list."""
    splits = draw_prefixes("combinations", rule("cot"), COUNTS, prefix_generator(0, "cot"))
    all_rows = list(combinations(range(17), 4))
    assert len(all_rows) == 2_380
    assert [tuple(row) for row in splits["train"].tolist()] == [all_rows[i % 2_380] for i in range(10_000)]
    assert [tuple(row) for row in splits["validation"].tolist()] == all_rows[:1000]
    assert [tuple(row) for row in splits["test"].tolist()] == all_rows[1000:2000]
    assert len(np.unique(splits["train"], axis=0)) == 2_380
    assert splits["train"][[0, 1, 2379, 2380]].tolist() == [[0, 1, 2, 3], [0, 1, 2, 4], [13, 14, 15, 16], [0, 1, 2, 3]]
    seen = set(map(tuple, splits["train"].tolist()))
    for split in ("validation", "test"):
        assert seen.issuperset(map(tuple, splits[split].tolist()))


def test_combinations_cycle_past_their_end_in_the_test_split_too() -> None:
    splits = draw_prefixes(
        "combinations", rule("cot", modulus=5), {"train": 3, "validation": 4, "test": 4}, np.random.default_rng(0)
    )
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [3, 4, 4]
    assert splits["test"].tolist() == [[1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 3, 4]]


def test_prefixes_depend_on_seed_and_task_and_on_nothing_else() -> None:
    def drawn(seed: int, task: str) -> str:
        return digest(draw_prefixes("distinct", rule("cot"), {"train": 50}, prefix_generator(seed, task))["train"])

    assert drawn(0, "cot") == drawn(0, "cot")
    assert len({drawn(seed, task) for seed in (0, 1) for task in TASKS}) == 2 * len(TASKS)


GOLDEN = {
    ("distinct", "recursive"): "764e42622bbc8c78a228fe91ff4d72ae36e97b6c85b16c2e7508f63f9573343a",
    ("distinct", "cot"): "d14acc1237f00b6cd60aeabc31a7c5bcdc51250d917900e05feb402400ddaef7",
    ("distinct", "semi_recursive"): "fe8779328b971cf2f103a283581f289af63d5cb2a2c97da27c90bdda88848ff5",
    ("combinations", "recursive"): "0b9cee7967be7ac201c51dab2f76cd37cdc57a8bea37d6b301711d13e2d37b59",
    ("combinations", "cot"): "d721b616ad805620467dade8de5fe2077605d004852cf2426d2d91de9caa22ca",
    ("combinations", "semi_recursive"): "1a8c8137fce64892a0ceb2f46a3929d656521ae61c11ca25297a1c665d776bd5",
}


@pytest.mark.parametrize(("prefix_rule", "task"), GOLDEN)
def test_same_seed_gives_the_same_bytes_on_any_machine(prefix_rule: str, task: str) -> None:
    """SHA-256 of the paper's test split of seed 0: 1,000 sequences of 256 tokens, beside 10,000 and 1,000 others."""
    prefixes = draw_prefixes(prefix_rule, rule(task), COUNTS, prefix_generator(0, task))
    assert digest(generate(rule(task), prefixes["test"], 256)) == GOLDEN[prefix_rule, task]


def test_digest_does_not_depend_on_integer_type_or_layout() -> None:
    x = sequences("cot", count=5, length=10)
    expected = digest(x)
    assert digest(x.astype(np.uint8)) == digest(x.astype(">i4")) == digest(np.asfortranarray(x)) == expected
    x[0, 0] += 1
    assert digest(x) != expected


# The shortcuts (paper-vs-code.md)


def test_cot_needs_the_question_for_one_token_only() -> None:
    """A model that never looks at x[0] scores 59/60 in distribution."""
    x = sequences("cot")
    right = (local_rule(rule("cot"), x) == x)[:, 4:64]
    assert right.mean() == 59 / 60


def test_semi_recursive_gives_away_every_second_token() -> None:
    """Two successive tokens share one far token: exact at odd positions, chance at even ones, 53 % in all."""
    x = sequences("semi_recursive", count=2_000)
    right = local_rule(rule("semi_recursive"), x) == x
    assert right[:, 5::2].all()
    assert right[:, 6::2].mean() == pytest.approx(1 / 17, abs=0.003)
    for where in (slice(4, 64), slice(64, 256)):
        assert right[:, where].mean() == pytest.approx(0.53, abs=0.01)


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_local_rule_is_the_best_of_all_two_term_linear_rules(task: str) -> None:
    """a x[l] + b x[l-o] (mod 17) for every a, b and o = 1..8: 2,312 rules, each on 100 sequences."""
    x = sequences(task, count=100, length=96)
    first = 12
    score = {}
    for o in range(1, 9):
        near, far, asked = x[:, first:-1], x[:, first - o : -1 - o], x[:, first + 1 :]
        for a in range(17):
            rest = (asked - a * near) % 17
            for b in range(17):
                score[a, b, o] = (rest == b * far % 17).mean()
    best = max(score, key=score.get)
    assert best == (2, 16, 4 if task == "recursive" else 3), "that is 2 x[l] - x[l-4] or 2 x[l] - x[l-3]"
    assert score[best] == (local_rule(rule(task), x) == x)[:, first + 1 :].mean()
    second = max(value for which, value in score.items() if which != best)
    assert second < score[best] / 2 if task != "semi_recursive" else second < 0.35


@pytest.mark.parametrize("task", PAPER_TASKS)
@pytest.mark.parametrize(("j", "k"), [(1, 3), (2, 3), (3, 2)])
def test_local_rule_says_nothing_before_it_can_and_never_looks_ahead(task: str, j: int, k: int) -> None:
    of = rule(task, j=j, k=k)
    x = sequences(task, count=20, length=40, j=j, k=k)
    said = local_rule(of, x)
    assert (said[:, : j + k + 1] == -1).all()
    assert (said[:, j + k + 1 :] >= 0).all() and (said < 17).all()
    changed = x.copy()
    changed[:, 20:] = 0
    assert (local_rule(of, changed)[:, :21] == said[:, :21]).all()
    if task != "semi_recursive":
        assert (said == x)[:, j + k + 1 :].all(), "exact for any j and k"


# Tasks without those shortcuts


def test_a_substitution_permutes_under_every_key_and_is_the_same_everywhere() -> None:
    table = substitution(17)
    assert (np.sort(table, axis=1) == np.arange(17)).all()
    assert digest(table) == "fed8181a706bc1a11147a7183cba112b4120ba5879b71ef170a98d762731f8e2"
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1


@pytest.mark.parametrize("task", KEYED)
def test_keyed_sequences_do_not_run_into_each_other(task: str) -> None:
    """Else a few patterns at the end would be learned in place of the rule."""
    x = sequences(task, count=1000, modulus=11)
    assert len(np.unique(x[:, -8:], axis=0)) > 990
    assert max(np.bincount(x[:, here], minlength=11).max() for here in range(64, 256)) < 160


@pytest.mark.parametrize("task", KEYED)
def test_no_two_term_linear_rule_helps_on_a_keyed_task(task: str) -> None:
    x = sequences(task, count=300, length=96, modulus=11)
    first = 12
    for o in range(1, 9):
        near, far, asked = x[:, first:-1], x[:, first - o : -1 - o], x[:, first + 1 :]
        for a in range(11):
            for b in range(11):
                assert ((a * near + b * far) % 11 == asked).mean() < 0.25


def test_the_local_rule_of_a_keyed_task_is_the_best_guess_under_the_keys_left() -> None:
    """By exhaustion, for one key: every key that explains the token before, and what most of them say."""
    of, x = rule("cot_keyed", modulus=11), sequences("cot_keyed", count=50, length=40, modulus=11)
    said, table = local_rule(of, x), substitution(11)
    for row, guess in zip(x[:10].tolist(), said[:10].tolist(), strict=True):
        for here in range(5, 40):
            keys = [key for key in range(11) if (table[key, row[here - 2]] + row[here - 4]) % 11 == row[here - 1]]
            votes = np.bincount([(table[key, row[here - 1]] + row[here - 3]) % 11 for key in keys], minlength=11)
            assert row[0] in keys and votes[guess[here]] == votes.max()
    assert 0.6 < (said == x)[:, 5:].mean() < 0.8, "inverting S tells most keys, at the price of knowing it whole"


def test_the_local_rule_has_nothing_to_say_on_recursive_keyed_nor_for_two_keys() -> None:
    assert (local_rule(rule("recursive_keyed"), sequences("recursive_keyed", count=5)) == -1).all()
    assert (local_rule(rule("cot_keyed", j=2), sequences("cot_keyed", count=5, j=2)) == -1).all()


# Errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"task": "chain"},
            f"task must be one of {', '.join(TASKS)}, got 'chain'",
        ),
        ({"modulus": 1}, "modulus must be 2 to 2,147,483,648, got 1"),
        ({"modulus": 2**63 - 1}, f"modulus must be 2 to 2,147,483,648, got {2**63 - 1}"),
        ({"j": 0}, "j must be 1 to 2,147,483,648, got 0"),
        ({"k": -1}, "k must be 1 to 2,147,483,648, got -1"),
    ],
)
def test_bad_rule_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Rule(**{"task": "cot", "modulus": 17, "j": 1, "k": 3} | fields)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("prefixes", "length", "message"),
    [
        ([[1, 2, 3]], 8, r"prefixes must have shape \[N, j \+ k = 4\], got \[1, 3\]"),
        ([1, 2, 3, 4], 8, r"prefixes must have shape \[N, j \+ k = 4\], got \[4\]"),
        ([[1, 2, 3, 4]], 3, r"length must be >= j \+ k = 4"),
        ([[1, 2, 3, 17]], 8, r"prefixes must lie in 0 .. 16, got up to 17"),
        ([[-1, 2, 3, 4]], 8, r"prefixes must lie in 0 .. 16, got"),
    ],
)
def test_bad_prefixes_are_refused(prefixes: list, length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(rule("cot"), prefixes, length)


@pytest.mark.parametrize(
    ("prefix_rule", "modulus", "message"),
    [
        ("distinct", 2, r"must be <= modulus\^\(j\+k\) = 16, the distinct prefixes there are, got 30; ask for fewer"),
        ("distinct", 10**5, r"modulus\^\(j\+k\) must be <= 2\^62, got 100000\^4"),
        ("combinations", 3, r"modulus must be >= j \+ k = 4 for prefixes `combinations`, got 3"),
        ("random", 17, r"prefixes must be one of distinct, combinations, got 'random'"),
    ],
)
def test_impossible_splits_are_refused(prefix_rule: str, modulus: int, message: str) -> None:
    counts = {"train": 10, "validation": 10, "test": 10}
    with pytest.raises(ValueError, match=message):
        draw_prefixes(prefix_rule, rule("cot", modulus=modulus), counts, np.random.default_rng(0))
    assert set(PREFIX_RULES) == {"distinct", "combinations"}
