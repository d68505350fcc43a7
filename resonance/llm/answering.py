"""All questions of one model and encoding, answered: from the gathered tasks to a folder of predictions.

Answers are written down as they come, in a journal outside that folder, so that a killed run goes on where
it was; the folder appears when every question is answered. The journal lies under a hash of all that the
answers depend on: another model, encoding, protocol or question begins one of its own.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from resonance.llm import leval, questions
from resonance.llm.generate import Asking, answer_task
from resonance.llm.journal import Journal, digest_of
from resonance.llm.progress import Progress
from resonance.llm.text import Tokenizer
from resonance.record.leval_settings import AnswerRun


def answer(
    run: AnswerRun,
    identity: dict,
    make_model: Callable[[], torch.nn.Module],
    tokenizer: Tokenizer,
    tasks_folder: Path,
    predictions: Path,
    journals: Path,
) -> dict:
    """Answer every question that no journal holds, then put the journals' files into `predictions`.

    identity   what the answers depend on beside the run and the questions: weights and encoding

    Returns what the record says: the tasks, how their documents were cut, how many answers were found.
    Raises ValueError, one line, where memory does not suffice.
    """
    listed, tasks = questions.read(tasks_folder)
    files = {name: known["sha256"] for name, known in listed["tasks"].items()}
    digest = digest_of({"run": run.model_dump(mode="json"), "questions": files, **identity})
    asked = {name: documents[: run.documents] for name, documents in tasks.found.items()}
    budget = leval.document_budget(run.context)
    asking = Asking(
        texts=run.prompts,
        family=run.family,
        budget=budget,
        max_new_tokens=run.max_new_tokens,
        batch_size=run.batch_size,
        exact=run.prefill == "exact",
    )
    counts = {name: sum(len(document.questions) for document in documents) for name, documents in asked.items()}
    total, folder = sum(counts.values()), Path(journals) / digest
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(f"answers of {run.model}", total))
        opened = {name: stack.enter_context(Journal(folder / f"{name}.jsonl", digest)) for name in asked}
        found = sum(len(journal.done) for journal in opened.values())
        model, started = make_model(), time.perf_counter()

        def report(_: int) -> None:
            done = sum(len(journal.done) for journal in opened.values())
            seconds = (time.perf_counter() - started) * (total - done) / (done - found)
            progress.report(done, f"about {seconds / 60:.1f} min left")

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
    shutil.rmtree(predictions, ignore_errors=True)
    shutil.copytree(folder, predictions)
    return {
        "digest": digest,
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


def discard(journals: Path) -> None:
    """Remove the journals of a run whose predictions and record are written."""
    shutil.rmtree(journals, ignore_errors=True)


def _sizes(tokenizer: Tokenizer, documents: tuple[leval.Document, ...], budget: int, task: str) -> dict:
    """How long the documents of a task are, in tokens, and how many were cut to the budget."""

    def count(text: str) -> int:
        return len(tokenizer.encode(text))

    whole = [count(document.text) for document in documents]
    kept = [count(leval.truncated(document.text, budget, count, task)) for document in documents]
    return {
        "documents": len(documents),
        "cut": sum(a < b for a, b in zip(kept, whole, strict=True)),
        "tokens": {"least": min(kept), "mean": round(sum(kept) / len(kept)), "most": max(kept)},
    }
