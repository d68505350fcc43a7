"""Passkey retrieval: the share of hidden keys that were found, by length and encoding; a figure and a table."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from matplotlib.figure import Figure

from figures import inputs, style
from resonance.llm.evaluations.passkey import PASSKEY
from resonance.llm.paths import UNTUNED
from resonance.record.stats import mcnemar, share_interval
from resonance.record.tables import Table, grouped, interval, number, write_csv, write_tables

PROMPT = ["length", "repetition"]
NOTES = (
    "Keys found of keys hidden, in percent, with 95% Clopper-Pearson intervals over the prompts. Every encoding read "
    "the same prompts. The protocol is YaRN's (a key of 1 to 50,000 at a random place of the filler, ten new tokens, "
    "the first number of the answer counts); the frame's sentences are ours, so scores do not compare with published "
    "ones. Untuned: the encoding exchanged, no weight trained."
)
PAIR_COLUMNS = ["resonance", "plain", "strategy", "prompts", "only_resonance", "only_plain", "p", "preset", "model"]
PAIR_NOTES = (
    "Keys that only one of the two found, over all lengths; exact two-sided McNemar test, not corrected for the "
    "number of comparisons."
)


def main(
    output: inputs.Output,
    preset: inputs.Preset,
    table: inputs.TableFiles,
    title: inputs.Title,
    stand_in: inputs.StandIn,
    passkey: Annotated[list[Path], typer.Option(help="A retrieval's parquet; once a file.")] = (),
) -> None:
    """Passkey retrieval by length, and TABLE.csv, TABLE_pairs.csv, .md, .tex, .html with its numbers."""
    rows, about = read(passkey)
    cells, pairs = cells_of(rows), pairs_of(rows)
    note = caption(preset, title, stand_in, about, rows)
    draw(output, cells, about, title, note)
    names = {"preset": preset, "model": about["model"]}
    write_csv(table, [cell | names for cell in cells.rows(named=True)])
    write_csv(Path(f"{table}_pairs"), [pair | names for pair in pairs], PAIR_COLUMNS)
    tables = [table_of(cells, note)] + ([pair_table(pairs, title)] if pairs else [])
    write_tables(table, f"Passkey retrieval, preset {preset}, model {about['model']}", tables)


def read(paths: list[Path]) -> tuple[pl.DataFrame, dict]:
    """Rows, and what the runs behind them have in common. Raises ValueError as `read_lines`."""
    return inputs.read_lines(paths, PASSKEY, PROMPT, [*PROMPT, "key", "depth", "num_tokens"]), inputs.about_model(paths)


def cells_of(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a line and length: how many keys were found, and the share's interval."""
    counts = rows.group_by([*inputs.LINE, "length"]).agg(found=pl.col("value").sum().cast(pl.Int64), asked=pl.len())
    made = []
    for row in inputs.sorted_lines(counts.rows(named=True)):
        low, high = share_interval(row["found"], row["asked"])
        made.append(row | {"percent": 100 * row["found"] / row["asked"], "low95": 100 * low, "high95": 100 * high})
    return pl.DataFrame(made)


def pairs_of(rows: pl.DataFrame) -> list[dict]:
    """Resonance against plain on the same prompts, all lengths together."""
    made = []
    for pair, both in inputs.paired_lines(rows, PROMPT, ["strategy"]):
        better, worse = ((sign * (both["value"] - both["value_plain"]) > 0).sum() for sign in (1, -1))
        counts = {"prompts": both.height, "only_resonance": better, "only_plain": worse}
        made.append(pair | counts | {"p": mcnemar(better, worse)})
    return made


def draw(output: Path, cells: pl.DataFrame, about: dict, title: str, note: str) -> None:
    """One panel; lines that lie upon each other are set apart by a little."""
    figure = Figure(figsize=(style.TEXT_WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    groups, tuned = list(cells.group_by(inputs.LINE, maintain_order=True)), style.MARKS[1:]
    for place, ((encoding, strategy), line) in enumerate(groups):
        label = style.encoding_title(encoding) + ("" if strategy == UNTUNED else f", {strategy}")
        marker = style.MARKS[0] if strategy == UNTUNED else tuned[about["strategies"].index(strategy) % len(tuned)]
        apart = 1 + 0.012 * (place - (len(groups) - 1) / 2)
        length, look = line["length"] * apart, style.line(encoding)
        axes.plot(length, line["percent"], label=label, marker=marker, markersize=3.5, **look)
        axes.vlines(length, line["low95"], line["high95"], color=look["color"], linewidth=0.7, alpha=0.6)
    axes.set(ylim=(-4, 113), yticks=range(0, 101, 20), xlabel="length (tokens)", ylabel="keys found (%)")
    style.lengths(axes, sorted(set(cells["length"])), about["train_length"])
    style.legend(figure, 3)
    style.note(figure, note, small=True)
    style.save(figure, output, f"Passkey retrieval ({title}) by length")


def caption(preset: str, title: str, stand_in: bool, about: dict, rows: pl.DataFrame) -> str:
    asked = rows.select("length", "repetition").unique().group_by("length").len()["len"].unique().to_list()
    said = "A STAND-IN for LLaMA2: its scores compare with each other alone." if stand_in else ""
    return (
        f"Preset {preset}, model {title} ({about['num_parameters']:,} parameters), trained at L = "
        f"{about['train_length']}, s = {about['scale']:g}; {about['precision']}; {', '.join(map(str, asked))} keys a "
        f"length. {said}"
    ).strip()


def table_of(cells: pl.DataFrame, note: str) -> Table:
    rows = []
    for (encoding, strategy), line in cells.group_by(inputs.LINE, maintain_order=True):
        by_length = line.sort("length").iter_rows(named=True)
        shown = [f"{number(cell['percent'])} {interval(cell['low95'], cell['high95'])}" for cell in by_length]
        rows.append((strategy, [style.encoding_title(encoding), *shown]))
    header = ["", *map(str, sorted(set(cells["length"])))]
    return Table("passkey", f"Passkey retrieval. {note}", header, grouped(rows), NOTES)


def pair_table(pairs: list[dict], title: str) -> Table:
    header = ["", "Strategy", "Prompts", "Only Resonance", "Only plain", "McNemar p"]
    lines = []
    for row in pairs:
        counted = [str(row[name]) for name in ("prompts", "only_resonance", "only_plain")]
        pair = style.pair_title(row["resonance"], row["plain"], "against")
        lines.append([pair, row["strategy"], *counted, f"{row['p']:.3f}"])
    return Table("passkey-pairs", f"Resonance against plain, {title}.", header, [("all lengths", lines)], PAIR_NOTES)


if __name__ == "__main__":
    inputs.run(main)
