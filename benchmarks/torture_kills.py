"""Killed and gone on with, or run twice at once, for `benchmarks.torture`: a training, a fine-tuning, an evaluation and
the answering of questions are SIGKILLed at random moments after each got further, or meet themselves in their folder,
and end with the bits of one that was left alone."""

import hashlib
import json
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import polars as pl

from benchmarks.torture_runs import CHAIN, OUTPUTS, call

# Of a command: what shows that it got further, what is changed in a settings file so that it is longer than its
# checkpoints, and what is added to its line.
KILLED = {
    "posgen train": ("checkpoints", "settings/train.json", {"steps": 400}, ["--checkpoint-seconds=0"]),
    "llm finetune": ("checkpoints", "settings/finetune.json", {"steps": 100}, ["--checkpoint-every=2"]),
    "llm evaluate passkey": ("journal", "settings/passkey.json", {"repetitions": 40}, []),
    "leval answer": ("journal", "settings/answer.json", {"max_new_tokens": 256}, []),
}
REFUSED = 2
"""The status of a command that ends in one line."""
_LONGEST = 2.0
"""Seconds until a process that does not get further is killed all the same."""


def kills(runs: Path, name: str, count: int) -> Counter:
    """`valid` for every kill of a command that ends with the bits of one that was left alone; else `traceback`. A
    command that ends before it was killed so often is started afresh."""
    ends, whole = Counter(), None
    while ends.total() < count:
        with tempfile.TemporaryDirectory(dir=runs.parent) as folder:
            done, found = _ended(runs, name, Path(folder) / "runs", count - ends.total() if whole else 0)
        whole = whole or found
        ends["valid" if found == whole else "traceback"] += done
    return ends


def twice(runs: Path, name: str, count: int) -> Counter:
    """How a command ends that runs twice at once on the same files: `valid` where both end, `one line` where one is
    told so, each with the bits of one that was alone; `taken` with other bits; else `traceback`."""
    ends = Counter()
    with tempfile.TemporaryDirectory(dir=runs.parent) as folder:
        whole = _ended(runs, name, Path(folder) / "runs", 0)[1]
    for _ in range(count):
        with tempfile.TemporaryDirectory(dir=runs.parent) as folder:
            line, _ = _prepared(runs, name, copied := Path(folder) / "runs")
            both = [_context().Process(target=_run, args=(line, copied)) for _ in range(2)]
            for process in both:
                process.start()
            for process in both:
                process.join()
            codes = {process.exitcode for process in both}
            if _bits(copied, name) != whole:
                ends["taken"] += 1
            else:
                ends["valid" if codes == {0} else "one line" if codes == {0, REFUSED} else "traceback"] += 1
    return ends


def _ended(runs: Path, name: str, copied: Path, count: int) -> tuple[int, dict[str, str]]:
    """How often a command was killed until it ended, at most so often, and what it left."""
    line, shown = _prepared(runs, name, copied)
    return _killed_until_done(line, copied, shown, count), _bits(copied, name)


def _prepared(runs: Path, name: str, copied: Path) -> tuple[list[str], Path]:
    """A copy of the runs without what the command writes: its line, and what shows that it got further."""
    mark, settings, longer, more = KILLED[name]
    shutil.copytree(runs, copied)
    for output in OUTPUTS[name]:
        path = copied / output
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    asked = json.loads((copied / settings).read_text())
    (copied / settings).write_text(json.dumps(asked | longer))
    return [*CHAIN[name], *more], (copied / OUTPUTS[name][-1]).parent / mark


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")  # a start costs no seconds
    context.set_forkserver_preload(["benchmarks.torture_runs", "resonance.posgen.train", "resonance.llm.finetune"])
    return context


def _killed_until_done(line: list[str], folder: Path, mark: Path, count: int) -> int:
    """Runs a command until it ends, killed so many times; returns how often it was."""
    draw, killed = random.Random(0), 0
    while True:
        process, before = _context().Process(target=_run, args=(line, folder)), _state(mark)
        process.start()
        until = time.monotonic() + draw.uniform(0, _LONGEST)
        while killed < count and process.is_alive():
            if _state(mark) != before or time.monotonic() > until:
                time.sleep(draw.uniform(0, 0.03))
                process.kill()
                break
            time.sleep(0.002)
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
        elif process.exitcode:
            raise RuntimeError(f"{' '.join(line[:2])} ended with {process.exitcode} after {killed} kills")
        else:
            return killed


def _run(line: list[str], folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    status, said = call(line, folder)
    if status:
        print(said, file=sys.stderr)
        sys.exit(status if said.count("\n") == 1 and said.startswith("error: ") else 1)


def _state(mark: Path) -> list[tuple[str, int]]:
    """Names and sizes of what lies there; files come and go while it is read."""
    found = []
    for path in sorted(mark.rglob("*")):
        try:
            found.append((str(path), path.stat().st_size))
        except FileNotFoundError:
            continue
    return found


def _bits(folder: Path, name: str) -> dict[str, str]:
    """SHA-256 of weights, answers and rows; records hold times."""
    files = [path for output in OUTPUTS[name] for path in [folder / output, *(folder / output).rglob("*")]]
    kept = {path: path.read_bytes() for path in files if path.suffix in (".safetensors", ".jsonl")}
    kept |= {path: pl.read_parquet(path).write_csv().encode() for path in files if path.suffix == ".parquet"}
    return {str(path.relative_to(folder)): hashlib.sha256(held).hexdigest() for path, held in kept.items()}
