"""Where accuracy first falls past the trained distances, beside what was predicted before the models were trained.

Two predictions: the ones committed with the repository (`results-published/predictions/`), and each model's own
kernel, which reads its weights and no position past L.
"""

import re
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from matplotlib.figure import Figure
from scipy import stats

from figures import inputs, probes, style
from resonance.record.tables import Groups, Table, grouped, number, write_csv, write_tables

WITHIN = 2
"""Positions: a prediction that is this near holds."""
MASKS = {"aliases": "Aliases hidden", "control": "As many others hidden", "window_trained": "Trained distances alone"}
_MOVED = re.compile(r"\+([Lk])(\d+)")
"""L or k in a protocol's name, where it is the protocol's own."""
BY = {"predicted": "predicted before training", "own": "by the model's own kernel"}


def main(
    output: inputs.Output,
    preset: inputs.Preset,
    study: inputs.Study,
    predictions: Annotated[Path, typer.Option(help="The committed predictions.")],
    draw: inputs.Draw,
) -> None:
    """STEM.csv for machines; .md, .tex and .html for people; and the figure."""
    rows, made = probes.read(study)
    lines = [{"preset": preset} | line for line in cells(rows, pl.read_csv(predictions).filter(preset=preset), preset)]
    write_csv(output, lines)
    header = ["", "OOD accuracy", "First fall", "Predicted", "Own kernel", "Predicted leak", *MASKS.values()]
    said = (
        "Distance from query to first token where accuracy first falls. "
        f"Preset {preset}, {inputs.seeds_text(rows['seed'])}. Model: {inputs.model_text(made)}"
    )
    table = Table("falls", said, header, in_groups(lines), " ".join(scores(lines)))
    write_tables(output, f"First falls, preset {preset}", [table])
    style.save(drawing(lines, preset), draw, f"First falls (preset {preset})")


def cells(rows: pl.DataFrame, predictions: pl.DataFrame, preset: str) -> list[dict]:
    """A model a row. Raises ValueError for one without a prediction, for those of another preset are of other sizes."""
    before = {tuple(row[name] for name in probes.MODEL): row for row in predictions.iter_rows(named=True)}
    names = ("first_fall", "predicted_fall", "predicted_leak", "ood_accuracy")
    fall, own, leak, ood = (probes.by_model(rows, "none", name) for name in names)
    masked = {mask: probes.by_model(rows, mask, "ood_accuracy") for mask in MASKS}
    lines = []
    tasks = style.in_order({task for _, task, *_ in ood})
    # Whichever file is first: RoPE before YaRN.
    for model in sorted(ood, key=lambda model: (tasks.index(model[1]), model[0], "yarn" in model[2])):
        if (said := before.get(model)) is None:
            cell = ", ".join(map(str, (preset, *model)))
            raise ValueError(f"predictions must hold {cell}, got none; add it before a run")
        lines.append(
            dict(zip(probes.MODEL, model, strict=True))
            | {"by": said["by"], "predicted": said["predicted_fall"], "fall": fall.get(model)}
            | {"own": own.get(model), "ood_percent": 100 * ood[model], "leak_percent": 100 * leak[model]}
            | {f"{mask}_percent": 100 * masked[mask][model] for mask in MASKS}
        )
    return lines


def in_groups(lines: list[dict]) -> Groups:
    rows = []
    for line in lines:
        title = f"{style.task_title(line['task'])}, protocol {base_of(line)}, predicted by {line['by']}"
        texts = [number(line["ood_percent"], decimals=1), *(number(line[n], decimals=0) for n in ("fall", *BY))]
        texts += [f"{line['leak_percent']:.0f}", *(number(line[f"{mask}_percent"], decimals=1) for mask in MASKS)]
        rows.append((title, [model_title(line), *texts]))
    return grouped(rows)


def model_title(line: dict) -> str:
    """The encoding, and L or k where they are the protocol's own."""
    own = _MOVED.findall(line["protocol"])
    return ", ".join([style.encoding_title(line["encoding"]), *(f"{name} = {value}" for name, value in own)])


def base_of(line: dict) -> str:
    """The protocol, L and k left out."""
    return _MOVED.sub("", line["protocol"])


def share(lines: list[dict], guesses: list[float | None]) -> float:
    """How many of the first falls lie within `WITHIN` of a guess, in percent."""
    both = [(line["fall"], guess) for line, guess in zip(lines, guesses, strict=True)]
    return 100 * sum(None not in pair and abs(pair[0] - pair[1]) <= WITHIN for pair in both) / len(both)


def scores(lines: list[dict]) -> list[str]:
    """A sentence a block: how many predictions hold, beside the best constant; and whether leak orders the models."""
    said = [f"Held: within {WITHIN} positions of the first fall. Constant: the best single guess of the block."]
    kinds = list(dict.fromkeys((base_of(line), line["by"]) for line in lines))
    for (base, by), task in product(kinds, style.in_order({line["task"] for line in lines})):
        of = [line for line in inputs.where(lines, by=by, task=task) if base_of(line) == base]
        if not of:
            continue
        held = [share(of, [line[name] for line in of]) for name in BY]
        best = max(share(of, [guess] * len(of)) for guess in range(256))
        pairs = [[line[name] for line in of] for name in ("leak_percent", "ood_percent")]
        orders = ""
        if len(of) > 2 and all(len(set(values)) > 1 for values in pairs):
            r, p = stats.spearmanr(*pairs)
            orders = f"; Spearman of predicted leak and OOD accuracy {number(r, '+')} (p = {p:.2g})"
        said.append(
            f"{style.task_title(task)}, {base}, {by}: {held[0]:.0f} % of {len(of)} held as predicted, {held[1]:.0f} % "
            f"by their own kernels, {best:.0f} % by a constant{orders}."
        )
    return said


def drawing(lines: list[dict], preset: str) -> Figure:
    """Measured against predicted; on the grey band a prediction holds."""
    figure = Figure(figsize=(style.TEXT_WIDTH, 3.2), layout="constrained")
    tasks = style.in_order({line["task"] for line in lines})
    places = [line[name] for line in lines for name in ("fall", *BY) if line[name] is not None]
    least, most = min(places, default=60), max(places, default=0)
    ends = np.array([60 if least >= 60 else least - 5, max(150, most + 5)])
    for axes, task in zip(figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0], tasks, strict=True):
        of = [line for line in inputs.where(lines, task=task) if line["fall"] is not None]
        axes.fill_between(ends, ends - WITHIN, ends + WITHIN, color="#dddddd", zorder=0)
        for name, color, marker in (("predicted", "#0072B2", "o"), ("own", "#D55E00", "x")):
            known = [(line[name], line["fall"]) for line in of if line[name] is not None]
            x, y = zip(*known, strict=True) if known else ((), ())
            axes.plot(x, y, marker, color=color, markersize=4, alpha=0.7, label=BY[name])
        axes.set(title=style.task_title(task), xlabel="predicted distance (tokens)", xlim=ends, ylim=ends)
        axes.grid(axis="both")
    figure.axes[0].set_ylabel("first fall (tokens)")
    style.legend(figure)
    style.note(figure, f"Preset {preset}. Where accuracy first falls by 5 points; one mark a model and prediction.")
    return figure


if __name__ == "__main__":
    inputs.run(main)
