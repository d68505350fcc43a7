"""Questions of ours in L-Eval's format: who says this line of the play? A stand-in where L-Eval's files are not.

The document is the beginning of a play; a question quotes the first line of one of its speeches and names four
of its speakers. The answer stands in the document, right before the line. A guess is right in a quarter of the
questions: the four are drawn alike, and one of them, each place as often, is the speaker whose line is drawn.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resonance.record.leval_settings import NUM_OPTIONS, MadeQuestions
from resonance.record.leval_tasks import MADE_TASKS

_SPEECH = re.compile(r"([A-Z][A-Z' ]+)\.[ \t]*\n(.+)", re.DOTALL)
_LEAST_LINES = 3
"""Lines that can be asked about, of every speaker who is an option."""
_LEAST_WORDS = 5
"""Words of a line that is asked about."""

QUESTION = 'Which of {options} says this line: "{line}"'


@dataclass(frozen=True)
class Speech:
    speaker: str
    text: str


def speeches(play: str) -> list[Speech]:
    """The speeches of a play whose speakers stand in capitals, with a full stop, on a line of their own."""
    found = (_SPEECH.fullmatch(part.strip("\n")) for part in re.split(r"\n[ \t]*\n", play))
    return [Speech(match[1].strip(), match[2].strip()) for match in found if match]


def document_of(play: str, words: int) -> list[Speech]:
    """The first whole speeches with `words` words or more; empty where the play has fewer."""
    kept, count = [], 0
    for speech in speeches(play):
        kept.append(speech)
        count += len(speech.speaker.split()) + len(speech.text.split())
        if count >= words:
            return kept
    return []


def row_of(title: str, play: str, asked: MadeQuestions, draw: np.random.Generator) -> dict | None:
    """One line of a task's file; None for a play with too few words, speakers or lines."""
    kept = document_of(play, asked.words)
    text = "\n\n".join(f"{speech.speaker}.\n{speech.text}" for speech in kept)
    lines: dict[str, list[str]] = {}
    for speech in kept:
        line = speech.text.split("\n")[0].strip()
        plain = "[" not in line and '"' not in line and len(line.split()) >= _LEAST_WORDS
        if plain and text.count(line) == 1:
            lines.setdefault(speech.speaker, []).append(line)
    pool = sorted(speaker for speaker, own in lines.items() if len(own) >= _LEAST_LINES)
    instructions, outputs, places = [], [], draw.permutation(np.arange(asked.questions) % NUM_OPTIONS)
    for place in places:
        pool = [speaker for speaker in pool if lines[speaker]]
        if len(pool) < NUM_OPTIONS:
            return None
        options = [pool[i] for i in draw.permutation(len(pool))[:NUM_OPTIONS]]
        own = lines[options[place]]
        line = own.pop(int(draw.integers(len(own))))
        named = f"{', '.join(options[:-1])} and {options[-1]}"
        instructions.append(QUESTION.format(options=named, line=line))
        outputs.append(options[place])
    return {"instructions": instructions, "outputs": outputs, "input": text, "source": title, "evaluation": "exam"}


def options_of(question: str) -> list[str]:
    """The four names that a question of ours offers."""
    named = re.match(QUESTION.format(options="(.+?)", line=".*"), question, re.DOTALL)
    return re.split(r", | and ", named[1]) if named else []


def make_rows(plays: Iterator[tuple[str, str]], asked: MadeQuestions) -> list[dict]:
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
        f"leval.made: text {asked.text} must hold {asked.documents} plays with {asked.words} words, {asked.questions} "
        f"lines to ask about and {NUM_OPTIONS} speakers in capitals, got {len(rows)}; ask for less of it"
    )


TASK = next(iter(MADE_TASKS))
