"""What each command of the language models does, from the files it reads to those it writes. One rule of the workflow,
one function. Torch is imported where a function computes with it.
"""

import os
from contextlib import nullcontext
from pathlib import Path

from resonance.llm import paths
from resonance.llm.evaluations import evaluations
from resonance.llm.rows import TRAINING
from resonance.llm.settings import FinetuneRun, ModelRun, TextRun
from resonance.record.encoding import read_encoding
from resonance.record.files import alone, disk_errors, read_record, sums, write_record
from resonance.record.identity import code_of, digest, identity
from resonance.record.journal import Journal, discard
from resonance.record.progress import Progress
from resonance.record.provenance import Stopwatch, device_name, provenance
from resonance.record.rows import write_rows
from resonance.record.settings import SettingsError, read_settings


def pack(settings: Path, folder: Path, base: Path | None, source: Path | None) -> None:
    """Tokenize a text once into memory-mapped tokens and a table of documents."""
    from resonance.llm import text

    run = read_settings(TextRun, settings)
    if run.tokenizer == text.BYTES:
        tokenizer = text.Tokenizer.of_bytes()
    else:
        from resonance.llm.base import Base, tokenizer_of

        if base is None:
            raise SettingsError("--base must be given for a model's own tokenizer, got none")
        tokenizer = tokenizer_of(Base.read(base))
    packed = text.pack(run, tokenizer, folder, source)
    counts = {split: packed.of(split) for split in ("train", "held_out")}
    print(
        f"{folder}: "
        + ", ".join(
            f"{split} {len(rows)} documents, {rows['num_tokens'].sum():,} tokens" for split, rows in counts.items()
        )
    )


def base(settings: Path, output: Path, source: Path | None, text: Path | None, threads: int) -> None:
    """Get a model ready: find it, convert it, or pretrain it. Writes base.json, weights beside it."""
    watch, run = Stopwatch(), read_settings(ModelRun, settings)
    from resonance.llm import models

    made = provenance(models.PACKAGES)
    if run.tiny is None:
        with disk_errors(output):
            models.prepare(run, output, source)  # nothing is computed: no GPU is needed
        return
    torch = models.torch_on(run.device, threads)
    if text is None:
        raise SettingsError("--text must be given to pretrain a tiny model, got none")
    from resonance.encoding.spec import EncodingSpec
    from resonance.hf.swap import describe, swap_rotary
    from resonance.llm import finetune
    from resonance.llm.text import BYTE_BOS, BYTE_EOS, BYTES, Packed, check_tokenizer

    spec = EncodingSpec(method="rope", base=run.rope_base, train_length=run.train_length)
    trained_model = []

    def make() -> object:
        torch.manual_seed(0)  # transformers initialises from the global generator
        model = models.make_tiny(run.tiny, run.train_length, run.rope_base)
        trained_model.append(swap_rotary(model, spec))
        return trained_model[0]

    plan = finetune.pretraining_plan(run.tiny, run.train_length, run.device, run.precision, "pretraining")
    packed, code = Packed(text), code_of(paths.CODE.format(stage="base"), methods=[spec.method])
    check_tokenizer(packed, BYTES, BYTE_BOS, BYTE_EOS)
    with disk_errors(output.parent):
        trained = finetune.train(make, packed, plan, output.parent, made_of={"model": run.to_json()}, code=code)
    found = models.base_of_tiny(run, sum(p.numel() for p in trained_model[0].parameters()))
    record = {
        "settings": run.model_dump(mode="json"),
        "num_tokens": plan.num_tokens,
        "num_parameters": found.num_parameters,
        "text": packed.run,
        "threads": threads,
        "precision": plan.precision,
        **describe(trained_model[0]),
        "device": device_name(run.device),
        "code": code,
        "provenance": made,
        "cost": watch.read(),
    }
    write_rows(output.parent / Path(paths.TRAINING).name, TRAINING, trained.rows, record)
    write_record(output.parent / Path(paths.RUN).name, "pretraining", record)
    found.write(output)


def finetune(
    settings: Path, encoding: Path, base: Path, text: Path, folder: Path, threads: int, checkpoint_every: int
) -> None:
    """Fine-tune a model with an encoding; also under torchrun. A killed one goes on when started again."""
    watch, run, spec = Stopwatch(), read_settings(FinetuneRun, settings), read_encoding(encoding)
    from resonance.llm.models import PACKAGES, Base, load, torch_on

    torch_on(run.device, max(1, threads // int(os.environ.get("WORLD_SIZE", "1"))))
    from resonance.hf.swap import describe
    from resonance.llm import finetune as training
    from resonance.llm.text import Packed, check_tokenizer

    made = provenance(PACKAGES)
    found, packed, kept = Base.read(base), Packed(text), []
    check_tokenizer(packed, found.tokenizer, found.bos, found.eos)

    def make() -> object:
        kept.append(load(found, spec, **run.where(), training=True))
        return kept[0]

    plan = training.finetune_plan(run, f"{run.model} {encoding.stem} {run.strategy}", checkpoint_every)
    code = code_of(paths.CODE.format(stage="finetune"), methods=[spec.method])
    made_of = {"encoding": spec.to_dict(), "base": read_record(base, "base")}
    first = not int(os.environ.get("RANK", "0"))  # torchrun's others share its folder
    with disk_errors(folder), alone(folder) if first else nullcontext():
        trained = training.train(make, packed, plan, folder, made_of=made_of, code=code)
    if not first:
        return
    record = {
        "settings": run.model_dump(mode="json"),
        "source": found.source,
        "base": found.digest,
        "weights": sums(folder / Path(paths.MODEL).name),
        "spec": spec.to_dict(),
        "num_tokens": plan.num_tokens,
        "processes": trained.processes,
        "resumed_at": trained.resumed_at,
        "text": packed.run,
        "threads": threads,
        "precision": plan.precision,
        **describe(kept[0]),
        "device": device_name(run.device),
        "code": code,
        "provenance": made,
        "cost": watch.read(),
    }
    write_rows(folder / Path(paths.TRAINING).name, TRAINING, trained.rows, record)
    write_record(folder / Path(paths.RUN).name, "finetuning", record)


def evaluate(
    name: str,
    settings: Path,
    encoding: Path,
    base: Path,
    strategy: str,
    output: Path,
    texts: dict[str, Path],
    train_text: Path | None,
    model: Path | None,
    threads: int,
) -> None:
    """One of the registered evaluations of a model.

    texts       folders of packed texts by name; none may share a document with train_text
    model       fine-tuned weights in place of the base's
    """
    if texts and train_text is None:
        raise SettingsError("--train-text must be given with --text: no document measured may have been trained on")
    if name not in evaluations():
        raise SettingsError(f"evaluation must be one of {', '.join(evaluations())}, got {name!r}")
    evaluation = evaluations()[name]
    watch, run, spec = Stopwatch(), read_settings(evaluation.run, settings), read_encoding(encoding)
    from resonance.llm.models import PACKAGES, Base, load, made_of, measured, tokenizer_of, torch_on
    from resonance.llm.text import Packed, check_disjoint, check_tokenizer

    torch_on(run.device, threads)
    made = provenance(PACKAGES)
    found, packed = Base.read(base), {text: Packed(folder) for text, folder in texts.items()}
    for text, own in packed.items():
        check_tokenizer(own, found.tokenizer, found.bos, found.eos)
        check_disjoint(Packed(train_text), own, text)
    if model is not None:
        found.check_tuned(model, run.model, strategy, spec.to_dict())
    loaded = load(found, spec, **run.where(), folder=model)
    names = {"model": run.model, "encoding": encoding.stem, "strategy": strategy}
    units = evaluation.units(loaded, tokenizer_of(found), packed, run)
    code = code_of(*paths.evaluate_code(name), methods=[spec.method])
    asked_of = {f"text {text}": [own.run, own.documents["document"].to_list()] for text, own in packed.items()}
    asked_of |= {"run": run.to_json(), **made_of(run, spec, base, model)}
    journals = output.parent / Path(paths.JOURNAL).name
    ours = digest(identity(asked_of, code))
    with alone(journals / ours), Journal(journals / ours / f"{name}.jsonl", ours, ("unit",)) as journal:
        found_units = len(journal.rows)
        with Progress(f"{name} of {run.model}", len(units), found=found_units) as progress:
            for done, (unit, measure) in enumerate(units.items(), start=1):
                if (unit,) not in journal.rows:
                    journal.append({"unit": unit, "rows": measure()})
                    progress.report(done, unit)
        rows = [{**names, **row} for unit in units for row in journal.rows[unit,]["rows"]]
    record = measured(names, run, found, loaded, spec, code, threads, made, watch)
    write_rows(output, evaluation.kind, rows, record | {"units_found": found_units})
    discard(journals, ours)
