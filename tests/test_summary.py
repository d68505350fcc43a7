"""The page of a whole run: complete, in order, self-contained, and readable on a phone."""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Template
from matplotlib.figure import Figure

from figures import style, summary
from posgen_results import LARGE, ROOT, SMALL
from resonance.posgen.rows import EVALUATION
from resonance.record.rows import write_rows
from resonance.record.tables import Table, write_tables

REPORT = ROOT / "workflow/report"
REQUIRED = "browser" in os.environ.get("RESONANCE_TEST_REQUIRE", "").split(",")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDE = Table("wide", "As wide as Table 1.", ["", *["a long title"] * 12], [("A & B", [["RoPE", *["12.34"] * 12]])], "")
SECOND = "s\th:m:s\tmax_rss\n{}\t0:00:01\t{}\n"


def write_run(folder: Path, sizes: dict, versions: dict, started: str) -> Path:
    run = {
        "settings": {"protocol": "paper", "task": "cot", "choices": {"num_layers": 2}, **sizes}, "device": "a CPU",
        "provenance": {"commit": None, "python": "3.11.7", "platform": "Linux", "versions": versions,
                       "started": started},
    }  # fmt: skip
    path = folder / f"{started[:10]}.parquet"
    write_rows(path, EVALUATION, [], run)
    return path


@pytest.fixture
def given(tmp_path: Path) -> dict:
    """What a run with one table and three figures gives the script, one of them with a caption of its own."""
    for stem in ("fig2_dependencies", "verdict", "line_paper"):
        figure = Figure(figsize=(4, 2))
        figure.subplots().plot([0, 1])
        style.save(figure, tmp_path / stem, f"{stem} <title>")
    write_tables(tmp_path / "table1_paper", "Table 1, protocol paper", [WIDE])
    (tmp_path / "line.rst").write_text("A *line*.\n")
    for name, seconds, memory in (("a/1", 10, 100), ("a/2", 30, 50), ("b", 3725.4, "NA")):
        path = tmp_path / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECOND.format(seconds, memory))
    return {
        "output": tmp_path / "summary.html", "preset": "smoke", "template": REPORT / "summary.html.j2",
        "benchmarks": tmp_path / "benchmarks", "caption": [*REPORT.glob("*.rst"), tmp_path / "line.rst"],
        "picture": sorted(tmp_path.glob("*.svg")), "table": [tmp_path / "table1_paper.html"],
        "rows": [write_run(tmp_path, SMALL, {"torch": "2.13.0"}, "2026-01-02T03:04:05Z"),
                 write_run(tmp_path, SMALL, {"torch": "2.14.0"}, "2026-01-01T03:04:05Z")],
    }  # fmt: skip


def test_it_is_complete_in_order_and_fetches_nothing(given: dict) -> None:
    summary.main(**given)
    whole = given["output"].read_text(encoding="utf-8")
    pictures = re.compile(r"data:image/svg\+xml;base64,[^\"]+")
    page = pictures.sub("#", whole)  # short: pytest shows what does not hold
    titles = [
        "Table 1 at a glance",
        "Table 1: accuracy past the trained length",
        "Figure 2: the tasks of PosGen",
        "Line",
    ]
    assert re.findall(r"<h2 id=.*?>(.*?)</h2>", page)[:4] == titles
    assert "<p>A <em>line</em>.</p>" in page and "A &amp; B" in page and "line_paper &lt;title&gt;" in page
    assert len(pictures.findall(whole)) == 3
    assert [link for link in re.findall(r'(?:src|href)="(.*?)"', page) if not link.startswith("#")] == [
        "report.html", "tables/", "figures/",
    ]  # fmt: skip
    assert not re.search(r"@import|url\(|<script|<link", page)
    assert "reproduced with preset" in page and "snakemake." not in page


def test_a_drawing_without_a_caption_is_refused(given: dict) -> None:
    given["caption"] = [path for path in given["caption"] if path.stem != "line"]
    with pytest.raises(ValueError, match=r"line_paper.svg: no caption .* add one to workflow/report/"):
        summary.main(**given)


def test_the_report_of_a_part_links_to_nothing_that_it_lacks() -> None:
    """`snakemake aliases --report` had an error message of docutils on its first page."""
    text = Template((REPORT / "workflow.rst").read_text(encoding="utf-8"))
    for target, linked in (("verdict.png", True), ("aliases.png", False)):
        said = text.render(files=[SimpleNamespace(target=target)], snakemake=SimpleNamespace(config={}))
        assert ("verdict.png_" in said) is linked


def test_times_and_versions_are_those_of_the_run(given: dict) -> None:
    summary.main(**given)
    assert summary.times(given["benchmarks"]) == [
        ["b", "1", "1:02:05", "1:02:05", "–"], ["a", "2", "0:00:40", "0:00:30", "100"],
    ]  # fmt: skip
    page = given["output"].read_text(encoding="utf-8")
    for name, value in {
        "measured": "2026-01-01 03:04 to 2026-01-02 03:04 UTC", "torch": "2.13.0, 2.14.0", "commit": "not known",
    }.items():  # fmt: skip
        assert f"<td>{name}</td><td>{value}</td>" in page


@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "the paper's"])
def test_it_says_what_is_a_stand_in(given: dict, tmp_path: Path, sizes: dict) -> None:
    given["rows"] = [write_run(tmp_path, sizes, {}, "2026-01-03T03:04:05Z")]
    summary.main(**given)
    said = given["output"].read_text(encoding="utf-8").split('id="stand-ins"')[1]
    assert ("small stand-in for the paper" in said) == (sizes is SMALL)
    assert "Another model than the paper" not in said
    shutil.copy(tmp_path / "verdict.svg", tmp_path / "fig4_perplexity_stand_in_tiny.svg")
    given["picture"].append(tmp_path / "fig4_perplexity_stand_in_tiny.svg")
    summary.main(**given)
    assert "Another model than the paper&#39;s: verdict &lt;title&gt;." in given["output"].read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="needs Chromium")
def test_it_fits_a_phone(given: dict, tmp_path: Path) -> None:
    """Wide tables and pictures scroll by themselves; the page does not."""
    summary.main(**given)
    measured = 'f.contentDocument.documentElement.scrollWidth+" "+f.contentDocument.querySelector("table").offsetWidth'
    inside = html.escape(given["output"].read_text(encoding="utf-8"))
    (tmp_path / "phone.html").write_text(
        f'<iframe id="f" style="border:0;width:390px;height:800px" onload=\'document.title={measured}\' '
        f'srcdoc="{inside}"></iframe>',
        encoding="utf-8",
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}"]
    shown = subprocess.run(
        [*command, "--dump-dom", f"file://{tmp_path}/phone.html"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    page, table = map(int, re.search(r"<title>(\d+) (\d+)</title>", shown.stdout).groups())
    assert page <= 390 < table
