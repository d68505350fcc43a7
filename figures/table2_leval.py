"""Table 2: L-Eval's closed-ended tasks, ours beside the paper's, with what the differences are worth.

Three blocks: the scores in the paper's layout; the averages with intervals; the comparisons. The paper's
cells decode to counts (L13), so that they get statistics too, unpaired ones: which model answered which
question is not published. Ours, from per-question rows, are paired. Percent and percentage points.
"""

from pathlib import Path
from typing import Annotated

import typer

from figures import leval, style
from figures.inputs import Output, Preset, run
from resonance.leval import counts
from resonance.record.stats import share_interval
from resonance.record.tables import Bold, Groups, Table, Underlined, grouped, interval, number, write_tables

NOT_RUN = "not run"
COLUMNS = [*counts.TASKS, leval.AVERAGE]


def main(
    output: Output,
    preset: Preset,
    published: Annotated[Path, typer.Option(help="config/published.yaml.")],
    scores: Annotated[list[Path], typer.Option(help="Per-question rows of `resonance leval score`; once a file.")] = (),
) -> None:
    """Table 2 of the paper: STEM.csv and STEM_pairs.csv for machines; .md, .tex and .html for people."""
    paper = leval.read_published(published)
    ours = leval.read_ours(scores)
    cells = [cell for row in paper.rows for cell in paper_cells(paper, row)]
    cells += [cell for measured in ours for cell in leval.our_cells(measured)]
    pairs = [pair for model in paper.models for pair in paper_pairs(paper, model)] + leval.our_pairs(ours)
    tables = [
        Table("leval", caption(preset, ours), HEADER, score_groups(paper, ours), score_notes(paper, pairs, ours)),
        Table("leval-averages", AVERAGE_CAPTION, AVERAGE_HEADER, average_groups(paper, cells), AVERAGE_NOTES),
        Table("leval-pairs", PAIR_CAPTION, PAIR_HEADER, pair_groups(paper, pairs), PAIR_NOTES),
    ]
    leval.write_scores(output, preset, cells, pairs)
    write_tables(output, f"Table 2, preset {preset}", tables)


# The scores


def marks(rows: list[leval.Row], column: str) -> dict[leval.Name, type[str]]:
    """The caption's rule: the best of a model's rows in bold, the second-best underlined, ties alike."""
    values = sorted({row.percent(column) for row in rows}, reverse=True)
    named = dict(zip(values, (Bold, Underlined), strict=False))
    return {row.name: named.get(row.percent(column), str) for row in rows}


def paper_cells(paper: leval.Published, row: leval.Row) -> list[dict]:
    rows, cells = paper.of(row.model), []
    for task, share in row.shares.items():
        questions = counts.TASKS[task].num_questions
        low, high = share_interval(share * questions, questions)
        count = counts.decode(task, row.scores[task])
        cells.append(leval.cell_of(task, row.scores[task], 100 * low, 100 * high, questions, count))
    _, low, high = counts.average(row.shares)
    cells.append(leval.cell_of(leval.AVERAGE, row.average, low, high))
    named = {"source": "paper", "parser": "released", **leval.names_of(row.name), "context": row.context}
    return [named | cell | {"mark": _mark(marks(rows, cell["task"])[row.name])} for cell in cells]


def score_groups(paper: leval.Published, ours: list[leval.Ours]) -> Groups:
    groups = []
    for model, title in paper.models.items():
        rows, lines = paper.of(model), []
        marked = {column: marks(rows, column) for column in COLUMNS}
        for row in rows:
            cells = [marked[column][row.name](number(row.percent(column))) for column in COLUMNS]
            lines.append([row.title, f"{row.context // 1024}K", *cells])
            own = [measured for measured in ours if measured.name == row.name]
            lines += [_our_line(measured, f"ours, {measured.parser}") for measured in own]
            if not own:
                lines.append(["ours", "", *[NOT_RUN] * len(COLUMNS)])
        groups.append((title, lines))
    known = {row.name for row in paper.rows}
    others = [measured for measured in ours if measured.name not in known]
    for model in dict.fromkeys(measured.name[0] for measured in others):
        lines = [
            _our_line(m, f"{style.encoding_title(m.name[1])} ({m.name[2]}), {m.parser}")
            for m in others
            if m.name[0] == model
        ]
        groups.append((f"{model}: ours, no row of the paper", lines))
    return groups


def _our_line(ours: leval.Ours, title: str) -> list[str]:
    cells = []
    for name, task in counts.TASKS.items():
        credit = ours.credits.get(name)
        if credit is None:
            cells.append(NOT_RUN)
            continue
        part = "" if len(credit) == task.num_questions else f" ({len(credit)}/{task.num_questions})"
        cells.append(number(100 * credit.mean()) + part)
    average = [cell for cell in leval.our_cells(ours) if cell["task"] == leval.AVERAGE]
    return [title, "", *cells, number(average[0]["percent"]) if average else NOT_RUN]


# The comparisons


def paper_pairs(paper: leval.Published, model: str) -> list[dict]:
    """In every column the best row minus the next; and Resonance minus plain of each strategy, averages."""
    rows, pairs = paper.of(model), []
    for column in COLUMNS:
        ranked = sorted(rows, key=lambda row: row.percent(column), reverse=True)
        pairs.append(paper_pair(ranked[0], ranked[1], column) | {"kind": "best"})
    by_name = {row.name: row for row in rows}
    for row in rows:
        plain = by_name.get((model, row.encoding.removeprefix("resonance_"), row.strategy))
        if plain and plain is not row:
            pairs.append(paper_pair(row, plain, leval.AVERAGE) | {"kind": "resonance"})
    return pairs


def paper_pair(row: leval.Row, than: leval.Row, column: str) -> dict:
    tasks = list(counts.TASKS) if column == leval.AVERAGE else [column]
    found = counts.compare_counts({t: row.shares[t] for t in tasks}, {t: than.shares[t] for t in tasks})
    same = row.percent(column) == than.percent(column)
    return {
        "source": "paper", "parser": "released", **leval.names_of(row.name),
        "than_encoding": than.encoding, "than_strategy": than.strategy, "task": column,
        "difference_points": found.points, "low95_points": found.low, "high95_points": found.high, "p": found.p,
        "least_p": found.least_p, "better": None, "worse": None, "mcnemar_p": None,
        "verdict": "equal" if same else leval.verdict(found.p, found.least_p),
        "title": row.title, "than_title": than.title,
    }  # fmt: skip


def average_groups(paper: leval.Published, cells: list[dict]) -> Groups:
    titles = {row.name: row.title for row in paper.rows}

    def line(cell: dict) -> tuple[str, list[str]]:
        name = (cell["model"], cell["encoding"], cell["strategy"])
        title = titles.get(name, f"{style.encoding_title(name[1])} ({name[2]})")
        if cell["source"] == "ours":
            title += f", ours, {cell['parser']}"
        ends = interval(cell["low95_percent"], cell["high95_percent"])
        return paper.models.get(name[0], name[0]), [title, number(cell["percent"]), ends]

    return grouped(line(cell) for cell in cells if cell["task"] == leval.AVERAGE)


def pair_groups(paper: leval.Published, pairs: list[dict]) -> Groups:
    def line(pair: dict) -> tuple[str, list[str]]:
        model = paper.models.get(pair["model"], pair["model"])
        source = "the paper's" if pair["source"] == "paper" else "ours, paired by question"
        kind = "Resonance minus plain" if pair["kind"] == "resonance" else "the best minus the next"
        column = counts.TASKS[pair["task"]].title if pair["task"] in counts.TASKS else pair["task"]
        difference, *worth = leval.pair_cells(pair)
        cells = [f"{column}: {difference}", *worth, leval.p_text(pair["least_p"]), pair["verdict"]]
        return f"{model}: {kind}, {source}", cells

    return grouped(map(line, pairs))


# What the blocks say


HEADER = ["Setting", "Ctx len.", *(task.title for task in counts.TASKS.values()), "Avg."]
AVERAGE_HEADER = ["Setting", "Avg.", "95% interval"]
AVERAGE_CAPTION = "The averages of Table 2 in percent with 95% intervals over questions."
AVERAGE_NOTES = (
    "The unweighted mean of six tasks. A task's variance is at most p(1-p)/n over its n questions, and that is what "
    "is used: the paper's counts do not tell how partial credits are spread. Questions count as independent, though "
    "questions on one document are not quite, so that the true intervals are rather wider."
)
PAIR_HEADER = ["Difference", "Points", "95% interval", "p", "Least p", "Verdict"]
PAIR_CAPTION = "Differences in percentage points, and whether they are more than the choice of questions explains."
PAIR_NOTES = (
    "The paper's: which model answered which question is not published, so interval and p are unpaired, from counts "
    "alone, as if each model had questions of its own. A paired test could find more; least p is a bound that no "
    "pairing of these counts can go below, so that not significant, however paired holds without the pairing. Ours: "
    "sign-flip test and bootstrap over the questions that both answered. Level 5%, not corrected for the number of "
    "comparisons."
)


def caption(preset: str, ours: list[leval.Ours]) -> str:
    state = "Ours stand below, under both parsers." if ours else "Ours: not run under this preset."
    return f"L-Eval's closed-ended tasks in percent; the paper's rows as printed. Preset {preset}. {state}"


def score_notes(paper: leval.Published, pairs: list[dict], ours: list[leval.Ours]) -> str:
    text = f"Source: {paper.source}; bold and underlined by its caption's rule, best and second-best of a model. "
    text += significance(paper, pairs)
    if ours:
        text += (
            " Ours, released: L-Eval's own parser; strict: one that reads the answer. An average needs all six tasks; "
            "(n/N): only n of a task's N questions."
        )
    return text


def significance(paper: leval.Published, pairs: list[dict]) -> str:
    """Which bold is significant, in sentences; every number of them is computed."""
    paired = [pair for pair in pairs if pair["source"] == "paper"]
    best = [pair for pair in paired if pair["kind"] == "best"]
    text = ""
    for model, title in paper.models.items():
        pair = next(pair for pair in best if pair["model"] == model and pair["task"] == leval.AVERAGE)
        ends = interval(pair["low95_points"], pair["high95_points"], "+")
        text += (
            f"{title}: the bold average, {pair['title']}, less the underlined one, {pair['than_title']}, is "
            f"{number(pair['difference_points'], '+')} points, 95% {ends}, {_p_is(pair['p'])} unpaired: "
            f"{pair['verdict']} (least p {leval.p_text(pair['least_p'])}). "
        )
    cells = [pair for pair in best if pair["task"] != leval.AVERAGE]
    shared = sum(pair["verdict"] == "equal" for pair in cells)
    text += (
        f"Of the {len(cells)} best scores in single tasks {_count_significant(cells)} from the next, unpaired; "
        f"{shared} are shared by several rows. "
    )
    gains = [pair for pair in paired if pair["kind"] == "resonance"]
    points = [pair["difference_points"] for pair in gains]
    return text + (
        f"Resonance minus plain, averages of {len(gains)} settings: {number(min(points), '+')} to "
        f"{number(max(points), '+')} points, of which {_count_significant(gains)} from 0, unpaired."
    )


def _p_is(p: float) -> str:
    text = leval.p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _count_significant(pairs: list[dict]) -> str:
    count = sum(pair["verdict"] == "significant" for pair in pairs)
    return f"{count or 'none'} {'differ' if count > 1 else 'differs'} significantly"


def _mark(kind: type[str]) -> str | None:
    return {Bold: "bold", Underlined: "underlined"}.get(kind)


if __name__ == "__main__":
    run(main)
