"""Figure 3: validation loss over the epochs of training, by task and encoding."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from figures import style
from figures.inputs import Evaluations, Output, Preset, Protocol, read_evaluations, run, seeds_text


def main(output: Output, preset: Preset, protocol: Protocol, evaluation: Evaluations = ()) -> None:
    """Figure 3 of the paper, from the validation curves of our runs of one protocol."""
    losses = read_evaluations(evaluation, protocol, "validation").filter(metric="loss")
    curves = curves_of(losses)
    tasks = style.in_order(set(losses["task"]))
    figure = Figure(figsize=(style.TEXT_WIDTH, 2.5), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for encoding in style.encodings_in_order(set(losses["encoding"])):
            draw_curve(axes, curves.filter(task=task, encoding=encoding), encoding)
        axes.set(title=style.task_title(task), xlabel="epoch", yscale="log")
        axes.set_xlim(left=0)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_major_formatter(style.PLAIN)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y")
    panels[0].set_ylabel("validation loss (nats per token)")
    style.legend(figure)
    several, band = ("mean of ", "; band: lowest to highest") if losses["seed"].n_unique() > 1 else ("", "")
    style.note(figure, f"Preset {preset}, protocol {protocol}; {several}{seeds_text(losses['seed'])}{band}")
    style.save(figure, output, f"Figure 3: validation loss (preset {preset}, protocol {protocol})")


def curves_of(losses: pl.DataFrame) -> pl.DataFrame:
    """Mean, lowest and highest over the seeds, at every epoch looked at.

    Raises ValueError if the seeds of a curve were not looked at alike: its mean would jump with its members.
    """
    value, key = pl.col("value"), ["task", "encoding"]
    curves = losses.group_by([*key, "epoch"]).agg(
        mean=value.sort_by("seed").mean(), lowest=value.min(), highest=value.max(), num_seeds=pl.len()
    )
    uneven = curves.group_by(key).agg(pl.col("num_seeds").n_unique()).filter(pl.col("num_seeds") > 1).sort(key)
    if not uneven.is_empty():
        task, encoding, _ = uneven.row(0)
        raise ValueError(
            f"the seeds of {encoding} on {task} must have been validated at the same epochs, but were not; "
            "they come of different settings, run the workflow again"
        )
    return curves.sort([*key, "epoch"])


def draw_curve(axes: Axes, curve: pl.DataFrame, encoding: str) -> None:
    if curve.is_empty():
        return
    look = style.line(encoding)
    axes.plot(curve["epoch"], curve["mean"], marker=".", label=style.encoding_title(encoding), **look)
    if curve["num_seeds"].max() > 1:
        band = {"color": look["color"], "alpha": 0.18, "linewidth": 0, "zorder": 1}
        axes.fill_between(curve["epoch"], curve["lowest"], curve["highest"], **band)


if __name__ == "__main__":
    run(main)
