"""Figure 4 and its table: from rows with known answers to numbers, and refusals of what must not be mixed."""

import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
from matplotlib.figure import Figure

from figures.fig4_perplexity import cells_of, draw_differences, main, pairs_of, read
from resonance.llm.evaluations.perplexity import PERPLEXITY
from resonance.record.rows import read_rows, write_rows
from resonance.record.stats import estimate, weighted_estimate

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = (64, 256)


def run_of(encoding: str, strategy: str) -> dict:
    return {
        "model": "m", "encoding": encoding, "strategy": strategy, "num_parameters": 1000,
        "settings": {"precision": "fp32", "choices": {"window": "truncated"}},
        "spec": {"train_length": 64, "scale": 4.0},
    }  # fmt: skip


def write(folder: Path, encoding: str, strategy: str, shift: float, units: int = 6, **changes: object) -> Path:
    rows, draw = [], np.random.default_rng(1)
    for corpus in ("one", "two"):
        for unit in range(units):
            base = 2.0 + 0.1 * draw.standard_normal()
            for length in LENGTHS:
                values = {"token_loss": base + shift, "window_loss": base + shift, "num_windows": 1.0}
                rows += [
                    {
                        "model": "m", "encoding": encoding, "strategy": strategy, "corpus": corpus,
                        "document": f"d{unit}", "piece": 0, "length": length, "num_tokens": length - 1,
                        "metric": metric, "value": value, **changes,
                    }
                    for metric, value in values.items()
                ]  # fmt: skip
    path = folder / f"{encoding}_{strategy}.parquet"
    write_rows(path, PERPLEXITY, rows, run_of(encoding, strategy))
    return path


@pytest.fixture
def files(tmp_path):
    return [
        write(tmp_path, "rope", "untuned", 0.5),
        write(tmp_path, "yarn", "untuned", 0.1),
        write(tmp_path, "yarn", "long", 0.02),
        write(tmp_path, "resonance_yarn", "long", 0.01),
    ]


def test_perplexity_is_exp_of_the_token_weighted_mean():
    values, weights = np.array([1.0, 2.0, 4.0]), np.array([10, 10, 20])
    found = weighted_estimate(values, weights)
    assert found.mean == pytest.approx(2.75) and found.low < 2.75 < found.high
    equal = weighted_estimate(values, np.full(3, 7))
    assert (equal.mean, equal.low, equal.high) == pytest.approx((lambda e: (e.mean, e.low, e.high))(estimate(values)))


def test_cells_and_pairs_have_the_known_answers(files):
    rows, about = read(files)
    cells = cells_of(rows)
    one = cells.filter(pl.col("corpus") == "one", pl.col("length") == 256)
    by_line = {(r["encoding"], r["strategy"]): r for r in one.iter_rows(named=True)}
    ratio = by_line["rope", "untuned"]["perplexity"] / by_line["yarn", "untuned"]["perplexity"]
    assert math.log(ratio) == pytest.approx(0.4)
    assert all(r["low95"] < r["perplexity"] < r["high95"] for r in by_line.values())
    assert all(r["released_mean"] == pytest.approx(r["perplexity"]) for r in by_line.values())
    pairs = pairs_of(rows)
    assert {(p["strategy"], p["corpus"], p["length"]) for p in pairs} == {
        ("long", corpus, length) for corpus in ("one", "two") for length in LENGTHS
    }
    assert all(p["difference_nats"] == pytest.approx(-0.01) and p["verdict"] == "lower" for p in pairs)
    assert about["strategies"] == ["long"]


def test_a_document_counts_once_however_many_stretches_of_it_are_read(tmp_path):
    draw = np.random.default_rng(2)
    gaps = draw.normal(-0.01, 0.01, size=6)

    def line(encoding: str, sign: float, stretches: int) -> Path:
        rows = read_rows(write(tmp_path, encoding, "long", 0.0), PERPLEXITY)
        gap = pl.col("document").replace_strict({f"d{i}": sign * gap for i, gap in enumerate(gaps)})
        rows = rows.with_columns(value=pl.col("value") + gap * pl.col("metric").str.ends_with("loss"))
        rows = pl.concat([rows.with_columns(piece=pl.lit(piece, pl.Int64)) for piece in range(stretches)])
        path = tmp_path / f"{encoding}{stretches}.parquet"
        write_rows(path, PERPLEXITY, rows.to_dicts(), run_of(encoding, "long"))
        return path

    once, often = (
        pairs_of(read([line("yarn", 0.0, stretches), line("resonance_yarn", 1.0, stretches)])[0])
        for stretches in (1, 4)
    )
    for few, many in zip(once, often, strict=True):
        assert (few.pop("num_units"), many.pop("num_units")) == (6, 24) and few["num_documents"] == 6
        assert many == {name: pytest.approx(v) if isinstance(v, float) else v for name, v in few.items()}
    row, alone = once[0], scipy.stats.ttest_1samp(gaps, 0)
    low, high = alone.confidence_interval()
    ends = [row[f"difference_{end}95_percent"] for end in ("low", "high")]
    assert ends == pytest.approx([100 * math.expm1(low), 100 * math.expm1(high)])
    assert row["holm_p"] == pytest.approx(min(1, 4 * alone.pvalue)), "two corpora at two lengths, all alike"


def test_what_resonance_changes_has_a_panel(files):
    rows, about = read(files)
    axes = Figure().subplots()
    draw_differences(axes, [pair for pair in pairs_of(rows) if pair["corpus"] == "one"], about)
    (line,) = [line for line in axes.get_lines() if line.get_marker() != "None"]
    assert line.get_label() == "Resonance YaRN − YaRN, long" and list(line.get_xdata()) == [64, 256]
    assert line.get_ydata() == pytest.approx([100 * math.expm1(-0.01)] * 2)


def render(tmp_path: Path, *files: Path) -> None:
    main(tmp_path / "f", "test", tmp_path / "t", "a tiny model", True, list(files), ["long: 30 steps"])


def test_every_file_is_made_and_names_the_stand_in(tmp_path, files):
    render(tmp_path, *files)
    for suffix in ("pdf", "svg", "png"):
        assert (tmp_path / f"f.{suffix}").stat().st_size > 2000
    for name in ("t.csv", "t_pairs.csv", "t.md", "t.tex", "t.html"):
        assert (tmp_path / name).stat().st_size > 100
    assert re.search("A STAND-IN for LLaMA2.* long: 30 steps[.]", (tmp_path / "t.md").read_text())
    assert "Resonance − plain (%)" in (tmp_path / "f.svg").read_text()
    assert pl.read_csv(tmp_path / "t.csv")["length"].to_list()[:2] == [64, 256]


def test_one_unit_has_no_interval_and_still_draws(tmp_path):
    render(tmp_path, write(tmp_path, "rope", "untuned", 0.0, units=1))
    assert pl.read_csv(tmp_path / "t.csv")["low95"].null_count() == 4


def test_what_does_not_belong_together_is_refused(tmp_path, files):
    other = write(tmp_path, "linear", "untuned", 0.0, units=5)
    for paths, said in (
        ([*files, other], "every line must have read the same text, but linear untuned did not"),
        ([files[0], files[0]], "every run must be given once, got encoding rope, strategy untuned, corpus one"),
        ([], "--perplexity must name at least one file"),
    ):
        with pytest.raises(ValueError, match=said):
            read(paths)
