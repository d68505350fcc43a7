"""From a number in the docs or a table back to the kept rows that it is made of, and to what made them.

A number is looked for, as it is printed, among the means over seeds of every kept study, in percent, among the kept
perplexities and shares of found passkeys of language models, and among the differences from the plain encoding that
the tables show. Imports no torch.
"""

import math
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import polars as pl

from resonance.llm.evaluations.passkey import PASSKEY
from resonance.llm.evaluations.perplexity import PERPLEXITY
from resonance.posgen.probe_rows import PROBES
from resonance.posgen.rows import STUDY
from resonance.record.rows import kind_of, read_rows, read_run
from resonance.record.stats import LEAST_RUNS
from resonance.record.tables import number as printed

RESONANCE = "resonance_"
FIGURE4, RETRIEVAL = "figure4", "passkey"
SHOWN = {"token_loss": "perplexity", "window_loss": "released mean"}
"""What Figure 4's table makes of a metric."""
TABLE1 = ("five_seeds", "table1")
"""What Table 1 was collected as; the first has all its seeds."""
_CELL = ["protocol", "task", "encoding", "metric"]


@dataclass(frozen=True)
class Found:
    """One mean of kept rows that prints as the number asked for.

    what     protocol, task, encoding, metric and, of probes, mask; of a language model, length, encoding, strategy,
             metric and, of perplexities, corpus; an encoding may be `resonance_yarn - yarn`
    by_seed  percent or percentage points; none of a language model
    made     what made the rows, each once
    """

    path: Path
    study: str
    preset: str
    what: dict[str, str]
    mean: float
    made: list[dict]
    by_seed: dict[int, float] = field(default_factory=dict)


def trace(number: str, folder: Path) -> list[Found]:
    """Every mean that prints as a number. Raises ValueError for text that is none, or where no kept row gives it."""
    text = number.strip().rstrip("%").strip().replace("-", "\u2212").removeprefix("+")
    if not re.fullmatch(r"\u2212?\d+(\.\d+)?", text):
        raise ValueError(f"a number must be as a table prints it (44.81, -11.30), got {number!r}")
    decimals = len(text.partition(".")[2])
    readers = dict.fromkeys(sorted(folder.glob("*/*.parquet")), _means)
    if not readers:
        raise ValueError(f"--rows must be a folder of kept rows, got {folder} without any; the checkout has one")
    for name, read in OF_LINES.items():
        readers |= dict.fromkeys(sorted(folder.glob(f"*/{name}_*/*.parquet")), read)
    known = [each for path, read in readers.items() for each in read(path)]
    found = [each for each in known if printed(each.mean, decimals=decimals) == text]
    if not found:
        raise ValueError(
            f"{number}: no mean of the {len(readers)} files of kept rows in {folder} prints so; what is "
            "measured and not kept (speed, memory) stands with its date and command in docs/log.md and docs/commands.md"
        )
    return sorted(found, key=lambda each: (each.what["metric"] != "ood_accuracy", each.study not in TABLE1))


@cache
def _means(path: Path) -> list[Found]:
    """The means of one file: of every cell, and of what an encoding adds to the plain one."""
    probed = kind_of(path) == PROBES.name
    rows, run = read_rows(path, PROBES if probed else STUDY), read_run(path)
    if probed:
        rows = rows.filter(pl.col("position").is_null(), pl.col("metric").str.contains("accuracy"))
    names = [*_CELL, "mask"] if probed else _CELL
    cells = {}
    for key, part in rows.group_by(names, maintain_order=True):
        by_seed = dict(part.sort("seed").select("seed", 100 * pl.col("value")).iter_rows())
        cells[key] = by_seed, [run["made"][name] for name in part["made"].unique(maintain_order=True)]
    found = []
    for key, (by_seed, made) in cells.items():
        what = dict(zip(names, key, strict=True))
        found.append(_over_seeds(path, run, what, by_seed, made))
        name = what["encoding"]
        # resonance_dynamic_ntk: dynamic_ntk; rope_even: rope
        plain = name.removeprefix(RESONANCE) if name.startswith(RESONANCE) else name.partition("_")[0]
        beside = tuple((what | {"encoding": plain}).values())
        if plain != name and beside in cells:
            other, others = cells[beside]
            difference = {seed: by_seed[seed] - other[seed] for seed in by_seed if seed in other}
            pair = what | {"encoding": f"{name} - {plain}"}
            found.append(_over_seeds(path, run, pair, difference, made + others))
    return found


def _over_seeds(path: Path, run: dict, what: dict[str, str], by_seed: dict[int, float], made: list[dict]) -> Found:
    mean = sum(by_seed.values()) / len(by_seed)
    return Found(path, run["study"], run["preset"], what, mean, made, by_seed)


@cache
def _perplexities(path: Path) -> list[Found]:
    """One line of Figure 4: its perplexities, and by how many percent they are another's than plain's beside it."""
    run, nats = read_run(path), _nats(path)
    encoding, strategy = _line(path, run)
    plain = encoding.removeprefix(RESONANCE)
    beside, found = path.with_name(f"{plain}_{strategy}.parquet"), []
    paired = plain != encoding and beside.exists()
    others, both = (_nats(beside), [run, read_run(beside)]) if paired else ({}, [])
    for (corpus, length, metric), mean in nats.items():
        what = {"corpus": corpus, "length": f"{length} tokens", "encoding": encoding, "strategy": strategy}
        what["metric"] = SHOWN[metric]
        of = path, FIGURE4, path.parents[1].name
        found.append(Found(*of, what, math.exp(mean), [run]))
        if metric == "token_loss" and (other := others.get((corpus, length, metric))) is not None:
            pair = what | {"encoding": f"{encoding} - {plain} in percent"}
            found.append(Found(*of, pair, 100 * math.expm1(mean - other), both))
    return found


@cache
def _passkeys(path: Path) -> list[Found]:
    """One line of passkey retrieval: how many of its keys were found at each length, in percent."""
    rows, run = read_rows(path, PASSKEY), read_run(path)
    encoding, strategy = _line(path, run)
    found = []
    for length, share in rows.group_by("length", maintain_order=True).agg(pl.col("value").mean()).iter_rows():
        what = {"length": f"{length} tokens", "encoding": encoding, "strategy": strategy, "metric": "passkeys found"}
        found.append(Found(path, RETRIEVAL, path.parents[1].name, what, 100 * share, [run]))
    return found


OF_LINES = {"perplexity": _perplexities, "passkey": _passkeys}
"""A folder of kept lines of a language model, by the beginning of its name, and what reads one."""


def _line(path: Path, run: dict) -> tuple[str, str]:
    """Encoding and strategy of a kept line's file."""
    return path.stem.removesuffix(f"_{run['strategy']}"), run["strategy"]


@cache
def _nats(path: Path) -> dict[tuple[str, int, str], float]:
    """Mean nats of a line by corpus, length and metric, a stretch's by the tokens or windows that it has."""
    units = ["corpus", "document", "piece", "length", "num_tokens"]
    rows = read_rows(path, PERPLEXITY).pivot("metric", index=units, values="value")
    weights = {"token_loss": pl.col("num_tokens"), "window_loss": pl.col("num_windows")}
    means = [((pl.col(name) * weight).sum() / weight.sum()).alias(name) for name, weight in weights.items()]
    table = rows.group_by("corpus", "length", maintain_order=True).agg(means).unpivot(index=["corpus", "length"])
    return {(corpus, length, metric): mean for corpus, length, metric, mean in table.iter_rows()}


def told(found: Found) -> str:
    """A mean with its rows, seeds, makers and the command that makes it anew, a line each."""
    one, of, target = found.made[0], "", found.study
    if not found.by_seed:
        commits = [made["provenance"]["commit"] or "no commit" for made in found.made]
        trained = f"{one['source'].partition('#')[0]}, {one['precision']}, on {one['device']}"
    else:
        few = "" if len(found.by_seed) >= LEAST_RUNS else " (too few for an interval)"
        of, target = f", mean of {len(found.by_seed)} seeds{few}", TABLE1[0] if found.study in TABLE1 else found.study
        commits = [f"{made['commit'] or 'no commit'} ({made['recorded']})" for made in found.made]
        settings = one["settings"]
        trained = (
            f"preset {found.preset}, protocol {settings['protocol']}, {settings['steps']:,} steps, width "
            f"{settings['model']['d_model']}, {one['train_precision']}, on {one['device']}"
        )
    versions = one.get("versions") or one.get("provenance", {}).get("versions", {})
    lines = {
        "": f"{found.mean:.4f}  {', '.join(found.what.values())}{of}",
        "rows": str(found.path),
        "seeds": ", ".join(f"{seed}: {value:.2f}" for seed, value in found.by_seed.items()),
        "trained" if found.by_seed else "model": trained,
        "with": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": ", ".join(dict.fromkeys(commits)),
        "again": f"snakemake {target} --config preset={found.preset}",
    }
    return "\n".join(f"{name:>8}  {text}" if name else text for name, text in lines.items() if text)
