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

from resonance.record.leval import PARSERS, TASKS

LETTERS = "ABCD"

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
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    if not _GOLD[task](gold):
        raise ValueError(f"gold of {task} must be {_GOLD_RULE[task]}, got {gold!r}")
    return _SCORERS[parser, task](prediction, gold, query)


def misreading(task: str, prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    """The kind of mistake that `released` made with an answer, as `strict` reads it; None for none."""
    return _MISREADINGS[task](prediction, gold, released, strict)


# released


def normalised(text: str) -> str:
    """Without punctuation and lowercase articles, spaces squeezed. Case stays: theirs does not lower it."""
    text = "".join(sign for sign in text if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def released_credit(answer: str, gold: str) -> float:
    """Letters: equal 1, a part of the gold 0.25. Else equal as numbers, or the gold a substring of the answer."""
    if gold and set(gold) <= set(LETTERS):
        answer = normalised(answer)
        return 1.0 if answer == gold else 0.25 if answer and set(answer) <= set(gold) else 0.0
    try:
        return float(float(answer) == float(gold))
    except ValueError:
        return float(_without_spaces(gold) in _without_spaces(answer))


def _without_spaces(text: str) -> str:
    return text.lower().replace(" ", "")


def _released_choice(prediction: str, gold: str, query: str) -> Reading:
    answer = _first_letter(prediction) if prediction.strip() else "None"
    return Reading(answer, released_credit(answer, _first_letter(gold)))


def _first_letter(text: str) -> str:
    """The first capital A to D, be it of a word; A where there is none."""
    return next((sign for sign in text if sign in LETTERS), "A")


def _released_coursera(prediction: str, gold: str, query: str) -> Reading:
    answer = _released_letters(prediction)
    return Reading(answer, released_credit(answer, _gold_letters(gold)))


def _released_letters(text: str) -> str:
    if not text.strip():
        return "None"
    run = re.match(rf"[{LETTERS}]{{2,}}", text)
    if run:
        return "".join(sorted(set(run[0])))
    labels = "".join(re.findall(r"\s*[A-Z](?=[\s.)])", text.split("Question")[0]))
    letters = sorted(set(labels) & set(LETTERS))
    if letters:
        return "".join(letters)
    run = re.search(rf"[{LETTERS}]+", text)
    return run[0] if run else "A"


def _gold_letters(gold: str) -> str:
    """Coursera's gold: the letters A to D of its first word."""
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


_FILLERS = ("will be", "of the code", "is", "would be", "the value of", "the result of", "printed")
_STATEMENT = "the final output"


def _released_code(prediction: str, gold: str, query: str) -> Reading:
    gold, text = _released_value(gold), _released_value(prediction)
    for filler in _FILLERS:
        text = text.replace(filler, "")
    width = len(gold.split()) + 3
    words = text.split(_STATEMENT)[-1].split()[:width] if _STATEMENT in text else text.split()[-width:]
    answer = " ".join(words)
    return Reading(answer, released_credit(answer, gold))


def _released_value(text: str) -> str:
    for sign in (",", "'", "\\", ".0"):
        text = text.replace(sign, "")
    text = " ".join(text.split())
    for loose, tight in (("] [", "]["), ("[ [", "[["), ("] ]", "]]")):
        text = text.replace(loose, tight)
    return text


def _released_judgement(prediction: str, gold: str, query: str) -> Reading:
    halves = [_first_truth(half) for half in _halves(prediction)]
    return _judged(halves, gold)


def _first_truth(text: str) -> str:
    found = re.search("true|false", text.lower())
    return found[0] if found else ERROR


def _halves(text: str) -> tuple[str, str]:
    """sci_fi's answer by the document, and the one by facts behind `[fact:`."""
    loyalty, _, fact = text.partition("[fact:")
    return loyalty, fact


def _judged(halves: list[str], gold: str) -> Reading:
    equal = [half == _first_truth(wanted) for half, wanted in zip(halves, _halves(gold), strict=True)]
    return Reading(f"{halves[0]} [fact: {halves[1]}]" if any(halves) else "", sum(equal) / 2)


# strict: choices


_MARKUP = r"[(\[*_`\"']*"
_LABEL = rf"{_MARKUP}(?<![\w'’])(?:[{LETTERS}]{{1,4}})(?![\w'’\[])[)\].*_`\"':]*"
_LIST = rf"{_LABEL}(?:\s*(?:,\s*and\b|,\s*or\b|\band\b|\bor\b|[,;&/+])\s*{_LABEL})*"
# What may follow a list of labels: not a lowercase word, before which "A" is an article.
_END = r"(?=\s*$|\s*\n|(?<=[)\].:*_`\"'])|\s*[-–—(,;!]|\s+(?i:is|are|because|since)\b)"
_ANSWER_IS = re.compile(
    rf"(?i:\banswers?\b[^.\n]{{0,80}}?(?:\b(?:is|are|be)\b|[:=-])\s*(?:the\s+)?(?:(?:option|choice|letter)s?\b)?[ ]*:?)[ ]*({_LIST}){_END}"
)
_OPTION_IS = re.compile(rf"(?i:\b(?:answer|option|choice)s?\b)\s*({_LIST}){_END}")
_HEAD = re.compile(rf"[\s>•-]*({_LIST}){_END}")
_INLINE = re.compile(rf"(?:\band\b|[,;&])\s*\(?([{LETTERS}])[.)]\s")
_ANYWHERE = re.compile(rf"({_LIST}){_END}")
_OPTION = re.compile(rf"^\s*\(?([{LETTERS}])[.)]\s*(.+?)\s*$", re.MULTILINE)
_NEXT = re.compile(r"\n\s*(?:Question|Document is as follows)\b")


def strict_letters(text: str, query: str = "") -> str:
    """The options that a text answers with, sorted; empty where it names none.

    The first of these that finds any: what the last "answer is" names; the options that begin the first run
    of lines that do; options quoted word for word; the one "option" that is named; the only label or list of
    labels in the text.
    """
    text = _NEXT.split(text)[0].strip()
    text = re.sub(r"\([a-d]\)|^[a-d](?=[.)]?$)", lambda found: found[0].upper(), text)
    said = _ANSWER_IS.findall(text)
    if said:
        return _letters_of(said[-1])
    heads = _headed_lines(text)
    if heads:
        return heads
    quoted = _quoted(text, query)
    if quoted:
        return quoted
    for pattern in (_OPTION_IS, _ANYWHERE):
        named = {_letters_of(found) for found in pattern.findall(text)}
        if len(named) == 1:
            return named.pop()
    return ""


def _letters_of(labels: str) -> str:
    return "".join(sorted(set(labels) & set(LETTERS)))


def _headed_lines(text: str) -> str:
    found: set[str] = set()
    for line in text.split("\n"):
        head = _HEAD.match(line)
        if head:
            found |= set(_letters_of(head[1])) | set(_INLINE.findall(line))
        elif found and line.strip():
            break
    return "".join(sorted(found))


def _quoted(text: str, query: str) -> str:
    options = {normalised(words).lower(): label for label, words in _OPTION.findall(query)}
    lines = [normalised(line).lower() for line in text.split("\n") if line.strip()]
    return "".join(sorted({options[line] for line in lines})) if lines and set(lines) <= options.keys() else ""


def _strict_choice(prediction: str, gold: str, query: str) -> Reading:
    """Exactly one letter answers a question that has one answer."""
    answer = strict_letters(prediction, query)
    return Reading(answer, float(answer == _first_letter(gold)))


def _strict_coursera(prediction: str, gold: str, query: str) -> Reading:
    answer = strict_letters(prediction, query)
    return Reading(answer, released_credit(answer, _gold_letters(gold)))


# strict: numbers


_NUMBER = re.compile(r"[-−]?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def strict_number(text: str) -> str:
    """The number that a text answers with, its $ and commas dropped; empty where it names none.

    The one behind its last `answer is`, else the last one of its last line.
    """
    text = re.split(r"\n\s*Question\b", text)[0].strip()
    said = re.findall(r"(?i:\banswer is\b|\\boxed\{|####)([^\n]*)", text)
    found = _NUMBER.findall(said[-1])[:1] if said else []
    found = found or _NUMBER.findall(text.split("\n")[-1])[-1:]
    return found[0].replace("−", "-").replace("$", "").replace(",", "") if found else ""


def _value(number: str) -> Fraction | None:
    over, _, under = number.partition("/")
    return Fraction(over) / int(under or 1) if over and int(under or 1) else None


def _strict_number(prediction: str, gold: str, query: str) -> Reading:
    answer = strict_number(prediction)
    value = _value(answer)
    return Reading(answer, float(value is not None and value == _value(strict_number(gold))))


# strict: the output of code


_FENCED = re.compile(r"```[a-z]*\n?(.*?)```", re.DOTALL)
_OUTPUT_IS = re.compile(r"(?i:\b(?:output|code prints)\b[^\n]*?(?:\b(?:is|be)\b|:))")
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def strict_output(text: str) -> str:
    """The output that a text names last, in one spelling; empty where it names none.

    What follows the last "output is" or "code prints", be it in a block; else the last block.
    """
    statements = [*_OUTPUT_IS.finditer(text)]
    if not statements:
        blocks = _FENCED.findall(text)
        return one_spelling(blocks[-1]) if blocks else ""
    stated = text[statements[-1].end() :]
    line, fence, _ = stated.partition("```")
    block = _FENCED.search(stated)
    if fence and block and "\n" not in line.strip(" \n:`"):
        return one_spelling(block[1])
    return one_spelling(_literal(stated.strip(" \n:").split("\n\n")[0]))


def _literal(stated: str) -> str:
    """The value that a sentence states: in brackets, backticks or quotes at its start, or behind `which is` or `:`."""
    stated = stated.strip()
    if re.match(r"(?:array\s*)?[\[({]", stated):
        return _balanced(stated)
    for quote in "`\"'":
        found = re.match(rf"{quote}(.*){quote}" if quote != "`" else r"`([^`\n]+)`", stated)
        if found:
            return found[1].split("=")[-1] if quote == "`" else found[1]
    inner = re.search(r"\bwhich (?:is|are)\b|\bthe (?:array|string|dictionary|tuple|list)\b|:\s", stated)
    if inner:
        return _literal(stated[inner.end() :])
    ticked = re.findall(r"`([^`\n]+)`", stated)
    if ticked:
        return ticked[-1].split("=")[-1]
    found = re.search(r"\"(.*)\"", stated)
    if found:
        return found[1]
    found = re.search(r"[\[{]", stated)
    return _balanced(stated[found.start() :]) if found else re.split(r"\.(?:\s|$)", stated)[0].split("=")[-1]


def _balanced(text: str) -> str:
    """The text up to where its first bracket closes."""
    depth: list[str] = []
    for place, sign in enumerate(text):
        if sign in _CLOSING:
            depth.append(_CLOSING[sign])
        elif depth and sign == depth[-1]:
            depth.pop()
            if not depth:
                return text[: place + 1]
    return text


def one_spelling(text: str) -> str:
    """`array([[1., 2]])`, `[[1 2]]`: the same value, the same text. Letters keep their case."""
    text = re.sub(r"\b(?:np\.|numpy\.)?array\s*\(", "(", text.strip(" \n`"))
    text = re.sub(r"^\w+\s*=\s*", "", text)
    text = re.sub(r"(?<![\w.])(-?\d+)\.0*(?![\w.])", r"\1", text)
    text = re.sub(r"\s*([\[\](){}])\s*", r"\1", text.replace(",", " "))
    while inner := re.fullmatch(r"\(([^()]*)\)|\"(.*)\"|'(.*)'", text):
        text = next(group for group in inner.groups() if group is not None)
    return " ".join(text.split())


def _strict_code(prediction: str, gold: str, query: str) -> Reading:
    answer = strict_output(prediction)
    return Reading(answer, float(bool(answer) and answer == one_spelling(gold)))


# strict: true or false


def strict_truth(text: str) -> str:
    """`true` or `false` as a text judges; empty where it says neither, or both."""
    text = re.sub(r"\btrue\s*(?:or|/)\s*false\b", " ", text.lower())
    found = set()
    for no, word in re.findall(r"(\b(?:not|isn't|n't)\s+(?:\w+\s+)?)?\b(true|false)\b", text):
        found.add(word if not no else {"true": "false", "false": "true"}[word])
    return found.pop() if len(found) == 1 else ""


def _strict_judgement(prediction: str, gold: str, query: str) -> Reading:
    return _judged([strict_truth(half) for half in _halves(prediction)], gold)


# What the released parser got wrong


def _misread_choice(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    if released.answer in (strict.answer, "None"):
        return None
    if not strict.answer:
        has_letter = any(sign in LETTERS for sign in prediction)
        return "a capital of a word where no answer is given" if has_letter else "A where no letter is given"
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
    if value == int(released.answer):
        return None
    if value == -int(released.answer):
        return "a minus dropped"
    return "a fraction cut off" if set("./") & set(strict.answer) else "another number than the answer"


def _misread_code(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    """By the credit: a window of words is no reading."""
    if released.credit == strict.credit:
        return None
    if strict.credit:
        return "the right output not found"
    if strict.answer.lower() == one_spelling(gold).lower():
        return "upper and lower case taken as equal"
    return "the gold found inside another output" if strict.answer else "the gold found where no output is named"


def _misread_judgement(prediction: str, gold: str, released: Reading, strict: Reading) -> str | None:
    if released.answer.replace(ERROR, "") == strict.answer or released.answer == f"{ERROR} [fact: {ERROR}]":
        return None
    return "the first of true and false in place of the judgement"


_Scorer = Callable[[str, str, str], Reading]

_SCORERS: dict[tuple[str, str], _Scorer] = {
    ("released", "coursera"): _released_coursera,
    ("released", "gsm100"): _released_number,
    ("released", "quality"): _released_choice,
    ("released", "tpo"): _released_choice,
    ("released", "codeu"): _released_code,
    ("released", "sci_fi"): _released_judgement,
    ("strict", "coursera"): _strict_coursera,
    ("strict", "gsm100"): _strict_number,
    ("strict", "quality"): _strict_choice,
    ("strict", "tpo"): _strict_choice,
    ("strict", "codeu"): _strict_code,
    ("strict", "sci_fi"): _strict_judgement,
}

_MISREADINGS: dict[str, Callable[[str, str, Reading, Reading], str | None]] = {
    "coursera": _misread_choice,
    "gsm100": _misread_number,
    "quality": _misread_choice,
    "tpo": _misread_choice,
    "codeu": _misread_code,
    "sci_fi": _misread_judgement,
}


def _has_letter(gold: str) -> bool:
    return any(sign in LETTERS for sign in gold)


_GOLD: dict[str, Callable[[str], bool]] = {
    "coursera": lambda gold: bool(_gold_letters(gold)),
    "gsm100": lambda gold: _value(strict_number(gold)) is not None,
    "quality": _has_letter,
    "tpo": _has_letter,
    "codeu": lambda gold: bool(gold.strip()),
    "sci_fi": lambda gold: all(_first_truth(half) != ERROR for half in _halves(gold)),
}
_GOLD_RULE = {
    "coursera": "letters A to D",
    "gsm100": "a number",
    "quality": "an option A to D",
    "tpo": "an option A to D",
    "codeu": "some output",
    "sci_fi": "True or False, then [fact: True or False]",
}
