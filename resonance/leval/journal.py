"""Predictions as they come: one JSON line each, appended and flushed to disk, keyed by task and question.

A killed run leaves at most one torn last line, which is cut off when the journal is opened again: nothing
that was written whole is lost, and nothing is asked twice. Every line carries the hash of what made it; a
file of another hash is refused, so that no run goes on with another's answers.
"""

import hashlib
import json
import os
from pathlib import Path

from resonance.record.files import disk_errors, read_json_lines


def _sum(row: dict) -> str:
    """Of one line, so that a damaged answer is no answer."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The predictions of one run in one file. Open in a `with`; `done` holds the keys that stand in it."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = Path(path), digest
        self.done: set[tuple[str, int]] = set()
        self.repaired = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._read()
        except BaseException:
            os.close(self._file)
            raise

    def _read(self) -> None:
        raw = self.path.read_bytes()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
            self.repaired = True
        for place, row in read_json_lines(self.path)[0]:
            key = (row.get("task"), row.get("question"))
            if row.pop("sum", None) != _sum(row):
                raise ValueError(
                    f"{self.path}:{place}: is damaged: its sum is another; move the file away, answer again"
                )
            if row.get("hash") != self.digest:
                raise ValueError(
                    f"{self.path}:{place}: must be of the run {self.digest}, got {row.get('hash')!r}: another model, "
                    "encoding or protocol wrote it; move it away"
                )
            if key in self.done:
                raise ValueError(f"{self.path}:{place}: question {key[1]} of {key[0]} stands there twice")
            self.done.add(key)

    def append(self, task: str, question: int, query: str, gold: str, prediction: str) -> None:
        """One answer, on disk when this returns. Raises ValueError for a question that is there already."""
        if (task, question) in self.done:
            raise ValueError(f"{self.path}: question {question} of {task} is answered already")
        row = {"task": task, "question": question, "hash": self.digest, "query": query, "gt": gold}
        row |= {"prediction": prediction}
        line = json.dumps(row | {"sum": _sum(row)}).encode() + b"\n"
        with disk_errors(self.path):
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        self.done.add((task, question))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
