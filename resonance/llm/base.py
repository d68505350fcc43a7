"""What base.json says of a model before any fine-tuning, and its tokenizer: no weights, and so no encoding."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from resonance.llm.paths import RUN
from resonance.llm.text import BYTES, Tokenizer
from resonance.record.files import check_sums, read_record, sums, write_record
from resonance.record.identity import differences, identity


@dataclass(frozen=True)
class Base:
    """A model before any fine-tuning.

    folder        of weights and config: from base.json where it begins with "./", else as the source names it
    tokenizer     `bytes`, or `model`: the folder's own
    bos, eos      ids that stand around a document; None where the model has none
    digest        of the settings that made it: a base made otherwise is another base
    weights       SHA-256 of the folder's files where it lies beside base.json; `write` fills it in
    """

    source: str
    folder: str
    tokenizer: str
    bos: int | None
    eos: int | None
    vocabulary: int
    train_length: int
    rope_base: float
    digest: str
    num_parameters: int | None = None
    weights: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        own = sums(path.parent / self.folder) if self.folder.startswith("./") else {}
        write_record(path, "base", asdict(self) | {"weights": own})

    @classmethod
    def read(cls, path: Path) -> "Base":
        """Raises ValueError for a file of something else, or with other weights beside it than were written."""
        values = read_record(path, "base")
        if set(values) != {field.name for field in fields(cls)}:
            raise ValueError(f"{path} must describe a base model, got other keys; delete it and run the rule again")
        if values["folder"].startswith("./"):
            values["folder"] = str(Path(path).parent / values["folder"])
            check_sums(values["folder"], values["weights"])
        return cls(**values)

    def check_tuned(self, folder: Path, model: str, strategy: str, spec: dict) -> None:
        """Raises ValueError where fine-tuned weights are damaged, or of another model, strategy, base or encoding."""
        path = folder.with_name(Path(RUN).name)
        run = read_record(path, "finetuning")
        found = {name: run["settings"][name] for name in ("model", "strategy")} | {
            "base": run["base"],
            "spec": run["spec"],
        }
        asked = {"model": model, "strategy": strategy, "base": self.digest, "spec": spec}
        if other := differences(identity(asked), identity(found)):
            raise ValueError(f"{path} must be of the fine-tuning asked for, but {'; '.join(other)}; name its weights")
        check_sums(folder, run["weights"])


def tokenizer_of(base: Base) -> Tokenizer:
    """A model's tokenizer; special tokens are ours to add, so it adds none."""
    if base.tokenizer == BYTES:
        return Tokenizer.of_bytes()
    with hub_errors(base.source):
        theirs = AutoTokenizer.from_pretrained(base.folder)

    def encode(text: str) -> list[int]:
        return theirs.encode(text, add_special_tokens=False, verbose=False)

    def decode(ids: list[int]) -> str:
        return theirs.decode(ids, skip_special_tokens=True)

    return Tokenizer(encode, decode, base.bos, base.eos, base.vocabulary)


@contextlib.contextmanager
def hub_errors(source: str) -> Iterator[None]:
    """transformers' and the hub's pages of text as one line with the cure."""
    transformers_logging.disable_progress_bar()
    try:
        yield
    except ImportError as error:
        raise ValueError(f"source {source}: {str(error).strip().splitlines()[0]}; pip install what it names") from None
    except OSError as error:
        text = " ".join(str(error).split())
        if "gated" in text or "401" in text or "403" in text:
            cure = "the model is gated: ask for access on its page, then `hf auth login`, or name a folder with path:"
        elif "connect" in text or "offline" in text.lower() or "resolve" in text:
            cure = "the hub is out of reach: check the network, or name a folder of the weights with path:"
        else:
            cure = "check its name, or name a folder of the weights with path:"
        raise ValueError(f"source {source} could not be loaded; {cure} ({text[:160]})") from None
