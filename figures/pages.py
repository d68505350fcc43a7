"""The measured tables that docs/ shows: put there from the rows that the repository keeps.

A page marks a table's place by a comment, `<!-- table: NAME ARGUMENTS -->`, and its end by `<!-- end -->`. What
stands between is made of the files that `snakemake published` writes, so no number of theirs is typed.
"""

import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from scipy import stats

from figures import ablation, inputs, probes, style
from figures.rounding import NONE, PARTS, RULES, TITLES
from resonance.encoding.rounding import CONTROLS
from resonance.posgen.protocol import CHOICES, base_and_choice
from resonance.posgen.ranking import tasks as ranking
from resonance.record.files import write_text
from resonance.record.stats import Estimate, correlation, estimate, holm, p_value, paired_difference
from resonance.record.tables import interval, number, with_sd

_BLOCK = re.compile(r"(<!-- table: ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
PROTOCOLS = ("paper", "released")
BETA32 = "paper+beta32"
KEPT = Path(__file__).resolve().parents[1] / "results-published/laptop"
SLOWED = ("nearest", "ceil", "even", "coprime", "raised")
"""The rules that move YaRN's fastest wavelength under `paper+beta32`, 19.55, to 20 or just past it."""
_ORDERS = {
    "predicted": "first fall, predicted before training",
    "fall": "first fall, measured",
    "leak_percent": "attention on untrained distances, by the kernel",
}
_ALIKE = [
    ("RoPE, `paper` and `released`", ("paper", "rope"), ("released", "rope")),
    ("YaRN, `paper` and `released`", ("paper", "yarn"), ("released", "yarn")),
    ("`paper`, RoPE and YaRN", ("paper", "rope"), ("paper", "yarn")),
    ("YaRN, `paper` and `paper+beta32`", ("paper", "yarn"), (BETA32, "yarn")),
]
_PROBED = {"first_fall": "first fall", "predicted_leak": _ORDERS["leak_percent"]}
_DIFFERENCE, _FROM_NONE = ([f"{name}{part}_points" for part in PARTS] for name in ("difference", f"minus_{NONE}"))
"""Columns of a difference and of its interval's ends."""


def main(
    tables: Annotated[Path, typer.Option(help="The folder that holds them: results/PRESET/published/tables.")],
    docs: Annotated[Path, typer.Option(help="The folder of the pages.")],
) -> None:
    """Bring the tables of all pages up to date."""
    for path in with_tables(docs):
        write_text(path, filled(path.read_text(encoding="utf-8"), tables))


def with_tables(docs: Path) -> list[Path]:
    """The pages that show measured tables."""
    return [path for path in sorted(docs.glob("*.md")) if _BLOCK.search(path.read_text(encoding="utf-8"))]


def filled(page: str, tables: Path) -> str:
    """The page, each of its tables made anew. Raises ValueError for one that is not known."""

    def made(match: re.Match) -> str:
        name, *arguments = match[2].split()
        if name not in _MAKERS:
            raise ValueError(f"a page's table must be one of {', '.join(_MAKERS)}, got {name!r}")
        return match[1] + "\n" + _MAKERS[name](tables, *arguments) + "\n" + match[3]

    return _BLOCK.sub(made, page)


def whole(tables: Path, stem: str) -> str:
    """A table as its script wrote it, caption and notes with it; PRESET/NAME: of another preset's kept rows."""
    preset, _, name = stem.rpartition("/")
    folder = tables.parents[2] / preset / "published/tables" if preset else tables
    return (folder / f"{name}.md").read_text(encoding="utf-8")


def oracles(tables: Path) -> str:
    """What a window of tokens reaches at best past L, of every task that encodings are ranked on."""
    rows = [["window", *map(str, ranking.WINDOWS)]]
    for task in ranking.TASKS:
        drawn = ranking.drawn_for(task, "test")
        reached = (ranking.oracle(task, window, drawn, ranking.TRAIN_LENGTH) for window in ranking.WINDOWS)
        rows.append([task, *(number(100 * share, decimals=1) for share in reached)])
    return _markdown(rows)


def cells(tables: Path, study: str, *more: str) -> str:
    """Published and ours under both protocols, and more, side by side: a row an encoding, tasks below one another."""
    protocols = (*PROTOCOLS, *more)
    ours = [_by(tables / f"{study}_{protocol}.csv", "task", "encoding") for protocol in protocols]
    rows = [["", "published", *(f"`{protocol}`" for protocol in protocols)]]
    for task in style.in_order({task for task, _ in ours[0]}):
        rows.append([f"**{style.task_title(task)}**", "", *("" for _ in protocols)])
        for encoding in (encoding for of, encoding in ours[0] if of == task):
            found = [cells[task, encoding] for cells in ours]
            title, published = style.encoding_title(encoding), number(found[0]["paper_mean_percent"])
            trained = found[0]["num_seeds"] is not None
            texts = [with_sd(each["ood_accuracy_percent"], each["ood_sd_points"]) for each in found]
            rows.append([title if trained else f"*{title}*", published if trained else "", *texts])
    return _markdown(rows)


def pairs(tables: Path, study: str) -> str:
    """Resonance minus plain, beside the paper's, with the verdict; in bold what survives Holm over all of them."""
    ours = [_by(tables / f"{study}_{protocol}_pairs.csv", "resonance", "plain", "task") for protocol in PROTOCOLS]
    judged = [row for pairs in ours for row in pairs.values()]
    for row, adjusted in zip(judged, holm([_p_value(row, *_DIFFERENCE) for row in judged]), strict=True):
        row["survives"] = adjusted < 0.05
    rows = [["", "published", *(f"`{protocol}`" for protocol in PROTOCOLS)]]
    for key in sorted(ours[0], key=lambda key: style.method_place(key[1])):
        found = [pairs[key] for pairs in ours]
        title = f"{style.encoding_title(key[1])}, {style.task_title(key[2])}"
        rows.append([title, number(found[0]["paper_difference_points"], "+"), *map(_judged, found)])
    return _markdown(rows)


def hidden(tables: Path, *tasks: str) -> str:
    """What hiding all untrained distances from attention does: a row a protocol and encoding, three columns a task."""
    found = _by(tables / "aliases.csv", "protocol", "encoding", "task")
    shown = {"in_distribution": "in L", "none": "past L", "window_trained": "past L, trained distances alone"}
    rows = [["", *(f"{style.task_title(task)}, {what}" for task in tasks for what in shown.values())]]
    for protocol, encoding in dict.fromkeys(key[:2] for key in found):
        cells = [found[protocol, encoding, task] for task in tasks if (protocol, encoding, task) in found]
        if len(cells) < len(tasks):
            continue
        texts = [number(cell[f"{mask}_percent"], decimals=1) for cell in cells for mask in shown]
        rows.append([f"{style.encoding_title(encoding)}, `{protocol}`", *texts])
    return _markdown(rows)


def rounding(tables: Path, method: str) -> str:
    """What every rule of rounding adds to no rounding with one method: a column a task and protocol."""
    found = _by(tables / "rounding.csv", "task", "protocol", "rounding", method=method)
    tasks, protocols = style.in_order({task for task, *_ in found}), sorted({protocol for _, protocol, _ in found})
    columns = [place for place in product(tasks, protocols) if (*place, NONE) in found]
    rows = [["wavelengths", *(f"{style.task_title(task)}, `{protocol}`" for task, protocol in columns)]]
    plain = [found[*column, NONE]["ood_accuracy_percent"] for column in columns]
    rows.append(["accuracy with no rounding", *(number(value, decimals=1) for value in plain)])
    for rule in RULES[1:]:
        title = TITLES.get(rule, rule).replace(":", ",")
        gains = [_gain(found[*column, rule]) for column in columns]
        rows.append([f"*{title}*" if rule in CONTROLS else title, *gains])
    return _markdown(rows)


def alike(tables: Path) -> str:
    """Whether the rules of rounding rank alike in two places: r of what each adds to no rounding."""
    found = _by(tables / "rounding.csv", "protocol", "method", "task", "rounding")
    tasks = style.in_order({task for _, _, task, _ in found})
    rows = [["r over eleven rules", *map(style.task_title, tasks)]]
    for title, *places in _ALIKE:
        rows.append([title])
        for task in tasks:
            added = ([found[*place, task, rule][f"minus_{NONE}_points"] for rule in RULES[1:]] for place in places)
            rows[-1].append(_r(*added))
    return _markdown(rows)


def ordered(tables: Path) -> str:
    """Whether first falls and leaks, of one model a rule, order the rules of rounding by their accuracy over seeds."""
    accuracy = _by(tables / "rounding.csv", "protocol", "method", "task", "rounding")
    found = _by(tables / "falls.csv", "protocol", "task", "encoding")
    tasks = style.in_order({task for _, task, _ in found})
    rows = [["r over the rules", *map(style.task_title, tasks)]]
    places = [place for place in dict.fromkeys(key[:2] for key in accuracy) if place[0] != PROTOCOLS[1]]
    for (protocol, method), (column, title) in product(places, _ORDERS.items()):
        rows.append([f"{style.encoding_title(method)}, `{protocol}`: {title}"])
        for task in tasks:
            each = [found[protocol, task, _encoding_of(method, rule)][column] for rule in RULES]
            reached = [accuracy[protocol, method, task, rule]["ood_accuracy_percent"] for rule in RULES]
            rows[-1].append(_r(each, reached))
    return _markdown(rows)


def leaks(tables: Path) -> str:
    """The same of ten models a rule: over the means of the rules, and over the models of a rule."""
    rows, _ = probes.read([KEPT / "leaks_paper.parquet"])
    reached = probes.by_model(rows, "none", "ood_accuracy")
    tasks = style.in_order({task for _, task, *_ in reached})
    lines = [["r, YaRN under `paper`", *map(style.task_title, tasks)]]
    for metric, title in _PROBED.items():
        found = probes.by_model(rows, "none", metric)
        pairs = [(*model[1:3], value, reached[model]) for model, value in found.items()]
        models = pl.DataFrame(pairs, ["task", "rule", "x", "y"], orient="row")
        means = models.group_by("task", "rule", maintain_order=True).mean()
        apart = models.with_columns(pl.col("x", "y") - pl.col("x", "y").mean().over("task", "rule"))
        for which, every, lost in (("over the rules", means, 0), ("within a rule", apart, len(RULES) - 1)):
            of = [every.filter(task=task) for task in tasks]
            lines.append(
                [f"{title}, {which}", *(f"{_r(each['x'], each['y'], lost)}, {len(each)} pairs" for each in of)]
            )
    return _markdown(lines)


def _encoding_of(method: str, rule: str) -> str:
    """What config/encodings.yaml calls a method under a rule of rounding."""
    return {NONE: method, "nearest": f"resonance_{method}"}.get(rule, f"{method}_{rule}")


def flips(tables: Path, base: str, column: str) -> str:
    """What each choice of the other protocol does to one encoding: a column a task."""
    cells = _by(tables / "ablation.csv", "choice", "task", base=base, column=column)
    tasks = style.in_order({task for _, task in cells})
    rows = [[f"{style.encoding_title(column)}, OOD accuracy", *map(style.task_title, tasks)]]
    for choice in ["", *(choice for choice in CHOICES if (choice, tasks[0]) in cells)]:
        title = ablation.choice_title(f"`{base}`", choice)
        rows.append([title, *(ablation.text_of(cells[choice, task], "+" if choice else "-") for task in tasks)])
    return _markdown(rows)


def significant(tables: Path, study: str) -> str:
    """How many of a study's differences are significant, as they stand and corrected for their number."""
    rows = list(pl.read_csv(tables / f"{study}.csv", infer_schema_length=None).iter_rows(named=True))
    if study == "rounding":
        what, names = "differences from no rounding", _FROM_NONE
    else:
        what, names = "effects of a flipped choice", ["value", "low95", "high95"]
        rows = [row for row in rows if row["choice"]]
    judged = [row for row in rows if row[names[1]] is not None and not row[names[1]] == row[names[2]] == 0]
    p_values = [_p_value(row, *names) for row in judged]
    corrections = p_values, holm(p_values), stats.false_discovery_control(p_values)
    alone, after_holm, after_bh = (sum(p < 0.05 for p in corrected) for corrected in corrections)
    return (
        f"Of {len(judged)} {what}, {alone} have an interval that excludes zero; chance alone gives "
        f"{0.05 * len(judged):.1f}. Significant after Holm's correction: {after_holm}; after Benjamini and Hochberg's: "
        f"{after_bh}.\n"
    )


def clusters(tables: Path) -> str:
    """Where YaRN's rules under `paper` put its fastest wavelength, and the least and most accuracy of each place."""
    ours = _by(tables / "rounding.csv", "task", "rounding", method="yarn", protocol=BETA32)
    tasks = style.in_order({task for task, _ in ours})
    lines = [["fastest wavelength", "rules", *map(style.task_title, tasks)]]
    below = [rule for rule in RULES if rule not in (*SLOWED, NONE)]
    for where, rules in (("20 or 20.05", SLOWED), ("19 to 19.5", below), ("19.55", [NONE])):
        reached = [[ours[task, rule]["ood_accuracy_percent"] for rule in rules] for task in tasks]
        spans = [dict.fromkeys(number(end(each), decimals=1) for end in (min, max)) for each in reached]
        texts = [" to ".join(span) for span in spans]
        lines.append([where, "no rounding" if rules == [NONE] else ", ".join(rules), *texts])
    return _markdown(lines)


def flipped(tables: Path, task: str, protocol: str, resonance: str, plain: str) -> str:
    """What a flipped choice does to Resonance minus plain, and what that difference then is."""
    rows, _ = inputs.read_study([KEPT / f"ablation_{task}.parquet"])
    (cells, _), base = ablation.cells_of(rows), base_and_choice(protocol)[0]
    ours = cells[protocol, task, pair := f"{resonance} - {plain}"]
    change, after = (
        f"{number(found.mean, '+')} points {interval(found.low, found.high, '+')}"
        for found in (paired_difference(ours, cells[base, task, pair]), estimate(list(ours.values())))
    )
    moved = f"{style.task_title(task)}, `{protocol}`: the flip moves {ablation.column_title(pair)}"
    return f"{moved} by {change}, to {after}.\n"


def _r(ours: Sequence[float], theirs: Sequence[float], lost: int = 0) -> str:
    """A correlation with its interval."""
    r, *between = correlation(ours, theirs, lost)
    return f"{number(r, '+')} {interval(*between, '+')}"


def _p_value(row: dict, mean: str, low: str, high: str) -> float:
    """The p of a mean of zero, by the columns of a table that hold the mean and its 95 % t-interval."""
    n = row["num_seeds"]
    sd = (row[high] - row[low]) / 2 * n**0.5 / stats.t.ppf(0.975, n - 1)
    return p_value(Estimate(row[mean], sd, row[low], row[high], n))


def _judged(row: dict) -> str:
    """A difference with its interval and verdict; one that survives the correction in bold."""
    difference, low, high = (row[name] for name in _DIFFERENCE)
    verdict = f"**{row['verdict']}**" if row["survives"] and row["verdict"] else row["verdict"] or ""
    return f"{number(difference, '+')} {interval(low, high, '+')} {verdict}".strip()


def _gain(row: dict) -> str:
    """A difference from no rounding with half its interval, one decimal; in bold where that excludes zero."""
    mean, low, high = (row[name] for name in _FROM_NONE)
    text = number(mean, "+", 1)
    return f"{f'**{text}**' if low > 0 or high < 0 else text} ± {number(mean - low, decimals=1)}"


def _by(path: Path, *names: str, **of: str) -> dict[tuple, dict]:
    """Rows of a csv file that have some values, by the values of other columns."""
    rows = pl.read_csv(path, infer_schema_length=None).filter(**of).iter_rows(named=True)
    return {tuple(row[name] for name in names): row for row in rows}


def _markdown(rows: list[list[str]]) -> str:
    """A table whose numbers keep their spread and their interval on one line."""
    head, *lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    text = (head + "|" + " --- |" * len(rows[0]) + "\n" + "".join(lines)).replace(" ± ", "\u00a0±\u00a0")
    return re.sub(r"\[.*?\]", lambda match: match[0].replace(" ", "\u00a0"), text)


_MAKERS: dict[str, Callable[..., str]] = {
    maker.__name__: maker
    for maker in (
        whole,
        cells,
        pairs,
        hidden,
        rounding,
        alike,
        clusters,
        ordered,
        leaks,
        flips,
        flipped,
        significant,
        oracles,
    )
}


if __name__ == "__main__":
    inputs.run(main)
