"""The strict parser of L-Eval's closed-ended answers: what a text says its answer is. Text in, text out.

Every reader returns an empty text where no answer is given; none of them guesses.
"""

import re
import string

LETTERS = "ABCD"
"""The options of a multiple-choice question."""


# choices


# Every repetition has a bound, so that no text, however odd, takes long to read.
_MARKUP = r"[(\[*_`\"']{0,6}"
_LABEL = rf"{_MARKUP}(?<![\w'’])(?:[{LETTERS}]{{1,4}})(?![\w'’\[])[)\].*_`\"':]{{0,6}}"
_LIST = rf"{_LABEL}(?:\s{{0,9}}(?:,\s{{0,9}}and\b|,\s{{0,9}}or\b|\band\b|\bor\b|[,;&/+])\s{{0,9}}{_LABEL}){{0,30}}"
# What may follow a list of labels: not a lowercase word, before which "A" is an article.
_END = r"(?=\s{0,9}$|\s{0,9}\n|(?<=[)\].:*_`\"'])|\s{0,9}[-–—(,;!]|\s{1,9}(?i:is|are|because|since)\b)"
_ANSWER_IS = re.compile(
    r"(?i:\b(?:answers?|(?:correct|right|best) (?:option|choice|letter)s?)\b[^.\n]{0,80}?(?:\b(?:is|are|be)\b|[:=-])"
    r"[ ]{0,3}(?:the )?(?:(?:option|choice|letter)s?\b)?[ ]{0,3}:?)[ ]{0,3}"
    rf"({_LIST}){_END}"
)
_OPTION_IS = re.compile(rf"(?i:\b(?:answer|option|choice)s?\b)\s{{0,9}}({_LIST}){_END}")
_HEAD = re.compile(rf"[\s>•-]{{0,9}}({_LIST}){_END}")
_INLINE = re.compile(rf"(?:\band\b|[,;&])\s*\(?([{LETTERS}])[.)]\s")
_ANYWHERE = re.compile(rf"({_LIST}){_END}")
_OPTION = re.compile(rf"^[ \t]{{0,9}}\(?([{LETTERS}])[.)][ \t]{{0,9}}(\S.*)$", re.MULTILINE)
_NEXT = re.compile(r"\n[ \t]{0,9}(?:Question|Document is as follows)\b")


def letters(text: str, query: str = "") -> str:
    """The options that a text answers with, sorted; empty where it names none.

    The first of these that finds any: what the last "answer is" names; the options that begin the first run
    of lines that do; options quoted word for word; the one "option" that is named; the only label or list of
    labels in the text.
    """
    text = _NEXT.split(text)[0].strip()
    text = re.sub(r"\\boxed\{([A-D]+)\}", r"\1", text).replace("$", "")
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


def _words(text: str) -> str:
    return "".join(sign for sign in text.lower() if sign not in string.punctuation).strip()


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
    """The options whose words are the whole of the text's lines."""
    options = {_words(words): label for label, words in _OPTION.findall(query)}
    lines = [_words(line) for line in text.split("\n") if line.strip()]
    return "".join(sorted({options[line] for line in lines})) if lines and set(lines) <= options.keys() else ""


# numbers


_NUMBER = re.compile(r"[-−]?\$?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?")
_AT_ONCE = re.compile(rf"[\s:*$(\[{{\\=]{{0,9}}({_NUMBER.pattern})")
_BEHIND_VERB = re.compile(rf".*(?:\b(?:is|was|are|were)\b|=)[\s:*$]{{0,9}}({_NUMBER.pattern})")


def number(text: str) -> str:
    """The number that a text answers with, its $ and commas dropped; empty where it names none.

    The one right behind its last `answer is`; where a sentence follows, the one behind its verb, else the sentence's
    last; without an `answer is` the last one of the last line.
    """
    text = re.split(r"\n[ \t]{0,9}Question\b", text)[0].strip()
    said = re.split(r"(?i:\banswer is\b|\\boxed\{|####)", text)
    found = []
    if len(said) > 1:
        line = said[-1].split("\n")[0]
        at_once = _AT_ONCE.match(line) or _BEHIND_VERB.match(line)
        found = [at_once[1]] if at_once else _NUMBER.findall(line)[-1:]
    found = found or _NUMBER.findall(text.split("\n")[-1])[-1:]
    return found[0].replace("−", "-").replace("$", "").replace(",", "") if found else ""


# the output of code


_FENCED = re.compile(r"```[a-z]*\n?(.*?)```", re.DOTALL)
_OUTPUT_IS = re.compile(r"(?i:\b(?:output|code prints)\b[^\n]*?(?:\b(?:is|be)\b|:))")
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def output(text: str) -> str:
    """The output that a text names last, in one spelling; empty where it names none.

    What follows the last "output is" or "code prints", be it in a block; else the last block. Markdown's backslashes
    before brackets are no part of it.
    """
    text = re.sub(r"\\(?=[\[\](){}])", "", text)
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
    text = re.sub(r"\s*([\[\](){}:])\s*", r"\1", text.replace(",", " "))
    while inner := re.fullmatch(r"\(([^()]*)\)|\"(.*)\"|'(.*)'", text):
        text = next(group for group in inner.groups() if group is not None)
    return " ".join(text.split())


# true or false


def truth(text: str) -> str:
    """`true` or `false` as a text judges; empty where it says neither, or both."""
    text = re.sub(r"\btrue\s*(?:or|/)\s*false\b", " ", text.lower())
    found = set()
    for no, word in re.findall(r"(\b(?:not|isn't|n't)\s+(?:\w+\s+)?)?\b(true|false)\b", text):
        found.add(word if not no else {"true": "false", "false": "true"}[word])
    return found.pop() if len(found) == 1 else ""


# one of some words


def named(text: str, options: list[str]) -> list[str]:
    """Those options that a text names as whole words, upper and lower case alike, sorted."""
    return sorted({word for word in re.findall(r"\w+", text.lower()) if word in options})
