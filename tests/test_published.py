"""The rows that the repository keeps, and the pages whose tables are made of them."""

import re
from pathlib import Path

import polars as pl
import pytest

from figures import (
    ablation,
    aliases,
    falls,
    fig4_perplexity,
    leaderboard,
    pages,
    passkey,
    probes,
    rounding,
    table1_posgen,
    verdict,
)
from resonance.posgen import stages
from resonance.posgen.preset import PROBED, Posgen
from resonance.posgen.probe_rows import PROBES
from resonance.posgen.protocol import CHOICES, with_choices
from resonance.posgen.ranking.tasks import TASKS
from resonance.posgen.rows import STUDY, SUMMARIES
from resonance.record import files
from resonance.record.rows import read_rows, read_run, write_rows
from resonance.workflow import study as studies
from resonance.workflow.preset import load

ROOT = Path(__file__).resolve().parents[1]
KEPT = sorted((ROOT / "results-published/laptop").glob("*.parquet"))
WHOLE = {
    "rounding": rounding, "ablation": ablation, "ends": ablation, "aliases": aliases, "leaks": aliases, "falls": falls,
    "lengths": falls, "fastest": falls,
}  # fmt: skip
"""Studies that have one table and figure of all their files, and what draws them."""
LINES = {"perplexity": fig4_perplexity, "passkey": passkey}
"""Evaluations of language models whose lines are kept, and what draws them."""
KEPT_LINES = {
    f"{LINES[evaluation].__name__.partition('.')[2]}_stand_in_{model}": folder
    for folder in sorted((ROOT / "results-published").glob("*/*_*/"))
    for evaluation, model in [folder.name.split("_")]
}
"""A language model's figure -> the folder of its lines, in that of their preset."""
PAGES = pages.with_tables(ROOT / "docs")


@pytest.fixture(scope="module")
def laptop() -> Posgen:
    return load(ROOT / "config", "laptop").posgen


@pytest.fixture(scope="module")
def tables(laptop, tmp_path_factory) -> Path:
    """What `snakemake published` writes, without it."""
    root = tmp_path_factory.mktemp("results")
    folder = root / "laptop/published/tables"
    baselines = {}
    for name, script in WHOLE.items():
        more = [ROOT / f"results-published/predictions/{name}.csv"] if script is falls else []
        if files_of(name):
            script.main(folder / name, "laptop", files_of(name), *more, folder / f"figure_{name}")
    for stem, lines in KEPT_LINES.items():
        preset, (evaluation, name) = lines.parent.name, lines.name.split("_")
        llm, files = load(ROOT / "config", preset).llm, sorted(lines.glob("*.parquet"))
        model, told = llm.settings.models[name], [llm.strategies_told(name)]
        LINES[evaluation].main(
            folder / f"figure_{stem}", preset, root / preset / "published/tables" / stem, model.title, model.stand_in,
            files, *(told if evaluation == "perplexity" else []),
        )  # fmt: skip
    leaderboard.main(ROOT / "results-published/ranking.parquet", folder / "leaderboard")
    for path in KEPT:
        if path.stem.split("_")[0] not in WHOLE:
            study, protocol = path.stem.split("_")
            lists = laptop.settings.all_studies[study]
            for key in [(protocol, task) for task in lists.tasks]:
                baselines[key] = baselines.get(key) or baseline(laptop, folder, *key)
            table1_posgen.main(
                output=folder / path.stem, preset="laptop", protocol=protocol, study=study, evaluation=[path],
                published=ROOT / "config/published.yaml", encoding=lists.encodings,
                baseline=[baselines[protocol, task] for task in lists.tasks],
            )  # fmt: skip
    return folder


def files_of(study: str) -> list[Path]:
    return [path for path in KEPT if path.stem.split("_")[0] == study]


def baseline(laptop: Posgen, folder: Path, protocol: str, task: str) -> Path:
    """What needs no training, as the workflow's rules make it."""
    here = folder / protocol / task
    files.write_text(here / "data.json", laptop.data_run(laptop.data_protocol(protocol), task).to_json())
    stages.generate(here / "data.json", [here / f"{split}.parquet" for split in ("train", "validation", "test")])
    stages.baseline(here / "data.json", here / "test.parquet", protocol, here / "baseline.parquet")
    return here / "baseline.parquet"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_shows_the_kept_rows_and_no_other_numbers(path: Path, tables: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert pages.filled(page, tables) == page, "a table is not of the kept rows; say `make pages`"


def test_every_kept_study_is_shown_whole_on_a_page(tables: Path) -> None:
    shown = [
        name
        for page in PAGES
        for name in re.findall(r"<!-- table: whole ([\w+/]+) -->", page.read_text(encoding="utf-8"))
    ]
    stems = [path.stem for path in KEPT]
    whole = {study if (study := stem.split("_")[0]) in WHOLE else stem for stem in stems}
    lines = {stem if (preset := of.parent.name) == "laptop" else f"{preset}/{stem}" for stem, of in KEPT_LINES.items()}
    assert sorted(shown) == sorted(whole | {"leaderboard"} | lines)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_rows_are_of_this_preset_and_whole(path: Path, laptop: Posgen, tmp_path: Path) -> None:
    study, run = path.stem.split("_")[0], read_run(path)
    kind = PROBES if study in PROBED else STUDY
    rows = read_rows(path, kind)
    assert run["preset"] == "laptop" and run["study"] in (study, {"table1": "five_seeds"}.get(study))
    lists = laptop.settings.all_studies[study]
    # Encodings that paper+beta32 does not touch, or P2 of a probe, stand in one file of the two; YaRN's in both.
    every = pl.concat(read_rows(each, kind) for each in files_of(study))
    whole = probes.under_one_name(every) if study in WHOLE else rows
    yarn = {name for name in lists.encodings if "yarn" in name}
    for (protocol, task), part in whole.group_by("protocol", "task"):
        found, others = set(part["encoding"]), set(lists.encodings) - yarn
        same = "beta32" in protocol or (study in PROBED and protocol == "paper+P2")
        others = set() if same and study in WHOLE else others
        assert found - yarn == others and found & yarn in (set(), yarn), f"every encoding on {task} under {protocol}"
    for (protocol, task), part in rows.group_by("protocol", "task"):
        seeds = {tuple(sorted(set(found["seed"]))) for _, found in part.group_by("encoding")}
        assert len(seeds) == 1, f"every encoding must have the same seeds on {task} under {protocol}"
        if kind is STUDY:
            assert part.height == part["encoding"].n_unique() * len(*seeds) * len(SUMMARIES)
    # What was kept is what the preset says now: collecting takes every row again, and would refuse any other.
    collect = "five_seeds" if study == "table1" else study
    only = {name: rows[name].unique().to_list() for name in ("protocol", "task", "encoding", "seed")}
    again = tmp_path / "again.parquet"
    studies.collect(laptop, "laptop", collect, again, root=tmp_path, only=only, kept=path, any_code=True)
    order = [name for name in kind.columns if name not in ("value", "made")]
    assert read_rows(again, kind).sort(order).equals(rows.sort(order))
    assert read_run(again)["made"] == run["made"]


def test_the_numbers_at_the_papers_size_are_of_the_kept_rows() -> None:
    rows = read_rows(ROOT / "results-published/paper_cpu/table1_paper+beta32.parquet", STUDY)
    asked = rows.filter(pl.col("metric").is_in(["ood_accuracy", "in_distribution_accuracy"]))
    assert asked.height == 2 * rows["encoding"].n_unique(), "one training an encoding"
    for path in (ROOT / "docs/results.md", ROOT / "docs/paper-size.md"):
        page = " ".join(path.read_text(encoding="utf-8").split())
        for row in asked.iter_rows(named=True):
            assert f"{100 * row['value']:.2f} %" in page, (path.name, row["encoding"], row["metric"])


def test_the_choices_that_can_be_flipped_are_counted_right() -> None:
    protocols = load(ROOT / "config", "laptop").posgen.protocols
    change = [name for name in CHOICES if with_choices(f"paper+{name}", protocols) != protocols["paper"]]
    assert (len(CHOICES), [name for name in CHOICES if name not in change]) == (10, ["P4", "P8"])
    page = " ".join((ROOT / "docs/differences.md").read_text(encoding="utf-8").split())
    assert "Ten choices can be flipped alone" in page and "Eight of the ten change something" in page


def test_the_verdict_figure_is_drawn_of_table_1s_cells(tables, tmp_path) -> None:
    """Filled where the table says that the published mean lies inside our interval; the page's picture is this one."""
    files = [tables / f"table1_{protocol}.csv" for protocol in ("paper", "released")]
    cells = pl.concat(pl.read_csv(path) for path in files).filter(pl.col("paper_mean_percent").is_not_null())
    drawn = [line for axes in verdict.drawing(cells).axes for line in axes.get_lines() if line.get_marker() in "os"]
    filled = [line for line in drawn if line.get_markerfacecolor() == line.get_color()]
    assert len(drawn) == 24 and len(filled) == (cells["verdict"] == "paper inside").sum()
    verdict.main(tmp_path / "verdict", "laptop", files)
    assert (tmp_path / "verdict.svg").read_bytes() == (ROOT / "docs/verdict.svg").read_bytes()


def test_what_the_leaderboards_page_says_is_so(tables) -> None:
    cells = {(row["encoding"], row["task"]): row for row in pl.read_csv(tables / "leaderboard.csv").to_dicts()}

    def at(encoding: str, task: str) -> int:
        return round(cells[encoding, task]["to_4L"])

    assert [at("window", task) for task in ("recursive", "cot", "recall")] == [99, 95, 13]
    assert [at("rope", task) for task in ("recursive", "cot", "recall", "flip_flop")] == [41, 38, 71, 67]
    rotations = ("rope", "resonance_rope", "yarn", "resonance_yarn", "ntk", "p_rope", "fope")
    assert (min(at(name, "look_back") for name in rotations), max(at(name, "look_back") for name in rotations)) == (
        77,
        91,
    )
    others = ("nope", "alibi", "t5", "fire", "randomized")
    assert max(cells[name, "look_back"]["in_distribution"] for name in others) < 25
    assert (min(at(name, "recall") for name in others), at("fire", "flip_flop")) == (86, 95)
    assert [at("cope", task) for task in ("recursive", "cot")] == [100, 100]
    gaps = {
        (method, task): abs(at(f"resonance_{method}", task) - at(method, task))
        for method in ("rope", "yarn") for task in TASKS
    }  # fmt: skip
    assert max(gaps["rope", task] for task in TASKS) <= 7 and gaps.pop(("yarn", "flip_flop")) == 18
    assert max(gaps.values()) <= 11
    compared = [row for row in cells.values() if row["minus_rope"] is not None]
    clear = [row for row in compared if row["low"] > 0 or row["high"] < 0]
    assert (len(compared), len(clear), min(row["p_holm"] for row in compared) < 0.05) == (96, 35, False)


def test_the_pages_picture_of_the_leaderboard_is_of_the_kept_rows(tables) -> None:
    assert (tables / "leaderboard.svg").read_bytes() == (ROOT / "docs/leaderboard.svg").read_bytes()


@pytest.mark.parametrize("study", ["rounding", "ablation", "aliases", "falls", *KEPT_LINES])
def test_the_pages_picture_of_a_study_is_of_the_kept_rows(study: str, tables) -> None:
    assert (tables / f"figure_{study}.svg").read_bytes() == (ROOT / f"docs/{study}.svg").read_bytes()


def test_first_falls_are_drawn_where_a_task_or_a_block_has_none(tmp_path) -> None:
    """Models of cot that never fall, none of YaRN on recursive, and one of RoPE."""
    path = ROOT / "results-published/laptop/falls_paper+beta32.parquet"
    yarn, cot = pl.col("encoding").str.contains("yarn"), pl.col("task") == "cot"
    kept = read_rows(path, PROBES).filter((yarn & cot) | (~yarn & ~cot & (pl.col("encoding") == "rope")))
    kept = kept.filter(~(cot & (pl.col("metric") == "first_fall")))
    write_rows(tmp_path / "falls.parquet", PROBES, kept.to_dicts(), read_run(path))
    files = [tmp_path / "falls.parquet"], ROOT / "results-published/predictions/falls.csv"
    falls.main(tmp_path / "out", "laptop", *files, tmp_path / "figure")
    with pytest.raises(ValueError, match=r"predictions must hold mine, .*add it before a run"):
        falls.main(tmp_path / "out", "mine", *files, tmp_path / "figure")
    assert "+nan" not in (tmp_path / "out.md").read_text()
    assert (tmp_path / "figure.svg").read_text().count('id="ytick_') > 4


def test_what_is_said_of_hidden_distances_is_so(tables) -> None:
    """README and docs/results.md: 97 to 100 % with the trained distances alone; a control changes next to nothing."""
    cells = pl.read_csv(tables / "aliases.csv").filter(pl.col("task").is_in(["recursive", "cot"]))
    assert cells["window_trained_percent"].min() >= 97 and cells["window_trained_percent"].max() <= 100
    assert (cells["control_percent"] - cells["none_percent"]).abs().max() < 2
    paper = cells.filter(pl.col("protocol") != "released")
    assert paper["aliases_percent"].min() > 97
    for page in ("README.md", "docs/results.md"):
        assert "97 to 100 %" in " ".join((ROOT / page).read_text(encoding="utf-8").split())
