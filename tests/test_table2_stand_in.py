"""A stand-in's table: its own file, chance beside it, controls judged by nobody, runs that do not belong refused."""

from pathlib import Path

import polars as pl
import pytest

from figures import table2_stand_in
from resonance.leval.catalogue import PARSERS
from resonance.leval.rows import ANSWERS
from resonance.record.rows import write_rows


def write_scores(folder: Path, encoding: str, right: int, num: int = 16, run: dict | None = None) -> Path:
    rows = [
        {"model": "smol", "encoding": encoding, "strategy": "untuned", "task": task, "question": number,
         "parser": parser, "gold": "night", "answer": "night" if number < right else "", "misread": None,
         "metric": "credit", "value": float(number < right)}
        for task in ("line_end", "line_end_blind") for number in range(num) for parser in PARSERS
    ]  # fmt: skip
    own = {"documents": 1, "cut": 0, "questions": num, "tokens": {"least": 9000, "mean": 9000, "most": 9000}}
    answered = {
        "settings": {"context": 16384, "max_new_tokens": 6, "precision": "bf16", "prefill": "shared"},
        "answers": {"missing": ["codeu"], "budget": 15488, "tasks": {"line_end": own, "line_end_blind": own}},
    }
    path = folder / f"{encoding}.parquet"
    write_rows(path, ANSWERS, rows, {"answered": answered | (run or {})} if run != {} else {})
    return path


def make(folder: Path, *scores: Path) -> Path:
    table2_stand_in.main(output=folder / "table", preset="test", title="SmolLM2", scores=list(scores))
    return folder / "table"


def test_scores_stand_beside_chance_and_encodings_are_compared_on_the_same_questions(tmp_path: Path) -> None:
    files = [write_scores(tmp_path, name, right) for name, right in (("rope", 2), ("yarn", 8), ("resonance_yarn", 16))]
    stem = make(tmp_path, *files)
    text = Path(f"{stem}.md").read_text(encoding="utf-8")
    assert "A stand-in for Table 2, not the paper's: SmolLM2 in LLaMA2's place, on questions of ours" in text
    assert text.count("| Chance: one of the options, drawn | 25.00 |") == 2
    assert "| YaRN (untuned) | 50.00 | [24.65, 75.35] | 50.00 | [24.65, 75.35] | 8 | 0 |" in text
    assert "Not in the source and left out: codeu." in text
    assert "Resonance YaRN (untuned), released, minus YaRN: +50.00 points" in text and "significant" in text
    pairs = pl.read_csv(f"{stem}_pairs.csv")
    assert set(pairs["task"]) == {"line_end"}, "a control judges no encoding"
    assert pairs.select("encoding", "than_encoding").unique().height == 3 and len(pairs) == 6
    row = pairs.row(0, named=True)
    assert (row["better"], row["worse"]) == (8, 0) and row["mcnemar_p"] == pytest.approx(2 * 0.5**8)
    assert len(pl.read_csv(f"{stem}.csv")) == 2 * 2 * 3
    assert Path(f"{stem}.tex").read_text(encoding="utf-8").isascii()


def test_equal_answers_have_no_interval_and_are_no_difference(tmp_path: Path) -> None:
    stem = make(tmp_path, *(write_scores(tmp_path, name, 4) for name in ("yarn", "resonance_yarn")))
    assert "+0.00 points, 95% –, McNemar p 1.000: not significant" in Path(f"{stem}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"settings": {"context": 8192}}, "must all be of the same settings"),
        ({"answers": {"tasks": {}}}, "must all be of the same questions"),
        ({}, "must say what answered"),
    ],
)
def test_scores_of_other_runs_are_refused(tmp_path: Path, run: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(tmp_path, write_scores(tmp_path, "yarn", 4), write_scores(tmp_path, "rope", 4, run=run))
