"""L-Eval's closed-ended tasks: their files, their prompts, and other people's predictions. No model, no torch.

A task is one JSONL file, a document with many questions a line. Everything here is a pure function of such
files; generation is another room.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from resonance.leval import made, scoring
from resonance.leval.catalogue import ALL_TASKS, MADE_TASKS, PARSERS, TASKS
from resonance.leval.settings import EXAM, Prompts
from resonance.record.files import read_json_lines

MAX_NEW_TOKENS = 512
"""L-Eval's longest answer, in tokens."""

_CUT_STEP = 250
_EXAM_REQUEST = "Please directly give the answer without any additional output or explanation"
_FACT_REQUEST = "Please directly answer without any additional output or explanation."
_BY_THE_STORY = "based on the world described in the document."
_BY_FACTS = "based on the real-world knowledge and facts up until your last training"


@dataclass(frozen=True)
class Question:
    """One question with its gold; `number` counts through the task, over all documents."""

    number: int
    text: str
    gold: str


@dataclass(frozen=True)
class Document:
    text: str
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Tasks:
    """What a folder holds of the tasks asked for, and the names of those it does not."""

    found: dict[str, tuple[Document, ...]]
    missing: tuple[str, ...]


def read_tasks(folder: Path, names: Iterable[str] = tuple(TASKS)) -> Tasks:
    """NAME.jsonl of every task asked for, upper and lower case alike (codeU.jsonl is codeu).

    A task without a file is named in `missing`. Raises ValueError for an unknown name, for a folder with
    none of them, or for a file that is not whole.
    """
    folder, names = Path(folder), list(names)
    for name in names:
        if name not in ALL_TASKS:
            raise ValueError(f"task must be one of {', '.join(ALL_TASKS)}, got {name!r}")
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with L-Eval's closed-ended tasks as JSONL, got no such folder")
    files = {path.stem.lower(): path for path in sorted(folder.glob("*.jsonl"))}
    found = {name: read_task(files[name]) for name in names if name in files}
    if not found:
        raise ValueError(f"{folder} must hold at least one of {', '.join(f'{name}.jsonl' for name in names)}, got none")
    return Tasks(found, tuple(name for name in names if name not in files))


def read_task(path: Path) -> tuple[Document, ...]:
    """The documents of one task's file. Raises ValueError: path, line, rule."""
    lines, torn = read_json_lines(path)
    if torn:
        raise ValueError(f"{path}: its last line is torn; get the file again")
    documents, count = [], 0
    for place, row in lines:
        instructions, outputs = row.get("instructions"), row.get("outputs")
        if not _texts(instructions) or not _texts(outputs) or not isinstance(row.get("input"), str):
            raise ValueError(f"{path}:{place}: must have input (text), instructions and outputs (lists of text)")
        if len(instructions) != len(outputs):
            raise ValueError(
                f"{path}:{place}: must have an output for every instruction, got {len(outputs)} for {len(instructions)}"
            )
        pairs = enumerate(zip(instructions, outputs, strict=True), start=count)
        questions = tuple(Question(number, text, gold) for number, (text, gold) in pairs)
        count += len(questions)
        documents.append(Document(row["input"], questions))
    if not count:
        raise ValueError(f"{path}: must hold at least one question, got none")
    return tuple(documents)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


# Prompts


def document_budget(context: int) -> int:
    """Tokens of a document in a context of `context` positions: int(k * 1000) - 512 for k thousand (of 1,024)."""
    budget = int(context / 1024 * 1000) - MAX_NEW_TOKENS
    if budget < 1:
        raise ValueError(f"context must leave room for a document beside {MAX_NEW_TOKENS} new tokens, got {context}")
    return budget


def truncated(document: str, budget: int, count_tokens: Callable[[str], int], task: str) -> str:
    """The document within its budget: its first words, or for codeu its last.

    While it is over budget it is cut to `budget` space-separated words, less 250 more each time.
    Raises ValueError if nothing is left before it fits.
    """
    cut = 0
    while count_tokens(document) > budget:
        keep = budget - cut
        if keep < 1:
            raise ValueError(f"a document of {task} does not fit into {budget} tokens, however short it is cut")
        words = document.split(" ")
        document = " ".join(words[-keep:] if task == "codeu" else words[:keep])
        cut += _CUT_STEP
    return document


def prompts(texts: Prompts, family: str, task: str, document: str, question: str) -> tuple[str, ...]:
    """The prompts of one question, in the order they are asked: one, and for sci_fi two."""
    turn = texts.families[family]
    opening = f"{turn.start}{texts.system_texts.get(task, texts.system_texts[EXAM])}{turn.between}"
    if task in ("gsm100", "codeu"):
        return (f"{opening}{document}\n\n{question}{turn.end_open}",)
    asked = f"{opening}Document is as follows. {document} \nQuestion: {question}.  {_EXAM_REQUEST}{turn.end}\nAnswer:"
    if task in MADE_TASKS:
        return (f"{asked} {made.begun(question)}",)
    if task != "sci_fi":
        return (asked,)
    return asked, f"{question.replace(_BY_THE_STORY, _BY_FACTS)} {_FACT_REQUEST} \nAnswer:"


def answer_of(task: str, outputs: Iterable[str]) -> str:
    """What a model said to a question's prompts, as one prediction: a trailing </s> off, sci_fi's facts appended."""
    said = [output.removesuffix("</s>").strip() for output in outputs]
    return f"{said[0]} [fact: {said[1]}]" if task == "sci_fi" else said[0]


# Predictions


@dataclass(frozen=True)
class Prediction:
    """What a model said to one question; `number` counts through the task."""

    number: int
    query: str
    gold: str
    text: str


@dataclass(frozen=True)
class Predictions:
    """One file of predictions. `torn`: its last line was cut off, and is not among the rows."""

    path: Path
    model: str
    task: str
    rows: tuple[Prediction, ...]
    torn: bool


def read_predictions(path: Path, task: str | None = None) -> Predictions:
    """Predictions as L-Eval writes them: JSONL with `query`, `gt` and one key that ends in `pred`.

    The task comes from the key `task`, else from the file's name; the argument wins. The model is the
    prediction key's, else the file's name. Lines come in the questions' order, unless they have the key
    `question`. Raises ValueError: path, line, rule.
    """
    lines, torn = read_json_lines(path)
    if not lines:
        raise ValueError(f"{path}: must hold at least one whole line, got {'a torn one' if torn else 'none'}")
    task = (task or _task_of(Path(path), lines[0][1])).lower()
    if task not in ALL_TASKS:
        raise ValueError(f"--task must be one of {', '.join(ALL_TASKS)}, got {task!r}")
    most = ALL_TASKS[task].num_questions or sys.maxsize
    if len(lines) > most:
        raise ValueError(
            f"{path}: {task} has {most} questions, got {len(lines)} lines: another task, or several runs in one file"
        )
    keys = [key for key in lines[0][1] if key == "prediction" or key.endswith("pred")]
    if len(keys) != 1:
        raise ValueError(f"{path}: must have one key that ends in pred, got {', '.join(keys) or 'none'}")
    rows: dict[int, Prediction] = {}
    for place, row in lines:
        gold, text, query = row.get("gt", row.get("gold")), row.get(keys[0]), row.get("query", "")
        if not isinstance(gold, str) or not isinstance(text, str) or not isinstance(query, str):
            raise ValueError(f"{path}:{place}: must have gt and {keys[0]}, both text (and query, if any, text)")
        number = row.get("question", len(rows))
        if not isinstance(number, int) or not 0 <= number < most or number in rows:
            raise ValueError(f"{path}:{place}: question must be a number that the task has, once each, got {number!r}")
        if row.get("hash") != lines[0][1].get("hash"):
            raise ValueError(f"{path}:{place}: must be of the same run as the line before, got another hash")
        rows[number] = Prediction(number, query, gold, text)
    model = keys[0].removesuffix("pred").rstrip("_") or Path(path).name.split(".jsonl")[0]
    return Predictions(Path(path), model, task, tuple(rows[number] for number in sorted(rows)), torn)


def _task_of(path: Path, row: dict) -> str:
    named = row.get("task")
    names = [named.lower()] if isinstance(named, str) else path.name.lower().split(".")
    found = [task for task in ALL_TASKS if task in names]
    found = found or [task for task in ALL_TASKS if task in path.name.lower()]
    if len(found) != 1:
        raise ValueError(f"{path}: its name must hold one task of {', '.join(ALL_TASKS)}; say which it is with --task")
    return found[0]


def score_rows(predictions: Predictions) -> list[dict]:
    """One row a question and parser: what was read, the credit, and how `released` misread it, if it did."""
    rows = []
    for row in predictions.rows:
        try:
            read = {
                parser: scoring.score(parser, predictions.task, row.text, row.gold, row.query) for parser in PARSERS
            }
        except ValueError as error:
            raise ValueError(f"{predictions.path}: question {row.number + 1}: {error}") from None
        kind = scoring.misreading(predictions.task, row.text, row.gold, read["released"], read["strict"])
        rows += [
            {
                "task": predictions.task,
                "question": row.number,
                "parser": parser,
                "gold": row.gold,
                "answer": reading.answer,
                "misread": kind if parser == "released" else None,
                "metric": "credit",
                "value": reading.credit,
            }
            for parser, reading in read.items()
        ]
    return rows
