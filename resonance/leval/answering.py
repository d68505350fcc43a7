"""All questions of one model and encoding, answered: from the gathered tasks to a folder of predictions.

Answers are written down as they come, in a journal outside that folder, so that a killed run goes on where
it was; the folder appears when every question is answered. The journal lies under a hash of all that the
answers depend on: another model, encoding, protocol or question begins one of its own.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from resonance.leval import files, questions
from resonance.leval.settings import AnswerRun, Prompts
from resonance.llm.generate import answers
from resonance.llm.text import Tokenizer
from resonance.record.files import alone, check_replaceable, disk_errors, sums
from resonance.record.identity import digest, identity
from resonance.record.journal import Journal
from resonance.record.progress import Progress

UNIT = ("task", "question")
"""What a line of a journal is about."""


@dataclass(frozen=True)
class Asking:
    """How questions are asked, beside the model and the task. budget: a document's tokens; exact: as in `answers`."""

    texts: Prompts
    family: str
    budget: int
    max_new_tokens: int = files.MAX_NEW_TOKENS
    batch_size: int = 1
    exact: bool = True


def answer_task(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    task: str,
    documents: Sequence[files.Document],
    asking: Asking,
    journal: Journal,
    report: Callable[[int], None] = lambda done: None,
) -> None:
    """Every question of a task that the journal lacks, answered into it as the answers come.

    Questions on the same text share its prefill, though they be of several documents (gsm100's worked
    examples). report: called with how many questions stand in the journal.
    """
    ends = ends_of(tokenizer, asking.texts, asking.family)
    by_text: dict[str, list[files.Question]] = {}
    for document in documents:
        left = [question for question in document.questions if (task, question.number) not in journal.rows]
        by_text.setdefault(document.text, []).extend(left)

    def said(asked: list[str]) -> Iterator[str]:
        beginning = [] if tokenizer.bos is None else [tokenizer.bos]
        ids = [beginning + tokenizer.encode(prompt) for prompt in asked]
        options = {"max_new_tokens": asking.max_new_tokens, "batch_size": asking.batch_size, "exact": asking.exact}
        return map(tokenizer.decode, answers(model, ids, ends=ends, **options))

    for text, left in by_text.items():
        if not left:
            continue
        cut = files.truncated(text, asking.budget, lambda part: len(tokenizer.encode(part)), task)
        asked = [files.prompts(asking.texts, asking.family, task, cut, question.text) for question in left]
        # The prompts behind the first (sci_fi's facts) hold no document: all of them before the long ones.
        more = [list(said(list(later))) for later in zip(*(prompt[1:] for prompt in asked), strict=True)]
        for place, (question, first) in enumerate(zip(left, said([prompt[0] for prompt in asked]), strict=True)):
            answer = files.answer_of(task, [first, *(later[place] for later in more)])
            row = {"task": task, "question": question.number, "query": question.text, "gt": question.gold}
            journal.append(row | {"prediction": answer})
            report(len(journal.rows))


def ends_of(tokenizer: Tokenizer, texts: Prompts, family: str) -> frozenset[int]:
    """The tokens that end an answer: the end of text, and what the family ends a turn with.

    Raises ValueError where the tokenizer does not know the latter.
    """
    ends, stop = {tokenizer.eos} - {None}, texts.families[family].stop
    if stop is not None:
        ids = tokenizer.encode(stop)
        if len(ids) != 1:
            raise ValueError(f"family must be that of the model, got {family}, whose {stop} its tokenizer lacks")
        ends.add(ids[0])
    return frozenset(ends)


def answer(
    run: AnswerRun,
    made_of: Mapping[str, object],
    code: Iterable[str],
    make_model: Callable[[], torch.nn.Module],
    tokenizer: Tokenizer,
    tasks_folder: Path,
    predictions: Path,
    journals: Path,
) -> dict:
    """Answer every question that no journal holds, then put the journals' files into `predictions`.

    made_of    what the answers depend on beside the run and the questions: weights and encoding
    code       the code that answers (`record.identity`)

    Returns what the record says: the tasks, how their documents were cut, how many answers were found.
    Raises ValueError, one line, where memory does not suffice.
    """
    check_replaceable(predictions, "*.jsonl")
    listed, tasks = questions.read(tasks_folder)
    asked_of = {"run": run.model_dump(mode="json"), **made_of}
    asked_of["questions"] = {name: known["sha256"] for name, known in listed["tasks"].items()}
    ours = digest(identity(asked_of, code))
    asked = {name: documents[: run.documents] for name, documents in tasks.found.items()}
    budget = files.document_budget(run.context)
    asking = Asking(
        texts=run.prompts,
        family=run.family,
        budget=budget,
        max_new_tokens=run.max_new_tokens,
        batch_size=run.batch_size,
        exact=run.prefill == "exact",
    )
    counts = {name: sum(len(document.questions) for document in documents) for name, documents in asked.items()}
    total, folder = sum(counts.values()), Path(journals) / ours
    with ExitStack() as stack:
        stack.enter_context(alone(folder))
        opened = {name: stack.enter_context(Journal(folder / f"{name}.jsonl", ours, UNIT)) for name in asked}
        found = sum(len(journal.rows) for journal in opened.values())
        model = make_model()
        progress = stack.enter_context(Progress(f"answers of {run.model}", total, found=found))

        def report(_: int) -> None:
            progress.report(sum(len(journal.rows) for journal in opened.values()))

        for name, documents in asked.items():
            if opened[name].repaired:
                print(f"{opened[name].path}: the torn last line is cut off, its question asked again", flush=True)
            try:
                answer_task(model, tokenizer, name, documents, asking, opened[name], report)
            except torch.OutOfMemoryError:
                raise ValueError(
                    f"out of memory over {name}; lower leval.batch_size from {run.batch_size} or the context from "
                    f"{run.context}; the answers so far are kept"
                ) from None
    half = Path(predictions).with_name(f".{Path(predictions).name}.half")
    for left in (half, predictions):
        shutil.rmtree(left, ignore_errors=True)
    with disk_errors(predictions):
        shutil.copytree(folder, half)
        half.rename(predictions)
    return {
        "files": sums(predictions),
        "digest": ours,
        "source": listed["source"],
        "revision": listed["revision"],
        "missing": listed["missing"],
        "budget": budget,
        "answers_found": found,
        "tasks": {
            name: {"questions": counts[name], **_sizes(tokenizer, documents, budget, name)}
            for name, documents in asked.items()
        },
    }


def _sizes(tokenizer: Tokenizer, documents: tuple[files.Document, ...], budget: int, task: str) -> dict:
    """How long the documents of a task are, in tokens, and how many were cut to the budget."""

    def count(text: str) -> int:
        return len(tokenizer.encode(text))

    whole = [count(document.text) for document in documents]
    kept = [count(files.truncated(document.text, budget, count, task)) for document in documents]
    return {
        "documents": len(documents),
        "cut": sum(a < b for a, b in zip(kept, whole, strict=True)),
        "tokens": {"least": min(kept), "mean": round(sum(kept) / len(kept)), "most": max(kept)},
    }
