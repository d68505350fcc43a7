"""From a printed number back to its rows."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from resonance.cli import app
from resonance.workflow.trace import FIGURE4, RETRIEVAL, TABLE1, told, trace

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "results-published"


def block(name: str, page: str = "results.md") -> list[list[str]]:
    """The rows of a page's table, as cells."""
    page = (ROOT / "docs" / page).read_text(encoding="utf-8")
    text = re.search(rf"<!-- table: {re.escape(name)} -->(.*?)<!-- end -->", page, re.DOTALL)[1]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.count("|") > 2]


def test_every_trained_cell_of_table_1_leads_to_its_rows() -> None:
    rows = [row for row in block("cells table1 paper+P2") if len(row) == 5 and "±" in row[2]]
    assert len(rows) == 12
    for protocol, column in (("paper", 2), ("released", 3), ("paper+P2", 4)):
        for row in rows:
            first = trace(row[column].split("\u00a0")[0], KEPT)[0]
            assert first.study in TABLE1
            assert (first.what["protocol"], first.what["metric"]) == (protocol, "ood_accuracy")
            assert len(first.by_seed) == 5 and first.what["encoding"].replace("_", " ") == row[0].lower()


def test_every_difference_of_table_1_leads_to_its_rows() -> None:
    rows = [row for row in block("pairs table1") if len(row) == 4 and "[" in row[2]]
    assert len(rows) == 6
    for row in rows:
        for column in (2, 3):
            found = trace(row[column].split(" [")[0], KEPT)
            assert any(each.study in TABLE1 and " - " in each.what["encoding"] for each in found), row


def test_a_number_is_told_with_what_made_it() -> None:
    text = told(next(each for each in trace("22.46", KEPT) if each.study in TABLE1))
    assert "paper+beta32, recursive, yarn, ood_accuracy, mean of 5 seeds" in text
    assert "results-published/laptop/table1_paper+beta32.parquet" in text and "snakemake five_seeds" in text
    assert "600 steps" in text and "afterwards, by the config" in text and "filed under paper until" in text


@pytest.mark.parametrize("table", ["fig4_perplexity_stand_in_tiny", "smollm2/fig4_perplexity_stand_in_smollm2"])
def test_every_number_of_figure_4_leads_to_its_rows(table: str) -> None:
    preset, rows = (table.split("/")[0] if "/" in table else "laptop"), block(f"whole {table}", "language-models.md")
    lines = [row for row in rows if len(row) > 6 and re.fullmatch(r"\d+\.\d+", row[2])]
    pairs = [row for row in rows if len(row) == 5 and re.fullmatch(r"[\d.]+", row[0])]
    assert len(lines) >= 4 and len(pairs) >= 20
    for number in {*lines[0][2:-2], lines[-1][-1], *(row[1].strip("*") for row in pairs[::7])}:
        found = [each for each in trace(number, KEPT) if each.study == FIGURE4 and each.preset == preset]
        assert found and "snakemake figure4 --config preset=" in told(found[0]), number


def test_every_share_of_passkeys_leads_to_its_rows() -> None:
    rows = [row for row in block("whole smollm2/passkey_stand_in_smollm2", "language-models.md") if "[" in row[-1]]
    assert len(rows) >= 3
    for name, *shares in rows:
        for length, share in zip(("8192 tokens", "16384 tokens"), shares, strict=True):
            found = [each for each in trace(share.split(" [")[0], KEPT) if each.study == RETRIEVAL]
            mine = [each for each in found if each.what["encoding"].replace("_", " ") == name.lower()]
            assert length in {each.what["length"] for each in mine}, (name, share)
            assert "snakemake passkey --config preset=smollm2" in told(mine[0])


@pytest.mark.parametrize(("number", "said"), [("3.14159", "no mean of"), ("forty", "as a table prints it")])
def test_what_leads_nowhere_is_one_line(number: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trace(number, KEPT)


def test_a_negative_number_is_no_option_of_the_command() -> None:
    done = CliRunner().invoke(app, ["trace", "-11.30"])
    assert done.exit_code == 0 and "resonance_yarn - yarn" in done.output
