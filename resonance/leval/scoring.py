"""How an answer to a closed-ended question of L-Eval becomes a credit. Text in, numbers out; no torch.

Two parsers (L12). `released`: L-Eval's own rules, to the letter, so that its published scores come out
again. `strict`: reads the answer that the text gives, and none where it gives none. They differ in how
they read the prediction (and, for numbers and code, in what counts as equal), never in the gold.
"""

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from resonance.leval import reading
from resonance.leval.catalogue import ALL_TASKS, PARSERS
from resonance.leval.made import options_of
from resonance.leval.reading import LETTERS

ERROR = "<error>"
"""What `released` reads where sci_fi's answer says neither true nor false."""


@dataclass(frozen=True)
class Reading:
    """What a parser took for the answer (empty: none) and the credit in [0, 1] that it earns."""

    answer: str
    credit: float


def score(parser: str, task: str, prediction: str, gold: str, query: str = "") -> Reading:
    """One question under `released` or `strict`. query: its text with the options, where it is known.

    Raises ValueError for an unknown task or parser, or a gold that no answer of the task can equal.
    """
    if parser not in PARSERS:
        raise ValueError(f"parser must be one of {', '.join(PARSERS)}, got {parser!r}")
    if task not in ALL_TASKS:
        raise ValueError(f"task must be one of {', '.join(ALL_TASKS)}, got {task!r}")
    kind = _KINDS[task]
    if not kind.is_gold(gold):
        raise ValueError(f"gold of {task} must be {kind.gold}, got {gold!r}")
    read = kind.released if parser == "released" else kind.strict
    return read(prediction, gold, query)


def misreading(task: str, prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    """The kind of mistake that `released` made with an answer, as `strict` reads it; None for none."""
    return _KINDS[task].misread(prediction, gold, released, strict)


# released


def normalised(text: str) -> str:
    """Without punctuation and lowercase articles, spaces squeezed. Case stays: theirs does not lower it."""
    text = "".join(sign for sign in text if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def released_credit(answer: str, gold: str) -> float:
    """Letters: equal 1, a part of the gold or none of it 0.25. Else equal as numbers, or the gold within the answer."""
    letters = normalised(gold)
    if set(letters) <= set(LETTERS):
        answer = normalised(answer)
        return 1.0 if answer == letters else 0.25 if set(answer) <= set(letters) else 0.0
    try:
        return float(float(answer) == float(gold))
    except ValueError:
        return float(_without_spaces(gold) in _without_spaces(answer))


def _without_spaces(text: str) -> str:
    return text.lower().replace(" ", "")


def _released_choice(prediction: str, gold: str, query: str) -> Reading:
    """The first capital A to D, be it of a word, unless the whole answer is a stretch of ABCD: then that."""
    first = next((sign for sign in prediction if sign in LETTERS), "A")
    answer = "None" if not prediction.strip() else prediction if prediction in LETTERS else first
    return Reading(answer, released_credit(answer, _gold_letters(gold)))


def _released_coursera(prediction: str, gold: str, query: str) -> Reading:
    answer = _released_letters(prediction)
    return Reading(answer, released_credit(answer, _gold_letters(gold)))


def _released_letters(text: str) -> str:
    if not text.strip():
        return "None"
    if text in LETTERS:
        return text
    head = re.match(rf"[{LETTERS}]*", text)[0]
    if len(head) > 1:
        return "".join(sorted(set(head)))
    rest = text[len(head) :].split("Question")[0]
    # A lone letter at the start counts beside the labels, be it the A of "Answer".
    labels = head + "".join(re.findall(r"\s*[A-Z](?=[\s.)])", rest))
    letters = sorted(set(labels) & set(LETTERS))
    if letters:
        return "".join(letters)
    run = re.search(rf"[{LETTERS}]+", rest)
    return run[0] if run else "A"


def _gold_letters(gold: str) -> str:
    """The gold of a choice: the letters A to D of its first word."""
    return "".join(sign for sign in [*gold.split(), ""][0] if sign in LETTERS)


def _released_number(prediction: str, gold: str, query: str) -> Reading:
    answer = _released_digits(prediction)
    return Reading(answer, released_credit(answer, _released_digits(gold)))


def _released_digits(text: str) -> str:
    """The digits, up to a full stop, of the word after the first `The answer is`, or of the last word with one."""
    found = re.search(r"The answer is (\S+)", text)
    if found:
        word = found[1]
    else:
        words = text.split("\n\n")[0].split(" ")
        word = next((word for word in reversed(words) if any(sign.isdigit() for sign in word)), "")
    return "".join(sign for sign in word.split(".")[0] if sign.isdigit())


_LONGEST = 300
"""Digits of a number that an answer may have."""

_FILLERS = ("will be", "of the code", "is", "would be", "the value of", "the result of", "printed")
_STATEMENT = "the final output"


def _released_code(prediction: str, gold: str, query: str) -> Reading:
    text = _released_value(prediction)
    for filler in _FILLERS:
        text = text.replace(filler, "")
    # Pieces between spaces: of a text that begins or ends with one the first or the last is empty, and counts.
    width = len(gold.split()) + 3
    stated = _STATEMENT in text
    pieces = re.split(r"\s+", text.split(_STATEMENT)[-1])
    answer = " ".join(pieces[:width] if stated else pieces[-width:])
    return Reading(answer, released_credit(answer, _released_value(gold)))


def _released_value(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    for sign in (",", "'", "\\", ".0"):
        text = text.replace(sign, "")
    for loose, tight in (("] [", "]["), ("[ [", "[["), ("] ]", "]]")):
        text = text.replace(loose, tight)
    return text


def _released_judgement(prediction: str, gold: str, query: str) -> Reading:
    """Their script ends in an IndexError where `[fact:` is missing; here that half is empty."""
    halves = [_first_truth(half) for half in _released_halves(prediction)]
    credits = [released_credit(half, wanted) for half, wanted in zip(halves, _released_halves(gold), strict=True)]
    return Reading(f"{halves[0]} [fact: {halves[1]}]", sum(credits) / 2)


def _released_halves(text: str) -> tuple[str, str]:
    """As `_halves`, in lower case; of the second half the last sign is dropped, which should be the bracket."""
    loyalty, fact, *_ = [*text.lower().split("[fact:"), ""]
    return loyalty.strip(), fact[:-1].strip()


def _first_truth(text: str) -> str:
    word = next((word for word in text.lower().split() if "true" in word or "false" in word), ERROR)
    return word if word == ERROR else "true" if "true" in word else "false"


def _halves(text: str) -> tuple[str, str]:
    """sci_fi's answer by the document, and the one by facts behind `[fact:`."""
    loyalty, _, fact = text.partition("[fact:")
    return loyalty, fact


def _judged(halves: list[str], gold: str) -> Reading:
    equal = [half == _first_truth(wanted) for half, wanted in zip(halves, _halves(gold), strict=True)]
    return Reading(f"{halves[0]} [fact: {halves[1]}]" if any(halves) else "", sum(equal) / 2)


# strict: resonance.leval.reading reads the answer


def _strict_choice(prediction: str, gold: str, query: str) -> Reading:
    """Exactly one letter answers a question that has one answer."""
    answer = reading.letters(prediction, query)
    return Reading(answer, float(answer == _gold_letters(gold)))


def _strict_coursera(prediction: str, gold: str, query: str) -> Reading:
    answer = reading.letters(prediction, query)
    return Reading(answer, released_credit(answer, _gold_letters(gold)) if answer else 0.0)


def _value(number: str) -> Fraction | None:
    """The value of reading.number's text; None for none, for x/0, and for what is too long to be meant."""
    over, _, under = number.partition("/")
    if len(number) > _LONGEST or not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(/0*[1-9][0-9]*)?", number):
        return None
    return Fraction(over) / int(under or 1)


def _strict_number(prediction: str, gold: str, query: str) -> Reading:
    answer = reading.number(prediction)
    value = _value(answer)
    return Reading(answer, float(value is not None and value == _value(reading.number(gold))))


def _strict_code(prediction: str, gold: str, query: str) -> Reading:
    answer = reading.output(prediction)
    return Reading(answer, float(bool(answer) and answer == reading.one_spelling(gold)))


def _strict_judgement(prediction: str, gold: str, query: str) -> Reading:
    return _judged([reading.truth(half) for half in _halves(prediction)], gold)


# What the released parser got wrong


def _misread_choice(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    if released.answer in (strict.answer, "None"):
        return None
    if not strict.answer:
        has_letter = any(sign in LETTERS for sign in prediction)
        return "a capital of a word where no answer is given" if has_letter else "A where no letter is given"
    if set(released.answer) == set(strict.answer):
        return "letters out of their order"
    if set(released.answer) < set(strict.answer):
        return "the first of several letters"
    if set(strict.answer) < set(released.answer):
        return "a capital of a word beside the answer"
    return "a capital of a word in place of the answer"


def _misread_number(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    value = _value(strict.answer)
    if value is None:
        return "a number where no answer is given" if released.answer else None
    if not released.answer:
        return "no number where one is given"
    took = _value(released.answer)
    if value == took:
        return None
    if took is not None and value == -took:
        return "a minus dropped"
    return "a fraction cut off" if set("./") & set(strict.answer) else "another number than the answer"


def _misread_code(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    """By the credit: a window of words is no reading."""
    if released.credit == strict.credit:
        return None
    if strict.credit:
        return "the right output not found"
    if strict.answer.lower() == reading.one_spelling(gold).lower():
        return "upper and lower case taken as equal"
    return "the gold found inside another output" if strict.answer else "the gold found where no output is named"


def _misread_judgement(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    if released.answer.replace(ERROR, "") == strict.answer or released.answer == f"{ERROR} [fact: {ERROR}]":
        return None
    return "the first of true and false in place of the judgement"


# ours, of no task of L-Eval: its rule for golds that are no letters; and the one option that the first line names


def _released_word(prediction: str, gold: str, query: str) -> Reading:
    return Reading(prediction, released_credit(prediction, gold))


def _strict_word(prediction: str, gold: str, query: str) -> Reading:
    named = reading.named(prediction.strip().split("\n")[0], options_of(query))
    answer = named[0] if len(named) == 1 else ""
    return Reading(answer, float(answer == gold))


def _misread_word(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    if released.credit == strict.credit:
        return None
    return "the gold found inside or among other words" if released.credit else "the gold not found"


_Scorer = Callable[[str, str, str], Reading]


@dataclass(frozen=True)
class _Kind:
    """How answers of a task are read by each parser, and what its gold must be."""

    released: _Scorer
    strict: _Scorer
    misread: Callable[[str, str, Reading, Reading], str | None]
    is_gold: Callable[[str], object]
    """True, or something that is not empty, for a gold that an answer can equal."""
    gold: str


def _has_number(gold: str) -> bool:
    return _value(reading.number(gold)) is not None


def _has_truths(gold: str) -> bool:
    return all(_first_truth(half) != ERROR for half in _halves(gold))


_CHOICE = _Kind(_released_choice, _strict_choice, _misread_choice, _gold_letters, "an option A to D")
_WORD = _Kind(_released_word, _strict_word, _misread_word, str.strip, "a word")
_KINDS = {
    "coursera": _Kind(_released_coursera, _strict_coursera, _misread_choice, _gold_letters, "letters A to D"),
    "gsm100": _Kind(_released_number, _strict_number, _misread_number, _has_number, "a number"),
    "quality": _CHOICE,
    "tpo": _CHOICE,
    "codeu": _Kind(_released_code, _strict_code, _misread_code, str.strip, "some output"),
    "sci_fi": _Kind(
        _released_judgement, _strict_judgement, _misread_judgement, _has_truths,
        "True or False, then [fact: True or False]",
    ),
    "line_end": _WORD,
    "line_end_blind": _WORD,
}  # fmt: skip
