"""The commands of the preset as a whole: `resonance config ...`, `plan` and `collect`. Parses, calls, exits."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from resonance.record import paths
from resonance.record.files import write_json
from resonance.record.job import DEVICES
from resonance.record.settings import SettingsError
from resonance.workflow import crate as crates
from resonance.workflow import plan as planning
from resonance.workflow import study as studies
from resonance.workflow import trace as tracing
from resonance.workflow.preset import Preset, did_you_mean, load

app = typer.Typer(no_args_is_help=True, help="The workflow's config.")

Folder = Annotated[Path, typer.Option(help="The config folder.")]


@app.command("check")
def check(preset: str, folder: Folder = Path("config")) -> None:
    """Validate a preset with the encodings and protocols that it names."""
    posgen = load(folder, preset).posgen
    print(f"{preset}: valid; PosGen, what studies share counted in each:")
    for study in posgen.settings.all_studies:
        print(f"  {study}: {len(posgen.trainings(study))} trainings, {len(posgen.cells(study))} evaluations")


@app.command("schema")
def schema(output: Path) -> None:
    """Write the JSON schema of a preset, for editors; generated from resonance.workflow.preset."""
    write_json(output, Preset.model_json_schema())


def plan(
    preset: Annotated[str, typer.Option(help="A file of the config folder, without .yaml.")] = "laptop",
    target: Annotated[list[str], typer.Option(help="A target of the Snakefile, as ablation; once a target.")] = (
        "all",
    ),
    brief: Annotated[bool, typer.Option(help="Only what a run from here takes, in three lines.")] = False,
    check: Annotated[bool, typer.Option(help="Compare with the benchmarks of a run of this preset.")] = False,
    device: Annotated[str, typer.Option(help=f"What that run ran on: {', '.join(DEVICES)}.")] = "cpu",
) -> None:
    """What a preset costs before it runs: jobs, hours, GPU-hours, memory, disk, by partition and rule. Runs nothing.

    With --brief, only what is left to do.

    With --check, beside what a run took; status 1 where the prediction is off by more than 30 %.
    """
    if device not in DEVICES:
        raise SettingsError(
            f"--device must be one of {', '.join(DEVICES)}, got {device!r}{did_you_mean(device, DEVICES)}"
        )
    if brief and check:
        raise SettingsError("--brief and --check must be asked one at a time: what is left, and what a run took")
    targets = list(dict.fromkeys(target))
    config = load(planning.ROOT / "config", preset)
    if brief:
        planning.show_brief(preset, planning.jobs(config, targets, remaining=True))
    elif check:
        compared = planning.check(planning.jobs(config, targets), DEVICES[device])
        planning.show_check(preset, compared, DEVICES[device])
        sys.exit(not 0.7 <= compared[-1].ratio <= 1.3)
    else:
        planning.show(preset, targets, planning.jobs(config, targets))


def collect(
    preset: str,
    study: str,
    output: Path,
    protocol: Annotated[list[str], typer.Option(help="Only this one; once a protocol.")] = (),
    task: Annotated[list[str], typer.Option(help="Only this one; once a task.")] = (),
    encoding: Annotated[list[str], typer.Option(help="Only this one; once an encoding.")] = (),
    seed: Annotated[list[int], typer.Option(help="Only this one; once a seed.")] = (),
    kept: Annotated[
        Path | None, typer.Option(help="One collected before: what was not made here is taken of it.")
    ] = None,
    any_code: Annotated[bool, typer.Option(help="Take kept rows that other code made, or nobody knows which.")] = False,
    folder: Folder = Path("config"),
) -> None:
    """Put the summaries of a PosGen study's evaluations into one file, each with what made it."""
    only = {"protocol": protocol, "task": task, "encoding": encoding, "seed": seed}
    posgen = load(folder, preset).posgen
    print(studies.collect(posgen, preset, study, output, only=only, kept=kept, any_code=any_code))


def trace(
    number: Annotated[str, typer.Argument(help="As a page or a table prints it: 44.81.")],
    rows: Annotated[Path, typer.Option(help="The folder of kept rows.")] = Path("results-published"),
    most: Annotated[int, typer.Option(min=1, help="How many of the means that print so are shown.")] = 5,
) -> None:
    """Lead from a number in the docs to the kept rows behind it: seeds, settings, commit, and the command again."""
    found = tracing.trace(number, rows)
    print("\n\n".join(tracing.told(each) for each in found[:most]))
    if len(found) > most:
        print(f"\n{len(found) - most} more print so; --most {len(found)} shows them, more decimals tell them apart")


def crate(
    preset: Annotated[str, typer.Option(help="Whose run, under results/ here.")] = "laptop",
    output: Annotated[Path | None, typer.Option(help="The zip; left out: results/PRESET/PRESET.crate.zip.")] = None,
) -> None:
    """Pack a finished run as a Workflow Run RO-Crate: tables, figures, rows, and what made them."""
    output = output or Path(paths.CRATE.format(preset=preset))
    crates.write(output, preset)
    print(f"{output}: the run as an archive takes it (Workflow Run RO-Crate)")
