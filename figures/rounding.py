"""What the rule of rounding does: Resonance's nearest integer beside other integers and no integers.

The control that the paper lacks. If integer wavelengths are what helps, then moving wavelengths to other
places, as far away, must help less. Every rule is compared, seed by seed, with no rounding at all and
with `nearest`. All numbers in percent, differences in percentage points of OOD accuracy.
"""

from itertools import combinations, compress, product

import polars as pl
from matplotlib.figure import Figure

from figures import inputs, probes, style
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
BASES = {NONE: "no rounding", "nearest": "nearest"}
"""What every rule is compared with."""
HEADER = ["", "Seeds", "OOD accuracy ± sd", "In distribution"]
HEADER += [text for title in BASES.values() for text in (f"− {title}", "95% interval")]
PARTS = {"": "mean", "_low95": "low", "_high95": "high"}
"""How the columns of a difference are called, and what of an Estimate stands in them."""
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


def main(output: inputs.Output, preset: inputs.Preset, study: inputs.Study, draw: inputs.Draw) -> None:
    """STEM.csv for machines; .md, .tex and .html for people; and the figure."""
    rows, made = inputs.read_study(study)
    rows = probes.under_one_name(rows)
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

    Raises ValueError where two encodings differ in neither, or two of one method in anything else.
    """
    found = {name: (spec["method"], spec["rounding"] if spec["resonance"] else NONE) for name, spec in specs.items()}
    if len(set(found.values())) < len(found):
        raise ValueError(f"the study's encodings must differ in method or rule, got {', '.join(found)}")
    first: dict[str, tuple[str, dict]] = {}
    for name, spec in specs.items():
        rest = {key: value for key, value in spec.items() if key not in ("resonance", "rounding")}
        other, theirs = first.setdefault(spec["method"], (name, rest))
        if differing := [key for key in rest if rest[key] != theirs[key]]:
            raise ValueError(
                f"{name} and {other} must differ in the rule of rounding alone, got another {differing[0]}"
            )
    return found


def cells_of(rows: pl.DataFrame, kinds: dict[str, tuple[str, str]], metric: str) -> Cells:
    cells = inputs.by_seed(rows.filter(metric=metric), "protocol", "task", "encoding")
    return {(protocol, task, *kinds[encoding]): seeds for (protocol, task, encoding), seeds in cells.items()}


def comparisons(accuracy: Cells, inside: Cells) -> list[dict]:
    """One row a cell: its mean, and its paired differences from no rounding and from nearest."""
    protocols = sorted({key[0] for key in accuracy})
    tasks, methods = style.in_order({key[1] for key in accuracy}), list(dict.fromkeys(key[2] for key in accuracy))
    lines = []
    for key in product(protocols, tasks, sorted(methods, key=style.method_place), RULES):
        if key not in accuracy:
            continue
        *place, rule = key
        mean = estimate(list(accuracy[key].values()))
        line = dict(zip(("protocol", "task", "method", "rounding"), key, strict=True)) | {
            "num_seeds": mean.n,
            "ood_accuracy_percent": mean.mean,
            "ood_sd_points": mean.known("sd"),
            "in_distribution_accuracy_percent": estimate(list(inside[key].values())).mean,
        }
        for base in BASES:
            theirs = accuracy.get((*place, base)) if base != rule else None
            difference = paired_difference(accuracy[key], theirs) if theirs else None
            for part, name in PARTS.items():
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
    rows = []
    for ours, theirs in combinations(added, 2):
        other = [one != another for one, another in zip(ours, theirs, strict=True)]
        if sum(other) == 1:
            (kind,) = compress(AGREEMENT, other)
            rows.append((f"Between {kind}", _alike(ours, theirs, added[ours], added[theirs])))
    rows += [(LAST, _alike(place, place, inside[place], added[place])) for place in added]
    groups = grouped((title, cells) for title, cells in rows if cells)
    return sorted(groups, key=lambda group: (group[0] == LAST, group[0] != "Between protocols"))


def _alike(place: tuple, other: tuple, ours: dict[str, float], theirs: dict[str, float]) -> list[str] | None:
    """The row of one correlation over rules, what its two places share said once; none where fewer than four rules are
    in both, or all do the same."""
    rules = [rule for rule in ours if rule in theirs]
    values = [[each[rule] for rule in rules] for each in (ours, theirs)]
    if len(rules) < 4 or any(len(set(each)) == 1 for each in values):
        return None
    words = (
        (protocol, style.task_title(task), style.encoding_title(method)) for protocol, task, method in (place, other)
    )
    both = ", ".join(" and ".join(dict.fromkeys(pair)) for pair in zip(*words, strict=True))
    r, *between = correlation(*values)
    return [both, str(len(rules)), number(r, "+"), interval(*between, "+")]


def in_groups(lines: list[dict]) -> Groups:
    rows = []
    for line in lines:
        method, task = style.encoding_title(line["method"]), style.task_title(line["task"])
        mean = with_sd(line["ood_accuracy_percent"], line["ood_sd_points"])
        cells = [str(line["num_seeds"]), mean, number(line["in_distribution_accuracy_percent"])]
        for base in BASES:
            difference, low, high = (line[f"minus_{base}{part}_points"] for part in PARTS)
            cells += [number(difference, "+"), interval(low, high, "+")]
        title = f"{method}, {task}, protocol {line['protocol']}"
        rows.append((title, [TITLES.get(line["rounding"], line["rounding"]), *cells]))
    return grouped(rows)


def caption(preset: str, rows: pl.DataFrame, made: list[dict]) -> str:
    return (
        "OOD accuracy on PosGen in percent, by the rule that moves wavelengths: test split, positions x[L] to x[L'-1], "
        f"teacher-forced. Preset {preset}, {inputs.seeds_of_study(rows)}. Model: {inputs.model_text(made)}"
    )


def notes(lines: list[dict]) -> str:
    """What the columns are, and how many intervals would exclude zero by chance."""
    said = []
    for base, title in BASES.items():
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
    protocols, methods = inputs.distinct(lines, "protocol"), inputs.distinct(lines, "method")
    tasks = style.in_order(set(inputs.distinct(lines, "task")))
    rules = [rule for rule in RULES[1:] if inputs.where(lines, rounding=rule)]
    names = {rule: TITLES.get(rule, rule).split(" (")[0].split(":")[0] for rule in rules}
    figure = Figure(figsize=(style.TEXT_WIDTH, 0.9 + 0.25 * len(protocols) * (len(rules) + 1)), layout="constrained")
    panels = figure.subplots(len(protocols), len(tasks), squeeze=False, sharex="col", sharey=True)
    for axes, (protocol, task) in zip(panels.flat, product(protocols, tasks), strict=True):
        of = inputs.where(lines, protocol=protocol, task=task)
        if not of:
            axes.set_axis_off()
            continue
        series = {}
        for method in methods:
            shown = [line for line in inputs.where(of, method=method) if line["rounding"] != NONE]
            points = [(line["rounding"], *(line[f"minus_{NONE}{part}_points"] for part in PARTS)) for line in shown]
            series[style.encoding_title(method)] = style.hue(method), "o", points
        style.differences(axes, names, f"{style.task_title(task)}, {protocol}", series, apart=0.3)
        axes.axhspan(-0.5, sum(rule in CONTROLS for rule in rules) - 0.5, color="#eeeeee", zorder=0)
        axes.set_ylim(-0.5, len(rules) - 0.5)
    for axes in panels[-1]:
        axes.set_xlabel("points above no rounding")
    style.legend(figure)
    what = "OOD accuracy, percentage points, 95% intervals; grey: no integers"
    style.note(figure, f"Preset {preset}, {inputs.seeds_of_study(rows)}; {what}")
    return figure


if __name__ == "__main__":
    inputs.run(main)
