"""Table 2: L-Eval's closed-ended tasks, ours beside the paper's, with what the differences are worth.

Three blocks: the scores in the paper's layout; the averages with intervals; the comparisons. The paper's
cells decode to counts (L13), so that they get statistics too, unpaired ones: which model answered which
question is not published. Ours, from per-question rows, are paired. Percent and percentage points.
"""

from figures import inputs, leval
from resonance.leval import counts
from resonance.record.stats import share_interval
from resonance.record.tables import Bold, Groups, Table, Underlined, grouped, interval, number, write_tables

NOT_RUN = "not run"
COLUMNS = [*counts.TASKS, leval.AVERAGE]


def main(output: inputs.Output, preset: inputs.Preset, published: inputs.Published, scores: inputs.Scores = ()) -> None:
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
    cells = []
    for column in COLUMNS:
        if column == leval.AVERAGE:
            ends, more = counts.average(row.shares)[1:], {}
        else:
            questions = counts.TASKS[column].num_questions
            ends = [100 * end for end in share_interval(row.shares[column] * questions, questions)]
            more = {"num_questions": questions, "count": counts.decode(column, row.scores[column])}
        mark = {Bold: "bold", Underlined: "underlined"}.get(marks(paper.of(row.model), column)[row.name])
        cells.append(leval.cell_of(row, column, [row.percent(column), *ends], context=row.context, mark=mark, **more))
    return cells


def score_groups(paper: leval.Published, ours: list[leval.Ours]) -> Groups:
    lines = []
    for model, title in paper.models.items():
        marked = {column: marks(paper.of(model), column) for column in COLUMNS}
        for row in paper.of(model):
            cells = [marked[column][row.name](number(row.percent(column))) for column in COLUMNS]
            lines.append((title, [row.title, f"{row.context // 1024}K", *cells]))
            own = [_our_line(measured, f"ours, {measured.parser}") for measured in ours if measured.name == row.name]
            lines += [(title, line) for line in own or [["ours", "", *[NOT_RUN] * len(COLUMNS)]]]
    known = {row.name for row in paper.rows}
    for measured in ours:
        if measured.name not in known:
            title = f"{measured.name.model}: ours, no row of the paper"
            lines.append((title, _our_line(measured, f"{measured.name.title}, {measured.parser}")))
    return grouped(lines)


def _our_line(ours: leval.Ours, title: str) -> list[str]:
    percent = {cell["task"]: number(cell["percent"]) for cell in leval.our_cells(ours)}
    for name, task in counts.TASKS.items():
        if name in percent and (asked := len(ours.credits[name])) != task.num_questions:
            percent[name] += f" ({asked}/{task.num_questions})"
    return [title, "", *(percent.get(column, NOT_RUN) for column in COLUMNS)]


# The comparisons


def paper_pairs(paper: leval.Published, model: str) -> list[dict]:
    """In every column the best row minus the next; and Resonance minus plain of each strategy, averages."""
    rows, pairs = paper.of(model), []
    for column in COLUMNS:
        best, following, *_ = sorted(rows, key=lambda row: row.percent(column), reverse=True)
        pairs.append(paper_pair(best, following, column) | {"kind": "best"})
    gains = (paper_pair(row, plain, leval.AVERAGE) for row, plain in leval.counterparts(rows))
    return pairs + [pair | {"kind": "resonance"} for pair in gains]


def paper_pair(row: leval.Row, than: leval.Row, column: str) -> dict:
    tasks = list(counts.TASKS) if column == leval.AVERAGE else [column]
    found = counts.compare_counts({t: row.shares[t] for t in tasks}, {t: than.shares[t] for t in tasks})
    pair = leval.pair_of(row, than, column, (found.points, found.low, found.high), found.p, found.least_p)
    same = {"verdict": "equal"} if row.percent(column) == than.percent(column) else {}
    return pair | same | {"title": row.title, "than_title": than.title}


def average_groups(paper: leval.Published, cells: list[dict]) -> Groups:
    titles, lines = {row.name: row.title for row in paper.rows}, []
    for cell in inputs.where(cells, task=leval.AVERAGE):
        name = leval.Name(cell["model"], cell["encoding"], cell["strategy"])
        title = titles.get(name, name.title) + (f", ours, {cell['parser']}" if cell["source"] == "ours" else "")
        ends = interval(cell["low95_percent"], cell["high95_percent"])
        lines.append((paper.models.get(name.model, name.model), [title, number(cell["percent"]), ends]))
    return grouped(lines)


def pair_groups(paper: leval.Published, pairs: list[dict]) -> Groups:
    lines = []
    for pair in pairs:
        model = paper.models.get(pair["model"], pair["model"])
        source = "the paper's" if pair["source"] == "paper" else "ours, paired by question"
        kind = "Resonance minus plain" if pair["kind"] == "resonance" else "the best minus the next"
        column = counts.TASKS[pair["task"]].title if pair["task"] in counts.TASKS else pair["task"]
        difference, *worth = leval.pair_cells(pair)
        cells = [f"{column}: {difference}", *worth, leval.p_text(pair["least_p"]), pair["verdict"]]
        lines.append((f"{model}: {kind}, {source}", cells))
    return grouped(lines)


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
    best, gains = (inputs.where(pairs, source="paper", kind=kind) for kind in ("best", "resonance"))
    text = ""
    for model, title in paper.models.items():
        (pair,) = inputs.where(best, model=model, task=leval.AVERAGE)
        ends = interval(pair["low95_points"], pair["high95_points"], "+")
        p = leval.p_text(pair["p"])
        p_is = p if p.startswith("<") else f"= {p}"
        text += (
            f"{title}: the bold average, {pair['title']}, less the underlined one, {pair['than_title']}, is "
            f"{number(pair['difference_points'], '+')} points, 95% {ends}, p {p_is} unpaired: "
            f"{pair['verdict']} (least p {leval.p_text(pair['least_p'])}). "
        )
    cells = [pair for pair in best if pair["task"] != leval.AVERAGE]
    shared = len(inputs.where(cells, verdict="equal"))
    text += (
        f"Of the {len(cells)} best scores in single tasks {_count_significant(cells)} from the next, unpaired; "
        f"{shared} are shared by several rows. "
    )
    points = [pair["difference_points"] for pair in gains]
    return text + (
        f"Resonance minus plain, averages of {len(gains)} settings: {number(min(points), '+')} to "
        f"{number(max(points), '+')} points, of which {_count_significant(gains)} from 0, unpaired."
    )


def _count_significant(pairs: list[dict]) -> str:
    count = len(inputs.where(pairs, verdict="significant"))
    return f"{count or 'none'} {'differ' if count > 1 else 'differs'} significantly"


if __name__ == "__main__":
    inputs.run(main)
