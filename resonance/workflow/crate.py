"""A finished run as a Workflow Run RO-Crate: one zip that an archive takes, and that says what made it.

The workflow, its config and environments go in with the tables, figures and rows of the run, under the paths that they
have here; the action between them has the commit, versions and times that the rows were written with.

https://w3id.org/ro/wfrun/workflow/0.5
"""

import mimetypes
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from resonance.record import paths
from resonance.record.files import replacing
from resonance.record.rows import read_run

PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
DEFINITION = ("workflow/**/*.smk", "workflow/report/*", "config/*.yaml", "envs/*.yaml", "constraints.txt")
"""What the Snakefile reads, beside this package."""
RUN = (f"{paths.TABLES}/*", f"{paths.FIGURES}/*", paths.SUMMARY, f"{paths.RESULTS}/*/**/*.parquet")
SEQUENCES = "posgen/data"
"""What is left out: it is made again by its seed."""
COMPLETED = "http://schema.org/CompletedActionStatus"
LICENSE = "https://spdx.org/licenses/Apache-2.0"
PAPER = "https://arxiv.org/abs/2403.00071"
_FORMATS = {".parquet": "application/vnd.apache.parquet", ".md": "text/markdown", ".tex": "text/x-tex"}


def write(output: Path, preset: str, root: Path = Path()) -> None:
    """A zip of the run of a preset.

    root  the folder of the Snakefile and of results/

    Raises ValueError for a run that has not ended: without its summary, or without rows.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    found = _files(root, [pattern.format(preset=preset) for pattern in RUN])
    made = [path for path in found if f"/{SEQUENCES}/" not in path.as_posix()]
    runs = [run for path in made if path.suffix == ".parquet" and "provenance" in (run := read_run(path))]
    summary = root / paths.SUMMARY.format(preset=preset)
    if not runs or not summary.is_file():
        lacking = f"no {summary.name}" if runs else "no rows"
        raise ValueError(f"{summary.parent} must hold a whole run, got {lacking}; say make reproduce PRESET={preset}")
    crate = ROCrate(version="1.1")  # which the profiles speak of

    def add(path: Path) -> object:
        kind = _FORMATS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
        told = {"name": path.name, "contentSize": str(path.stat().st_size), "encodingFormat": kind}
        return crate.add_file(path, dest_path=path.relative_to(root).as_posix(), properties=told)

    def about(identifier: str, kind: str, **properties: object) -> object:
        return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))

    crate.name = f"Resonance RoPE and PosGen: a run of the preset {preset}"
    crate.description = "Tables and figures of arXiv 2403.00071 as one run of this workflow made them, with its rows."
    crate.license = about(LICENSE, "CreativeWork", name="Apache License 2.0", url=LICENSE)
    crate.root_dataset["conformsTo"] = [about(url, "CreativeWork", name=url, version=url[-3:]) for url in PROFILES]
    crate.root_dataset["citation"] = about(PAPER, "ScholarlyArticle", name="Resonance RoPE", url=PAPER)

    workflow = crate.add_workflow(root / "Snakefile", "Snakefile", main=True, lang="snakemake")
    workflow["license"] = crate.license
    workflow["encodingFormat"] = "text/plain"
    workflow["version"] = ", ".join(sorted({str(run["provenance"]["commit"]) for run in runs}))
    workflow["softwareRequirements"] = [
        about(f"#{name}", "SoftwareApplication", name=name, softwareVersion=found)
        for name, found in _versions(runs).items()
    ]
    workflow["hasPart"] = parts = [add(path) for path in _files(root, DEFINITION)]
    started, ended = _times(runs)
    command = f"snakemake --config preset={preset}"
    crate.root_dataset["mentions"] = about(
        f"#run-{preset}", "CreateAction", name=command, instrument=workflow, actionStatus=COMPLETED,
        description=f"From the start of the first measurement to the end of the last: `{command}`.",
        object=[part for part in parts if part.id.startswith("config/")], result=[add(path) for path in made],
        startTime=started.isoformat(timespec="seconds"), endTime=ended.isoformat(timespec="seconds"),
    )  # fmt: skip
    with replacing(output) as temporary:
        crate.write_zip(temporary)


def _files(root: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})


def _versions(runs: list[dict]) -> dict[str, str]:
    """Of each program that rows name, all that they name."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, version in {"Python": run["provenance"]["python"], **run["provenance"]["versions"]}.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(all_of)) for name, all_of in found.items()}


def _times(runs: list[dict]) -> tuple[datetime, datetime]:
    """When the first of the measurements began, and the last one ended."""
    begun = [datetime.fromisoformat(run["provenance"]["started"]) for run in runs]
    took = [timedelta(seconds=run.get("cost", {}).get("wall_seconds", 0.0)) for run in runs]
    return min(begun), max(start + seconds for start, seconds in zip(begun, took, strict=True))
