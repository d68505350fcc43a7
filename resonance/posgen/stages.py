"""What each command of PosGen does, from the files it reads to those it writes. One rule of the workflow, one function.

Imports torch where a function computes with it.
"""

import json
import os
from pathlib import Path

import numpy as np

from resonance.posgen import paths
from resonance.posgen.probe_rows import PROBE
from resonance.posgen.rows import BASELINE, EVALUATION, TRAINING
from resonance.posgen.settings import DataRun, EvaluateRun, TrainRun
from resonance.posgen.tasks import SPLITS, Rule, digest, draw_prefixes, prefix_generator
from resonance.posgen.tasks import generate as sequences_of
from resonance.record.encoding import read_encoding
from resonance.record.files import discard_leftovers, read_record, write_record
from resonance.record.identity import code_of, differences, identity
from resonance.record.precision import precision_here
from resonance.record.progress import Progress
from resonance.record.provenance import Stopwatch, device_name, provenance
from resonance.record.rows import read_run, read_sequences, write_rows, write_sequences
from resonance.record.settings import SettingsError, parse, read_settings


def generate(settings: Path, outputs: list[Path]) -> None:
    """Draw the prefixes of a task and write the sequences of every split, a file each."""
    run = read_settings(DataRun, settings)
    data, by_split = run.data, {path.stem: path for path in outputs}
    if sorted(path.stem for path in outputs) != sorted(SPLITS):
        raise SettingsError(
            f"output must name {', '.join(f'{s}.parquet' for s in SPLITS)}, one each, got "
            f"{', '.join(map(str, outputs))}"
        )
    rule = Rule(task=run.task, modulus=data.modulus, j=data.j, k=data.k)
    counts = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
    prefixes = draw_prefixes(run.prefixes, rule, counts, prefix_generator(data.seed, run.task))
    for split, path in by_split.items():
        length = data.train_length if split == "train" else data.test_length
        sequences = sequences_of(rule, prefixes[split], length)
        write_sequences(path, sequences, {**run.model_dump(), "split": split, "sha256": digest(sequences)})
        print(f"{path}: {len(sequences)} sequences of {length} tokens, {digest(sequences)[:12]}")


def baseline(settings: Path, test: Path, protocol: str, output: Path) -> None:
    """Score what needs no training on a task's test split: the best local rule, and chance."""
    from resonance.posgen.evaluate import baselines

    run = read_settings(DataRun, settings)
    rule = Rule(task=run.task, modulus=run.data.modulus, j=run.data.j, k=run.data.k)
    rows = baselines(rule, run.data, read_split(test, "test", **run.model_dump())[0])
    write_rows(output, BASELINE, [{"protocol": protocol, "task": run.task, **row} for row in rows], run.model_dump())


def train(
    settings: Path,
    encoding: Path,
    train_data: Path,
    validation_data: Path,
    folder: Path,
    seed: int,
    threads: int,
    checkpoint_seconds: int,
) -> None:
    """Train one decoder into a folder: weights, weights of every look, curve and run.json."""
    from resonance.encoding.ops import implementation
    from resonance.posgen import train as training
    from resonance.posgen.step import tune_allocator
    from resonance.record.checkpoint import Checkpoints, save_weights

    watch, made = Stopwatch(), provenance()
    run, spec = read_settings(TrainRun, settings), read_encoding(encoding)
    prepare_torch(run.training.device, run.training.precision, threads)
    tune_allocator()
    discard_leftovers(folder)
    asked = {"task": run.task, "data": run.data.model_dump()}
    train_NT, drawn = read_split(train_data, "train", **asked)
    validation_NT, seen = read_split(validation_data, "validation", prefixes=drawn["prefixes"], **asked)
    made_of = run, spec, seed, train_NT, validation_NT
    checkpoints = Checkpoints(folder / paths.CHECKPOINTS_FOLDER, training.identity_of(*made_of), checkpoint_seconds)
    with Progress(f"{run.protocol} {run.task} {encoding.stem} seed {seed}", run.steps) as progress:
        accuracy = float("nan")

        def report(seen: dict) -> None:
            nonlocal accuracy
            accuracy = seen.get("accuracy", accuracy)
            if progress.bar or "accuracy" in seen:  # a log has a line a look
                progress.report(seen["step"], f"loss {seen['loss']:.4f} accuracy {accuracy:.4f}", line=True)

        trained = training.train(*made_of, report, checkpoints)
    about = {
        "settings": run.model_dump(mode="json"),
        "train_encoding": encoding.stem,
        "spec": spec.to_dict(),
        "seed": seed,
        "selected_step": trained.step,
        "validation": seen,
    }
    header = {"run": json.dumps(about, sort_keys=True)}
    record = about | {
        "resumed_at": trained.resumed_at,
        "threads": threads,
        "precision": precision_here(run.training.device, run.training.precision),
        "compiled": trained.compiled,
        "rotation": "written out, fused by torch.compile" if trained.compiled else implementation(),
        "device": device_name(run.training.device),
        "code": code_of(paths.CODE.format(stage="train"), methods=[spec.method]),
        "provenance": made,
        "cost": watch.read(),
    }
    snapshots = {f"{step}/{name}": w for step, kept in trained.snapshots.items() for name, w in kept.items()}
    for kind, tensors in (("snapshots", snapshots), ("model", trained.decoder.state_dict())):
        save_weights(folder / f"{kind}.safetensors", tensors, header | {"kind": kind})
    write_rows(folder / Path(paths.TRAINING).name, TRAINING, trained.rows, record)
    write_record(folder / Path(paths.RUN).name, "training", record)
    checkpoints.remove()


def evaluate(
    model: Path,
    encoding: Path,
    settings: Path,
    validation_data: Path,
    test_data: Path,
    output: Path,
    protocol: str,
    threads: int,
) -> None:
    """Measure a trained decoder with an encoding, in and out of distribution, position by position.

    protocol  the one to file it under; empty: the training's
    """
    from resonance.posgen.evaluate import evaluate as measure

    watch, made = Stopwatch(), provenance()
    run, spec, about, weights, flat, record = _measured(model, encoding, settings, protocol, threads)
    snapshots: dict[int, dict] = {}
    for key, tensor in flat.items():
        step, name = key.split("/", 1)
        snapshots.setdefault(int(step), {})[name] = tensor
    drawn = {name: about["validation"][name] for name in ("task", "prefixes", "data")}
    validation_NT, _ = read_split(validation_data, **about["validation"])
    test_NT, _ = read_split(test_data, "test", **drawn)
    asked = read_settings(EvaluateRun, settings).evaluation
    step = about["selected_step"]
    rows = measure(run, spec, about["seed"], weights, step, snapshots, validation_NT, test_NT, asked)
    rows = [{**{name: record[name] for name in NAMES}, **row} for row in rows]
    record |= {"code": code_of(paths.CODE.format(stage="evaluate"), methods=[spec.method])}
    write_rows(output, EVALUATION, rows, record | {"provenance": made, "cost": watch.read()})
    shown = {r["metric"]: r["value"] for r in rows if r["split"] == "test" and r["position"] is None}
    print(" ".join(f"{metric} {shown[metric]:.4f}" for metric in ("in_distribution_accuracy", "ood_accuracy")))


def probe(
    model: Path, encoding: Path, settings: Path, test_data: Path, output: Path, protocol: str, threads: int
) -> None:
    """Say why a trained decoder fails past L with an encoding: accuracy under masks, aliases, attention by distance.

    protocol  the one to file it under; empty: the training's
    """
    from resonance.posgen.probe import probe as measure

    watch, made = Stopwatch(), provenance()
    run, spec, about, weights, _, record = _measured(model, encoding, settings, protocol, threads)
    drawn = {name: about["validation"][name] for name in ("task", "prefixes", "data")}
    test_NT, _ = read_split(test_data, "test", **drawn)
    asked = read_settings(EvaluateRun, settings).evaluation
    rows = list(measure(run, spec, about["seed"], weights, test_NT, asked))
    rows = [{**{name: record[name] for name in NAMES}, **row} for row in rows]
    record |= {"code": code_of(paths.CODE.format(stage="probe"), methods=[spec.method])}
    write_rows(output, PROBE, rows, record | {"provenance": made, "cost": watch.read()})
    shown = {row["mask"]: row["value"] for row in rows if row["metric"] == "ood_accuracy"}
    print(" ".join(f"{mask} {value:.4f}" for mask, value in shown.items()))


NAMES = ("protocol", "task", "train_encoding", "encoding", "seed")
"""Of an evaluation's cell."""


def _measured(model: Path, encoding: Path, settings: Path, protocol: str, threads: int) -> tuple:
    """What is measured: the trained run, the encoding, what the weights are of, weights, looks, and the record."""
    from resonance.encoding.ops import implementation
    from resonance.posgen.step import tune_allocator

    about, trained, weights, flat = read_trained(model)
    run, spec = parse(TrainRun, about["settings"], str(model)), read_encoding(encoding)
    if encoding.stem == about["train_encoding"]:
        _check({"spec": about["spec"]}, {"spec": spec.to_dict()}, f"{encoding} must be what {model} was trained with")
    asked = read_settings(EvaluateRun, settings).evaluation
    prepare_torch(run.training.device, asked.precision, threads)
    tune_allocator()
    record = {
        "protocol": protocol or run.protocol,
        "task": run.task,
        "train_encoding": trained["train_encoding"],
        "encoding": encoding.stem,
        "seed": about["seed"],
        "settings": run.model_dump(mode="json"),
        "train_spec": trained["spec"],
        "evaluation": asked.model_dump(mode="json"),
        "spec": spec.to_dict(),
        "threads": threads,
        "train_precision": trained["precision"],
        "precision": precision_here(run.training.device, asked.precision),
        "rotation": implementation(),
        "device": device_name(run.training.device),
        "train_code": trained["code"],
    }
    return run, spec, about, weights, flat, record


def read_trained(model: Path) -> tuple[dict, dict, dict, dict]:
    """A training's folder by its model: what its weights are of, run.json, the weights, and those of its looks.

    Raises ValueError where the three files are not of one run.
    """
    from resonance.record.checkpoint import load_weights

    found = {}
    for kind in ("model", "snapshots"):
        path = model if kind == "model" else model.with_name(f"{kind}.safetensors")
        tensors, header = load_weights(path)
        if header.get("kind") != kind:
            raise ValueError(
                f"{path} must hold a training's {kind}, got {header.get('kind', 'other weights')}; name it"
            )
        found[kind] = tensors, json.loads(header["run"]), path
    (weights, about, _), (flat, of_flat, beside) = found.values()
    record = model.with_name(Path(paths.RUN).name)
    trained = read_record(record, "training")
    for theirs, path in ((of_flat, beside), ({name: trained.get(name) for name in about}, record)):
        _check(about, theirs, f"{path} must be of the run of {model}")
    return about, trained, weights, flat


def read_split(path: Path, split: str, **asked: object) -> tuple[np.ndarray, dict]:
    """The sequences of a file, and what made them. Raises ValueError where they are not those that are asked for."""
    x_NT, found = read_sequences(path), read_run(path)
    asked = {"split": split, **asked}
    _check(asked, {name: found.get(name) for name in asked}, f"{path} must hold the sequences asked for")
    if digest(x_NT) != found.get("sha256"):
        raise ValueError(f"{path} is damaged: its digest is not its sequences'; delete it and run the rule again")
    return x_NT, found


def _check(asked: dict, found: dict, rule: str) -> None:
    """Raises ValueError where two runs, or parts of them, differ: by name."""
    if other := differences(identity(asked), identity(found)):
        raise ValueError(f"{rule}, but {'; '.join(other)}; name that run's own file, or run its rule again")


def prepare_torch(device: str, precision: str, threads: int) -> None:
    """torch for a training or an evaluation: threads, precision, and the same bits every time."""
    import torch

    torch.set_num_threads(threads)
    if device == "cuda" or threads > 1:  # else inductor adds up the embedding's gradient in whatever order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
        torch.utils.deterministic.fill_uninitialized_memory = False
    if device == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "posgen.training.device is cuda, but torch sees no GPU here; run on a machine with one, or choose "
            "a preset for the CPU (PRESET=laptop)"
        )
