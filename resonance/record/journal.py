"""What a long job has done, as it goes: one JSON line a unit of its work, appended and flushed to disk.

A killed run leaves at most one torn last line, which is cut off when the journal is opened again: nothing
that was written whole is lost, and nothing is done twice. Every line carries the hash of what made it; a
file of another hash is refused, so that no run goes on with another's work.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from resonance.record.files import disk_errors, read_json_lines


def _sum(row: Mapping) -> str:
    """Of one line, so that a damaged one is noticed."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The lines of one run in one file. Open in a `with`.

    digest  of all that the lines depend on (`record.identity`)
    unit    the fields of a line that name what it is about; `rows` holds the lines by their values
    """

    def __init__(self, path: Path, digest: str, unit: tuple[str, ...]) -> None:
        self.path, self.digest, self.unit = Path(path), digest, unit
        self.rows: dict[tuple, dict] = {}
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
            key = tuple(row.get(name) for name in self.unit)
            if row.pop("sum", None) != _sum(row):
                raise ValueError(
                    f"{self.path}:{place}: is damaged: its sum is another; move the file away and run again"
                )
            if row.get("hash") != self.digest:
                raise ValueError(
                    f"{self.path}:{place}: must be of the run {self.digest}, got {row.get('hash')!r}: another model, "
                    "encoding or protocol wrote it; move it away"
                )
            if key in self.rows:
                raise ValueError(f"{self.path}:{place}: {self._named(key)} stands there twice")
            self.rows[key] = row

    def append(self, row: Mapping[str, object]) -> None:
        """One unit, on disk when this returns. Raises ValueError for one that is there already."""
        key = tuple(row[name] for name in self.unit)
        if key in self.rows:
            raise ValueError(f"{self.path}: {self._named(key)} stands there already")
        row = {**row, "hash": self.digest}
        line = json.dumps(row | {"sum": _sum(row)}).encode() + b"\n"
        with disk_errors(self.path):
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        self.rows[key] = row

    def _named(self, key: tuple) -> str:
        return " ".join(f"{name} {value}" for name, value in zip(self.unit, key, strict=True))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def discard(journals: Path, ours: str) -> None:
    """Remove the journal of a run whose results are written; those of other runs stay."""
    shutil.rmtree(Path(journals) / ours, ignore_errors=True)
    with suppress(OSError):  # other runs'
        Path(journals).rmdir()
