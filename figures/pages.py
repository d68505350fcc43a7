"""The measured tables that docs/ shows: put there from the rows that the repository keeps.

A page marks a table's place by a comment, `<!-- table: NAME ARGUMENTS -->`, and its end by `<!-- end -->`. What
stands between is made of the files that `snakemake published` writes, so no number of theirs is typed.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from figures import style
from figures.inputs import run
from figures.rounding import NONE, RULES, TITLES
from figures.tables import interval, number, with_sd
from resonance.encoding.rounding import CONTROLS
from resonance.record.files import write_text
from resonance.record.stats import Estimate, holm, p_value

_BLOCK = re.compile(r"(<!-- table: ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
PROTOCOLS = ("paper", "released")


def main(
    tables: Annotated[Path, typer.Option(help="The folder that holds them: results/PRESET/published/tables.")],
    page: Annotated[list[Path], typer.Option(help="A page to bring up to date; once a page.")],
) -> None:
    """Bring the tables of pages up to date."""
    for path in page:
        write_text(path, filled(path.read_text(encoding="utf-8"), tables))


def filled(page: str, tables: Path) -> str:
    """The page, each of its tables made anew. Raises ValueError for one that is not known."""

    def made(match: re.Match) -> str:
        name, *arguments = match[2].split()
        if name not in _MAKERS:
            raise ValueError(f"a page's table must be one of {', '.join(_MAKERS)}, got {name!r}")
        return match[1] + "\n" + _MAKERS[name](tables, *arguments) + "\n" + match[3]

    return _BLOCK.sub(made, page)


def whole(tables: Path, stem: str) -> str:
    """A table as its script wrote it, caption and notes with it."""
    return (tables / f"{stem}.md").read_text(encoding="utf-8")


def cells(tables: Path, study: str) -> str:
    """Published / paper / released of every encoding and task, and what needs no training."""
    ours = {protocol: _by(tables / f"{study}_{protocol}.csv", "encoding", "task") for protocol in PROTOCOLS}
    first = ours[PROTOCOLS[0]]
    tasks, names = (list(dict.fromkeys(key[place] for key in first)) for place in (1, 0))
    rows = [["", *map(style.task_title, tasks)]]
    for name in names:
        trained = first[name, tasks[0]]["num_seeds"] is not None
        row = [style.encoding_title(name) if trained else f"*{style.encoding_title(name)}*"]
        for task in tasks:
            found = [ours[protocol][name, task] for protocol in PROTOCOLS]
            texts = [with_sd(each["ood_accuracy_percent"], each["ood_sd_points"]) for each in found]
            if trained:
                texts.insert(0, number(found[0]["paper_mean_percent"]))
            else:
                texts = list(dict.fromkeys(texts))  # once where the protocols agree
            row.append(" / ".join(texts))
        rows.append(row)
    return _markdown(rows)


def pairs(tables: Path, study: str) -> str:
    """Resonance minus plain, beside the paper's, with the verdict; in bold what survives Holm over all of them."""
    ours = {p: _by(tables / f"{study}_{p}_pairs.csv", "resonance", "plain", "task") for p in PROTOCOLS}
    judged = [row for rows in ours.values() for row in rows.values()]
    for row, adjusted in zip(judged, holm([_p_value(row) for row in judged]), strict=True):
        row["survives"] = adjusted < 0.05
    rows = [["", "published", *(f"`{protocol}`" for protocol in PROTOCOLS)]]
    for key in sorted(ours[PROTOCOLS[0]], key=lambda key: style.method_place(key[1])):
        found = [ours[protocol][key] for protocol in PROTOCOLS]
        title = f"{style.encoding_title(key[1])}, {style.task_title(key[2])}"
        rows.append([title, number(found[0]["paper_difference_points"], "+"), *map(_judged, found)])
    return _markdown(rows)


def rounding(tables: Path, method: str) -> str:
    """What every rule of rounding adds to no rounding with one method: a column a task and protocol."""
    cells = _by(tables / "rounding.csv", "method", "task", "protocol", "rounding")
    found = {key[1:]: row for key, row in cells.items() if key[0] == method}
    tasks, protocols = style.in_order({task for task, *_ in found}), sorted({protocol for _, protocol, _ in found})
    columns = [(task, protocol) for task in tasks for protocol in protocols if (task, protocol, NONE) in found]
    rows = [["wavelengths", *(f"{style.task_title(task)}, `{protocol}`" for task, protocol in columns)]]
    plain = [found[*column, NONE]["ood_accuracy_percent"] for column in columns]
    rows.append(["accuracy with no rounding", *(number(value, decimals=1) for value in plain)])
    for rule in [rule for rule in RULES if rule != NONE]:
        title = TITLES.get(rule, rule).replace(":", ",")
        rows.append([f"*{title}*" if rule in CONTROLS else title])
        rows[-1] += [_gain(found[*column, rule]) for column in columns]
    return _markdown(rows)


def _p_value(row: dict) -> float:
    mean, sd = row["difference_points"], row["difference_sd_points"]
    return p_value(Estimate(mean, sd, math.nan, math.nan, row["num_seeds"]))


def _judged(row: dict) -> str:
    """A difference with its interval and verdict; one that survives the correction in bold."""
    mean, verdict = number(row["difference_points"], "+"), row["verdict"] or ""
    between = interval(row["difference_low95_points"], row["difference_high95_points"], "+")
    return f"{mean} {between} {f'**{verdict}**' if row['survives'] else verdict}".strip()


def _gain(row: dict) -> str:
    """A difference from no rounding with half its interval, one decimal; in bold where that leaves 0 out."""
    mean, low, high = (row[f"minus_{NONE}{part}_points"] for part in ("", "_low95", "_high95"))
    text = number(mean, "+", 1)
    return f"{f'**{text}**' if low > 0 or high < 0 else text} ± {number(mean - low, decimals=1)}"


def _by(path: Path, *names: str) -> dict[tuple, dict]:
    """Rows of a csv file by the values of some columns."""
    rows = pl.read_csv(path, infer_schema_length=None).iter_rows(named=True)
    return {tuple(row[name] for name in names): row for row in rows}


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


_MAKERS: dict[str, Callable[..., str]] = {"whole": whole, "cells": cells, "pairs": pairs, "rounding": rounding}


if __name__ == "__main__":
    run(main)
