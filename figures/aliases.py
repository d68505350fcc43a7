"""Why models fail past L: accuracy with distances hidden from attention, beside as many others hidden.

The table has a row a protocol, task and encoding. The figure shows one model of each task in full, and below what
hiding the aliases does to all.
"""

from itertools import product
from statistics import fmean

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import inputs, probes, style
from resonance.posgen.aliases import MARGIN, WINDOWS
from resonance.record.tables import Groups, Table, grouped, number, write_csv, write_tables

MASKS = {
    "none": "as it is", "aliases": "aliases hidden", "control": "as many others hidden",
    "window_trained": "trained distances alone", **{f"window_{width}": f"nearest {width}" for width in WINDOWS},
}  # fmt: skip
_LOOKS = {
    "none": (style.TRAINED, "o"), "aliases": ("#0072B2", "s"), "control": ("#E69F00", "x"),
    "window_trained": ("#009E73", "^"),
}  # fmt: skip
"""Hue and mark of the masks under which all models are shown."""
_PLACES = {"hidden": "aliases", "first_alias": "none", "first_fall": "none"}
"""Numbers of distances, and the mask under which they are told."""


def main(output: inputs.Output, preset: inputs.Preset, study: inputs.Study, draw: inputs.Draw) -> None:
    """STEM.csv for machines; .md, .tex and .html for people; and the figure."""
    rows, made = probes.read(study)
    lines = [{"preset": preset} | line for line in cells(rows)]
    write_csv(output, lines)
    masks = [title[0].upper() + title[1:] for title in MASKS.values()]
    header = ["", "Seeds", "In L", *masks, "Hidden", "First alias", "First fall", "Predicted leak"]
    table = Table("aliases", caption(preset, rows, made), header, in_groups(lines), notes())
    write_tables(output, f"Why models fail past L, preset {preset}", [table])
    style.save(drawing(rows, lines, made, preset), draw, f"Why models fail past L (preset {preset})")


def cells(rows: pl.DataFrame) -> list[dict]:
    """A protocol, task and encoding a row: means over seeds, in percent of OOD accuracy by mask."""
    values = {mask: probes.by_model(rows, mask, "ood_accuracy") for mask in MASKS}
    places = {name: probes.by_model(rows, mask, name) for name, mask in _PLACES.items()}
    leak = probes.by_model(rows, "none", "predicted_leak")
    trained = probes.by_model(rows, "none", "in_distribution_accuracy")
    encodings = style.encodings_in_order(set(rows["encoding"]))
    lines = []
    for cell in product(sorted(rows["protocol"].unique()), style.in_order(set(rows["task"])), encodings):
        if not (models := [model for model in values["none"] if model[:-1] == cell]):
            continue
        line = dict(zip(probes.MODEL, (*cell, None), strict=True)) | {"num_seeds": len(models)}
        line["in_distribution_percent"] = 100 * fmean(trained[model] for model in models)
        line |= {f"{mask}_percent": 100 * fmean(values[mask][model] for model in models) for mask in MASKS}
        line["leak_percent"] = 100 * fmean(leak[model] for model in models)
        for name, place in places.items():
            if name == "first_fall" and cell[1].startswith("semi_recursive"):
                continue  # every second position is at chance, so accuracy falls all the time
            known = [place[model] for model in models if model in place]
            line[name] = fmean(known) if known else None
        lines.append(line)
    return lines


def in_groups(lines: list[dict]) -> Groups:
    rows = []
    for line in lines:
        title = f"{style.task_title(line['task'])}, protocol {line['protocol']}"
        texts = [number(line[f"{name}_percent"], decimals=1) for name in ("in_distribution", *MASKS)]
        places = [number(line.get(name), decimals=0) for name in _PLACES]
        places.append(f"{line['leak_percent']:.0f}")
        rows.append((title, [style.encoding_title(line["encoding"]), str(line["num_seeds"]), *texts, *places]))
    return grouped(rows)


def caption(preset: str, rows: pl.DataFrame, made: list[dict]) -> str:
    return (
        "OOD accuracy in percent with some distances hidden from attention in evaluation; nothing is trained again. "
        f"Preset {preset}, mean of {inputs.seeds_text(rows['seed'])}. Model: {inputs.model_text(made)}"
    )


def notes() -> str:
    return (
        "In L: accuracy at trained positions. Aliases: untrained distances at which, by the weights alone, some "
        f"head with a preferred distance has a mean logit within {MARGIN:g} nat of its best trained one; Hidden: "
        "how many of some 190 they are. As many others hidden: a control, drawn among the untrained distances that "
        "are no alias (where fewer are left, all of them). Trained distances alone: every untrained one hidden. "
        "The start token of protocol released is never hidden. First alias, first fall: distances in tokens, means "
        "over the seeds that have one; on semi-recursive, where every second position is at chance, no fall is "
        "reported. Predicted leak: percent of attention that goes to untrained distances if logits are their "
        "means."
    )


def drawing(rows: pl.DataFrame, lines: list[dict], made: list[dict], preset: str) -> Figure:
    """Accuracy by position and attention by distance of two models a task; and every model under four masks."""
    first = rows["protocol"].min()
    tasks = [task for task in style.in_order(set(rows["task"])) if task != "semi_recursive"][:2]
    figure = Figure(figsize=(style.TEXT_WIDTH, 6.4), layout="constrained")
    panels = figure.subplots(3, len(tasks), squeeze=False, height_ratios=[3, 2, 5])
    # In full: one model each of the first two encodings, under the first protocol, of the first seed.
    names = style.encodings_in_order(set(rows["encoding"]))[:2]
    shown = rows.filter(pl.col("encoding").is_in(names), protocol=first, seed=rows["seed"].min())
    for (above, middle, below), task in zip(panels.T, tasks, strict=True):
        in_full(above, middle, shown.filter(task=task), made[0]["settings"]["data"])
        above.set(title=f"{style.task_title(task)}, {first}", ylim=(-3, 103))
        recovery(below, inputs.where(lines, task=task), named=task == tasks[0])
    panels[0][0].set_ylabel("accuracy (%)")
    panels[1][0].set_ylabel("attention (%)")
    style.legend(figure, columns=3)
    about = (
        f"Preset {preset}. Top: accuracy at each position; thin: the same model with its aliases hidden. Middle: "
        "attention of queries past L by distance, ticks at the aliases that the weights tell. Bottom: OOD accuracy, "
        "mean of seeds."
    )
    style.note(figure, style.wrapped(about))
    return figure


def in_full(above: Axes, below: Axes, rows: pl.DataFrame, data: dict) -> None:
    for lift, name in enumerate(style.encodings_in_order(set(rows["encoding"]))):
        model = rows.filter(encoding=name)
        color = ("#0072B2", "#D55E00")[lift]
        for mask, look in (("none", {"linewidth": 1.2}), ("aliases", {"linewidth": 0.6, "alpha": 0.8})):
            accuracy = probes.by_position(model, mask, "accuracy")
            label = {"label": style.encoding_title(name)} if mask == "none" else {}
            above.plot(accuracy["position"], 100 * accuracy["value"], color=color, **look, **label)
        attention = probes.by_position(model, "none", "attention")
        below.plot(attention["position"], 100 * attention["value"], color=color, linewidth=0.8)
        # The untrained distances are the last ones: as many as `window_trained` hides.
        (hidden,) = probes.by_model(model, "window_trained", "hidden").values()
        untrained = probes.by_position(model, "none", "above_trained").tail(int(hidden))
        alias = untrained.filter(pl.col("value") >= -MARGIN)["position"]
        below.plot(alias, [-1 - 1.4 * lift] * len(alias), "|", color=color, markersize=4)
    for axes in (above, below):
        axes.axvline(data["train_length"], color=style.TRAINED, linewidth=0.6, linestyle=":")
        axes.set_xlim(0, data["test_length"])
        axes.grid(axis="y")
    above.set_xlabel("position")
    below.set(xlabel="distance", ylim=(-4, 14))


def recovery(axes: Axes, lines: list[dict], named: bool) -> None:
    names = [f"{style.encoding_title(line['encoding'])}, {line['protocol']}" for line in lines]
    for mask, (color, mark) in _LOOKS.items():
        values = [line[f"{mask}_percent"] for line in lines]
        axes.plot(values, range(len(lines))[::-1], mark, color=color, markersize=4, label=MASKS[mask])
    axes.set_yticks(range(len(names)), names[::-1] if named else [""] * len(names), fontsize=6)
    axes.set(xlim=(-3, 103), xlabel="OOD accuracy (%)")
    axes.grid(axis="both")


if __name__ == "__main__":
    inputs.run(main)
