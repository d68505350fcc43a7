"""Table 2: the paper's cells with statistics, ours beside them, and refusals of what does not decode."""

import csv
from pathlib import Path

import polars as pl
import pytest
import yaml

from conftest import DATA, ROOT
from figures import table2_leval
from figures.leval import read_published
from resonance.leval.counts import PARSERS, TASKS
from resonance.leval.rows import ANSWERS
from resonance.record import tables
from resonance.record.rows import write_rows

PUBLISHED = ROOT / "config/published.yaml"


def make(folder: Path, *scores: Path, published: Path = PUBLISHED) -> Path:
    table2_leval.main(output=folder / "table2", preset="test", published=published, scores=list(scores))
    return folder / "table2"


def write_scores(
    folder: Path, encoding: str, strategy: str = "long", model: str = "llama2_7b", share: float = 0.5, **changes: object
) -> Path:
    """Per-question rows: `share` of every task's questions right, under both parsers."""
    rows = []
    for task, spec in TASKS.items():
        for number in range(changes.get(task, spec.num_questions)):
            right = float(number < share * spec.num_questions)
            rows += [
                {"model": model, "encoding": encoding, "strategy": strategy, "task": task, "question": number,
                 "parser": parser, "gold": changes.get("gold", "A"), "answer": "A", "misread": None,
                 "metric": "credit", "value": right}
                for parser in PARSERS
            ]  # fmt: skip
    path = folder / f"{model}-{encoding}-{strategy}.parquet"
    write_rows(path, ANSWERS, rows, {})
    return path


def change_published(folder: Path, change) -> Path:
    sections = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    change(sections)
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


# The paper's numbers


def test_published_numbers_are_those_at_hand() -> None:
    path = DATA.parent / "reference" / "published" / "table2_leval.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside {DATA}")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    theirs = list(csv.DictReader(lines))
    ours = read_published(PUBLISHED).rows
    assert len(ours) == len(theirs) == 12
    for row, line in zip(ours, theirs, strict=True):
        assert row.model == line["model"].replace("-chat", "").replace("-", "_")
        assert (row.encoding, row.context, row.average) == (
            line["encoding"], int(line["context"]), float(line["average"]),
        )  # fmt: skip
        assert row.scores == {task: float(line[task]) for task in TASKS}
        assert [str(value or "") for value in (row.scale, row.train_length, row.steps)] == [
            line["scale"], line["train_length"], line["steps"],
        ]  # fmt: skip


def test_every_published_cell_decodes_and_has_an_interval(tmp_path: Path) -> None:
    cells = pl.read_csv(f"{make(tmp_path)}.csv")
    assert len(cells) == 12 * 7
    tasks = cells.filter(pl.col("task") != "average")
    units = tasks["task"].replace_strict({name: task.units for name, task in TASKS.items()})
    assert ((100 * tasks["count"] / units).round(2) - tasks["percent"]).abs().max() < 1e-9
    assert (cells["low95_percent"] <= cells["percent"]).all() and (cells["percent"] <= cells["high95_percent"]).all()
    assert (cells["source"] == "paper").all()
    yarn = cells.row(by_predicate=(pl.col("encoding") == "yarn") & (pl.col("strategy") == "long")
                     & (pl.col("model") == "llama2_7b") & (pl.col("task") == "average"), named=True)  # fmt: skip
    assert (yarn["percent"], round(yarn["low95_percent"], 2), round(yarn["high95_percent"], 2)) == (33.24, 30.11, 36.38)


def test_best_is_bold_and_second_best_underlined_ties_alike(tmp_path: Path) -> None:
    cells = pl.read_csv(f"{make(tmp_path)}.csv").filter(model="llama2_13b")
    marked = {
        (mark, task): cells.filter(mark=mark, task=task)["percent"].to_list()
        for mark in ("bold", "underlined")
        for task in ("gsm100", "codeu", "average")
    }
    assert marked == {
        ("bold", "gsm100"): [39, 39, 39], ("underlined", "gsm100"): [35],
        ("bold", "codeu"): [5.56], ("underlined", "codeu"): [2.22],
        ("bold", "average"): [41.65], ("underlined", "average"): [41.48],
    }  # fmt: skip


def test_no_bold_average_is_significant_and_the_text_says_so(tmp_path: Path) -> None:
    stem = make(tmp_path)
    pairs = pl.read_csv(f"{stem}_pairs.csv")
    assert len(pairs) == 2 * 7 + 4
    gains = pairs.filter(pl.col("encoding") == "resonance_yarn", pl.col("than_encoding") == "yarn", task="average")
    gains = gains.unique(["model", "strategy"], maintain_order=True)
    assert [round(points, 2) for points in gains["difference_points"]] == [0.97, 0.99, 0.17, 0.81]
    assert gains["p"].min() > 0.65
    assert [round(p, 3) for p in gains["least_p"]] == [0.025, 0.067, 0.494, 0.043]
    text = Path(f"{stem}.md").read_text(encoding="utf-8")
    assert "p = 0.671 unpaired: not significant unpaired (least p 0.025)" in text
    assert "p = 0.940 unpaired: not significant, however paired (least p 0.494)" in text
    assert "Of the 12 best scores in single tasks none differs significantly from the next" in text
    assert "+0.17 to +0.99 points, of which none differs significantly from 0" in text
    assert "is not published, so interval and p are unpaired" in text


def test_a_significant_difference_is_called_so(tmp_path: Path) -> None:
    """The sentence follows the numbers: one bold far above the rest changes it."""

    def change(sections: dict) -> None:
        row = sections["table2"]["rows"][5]
        row["scores"] = dict.fromkeys(TASKS, 100.0)
        row["average"] = 100.0

    text = Path(f"{make(tmp_path, published=change_published(tmp_path, change))}.md").read_text(encoding="utf-8")
    assert "Of the 12 best scores in single tasks 6 differ significantly from the next" in text
    assert "p < 0.001 unpaired: significant" in text


# Ours


def test_what_was_not_run_says_so_in_every_cell(tmp_path: Path) -> None:
    stem = make(tmp_path)
    for suffix, cell in ((".md", "| not run "), (".html", "<td>not run</td>"), (".tex", "& not run ")):
        assert Path(f"{stem}{suffix}").read_text(encoding="utf-8").count(cell) == 12 * 7
    assert "Ours: not run under this preset" in Path(f"{stem}.md").read_text(encoding="utf-8")


def test_ours_stand_below_the_papers_row_under_both_parsers(tmp_path: Path) -> None:
    stem = make(tmp_path, write_scores(tmp_path, "resonance_yarn", share=0.6), write_scores(tmp_path, "yarn"))
    lines = Path(f"{stem}.md").read_text(encoding="utf-8").splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("| YaRN (s = 8, FT@32K, 50 steps)"))
    assert lines[place + 1].startswith("| ours, released |  | 50.00 | 50.00 | 50.00 | 50.19 | 50.00 | 50.00 | 50.03 |")
    assert lines[place + 2].startswith("| ours, strict |  | 50.00 |")
    assert sum("not run" in line for line in lines) == 10
    pairs = pl.read_csv(f"{stem}_pairs.csv").filter(source="ours")
    assert pairs["parser"].to_list() == list(PARSERS)
    row = pairs.row(0, named=True)
    assert (row["better"], row["worse"], row["task"], row["verdict"]) == (92, 0, "average", "significant")
    assert row["low95_points"] < row["difference_points"] < row["high95_points"]
    cells = pl.read_csv(f"{stem}.csv").filter(source="ours", parser="strict", task="average")
    assert len(cells) == 2


def test_a_missing_task_and_missing_questions_are_named_in_the_cell(tmp_path: Path) -> None:
    stem = make(tmp_path, write_scores(tmp_path, "yarn", codeu=0, tpo=100, share=1.0))
    lines = Path(f"{stem}.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("| ours, released")]
    assert line == "| ours, released |  | 100.00 | 100.00 | 100.00 | 100.00 (100/269) | not run | 100.00 | not run |"


def test_another_model_gets_a_group_of_its_own(tmp_path: Path) -> None:
    stem = make(tmp_path, write_scores(tmp_path, "plain", "untuned", model="smol"))
    text = Path(f"{stem}.md").read_text(encoding="utf-8")
    assert "**smol: ours, no row of the paper**" in text and "| plain (untuned), strict |" in text


def test_pairs_of_other_questions_are_refused(tmp_path: Path) -> None:
    files = write_scores(tmp_path, "yarn"), write_scores(tmp_path, "resonance_yarn", tpo=100)
    with pytest.raises(ValueError, match="must have the same questions"):
        make(tmp_path, *files)
    files = write_scores(tmp_path, "yarn"), write_scores(tmp_path, "resonance_yarn", gold="B")
    with pytest.raises(ValueError, match="must have the same questions"):
        make(tmp_path, *files)
    with pytest.raises(ValueError, match="must be there once each"):
        make(tmp_path, files[0], files[0])


# Borders


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda s: s.pop("table2"), "table2 must be given"),
        (lambda s: s["table2"]["rows"][0]["scores"].update(codeu=1.12), "codeu: must be a whole count over 90"),
        (lambda s: s["table2"]["rows"][0]["scores"].pop("tpo"), "must have a titled model and a score of coursera"),
        (lambda s: s["table2"]["rows"][0].update(model="llama3"), "must have a titled model"),
        (lambda s: s["table2"]["rows"][0].update(average=33.0), "average must be the mean of its scores, 32.59"),
        (lambda s: s["table2"]["rows"].append(s["table2"]["rows"][0]), "every row must be given once"),
        (lambda s: s["table2"]["rows"][0].update(epochs=50), "no such key"),
    ],
)  # fmt: skip
def test_a_wrong_published_number_is_refused_in_one_line(change, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rule) as error:
        make(tmp_path, published=change_published(tmp_path, change))
    assert str(error.value).isprintable()


def test_marked_cells_keep_their_text_in_every_format() -> None:
    table = tables.Table(
        "x", "c", ["", "a"], [("g", [["n", tables.Bold("1|2")], ["m", tables.Underlined("<3 & 4>")]])], ""
    )
    assert "| **1\\|2** |" in tables.markdown([table]) and "| <u><3 & 4></u> |" in tables.markdown([table])
    assert "\\textbf{1|2}" in tables.latex([table]) and "\\underline{<3 \\& 4>}" in tables.latex([table])
    page = tables.page("t", [table])
    assert "<b>1|2</b>" in page and "<u>&lt;3 &amp; 4&gt;</u>" in page
