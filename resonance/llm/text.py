"""Texts by source, tokenized and packed once: a memory-mapped row of tokens and a table of documents.

    tokens.bin          every document as BOS, tokens, EOS, one after the other; uint16 or uint32
    documents.parquet   where each lies, its SHA-256, and whether it is trained on or held out

A training sequence is a stretch of the training documents laid end to end, at whatever length is
asked: a change of length reads the same file. A held-out document shares no hash with a training
one; equal documents are packed once.

Legend: N tokens, T length of a sequence.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resonance.llm.rows import DOCUMENTS
from resonance.llm.settings import Text, TextRun
from resonance.record.files import replacing, sha256
from resonance.record.progress import Progress
from resonance.record.rows import read_rows, read_run, write_rows

BYTES = "bytes"
BYTE_BOS, BYTE_EOS, BYTE_VOCABULARY = 256, 257, 258
CHUNK = 65_536
"""Tokens of the released code's chunks (L9)."""


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back. `bos` and `eos` are None where the model has none."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    bos: int | None
    eos: int | None
    vocabulary: int

    @classmethod
    def of_bytes(cls) -> "Tokenizer":
        """UTF-8 bytes, then BOS and EOS."""
        return cls(lambda text: list(text.encode()), _text_of_bytes, BYTE_BOS, BYTE_EOS, BYTE_VOCABULARY)


def _text_of_bytes(ids: list[int]) -> str:
    """Without BOS and EOS; what is no UTF-8 becomes the replacement character."""
    return bytes(token for token in ids if token < BYTE_BOS).decode(errors="replace")


def documents(
    text: Text, folder: Path | None = None, commit: str | None = None
) -> Iterator[tuple[str, str | list[int]]]:
    """(title, text or token ids) of every document of a source, in a fixed order.

    folder  where a `pypi:` source was unpacked
    commit  of an `hf:` source, where it is known already

    Raises ValueError, one line, for a folder without documents, a missing column, package or hub.
    """
    kind, _, name = text.source.partition(":")
    if kind == "hf":
        found = _from_hub(name, text, commit)
    else:
        root = Path(name) if kind == "path" else folder
        if root is None or not root.is_dir():
            raise ValueError(f"source {text.source}: no such folder {root}; fetch it, or mend the path")
        found = _from_folder(root, text)
    for count, document in enumerate(found):
        if text.max_documents is not None and count >= text.max_documents:
            return
        yield document


def _from_folder(root: Path, text: Text) -> Iterator[tuple[str, str | list[int]]]:
    files = sorted({path for pattern in text.include for path in root.glob(pattern) if path.is_file()})
    if not files:
        raise ValueError(f"source {text.source}: no file matches include {text.include} in {root}")
    for path in files:
        title = path.relative_to(root).as_posix()
        try:
            content = path.read_text(encoding="utf-8-sig")  # universal newlines, no byte-order mark
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); convert it or leave it out") from None
        if path.suffix != ".jsonl":
            yield title, content
            continue
        for number, line in enumerate(content.split("\n"), start=1):  # a string may hold U+2028 and the like
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise ValueError(f"{path}, line {number}: not valid JSON") from None
            yield f"{title}:{number}", _column(row, text.column, f"{path}, line {number}")


def commit_of(text: Text) -> str | None:
    """The commit that an `hf:` source stands at now, None for a source of another kind. Raises as `documents`."""
    kind, _, name = text.source.partition(":")
    if kind != "hf":
        return None
    repository, _, revision = name.partition(":")[0].partition("@")
    import huggingface_hub

    with _hub_errors(text.source):
        return huggingface_hub.dataset_info(repository, revision=revision).sha


def _from_hub(name: str, text: Text, commit: str | None) -> Iterator[tuple[str, str | list[int]]]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise ValueError(
            f"source {text.source} needs the package datasets; pip install datasets, or name a folder with path:"
        ) from None
    pinned, _, configuration = name.partition(":")
    repository, _, revision = pinned.partition("@")
    with _hub_errors(text.source):
        rows = datasets.load_dataset(
            repository, configuration or None, split=text.split, streaming=True, revision=commit or revision
        )
        for number, row in enumerate(rows):
            yield f"{repository}:{number}", _column(row, text.column, f"{text.source}, row {number}")


@contextlib.contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise  # ours
    except Exception as error:  # whatever a network raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"source {source} could not be read from the hub ({reason[:160]}); check the network and "
            "`huggingface-cli login`, or download it and name the folder with path:"
        ) from None


def _column(row: object, column: str, where: str) -> str | list[int]:
    if not isinstance(row, dict) or column not in row:
        known = ", ".join(row) if isinstance(row, dict) else "no keys"
        raise ValueError(f"{where}: column must be one of {known}, got {column!r}")
    value = row[column]
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "\n\n".join(value)
    if not isinstance(value, str) and not (
        isinstance(value, list) and all(isinstance(part, int) and not isinstance(part, bool) for part in value)
    ):
        raise ValueError(f"{where}: must be text or token ids, got {type(value).__name__}; mend column")
    return value


def pack(run: TextRun, tokenizer: Tokenizer, folder: Path, source: Path | None = None) -> "Packed":
    """Tokenize a text once and write it into a folder. Returns it opened."""
    folder = Path(folder)
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary <= 2**16 else np.uint32)
    rows, seen, start, written = [], set(), 0, hashlib.sha256()
    commit = commit_of(run.text)
    with (
        replacing(folder / "tokens.bin") as temporary,
        temporary.open("wb") as file,
        Progress(f"pack {run.text.source}", run.text.max_documents) as progress,
    ):
        for title, content in documents(run.text, source, commit):
            ids = np.asarray(_ids(tokenizer, content), dtype=np.int64)
            if ids.size and (ids.min() < 0 or ids.max() >= tokenizer.vocabulary):
                raise ValueError(
                    f"{title}: token ids must be < {tokenizer.vocabulary}, the model's vocabulary, got {ids.max()}; "
                    "the text was tokenized for another model"
                )
            packed = ids.astype(dtype).tobytes()
            digest = hashlib.sha256(content.encode() if isinstance(content, str) else packed).hexdigest()
            if digest in seen or not ids.size:
                continue
            seen.add(digest)
            file.write(packed)
            written.update(packed)
            rows.append({"document": digest, "title": title, "start": start, "num_tokens": len(ids)})
            start += len(ids)
            progress.report(len(rows), f"{start:,} tokens")
    if not rows:
        raise ValueError(f"source {run.text.source}: every document is empty; name another")
    held_out = _held_out(run.text, rows)
    for row in rows:
        row["split"] = "held_out" if row["document"] in held_out else "train"
    record = {**run.model_dump(), "dtype": dtype.name, "bos": tokenizer.bos, "eos": tokenizer.eos}
    record |= {"sha256": written.hexdigest()} | ({"commit": commit} if commit else {})
    write_rows(folder / "documents.parquet", DOCUMENTS, rows, record)
    return Packed(folder)


def _ids(tokenizer: Tokenizer, content: str | list[int]) -> list[int]:
    if not isinstance(content, str):
        return content  # tokenized by its publisher, BOS and EOS included
    if not content.strip():
        return []
    before = [] if tokenizer.bos is None else [tokenizer.bos]
    after = [] if tokenizer.eos is None else [tokenizer.eos]
    return before + tokenizer.encode(content) + after


def _held_out(text: Text, rows: list[dict]) -> set[str]:
    """The hashes kept from training: the smallest ones, so that the choice depends on no order."""
    if text.held_out == -1:
        return {row["document"] for row in rows}
    fit = sorted(row["document"] for row in rows if row["num_tokens"] >= text.min_tokens)
    if len(fit) < text.held_out:
        raise ValueError(
            f"source {text.source}: held_out must be at most the {len(fit)} documents of {text.min_tokens} tokens or "
            f"more, got {text.held_out}"
        )
    return set(fit[: text.held_out])


class Packed:
    """A packed text, opened: tokens are read where they are needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "documents.parquet"
        self.documents, self.run = read_rows(path, DOCUMENTS), read_run(path)
        dtype, total = np.dtype(self.run["dtype"]), int(self.documents["num_tokens"].sum())
        tokens = self.folder / "tokens.bin"
        if not tokens.exists() or sha256(tokens) != self.run["sha256"]:
            raise ValueError(
                f"{tokens} must hold the {total:,} tokens that documents.parquet names, got others; delete both and "
                "pack again"
            )
        self.tokens = np.memmap(tokens, dtype=dtype, mode="r", shape=(total,))

    def of(self, split: str):
        """The documents of a split, a data frame in the source's order."""
        return self.documents.filter(self.documents["split"] == split)

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens as int64 [T]."""
        return self.tokens[start : start + length].astype(np.int64)


def check_tokenizer(packed: Packed, tokenizer: str, bos: int | None, eos: int | None) -> None:
    """Raises ValueError for a text that was packed for a model with another tokenizer."""
    asked = {"tokenizer": tokenizer, "bos": bos, "eos": eos}
    if other := [name for name in asked if packed.run.get(name) != asked[name]]:
        raise ValueError(
            f"{packed.folder} must be packed for this model, whose {other[0]} is {asked[other[0]]}, got "
            f"{packed.run.get(other[0])}; pack the text with --base"
        )


def check_disjoint(trained: Packed, measured: Packed, name: str) -> None:
    """Raises ValueError if a held-out document of one text is a training document of the other."""
    shared = set(trained.of("train")["document"]) & set(measured.of("held_out")["document"])
    if shared:
        raise ValueError(
            f"corpus {name} must share no document with the training text, got {len(shared)} "
            f"({min(shared)[:12]}..); narrow include or held_out"
        )


class Sequences:
    """Training sequences [T] of a packed text, in an order that the seed decides alone.

    The training documents lie end to end; sequence i is tokens i*T .. (i+1)*T of them, or the
    first T of every 65,536 (L9). Each epoch is a permutation of its own. Item i is the i-th of
    the whole run, so that a run resumed at step k reads on at k times the sequences of a step.
    """

    def __init__(
        self, packed: Packed, length: int, count: int, seed: int, *, chunks: str = "all", skip: int = 0
    ) -> None:
        train = packed.of("train")
        self.packed, self.length, self.count, self.skip = packed, length, count, skip
        self.start = train["start"].to_numpy()
        self.ends = np.cumsum(train["num_tokens"].to_numpy())
        total = int(self.ends[-1]) if len(self.ends) else 0
        self.stride = CHUNK if chunks == "first_of_65536" else length
        self.available = (total - length) // self.stride + 1 if total >= length else 0
        if self.stride < length or self.available < 1:
            raise ValueError(
                f"a training sequence of {length} tokens must fit the {total:,} training tokens"
                + (f" and a chunk of {CHUNK:,}" if chunks != "all" else "")
                + "; name more text, or a shorter length"
            )
        epochs = -(-(count + skip) // self.available)
        draws = [np.random.default_rng([seed, epoch]).permutation(self.available) for epoch in range(epochs)]
        self.order = np.concatenate(draws)[: count + skip]

    @property
    def epochs(self) -> float:
        return self.count / self.available

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        first = int(self.order[self.skip + index]) * self.stride
        parts, needed = [], self.length
        document = int(np.searchsorted(self.ends, first, side="right"))
        while needed:
            begin = int(self.ends[document - 1]) if document else 0
            offset = first - begin
            taken = min(needed, int(self.ends[document]) - first)
            parts.append(self.packed.read(int(self.start[document]) + offset, taken))
            needed, first, document = needed - taken, first + taken, document + 1
        return np.concatenate(parts)
