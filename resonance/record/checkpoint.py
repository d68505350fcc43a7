"""Tensors on disk: safetensors, written whole, with what they are in the header. Never pickle.

Weights that a run ends with, and the checkpoints that a killed run goes on from.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from resonance.record.files import UNSEALED, check_seal, discard_leftovers, replacing, sha256
from resonance.record.identity import differences

Tensors = dict[str, torch.Tensor]


def save_weights(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Equal tensors and metadata give equal bytes.

    Raises OSError where the disk does not take it; nothing half-written stays.
    """
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise TypeError(f"metadata must map strings to strings, got {metadata}")
    # One key that holds all: safetensors writes several in an order that changes from run to run.
    header = {"metadata": json.dumps(metadata | {"checksum": UNSEALED}, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path, sealed=True) as temporary:
        save_file(tensors, temporary, header)


def load_weights(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata. Raises ValueError for a file that is damaged or somebody else's (`check_seal`)."""
    check_seal(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            names = file.keys()  # a method, not a mapping's: the file itself cannot be iterated over
            metadata = json.loads(file.metadata()["metadata"])
            del metadata["checksum"]
            return {name: file.get_tensor(name) for name in names}, metadata
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, got another ({error}); run the rule again") from None


OTHERS = "other-runs"
"""Beside a folder of checkpoints: those of runs that were refused. Nothing removes it."""


class ForeignError(ValueError):
    """A checkpoint of another run."""


class Checkpoints:
    """The last two checkpoints of one run, each written whole and checksummed.

    folder    a folder of their own beside the run's outputs, declared to no workflow, so that
              Snakemake leaves it alone when it deletes the outputs of a failed job
    identity  everything that the run's numbers depend on, by name (`record.identity`). A checkpoint of
              another identity is refused, since the run that went on from it would equal no
              uninterrupted one, and kept aside in `other-runs`: hours may stand in it
    seconds   between two saves. Where saving is slow they come apart until it takes at most `share`
              of the time
    """

    def __init__(self, folder: Path, identity: dict[str, str], seconds: float, share: float = 0.01) -> None:
        self.folder, self.identity, self.seconds, self.share = Path(folder), identity, seconds, share
        self.kept: list[Path] = []
        self.last, self.cost = time.monotonic(), 0.0

    def load(self) -> tuple[Tensors, dict] | None:
        """Tensors and state of the newest checkpoint that is whole and this run's; None: start anew.

        Every checkpoint that is passed over is said on stderr, with the reason.
        """
        discard_leftovers(self.folder)
        for path in sorted(self.folder.glob("step*.safetensors"), reverse=True):
            try:
                tensors, state = self._read(path)
            except ForeignError as error:
                aside = self.folder.with_name(OTHERS) / f"{path.stem}-{sha256(path)[:8]}{path.suffix}"
                aside.parent.mkdir(exist_ok=True)
                path.replace(aside)
                print(f"checkpoint not used, kept as {aside}: {error}", file=sys.stderr, flush=True)
                continue
            except ValueError as error:
                print(f"checkpoint not used: {error}", file=sys.stderr, flush=True)
                continue
            self.kept = [path]
            return tensors, state
        return None

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(self.seconds, self.cost / self.share)

    def save(self, step: int, tensors: Tensors, state: dict) -> None:
        """state is plain JSON. Raises OSError where the disk does not take it; the others stay."""
        started = time.monotonic()
        path = self.folder / f"step{step:09d}.safetensors"
        text = json.dumps({"identity": self.identity, "state": state}, sort_keys=True)
        save_weights(path, tensors, {"json": text})
        self.kept = [*(kept for kept in self.kept if kept != path), path][-2:]
        for other in self.folder.glob("step*.safetensors"):
            if other not in self.kept:
                other.unlink()
        self.last = time.monotonic()
        self.cost = self.last - started

    def remove(self) -> None:
        """At the end, when the outputs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, path: Path) -> tuple[Tensors, dict]:
        try:
            tensors, metadata = load_weights(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path.name} is damaged ({error}); the one before it is tried") from None
        read = json.loads(metadata["json"])
        if found := differences(self.identity, read["identity"]):
            raise ForeignError(f"{path.name} is of another run: {'; '.join(found)}")
        return tensors, read["state"]
