"""Studies: collected into one file, and drawn: rules of rounding, ablation, shortcuts. Statistics known by hand."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from figures import ablation, rounding, shortcuts
from resonance import cli
from resonance.record import config, results, study

ROOT = Path(__file__).resolve().parents[1]
ENCODINGS = ROOT / "config/encodings.yaml"
MADE = {
    "model": {"d_model": 16, "d_ff": 32, "num_heads": 2, "head_dim": 64},
    "data": {"modulus": 17, "train_length": 64, "test_length": 256, "num_train": 10_000},
    "training": {"batch_size": 32},
    "layers": {"paper": 2, "released": 6},
    "steps": {"paper": {"cot": 600}, "released": {"cot": 400}},
}
SEEDS = (1, 2, 3)


def rows(protocol: str, encoding: str, values: tuple[float, ...], task: str = "cot") -> list[dict]:
    """Summaries of one encoding: its OOD accuracy by seed, everything else alike."""
    found = []
    for seed, value in zip(SEEDS, values, strict=False):
        names = {"protocol": protocol, "task": task, "train_encoding": encoding, "encoding": encoding, "seed": seed}
        place = {"split": "test", "step": 600, "epoch": 2.0, "position": None}
        for metric, number in (("ood_accuracy", value), ("in_distribution_accuracy", 0.9)):
            found.append({**names, **place, "metric": metric, "value": number})
    return found


def write(path: Path, *parts: list[dict], **changes: object) -> Path:
    results.write_rows(path, "evaluation", [row for part in parts for row in part], MADE | changes)
    return path


# Rules of rounding


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write(
        tmp_path / "rounding.parquet",
        rows("released", "rope", (0.40, 0.42, 0.44)),
        rows("released", "resonance_rope", (0.45, 0.48, 0.51)),  # 5, 6, 7 points above
        rows("released", "rope_half", (0.46, 0.48, 0.50)),  # 6, 6, 6 above; 1, 0, -1 beside nearest
    )


def draw_rules(path: Path, stem: str = "out") -> pl.DataFrame:
    out = path.parent / stem
    rounding.main(out, "tiny", [path], ENCODINGS, path.parent / f"{stem}_figure")
    return pl.read_csv(f"{out}.csv")


def test_a_rule_is_compared_seed_by_seed_with_none_and_with_nearest(rules: Path) -> None:
    found = {row["rounding"]: row for row in draw_rules(rules).iter_rows(named=True)}
    assert list(found) == ["none", "nearest", "half"]
    nearest, half = found["nearest"], found["half"]
    assert nearest["minus_none_points"] == pytest.approx(6)
    # t(0.975, 2) = 4.3027; sd 1 over sqrt(3)
    assert nearest["minus_none_high95_points"] == pytest.approx(6 + 4.3027 / 3**0.5, abs=1e-3)
    assert nearest["minus_nearest_points"] is None and found["none"]["minus_none_points"] is None
    assert half["minus_none_points"] == pytest.approx(6)
    assert half["minus_nearest_points"] == pytest.approx(0)
    assert half["minus_nearest_low95_points"] == pytest.approx(-4.3027 / 3**0.5, abs=1e-3)
    assert half["ood_accuracy_percent"] == pytest.approx(48)


def test_the_rounding_table_counts_what_chance_would_give(rules: Path) -> None:
    draw_rules(rules)
    text = (rules.parent / "out.md").read_text()
    assert "against no rounding, 2 of 2 (by chance alone 0.1)" in text
    assert "against nearest, 1 of 2 (by chance alone 0.1)" in text
    assert "not corrected for the number of comparisons" in text
    assert "Preset tiny, 3 seeds (1, 2, 3)" in text and "small stand-in" in text
    for kind in ("pdf", "svg", "png"):
        assert (rules.parent / f"out_figure.{kind}").stat().st_size > 2000


def test_a_study_of_several_files_is_one_table_that_says_where_seeds_are_fewer(rules: Path, tmp_path: Path) -> None:
    more = write(
        tmp_path / "more.parquet", rows("paper", "rope", (0.4, 0.5)), rows("paper", "rope_half", (0.5, 0.7)),
        layers={"paper": 2}, steps={"paper": {"cot": 600}},
    )  # fmt: skip
    rounding.main(tmp_path / "out", "tiny", [rules, more], ENCODINGS, tmp_path / "figure")
    found = pl.read_csv(tmp_path / "out.csv")
    assert found["protocol"].to_list() == ["paper"] * 2 + ["released"] * 3, "in this order, whichever file is first"
    assert found["num_seeds"].to_list() == [2, 2, 3, 3, 3]
    assert "2 to 3 seeds (1, 2, 3)" in (tmp_path / "out.md").read_text()
    with pytest.raises(ValueError, match="every run must be given once"):
        rounding.main(tmp_path / "out", "tiny", [rules, rules], ENCODINGS, tmp_path / "figure")
    other = write(tmp_path / "other.parquet", rows("paper", "rope", (0.4,)), model={"d_model": 7})
    with pytest.raises(ValueError, match=r"--study files must be of one model, got .* and \{'d_model': 7\}"):
        rounding.main(tmp_path / "out", "tiny", [rules, other], ENCODINGS, tmp_path / "figure")


def test_rules_are_compared_between_places_that_differ_in_one_thing(tmp_path: Path) -> None:
    names = ("rope", "resonance_rope", "rope_floor", "rope_ceil", "rope_half", "rope_prime")
    gains = (0, 0.05, 0.10, -0.05, 0.02, -0.10)
    parts = [
        rows(protocol, name, (0.5 + sign * gain,) * 3, task)
        for protocol, task, sign in (("paper", "cot", 1), ("released", "cot", 2), ("released", "recursive", -1))
        for name, gain in zip(names, gains, strict=True)
    ]
    steps = {"paper": {"cot": 600}, "released": {"cot": 400, "recursive": 400}}
    draw_rules(write(tmp_path / "s.parquet", *parts, steps=steps))
    text = (tmp_path / "out.md").read_text()
    assert "| paper and released, CoT, RoPE | 5 | +1.00 | [+1.00, +1.00] |" in text
    assert "| released, Recursive and CoT, RoPE | 5 | −1.00 | [−1.00, −1.00] |" in text
    assert "paper and released, Recursive" not in text and text.count(", RoPE | 5 |") == 2
    assert "trained and new" not in text, "all rules do the same in distribution"


def test_what_a_rule_adds_in_distribution_is_compared_with_what_it_adds_beyond(tmp_path: Path) -> None:
    names = ("rope", "resonance_rope", "rope_floor", "rope_ceil", "rope_half")
    parts = [
        rows("paper", name, (0.5 + gain,) * 3) for name, gain in zip(names, (0, 0.04, 0.08, -0.08, 0), strict=True)
    ]
    for part, inside in zip(parts, (0.1, 0.48, 0.46, 0.54, 0.50), strict=True):
        for row in part:
            if row["metric"] == "in_distribution_accuracy":
                row["value"] = inside  # without `none`, which stands apart: 50 less half of what is added beyond
    draw_rules(write(tmp_path / "s.parquet", *parts))
    text = (tmp_path / "out.md").read_text()
    assert "| **Between trained and new positions** |" in text
    assert "| paper, CoT, RoPE | 4 | −1.00 | [−1.00, −1.00] |" in text


def test_one_seed_has_differences_and_no_intervals(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows("paper", "yarn", (0.4,)), rows("paper", "yarn_even", (0.5,)))
    found = draw_rules(path)
    assert found["minus_none_points"].to_list() == [None, pytest.approx(10)]
    assert found["minus_none_low95_points"].to_list() == [None, None]


def test_an_encoding_that_config_does_not_know_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows("paper", "rope_up", (0.4,)))
    with pytest.raises(ValueError, match=r"encodings.yaml: rope_up: must be defined"):
        draw_rules(path)


# Ablation


@pytest.fixture
def flips(tmp_path: Path) -> Path:
    return write(
        tmp_path / "ablation.parquet",
        rows("paper", "rope", (0.60, 0.62, 0.64)),
        rows("paper", "resonance_rope", (0.61, 0.64, 0.67)),
        rows("paper+P5", "rope", (0.50, 0.51, 0.52)),  # 10, 11, 12 points below
        rows("paper+P5", "resonance_rope", (0.61, 0.64, 0.67)),
        layers={"paper": 2, "paper+P5": 6},
        steps={"paper": {"cot": 600}, "paper+P5": {"cot": 600}},
    )


def draw_flips(path: Path) -> pl.DataFrame:
    ablation.main(path.parent / "out", "tiny", [path], path.parent / "out_figure")
    return pl.read_csv(path.parent / "out.csv")


def test_a_flip_is_compared_with_its_base_seed_by_seed(flips: Path) -> None:
    found = {(row["choice"] or "", row["column"]): row for row in draw_flips(flips).iter_rows(named=True)}
    assert found["", "rope"]["value"] == pytest.approx(62)
    assert found["P5", "rope"]["value"] == pytest.approx(-11)
    assert found["P5", "rope"]["high95"] == pytest.approx(-11 + 4.3027 / 3**0.5, abs=1e-3)
    assert found["P5", "resonance_rope"]["value"] == pytest.approx(0)
    assert found["", "resonance_rope - rope"]["value"] == pytest.approx(2)
    assert found["P5", "resonance_rope - rope"]["value"] == pytest.approx(11), "what the flip adds to the difference"


def test_the_ablation_table_names_choices_and_counts_what_chance_would_give(flips: Path) -> None:
    draw_flips(flips)
    text = (flips.parent / "out.md").read_text()
    assert "| **CoT: from paper, one choice of released at a time** |" in text
    assert "| P5 depth | 3 | −11.00 ± 2.48 | +0.00 ± 0.00 | +11.00 ± 2.48 |" in text
    assert "2 of 2 differences have an interval that leaves 0 out, 0.1 expected" in text
    assert "(1 more are 0 in every seed: the flip does not touch them)" in text
    assert "2 layers; steps: 600 on CoT" in text, "the base's: the flip of P5 is a row"


def test_a_flip_without_its_base_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows("paper+P5", "rope", (0.5,)))
    with pytest.raises(ValueError, match=r"--study must hold protocol paper beside paper\+P5"):
        draw_flips(path)


# Shortcuts


@pytest.fixture
def by_position(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """Two seeds of one encoding: even positions always right, odd ones never."""
    names = {"protocol": "paper", "task": "semi_recursive", "train_encoding": "rope", "encoding": "rope"}
    evaluations = []
    for seed in (1, 2):
        place = {**names, "seed": seed, "split": "test", "step": 600, "epoch": 2.0}
        found = [{**place, "position": p, "metric": "accuracy", "value": float(p % 2 == 0)} for p in range(4, 256)]
        found += [{**place, "position": None, "metric": metric, "value": 0.5} for metric in shortcuts.SUMMARIES]
        path = tmp_path / f"{seed}.parquet"
        results.write_rows(path, "evaluation", found, {"settings": {"data": {"train_length": 64}}})
        evaluations.append(path)
    baseline = tmp_path / "baseline.parquet"
    results.write_rows(
        baseline,
        "baseline",
        [
            {"protocol": "paper", "task": "semi_recursive", "encoding": name, "split": "test", "position": None,
             "metric": metric, "value": value}
            for name, value in (("local_rule", 0.53), ("chance", 1 / 17)) for metric in shortcuts.SUMMARIES
        ],
        {},
    )  # fmt: skip
    return evaluations, [baseline]


def test_shortcuts_draw_parities_apart_beside_the_local_rule(by_position, tmp_path: Path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(shortcuts.style, "save", lambda figure, *_: drawn.append(figure))
    shortcuts.main(tmp_path / "out", "tiny", "paper", *by_position)
    above, below = drawn[0].axes
    even, odd = (line.get_ydata() for line in above.lines)
    assert (even == 100).all() and (odd == 0).all()
    assert [bar.get_height() for bar in below.patches] == [pytest.approx(53)] * 4
    labels = [handle.get_text() for handle in drawn[0].legends[0].get_texts()]
    assert sorted(labels) == ["Chance", "Local rule", "RoPE"]


def test_shortcuts_refuse_a_run_given_twice(by_position, tmp_path: Path) -> None:
    evaluations, baselines = by_position
    with pytest.raises(ValueError, match="every run must be given once"):
        shortcuts.main(tmp_path / "out", "tiny", "paper", [*evaluations, evaluations[0]], baselines)


@pytest.mark.parametrize("script", ["rounding", "ablation"])
def test_equal_studies_give_equal_bytes(script: str, rules: Path, flips: Path) -> None:
    draw = {"rounding": lambda: draw_rules(rules), "ablation": lambda: draw_flips(flips)}[script]
    folder = rules.parent
    outputs = [folder / f"out{end}" for end in (".csv", ".md", ".tex", ".html", "_figure.svg", "_figure.pdf")]
    draw()
    first = [path.read_bytes() for path in outputs]
    draw()
    assert [path.read_bytes() for path in outputs] == first


# Collecting


def evaluate_all(loaded: config.Config, name: str, folder: Path, **changes: object) -> None:
    """Evaluations as the workflow would leave them."""
    for cell in loaded.study_cells(name):
        names = cell._asdict()
        names.pop("train_protocol")
        place = {**names, "split": "test", "step": 8, "epoch": 1.0}
        found = [{**place, "position": None, "metric": "ood_accuracy", "value": 0.5}]
        found += [{**place, "position": 4, "metric": "accuracy", "value": 0.5}]
        found += [{**place, "split": "validation", "position": None, "metric": "loss", "value": 2.0}]
        steps = loaded.preset.posgen.steps(cell.protocol, cell.task)
        run = {
            "settings": {"steps": steps},
            "device": "a processor",
            "threads": 1,
            "provenance": {"commit": "abc", "versions": {"torch": "2"}, "started": f"2026-01-0{cell.seed % 9 + 1}"},
        }
        results.write_rows(study.evaluation_path(loaded, cell, folder), "evaluation", found, run | changes)


def test_a_study_is_collected_into_its_summaries_and_what_made_them(tmp_path: Path) -> None:
    loaded = config.load(ROOT / "config", "smoke")
    evaluate_all(loaded, "rounding", tmp_path)
    found, made = study.collect(loaded, "rounding", tmp_path)
    assert len(found) == len(loaded.study_cells("rounding")) == 12
    assert {row["position"] for row in found} == {None} and {row["split"] for row in found} == {"test"}
    assert made["devices"] == ["a processor"] and made["commits"] == ["abc"] and made["versions"] == {"torch": ["2"]}
    assert made["layers"] == {"released": 6} and made["steps"] == {"released": {"cot": 8}}
    assert (made["first"], made["last"]) == ("2026-01-07", "2026-01-08")


def test_a_part_of_a_study_can_be_collected(tmp_path: Path) -> None:
    loaded = config.load(ROOT / "config", "smoke")
    evaluate_all(loaded, "ablation", tmp_path)
    found, made = study.collect(loaded, "ablation", tmp_path, only={"protocol": ["paper", "paper+P2"], "seed": []})
    assert {row["protocol"] for row in found} == {"paper", "paper+P2"} and made["num_evaluations"] == 8
    assert list(made["layers"]) == ["paper", "paper+P2"]
    with pytest.raises(ValueError, match="task must name cells of study ablation, got recursive"):
        study.collect(loaded, "ablation", tmp_path, only={"task": ["recursive"]})
    with pytest.raises(ValueError, match="study must be one of table1, extended, keyed, rounding, ablation, got 'all'"):
        study.collect(loaded, "all", tmp_path)


@pytest.mark.parametrize(
    ("option", "value"), [("protocol", "paper+P2"), ("task", "cot"), ("encoding", "yarn"), ("seed", 42)]
)
def test_every_option_of_collect_takes_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: object
) -> None:
    loaded = config.load(ROOT / "config", "smoke")
    evaluate_all(loaded, "ablation", tmp_path)
    wanted = [cell for cell in loaded.study_cells("ablation") if getattr(cell, option) == value]
    for cell in loaded.study_cells("ablation"):
        if cell not in wanted:
            study.evaluation_path(loaded, cell, tmp_path).unlink()
    monkeypatch.chdir(tmp_path)
    cli.collect("smoke", "ablation", tmp_path / "part.parquet", folder=ROOT / "config", **{option: [value]})
    rows = results.read_rows(tmp_path / "part.parquet", "evaluation")
    assert rows.select("protocol", "encoding", "task", "seed").unique().height == len(wanted) > 0


def test_a_study_can_be_run_in_parts_and_collected_with_what_was_kept(tmp_path: Path) -> None:
    loaded = config.load(ROOT / "config", "smoke")
    here, there, kept = tmp_path / "here", tmp_path / "there", tmp_path / "kept.parquet"
    evaluate_all(loaded, "ablation", there, device="another processor")
    results.write_rows(kept, "evaluation", *study.collect(loaded, "ablation", there, only={"protocol": ["paper"]}))
    evaluate_all(loaded, "ablation", here)
    for cell in loaded.study_cells("ablation"):
        if cell.protocol == "paper":
            study.evaluation_path(loaded, cell, here).unlink()
    with pytest.raises(FileNotFoundError, match="is missing; run the workflow"):
        study.collect(loaded, "ablation", here)
    found, made = study.collect(loaded, "ablation", here, kept=kept)
    whole, _ = study.collect(loaded, "ablation", there)
    assert found == whole and made["num_evaluations"] == len(loaded.study_cells("ablation"))
    assert made["devices"] == ["a processor", "another processor"]
    _, made = study.collect(loaded, "ablation", here, only={"protocol": ["released"]}, kept=kept)
    assert made["devices"] == ["a processor"], "of what was kept nothing was taken"
    results.write_rows(kept, "evaluation", whole, made | {"model": {"d_model": 7}})
    with pytest.raises(ValueError, match=r"kept\.parquet must be of this preset's model, got \{'d_model': 7\}"):
        study.collect(loaded, "ablation", here, kept=kept)


def test_an_evaluation_of_other_settings_is_refused(tmp_path: Path) -> None:
    loaded = config.load(ROOT / "config", "smoke")
    evaluate_all(loaded, "rounding", tmp_path, settings={"steps": 9})
    with pytest.raises(ValueError, match="must come of 8 training steps as its preset says, got 9; run the workflow"):
        study.collect(loaded, "rounding", tmp_path)


def test_a_study_that_was_not_run_is_said_by_the_missing_file(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "resonance",
        "posgen",
        "collect",
        "smoke",
        "rounding",
        str(tmp_path / "out.parquet"),
    ]
    done = subprocess.run([*command, "--folder", str(ROOT / "config")], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "results/smoke/posgen/runs/released/cot/rope/seed42/eval/rope.parquet is missing; run" in done.stderr
    assert not (tmp_path / "out.parquet").exists()
