"""The command line: parses, calls one function, exits. Every workflow rule is one of these lines.

Bad input ends in one line on stderr and status 2, without a traceback.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from resonance import cli_leval, cli_llm
from resonance import plan as planning
from resonance.plan import posgen as posgen_plan
from resonance.plan import show as plan_show
from resonance.plan.job import DEVICES
from resonance.record import config, files, paths, results, runs
from resonance.record.settings import SettingsError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Resonance RoPE and PosGen."
)
posgen = typer.Typer(no_args_is_help=True, help="The synthetic half: generate, train, evaluate.")
config_app = typer.Typer(no_args_is_help=True, help="The workflow's config.")
app.add_typer(posgen, name="posgen")
app.add_typer(cli_llm.app, name="llm")
app.add_typer(cli_leval.app, name="leval")
app.add_typer(config_app, name="config")

Folder = Annotated[Path, typer.Option(help="The config folder.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads to compute with.")]


@config_app.command("check")
def check(preset: str, folder: Folder = Path("config")) -> None:
    """Validate a preset with the encodings and protocols that it names."""
    loaded = config.load(folder, preset)
    print(f"{preset}: valid; PosGen, what studies share counted in each:")
    for study in loaded.preset.posgen.all_studies:
        cells = loaded.study_cells(study)
        trained = {posgen_plan.training_of(cell) for cell in cells}
        print(f"  {study}: {len(trained)} trainings, {len(cells)} evaluations")


@config_app.command("schema")
def schema(output: Path) -> None:
    """Write the JSON schema of a preset, for editors; generated from resonance.record.config."""
    files.write_json(output, config.Preset.model_json_schema())


@app.command("plan")
def plan(
    preset: Annotated[str, typer.Option(help="A file of the config folder, without .yaml.")] = "laptop",
    study: Annotated[
        list[str], typer.Option(help="Once a study; table1: all that `snakemake` makes; all: every one.")
    ] = ("table1",),
    check: Annotated[Path | None, typer.Option(help="results/PRESET/benchmarks of a run, to compare with.")] = None,
    device: Annotated[str, typer.Option(help=f"What that run ran on: {', '.join(DEVICES)}.")] = "cpu",
    folder: Folder = Path("config"),
) -> None:
    """What a preset costs before it runs: jobs, hours, GPU-hours, memory, disk, by partition and rule. Runs nothing.

    With --check, beside what a run took; status 1 where the prediction is off by more than 30 %.
    """
    loaded = config.load(folder, preset)
    known = list(loaded.preset.posgen.all_studies)
    studies = known if "all" in study else list(dict.fromkeys(study))
    if unknown := [name for name in studies if name not in known]:
        raise SettingsError(f"--study must be one of {', '.join(known)}, all, got {unknown[0]!r}")
    if device not in DEVICES:
        raise SettingsError(f"--device must be one of {', '.join(DEVICES)}, got {device!r}")
    planned = planning.jobs(loaded, studies)
    if check is None:
        plan_show.show(preset, studies, planned)
        return
    compared = plan_show.check(planned, check, DEVICES[device])
    plan_show.show_check(preset, compared, DEVICES[device])
    sys.exit(not 0.7 <= compared[-1].ratio <= 1.3)


@posgen.command("generate")
def generate(settings: Path, output: Annotated[list[Path], typer.Option(help="One file a split.")]) -> None:
    """Draw the prefixes of a task and write its train, validation and test sequences."""
    from resonance.posgen import tasks

    run = runs.read_settings(runs.DataRun, settings)
    data = run.data
    outputs = {path.stem: path for path in output}
    if sorted(outputs) != sorted(tasks.SPLITS):
        raise SettingsError(
            f"output must name {', '.join(f'{s}.parquet' for s in tasks.SPLITS)}, one each, got {sorted(outputs)}"
        )
    rule = tasks.Rule(task=run.task, modulus=data.modulus, j=data.j, k=data.k)
    counts = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
    prefixes = tasks.draw_prefixes(run.prefixes, rule, counts, tasks.prefix_generator(data.seed, run.task))
    for split, path in outputs.items():
        length = data.train_length if split == "train" else data.test_length
        sequences = tasks.generate(rule, prefixes[split], length)
        results.write_sequences(
            path, sequences, {**run.model_dump(), "split": split, "sha256": tasks.digest(sequences)}
        )
        print(f"{path}: {len(sequences)} sequences of {length} tokens, {tasks.digest(sequences)[:12]}")


@posgen.command("baseline")
def baseline(settings: Path, test: Path, protocol: str, output: Path) -> None:
    """Score what needs no training on a task's test split: the best local rule, and chance."""
    from resonance.posgen import tasks
    from resonance.posgen.evaluate import baselines

    run = runs.read_settings(runs.DataRun, settings)
    rule = tasks.Rule(task=run.task, modulus=run.data.modulus, j=run.data.j, k=run.data.k)
    rows = baselines(rule, run.data, results.read_sequences(test))
    named = [{"protocol": protocol, "task": run.task, **row} for row in rows]
    results.write_rows(output, "baseline", named, run.model_dump())


@posgen.command("train")
def train(
    settings: Path,
    encoding: Path,
    train_data: Path,
    validation_data: Path,
    output_folder: Path,
    seed: Annotated[int, typer.Option(min=0)],
    threads: Threads = 1,
    checkpoint_seconds: Annotated[int, typer.Option(min=0, help="Between two checkpoints.")] = 60,
) -> None:
    """Train one decoder: weights, weights of every look, curve and run.json into a folder.

    A killed training, started again, goes on from the last checkpoint in the folder.
    """
    import torch

    from resonance.encoding.ops import implementation
    from resonance.posgen import train as training
    from resonance.posgen.progress import Progress
    from resonance.posgen.step import tune_allocator
    from resonance.record.checkpoint import Checkpoints, save_weights

    watch, made = runs.Stopwatch(), runs.provenance()
    run = runs.read_settings(runs.TrainRun, settings)
    spec = runs.read_encoding(encoding)
    _prepare_torch(torch, run.training.device, run.training.precision, threads)
    tune_allocator()
    files.discard_leftovers(output_folder)
    made_of = run, spec, seed, results.read_sequences(train_data), results.read_sequences(validation_data)
    folder = output_folder / Path(paths.CHECKPOINTS).name
    checkpoints = Checkpoints(folder, training.identity(*made_of), checkpoint_seconds)
    with Progress(f"{run.protocol} {run.task} {encoding.stem} seed {seed}", run.steps) as progress:
        trained = training.train(*made_of, progress.report, checkpoints)
    record = {
        "settings": run.model_dump(mode="json"),
        "train_encoding": encoding.stem,
        "spec": json.loads(spec.to_json()),
        "seed": seed,
        "selected_step": trained.step,
        "resumed_at": trained.resumed_at,
        "threads": threads,
        "compiled": trained.compiled,
        "rotation": "written out, fused by torch.compile" if trained.compiled else implementation(),
        "device": runs.device_name(run.training.device),
        "provenance": made,
        "cost": watch.read(),
    }
    header = {"settings": run.to_json(), "seed": str(seed), "step": str(trained.step)}
    snapshots = {f"{step}/{name}": w for step, kept in trained.snapshots.items() for name, w in kept.items()}
    save_weights(output_folder / Path(paths.SNAPSHOTS).name, snapshots, header)
    save_weights(output_folder / Path(paths.MODEL).name, trained.decoder.state_dict(), header)
    results.write_rows(output_folder / Path(paths.TRAINING).name, "training", trained.rows, record)
    files.write_json(output_folder / Path(paths.RUN).name, record)
    checkpoints.remove()


@posgen.command("evaluate")
def evaluate(
    model: Path,
    encoding: Path,
    settings: Path,
    validation_data: Path,
    test_data: Path,
    output: Path,
    protocol: Annotated[str, typer.Option(help="The protocol to file it under; default: the training's.")] = "",
    threads: Threads = 1,
) -> None:
    """Measure a trained decoder with an encoding, in and out of distribution, position by position."""
    import torch

    from resonance.encoding.ops import implementation
    from resonance.posgen import evaluate as evaluation
    from resonance.posgen.step import tune_allocator
    from resonance.record.checkpoint import load_weights

    watch, made = runs.Stopwatch(), runs.provenance()
    weights, header = load_weights(model)
    flat, _ = load_weights(model.with_name(Path(paths.SNAPSHOTS).name))
    snapshots: dict[int, dict] = {}
    for key, tensor in flat.items():
        step, name = key.split("/", 1)
        snapshots.setdefault(int(step), {})[name] = tensor
    run = runs.TrainRun.model_validate_json(header["settings"])
    spec, seed = runs.read_encoding(encoding), int(header["seed"])
    asked = runs.read_settings(runs.EvaluateRun, settings).evaluation
    _prepare_torch(torch, run.training.device, asked.precision, threads)
    tune_allocator()
    rows = evaluation.evaluate(
        run,
        spec,
        seed,
        weights,
        int(header["step"]),
        snapshots,
        results.read_sequences(validation_data),
        results.read_sequences(test_data),
        asked,
    )
    trained_with = files.read_json(model.with_name(Path(paths.RUN).name))["train_encoding"]
    names = {
        "protocol": protocol or run.protocol,
        "task": run.task,
        "train_encoding": trained_with,
        "encoding": encoding.stem,
        "seed": seed,
    }
    rows = [{**names, **row} for row in rows]
    record = {
        **names,
        "settings": run.model_dump(mode="json"),
        "evaluation": asked.model_dump(mode="json"),
        "spec": json.loads(spec.to_json()),
        "threads": threads,
        "rotation": implementation(),
        "device": runs.device_name(run.training.device),
        "provenance": made,
        "cost": watch.read(),
    }
    results.write_rows(output, "evaluation", rows, record)
    shown = {r["metric"]: r["value"] for r in rows if r["split"] == "test" and r["position"] is None}
    print(" ".join(f"{metric} {shown[metric]:.4f}" for metric in ("in_distribution_accuracy", "ood_accuracy")))


@posgen.command("collect")
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
    folder: Folder = Path("config"),
) -> None:
    """Put the summaries of a study's evaluations, made here, into one file."""
    from resonance.record.study import collect as gather

    only = {"protocol": protocol, "task": task, "encoding": encoding, "seed": seed}
    rows, made = gather(config.load(folder, preset), study, only=only, kept=kept)
    results.write_rows(output, "evaluation", rows, made)
    print(f"{output}: {made['num_evaluations']} evaluations of {study}")


def _prepare_torch(torch, device: str, precision: str, threads: int) -> None:
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "posgen.training.device is cuda, but torch sees no GPU here; run on a machine with one, or choose "
            "a preset for the CPU (PRESET=laptop)"
        )


def main() -> None:
    """The console script: as `app`, with one line for every error that a user can mend."""
    try:
        app()
    except (SettingsError, ValueError, FloatingPointError, FileNotFoundError, PermissionError) as error:
        if os.environ.get("RESONANCE_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(
            f"error: {error.strerror or error}: {error.filename or ''}; nothing half-written is kept", file=sys.stderr
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
