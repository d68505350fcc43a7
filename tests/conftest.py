"""What several test files need: tiny runs, a copy of config/, and the data that lies outside the repository."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock

from resonance.posgen import tasks
from resonance.posgen.protocol import Protocol
from resonance.posgen.settings import DataSettings, LoopSettings, ModelSettings, TrainChoices, TrainRun
from resonance.record import identity
from resonance.record.settings import parse, read_yaml
from workflow_copy import Edits, copy_of_repository, snakemake

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("RESONANCE_TEST_DATA", ROOT.parent / "shared" / "data"))

torch.set_num_threads(1)


@pytest.fixture
def config_folder(tmp_path: Path) -> Path:
    """A copy of config/ to break."""
    return Path(shutil.copytree(ROOT / "config", tmp_path / "config"))


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    """A copy of the repository in which the smoke preset has run to its end, by one process, a job a core.
    Nobody changes it: tests that edit or run take a copy. Processes that share the tests (pytest-xdist) share it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / "smoke/repository", base / "smoke/done"
    with FileLock(base / "smoke.lock"):
        if not done.exists():
            run = snakemake(copy_of_repository(folder))
            assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
            done.touch()
    return folder


@pytest.fixture(scope="module")
def finished(smoke_run, tmp_path_factory) -> Path:
    """A copy of the smoke preset's run, for the tests of one file to change."""
    return Path(shutil.copytree(smoke_run, tmp_path_factory.mktemp("finished") / "repository", symlinks=True))


@pytest.fixture
def edits(finished):
    """Changes of text in that copy's files, until the end of the test."""
    made = Edits(finished)
    yield made
    made.undo()


@pytest.fixture
def made(tmp_path: Path) -> SimpleNamespace:
    """Synthetic results of PosGen for the scripts of figures/; a test may change what it is given."""
    from posgen_results import write_all  # brings matplotlib: a second that most tests need not wait

    return write_all(tmp_path)


@pytest.fixture(scope="session")
def protocols() -> dict[str, Protocol]:
    return {name: parse(Protocol, fields, name) for name, fields in read_yaml(ROOT / "config/protocols.yaml").items()}


@pytest.fixture(scope="session")
def released_golden() -> dict[str, np.ndarray]:
    """What the released decoder computed at a small size; shared/data/README.md says how it was made."""
    path = DATA / "posgen_released_golden.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def make_run(protocols: dict[str, Protocol]) -> Callable[..., TrainRun]:
    """A TrainRun that trains in well under a second; every setting of every part may be given by name."""

    def make(protocol: str = "paper", task: str = "cot", steps: int = 4, **settings: object) -> TrainRun:
        choices = protocols[protocol].train_choices().model_dump() | {"num_layers": 2}
        data = {
            "modulus": 7, "j": 1, "k": 3, "train_length": 12, "test_length": 24,
            "num_train": 40, "num_validation": 12, "num_test": 12, "seed": 0,
        }  # fmt: skip
        model = {"d_model": 16, "d_ff": 24, "num_heads": 2, "head_dim": 8}
        training = {
            "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 1e-2, "num_looks": 4, "num_snapshots": 4,
            "look_sequences": 6, "precision": "fp32", "device": "cpu", "compile": False,
        }  # fmt: skip
        for part in (choices, data, model, training):
            part.update({name: settings.pop(name) for name in list(settings) if name in part})
        assert not settings, f"no such settings: {settings}"
        return TrainRun(
            protocol=protocol,
            task=task,
            choices=TrainChoices(**choices),
            data=DataSettings(**data),
            model=ModelSettings(**model),
            training=LoopSettings(**training),
            steps=steps,
        )

    return make


@pytest.fixture
def make_sequences() -> Callable[[TrainRun], dict[str, np.ndarray]]:
    """The sequences of a run by split, all of the test length."""

    def make(run: TrainRun) -> dict[str, np.ndarray]:
        data = run.data
        rule = tasks.Rule(task=run.task, modulus=data.modulus, j=data.j, k=data.k)
        counts = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
        prefixes = tasks.draw_prefixes("distinct", rule, counts, tasks.prefix_generator(data.seed, run.task))
        return {split: tasks.generate(rule, rows, data.test_length) for split, rows in prefixes.items()}

    return make


@pytest.fixture
def change_decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Has the source of posgen/decoder.py be another, as far as identities are concerned; again: from the start."""
    text = identity._text

    def forget() -> None:
        for cached in (identity._code_of, identity._read):
            cached.cache_clear()

    def change(old: str, new: str) -> None:
        assert old in text("resonance.posgen.decoder"), f"decoder.py no longer holds {old!r}: mend the test"
        forget()
        monkeypatch.setattr(
            identity,
            "_text",
            lambda module: text(module).replace(old, new) if module == "resonance.posgen.decoder" else text(module),
        )

    yield change
    forget()


@pytest.fixture
def bf16_products(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Has this CPU be one with bfloat16 products, whatever it is, or be none: bf16 computes in fp32 without them."""
    from resonance.record import precision

    def say(known: bool) -> None:
        precision.precision_here.cache_clear()
        monkeypatch.setattr(precision, "has_bf16_products", lambda: known)

    say(True)
    yield say
    precision.precision_here.cache_clear()
