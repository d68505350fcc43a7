"""What the rule of rounding does: Resonance's nearest integer beside other integers and no integers.

The control that the paper lacks. If integer wavelengths are what helps, then moving wavelengths to other
places, as far away, must help less. Every rule is compared, seed by seed, with no rounding at all and
with `nearest`. All numbers in percent, differences in percentage points of OOD accuracy.
"""

from itertools import combinations, compress
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from matplotlib.figure import Figure

from figures import inputs, style
from resonance.encoding.rounding import CONTROLS, ROUNDINGS
from resonance.record.stats import correlation, estimate, paired_difference
from resonance.record.tables import Groups, Table, grouped, interval, number, with_sd, write_csv, write_tables

NONE = "none"
RULES = (NONE, *ROUNDINGS)
TITLES = {
    NONE: "no rounding", "nearest": "nearest (the paper)", "prime": "nearest free prime",
    "coprime": "nearest coprime", "even": "nearest even", "odd": "nearest odd",
    "reflected": "reflected: no integer", "half": "half: no integer",
    "lowered": "lowered: no integer", "raised": "raised: no integer",
}  # fmt: skip
HEADER = ["", "Seeds", "OOD accuracy ± sd", "In distribution", "− no rounding", "95% interval", "− nearest"]
HEADER += ["95% interval"]
AGREEMENT = ["protocols", "tasks", "methods"]
LAST = "Between trained and new positions"
AGREEMENT_CAPTION = (
    "Do the same rules help? Pearson's correlation r, over the rules, of what they add to no rounding (the means "
    "above), between two blocks that differ in one thing; last, in one block, of what they add in distribution and "
    "what they add to the OOD accuracy. Were a rule's effect noise of the seeds, r of the first would be about 0."
)
AGREEMENT_NOTES = (
    "95% intervals by Fisher's z, as if rules were independent, though some share wavelengths. What all differences of "
    "a block share, the noise of its runs without rounding, moves no r. Under protocol released the two methods share "
    "their trainings, so that noise of the seeds is common to both."
)

Cells = dict[tuple[str, str, str, str], dict[int, float]]
"""(protocol, task, method, rule) -> seed -> percent."""


def main(
    output: inputs.Output,
    preset: inputs.Preset,
    study: inputs.Study,
    draw: Annotated[Path, typer.Option(help="Path of the figure's files, without a suffix.")],
) -> None:
    """STEM.csv for machines; .md, .tex and .html for people; and the figure."""
    rows, made = inputs.read_study(study)
    kinds = rules_of(inputs.specs_of(study))
    accuracy, inside = (cells_of(rows, kinds, metric) for metric in ("ood_accuracy", "in_distribution_accuracy"))
    lines = [{"preset": preset} | row for row in comparisons(accuracy, inside)]
    tables = [Table("rounding", caption(preset, rows, made), HEADER, in_groups(lines), notes(lines))]
    if groups := agreement(lines):
        header = ["", "Rules", "r", "95% interval"]
        tables.append(Table("rounding-agreement", AGREEMENT_CAPTION, header, groups, AGREEMENT_NOTES))
    write_csv(output, lines)
    write_tables(output, f"Rules of rounding, preset {preset}", tables)
    style.save(drawing(lines, preset, rows), draw, f"Rules of rounding (preset {preset})")


def rules_of(specs: dict[str, dict]) -> dict[str, tuple[str, str]]:
    """Encoding -> (method, rule), by the specs that the rows were made with.

    Raises ValueError where two encodings differ in neither.
    """
    found = {name: (spec["method"], spec["rounding"] if spec["resonance"] else NONE) for name, spec in specs.items()}
    if len(set(found.values())) < len(found):
        raise ValueError(f"the study's encodings must differ in method or rule, got {', '.join(found)}")
    return found


def cells_of(rows: pl.DataFrame, kinds: dict[str, tuple[str, str]], metric: str) -> Cells:
    cells = inputs.by_seed(rows.filter(metric=metric), "protocol", "task", "encoding")
    return {(protocol, task, *kinds[encoding]): seeds for (protocol, task, encoding), seeds in cells.items()}


def comparisons(accuracy: Cells, inside: Cells) -> list[dict]:
    """One row a cell: its mean, and its paired differences from no rounding and from nearest."""
    protocols = sorted({key[0] for key in accuracy})
    tasks, methods = style.in_order({key[1] for key in accuracy}), list(dict.fromkeys(key[2] for key in accuracy))
    lines = []
    for place in [(p, t, m) for p in protocols for t in tasks for m in sorted(methods, key=style.method_place)]:
        for rule in RULES:
            if (*place, rule) not in accuracy:
                continue
            ours = accuracy[*place, rule]
            mean = estimate(list(ours.values()))
            line = dict(zip(("protocol", "task", "method"), place, strict=True)) | {
                "rounding": rule,
                "num_seeds": mean.n,
                "ood_accuracy_percent": mean.mean,
                "ood_sd_points": mean.known("sd"),
                "in_distribution_accuracy_percent": estimate(list(inside[*place, rule].values())).mean,
            }
            for base in (NONE, "nearest"):
                theirs = accuracy.get((*place, base)) if base != rule else None
                difference = paired_difference(ours, theirs) if theirs else None
                for part, name in (("", "mean"), ("_low95", "low"), ("_high95", "high")):
                    line[f"minus_{base}{part}_points"] = difference and difference.known(name)
            lines.append(line)
    return lines


def agreement(lines: list[dict]) -> list:
    """How alike the rules do in two places that differ in one thing, in groups by what that is, and in one place at the
    positions trained on and at new ones."""
    added: dict[tuple, dict[str, float]] = {}
    inside: dict[tuple, dict[str, float]] = {}
    for line in lines:
        if line["rounding"] != NONE and line["minus_none_points"] is not None:
            place = line["protocol"], line["task"], line["method"]
            added.setdefault(place, {})[line["rounding"]] = line["minus_none_points"]
            # No rounding's accuracy is not taken off: the same for all rules of a place, it moves no correlation.
            inside.setdefault(place, {})[line["rounding"]] = line["in_distribution_accuracy_percent"]
    groups: dict[str, list] = {}
    for ours, theirs in combinations(added, 2):
        other = [ours[n] != theirs[n] for n in range(3)]
        if sum(other) == 1:
            (kind,) = compress(AGREEMENT, other)
            groups.setdefault(f"Between {kind}", []).extend(_alike(_both(ours, theirs), added[ours], added[theirs]))
    for place in added:
        groups.setdefault(LAST, []).extend(_alike(_both(place, place), inside[place], added[place]))
    filled = [(title, rows) for title, rows in groups.items() if rows]
    return sorted(filled, key=lambda group: (group[0] == LAST, group[0] != "Between protocols"))


def _alike(words: str, ours: dict[str, float], theirs: dict[str, float]) -> list[list[str]]:
    """The row of one correlation over rules; none where fewer than four are in both, or all do the same."""
    rules = [rule for rule in ours if rule in theirs]
    values = [[each[rule] for rule in rules] for each in (ours, theirs)]
    if len(rules) < 4 or any(len(set(each)) == 1 for each in values):
        return []
    r, *between = correlation(*values)
    return [[words, str(len(rules)), number(r, "+"), interval(*between, "+")]]


def _both(ours: tuple, theirs: tuple) -> str:
    """Two places in words, what they share said once."""

    def words(protocol: str, task: str, method: str) -> tuple[str, str, str]:
        return protocol, style.task_title(task), style.encoding_title(method)

    pairs = zip(words(*ours), words(*theirs), strict=True)
    return ", ".join(one if one == other else f"{one} and {other}" for one, other in pairs)


def in_groups(lines: list[dict]) -> Groups:
    def title(line: dict) -> str:
        method, task = style.encoding_title(line["method"]), style.task_title(line["task"])
        return f"{method}, {task}, protocol {line['protocol']}"

    return grouped((title(line), text(line)) for line in lines)


def text(line: dict) -> list[str]:
    cells = [
        TITLES.get(line["rounding"], line["rounding"]),
        str(line["num_seeds"]),
        with_sd(line["ood_accuracy_percent"], line["ood_sd_points"]),
        number(line["in_distribution_accuracy_percent"]),
    ]
    for base in (NONE, "nearest"):
        name = f"minus_{base}"
        cells += [
            number(line[f"{name}_points"], "+"),
            interval(line[f"{name}_low95_points"], line[f"{name}_high95_points"], "+"),
        ]
    return cells


def caption(preset: str, rows: pl.DataFrame, made: list[dict]) -> str:
    return (
        "OOD accuracy on PosGen in percent, by the rule that moves wavelengths: test split, positions x[L] to x[L'-1], "
        f"teacher-forced. Preset {preset}, {inputs.seeds_of_study(rows)}. Model: {inputs.sizes_text(made)}. "
        + style.stand_in(inputs.have_papers_sizes(made))
    )


def notes(lines: list[dict]) -> str:
    """What the columns are, and how many intervals would exclude zero by chance."""
    said = []
    for base, title in ((NONE, "no rounding"), ("nearest", "nearest")):
        low, high = f"minus_{base}_low95_points", f"minus_{base}_high95_points"
        judged = [line for line in lines if line[low] is not None]
        if judged:
            clear = sum(line[low] > 0 or line[high] < 0 for line in judged)
            said.append(f"against {title}, {clear} of {len(judged)} (by chance alone {0.05 * len(judged):.1f})")
    count = f" Intervals that exclude zero: {'; '.join(said)}." if said else ""
    return (
        "Differences seed by seed in percentage points, with 95% t-intervals that are not corrected for the number of "
        "comparisons. Four rules give no integers. Reflected: 2*lambda - round(lambda), as far from lambda as nearest "
        "is, the other way. Lowered, raised: lambda -+ 1/2. Half: floor(lambda) + 1/2; its features alone of these "
        "repeat exactly, every two turns. Under protocol released YaRN is used in evaluation only, and its rule is the "
        "training's." + count
    )


def drawing(lines: list[dict], preset: str, rows: pl.DataFrame) -> Figure:
    """Difference from no rounding, one panel a protocol and task."""
    protocols = list(dict.fromkeys(line["protocol"] for line in lines))
    tasks = style.in_order({line["task"] for line in lines})
    methods = list(dict.fromkeys(line["method"] for line in lines))
    rules = [rule for rule in RULES[1:] if any(line["rounding"] == rule for line in lines)]
    figure = Figure(figsize=(style.TEXT_WIDTH, 0.9 + 0.25 * len(protocols) * (len(rules) + 1)), layout="constrained")
    panels = figure.subplots(len(protocols), len(tasks), squeeze=False, sharex="col", sharey=True)
    for i, protocol in enumerate(protocols):
        for k, task in enumerate(tasks):
            axes = panels[i][k]
            if not any((line["protocol"], line["task"]) == (protocol, task) for line in lines):
                axes.set_axis_off()
                continue
            names = [TITLES.get(rule, rule).split(" (")[0].split(":")[0] for rule in rules]
            style.differences(axes, names, f"{style.task_title(task)}, {protocol}")
            axes.axhspan(-0.5, sum(rule in CONTROLS for rule in rules) - 0.5, color="#eeeeee", zorder=0)
            for n, method in enumerate(methods):
                shown = [
                    (len(rules) - 1 - rules.index(line["rounding"]) + 0.15 * (len(methods) - 1 - 2 * n), line)
                    for line in lines
                    if (line["protocol"], line["task"], line["method"]) == (protocol, task, method)
                    and line["rounding"] != NONE
                ]
                style.intervals(
                    axes,
                    [(y, line["minus_none_points"], line["minus_none_low95_points"], line["minus_none_high95_points"])
                     for y, line in shown],
                    style.encoding_title(method), style.hue(method),
                )  # fmt: skip
            axes.set_ylim(-0.5, len(rules) - 0.5)
    for axes in panels[-1]:
        axes.set_xlabel("points above no rounding")
    style.legend(figure)
    seeds = inputs.seeds_of_study(rows)
    what = "OOD accuracy, percentage points, 95% intervals; grey: no integers"
    style.note(figure, f"Preset {preset}, {seeds}; {what}")
    return figure


if __name__ == "__main__":
    inputs.run(main)
