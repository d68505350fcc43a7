"""From a number in the docs or a table back to the kept rows that it is made of, and to what made them.

A number is looked for, as it is printed, among the means over seeds of every kept study, in percent, and among the
differences from the plain encoding that the tables show. Imports no torch.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from resonance.posgen.probe_rows import PROBES
from resonance.posgen.rows import STUDY
from resonance.record.rows import kind_of, read_rows, read_run
from resonance.record.stats import LEAST_RUNS

RESONANCE = "resonance_"
TABLE1 = ("five_seeds", "table1")
"""What Table 1 was collected as; the first has all its seeds."""
_CELL = ["protocol", "task", "encoding", "metric"]


@dataclass(frozen=True)
class Found:
    """One mean of kept rows that prints as the number asked for.

    what     protocol, task, encoding, metric and, of probes, mask; an encoding may be `resonance_yarn - yarn`
    by_seed  percent or percentage points
    made     what made the rows, each once
    """

    path: Path
    study: str
    preset: str
    what: dict[str, str]
    by_seed: dict[int, float]
    made: list[dict]

    @property
    def mean(self) -> float:
        return sum(self.by_seed.values()) / len(self.by_seed)


def trace(number: str, folder: Path) -> list[Found]:
    """Every mean that prints as a number. Raises ValueError for text that is none, or where no kept row gives it."""
    text = number.strip().rstrip("%").strip().replace("\u2212", "-").removeprefix("+")
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise ValueError(f"a number must be as a table prints it (44.81, -11.30), got {number!r}")
    decimals = len(text.partition(".")[2])
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise ValueError(f"--rows must be a folder of kept rows, got {folder} without any; the checkout has one")
    found = [each for path in files for each in _means(path) if f"{each.mean + 0.0:.{decimals}f}" == text]
    if not found:
        raise ValueError(
            f"{number}: no mean of the {len(files)} files of kept rows in {folder} prints so; what is measured and not "
            "kept (language models, speed) stands with its date and command in docs/log.md and docs/commands.md"
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
        found.append(Found(path, run["study"], run["preset"], what, by_seed, made))
        name = what["encoding"]
        # resonance_dynamic_ntk: dynamic_ntk; rope_even: rope
        plain = name.removeprefix(RESONANCE) if name.startswith(RESONANCE) else name.partition("_")[0]
        beside = tuple((what | {"encoding": plain}).values())
        if plain != name and beside in cells:
            other, others = cells[beside]
            difference = {seed: by_seed[seed] - other[seed] for seed in by_seed if seed in other}
            pair = what | {"encoding": f"{name} - {plain}"}
            found.append(Found(path, run["study"], run["preset"], pair, difference, made + others))
    return found


def told(found: Found) -> str:
    """A mean with its rows, seeds, makers and the command that makes it anew, a line each."""
    one = found.made[0]
    settings, versions = one["settings"], one.get("versions") or {}
    target = TABLE1[0] if found.study in TABLE1 else found.study
    few = "" if len(found.by_seed) >= LEAST_RUNS else " (too few for an interval)"
    lines = {
        "": f"{found.mean:.4f}  {', '.join(found.what.values())}, mean of {len(found.by_seed)} seeds{few}",
        "rows": str(found.path),
        "seeds": ", ".join(f"{seed}: {value:.2f}" for seed, value in found.by_seed.items()),
        "trained": f"preset {found.preset}, protocol {settings['protocol']}, {settings['steps']:,} steps, width "
        f"{settings['model']['d_model']}, {one['train_precision']}, on {one['device']}",
        "with": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": ", ".join(dict.fromkeys(f"{m['commit'] or 'no commit'} ({m['recorded']})" for m in found.made)),
        "again": f"snakemake {target} --config preset={found.preset}",
    }
    return "\n".join(f"{name:>8}  {text}" if name else text for name, text in lines.items() if text)
