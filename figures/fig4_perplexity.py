"""Figure 4: perplexity at growing lengths, by corpus and encoding; and its numbers as a table."""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from figures import inputs, style
from resonance.llm.evaluations.perplexity import PERPLEXITY
from resonance.llm.paths import UNTUNED
from resonance.record.rows import read_run
from resonance.record.stats import LEAST_RUNS, Estimate, detectable, holm, p_value, weighted_estimate
from resonance.record.tables import Bold, Table, grouped, interval, number, write_csv, write_tables

UNIT = ["corpus", "document", "piece"]
MEASURED = [*UNIT, "length", "num_tokens"]
PAIR_COLUMNS = ["preset", "model", "corpus", "resonance", "plain", "strategy", "length", "num_units", "num_documents"]
PAIR_COLUMNS += ["difference_nats", *(f"difference{part}_percent" for part in ("", "_low95", "_high95"))]
PAIR_COLUMNS += ["detectable_percent", "holm_p", "verdict"]
NOTES = (
    "Perplexity: exp of the mean nats over all measured tokens, with its 95% interval over the documents (jackknife, "
    "t): stretches of one document are not independent. Released mean: exp of the unweighted mean of window losses, "
    "as in the released code (L10); with one window a stretch and stretches of equal length it is the same number. "
    "Untuned: the encoding exchanged, no weight trained."
)
PAIR_NOTES = (
    "Difference of perplexity in percent, Resonance against plain, stretch by stretch on the same tokens, with its 95% "
    "interval over the documents; negative is better. lower / higher: the interval excludes zero, not corrected for "
    "the number of comparisons; a difference in bold is significant after Holm's correction for all of this table. "
    "Detectable: the true difference that this spread and this many documents would find significant, by itself, four "
    "times out of five. A length's tokens are among those of the next, so rows of one line are not independent."
)


def main(
    output: inputs.Output,
    preset: inputs.Preset,
    table: inputs.TableFiles,
    title: inputs.Title,
    stand_in: inputs.StandIn,
    perplexity: Annotated[list[Path], typer.Option(help="An evaluation's parquet; once a file.")] = (),
    strategy: Annotated[list[str], typer.Option(help="`NAME: what it is` of a fine-tuning; once a strategy.")] = (),
) -> None:
    """Figure 4 of the paper, and TABLE.csv, TABLE_pairs.csv, .md, .tex, .html with its numbers."""
    rows, about = read(perplexity)
    about |= {"title": title, "stand_in": stand_in}
    cells = cells_of(rows)
    tuned = [f"{told}." for told in strategy if told.partition(":")[0] in about["strategies"]]
    note = " ".join([caption(preset, about, rows), *tuned])
    names = {"preset": preset, "model": about["model"]}
    pairs = [names | row for row in pairs_of(rows)]
    draw(output, cells, pairs, about, note)
    write_csv(table, [cell | names for cell in cells.rows(named=True)])
    write_csv(Path(f"{table}_pairs"), pairs, PAIR_COLUMNS)
    tables = [table_of(cells, note)] + ([pair_table(pairs, about)] if pairs else [])
    write_tables(table, f"Figure 4 in numbers, preset {preset}, model {about['model']}", tables)


def read(paths: list[Path]) -> tuple[pl.DataFrame, dict]:
    """Rows, one column a metric, and what the runs behind them have in common. Raises ValueError as `read_lines`."""
    rows = inputs.read_lines(paths, PERPLEXITY, [*UNIT, "length"], MEASURED)
    rows = rows.pivot("metric", index=[*inputs.LINE, *MEASURED], values="value")
    return rows, inputs.about_model(paths) | {"window": read_run(paths[0])["settings"]["choices"]["window"]}


def cells_of(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a line and length: perplexity, its interval, the released mean, and how much stands behind it."""
    made, names = [], ["corpus", *inputs.LINE, "length"]
    for key, part in rows.sort(UNIT).group_by(names, maintain_order=True):
        found = over_documents(part, pl.col("token_loss"))
        released = float(np.average(part["window_loss"], weights=part["num_windows"]))
        values = {"perplexity": found.mean, "low95": found.low, "high95": found.high, "released_mean": released}
        line = {name: None if math.isnan(nats) else math.exp(nats) for name, nats in values.items()}
        line |= {"num_units": len(part), "num_documents": found.n}
        made.append(dict(zip(names, key, strict=True)) | line | {"num_tokens": int(part["num_tokens"].sum())})
    return pl.DataFrame(inputs.sorted_lines(made, "corpus"), infer_schema_length=None)


def over_documents(part: pl.DataFrame, nats: pl.Expr) -> Estimate:
    """A mean of nats over all tokens of some stretches, its interval by the jackknife over their documents."""
    tokens = pl.col("num_tokens")
    documents = part.group_by("document", maintain_order=True).agg(
        tokens.sum(), mean=(nats * tokens).sum() / tokens.sum()
    )
    return weighted_estimate(documents["mean"].to_numpy(), documents["num_tokens"].to_numpy())


def pairs_of(rows: pl.DataFrame) -> list[dict]:
    """Resonance against plain on the same stretches, at every length and strategy that both have; Holm's p over all."""
    tested, made, names = [], [], ["corpus", "strategy", "length"]
    for pair, both in inputs.paired_lines(rows.sort([*names, *UNIT]), MEASURED, names):
        found = over_documents(both, pl.col("token_loss") - pl.col("token_loss_plain"))
        ends, least = {"": found.mean, "_low95": found.low, "_high95": found.high}, detectable(found)
        row = pair | {"num_units": len(both), "num_documents": found.n, "difference_nats": found.mean}
        row |= {f"difference{part}_percent": percent(nats) for part, nats in ends.items()}
        row |= {"detectable_percent": least and percent(least), "holm_p": None, "verdict": verdict(found)}
        made.append(row)
        if found.n >= LEAST_RUNS:
            tested.append((row, p_value(found)))
    for (row, _), adjusted in zip(tested, holm([p for _, p in tested]), strict=True):
        row["holm_p"] = adjusted
    return made


def percent(nats: float) -> float | None:
    """A difference of nats as one of perplexity."""
    return None if math.isnan(nats) else 100 * math.expm1(nats)


def verdict(found: Estimate) -> str:
    if found.n < LEAST_RUNS or found.low <= 0 <= found.high:
        return "undecided"
    return "lower" if found.mean < 0 else "higher"


def draw(output: Path, cells: pl.DataFrame, pairs: list[dict], about: dict, note: str) -> None:
    """A column a corpus; rows: untuned, fine-tuned with plain RoPE beside it, and Resonance minus plain."""
    corpora, lengths = sorted(set(cells["corpus"])), sorted(set(cells["length"]))
    tuned = pl.col("strategy") != UNTUNED
    parts = {"perplexity, untuned": cells.filter(~tuned)}
    if not cells.filter(tuned).is_empty():
        parts["perplexity, fine-tuned"] = cells.filter(tuned | (pl.col("encoding") == "rope"))
    titles = [*parts, *(["Resonance − plain (%)"] if pairs else [])]
    figure = Figure(figsize=(style.TEXT_WIDTH, 1.3 + 2.1 * len(titles)), layout="constrained")
    panels = figure.subplots(len(titles), len(corpora), squeeze=False, sharex=True)
    for column, corpus in zip(panels.T, corpora, strict=True):
        for axes, part in zip(column, parts.values(), strict=False):
            draw_panel(axes, part.filter(corpus=corpus), about)
        if pairs:
            draw_differences(column[-1], inputs.where(pairs, corpus=corpus), about)
        for axes in column:
            style.lengths(axes, [n for n in lengths if n & (n - 1) == 0] or lengths, about["train_length"])
        column[0].set_title(corpus.replace("_", " ").capitalize())
        column[-1].set_xlabel("length (tokens)")
    for axes, title in zip(panels[:, 0], titles, strict=True):
        axes.set_ylabel(title)
    style.legend(figure, 3)
    style.note(figure, note, small=True)
    title = "stand-in: " if about["stand_in"] else ""
    style.save(figure, output, f"Figure 4 ({title}{about['title']}): perplexity by length")


def draw_differences(axes: Axes, pairs: list[dict], about: dict) -> None:
    """One corpus: what Resonance changes, in percent of perplexity; below zero it is better."""
    axes.axhline(0, color=style.TRAINED, linewidth=0.8)
    rows = pl.DataFrame(pairs, infer_schema_length=None)
    lines = list(rows.group_by(["resonance", "plain", "strategy"], maintain_order=True))
    for place, ((resonance, plain, strategy), line) in enumerate(lines):
        lengths = line["length"] * 1.04 ** (place - (len(lines) - 1) / 2)  # beside each other
        color, marker = style.line(resonance)["color"], "x" if strategy == UNTUNED else mark(strategy, about)
        look = {"color": color, "marker": marker, "markersize": 3, "linestyle": ""}
        label = f"{style.pair_title(resonance, plain)}, {strategy}"
        axes.plot(lengths, line["difference_percent"], label=label, **look)
        low, high = (line[f"difference_{end}95_percent"] for end in ("low", "high"))
        if low.null_count() == 0:
            axes.vlines(lengths, low, high, color=color, linewidth=0.8)


def mark(strategy: str, about: dict) -> str:
    """The mark of a fine-tuning's lines."""
    return style.MARKS[about["strategies"].index(strategy) % len(style.MARKS)]


def draw_panel(axes: Axes, cells: pl.DataFrame, about: dict) -> None:
    """One corpus. A line more than twice above the lowest everywhere leaves the panel and is named at its top.

    Intervals of levels are in the table: how texts differ would hide how lines do.
    """
    lowest = cells["perplexity"].min()
    shown = []
    for (encoding, strategy), line in cells.group_by(inputs.LINE, maintain_order=True):
        look, label = style.line(encoding), style.encoding_title(encoding)
        if strategy != UNTUNED:
            look |= {"marker": mark(strategy, about), "markersize": 3}
            label += f", {strategy}"
        low, high = line["perplexity"].min(), line["perplexity"].max()
        if low > 2 * lowest:
            at = {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 6, "color": look["color"]}
            axes.text(0.98, 0.97, f"{label}: {low:.3g} to {high:.3g}, off the top", **at)
            continue
        shown.append(line)
        axes.plot(line["length"], line["perplexity"], label=label, **look)
    values = pl.concat(shown)["perplexity"]
    axes.set(yscale="log", ylim=(values.min() * 0.96, values.max() * 1.06))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(style.PLAIN)


def caption(preset: str, about: dict, rows: pl.DataFrame) -> str:
    """What was measured, and, where it is not LLaMA2, that it stands in for it."""
    measured = [
        f"{corpus}: {part['document'].n_unique()} documents, {len(part.select(UNIT).unique())} stretches"
        for (corpus,), part in sorted(rows.group_by(["corpus"]), key=lambda entry: entry[0])
    ]
    stand_in = "A STAND-IN for LLaMA2: its perplexities compare with each other, not with the paper's."
    return (
        f"Preset {preset}, model {about['title']} ({about['num_parameters']:,} parameters), trained at L = "
        f"{about['train_length']}, s = {about['scale']:g}; {about['window']} windows, {about['precision']}. "
        f"{'; '.join(measured)}. {stand_in if about['stand_in'] else ''}"
    ).strip()


def table_of(cells: pl.DataFrame, note: str) -> Table:
    lengths = sorted(set(cells["length"]))
    header = ["", "Strategy", *map(str, lengths), f"95% interval at {lengths[-1]}", f"Released mean at {lengths[-1]}"]
    rows = []
    for (corpus, encoding, strategy), line in cells.group_by(["corpus", *inputs.LINE], maintain_order=True):
        values = dict(zip(line["length"], line["perplexity"], strict=True))
        last = line.sort("length").row(-1, named=True)
        spread = [interval(last["low95"], last["high95"]), number(last["released_mean"])]
        shown = [number(values.get(length)) for length in lengths]
        rows.append((corpus, [style.encoding_title(encoding), strategy, *shown, *spread]))
    return Table("perplexity", f"Perplexity at growing lengths. {note}", header, grouped(rows), NOTES)


def pair_table(pairs: list[dict], about: dict) -> Table:
    """Rows by length; a block a corpus and strategy, and a pair where there are several."""
    titles, lines = [style.pair_title(row["resonance"], row["plain"]) for row in pairs], []
    several = len(set(titles)) > 1
    for row, pair in sorted(zip(pairs, titles, strict=True), key=lambda entry: entry[0]["corpus"]):
        ends = interval(row["difference_low95_percent"], row["difference_high95_percent"], "+")
        mean = number(row["difference_percent"], "+")
        mean = Bold(mean) if row["holm_p"] is not None and row["holm_p"] < 0.05 else mean
        cells = [str(row["length"]), mean, ends, number(row["detectable_percent"]), row["verdict"]]
        lines.append((f"{row['corpus']}, {row['strategy']}" + (f": {pair}" if several else ""), cells))
    caption = f"{'Resonance against plain' if several else titles[0]}, {about['title']}."
    header = ["Length", "Difference in %", "95% interval", "Detectable", "Verdict"]
    return Table("perplexity-pairs", caption, header, grouped(lines), PAIR_NOTES)


if __name__ == "__main__":
    inputs.run(main)
