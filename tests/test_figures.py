"""The figures' scripts on tiny synthetic results, what all scripts share, and their command lines."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from figures import fig1_rotation_angles, fig2_dependencies, fig3_validation_loss, inputs, style
from posgen_results import ROOT, make_figure3, make_table, write_evaluation
from resonance.encoding.frequencies import frequency_table
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.tasks import PAPER_TASKS, Rule
from resonance.record import tables


def test_figure1_measures_the_gap() -> None:
    positions = np.arange(128)
    rope, resonance = (frequency_table(EncodingSpec(resonance=r), 64) for r in (False, True))
    angle = fig1_rotation_angles.angles(resonance, 6, positions)
    assert fig1_rotation_angles.largest_gap(angle[:64], angle[64:]) == 0
    angle = fig1_rotation_angles.angles(rope, 6, positions)
    gap = fig1_rotation_angles.largest_gap(angle[:64], angle[64:])
    assert gap == pytest.approx(rope.theta[6] * abs(2 * rope.wavelength[6] - 71), rel=1e-9)  # a third of a step


def test_largest_gap_goes_around_the_circle() -> None:
    assert fig1_rotation_angles.largest_gap(np.array([0.1]), np.array([2 * np.pi - 0.1])) == pytest.approx(0.2)


def test_figure2_writes_the_sum_out() -> None:
    rule = Rule(task="cot", modulus=7, j=1, k=3)
    tokens = np.array([3, 0, 0, 0, 0, 0, 0, 0, 1, 5, 2, 4])
    assert "3 + 1 + 5 + 2 = 11 \\equiv 4" in fig2_dependencies.written_out(rule, tokens)


def test_figure2_shows_three_different_tokens_without_zeros() -> None:
    shown = set()
    for task in PAPER_TASKS:
        rule = Rule(task=task, modulus=fig2_dependencies.MODULUS, j=1, k=3)
        tokens = fig2_dependencies.generate(rule, np.array([fig2_dependencies.PREFIX]), 12)[0]
        assert tokens[rule.dependencies(11)].all()
        shown.add(int(tokens[11]))
    assert len(shown) == 3


def test_figure3_averages_over_seeds(made: SimpleNamespace) -> None:
    losses = inputs.read_evaluations(made.evaluations, "paper", "validation")
    curve = fig3_validation_loss.curves_of(losses).filter(task="cot", encoding="rope")
    assert curve.select("epoch", "mean", "lowest", "highest", "num_seeds").rows() == [
        (1.0, 2.0, 1.0, 3.0, 3), (2.0, 1.0, 0.5, 1.5, 3)
    ]  # fmt: skip


def test_figure3_refuses_seeds_looked_at_unlike(made: SimpleNamespace) -> None:
    made.evaluations.append(write_evaluation(made.folder, "cot", "rope", 9, 0.5, epochs=(1.0, 3.0)))
    with pytest.raises(ValueError, match=r"seeds of rope on cot .* same epochs"):
        make_figure3(made)


@pytest.mark.parametrize("script", ["fig1", "fig2", "fig3", "table1"])
def test_the_same_input_gives_the_same_bytes(script: str, made: SimpleNamespace) -> None:
    def render(stem: str) -> dict[str, bytes]:
        if script == "table1":
            make_table(made, stem)
        elif script == "fig3":
            make_figure3(made, stem)
        else:
            main = {"fig1": fig1_rotation_angles, "fig2": fig2_dependencies}[script].main
            main(output=made.folder / stem, preset="laptop")
        return {p.name.removeprefix(stem): p.read_bytes() for p in made.folder.glob(f"{stem}*")}

    first = render("first")
    made.evaluations.reverse()
    made.baselines.reverse()
    assert render("again") == first
    suffixes = {".csv", "_pairs.csv", ".md", ".tex", ".html"} if script == "table1" else {".pdf", ".svg", ".png"}
    assert set(first) == suffixes


def test_each_format_escapes_what_it_must() -> None:
    table = tables.Table("x", "50% of a_b & c", ["", "<n>"], [("g|h", [["p#", "−1 ± 2²"]])], "~")
    assert "50\\% of a\\_b \\& c \\textasciitilde{}" in tables.latex([table])
    assert "p\\# & $-$1 $\\pm$ 2$^2$ \\\\" in tables.latex([table])
    assert "<th>&lt;n&gt;</th>" in tables.page("x", [table])
    assert "| **g\\|h** |  |" in tables.markdown([table])


def test_names_are_shown_as_readers_know_them() -> None:
    assert style.encoding_title("resonance_dynamic_ntk") == "Resonance Dynamic NTK"
    assert style.encoding_title("linear") == "Linear (PI)"
    assert style.encoding_title("resonance_my_method") == "Resonance my method"
    assert style.task_title("semi_recursive") == "Semi-recursive"
    assert style.task_title("cot_table") == "Cot table"
    assert style.in_order({"own", "semi_recursive", "cot"}) == ["cot", "semi_recursive", "own"]
    assert style.encodings_in_order({"own", "resonance_rope", "yarn", "rope"}) == [
        "rope",
        "resonance_rope",
        "yarn",
        "own",
    ]


def test_a_pair_shares_its_hue_and_differs_in_its_line() -> None:
    plain, resonance = style.line("yarn"), style.line("resonance_yarn")
    assert plain["linestyle"] != resonance["linestyle"] and plain["color"] != resonance["color"]
    assert np.argsort(plain["color"]).tolist() == np.argsort(resonance["color"]).tolist()


# Bad input


@pytest.mark.parametrize("make", [make_table, make_figure3])
def test_protocols_are_never_mixed(make, made: SimpleNamespace) -> None:
    other = write_evaluation(made.folder, "cot", "rope", 1, 0.5, protocol="released")
    with pytest.raises(ValueError, match="must all be of protocol paper, got paper, released"):
        make(made, evaluation=[*made.evaluations, other])


# The command line


def command(script: str, *arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", f"figures.{script}", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_bad_input_ends_in_one_line_and_status_2(tmp_path: Path) -> None:
    shared = ("fig3_validation_loss", "--output", tmp_path / "f", "--preset", "smoke", "--protocol", "paper")
    for more, said in (((), "must name at least one file"), (("--evaluation", tmp_path / "no.parquet"), "no.parquet")):
        done = command(*shared, *more)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr
    assert list(tmp_path.iterdir()) == []
