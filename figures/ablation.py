"""What each choice does where the paper and its released code differ: one flipped at a time.

From `paper` every choice in turn is taken from `released`, and the reverse. A cell is the difference
that the flip makes to OOD accuracy, seed by seed, in percentage points; so are the columns of pairs: by
how much it moves the difference that the paper is about, Resonance minus plain.
"""

from itertools import cycle, product

import polars as pl
from matplotlib.figure import Figure

from figures import inputs, probes, style
from resonance.posgen.protocol import CHOICES, base_and_choice
from resonance.record.stats import estimate, paired_difference
from resonance.record.tables import Groups, Table, grouped, number, write_csv, write_tables

ABOUT = {
    "P1": "prefixes", "P2": "encoding while training", "P3": "YaRN's ramp", "P4": "YaRN's temperature",
    "P5": "depth", "P6": "what is trained", "P7": "attention scale", "P8": "pair layout",
    "P9": "start token, vocabulary", "P10": "schedule, selection",
}  # fmt: skip
MARKERS = "osD^vP"

Cells = dict[tuple[str, str, str], dict[int, float]]
"""(protocol, task, column) -> seed -> percent or points; a column is an encoding or a pair."""


def main(output: inputs.Output, preset: inputs.Preset, study: inputs.Study, draw: inputs.Draw) -> None:
    """STEM.csv for machines; .md, .tex and .html for people; and the figure."""
    rows, made = inputs.read_study(study)
    cells, columns = cells_of(probes.under_one_name(rows))
    lines = [{"preset": preset} | line for line in effects(cells, columns)]
    header = ["", "Seeds", *map(column_title, columns)]
    table = Table("ablation", caption(preset, rows, made), header, in_groups(lines, columns), notes(lines))
    write_csv(output, lines)
    write_tables(output, f"Ablation of the protocols, preset {preset}", [table])
    style.save(drawing(lines, columns, preset, rows), draw, f"Ablation of the protocols (preset {preset})")


def cells_of(rows: pl.DataFrame) -> tuple[Cells, list[str]]:
    """OOD accuracies in percent by protocol, task and encoding, and Resonance minus plain beside them."""
    cells: Cells = inputs.by_seed(rows.filter(metric="ood_accuracy"), "protocol", "task", "encoding")
    encodings = style.encodings_in_order(set(rows["encoding"]))
    pairs = {f"{resonance} - {plain}": (resonance, plain) for resonance, plain in style.pairs(encodings)}
    for protocol, task in {key[:2] for key in cells}:
        for pair, names in pairs.items():
            ours, theirs = (cells.get((protocol, task, name)) for name in names)
            if ours and theirs:
                cells[protocol, task, pair] = {seed: ours[seed] - theirs[seed] for seed in ours}
    return cells, [*encodings, *pairs]


def effects(cells: Cells, columns: list[str]) -> list[dict]:
    """One row a cell: a base's own value (choice is empty), then what each flip changes it by.

    Raises ValueError for a flipped protocol whose base was not run.
    """
    protocols, tasks = sorted({key[0] for key in cells}), style.in_order({key[1] for key in cells})
    lines = []
    for protocol, task, column in product(protocols, tasks, columns):
        base, choice = base_and_choice(protocol)
        if (ours := cells.get((protocol, task, column))) is None:
            continue
        if (base, task, column) not in cells:
            raise ValueError(
                f"--study must hold protocol {base} beside {protocol}, got none of {column} on {task} among "
                f"{', '.join(protocols)}"
            )
        found = paired_difference(ours, cells[base, task, column]) if choice else estimate(list(ours.values()))
        line = {"base": base, "choice": choice, "task": task, "column": column, "num_seeds": found.n}
        lines.append(line | {"value": found.mean, "low95": found.known("low"), "high95": found.known("high")})
    return lines


def in_groups(lines: list[dict], columns: list[str]) -> Groups:
    """Rows by base and task: the base's values, then a row a flipped choice."""
    rows = []
    for base, task in product(inputs.distinct(lines, "base"), inputs.distinct(lines, "task")):
        other = {"paper": "released", "released": "paper"}[base.partition("+")[0]]
        title = f"{style.task_title(task)}: from {base}, one choice of {other} at a time"
        for choice in choices_from(base, lines):
            cells = {line["column"]: line for line in inputs.where(lines, base=base, task=task, choice=choice)}
            if not cells:
                continue
            text = [text_of(cells.get(column), "+" if choice or " - " in column else "-") for column in columns]
            seeds = {line["num_seeds"] for line in cells.values()}
            rows.append((title, [choice_title(base, choice), str(min(seeds)), *text]))
    return grouped(rows)


def choices_from(base: str, lines: list[dict]) -> list[str]:
    """What is flipped from a base, the known ones in their order; first the empty one, where the base is there."""
    known = ["", *CHOICES]
    choices = inputs.distinct(inputs.where(lines, base=base), "choice")
    return sorted(choices, key=lambda choice: (known.index(choice), "") if choice in known else (len(known), choice))


def choice_title(base: str, choice: str) -> str:
    return f"{choice} {ABOUT.get(choice, '')}".strip() if choice else f"{base} itself"


def column_title(column: str) -> str:
    return " − ".join(style.encoding_title(name) for name in column.split(" - "))


def text_of(line: dict | None, sign: str) -> str:
    if line is None:
        return "–"
    mean = number(line["value"], sign)
    return mean if line["low95"] is None else f"{mean} ± {number((line['high95'] - line['low95']) / 2)}"


def caption(preset: str, rows: pl.DataFrame, made: list[dict]) -> str:
    bases = [run for run in made if not base_and_choice(run["settings"]["protocol"])[1]] or made
    return (
        "What each choice does in which the paper and its released code differ. First row of a group: OOD accuracy in "
        "percent (test split, positions x[L] to x[L'-1]) under the unchanged protocol; below, the difference that one "
        "flipped choice makes, in percentage points, seed by seed. "
        f"Preset {preset}, {inputs.seeds_of_study(rows)}. Model: {inputs.model_text(bases)}"
    )


def notes(lines: list[dict]) -> str:
    flips = [line for line in lines if line["choice"] and line["low95"] is not None]
    judged = [line for line in flips if not line["low95"] == line["high95"] == 0]
    clear = sum(line["low95"] > 0 or line["high95"] < 0 for line in judged)
    count = (
        f" {clear} of {len(judged)} differences have an interval that excludes zero, {0.05 * len(judged):.1f} expected "
        f"where chance alone is at work ({len(flips) - len(judged)} more are 0 in every seed: the flip does not touch "
        "them)."
        if judged
        else ""
    )
    return (
        "± is half a 95% t-interval over seeds, not corrected for the number of comparisons. A flip that changes a "
        "training keeps its base's steps. P9 comes with P15, since the start token needs an entry of the vocabulary. "
        "P4, P8 and P11 to P14 do not differ between the two protocols here." + count
    )


def drawing(lines: list[dict], columns: list[str], preset: str, rows: pl.DataFrame) -> Figure:
    """Differences of the encodings, one panel a base and task."""
    flips = [line for line in lines if line["choice"] and " - " not in line["column"]]
    bases, tasks = inputs.distinct(flips, "base"), inputs.distinct(flips, "task")
    choices = {base: choices_from(base, flips) for base in bases}
    encodings = [column for column in columns if " - " not in column]
    height = 1.0 + sum(0.6 + 0.3 * len(flipped) for flipped in choices.values())
    figure = Figure(figsize=(style.TEXT_WIDTH, height), layout="constrained")
    panels = figure.subplots(len(bases), len(tasks), squeeze=False, sharey="row")
    for axes, (base, task) in zip(panels.flat, product(bases, tasks), strict=True):
        titles, series = {choice: choice_title(base, choice) for choice in choices[base]}, {}
        for encoding, marker in zip(encodings, cycle(MARKERS), strict=False):
            shown = inputs.where(flips, base=base, task=task, column=encoding)
            points = [(line["choice"], line["value"], line["low95"], line["high95"]) for line in shown]
            series[style.encoding_title(encoding)] = style.line(encoding)["color"], marker, points
        style.differences(axes, titles, f"{style.task_title(task)},\nfrom {base}", series, apart=0.16)
        axes.set_ylim(-0.6, len(titles) - 0.4)
        axes.set_xscale("symlog", linthresh=10)
        axes.set_xticks([-50, -10, 0, 10, 50], ["−50", "−10", "0", "10", "50"])
        axes.set_xticks([], minor=True)
        axes.set_xlim(-100, 100)  # an interval of two seeds may reach further than accuracies can
    for axes in panels[-1]:
        axes.set_xlabel("change in points")
    style.legend(figure)
    what = "OOD accuracy, percentage points (logarithmic beyond ±10), 95% intervals"
    style.note(figure, f"Preset {preset}, {inputs.seeds_of_study(rows)}; {what}")
    return figure


if __name__ == "__main__":
    inputs.run(main)
