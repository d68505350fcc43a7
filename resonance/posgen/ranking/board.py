"""The leaderboard: rows of a ranking as tables and a picture. Imports no torch."""

from pathlib import Path

import numpy as np
import polars as pl

from resonance.posgen.ranking.rows import ACCURACIES, RANKING
from resonance.posgen.ranking.tasks import TASKS, TRAIN_LENGTH, WINDOWS, drawn_for, oracle
from resonance.record.files import replacing
from resonance.record.stats import LEAST_RUNS, Estimate, detectable, estimate, holm, p_value, paired_difference
from resonance.record.tables import Bold, Table, interval, number, with_sd, write_csv, write_tables

REFERENCE = "rope"
"""What every encoding is compared with."""
LAST = "to_4L"
FAMILIES = {"ours": [name for name, task in TASKS.items() if task.far],
            "the paper's": [name for name, task in TASKS.items() if not task.far]}  # fmt: skip
LEARNED = 0.9
"""In distribution; an encoding below has not learned a task, and what it keeps past L is no robustness."""
_TITLES = {"rope": "RoPE", "linear": "linear (PI)", "ntk": "NTK", "dynamic_ntk": "dynamic NTK", "yarn": "YaRN"}
_TITLES |= {f"resonance_{name}": f"Resonance {title}" for name, title in _TITLES.items()}
_TITLES |= {"nope": "NoPE", "sinusoidal": "sinusoidal", "p_rope": "p-RoPE", "fope": "FoPE", "alibi": "ALiBi",
            "t5": "T5 bias", "fire": "FIRE", "cope": "CoPE", "window": "RoPE, window L/2",
            "randomized": "RoPE, randomized"}  # fmt: skip


def title(encoding: str) -> str:
    return _TITLES.get(encoding, encoding)


def write_board(stem: Path, frame: pl.DataFrame, own: list[str]) -> None:
    """stem.md, .html, .tex and .csv, and the picture stem.png and .svg.

    frame  rows of `RANKING`
    own    encodings to be marked as the reader's
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    by_seed = _by_seed(frame)
    compared = _compared(by_seed)
    tables = [_families(by_seed, compared, frame, own), *(_of_task(task, by_seed, compared, own) for task in TASKS)]
    write_tables(stem, "PosGen for any encoding: leaderboard", tables)
    write_csv(stem, _for_machines(by_seed, compared))
    _draw(stem, by_seed, own)
    print(_short(by_seed, compared, own))


def _by_seed(frame: pl.DataFrame) -> dict[tuple[str, str, str], dict[int, float]]:
    """(encoding, task, metric) -> seed -> value, accuracies in percent."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in frame.iter_rows(named=True):
        scale = 100 if row["metric"] in ACCURACIES else 1
        found.setdefault((row["encoding"], row["task"], row["metric"]), {})[row["seed"]] = scale * row["value"]
    return found


def _encodings(by_seed: dict) -> list[str]:
    return list(dict.fromkeys(encoding for encoding, _, _ in by_seed))


def _compared(by_seed: dict) -> dict[tuple[str, str], tuple[Estimate, float]]:
    """(encoding, task) -> the difference from RoPE at 4L by seed, and its p by Holm's over all of these."""
    cells = [(encoding, task) for encoding in _encodings(by_seed) if encoding != REFERENCE for task in TASKS]
    found = [
        paired_difference(by_seed[encoding, task, LAST], by_seed[REFERENCE, task, LAST]) for encoding, task in cells
    ]
    # Equal values at every seed differ by nothing; of too few seeds nothing is tested.
    p_values = [1.0 if each.n < LEAST_RUNS or np.isnan(p := p_value(each)) else p for each in found]
    return {cell: (each, p) for cell, each, p in zip(cells, found, holm(p_values), strict=True)}


def _mean(by_seed: dict, encoding: str, tasks: list[str], metric: str) -> float:
    return float(np.mean([np.mean(list(by_seed[encoding, task, metric].values())) for task in tasks]))


def _order(by_seed: dict, tasks: list[str]) -> list[str]:
    return sorted(_encodings(by_seed), key=lambda name: -_mean(by_seed, name, tasks, LAST))


def _named(encoding: str, own: list[str]) -> str:
    return Bold(f"{title(encoding)} (yours)") if encoding in own else title(encoding)


def _families(by_seed: dict, compared: dict, frame: pl.DataFrame, own: list[str]) -> Table:
    rows = []
    for encoding in _order(by_seed, FAMILIES["ours"]):
        cells = [_named(encoding, own)]
        for tasks in FAMILIES.values():
            cells += [number(_mean(by_seed, encoding, tasks, metric), decimals=1) for metric in ACCURACIES]
        against = [compared[encoding, task] for task in TASKS if (encoding, task) in compared]
        better = sum(p < 0.05 and each.mean > 0 for each, p in against)
        worse = sum(p < 0.05 and each.mean < 0 for each, p in against)
        first = by_seed[encoding, next(iter(TASKS)), "step_ratio"]
        learned = sum(_mean(by_seed, encoding, [task], "in_distribution") >= 100 * LEARNED for task in TASKS)
        parameters = next(iter(by_seed[encoding, next(iter(TASKS)), "parameters"].values()))
        cells += [
            "–" if all(each.n < LEAST_RUNS for each, _ in against) else f"{better} / {worse}",
            f"{learned} of {len(TASKS)}",
            number(next(iter(first.values())), decimals=1),
            f"{parameters:,.0f}",
        ]
        rows.append(cells)
    seeds = dict(frame.group_by("encoding").agg(pl.col("seed").n_unique()).iter_rows())
    most, fewer = max(seeds.values()), {title(name): n for name, n in seeds.items() if n < max(seeds.values())}
    apart = "".join(f" ({name}: {n})" for name, n in fewer.items())
    caption = (
        f"Accuracy in percent, mean over three tasks and {most} seeds{apart}, below L = 64 (in L), from L to 2L "
        "and from 2L to 4L, for decoders trained at L from scratch: two layers, width 128, two heads of 64. Sorted by "
        "2L to 4L on the three tasks that near tokens cannot solve."
    )
    stretches = ["in L", "to 2L", "to 4L"]
    header = ["", *(f"ours, {name}" for name in stretches), *(f"the paper's, {name}" for name in stretches),
              "Better / worse than RoPE", "Learned", "Step, × RoPE", "Parameters"]  # fmt: skip
    notes = (
        "Ours: look_back, flip_flop, recall. The paper's: recursive, cot, semi_recursive, of which a few near tokens "
        "give the answer away. Better / worse: on how many of the six tasks the difference from RoPE at 4L, paired by "
        f"seed, is significant at 5 % after Holm's correction for all {len(compared)} comparisons of this leaderboard. "
        f"Learned: on how many it reaches {100 * LEARNED:.0f} % in L. Step: time of a training step over RoPE's, in "
        "turns on one core. Parameters: of the encoding."
    )
    if min(seeds.values()) < LEAST_RUNS:
        alone = most >= LEAST_RUNS and seeds.get(REFERENCE, 0) >= LEAST_RUNS  # all are compared with the reference
        whose = f"{', '.join(name for name, n in fewer.items() if n < LEAST_RUNS)}: " if alone else ""
        notes += f" {whose}With {min(seeds.values())} seed(s) nothing is tested: this decides nothing."
    return Table("leaderboard", caption, header, [("", rows)], notes)


def _of_task(task: str, by_seed: dict, compared: dict, own: list[str]) -> Table:
    rows = []
    for encoding in _order(by_seed, [task]):
        of = {metric: estimate(np.array(list(by_seed[encoding, task, metric].values()))) for metric in ACCURACIES}
        cells = [_named(encoding, own), *(with_sd(each.mean, each.known("sd")) for each in of.values())]
        if encoding == REFERENCE:
            rows.append([*cells, "–", "–", "–"])
            continue
        each, p = compared[encoding, task]
        difference = number(each.mean, "+")
        low, high = each.known("low"), each.known("high")
        cells += [Bold(difference) if p < 0.05 else difference, interval(low, high, "+"), number(detectable(each))]
        rows.append(cells)
    drawn = drawn_for(task, "test")
    windows = ", ".join(f"{w}: {100 * oracle(task, w, drawn, TRAIN_LENGTH):.1f}" for w in WINDOWS)
    return Table(
        f"leaderboard_{task}",
        f"{task}: accuracy in percent, mean ± sd over seeds, sorted by 2L to 4L. Chance: "
        f"{100 * TASKS[task].chance:.1f}.",
        ["", "In L", "L to 2L", "2L to 4L", "− RoPE", "95% interval", "Detectable"],
        [("", rows)],
        f"What a solver that sees the last w tokens alone reaches at best past L: {windows}. − RoPE: paired by seed, "
        "at 2L to 4L; bold after Holm's correction over the whole leaderboard. Detectable: the true difference that "
        "this spread and this many seeds would find by itself, four times out of five.",
    )


def _for_machines(by_seed: dict, compared: dict) -> list[dict]:
    rows = []
    for encoding, task in dict.fromkeys((encoding, task) for encoding, task, _ in by_seed):
        row = {"encoding": encoding, "task": task}
        for metric in RANKING.metrics:
            found = estimate(np.array(list(by_seed[encoding, task, metric].values())))
            row |= {"seeds": found.n, metric: found.mean, f"{metric}_sd": found.known("sd")}
        each, p = compared.get((encoding, task), (None, None))
        row |= {name: each and each.known(name) for name in ("low", "high")}
        tested = p if each and each.n >= LEAST_RUNS else None
        rows.append(row | {"minus_rope": each and each.mean, "p_holm": tested, "detectable": each and detectable(each)})
    return rows


def _short(by_seed: dict, compared: dict, own: list[str]) -> str:
    """What a terminal is told: of every encoding its mean at 4L; of the reader's, task by task."""
    lines = [f"{'':24}{'ours, in L':>12}{'to 4L':>8}{'paper, in L':>14}{'to 4L':>8}"]
    for encoding in _order(by_seed, FAMILIES["ours"]):
        shown = [(tasks, metric) for tasks in FAMILIES.values() for metric in ("in_distribution", LAST)]
        cells = [_mean(by_seed, encoding, tasks, metric) for tasks, metric in shown]
        name = title(encoding) + (" <- yours" if encoding in own else "")
        lines.append(f"{name:24}{cells[0]:12.1f}{cells[1]:8.1f}{cells[2]:14.1f}{cells[3]:8.1f}")
    for encoding in own:
        for task in TASKS:
            if (encoding, task) not in compared:
                continue
            each, p = compared[encoding, task]
            said = "too few seeds" if np.isnan(each.low) else f"[{each.low:+.1f}, {each.high:+.1f}], Holm p {p:.3f}"
            lines.append(f"{title(encoding)} - RoPE on {task}, 2L to 4L: {each.mean:+.1f} {said}")
    return "\n".join(lines)


def _draw(stem: Path, by_seed: dict, own: list[str]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    order = _order(by_seed, FAMILIES["ours"])[::-1]
    figure = Figure(figsize=(11, 1.2 + 0.27 * len(order)), layout="constrained")
    panels = figure.subplots(1, len(TASKS), sharey=True)
    marks = {"in_distribution": ("#9a9a9a", "o"), "to_2L": ("#56B4E9", "s"), "to_4L": ("#D55E00", "D")}
    for axes, (name, task) in zip(panels, TASKS.items(), strict=True):
        axes.axvline(100 * task.chance, color="#bbbbbb", lw=0.8, ls=":")
        for metric, (color, mark) in marks.items():
            for place, encoding in enumerate(order):
                values = list(by_seed[encoding, name, metric].values())
                axes.plot(values, [place] * len(values), mark, color=color, ms=2, alpha=0.5)
                axes.plot(np.mean(values), place, mark, color=color, ms=5, label=None if place else ACCURACIES[metric])
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_xlim(-4, 104)
        axes.set_xticks([0, 50, 100])
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#eeeeee", lw=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(order)), [title(name) + (" *" if name in own else "") for name in order], fontsize=8)
    figure.supxlabel("accuracy, %; small marks: seeds; dotted: chance" + ("; *: yours" if own else ""), fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    for suffix, undated in {"png": {}, "svg": {"Date": None}}.items():  # equal rows, equal bytes
        with replacing(Path(f"{stem}.{suffix}")) as temporary, matplotlib.rc_context({"svg.hashsalt": "leaderboard"}):
            figure.savefig(temporary, format=suffix, dpi=160, metadata=undated)
