"""Writing files whole: beside their place, then renamed into it, a checksum within; and reading what is whole alone.

A file that is sealed holds the SHA-256 of its own bytes, these digits taken as zeros: rows, weights and JSON alike, at
any place in them. So damage is noticed before any library sees it.
"""

import errno
import fcntl
import hashlib
import json
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

UNSEALED = f"file-sha256={64 * '0'}"
"""What a writer puts into a file, once, for `replacing` to seal."""
_SEAL = re.compile(rb"file-sha256=([0-9a-f]{64})")
SUMS = "SHA256SUMS"
"""Beside files that were kept before there were seals: `sha256sum`'s list, which vouches for them."""


@contextmanager
def replacing(path: Path, *, sealed: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, flushed to disk and renamed to it on success, else removed.

    sealed  the file holds UNSEALED, which becomes its checksum

    Raises OSError, which names `path`, where the disk does not take it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # root may rename over /dev/null
        raise ValueError(f"{path} must be a file to write, got a folder or a device; name another")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                if sealed:
                    _seal(file)
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A folder, made if need be, that no other process works in; held until the end, however the process ends.

    Raises ValueError where one does. A file system without locks holds nothing.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"{folder}: another process is at work there; wait until it has ended") from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(descriptor)


DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Errors of a disk that takes no more."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A disk that is full or read-only as an OSError that names `path`, whatever library noticed it."""
    try:
        yield
    except OSError as error:
        ours = error.filename and Path(os.fsdecode(error.filename)).name.startswith(f".{Path(path).name}.")
        if error.errno in DISK or ours:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise
    except Exception as error:  # safetensors, polars, tokenizers and torch have their own, with the number in a text
        found = re.search(r"os error (\d+)", str(error))
        if found or "PytorchStreamWriter failed" in str(error) or "unexpected pos" in str(error):
            number = int(found[1]) if found else errno.ENOSPC
            raise OSError(number, os.strerror(number), str(path)) from None
        raise


def _seal(file) -> None:
    with mmap.mmap(file.fileno(), 0) as opened:
        places = list(_SEAL.finditer(opened))
        if len(places) != 1:
            raise ValueError(f"a sealed file must hold {UNSEALED[:12]} once, got {len(places)}")
        start, end = places.pop().span(1)
        opened[start:end] = _digest(opened, start).encode()
        opened.flush()


def _digest(opened: mmap.mmap, start: int) -> str:
    """SHA-256 of a file whose checksum starts at `start`, that taken as zeros."""
    with memoryview(opened) as view, view[:start] as before, view[start + 64 :] as after:
        found = hashlib.sha256(before)
        found.update(64 * b"0")
        found.update(after)
    return found.hexdigest()


def check_seal(path: Path) -> None:
    """Raises ValueError, one line, for a file that is damaged, cut short, or nobody's who seals; FileNotFoundError."""
    path = Path(path)
    cure = "delete it and run the rule again"
    if path.is_dir():
        raise ValueError(f"{path} must be a file, got a folder; move it away and run the rule again")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; run the workflow to make it") from None
    sound = None
    if size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as opened:
            found = _SEAL.search(opened)
            sound = None if found is None else _digest(opened, found.start(1)).encode() == found[1]
            del found  # it holds the map open
    if sound is None and path.with_name(SUMS).exists():
        listed = re.findall(r"^([0-9a-f]{64}) [ *](.*)$", path.with_name(SUMS).read_text("utf-8"), re.MULTILINE)
        known = {name: digest for digest, name in listed}
        sound = known[path.name] == sha256(path) if path.name in known else None
    if sound is None:
        raise ValueError(f"{path} must hold a checksum, got none: cut short, or another program's file; {cure}")
    if not sound:
        raise ValueError(f"{path} is damaged: its bytes are not those of its checksum; {cure}")


def check_replaceable(folder: Path, names: str) -> None:
    """Raises ValueError for a folder that a command would replace and that holds more than such files as it writes."""
    folder = Path(folder)
    inside = [path for path in folder.iterdir() if path.name != ".snakemake_timestamp"] if folder.is_dir() else []
    if other := sorted(path.name for path in inside if path.is_dir() or not fnmatch(path.name, names)):
        raise ValueError(f"{folder} must be a new folder, got one that holds {other[0]}; name another, or move it away")


def discard_leftovers(folder: Path) -> None:
    """Remove what `replacing` could not, because its process was killed inside it."""
    for left in Path(folder).glob(".*.*"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}(\.\w+)?", left.name) and left.is_file():
            left.unlink()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: dict) -> None:
    write_text(path, _json(values))


def _json(values: dict) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def write_record(path: Path, kind: str, values: dict) -> None:
    """JSON about a run, sealed; kind: what it is about."""
    with replacing(path, sealed=True) as temporary:
        temporary.write_text(_json(values | {"kind": kind, "checksum": UNSEALED}), encoding="utf-8")


def read_record(path: Path, kind: str) -> dict:
    """What `write_record` wrote. Raises as `check_seal`, and ValueError for a record of another kind."""
    check_seal(path)
    values = read_json(path)
    if values.pop("kind", None) != kind or not values.pop("checksum", None):
        raise ValueError(f"{path} must be a record of {kind}, got another file; delete it and run the rule again")
    return values


def read_json(path: Path) -> dict:
    """Raises ValueError for a file that is no JSON object."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}; delete it and run the rule again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(values).__name__}; run the rule again")
    return values


def read_json_lines(path: Path) -> tuple[list[tuple[int, dict]], bool]:
    """(line number, object) of a JSONL file, and whether its last line is torn: cut off within an object.

    Blank lines are passed over. Raises ValueError for a line that is no object, unless it is a torn last one.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: {'not a file; name one' if Path(path).exists() else 'no such file'}")
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


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by name; of weights and the like, which other programs write. Hidden files,
    such as Snakemake's time stamp, are nobody's weights."""
    return {path.name: sha256(path) for path in sorted(Path(folder).glob("[!.]*")) if path.is_file()}


def check_sums(folder: Path, known: dict[str, str]) -> None:
    """Raises ValueError where a folder's files are not those whose `sums` were written down."""
    found = sums(folder)
    if other := [name for name in sorted(known | found) if known.get(name) != found.get(name)]:
        raise ValueError(
            f"{Path(folder) / other[0]} must be the file that was written there, got another, a damaged one or none; "
            "delete the folder and run the rule again"
        )


def sha256(path: Path) -> str:
    """Of a file's bytes, read a piece at a time."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
