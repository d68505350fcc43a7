"""`resonance posgen rank`: encodings trained on every task with every seed, beside those that are kept.

One file of rows an encoding, written anew after every training: what is there already, of the same code and encoding,
is not trained again.
"""

import ast
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path

import polars as pl
import torch

from resonance.posgen.ranking import tasks
from resonance.posgen.ranking.board import REFERENCE, write_board
from resonance.posgen.ranking.check import checked
from resonance.posgen.ranking.cost import step_ratio
from resonance.posgen.ranking.encodings import encodings, file_of, named
from resonance.posgen.ranking.rows import RANKING
from resonance.posgen.ranking.train import BATCH, LEARNING_RATE, MODEL, SIZES, WEIGHT_DECAY, config_of, train
from resonance.posgen.step import tune_allocator
from resonance.record.files import sha256
from resonance.record.identity import code_of, differences, digest, identity
from resonance.record.progress import Progress
from resonance.record.provenance import instruction_sets, provenance
from resonance.record.rows import read_rows, read_run, write_rows

KEPT = Path(__file__).resolve().parents[3] / "results-published/ranking.parquet"
_SAME = ("ranking", "code")
"""Of what made a row, all that must be equal for rows to be compared; torch and processor may be others."""


def rank(
    asked: Iterable[str],
    folder: Path,
    against: Path,
    seeds: Iterable[int],
    workers: int,
    keep: Path | None = None,
    share: float = 1.0,
) -> None:
    """Train what is asked for, and write rows and the leaderboard (.md, .html, .csv, .png, .svg) into a folder.

    asked    registered names, FILE.py[:NAME], or `all` that are registered
    against  kept rows of the others; none need be there
    keep     a file to put all rows in, the kept ones among them
    share    of the steps of every task; other than 1 makes rows that stand beside none that are kept

    Raises ValueError, one line, for an encoding that cannot be used, or kept rows that were made otherwise.
    """
    seeds, made, wanted = list(seeds), {}, {}
    for each in encodings() if list(asked) == ["all"] else asked:
        name, encoding = named(each)
        if name in wanted:
            raise ValueError(f"{name} is asked for twice; a class's name is the encoding's")
        checked(encoding, config_of(tasks.TASKS["look_back"]), SIZES)
        wanted[name], made[name] = each, _made_of(each, encoding, share)
    (folder / "rows").mkdir(parents=True, exist_ok=True)  # before hours of training, not after
    others, made_others = _kept(against, made)
    if REFERENCE not in wanted and REFERENCE not in others["encoding"]:
        raise ValueError(f"{against}: no rows of {REFERENCE} to compare with; rank {REFERENCE} too, or name a file")
    _train_all(wanted, made, folder / "rows", seeds, workers, share)
    frames = [read_rows(folder / f"rows/{name}.parquet", RANKING) for name in wanted]
    frame = pl.concat([*frames, others.filter(~pl.col("encoding").is_in(list(wanted)))])
    everything = {digest(of): of for of in (*made.values(), *made_others.values())}
    if keep:
        write_rows(keep, RANKING, frame.to_dicts(), {"made": {key: everything[key] for key in set(frame["made"])}})
    write_board(folder / "leaderboard", frame, list(wanted) if others.height else [])


def _made_of(asked: str, encoding: type, share: float) -> dict[str, str]:
    """What the rows of an encoding depend on."""
    path = file_of(asked)[0]
    source = _of_file(Path(path)) if path else {"code": code_of(encoding.__module__)}
    settings = {
        "ranking": {"steps": {name: _steps(name, share) for name in tasks.TASKS}, "model": MODEL, "sets": tasks.SPLITS,
                    "batch": BATCH, "rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
        "encoding": {name: value if isinstance(value, str) else " ".join(value) for name, value in source.items()},
        "torch": torch.__version__,
        "processor": instruction_sets(),
    }  # fmt: skip
    return identity(settings, code_of("resonance.posgen.ranking.train", "resonance.posgen.ranking.tasks"))


def _of_file(path: Path) -> dict[str, list[str]]:
    """What a file of one's own computes with: itself, what it imports of its folder, and what of this project."""
    ours = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        ours |= {name for name in names if name.startswith("resonance.")}
    loaded = {name: Path(file) for name, of in sys.modules.items() if (file := getattr(of, "__file__", None))}
    beside = {
        f"{name} {sha256(file)[:8]}"
        for name, file in loaded.items()
        if file.is_relative_to(path.resolve().parent)
        and name.partition(".")[0] != "resonance"
        and "site-packages" not in file.parts
    }
    return {"file": [sha256(path)], "beside": sorted(beside), "code": code_of(*ours)}


def _kept(path: Path, made: dict[str, dict[str, str]]) -> tuple[pl.DataFrame, dict[str, dict[str, str]]]:
    """Kept rows, and what made them. Raises ValueError where they cannot stand beside today's."""
    if not path.exists():
        print(f"{path}: no kept rows here; what is ranked now is compared among itself", file=sys.stderr)
        return pl.DataFrame(schema=dict(RANKING.columns)), {}
    rows, theirs = read_rows(path, RANKING), read_run(path)["made"]
    ours = next(iter(made.values()))

    def part(of: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in of.items() if name.split(".")[0].split()[0] in _SAME}

    for of in theirs.values():
        if other := differences(part(ours), part(of)):
            raise ValueError(f"{path} was ranked otherwise: {other[0]}; rank its encodings again, or name another file")
    for name, key in rows.select("encoding", "made").unique().iter_rows():
        if name in encodings() and name not in made:
            now, then = (dict(zip(code[::2], code[1::2], strict=True)) for code in _code(name, theirs[key]))
            if other := differences(now, then):
                raise ValueError(f"{path}: {name} is of other code, {other[0]}; rank it again, --keep {path}")
    return rows, theirs


def _code(name: str, made: dict[str, str]) -> Iterator[list[str]]:
    """Modules and hashes of a registered encoding, as they are now and as they were; the registry itself aside."""
    for code in (" ".join(code_of(encodings()[name].__module__)), made.get("encoding.code", "")):
        yield re.sub(rf"{re.escape(encodings.__module__)} \w+", "", code).split()


def _found(path: Path, made: dict[str, str]) -> list[dict]:
    """Rows that an encoding has already; those of other code count for nothing."""
    return [row for row in read_rows(path, RANKING).to_dicts() if row["made"] == digest(made)] if path.exists() else []


def _train_all(
    wanted: dict[str, str], made: dict[str, dict], folder: Path, seeds: list[int], workers: int, share: float
) -> None:
    """Every task and seed of every encoding that its file of rows lacks, a process each."""
    rows = {name: _found(folder / f"{name}.parquet", made[name]) for name in wanted}
    there = {(row["encoding"], row["task"], row["seed"]) for found in rows.values() for row in found}
    jobs = [(name, task, seed) for name in wanted for task in tasks.TASKS for seed in seeds]
    if not (jobs := [job for job in jobs if job not in there]):
        return
    told = provenance()
    ratios = {name: step_ratio(named(wanted[name])[1]) for name in {name for name, _, _ in jobs}}
    # A worker starts afresh: one thread, and what a stranger's file did to this process is not in it.
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), _prepare) as pool,
        Progress("ranking", len(jobs)) as progress,
    ):
        running = {pool.submit(_one, wanted[name], task, seed, share): (name, task, seed) for name, task, seed in jobs}
        try:
            for number, done in enumerate(as_completed(running), 1):
                name, task, seed = running[done]
                try:
                    values = done.result() | {"step_ratio": ratios[name]}
                except Exception as error:
                    raise ValueError(f"{name} on {task}, seed {seed}: {type(error).__name__}: {error}") from error
                cell = {"encoding": name, "task": task, "seed": seed, "made": digest(made[name])}
                rows[name] += [cell | {"metric": metric, "value": value} for metric, value in values.items()]
                about = {"made": {digest(made[name]): made[name]}, "provenance": told}
                write_rows(folder / f"{name}.parquet", RANKING, rows[name], about)
                at = ", ".join(f"{100 * values[key]:.1f}" for key in ("in_distribution", "to_2L", "to_4L"))
                progress.report(number, f"{name} {task} seed {seed}: {at} %", line=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _prepare() -> None:
    def end_with_parent() -> None:  # a pool's workers outlive a parent that is killed
        parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # a sharp softmax makes denormals, and they cost a CPU several times the step
    tune_allocator()


def _steps(task: str, share: float) -> int:
    return max(1, round(share * tasks.TASKS[task].steps))


def _one(asked: str, task: str, seed: int, share: float) -> dict[str, float]:
    trained = replace(tasks.TASKS[task], steps=_steps(task, share))
    return train(named(asked)[1], trained, seed, *(tasks.drawn_for(task, split) for split in tasks.SPLITS))
