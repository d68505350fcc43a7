"""Table 2 for a stand-in: another model than the paper's, on L-Eval's questions or on ours, in a table of its own.

Two blocks: the scores of every encoding under both parsers, with intervals and the chance level where it is
known; the paired differences, Resonance minus plain and each minus RoPE. Percent and percentage points.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from figures import inputs
from figures.leval import Ours, our_cells, our_pairs, p_text, pair_cells, read_ours, write_scores
from resonance.leval import counts
from resonance.leval.catalogue import MADE_TASKS
from resonance.leval.rows import ANSWERS
from resonance.record.rows import read_rows, read_run
from resonance.record.tables import Groups, Table, grouped, interval, number, write_tables

HEADER = ["Encoding", "Released", "95% interval", "Strict", "95% interval", "No answer", "Misread by released"]
PAIR_HEADER = ["Difference", "Points", "95% interval", "p", "Better", "Worse", "McNemar p", "Verdict"]
PAIR_CAPTION = "Differences in percentage points on the same questions."
PAIR_NOTES = (
    "Interval: bootstrap over questions; p: sign-flip test; better and worse: questions with more and with less "
    "credit, McNemar's exact test of their counts. Level 5%, not corrected for the number of comparisons."
)


def main(output: inputs.Output, preset: inputs.Preset, title: inputs.Title, scores: inputs.Scores) -> None:
    """STEM.csv and STEM_pairs.csv for machines; .md, .tex and .html for people."""
    ours, made = read_ours(scores), one_run(scores)
    rows = read_rows(scores, ANSWERS)
    judged = [task for task in tasks_of(ours) if not counts.ALL_TASKS[task].control]
    apart = [[alone(measured, task) for measured in ours] for task in judged]
    pairs = [pair for of_task in apart for pair in our_pairs(of_task) + our_pairs(of_task, "rope")]
    cells = [cell | {"context": made["settings"]["context"]} for measured in ours for cell in our_cells(measured)]
    tables = [
        Table("leval-stand-in", caption(preset, title, made), HEADER, score_groups(ours, rows), notes(made, pairs)),
        Table("leval-stand-in-pairs", PAIR_CAPTION, PAIR_HEADER, pair_groups(pairs), PAIR_NOTES),
    ]
    write_scores(output, preset, cells, pairs)
    write_tables(output, f"Table 2 for a stand-in, {title}, preset {preset}", tables)


def one_run(scores: list[Path]) -> dict:
    """What made the scores, the same for all files but for encoding and strategy.

    Raises ValueError where models, settings or questions differ, or nobody wrote down what answered.
    """
    runs = {path: read_run(path).get("answered") for path in scores}
    for path, made in runs.items():
        if made is None:
            raise ValueError(f"--scores must say what answered, got {path} without; score it with --record")
    first = runs[scores[0]]
    same = {"settings": lambda made: made["settings"], "questions": lambda made: made["answers"]["tasks"]}
    for key, part in same.items():
        if any(part(made) != part(first) for made in runs.values()):
            raise ValueError(f"--scores must all be of the same {key}, got several; answer them anew with one preset")
    return first


def tasks_of(ours: list[Ours]) -> list[str]:
    return [task for task in counts.ALL_TASKS if any(task in measured.credits for measured in ours)]


def alone(ours: Ours, task: str) -> Ours:
    """One task of what was measured."""
    return replace(ours, credits={task: ours.credits[task]}, golds={task: ours.golds[task]})


def score_groups(ours: list[Ours], rows: pl.DataFrame) -> Groups:
    """A group a task: chance, then every encoding in the order given."""
    cells = {(*m.name, m.parser, cell["task"]): cell for m in ours for cell in our_cells(m)}
    groups = []
    for task in tasks_of(ours):
        known, lines = counts.ALL_TASKS[task], []
        if known.chance is not None:
            chance = number(100 * known.chance)
            lines.append(["Chance: one of the options, drawn", chance, "", chance, "", "", ""])
        for name in dict.fromkeys(m.name for m in ours):
            own = rows.filter(task=task, **name._asdict())
            line = [name.title]
            for parser in counts.PARSERS:
                cell = cells[*name, parser, task]
                line += [number(cell["percent"]), interval(cell["low95_percent"], cell["high95_percent"])]
            silent = own.filter(parser="strict", answer="").height
            lines.append([*line, str(silent), str(own.filter(pl.col("misread").is_not_null()).height)])
        asked = own.filter(parser="strict").height
        of = f" of {known.num_questions}" if known.num_questions else ""
        groups.append((f"{known.title}: {asked}{of} questions", lines))
    return groups


def pair_groups(pairs: list[dict]) -> Groups:
    lines = []
    for pair in pairs:
        kind = "Resonance minus plain" if pair["kind"] == "resonance" else "minus RoPE"
        counted = [str(pair["better"]), str(pair["worse"]), p_text(pair["mcnemar_p"]), pair["verdict"]]
        lines.append((f"{counts.ALL_TASKS[pair['task']].title}: {kind}", pair_cells(pair) + counted))
    return grouped(lines)


def caption(preset: str, title: str, made: dict) -> str:
    questions = "questions of ours" if set(made["answers"]["tasks"]) <= set(MADE_TASKS) else "L-Eval's questions"
    return (
        f"A stand-in for Table 2, not the paper's: {title} in LLaMA2's place, on {questions}, scores in percent. "
        f"Context {made['settings']['context']:,}. Preset {preset}."
    )


def notes(made: dict, pairs: list[dict]) -> str:
    asked, said = made["settings"], made["answers"]
    lengths = "; ".join(
        f"{counts.ALL_TASKS[task].title}: {_documents(own, said['budget'])}" for task, own in said["tasks"].items()
    )
    text = ""
    if set(said["tasks"]) & set(MADE_TASKS):
        text += "Line ends: which of four words ends a line of a play, the answer begun with the line. "
    precision = made.get("precision", asked["precision"])
    text += f"{lengths}. Greedy answers of at most {asked['max_new_tokens']} tokens, {precision}. "
    if said["missing"]:
        text += f"Not in the source and left out: {', '.join(said['missing'])}. "
    text += (
        "Released: L-Eval's own parser; strict: one that reads the answer, and none where the text gives none (no "
        "answer). Questions count as independent, though those on one document are not quite. "
    )
    if asked["prefill"] == "shared":
        text += (
            "Dynamic NTK's document keys keep the table of the document's length, so that its questions share them. "
        )
    return text + " ".join(sentence(pair) for pair in inputs.where(pairs, kind="resonance"))


def _documents(own: dict, budget: int) -> str:
    """How many documents, how long, how many of them cut."""
    least, most, count = own["tokens"]["least"], own["tokens"]["most"], own["documents"]
    span = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    cut = f", {own['cut']} of them cut to {budget:,}" if own["cut"] else ""
    return f"{count} {'document' if count == 1 else 'documents'} of {span} tokens{cut}"


def sentence(pair: dict) -> str:
    ends = interval(pair["low95_points"], pair["high95_points"], "+")
    return (
        f"{counts.ALL_TASKS[pair['task']].title}: {pair['title']}, minus {pair['than_title']}: "
        f"{number(pair['difference_points'], '+')} points, 95% {ends}, "
        f"McNemar p {p_text(pair['mcnemar_p'])}: {pair['verdict']}."
    )


if __name__ == "__main__":
    inputs.run(main)
