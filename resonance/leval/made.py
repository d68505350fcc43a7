"""Questions of ours in L-Eval's format: which word ends this line of the play? A stand-in where L-Eval's files are not.

The document is the beginning of a play. A question quotes one of its lines without the last word and offers four
words that end lines of the document; the answer is begun with the line, so that a small model, which cannot yet
follow an instruction over thousands of tokens, has only to go on as the document does. One line is asked about in
every stretch of the document, near and far. Of the four lines drawn for a question each is as likely to be the one
that is asked about, so a guess among the words is right in a quarter of the cases; how much language alone tells
is what `line_end_blind` measures, the same questions without the document.
"""

import re
from collections.abc import Iterable

import numpy as np

from resonance.leval.settings import NUM_OPTIONS, MadeQuestions

SEEN, BLIND = "line_end", "line_end_blind"
QUESTION = 'Which of {options} ends this line of the play: "{line} ..."'
_LEAST_WORDS = 6
"""Words of a line that is asked about."""
_LEAST_LETTERS = 4
"""Letters of its last word."""


def document_of(play: str, words: int) -> list[str]:
    """The first whole lines with `words` words or more; empty where the play has fewer."""
    kept, count = [], 0
    for line in play.split("\n"):
        kept.append(line.rstrip())
        count += len(line.split())
        if count >= words:
            return kept
    return []


def last_word(line: str) -> str | None:
    """The word that a line can be asked for by; None for a line that is too short or holds quotes or directions."""
    words = line.split()
    found = re.fullmatch(rf"([A-Za-z]{{{_LEAST_LETTERS},}})\W*", words[-1]) if len(words) >= _LEAST_WORDS else None
    return found[1].lower() if found and not re.search(r'["\[\]_]', line) else None


def row_of(title: str, play: str, asked: MadeQuestions, draw: np.random.Generator) -> dict | None:
    """One document with its questions, in L-Eval's keys; None for a play with too few words or lines."""
    kept = document_of(play, asked.words)
    text = "\n".join(kept)
    stretches: list[list[tuple[str, str]]] = [[] for _ in range(asked.questions)]
    for number, line in enumerate(kept):
        word, beginning = last_word(line), line.strip().rpartition(" ")[0]
        if word and text.count(beginning) == 1:
            stretches[number * asked.questions // len(kept)].append((beginning, word))
    every = [pair for stretch in stretches for pair in stretch]
    if not all(stretches):
        return None
    instructions, outputs = [], []
    for stretch, place in zip(stretches, draw.permutation(np.arange(asked.questions) % NUM_OPTIONS), strict=True):
        line, word = stretch[draw.integers(len(stretch))]
        options = [word]
        for i in draw.permutation(len(every)):
            other = every[i][1]
            if len(options) < NUM_OPTIONS and not any(other in known or known in other for known in options):
                options.append(other)
        if len(options) < NUM_OPTIONS:
            return None
        options[0], options[place] = options[place], options[0]
        named = f"{', '.join(options[:-1])} and {options[-1]}"
        instructions.append(QUESTION.format(options=named, line=line))
        outputs.append(word)
    return {"instructions": instructions, "outputs": outputs, "input": text, "source": title, "evaluation": "exam"}


def make_rows(plays: Iterable[tuple[str, str]], asked: MadeQuestions) -> list[dict]:
    """The lines of the task's file, from the first plays in their order that have what it takes.

    Raises ValueError where too few have.
    """
    rows = []
    for number, (title, play) in enumerate(plays):
        row = row_of(title, play, asked, np.random.default_rng([asked.seed, number]))
        if row is not None:
            rows.append(row)
        if len(rows) == asked.documents:
            return rows
    raise ValueError(
        f"leval.made: text {asked.text} must hold {asked.documents} documents of {asked.words} words with a line to "
        f"ask about in each of {asked.questions} stretches, got {len(rows)}; ask for less of it"
    )


def blind(rows: list[dict]) -> list[dict]:
    """The same questions without their documents."""
    return [row | {"input": "(not given)"} for row in rows]


def options_of(question: str) -> list[str]:
    """The four words that a question of ours offers; empty for another's."""
    found = re.fullmatch(QUESTION.format(options="(.+?)", line=".*").replace(" ...", r" \.\.\."), question, re.DOTALL)
    return re.split(r", | and ", found[1]) if found else []


def begun(question: str) -> str:
    """The line that a question of ours quotes, with which its answer is begun."""
    return question.partition('"')[2].removesuffix(' ..."')
