"""Studies: collected into one file, and drawn: rules of rounding, ablation, shortcuts. Statistics known by hand."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from conftest import ROOT
from figures import ablation, inputs, rounding, shortcuts
from posgen_results import write_study
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.preset import Cell, Posgen
from resonance.posgen.rows import BASELINE, EVALUATION, STUDY
from resonance.record.identity import code_of
from resonance.record.rows import read_rows, read_run, write_rows
from resonance.workflow import cli, study
from resonance.workflow.preset import load

MADE = {
    "model": {"d_model": 16, "d_ff": 32, "num_heads": 2, "head_dim": 64, "num_layers": None},
    "data": {"modulus": 17, "train_length": 64, "test_length": 256, "num_train": 10_000},
    "training": {"batch_size": 32},
}
LAYERS = {"paper": 2, "paper+beta32": 2, "paper+beta32+P5": 6, "paper+P5": 6, "released": 6}
STEPS = {"paper": 600, "paper+beta32": 600, "paper+beta32+P5": 600, "paper+P5": 600, "released": 400}
SEEDS = (1, 2, 3)


def spec(encoding: str) -> dict:
    """By its name: resonance_yarn, rope_half."""
    resonance = encoding.startswith("resonance_")
    method, _, rounding = encoding.removeprefix("resonance_").partition("_")
    fields = {"method": method, "resonance": resonance or bool(rounding), "rounding": rounding or "nearest"}
    return EncodingSpec(**fields, train_length=64).to_dict()


def rows(protocol: str, encoding: str, values: tuple[float, ...], task: str = "cot") -> list[dict]:
    """Summaries of one encoding: its OOD accuracy by seed, everything else alike."""
    found = []
    for seed, value in zip(SEEDS, values, strict=False):
        names = {"protocol": protocol, "task": task, "encoding": encoding, "seed": seed}
        for metric, number in (("ood_accuracy", value), ("in_distribution_accuracy", 0.9)):
            found.append({**names, "metric": metric, "value": number})
    return found


def write(path: Path, *parts: list[dict], specs: dict[str, dict] | None = None, **changes: object) -> Path:
    every = [row for part in parts for row in part]
    settings = {
        (protocol, task): {"protocol": protocol, "task": task, "steps": STEPS[protocol],
                           "choices": {"num_layers": LAYERS[protocol]}} | MADE | changes
        for protocol, task in {(row["protocol"], row["task"]) for row in every}
    }  # fmt: skip
    return write_study(path, every, settings, specs or {row["encoding"]: spec(row["encoding"]) for row in every})


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
    rounding.main(out, "tiny", [path], path.parent / f"{stem}_figure")
    return pl.read_csv(f"{out}.csv")


def test_rules_are_compared_where_nothing_else_differs() -> None:
    plain = {"method": "rope", "resonance": False, "rounding": "nearest", "base": 1e4}
    with pytest.raises(ValueError, match="half and fast must differ in the rule of rounding alone, got another base"):
        rounding.rules_of({"fast": plain | {"base": 5e5}, "half": plain | {"resonance": True, "rounding": "half"}})


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
    more = write(tmp_path / "more.parquet", rows("paper", "rope", (0.4, 0.5)), rows("paper", "rope_half", (0.5, 0.7)))
    rounding.main(tmp_path / "out", "tiny", [rules, more], tmp_path / "figure")
    found = pl.read_csv(tmp_path / "out.csv")
    assert found["protocol"].to_list() == ["paper"] * 2 + ["released"] * 3, "in this order, whichever file is first"
    assert found["num_seeds"].to_list() == [2, 2, 3, 3, 3]
    assert "2 to 3 seeds (1, 2, 3)" in (tmp_path / "out.md").read_text()
    with pytest.raises(ValueError, match="every run must be given once"):
        rounding.main(tmp_path / "out", "tiny", [rules, rules], tmp_path / "figure")
    other = write(tmp_path / "other.parquet", rows("paper", "rope", (0.4,)), model={"d_model": 7})
    with pytest.raises(ValueError, match=r"^files must be of one size of model, got .* and \{'d_model': 7\}"):
        rounding.main(tmp_path / "out", "tiny", [rules, other], tmp_path / "figure")


def test_a_variant_of_yarns_constants_names_yarns_rows_alone(tmp_path: Path) -> None:
    """RoPE under `paper+beta32` is RoPE under `paper`: once, under the plain name. Where the two differ: refused."""
    variant = [("paper+beta32", name, (0.4, 0.5)) for name in ("rope", "rope_half", "yarn")]
    both = [("paper", "rope", (0.4, 0.5)), *variant]
    found = draw_rules(write(tmp_path / "rounding.parquet", *(rows(*each) for each in both)))
    assert found.select("protocol", "method").rows() == [("paper", "rope")] * 2 + [("paper+beta32", "yarn")]
    apart = write(tmp_path / "apart.parquet", *(rows(*each) for each in (("paper", "rope", (0.3, 0.5)), *both[1:])))
    with pytest.raises(ValueError, match="every run must be given once"):
        draw_rules(apart, "apart")


def test_an_ablation_of_yarn_under_a_variant_alone_is_drawn(tmp_path: Path) -> None:
    pair = [rows(protocol, name, (0.4, 0.5)) for protocol in ("paper", "paper+P5") for name in ("yarn", "rope")]
    moved = [{**row, "protocol": row["protocol"].replace("paper", "paper+beta32")} for part in pair for row in part]
    path = write(tmp_path / "ablation.parquet", [row for row in moved if row["encoding"] == "yarn"])
    ablation.main(tmp_path / "out", "tiny", [path], tmp_path / "figure")
    assert "from paper+beta32, one choice of released" in (tmp_path / "out.md").read_text()


def test_rules_are_compared_between_places_that_differ_in_one_thing(tmp_path: Path) -> None:
    names = ("rope", "resonance_rope", "rope_floor", "rope_ceil", "rope_half", "rope_prime")
    gains = (0, 0.05, 0.10, -0.05, 0.02, -0.10)
    parts = [
        rows(protocol, name, (0.5 + sign * gain,) * 3, task)
        for protocol, task, sign in (("paper", "cot", 1), ("released", "cot", 2), ("released", "recursive", -1))
        for name, gain in zip(names, gains, strict=True)
    ]
    draw_rules(write(tmp_path / "s.parquet", *parts))
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


def test_a_rule_is_told_by_what_the_rows_were_made_with_and_not_by_the_config_now(tmp_path: Path) -> None:
    specs = {"rope": spec("rope"), "rope_up": spec("yarn_ceil"), "yarn": spec("yarn")}
    path = write(tmp_path / "s.parquet", *(rows("paper", name, (0.4,)) for name in specs), specs=specs)
    found = draw_rules(path).select("method", "rounding").rows()
    assert found == [("rope", "none"), ("yarn", "none"), ("yarn", "ceil")]


def test_encodings_that_differ_in_neither_method_nor_rule_are_refused(tmp_path: Path) -> None:
    specs = {"rope": spec("rope"), "slow_rope": spec("rope") | {"base": 5e5}}
    path = write(tmp_path / "s.parquet", *(rows("paper", name, (0.4,)) for name in specs), specs=specs)
    with pytest.raises(ValueError, match="the study's encodings must differ in method or rule, got rope, slow_rope"):
        draw_rules(path)


def test_the_sizes_are_those_of_the_rows(rules: Path) -> None:
    draw_rules(rules)
    text = (rules.parent / "out.md").read_text()
    assert "width 16, 2 heads of 64; 6 layers; steps: 400 on CoT" in text
    more = write(
        rules.parent / "more.parquet", rows("paper", "rope", (0.4,)), rows("paper", "rope", (0.4,), "recursive")
    )
    for paths in ([rules, more], [more, rules]):
        assert inputs.sizes_text(inputs.runs_behind(paths)) == (
            "width 16, 2 heads of 64; 2 layers (paper); 6 layers (released); "
            "steps: 600 on Recursive, 600 on CoT (paper); 400 on CoT (released)"
        ), "in this order, whichever file is first"


# Ablation


@pytest.fixture
def flips(tmp_path: Path) -> Path:
    return write(
        tmp_path / "ablation.parquet",
        rows("paper", "rope", (0.60, 0.62, 0.64)),
        rows("paper", "resonance_rope", (0.61, 0.64, 0.67)),
        rows("paper+P5", "rope", (0.50, 0.51, 0.52)),  # 10, 11, 12 points below
        rows("paper+P5", "resonance_rope", (0.61, 0.64, 0.67)),
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
    assert "2 of 2 differences have an interval that excludes zero, 0.1 expected" in text
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
        write_rows(path, EVALUATION, found, {"settings": {"data": {"train_length": 64}}})
        evaluations.append(path)
    baseline = tmp_path / "baseline.parquet"
    write_rows(
        baseline,
        BASELINE,
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


# Collecting


@pytest.fixture
def smoke() -> Posgen:
    return load(ROOT / "config", "smoke").posgen


def run_of(posgen: Posgen, cell: Cell) -> dict:
    """What an evaluation leaves in its file, as `posgen.stages` writes it."""
    train_spec, own = posgen.spec(cell.train_protocol, cell.train_encoding), posgen.spec(cell.protocol, cell.encoding)
    return {
        "settings": posgen.train_run(cell.train_protocol, cell.task).model_dump(mode="json"),
        "train_spec": train_spec.to_dict(),
        "evaluation": posgen.settings.evaluation.model_dump(mode="json"),
        "spec": own.to_dict(),
        "train_code": code_of("resonance.posgen.stages:train", methods=[train_spec.method]),
        "code": code_of("resonance.posgen.stages:evaluate", methods=[own.method]),
        "train_precision": "fp32",
        "precision": "fp32",
        "device": "a processor",
        "threads": 1,
        "provenance": {"commit": "abc", "versions": {"torch": "2"}, "started": f"2026-01-0{cell.seed % 9 + 1}"},
        "cost": {"wall_seconds": cell.seed / 7},
    }


def evaluate_all(posgen: Posgen, name: str, folder: Path, **changes: object) -> None:
    """Evaluations as the workflow would leave them. changes: of their runs, of a mapping a part."""
    for cell in posgen.cells(name):
        names = cell._asdict()
        names.pop("train_protocol")
        place = {**names, "split": "test", "step": 8, "epoch": 1.0}
        found = [{**place, "position": None, "metric": "ood_accuracy", "value": cell.seed / 100}]
        found += [{**place, "position": 4, "metric": "accuracy", "value": 0.5}]
        found += [{**place, "split": "validation", "position": None, "metric": "loss", "value": 2.0}]
        run = run_of(posgen, cell)
        for key, new in changes.items():
            run[key] = run[key] | new if isinstance(new, dict) else new
        write_rows(study.measured_path("smoke", "ablation", cell, folder), EVALUATION, found, run)


def collected(posgen: Posgen, name: str, root: Path, **options: object) -> tuple[list[dict], list[dict]]:
    """The rows, each with what made it in place of its key; and everything that made any."""
    output = root / "collected.parquet"
    study.collect(posgen, "smoke", name, output, root=root, **options)
    made = read_run(output)["made"]
    return [row | {"made": made[row["made"]]} for row in read_rows(output, STUDY).rows(named=True)], [*made.values()]


def test_a_study_is_collected_into_its_summaries_and_what_made_them(smoke: Posgen, tmp_path: Path) -> None:
    evaluate_all(smoke, "rounding", tmp_path)
    said = study.collect(smoke, "smoke", "rounding", tmp_path / "out.parquet", root=tmp_path)
    assert said == f"{tmp_path / 'out.parquet'}: 12 evaluations of rounding"
    rows, run = read_rows(tmp_path / "out.parquet", STUDY), read_run(tmp_path / "out.parquet")
    cells = smoke.cells("rounding")
    assert rows.height == len(cells) == 12
    assert set(rows["metric"]) == {"ood_accuracy"}, "neither positions nor the validation split"
    assert (run["study"], run["preset"]) == ("rounding", "smoke")
    assert set(rows["made"]) == set(run["made"]) and len(run["made"]) == 6, "both seeds were made alike"
    kept = {"settings", "train_spec", "evaluation", "spec", "train_code", "code", "train_precision", "precision"}
    for row, cell in zip(rows.iter_rows(named=True), cells, strict=True):
        names = cell._asdict() | {"step": 8, "metric": "ood_accuracy", "value": cell.seed / 100}
        names.pop("train_protocol")
        assert {name: row[name] for name in names} == names
        own = {key: value for key, value in run_of(smoke, cell).items() if key in kept}
        assert run["made"][row["made"]] == own | {
            "device": "a processor", "threads": 1, "commit": "abc", "versions": {"torch": "2"},
            "recorded": "with the run",
        }  # fmt: skip


def test_a_part_of_a_study_can_be_collected(smoke: Posgen, tmp_path: Path) -> None:
    evaluate_all(smoke, "ablation", tmp_path)
    found, made = collected(smoke, "ablation", tmp_path, only={"protocol": ["paper", "paper+P2"], "seed": []})
    assert {row["protocol"] for row in found} == {"paper", "paper+P2"} and len(found) == 8
    assert {each["settings"]["protocol"] for each in made} == {"paper"}, "paper+P2 measures what paper trained"
    with pytest.raises(ValueError, match="task must name cells of study ablation, got recursive"):
        collected(smoke, "ablation", tmp_path, only={"task": ["recursive"]})
    known = "table1, extended, keyed, rounding, aliases, ablation"
    with pytest.raises(ValueError, match=f"study must be one of {known}, got 'all'"):
        collected(smoke, "all", tmp_path)


def test_every_option_of_collect_takes_its_part(smoke: Posgen, tmp_path: Path, monkeypatch) -> None:
    evaluate_all(smoke, "ablation", tmp_path)
    monkeypatch.chdir(tmp_path)
    cells = smoke.cells("ablation")
    for option, value in (("protocol", "paper+P2"), ("task", "cot"), ("encoding", "yarn"), ("seed", 42)):
        cli.collect("smoke", "ablation", tmp_path / "part.parquet", folder=ROOT / "config", **{option: [value]})
        rows = read_rows(tmp_path / "part.parquet", STUDY)
        wanted = sum(getattr(cell, option) == value for cell in cells)
        assert rows.select("protocol", "encoding", "task", "seed").unique().height == wanted > 0, option


def test_a_study_can_be_run_in_parts_and_collected_with_what_was_kept(smoke: Posgen, tmp_path: Path) -> None:
    here, there, kept = tmp_path / "here", tmp_path / "there", tmp_path / "kept.parquet"
    evaluate_all(smoke, "ablation", there, device="another processor")
    study.collect(smoke, "smoke", "ablation", kept, root=there, only={"protocol": ["paper"]})
    evaluate_all(smoke, "ablation", here)
    for cell in smoke.cells("ablation"):
        if cell.protocol == "paper":
            study.measured_path("smoke", "ablation", cell, here).unlink()
    with pytest.raises(FileNotFoundError, match="is missing; run the workflow"):
        collected(smoke, "ablation", here)
    assert not (here / "collected.parquet").exists()
    found, made = collected(smoke, "ablation", here, kept=kept)
    whole, _ = collected(smoke, "ablation", there)
    assert [row | {"made": 0} for row in found] == [row | {"made": 0} for row in whole]
    assert len(found) == len(smoke.cells("ablation"))
    device = {row["protocol"]: row["made"]["device"] for row in found}
    assert {protocol for protocol, name in device.items() if name == "another processor"} == {"paper"}
    assert {each["device"] for each in made} == {"a processor", "another processor"}
    _, made = collected(smoke, "ablation", here, only={"protocol": ["released"]}, kept=kept)
    assert {each["device"] for each in made} == {"a processor"}, "of what was kept nothing was taken"


def test_what_is_here_goes_before_what_was_kept(smoke: Posgen, tmp_path: Path) -> None:
    evaluate_all(smoke, "rounding", tmp_path, device="another processor", code=[])
    study.collect(smoke, "smoke", "rounding", tmp_path / "kept.parquet", root=tmp_path)
    evaluate_all(smoke, "rounding", tmp_path)
    _, made = collected(smoke, "rounding", tmp_path, kept=tmp_path / "kept.parquet")
    assert {each["device"] for each in made} == {"a processor"}


@pytest.fixture
def kept(smoke: Posgen, tmp_path: Path) -> Path:
    """Table 1, collected before, of evaluations that are no longer here."""
    evaluate_all(smoke, "table1", tmp_path / "there")
    path = tmp_path / "kept.parquet"
    study.collect(smoke, "smoke", "table1", path, root=tmp_path / "there")
    return path


def after(folder: Path, file: str, old: str, new: str) -> Posgen:
    """The preset smoke, with a change of text in its config folder."""
    path = folder / f"{file}.yaml"
    assert old in path.read_text(), f"{path.name} no longer holds {old!r}: mend the test"
    path.write_text(path.read_text().replace(old, new, 1))
    return load(folder, "smoke").posgen


@pytest.mark.parametrize(
    ("file", "old", "new", "cell", "said"),
    [
        ("protocols", "yarn_beta_fast: 2.0", "yarn_beta_fast: 16.0", "yarn on recursive under paper",
         "spec.beta_fast is 16.0 here, 2.0 there; train_spec.beta_fast is 16.0 here, 2.0 there"),
        ("protocols", "dropout: 0.1", "dropout: 0.2", "rope on recursive under paper",
         "settings.choices.dropout is 0.2 here, 0.1 there"),
        ("smoke", "test_sequences: 20", "test_sequences: 19", "rope on recursive under paper",
         "evaluation.test_sequences is 19 here, 20 there"),
    ],
)  # fmt: skip
def test_rows_of_other_settings_are_refused_by_name_kept_ones_and_those_made_here(
    kept: Path, config_folder: Path, tmp_path: Path, file: str, old: str, new: str, cell: str, said: str
) -> None:
    changed, said = after(config_folder, file, old, new), f"must be made as the preset says now, but {said}"
    for any_code in (False, True):
        with pytest.raises(ValueError) as error:
            collected(changed, "table1", tmp_path, kept=kept, any_code=any_code)
        assert str(error.value) == f"{kept}: {cell}, seed 42: {said}"
    with pytest.raises(ValueError, match=re.escape(f".parquet: {said}")):
        collected(changed, "table1", tmp_path / "there")
    assert not (tmp_path / "collected.parquet").exists() and not (tmp_path / "there/collected.parquet").exists()


def test_what_no_result_depends_on_refuses_nothing(kept: Path, config_folder: Path, tmp_path: Path) -> None:
    changed = after(config_folder, "smoke", "checkpoint_seconds: 30", "checkpoint_seconds: 31")
    assert changed.settings.training.checkpoint_seconds == 31
    assert len(collected(changed, "table1", tmp_path, kept=kept)[0]) == len(changed.cells("table1"))
    assert len(collected(changed, "table1", tmp_path / "there")[0]) == len(changed.cells("table1"))


def test_kept_rows_of_other_code_are_refused_unless_any_is_asked_for(
    smoke: Posgen, kept: Path, change_decoder: Callable, tmp_path: Path
) -> None:
    change_decoder("Sizes and the two choices that change the arithmetic.", "Sizes.")
    assert len(collected(smoke, "table1", tmp_path, kept=kept)[0]) == 24
    change_decoder("RMS_EPSILON = 1e-6", "RMS_EPSILON = 1e-5")
    with pytest.raises(ValueError) as error:
        collected(smoke, "table1", tmp_path, kept=kept)
    assert re.fullmatch(
        re.escape(f"{kept}: rope on recursive under paper, seed 42: must be made as the preset says now, but ")
        + r"code resonance\.posgen\.decoder is \w{8} here, \w{8} there; "
        + r"train_code resonance\.posgen\.decoder is \w{8} here, \w{8} there",
        str(error.value),
    )
    found, made = collected(smoke, "table1", tmp_path, kept=kept, any_code=True)
    assert len(found) == 24 and all(each["code"] for each in made), "it still says what made it"
    assert len(collected(smoke, "table1", tmp_path / "there")[0]) == 24, "of what lies here Snakemake asks"


def test_kept_rows_of_which_nobody_knows_the_code_are_refused_unless_any_is_asked_for(
    smoke: Posgen, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(kept)
    for made in run["made"].values():
        made |= {"code": []}
    write_rows(kept, STUDY, read_rows(kept, STUDY).rows(named=True), run)
    with pytest.raises(ValueError, match=r"nobody recorded what code made it \(commit abc\); --any-code takes it"):
        collected(smoke, "table1", tmp_path, kept=kept)
    assert len(collected(smoke, "table1", tmp_path, kept=kept, any_code=True)[0]) == 24
    monkeypatch.chdir(tmp_path)
    options = {"folder": ROOT / "config", "kept": kept}
    with pytest.raises(ValueError, match="nobody recorded"):
        cli.collect("smoke", "table1", tmp_path / "out.parquet", **options)
    cli.collect("smoke", "table1", tmp_path / "out.parquet", any_code=True, **options)


def test_rows_computed_in_another_precision_are_not_mixed_unless_asked_for(
    smoke: Posgen, kept: Path, tmp_path: Path
) -> None:
    run = read_run(kept)
    next(iter(run["made"].values()))["precision"] = "bf16"
    write_rows(kept, STUDY, read_rows(kept, STUDY).rows(named=True), run)
    with pytest.raises(ValueError, match="must be computed in the precision of the rows here"):
        collected(smoke, "table1", tmp_path, kept=kept)
    assert len(collected(smoke, "table1", tmp_path, kept=kept, any_code=True)[0]) == 24


def test_a_study_that_was_not_run_is_said_by_the_missing_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "resonance", "collect", "smoke", "rounding", str(tmp_path / "out.parquet")]
    done = subprocess.run([*command, "--folder", str(ROOT / "config")], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "results/smoke/posgen/runs/released/cot/rope/seed42/eval/rope.parquet is missing; run" in done.stderr
    assert not (tmp_path / "out.parquet").exists()
