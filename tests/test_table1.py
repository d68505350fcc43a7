"""Table 1's script on tiny synthetic results: the numbers, the verdicts, the words, and input that it refuses."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from scipy import stats

from figures import table1_posgen, verdict
from posgen_results import LARGE, PUBLISHED, SEEDS, SMALL, make_table, write_baseline, write_evaluation, write_study
from resonance.record.stats import Estimate


def test_cells_hold_mean_spread_interval_and_the_papers_number(made: SimpleNamespace) -> None:
    cells = pl.read_csv(f"{make_table(made)}.csv")
    row = cells.row(by_predicate=(pl.col("task") == "cot") & (pl.col("encoding") == "rope"), named=True)
    half = 4.302652729911275 * 2 / 3**0.5  # t(0.975, 2 degrees of freedom) * sd / sqrt(n)
    assert (row["num_seeds"], row["seeds"]) == (3, "1 2 3")
    assert row["ood_accuracy_percent"] == pytest.approx(52)
    assert (row["ood_sd_points"], row["ood_variance_points2"]) == pytest.approx((2, 4))
    assert (row["ood_low95_percent"], row["ood_high95_percent"]) == pytest.approx((52 - half, 52 + half))
    assert (row["paper_mean_percent"], row["paper_spread"]) == (69.56, 0.33)
    assert row["verdict"] == "paper above"
    assert row["first_token_accuracy_percent"] == 6.25
    assert row["ood_accuracy_odd_percent"] == pytest.approx(54)


def test_rows_come_by_task_in_the_order_asked_for_then_the_baselines(made: SimpleNamespace) -> None:
    asked = ["resonance_rope", "rope"]
    cells = pl.read_csv(f"{make_table(made, encoding=asked)}.csv")
    assert cells["encoding"].to_list() == asked * 2 + ["local_rule", "chance"] * 2
    assert cells["task"].to_list() == [t for t in ("recursive", "cot") for _ in range(2)] * 2
    assert cells.filter(encoding="local_rule")["ood_accuracy_percent"].to_list() == [75, 75]
    assert cells.filter(encoding="chance")["verdict"].to_list() == [None, None]


def test_pairs_hold_the_difference_seed_by_seed(made: SimpleNamespace) -> None:
    pairs = pl.read_csv(f"{make_table(made)}_pairs.csv")
    row = pairs.row(by_predicate=pl.col("task") == "cot", named=True)
    half = 4.302652729911275 / 3**0.5  # differences 5, 6, 7 points
    assert (row["resonance"], row["plain"], row["num_seeds"]) == ("resonance_rope", "rope", 3)
    assert (row["difference_points"], row["difference_sd_points"]) == pytest.approx((6, 1))
    assert (row["difference_low95_points"], row["difference_high95_points"]) == pytest.approx((6 - half, 6 + half))
    assert row["paper_difference_points"] == 5.69
    # t_0.975 and t_0.8 at two degrees of freedom; Holm over the table's two pairs, of which this is the surer or not.
    assert row["detectable_points"] == pytest.approx((4.302652729911275 + 1.0606601717798212) / 3**0.5)
    alone = 2 * stats.t.sf(6 * 3**0.5, 2)
    assert row["holm_p"] in (pytest.approx(alone), pytest.approx(2 * alone))
    assert dict(pairs.select("task", "verdict").iter_rows()) == {"cot": "agrees", "recursive": "contradicts"}


def test_the_verdict_figure_takes_a_protocol_of_too_few_seeds_beside_another(made, tmp_path) -> None:
    first = [path for path in made.evaluations if path.stem.endswith("-1")]
    for name, evaluations in (("few", first), ("all", made.evaluations)):
        shutil.copy(f"{make_table(made, evaluation=evaluations)}.csv", tmp_path / f"{name}.csv")
    verdict.main(tmp_path / "verdict", "tiny", [tmp_path / "few.csv", tmp_path / "all.csv"])
    assert (tmp_path / "verdict.svg").stat().st_size > 2000


def test_a_single_seed_has_neither_spread_nor_verdict(made: SimpleNamespace) -> None:
    first = [path for path in made.evaluations if path.stem.endswith("-1")]
    stem = make_table(made, evaluation=first)
    cells, pairs = pl.read_csv(f"{stem}.csv"), pl.read_csv(f"{stem}_pairs.csv")
    trained = cells.filter(pl.col("num_seeds") == 1)
    assert trained["verdict"].to_list() == ["too few seeds"] * 4
    assert trained["ood_sd_points"].null_count() == trained["ood_low95_percent"].null_count() == 4
    assert pairs["verdict"].to_list() == ["too few seeds"] * 2
    assert pairs["detectable_points"].null_count() == pairs["holm_p"].null_count() == 2
    text = Path(f"{stem}.md").read_text(encoding="utf-8")
    assert "nan" not in text.replace("Resonance", "") and "| RoPE | 1 | 52.00 | too few seeds |" in text


@pytest.mark.parametrize(
    ("low", "high", "n", "paper", "verdict"),
    [
        (40, 50, 3, 45, "paper inside"),
        (40, 50, 3, 50, "paper inside"),
        (40, 50, 3, 51, "paper above"),
        (40, 50, 3, 39, "paper below"),
        (float("nan"), float("nan"), 1, 45, "too few seeds"),
        (40, 50, 2, 51, "too few seeds"),
    ],
)
def test_cell_verdict(low: float, high: float, n: int, paper: float, verdict: str) -> None:
    assert table1_posgen.cell_verdict(Estimate(45, 1, low, high, n), paper) == verdict


@pytest.mark.parametrize(
    ("low", "high", "n", "paper", "verdict"),
    [
        (1, 3, 3, 5, "agrees"),
        (-3, -1, 3, -5, "agrees"),
        (1, 3, 3, -5, "contradicts"),
        (-3, -1, 3, 5, "contradicts"),
        (-1, 3, 3, 5, "undecided"),
        (0, 0, 3, 5, "undecided"),
        (float("nan"), float("nan"), 1, 5, "too few seeds"),
        (1, 3, 2, 5, "too few seeds"),
    ],
)
def test_pair_verdict(low: float, high: float, n: int, paper: float, verdict: str) -> None:
    assert table1_posgen.pair_verdict(Estimate((low + high) / 2, 1, low, high, n), paper) == verdict


def test_an_encoding_that_the_paper_has_not_gets_no_verdict(made: SimpleNamespace) -> None:
    made.evaluations += [write_evaluation(made.folder, task, "ntk", 1, 0.4) for task in ("cot", "recursive")]
    stem = make_table(made, encoding=["ntk"])
    assert pl.read_csv(f"{stem}.csv").filter(encoding="ntk")["verdict"].to_list() == [None, None]
    pairs = Path(f"{stem}_pairs.csv").read_text(encoding="utf-8").splitlines()
    assert pairs == [",".join(table1_posgen.PAIR_COLUMNS)]


def test_where_nothing_is_published_nothing_is_set_beside_it(made: SimpleNamespace) -> None:
    names = ("rope", "resonance_rope")
    made.evaluations = [write_evaluation(made.folder, "cot_keyed", name, seed, 0.4) for name in names for seed in SEEDS]
    made.baselines = [write_baseline(made.folder, "cot_keyed")]
    text = Path(f"{make_table(made, study='keyed')}.md").read_text(encoding="utf-8")
    headers = [line for line in text.splitlines() if "Seeds" in line]
    assert headers[0].startswith("|  | Seeds | OOD accuracy ± sd | 95% interval | Variance | In distribution |")
    assert headers[1] == "|  | Seeds | Difference | 95% interval | Detectable |"
    assert "| Resonance RoPE | 3 | 40.00 ± 0.00 | [40.00, 40.00] | 0.00 | 99.00 | 6.25 | 50.00 | 30.00 |" in text
    assert "paper's mean" not in text and "verdict" not in text.lower()


def test_the_repositorys_own_rows_stand_in_a_column_of_their_own(made: SimpleNamespace) -> None:
    names = {"protocol": "paper", "task": "cot", "metric": "ood_accuracy"}
    rows = [
        {**names, "encoding": encoding, "seed": seed, "value": value}
        for encoding, values in {"rope": (0.4, 0.42, 0.44, 0.46), "resonance_rope": (0.5, 0.53, 0.54)}.items()
        for seed, value in enumerate(values)
    ]
    kept = write_study(
        made.folder / "kept.parquet", rows, {("paper", "cot"): SMALL}, {"rope": {}, "resonance_rope": {}}
    )
    stem = make_table(made, kept=kept)
    cells, pairs = (
        {(row["task"], row.get("encoding", "")): row for row in pl.read_csv(f"{stem}{end}.csv").iter_rows(named=True)}
        for end in ("", "_pairs")
    )
    assert (cells["cot", "rope"]["kept_num_seeds"], cells["cot", "rope"]["kept_mean_percent"]) == (4, pytest.approx(43))
    assert cells["recursive", "rope"]["kept_num_seeds"] is None, "none of it is kept"
    assert pairs["cot", ""]["kept_points"] == pytest.approx((10 + 11 + 10) / 3)
    text = Path(f"{stem}.md").read_text(encoding="utf-8")
    assert "| Kept rows |" in text and "43.00 ± 2.58 (4 seeds)" in text
    assert "+10.33 [+8.90, +11.77] agrees (3 seeds)" in text  # 31/3 ± 4.3027 * sd/sqrt(3), sd = 1/sqrt(3)
    assert "Kept rows" not in Path(f"{make_table(made)}.md").read_text(encoding="utf-8")


def test_tables_for_people_say_what_they_compare(made: SimpleNamespace) -> None:
    stem = make_table(made)
    for suffix in ("md", "tex", "html"):
        text = Path(f"{stem}.{suffix}").read_text(encoding="utf-8")
        for words in (
            "Preset laptop, protocol paper, 3 seeds (1, 2, 3)",
            "stand-in",
            "not comparable",
            "Resonance RoPE",
        ):
            assert words in " ".join(text.replace("\n", " ").split()), (suffix, words)
    named_paper = Path(f"{make_table(made, preset='paper')}.md").read_text(encoding="utf-8")
    assert "stand-in" in named_paper, "a name says nothing about sizes"


@pytest.mark.parametrize(
    ("change", "is_paper"),
    [({}, True), ({"steps": 11_718}, False), ({"model": LARGE["model"] | {"d_model": 256}}, False),
     ({"data": LARGE["data"] | {"train_length": 32}}, False), ({"training": {"batch_size": 64}}, False)],
)  # fmt: skip
def test_a_table_of_the_papers_sizes_is_no_stand_in(made: SimpleNamespace, change: dict, is_paper: bool) -> None:
    made.evaluations = [
        write_evaluation(made.folder, task, name, 1, 0.4, sizes=LARGE | change)
        for task in ("cot", "recursive") for name in ("rope", "resonance_rope")
    ]  # fmt: skip
    text = Path(f"{make_table(made, preset='mine')}.md").read_text(encoding="utf-8")
    assert ("has the paper's sizes" in text) is is_paper and ("stand-in" in text) is not is_paper


def test_tex_is_balanced_and_escaped(made: SimpleNamespace) -> None:
    text = Path(f"{make_table(made)}.tex").read_text(encoding="utf-8")
    body = text.split("\n", 1)[1]
    assert body.count("{") - body.count("\\{") == body.count("}") - body.count("\\}")
    assert body.count("\\begin{") == body.count("\\end{") == 6
    assert "%" not in body.replace("\\%", "") and "_" not in body
    assert body.isascii()
    for row in (line for line in body.splitlines() if line.startswith(("RoPE", "Resonance RoPE &"))):
        assert row.count("&") == len(table1_posgen.CELL_HEADER) - 2, "without the kept rows' column"


def test_the_caption_says_what_was_trained_and_refuses_a_mix_of_sizes(made):
    text = make_table(made).with_suffix(".md").read_text()
    assert "width 128, 4 heads of 64; 2 layers; steps: 600 on Recursive, 600 on CoT." in text
    made.evaluations[0] = write_evaluation(made.folder, "cot", "rope", 3, 0.5, num_layers=6)
    with pytest.raises(ValueError, match="one size of model"):
        make_table(made)


# Bad input


def test_a_row_without_runs_is_named(made: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="cover encoding yarn on task recursive"):
        make_table(made, encoding=["rope", "yarn"])
    half = [path for path in made.evaluations if "cot-resonance_rope" not in path.stem]
    with pytest.raises(ValueError, match="cover encoding resonance_rope on task cot"):
        make_table(made, evaluation=half)


def test_a_run_given_twice_is_refused(made: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="every run must be given once, got task cot, encoding rope, seed 3"):
        make_table(made, evaluation=[*made.evaluations, made.evaluations[0]])


def test_missing_baselines_are_named(made: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="--baseline must name at least one file"):
        make_table(made, baseline=[])
    with pytest.raises(ValueError, match="cover local_rule on task recursive"):
        make_table(made, baseline=made.baselines[:1])


def test_published_numbers_are_checked(made: SimpleNamespace) -> None:
    broken = made.folder / "published.yaml"
    broken.write_text("table1: {source: x, rows: {rope: {cot: {mean: many, spread: 0.1}}}}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"published.yaml: table1: rows.rope.cot.mean"):
        make_table(made, published=broken)
    broken.write_text("table2: {}", encoding="utf-8")
    with pytest.raises(ValueError, match="table1 must be given"):
        make_table(made, published=broken)


def test_published_numbers_are_the_papers() -> None:
    rows = table1_posgen.read_published(PUBLISHED).rows
    assert sorted(rows) == ["resonance_rope", "resonance_yarn", "rope", "yarn"]
    assert all(sorted(row) == ["cot", "recursive", "semi_recursive"] for row in rows.values())
    assert (rows["resonance_yarn"]["semi_recursive"].mean, rows["rope"]["recursive"].spread) == (48.46, 0.43)
