"""Table 1: OOD accuracy on PosGen, ours beside the paper's, with a verdict for every published cell.

Two blocks. The cells: mean over seeds, its spread, and what it takes to read it (in-distribution
accuracy, first token, parity, the best local rule). The pairs: Resonance minus plain, seed by seed,
which is what the paper claims. All numbers in percent, differences in percentage points.
"""

from collections.abc import Collection
from dataclasses import replace
from itertools import compress, product
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from figures import inputs, style
from resonance.record.settings import Settings
from resonance.record.stats import LEAST_RUNS, Estimate, detectable, estimate, holm, p_value, paired_difference
from resonance.record.tables import Bold, Table, grouped, interval, number, with_sd, write_csv, write_tables

TITLES = {
    "table1": "Table 1",
    "extended": "Table 1 with more encodings",
    "keyed": "Table 1 on tasks without shortcuts",
}
ABOUT = {
    "table1": "",
    "extended": " The paper compares two pairs of encodings; here are five.",
    "keyed": " The paper's tasks with another h: far tokens enter through a fixed random substitution, so that no "
    "rule simpler than the task's own gives a token without its far ones. Nothing is published for them.",
}
LOCAL_RULE = dict.fromkeys(TITLES, "the best that never looks far (it says nothing at x[j+k])")
LOCAL_RULE["keyed"] = "the likeliest token for one who knows the substitution and never looks far (none on recursive)"
BASELINES = ["local_rule", "chance"]
DIAGNOSTICS = ["in_distribution_accuracy", "first_token_accuracy", "ood_accuracy_even", "ood_accuracy_odd"]
PAIR_COLUMNS = ["preset", "protocol", "resonance", "plain", "task", "num_seeds"]
PAIR_COLUMNS += [f"difference{part}_points" for part in ("", "_sd", "_low95", "_high95")]
PAIR_COLUMNS += ["detectable_points", "holm_p", "paper_difference_points", "verdict"]
KEPT_COLUMNS = ["kept_num_seeds", "kept_points", "kept_between"]

TOO_FEW = "too few seeds"
KEPT = "Kept rows"
"""The column of the repository's own measured rows, beside those of a run."""

CELL_HEADER = ["", "Seeds", "OOD accuracy ± sd", "95% interval", "Variance", KEPT, "Paper", "Verdict"]
CELL_HEADER += ["In distribution", "First token", "OOD, even", "OOD, odd"]
PAIR_HEADER = ["", "Seeds", "Difference", "95% interval", "Detectable", KEPT, "Paper's difference", "Verdict"]
BESIDE_PAPER = ("Paper", "Verdict", "Paper's difference")
PAIR_CAPTION = (
    "Resonance minus plain, in percentage points of OOD accuracy: the mean of the differences seed by seed with its "
    "95% t-interval"
)
PAIR_VERDICTS = (
    "agrees / contradicts: our interval excludes 0, on the paper's side / on the other. undecided: it contains 0. "
    f"Fewer than {LEAST_RUNS} seeds get neither interval nor verdict. "
)
PAIR_NOTES = (
    "The intervals are not corrected for the number of comparisons; a difference in bold is significant after Holm's "
    "correction for all of this table. Detectable: the true difference that this spread and this many seeds would find "
    "significant, by itself, four times out of five."
)

RUN = ("encoding", "task", "metric")
Runs = dict[tuple[str, str, str], dict[int, float]]
"""RUN -> seed -> percent."""


class Cell(Settings):
    """A published mean in percent, and what is printed behind its plus-minus."""

    mean: float
    spread: float


class Published(Settings):
    """Section table1 of config/published.yaml."""

    source: str
    rows: dict[str, dict[str, Cell]]

    def cell(self, encoding: str, task: str) -> Cell | None:
        return self.rows.get(encoding, {}).get(task)


def main(
    output: inputs.Output,
    preset: inputs.Preset,
    protocol: inputs.Protocol,
    published: inputs.Published,
    encoding: Annotated[list[str], typer.Option(help="A row, in this order; once a row.")],
    evaluation: inputs.Evaluations = (),
    baseline: inputs.Baselines = (),
    study: Annotated[str, typer.Option(help="table1, or one laid out like it: extended, keyed.")] = "table1",
    kept: Annotated[
        Path | None, typer.Option(help="The repository's own rows of this table, shown in a column of their own.")
    ] = None,
) -> None:
    """Table 1, or a study laid out like it: STEM.csv and STEM_pairs.csv for machines; .md, .tex, .html for people."""
    paper = read_published(published)
    evaluations = inputs.read_evaluations(evaluation, protocol, "test")
    runs, tasks = inputs.by_seed(evaluations, *RUN), style.in_order(set(evaluations["task"]))
    check_complete(runs, encoding, tasks)
    names = {"preset": preset, "protocol": protocol}
    cells = [names | cell_row(runs, paper, name, task) for task in tasks for name in encoding]
    cells += [names | row for row in baseline_rows(inputs.read_baselines(baseline, protocol), tasks)]
    pairs = [names | row for row in pair_rows(runs, paper, style.pairs(encoding), tasks)]
    before = inputs.by_seed(inputs.read_evaluations([kept], protocol, "test"), *RUN) if kept else {}
    for row in cells:
        row |= kept_cell(before.get((row["encoding"], row["task"], "ood_accuracy")))
    for row in pairs:
        sides = (before.get((row[side], row["task"], "ood_accuracy")) for side in ("resonance", "plain"))
        row |= kept_pair(*sides, row["paper_difference_points"])
    seeds = inputs.seeds_text(seed for (name, *_), seeds in runs.items() if name in encoding for seed in seeds)
    groups = grouped((style.task_title(row["task"]), cell_text(row)) for row in cells)
    beside = any(row.get("paper_mean_percent") is not None for row in cells)  # there is something published
    said = caption(names, seeds, inputs.runs_behind(evaluation), study, beside)
    tables = [Table(f"posgen-{study}", said, CELL_HEADER, groups, cell_notes(paper, study, beside))]
    if pairs:
        said = PAIR_CAPTION + (", beside the difference of the paper's means." if beside else ".")
        groups = grouped((style.task_title(row["task"]), pair_text(row)) for row in pairs)
        notes = (PAIR_VERDICTS if beside else "") + PAIR_NOTES
        tables.append(Table(f"posgen-{study}-pairs", said, PAIR_HEADER, groups, notes))
    tables = [without(table, {*(() if beside else BESIDE_PAPER), *(() if kept else [KEPT])}) for table in tables]
    write_csv(output, cells)
    write_csv(Path(f"{output}_pairs"), pairs, [*PAIR_COLUMNS, *(KEPT_COLUMNS if kept else [])])
    write_tables(output, f"{TITLES[study]}, preset {preset}, protocol {protocol}", tables)


def read_published(path: Path) -> Published:
    return inputs.read_section(path, "table1", Published, "the paper's numbers by encoding and task")


def check_complete(runs: Runs, encodings: list[str], tasks: list[str]) -> None:
    """Raises ValueError if a row is asked for twice, or has no runs, or lacks one of its metrics."""
    if len(set(encodings)) != len(encodings):
        raise ValueError(f"--encoding must name each row once, got {', '.join(encodings)}")
    for name, task in product(encodings, tasks):
        seeds = runs.get((name, task, "ood_accuracy"), {}).keys()
        if not seeds:
            raise ValueError(f"--evaluation must cover encoding {name} on task {task}, got no run of it")
        for metric in DIAGNOSTICS:
            if runs.get((name, task, metric), {}).keys() != seeds:
                raise ValueError(f"{metric} of {name} on {task} must be there for every seed; run it again")


def cell_row(runs: Runs, paper: Published, encoding: str, task: str) -> dict:
    by_seed = runs[encoding, task, "ood_accuracy"]
    ours, theirs = estimate(list(by_seed.values())), paper.cell(encoding, task)
    return {
        "encoding": encoding, "task": task, "num_seeds": ours.n, "seeds": " ".join(map(str, by_seed)),
        "ood_accuracy_percent": ours.mean, "ood_sd_points": ours.known("sd"),
        "ood_variance_points2": ours.known("variance"),
        "ood_low95_percent": ours.known("low"), "ood_high95_percent": ours.known("high"),
        "paper_mean_percent": theirs and theirs.mean, "paper_spread": theirs and theirs.spread,
        "verdict": theirs and cell_verdict(ours, theirs.mean),
    } | {
        f"{metric}_percent": estimate(list(runs[encoding, task, metric].values())).mean for metric in DIAGNOSTICS
    }  # fmt: skip


def baseline_rows(baselines: pl.DataFrame, tasks: list[str]) -> list[dict]:
    """What needs no training, and so has neither seeds nor spread."""
    found = {(r["encoding"], r["task"], r["metric"]): 100 * r["value"] for r in baselines.iter_rows(named=True)}
    rows = []
    for task, name in product(tasks, BASELINES):
        if (name, task, "ood_accuracy") not in found:
            raise ValueError(f"--baseline must cover {name} on task {task}, got no row of it")
        percent = {f"{metric}_percent": found[name, task, metric] for metric in ("ood_accuracy", *DIAGNOSTICS)}
        rows.append({"encoding": name, "task": task} | percent)
    return rows


def pair_rows(runs: Runs, paper: Published, pairs: list[tuple[str, str]], tasks: list[str]) -> list[dict]:
    """Resonance - plain, paired by seed, beside the difference of the paper's two means; with Holm's p over all."""
    found, rows = [], []
    for task, (resonance, plain) in product(tasks, pairs):
        ours = paired_difference(*(runs[name, task, "ood_accuracy"] for name in (resonance, plain)))
        cells = paper.cell(resonance, task), paper.cell(plain, task)
        theirs = round(cells[0].mean - cells[1].mean, 6) if all(cells) else None  # 5.69, not 5.689999999999998
        found.append(ours)
        rows.append({
            "resonance": resonance, "plain": plain, "task": task, "num_seeds": ours.n,
            "difference_points": ours.mean, "difference_sd_points": ours.known("sd"),
            "difference_low95_points": ours.known("low"), "difference_high95_points": ours.known("high"),
            "detectable_points": detectable(ours), "holm_p": None, "paper_difference_points": theirs,
            "verdict": None if theirs is None else pair_verdict(ours, theirs),
        })  # fmt: skip
    if all(ours.n >= LEAST_RUNS for ours in found):
        for row, adjusted in zip(rows, holm([p_value(ours) for ours in found]), strict=True):
            row["holm_p"] = adjusted
    return rows


def cell_verdict(ours: Estimate, paper: float) -> str:
    """Where the paper's mean lies beside our 95 % interval."""
    if ours.n < LEAST_RUNS:
        return TOO_FEW
    if paper > ours.high:
        return "paper above"
    return "paper below" if paper < ours.low else "paper inside"


def pair_verdict(ours: Estimate, paper: float) -> str:
    """Whether our difference has the paper's sign: only said if our 95 % interval excludes zero."""
    if ours.n < LEAST_RUNS:
        return TOO_FEW
    if ours.low <= 0 <= ours.high:
        return "undecided"
    return "agrees" if ours.mean * paper > 0 else "contradicts"


def cell_text(row: dict) -> list[str]:
    return [
        style.encoding_title(row["encoding"]),
        str(row.get("num_seeds", "–")),
        with_sd(row["ood_accuracy_percent"], row.get("ood_sd_points")),
        between(row, "ood_low95_percent", "ood_high95_percent"),
        number(row.get("ood_variance_points2")),
        kept_text(row, with_sd(row.get("kept_mean_percent"), row.get("kept_sd_points"))),
        with_sd(row.get("paper_mean_percent"), row.get("paper_spread")),
        row.get("verdict") or "–",
        *(number(row[f"{metric}_percent"]) for metric in DIAGNOSTICS),
    ]


def between(row: dict, low: str, high: str, sign: str = "-") -> str:
    """An interval, or why there is none."""
    few = row.get("num_seeds") is not None and row["num_seeds"] < LEAST_RUNS
    return TOO_FEW if few else interval(row.get(low), row.get(high), sign)


def pair_text(row: dict) -> list[str]:
    difference = number(row["difference_points"], "+")
    return [
        style.pair_title(row["resonance"], row["plain"]),
        str(row["num_seeds"]),
        Bold(difference) if row["holm_p"] is not None and row["holm_p"] < 0.05 else difference,
        between(row, "difference_low95_points", "difference_high95_points", "+"),
        number(row["detectable_points"]),
        kept_text(row, f"{number(row.get('kept_points'), '+')} {row.get('kept_between')}"),
        number(row["paper_difference_points"], "+"),
        row["verdict"] or "–",
    ]


def kept_cell(by_seed: dict[int, float] | None) -> dict:
    """What the repository's own rows say of a cell; empty where they have none of it."""
    if not by_seed:
        return {}
    found = estimate(list(by_seed.values()))
    return {"kept_num_seeds": found.n, "kept_mean_percent": found.mean, "kept_sd_points": found.known("sd")}


def kept_pair(ours: dict[int, float] | None, theirs: dict[int, float] | None, paper: float | None) -> dict:
    """The same of a pair, its verdict with it."""
    if not ours or not theirs:
        return {}
    found = paired_difference(ours, theirs)
    said = f"{interval(found.low, found.high, '+')} {pair_verdict(found, paper) if paper is not None else ''}".strip()
    return {"kept_num_seeds": found.n, "kept_points": found.mean, "kept_between": said}


def kept_text(row: dict, text: str) -> str:
    return f"{text} ({row['kept_num_seeds']} seeds)" if row.get("kept_num_seeds") else "–"


def without(table: Table, columns: Collection[str]) -> Table:
    """The table without some of its columns."""
    kept = [title not in columns for title in table.header]
    groups = [(title, [list(compress(cells, kept)) for cells in rows]) for title, rows in table.groups]
    return replace(table, header=list(compress(table.header, kept)), groups=groups)


def caption(names: dict, seeds: str, made: list[dict], study: str, beside: bool) -> str:
    instead = (
        ", and a verdict in this table says where the paper's mean lies, not whether the paper is right. What can be "
        "set beside the paper is the sign of a difference, and that for this size alone."
    )
    model = inputs.model_text(made, instead) if beside else inputs.model_text(made)
    return (
        f"OOD accuracy on PosGen in percent: test split, positions x[L] to x[L'-1], teacher-forced.{ABOUT[study]} "
        f"Preset {names['preset']}, protocol {names['protocol']}, {seeds}. Model: {model}"
    )


def cell_notes(paper: Published, study: str, beside: bool) -> str:
    theirs = (
        f"Paper: {paper.source}; what stands behind its ± is captioned variance and has no unit, so it is repeated as "
        "printed and decides no verdict. Verdict: the paper's mean beside our interval. "
    )
    return (
        "Mean over seeds with its standard deviation (sd, percentage points), its 95% t-interval, and the variance "
        f"(squared percentage points). {theirs if beside else ''}In distribution: x[j+k] to x[L-1]. First token: "
        f"x[j+k]. Even, odd: the OOD positions of that parity. Local rule: {LOCAL_RULE[study]}; an accuracy up to its "
        "own does not show that the task's rule was learned. Chance: a guess among the tokens of the task."
    )


if __name__ == "__main__":
    inputs.run(main)
