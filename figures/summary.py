"""One page of a whole run: every table and figure with its caption, what is a stand-in, times and versions.

Self-contained: pictures are embedded, and the page fetches nothing. What a table or figure is, its caption in
workflow/report/ says: the file named like the beginning of the drawing's own name.
"""

import html
import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import jinja2
import polars as pl
import typer
from docutils.core import publish_parts

from figures import inputs
from resonance.record.files import write_text
from resonance.record.rows import read_run

TITLES = {
    "verdict": "Table 1 at a glance",
    "table1": "Table 1: accuracy past the trained length",
    "fig1": "Figure 1: rotation angles",
    "fig2": "Figure 2: the tasks of PosGen",
    "fig3": "Figure 3: validation loss",
    "shortcuts": "What stands behind Table 1",
    "fig4": "Figure 4: perplexity by length",
    "table2": "Table 2: L-Eval",
    "table2_stand_in": "Table 2, stand-in",
    "passkey": "Passkey retrieval",
}
"""The sections in their order, by caption; others follow under their caption's name."""
STAND_IN = "stand_in_"
"""In the name of a drawing of a model that is not the paper's (resonance.llm.paths)."""
OVERVIEW = "workflow"
"""The caption of the run as a whole."""
_TAG = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_TABLES = re.compile(r"<body>\n(.*)</body>", re.DOTALL)
_SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')


def main(
    output: Annotated[Path, typer.Option(help="The page to write.")],
    preset: inputs.Preset,
    template: Annotated[Path, typer.Option(help="workflow/report/summary.html.j2.")],
    benchmarks: Annotated[Path, typer.Option(help="The folder of Snakemake's benchmarks.")],
    caption: Annotated[list[Path], typer.Option(help="workflow/report/NAME.rst; once a file.")] = (),
    picture: Annotated[list[Path], typer.Option(help="A figure's svg; once a file.")] = (),
    table: Annotated[list[Path], typer.Option(help="A table's html; once a file.")] = (),
    rows: Annotated[list[Path], typer.Option(help="Measured rows, for what made them; once a file.")] = (),
) -> None:
    """Put a run's tables and figures on one page."""
    captions = {path.stem: path.read_text(encoding="utf-8") for path in caption}
    runs = [read_run(path) for path in rows]
    text = template.read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    page = environment.from_string(text).render(
        preset=preset,
        overview=paragraphs(captions.pop(OVERVIEW), preset),
        sections=list(sections([*picture, *table], captions, preset)),
        stand_ins=stand_ins(runs, [*picture, *table]),
        times=times(benchmarks),
        made=made_with(runs),
    )
    write_text(output, page)


def sections(drawings: list[Path], captions: dict[str, str], preset: str) -> Iterator[dict]:
    """Title, caption and the drawings of each caption that has some, pictures first.

    Raises ValueError for a drawing without a caption.
    """
    found: dict[str, list[Path]] = {}
    for path in drawings:
        named = [name for name in captions if path.stem.startswith(name)]
        if not named:
            raise ValueError(f"{path}: no caption is named like it begins; add one to workflow/report/")
        found.setdefault(max(named, key=len), []).append(path)
    for name in [*(name for name in TITLES if name in found), *(name for name in found if name not in TITLES)]:
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        shown = [picture_of(path) if path.suffix == ".svg" else table_of(path) for path in found[name]]
        yield {"name": name, "title": title, "caption": paragraphs(captions[name], preset), "drawings": shown}


def picture_of(path: Path) -> dict:
    """A picture as data, its title, and whether it is too wide for a phone's screen."""
    text = path.read_text(encoding="utf-8")
    width, height = map(float, _SIZE.search(text).groups())
    data = "data:image/svg+xml;base64," + b64encode(text.encode()).decode()
    return {"title": title_of(text), "picture": data, "wide": width > 1.2 * height}


def table_of(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return {"title": title_of(text), "table": _TABLES.search(text)[1]}


def title_of(text: str) -> str:
    """What a page or a picture calls itself."""
    return html.unescape(_TAG.search(text)[1].strip())


def paragraphs(rst: str, preset: str) -> str:
    """A caption of Snakemake's report as HTML; the report gives the same names."""
    told = SimpleNamespace(config={"preset": preset})
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(rst).render(snakemake=told)
    return publish_parts(plain, writer="html5", settings_overrides={"halt_level": 2, "report_level": 2})["body"]


def stand_ins(runs: list[dict], drawings: list[Path]) -> list[str]:
    """What is smaller than the paper's, a sentence each."""
    trained = [run for run in runs if "data" in run.get("settings", {})]
    said = [f"PosGen: {inputs.model_text(trained)}"] if trained else []
    named = sorted({title_of(path.read_text(encoding="utf-8")) for path in drawings if STAND_IN in path.stem})
    if named:
        said.append(f"Another model than the paper's: {'; '.join(named)}.")
    return said


def times(folder: Path) -> list[dict]:
    """Jobs, wall time in all and of the longest, and peak memory, by rule; the slowest first. Each as it ran last."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        job = pl.read_csv(path, separator="\t", null_values=["NA", "-"]).row(0, named=True)
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        found.setdefault(rule, []).append((job["s"], job["max_rss"] or 0))
    rows = []
    for rule, jobs in found.items():
        seconds, memory = zip(*jobs, strict=True)
        peak = f"{max(memory):,.0f}" if any(memory) else "–"
        rows.append((sum(seconds), [rule, str(len(jobs)), clock(sum(seconds)), clock(max(seconds)), peak]))
    return [cells for _, cells in sorted(rows, key=lambda row: -row[0])]


def clock(seconds: float) -> str:
    """h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def made_with(runs: list[dict]) -> list[tuple[str, str]]:
    """Name and values of what made the rows: versions, commits, machines, and from when to when."""
    found: dict[str, set[str]] = {}
    for run in runs:
        made = run["provenance"]
        facts = {"commit": made["commit"] or "not known", "Python": made["python"], "platform": made["platform"]}
        facts |= {"device": run["device"]} if "device" in run else {}  # scores are counted, not computed on one
        for name, value in (facts | made["versions"]).items():
            found.setdefault(name, set()).add(value)
    started = [datetime.fromisoformat(run["provenance"]["started"]) for run in runs]
    between = [("measured", f"{min(started):%Y-%m-%d %H:%M} to {max(started):%Y-%m-%d %H:%M} UTC")] if started else []
    return between + [(name, ", ".join(sorted(values))) for name, values in found.items()]


if __name__ == "__main__":
    inputs.run(main)
