"""Questions made in the run: what they ask stands in the document, and a guess is right in a quarter of them."""

from collections import Counter

import numpy as np
import pytest

from conftest import ROOT
from resonance.leval import made, scoring
from resonance.leval.files import prompts
from resonance.leval.settings import MadeQuestions, Prompts
from resonance.record.settings import parse, read_yaml


def asked(**changes: object) -> MadeQuestions:
    return MadeQuestions(**{"text": "plays", "documents": 2, "words": 900, "questions": 12, "seed": 0, **changes})


def play(seed: int, lines: int = 400) -> str:
    draw, letters = np.random.default_rng(seed), np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, draw.integers(3, 9))) for _ in range(300)]
    return "\n".join(" ".join(draw.choice(words, draw.integers(5, 10))) + ".," for _ in range(lines))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return made.make_rows([("a", play(1)), ("b", play(2))], asked())


def test_the_answer_stands_in_the_document_right_behind_the_quoted_line(rows: list[dict]) -> None:
    for row in rows:
        assert len(row["instructions"]) == len(row["outputs"]) == 12
        for question, gold in zip(row["instructions"], row["outputs"], strict=True):
            line, options = made.begun(question), made.options_of(question)
            assert row["input"].count(line) == 1 and f"{line} {gold}" in row["input"]
            assert gold in options and len(set(options)) == 4
            assert all(any(word == made.last_word(other) for other in row["input"].split("\n")) for word in options)
            assert not any(a != b and a in b for a in options for b in options), "a substring would earn credit"


def test_every_place_is_right_as_often_and_questions_cover_the_document(rows: list[dict]) -> None:
    for row in rows:
        places = [made.options_of(q).index(gold) for q, gold in zip(row["instructions"], row["outputs"], strict=True)]
        assert set(Counter(places).values()) == {3}
        at = [row["input"].index(made.begun(question)) / len(row["input"]) for question in row["instructions"]]
        assert at == sorted(at) and at[0] < 0.15 and at[-1] > 0.85


def test_a_guess_among_the_words_is_right_in_a_quarter_of_the_questions() -> None:
    """By either end of the alphabet, by length, by place: no rule that reads the options alone does better."""
    rows = made.make_rows([(str(i), play(i)) for i in range(40)], asked(documents=40))
    questions = [(made.options_of(q), gold) for row in rows for q, gold in zip(row["instructions"], row["outputs"])]  # noqa: B905
    for rule in (min, max, lambda words: max(words, key=len), lambda words: words[0], lambda words: words[3]):
        right = np.mean([rule(options) == gold for options, gold in questions])
        assert abs(right - 0.25) < 4 * (0.25 * 0.75 / len(questions)) ** 0.5


def test_equal_seeds_give_equal_questions_and_another_seed_others(rows: list[dict]) -> None:
    plays = [("a", play(1)), ("b", play(2))]
    assert made.make_rows(plays, asked()) == rows
    assert made.make_rows(plays, asked(seed=1)) != rows


def test_a_document_is_whole_lines_of_the_words_asked_for(rows: list[dict]) -> None:
    for row, text in zip(rows, (play(1), play(2)), strict=True):
        assert text.startswith(row["input"] + "\n")
        assert 900 <= len(row["input"].split()) < 910


def test_too_few_plays_are_one_line(rows: list[dict]) -> None:
    with pytest.raises(ValueError, match=r"must hold 2 documents of 900 words .* got 1; ask for less of it"):
        made.make_rows([("short", play(3, lines=20)), ("a", play(1))], asked())


def test_the_blind_questions_are_the_same_without_the_document(rows: list[dict]) -> None:
    for row, without in zip(rows, made.blind(rows), strict=True):
        assert without["instructions"] == row["instructions"] and without["outputs"] == row["outputs"]
        assert row["outputs"][0] not in without["input"]


def test_another_question_has_no_options() -> None:
    assert made.options_of("Which of A, B and C?") == []


def test_the_answer_is_begun_with_the_line(rows: list[dict]) -> None:
    texts = parse(Prompts, read_yaml(ROOT / "config/leval.yaml"), "leval.yaml")
    question = rows[0]["instructions"][0]
    (prompt,) = prompts(texts, "chatml", made.SEEN, rows[0]["input"], question)
    assert prompt.endswith(f"<|im_start|>assistant\nAnswer: {made.begun(question)}")


@pytest.mark.parametrize(
    ("text", "released", "strict"),
    [
        (" night.", 1, 1), (" Night", 1, 1), (" day, and no night", 1, 0), (" knights", 1, 0),
        (" moon and night", 1, 1), ("\n\nThe answer is night", 1, 1), (" day\nnight", 1, 0), (" day", 0, 0), ("", 0, 0),
    ],
)  # fmt: skip
def test_scores_of_a_word(text: str, released: int, strict: int) -> None:
    query = 'Which of day, night, flower and stone ends this line of the play: "Come gentle ..."'
    for parser, credit in (("released", released), ("strict", strict)):
        assert scoring.score(parser, made.SEEN, text, "night", query).credit == credit
