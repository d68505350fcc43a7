"""Table 1 at a glance: every published cell beside ours under each protocol, and whether it lies in our interval.

Made of the tables that `table1_posgen` writes, so that no number of theirs is computed twice.
"""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import inputs, style

LOOKS = {"paper": ("o", "#0072B2"), "released": ("s", "#D55E00")}
OTHER = ("^", "#555555")
"""Mark and hue of a protocol, and of any other."""
INSIDE = "paper inside"


def main(
    output: inputs.Output,
    preset: inputs.Preset,
    table: Annotated[list[Path], typer.Option(help="table1_PROTOCOL.csv; once a protocol.")],
) -> None:
    """STEM.pdf, .svg and .png."""
    every = [pl.read_csv(path) for path in table]
    # A column of nothing, such as the intervals of two seeds, is read as text.
    every = [cells.with_columns(pl.col("^.*_percent$").cast(pl.Float64)) for cells in every]
    cells = pl.concat(every, how="vertical_relaxed").drop_nulls("num_seeds")
    style.save(drawing(cells), output, f"Table 1, published and ours (preset {preset})")


def drawing(cells: pl.DataFrame) -> Figure:
    tasks, encodings = style.in_order(set(cells["task"])), style.encodings_in_order(set(cells["encoding"]))
    protocols = list(dict.fromkeys(cells["protocol"]))
    figure = Figure(figsize=(4.2, 1.1 + 1.25 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), 1, sharex=True, squeeze=False)[:, 0]
    for axes, task in zip(panels, tasks, strict=True):
        of_task = cells.filter(task=task)
        for row in of_task.iter_rows(named=True):
            draw_cell(axes, row, encodings.index(row["encoding"]) + 0.24 * (protocols.index(row["protocol"]) + 1))
        published = of_task.drop_nulls("paper_mean_percent").unique("encoding", maintain_order=True)
        for encoding, mean in published.select("encoding", "paper_mean_percent").iter_rows():
            axes.plot(mean, encodings.index(encoding), "D", color="black", markersize=4, zorder=3)
        axes.set_yticks([place + 0.24 for place in range(len(encodings))], map(style.encoding_title, encodings))
        axes.set_ylim(len(encodings) - 0.2, -0.4)
        axes.set_title(style.task_title(task), fontsize="medium", loc="left")
        axes.grid(axis="x")
    panels[-1].set_xlim(0, 102)
    panels[-1].set_xlabel("accuracy at positions past the trained length (%)")
    figure.legend(handles=handles(protocols), loc="outside lower center", ncols=2, fontsize="small")
    return figure


def draw_cell(axes, row: dict, place: float) -> None:
    """Ours, filled where the published mean lies inside our interval; no interval below three seeds."""
    (marker, color), mean = LOOKS.get(row["protocol"], OTHER), row["ood_accuracy_percent"]
    if row["ood_low95_percent"] is not None:
        ends = [max(0, row["ood_low95_percent"]), min(100, row["ood_high95_percent"])]
        axes.plot(ends, [place] * 2, color=color, linewidth=1, zorder=1)
    face = color if row["verdict"] == INSIDE else "white"
    axes.plot(mean, place, marker, color=color, markerfacecolor=face, markersize=4, zorder=2)


def handles(protocols: list[str]) -> list[Line2D]:
    def mark(marker: str, color: str, face: str, label: str) -> Line2D:
        return Line2D([], [], marker=marker, color=color, markerfacecolor=face, linestyle="", label=label)

    ours = [mark(*LOOKS.get(protocol, OTHER), "white", f"ours, {protocol}") for protocol in protocols]
    filled = mark("o", "#555555", "#555555", "filled: published inside our 95 % interval")
    return [mark("D", "black", "black", "published"), *ours, filled]


if __name__ == "__main__":
    inputs.run(main)
