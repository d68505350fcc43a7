"""Writing files whole: beside their place, then renamed into it. A reader never sees half a file."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, flushed to disk and renamed to it on success, else removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def discard_leftovers(folder: Path) -> None:
    """Remove what `replacing` could not, because its process was killed inside it."""
    for left in Path(folder).glob(".*.*"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}(\.\w+)?", left.name) and left.is_file():
            left.unlink()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: dict) -> None:
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict:
    """Raises ValueError for a file that is not whole JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}; delete it and run the rule again") from None


def read_json_lines(path: Path) -> tuple[list[tuple[int, dict]], bool]:
    """(line number, object) of a JSONL file, and whether its last line is torn: cut off within an object.

    Blank lines are passed over. Raises ValueError for a line that is no object, unless it is a torn last one.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    raw = Path(path).read_bytes()
    rows: list[tuple[int, dict]] = []
    pieces = raw.split(b"\n")
    for place, piece in enumerate(pieces, start=1):
        if not piece.strip():
            continue
        try:
            row = json.loads(piece.decode("utf-8"))
        except ValueError as error:  # bad JSON, and bad UTF-8 too
            if place == len(pieces):
                return rows, True
            raise ValueError(f"{path}:{place}: not a line of JSON: {error}") from None
        except RecursionError:
            raise ValueError(f"{path}:{place}: not a line of JSON: brackets too deep") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{place}: must be a JSON object, got {type(row).__name__}")
        rows.append((place, row))
    return rows, False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256(path: Path) -> str:
    """Of a file's bytes, read a piece at a time."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
