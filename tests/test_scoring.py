"""L-Eval's parsers: its published scores come out under `released`; `strict` reads the answer."""

import csv
import json
import os
import string
import time
from collections import Counter
from math import floor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.torture_leval import differences
from conftest import DATA
from resonance.leval import files as leval
from resonance.leval import reading, scoring
from resonance.leval.counts import PARSERS, TASKS

PREDICTIONS = DATA / "leval" / "predictions"

# What L-Eval published for its prediction files, truncated to two decimals.
PUBLISHED = {
    "gpt4-32k": {"coursera": 75.58, "gsm100": 96.00, "quality": 82.17, "tpo": 84.38, "codeu": 25.55},
    "turbo-16k-0613": {"coursera": 63.51, "gsm100": 84.00, "quality": 61.38, "tpo": 78.43, "codeu": 12.22},
}
# What `strict` makes of the same files, and what `released` misread in them.
STRICT = {
    "gpt4-32k": {"coursera": 78.20, "gsm100": 96.00, "quality": 82.18, "tpo": 84.01, "codeu": 22.22},
    "turbo-16k-0613": {"coursera": 64.53, "gsm100": 83.00, "quality": 61.39, "tpo": 78.07, "codeu": 11.11},
}
MISREAD = {
    "gpt4-32k": {
        ("coursera", "the first of several letters"): 6,
        ("gsm100", "a fraction cut off"): 1,
        ("tpo", "the first of several letters"): 13,
        ("codeu", "the gold found inside another output"): 2,
        ("codeu", "the gold found where no output is named"): 1,
        ("codeu", "the right output not found"): 2,
        ("codeu", "upper and lower case taken as equal"): 2,
    },
    "turbo-16k-0613": {
        ("coursera", "the first of several letters"): 7,
        ("gsm100", "a fraction cut off"): 4,
        ("gsm100", "a number where no answer is given"): 1,
        ("tpo", "the first of several letters"): 8,
        ("codeu", "the gold found inside another output"): 1,
        ("codeu", "the right output not found"): 1,
        ("codeu", "upper and lower case taken as equal"): 1,
    },
}

# A third model, which neither parser was written for: L-Eval's script gives its scores, which it did not publish.
CLAUDE = {"coursera": (60.03, 59.59), "gsm100": (88.0, 89.0), "quality": (73.76, 73.76), "tpo": (84.01, 84.01),
          "codeu": (17.78, 13.33)}  # fmt: skip
CLAUDE_MISREAD = {
    ("coursera", "a capital of a word where no answer is given"): 3,
    ("coursera", "the first of several letters"): 1,
    ("gsm100", "no number where one is given"): 1,
    ("tpo", "the first of several letters"): 1,
    ("codeu", "the gold found inside another output"): 4,
}

SIGNS = "ABCDEabcd \n.,:()[]{}`\"'*-/$0123456789="

GOLD = {
    "coursera": "AC", "gsm100": "18", "quality": "(B) word for word", "tpo": "C", "codeu": "[1 2]",
    "sci_fi": "True [fact: False]",
}  # fmt: skip


def published_predictions(model: str, task: str) -> leval.Predictions:
    path = PREDICTIONS / f"{model}.{'codeU' if task == 'codeu' else task}.pred.jsonl"
    if not path.exists():
        pytest.skip(f"leval/predictions/{path.name} is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    return leval.read_predictions(path)


def percent(rows: list[dict], parser: str) -> float:
    values = [row["value"] for row in rows if row["parser"] == parser]
    return 100 * sum(values) / len(values)


def credit(parser: str, task: str, text: str, gold: str, query: str = "") -> float:
    return scoring.score(parser, task, text, gold, query).credit


# Golden


@pytest.mark.parametrize("model", PUBLISHED)
@pytest.mark.parametrize("task", ["coursera", "gsm100", "quality", "tpo", "codeu"])
def test_released_gives_the_scores_that_were_published(model: str, task: str) -> None:
    predictions = published_predictions(model, task)
    assert predictions.task == task
    assert len(predictions.rows) == TASKS[task].num_questions
    rows = leval.score_rows(predictions)
    assert floor(100 * percent(rows, "released") + 1e-9) / 100 == PUBLISHED[model][task]
    assert round(percent(rows, "strict"), 2) == STRICT[model][task]


@pytest.mark.parametrize("model", PUBLISHED)
def test_what_released_misread_is_counted_by_kind(model: str) -> None:
    rows = [row for task in PUBLISHED[model] for row in leval.score_rows(published_predictions(model, task))]
    assert Counter((row["task"], row["misread"]) for row in rows if row["misread"]) == MISREAD[model]


def test_the_golden_scores_are_those_at_hand() -> None:
    path = DATA.parent / "reference" / "published" / "leval_golden_predictions.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside {DATA}")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found = {row.pop("predictions"): {task: float(cell) for task, cell in row.items()} for row in csv.DictReader(lines)}
    assert found == PUBLISHED


@pytest.fixture(scope="session")
def checkout() -> Path:
    """L-Eval's repository, whose script and whose third set of predictions lie outside ours."""
    path = Path(os.environ.get("RESONANCE_LEVAL", DATA / "leval" / "LEval"))
    if not (path / "Evaluation" / "auto_eval.py").exists():
        pytest.skip(f"no checkout of github.com/OpenLMLab/LEval in {path}; set RESONANCE_LEVAL to its folder")
    return path


def test_released_gives_every_answer_the_credit_of_levals_own_script(checkout: Path) -> None:
    """15 published files, 2,499 answers, and 1,000 made ones a task; `benchmarks.torture_leval` makes 20,000."""
    compared = list(differences(checkout, 1000))
    assert sum(count for _, count, _ in compared) == 3 * 833 + 6 * 1000
    assert {what: other[:3] for what, _, other in compared if other} == {}


def test_a_third_models_answers_are_read_as_they_are_meant(checkout: Path) -> None:
    files = {
        path.stem.split(".")[0].lower(): path for path in checkout.glob("Predictions/exam_eval/Claude-100k/*.jsonl")
    }
    rows = {task: leval.score_rows(leval.read_predictions(files[task])) for task in CLAUDE}
    assert {t: tuple(round(percent(own, p), 2) for p in PARSERS) for t, own in rows.items()} == CLAUDE
    misread = Counter((row["task"], row["misread"]) for own in rows.values() for row in own if row["misread"])
    assert misread == CLAUDE_MISREAD


# released, rule by rule


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("C", "C"), ("Answer: D", "A"), ("Based on the text, C", "B"), ("no letter here", "A"), ("  ", "None"),
        ("CD", "CD"), ("BD", "B"), ("CD ", "C"),
    ],
)  # fmt: skip
def test_released_choice_is_the_first_capital_or_a_stretch_of_abcd(text: str, answer: str) -> None:
    assert scoring.score("released", "tpo", text, "C").answer == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("DBA", "ABD"),
        ("A. one\nC. two", "AC"),
        ("B, D", "B"),
        ("A,C.", "AC"),
        ("Both C. and", "BC"),
        ("perhaps CB", "CB"),
        ("A. one Question 2: B. two", "A"),
        ("so E. then", "A"),
        ("perhaps BC", "BC"),
        ("", "None"),
    ],
)
def test_released_coursera(text: str, answer: str) -> None:
    assert scoring.score("released", "coursera", text, "AC").answer == answer


def test_released_gives_a_quarter_for_a_part_of_the_letters() -> None:
    assert [credit("released", "coursera", text, "ACD") for text in ("ACD", "AC", "A.", "AB", "")] == [
        1,
        0.25,
        0.25,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 18.", "18"),
        ("The answer is $1,234.50", "1234"),
        ("The answer is 5. The answer is 6.", "5"),
        ("so 16 - 7 = 9 eggs left\n\n12 more", "9"),
        ("none", ""),
    ],
)
def test_released_number(text: str, answer: str) -> None:
    assert scoring.score("released", "gsm100", text, "18").answer == answer


def test_released_code_looks_for_the_gold_in_a_window() -> None:
    assert credit("released", "codeu", "the final output of the code is [1, 2].", "[1 2]") == 1
    assert credit("released", "codeu", "the final output is one two [1, 2]", "[1, 2]") == 1
    assert credit("released", "codeu", "the final output is one two three [1, 2]", "[1, 2]") == 0
    assert credit("released", "codeu", "the final output [1, 2] one two three ", "[1, 2]") == 1
    assert credit("released", "codeu", "[1, 2] one two three ", "[1, 2]") == 0
    assert credit("released", "codeu", "and so it prints 132", "3") == 1


def test_released_judges_both_halves() -> None:
    gold = "True [fact: False]"
    assert credit("released", "sci_fi", "True [fact: False.]", gold) == 1
    assert credit("released", "sci_fi", "falsetrue [fact: False", gold) == 0.5
    assert credit("released", "sci_fi", "untrue [fact: false]", gold) == 1
    assert credit("released", "sci_fi", "True", gold) == 0.5
    assert scoring.score("released", "sci_fi", "Hm", gold).answer == "<error> [fact: <error>]"


# strict, what it reads


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: D", "D"),
        ("Based on the text, the answer is C.", "C"),
        ("The correct option is (C) because A is wrong", "C"),
        ("The answer, according to the text, is (A) this and not (B) that", "A"),
        ("The final answer is $\\boxed{C}$", "C"),
        ("**B**", "B"),
        ("(b)", "B"),
        ("D) Sorry I don't know", "D"),
        ("B. A formula", "B"),
        ("A. dZ[L] = A[L] - Y", "A"),
        ("A, B and D", "ABD"),
        ("B,D", "BD"),
        ("Both A and B", "AB"),
        ("A. one\nC. two", "AC"),
        ("A. Asterisk (*) and B. Slash (/)", "AB"),
        ("Sure! Here are the answers:\nA. one\nB. two\n\nExplanation: C is wrong", "AB"),
        ("B\n\nQuestion: and now?\nA. x\nB. y", "B"),
        ("I think C is right", "C"),
        ("A good answer is not given", ""),
        ("Because Darwin said so", ""),
        ("Option A is wrong. Option B is wrong.", ""),
        ("I don't know", ""),
        ("", ""),
    ],
)
def test_strict_letters(text: str, answer: str) -> None:
    assert reading.letters(text) == answer


def test_strict_knows_an_option_by_its_words() -> None:
    query = "What is meant?\nA. More than two classes\nB. Two classes"
    assert reading.letters("more than two classes.", query) == "A"
    assert reading.letters("more than three classes.", query) == ""


def test_strict_gives_nothing_for_two_answers_to_one_question() -> None:
    assert credit("strict", "tpo", "B and C", "C") == 0
    assert credit("released", "tpo", "C and B", "C") == 1
    assert credit("strict", "coursera", "A, C", "ACD") == 0.25


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is $70,000.", "70000"),
        ("The answer is -117", "-117"),
        ("The answer is 5. No: the answer is 6.", "6"),
        ("The answer is 69/3 liters", "69/3"),
        ("#### 18", "18"),
        ("so 16 - 7 = 9 eggs left", "9"),
        ("The answer is: The total number of downloads over 3 months was 366.", "366"),
        ("The answer is 18 of 20", "18"),
        ("The answer is that 3 hens lay 12 eggs", "12"),
        ("The answer is the cost of 2 shirts = $40 for 5 days", "40"),
        ("9 eggs.\nPlease check the numbers.", ""),
        ("The answer is 4\n\nQuestion: 12 eggs?", "4"),
        ("The answer is 1/0", "1/0"),
        ("", ""),
    ],
)
def test_strict_number(text: str, answer: str) -> None:
    assert reading.number(text) == answer


def test_strict_numbers_are_equal_by_value() -> None:
    for text in ("69/3", "23.00", "$23"):
        assert credit("strict", "gsm100", f"The answer is {text}", "23") == 1
    for text in ("23.5", "1/0", "-23"):
        assert credit("strict", "gsm100", f"The answer is {text}", "23") == 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the final output of the code is:\n\n```\narray([[1, 2.0],\n       [3, 4]])\n```", "[[1 2][3 4]]"),
        ("The final output will be `[6, 15]`.", "[6 15]"),
        ("the output of `f` is the array [1, 3]. This is obtained by calling it.", "[1 3]"),
        ('The final output is "level,deed".', "level deed"),
        ("the code prints the value of `c`, which is [1, 2].", "[1 2]"),
        ("So, the final output is `1 * 3 = 3`.", "3"),
        ("The final output is 125.", "125"),
        ("the final output is:\n\n\\[\\[1, 2\\], \\[3, 4\\]\\]", "[[1 2][3 4]]"),
        ('So the final output would be:\n"{"i":1,"love": 1}"', '{"i":1 "love":1}'),
        ("I cannot tell.", ""),
        ("", ""),
    ],
)
def test_strict_output(text: str, answer: str) -> None:
    assert reading.output(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("True", "true"),
        ("It is not true.", "false"), ("That isn't false", "true"), ("True or False? False.", "false"),
        ("true, no: false", ""), ("untrue", ""), ("", ""),
    ],
)  # fmt: skip
def test_strict_truth(text: str, answer: str) -> None:
    assert reading.truth(text) == answer


# Both


@given(text=st.text(st.sampled_from(SIGNS), max_size=60) | st.text(max_size=40))
def test_any_text_earns_a_credit_of_its_task(text: str) -> None:
    for task, gold in GOLD.items():
        read = {parser: scoring.score(parser, task, text, gold, text) for parser in PARSERS}
        for found in read.values():
            assert found.credit in {step * TASKS[task].step for step in range(round(1 / TASKS[task].step) + 1)}
        kind = scoring.misreading(task, text, gold, read["released"], read["strict"])
        assert kind is None or isinstance(kind, str)


@given(letters=st.sets(st.sampled_from("ABCD"), min_size=1))
def test_a_bare_answer_is_read_alike_by_both(letters: set[str]) -> None:
    gold = "".join(sorted(letters))
    for parser in PARSERS:
        assert credit(parser, "coursera", gold, gold) == 1
        assert credit(parser, "tpo", gold[0], gold[0]) == 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("parser", PARSERS)
def test_the_gold_itself_is_right(parser: str, task: str) -> None:
    assert credit(parser, task, f"the output is {GOLD[task]}" if task == "codeu" else GOLD[task], GOLD[task]) == 1


@given(number=st.integers(-(10**9), 10**9))
def test_strict_reads_every_whole_number(number: int) -> None:
    assert credit("strict", "gsm100", f"The answer is {number:,}.", str(number)) == 1


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("lenient", "tpo", "A", "A"), "parser must be one of released, strict, got 'lenient'"),
        (("strict", "toefl", "A", "A"), "task must be one of coursera"),
        (("strict", "tpo", "A", "?"), "gold of tpo must be an option A to D, got '?'"),
        (("released", "gsm100", "1", "one"), "gold of gsm100 must be a number, got 'one'"),
        (("released", "gsm100", "1", "9" * 5000), "gold of gsm100 must be a number"),
        (("released", "gsm100", "1", "1/0"), "gold of gsm100 must be a number"),
        (("released", "sci_fi", "True", "True"), "gold of sci_fi must be True or False, then"),
        (("released", "coursera", "A", ""), "gold of coursera must be letters A to D"),
        (("released", "codeu", "A", " "), "gold of codeu must be some output"),
    ],
)
def test_bad_input_is_named(arguments: tuple, rule: str) -> None:
    with pytest.raises(ValueError, match=rule.replace("?", r"\?")):
        scoring.score(*arguments)


def test_a_number_of_thousands_of_digits_is_no_answer_and_no_crash() -> None:
    for parser in PARSERS:
        assert credit(parser, "gsm100", "The answer is " + "9" * 5000, "18") == 0


@pytest.mark.parametrize(
    "piece", ["A and ", "A, ", "(", "[(", "`", "\n", "answer is ", "the output is ", "answer ", "A. x\n"]
)
def test_no_text_takes_long_to_read(piece: str) -> None:
    """A pattern that backtracks would take minutes for these; by CPU time, so that no busy machine decides."""
    started = time.process_time()
    for task in TASKS:
        scoring.score("strict", task, piece * 12_000, GOLD[task], "A. one\nB. two")
    assert time.process_time() - started < 10


def test_normalising_drops_punctuation_and_lowercase_articles_only() -> None:
    assert scoring.normalised("The  cat, a dog; an A!") == "The cat dog A"
    assert scoring.normalised(string.punctuation) == ""


def test_golden_files_are_whole_json() -> None:
    files = sorted(PREDICTIONS.glob("*.jsonl"))
    if not files:
        pytest.skip(f"leval/predictions is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    assert all(json.loads(line)["gt"] for path in files for line in Path(path).read_text("utf-8").splitlines())
