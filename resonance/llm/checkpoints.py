"""The checkpoints that transformers' Trainer writes: whole ones, of this training alone."""

from pathlib import Path

from resonance.record.checkpoint import OTHERS
from resonance.record.files import read_json, write_json
from resonance.record.identity import differences, digest

WHOLE = "complete.json"
"""Written into a checkpoint after everything else: without it a checkpoint is half a one."""


def set_others_aside(checkpoints: Path, ours: dict[str, str]) -> None:
    """Keep the checkpoints of another training, which a killed job may have left in this place, beside it."""
    mark = checkpoints / "identity.json"
    theirs = read_json(mark) if mark.exists() else {}
    if checkpoints.exists() and theirs != ours:
        others, name = checkpoints.with_name(OTHERS), digest(theirs)
        others.mkdir(exist_ok=True)
        taken = len(list(others.glob(f"{name}*")))  # nothing that was kept is replaced
        aside = others / (f"{name}-{taken}" if taken else name)
        checkpoints.rename(aside)
        print(f"the checkpoints of another training are kept as {aside}: {'; '.join(differences(ours, theirs))}")
    write_json(mark, ours)


def last_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was written to its end. A half-written one is left aside."""
    whole = [mark.parent for mark in checkpoints.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
