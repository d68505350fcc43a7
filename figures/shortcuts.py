"""What stands behind an OOD accuracy on PosGen: by position, by parity, at the first token.

A task that is learned through a shortcut shows here: semi-recursive's even and odd positions part, the
first token, which no local rule gives, stays at chance, and the accuracy stops at the local rule's.
"""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import inputs, style

SUMMARIES = {
    "first_token_accuracy": "first token",
    "in_distribution_accuracy": "in distribution",
    "ood_accuracy_even": "OOD, even",
    "ood_accuracy_odd": "OOD, odd",
}
WINDOW = 8
"""Positions of one parity in a running mean."""


def main(
    output: inputs.Output,
    preset: inputs.Preset,
    protocol: inputs.Protocol,
    evaluation: inputs.Evaluations = (),
    baseline: inputs.Baselines = (),
) -> None:
    """Accuracy by position above, its summaries below, one column a task."""
    curves = inputs.read_positions(evaluation, protocol)
    summaries = inputs.read_evaluations(evaluation, protocol, "test")
    without = inputs.read_baselines(baseline, protocol)
    tasks, length = style.in_order(set(curves["task"])), inputs.train_length(evaluation)
    encodings = style.encodings_in_order(set(curves["encoding"]))
    figure = Figure(figsize=(style.TEXT_WIDTH, 4.1), layout="constrained")
    panels = figure.subplots(2, len(tasks), squeeze=False, height_ratios=[3, 2], sharey="row")
    for (above, below), task in zip(panels.T, tasks, strict=True):
        by_position(above, curves.filter(task=task), encodings, length)
        by_summary(below, summaries.filter(task=task), without.filter(task=task), encodings)
        above.set(title=style.task_title(task), xlabel="position")
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy (%)")
    style.legend(figure, columns=6)
    seeds = inputs.seeds_text(summaries["seed"])
    above = f"even positions solid, odd ones dotted, running mean of {WINDOW}"
    style.note(figure, f"Preset {preset}, protocol {protocol}; mean of {seeds}; above: {above}")
    style.save(figure, output, f"Accuracy and shortcuts on PosGen (preset {preset}, protocol {protocol})")


def by_position(axes: Axes, curves: pl.DataFrame, encodings: list[str], length: int) -> None:
    """Even and odd positions apart; shaded: trained positions."""
    axes.axvspan(0, length, color="#eeeeee", zorder=0)
    for encoding in encodings:
        of_encoding = curves.filter(encoding=encoding)
        mean = of_encoding.group_by("position").agg(value=100 * pl.col("value").mean()).sort("position")
        color = style.line(encoding)["color"]
        for parity, dots in ((0, "-"), (1, ":")):
            part = mean.filter(pl.col("position") % 2 == parity)
            smooth = part["value"].rolling_mean(WINDOW, min_samples=1, center=True)
            axes.plot(part["position"], smooth, dots, color=color, linewidth=1)
    axes.set(ylim=(-3, 103), xlim=(0, curves["position"].max() + 1))
    axes.grid(axis="y")


def by_summary(axes: Axes, summaries: pl.DataFrame, without: pl.DataFrame, encodings: list[str]) -> None:
    """A dot an encoding, a bar for the local rule, a line for chance."""
    names = list(SUMMARIES)
    rule, chance = (values_of(without.filter(encoding=name), names) for name in ("local_rule", "chance"))
    axes.bar(range(len(names)), rule, width=0.8, color="#dddddd", label="Local rule", zorder=1)
    axes.plot(range(len(names)), chance, "_", color=style.TRAINED, markersize=16, label="Chance", zorder=2)
    for n, encoding in enumerate(encodings):
        means = values_of(summaries.filter(encoding=encoding), names)
        lift = 0.16 * (n - (len(encodings) - 1) / 2)
        color = style.line(encoding)["color"]
        where = [place + lift for place in range(len(names))]
        axes.plot(where, means, "o", color=color, label=style.encoding_title(encoding), zorder=3)
    axes.set_xticks(range(len(names)), [title.replace(" ", "\n", 1) for title in SUMMARIES.values()])
    axes.set_ylim(-3, 103)
    axes.grid(axis="y")


def values_of(rows: pl.DataFrame, metrics: list[str]) -> list[float]:
    """The mean of each metric over seeds, in percent."""
    return [100 * rows.filter(metric=metric)["value"].mean() for metric in metrics]


if __name__ == "__main__":
    inputs.run(main)
