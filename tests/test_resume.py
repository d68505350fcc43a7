"""Resume: a training that was killed and started again ends bit-equal to one that was not."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from resonance.encoding.spec import EncodingSpec
from resonance.posgen import train as training
from resonance.posgen.rows import TRAINING
from resonance.posgen.settings import TrainRun
from resonance.posgen.tasks import digest
from resonance.posgen.train import Trained, identity_of, train
from resonance.record import rows
from resonance.record.checkpoint import OTHERS, Checkpoints

ROOT = Path(__file__).resolve().parents[1]
SPEC, SEED = EncodingSpec(resonance=True), 3
EVERY_STEP = {"seconds": 0.0, "share": float("inf")}


class Stop(Exception):
    """Stands for a kill where the process may live on."""


@pytest.fixture
def fit(make_sequences, tmp_path) -> Callable[..., Trained]:
    """Train; with stop_at, until just before that step's checkpoint; with keep, from and to checkpoints."""

    def call(run: TrainRun, stop_at: int = 0, keep: bool = True, every: int = 1, folder: str = "c") -> Trained:
        splits = make_sequences(run)
        made_of = run, SPEC, SEED, splits["train"], splits["validation"]
        checkpoints = Checkpoints(tmp_path / folder, identity_of(*made_of), **EVERY_STEP) if keep else None
        asked = 0

        def due() -> bool:
            nonlocal asked
            asked += 1
            return asked % every == 0

        def report(seen: dict) -> None:
            if seen["step"] == stop_at:
                raise Stop

        if checkpoints:
            checkpoints.due = due
        return train(*made_of, report, checkpoints)

    return call


def assert_equal(one: Trained, other: Trained) -> None:
    assert one.step == other.step and one.rows == other.rows
    assert list(one.snapshots) == list(other.snapshots)
    weights = [{"": t.decoder.state_dict(), **t.snapshots} for t in (one, other)]
    for step, kept in weights[0].items():
        assert kept.keys() == weights[1][step].keys()
        for name in kept:
            assert torch.equal(kept[name], weights[1][step][name]), f"{name} at {step or 'the end'}"


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("bf16_products")
def test_stopped_at_every_step_and_gone_on_ends_bit_equal(protocol, precision, make_run, fit, capsys) -> None:
    """17 steps, batches of 8 of 40 sequences: epochs, looks and snapshots fall between the stops."""
    run = make_run(protocol, steps=17, num_looks=6, num_snapshots=3, precision=precision)
    for step in range(2, 18):
        with pytest.raises(Stop):
            fit(run, stop_at=step)
    resumed = fit(run)
    assert resumed.resumed_at == list(range(1, 17))
    assert_equal(resumed, fit(run, keep=False))
    assert "going on from the checkpoint of step 16 of 17" in capsys.readouterr().err


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_how_often_makes_no_difference(every: int, make_run, fit) -> None:
    run = make_run("released", steps=12)
    with pytest.raises(Stop):
        fit(run, stop_at=11, every=every)
    resumed = fit(run, every=every)
    assert resumed.resumed_at == [10 // every * every]
    assert_equal(resumed, fit(run, keep=False))


def test_a_selected_look_without_a_snapshot_survives(make_run, fit, monkeypatch) -> None:
    """P10's best look so far lies in the checkpoint also where Figure 3's curve does not keep it."""

    def look(run, decoder, rotation, x) -> dict:
        accuracy = {2: 0.9}.get(sum(1 for _ in looked), 0.1)
        looked.append(decoder)
        return {"in_distribution_accuracy": accuracy, "in_distribution_loss": 1.0}

    monkeypatch.setattr(training, "_look", look)
    run, looked = make_run("released", steps=12, num_looks=6, num_snapshots=2), []
    expected = fit(run, keep=False)
    looked = []
    with pytest.raises(Stop):
        fit(run, stop_at=9)
    resumed = fit(run)
    assert expected.step == resumed.step == 6 and list(resumed.snapshots) == [6, 12]
    run, looked = make_run("released", steps=12, num_looks=6, num_snapshots=1), []
    expected = fit(run, keep=False)
    looked = []
    with pytest.raises(Stop):
        fit(run, stop_at=9, folder="d")
    resumed = fit(run, folder="d")
    assert resumed.step == 6 and list(resumed.snapshots) == [12]
    assert_equal(resumed, expected)


def test_a_damaged_checkpoint_costs_a_step_and_no_bit(make_run, fit, tmp_path, capsys) -> None:
    run = make_run(steps=9)
    with pytest.raises(Stop):
        fit(run, stop_at=8)
    newest = max((tmp_path / "c").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = fit(run)
    said = capsys.readouterr().err
    assert "checkpoint not used: step000000007.safetensors is damaged" in said
    assert resumed.resumed_at == [6]
    assert_equal(resumed, fit(run, keep=False))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 2e-2}, "training.learning_rate is 0.02 here, 0.01 there"),
        ({"task": "recursive"}, "task is recursive here, cot there"),
        ({"num_train": 41}, "data.num_train is 41 here, 40 there"),
        ({"dropout": 0.2}, "choices.dropout is 0.2 here, 0.1 there"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_training_starts_anew(
    change, said, make_run, fit, capsys
) -> None:
    with pytest.raises(Stop):
        fit(make_run(steps=9), stop_at=8)
    anew = fit(make_run(**{"steps": 9, **change}))
    assert said in capsys.readouterr().err
    assert anew.resumed_at == []
    assert_equal(anew, fit(make_run(**{"steps": 9, **change}), keep=False))


def test_every_part_of_the_identity_counts(make_run, make_sequences, bf16_products, monkeypatch) -> None:
    run = make_run(precision="bf16")
    splits = make_sequences(run)
    made_of = {"run": run, "spec": SPEC, "seed": 0, "train_NT": splits["train"], "validation_NT": splits["validation"]}
    base = identity_of(**made_of)

    def differs(**change: object) -> set[str]:
        other = identity_of(**made_of | change)
        assert base.keys() == other.keys()
        return {name for name in base if base[name] != other[name]}

    assert differs() == set()
    assert differs(seed=1) == {"seed"}
    assert differs(spec=EncodingSpec()) == {"encoding.resonance"}
    assert differs(spec=EncodingSpec(resonance=True, rounding="odd")) == {"encoding.rounding"}
    other = splits["train"].copy()
    other[0, 0] += 1
    assert differs(train_NT=other) == {"train sequences"}
    assert differs(validation_NT=other) == {"validation sequences"}
    bf16_products(False)
    assert differs() == {"precision used"}
    bf16_products(True)
    monkeypatch.setattr(torch, "__version__", "0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(training, "instruction_sets", lambda: "another")
    assert differs() == {"torch", "threads", "processor"}
    monkeypatch.setattr(training, "device_name", lambda device: f"a {device}")
    assert identity_of(**made_of | {"run": make_run(device="cuda")})["processor"] == "a cuda"


def test_a_checkpoint_tells_of_the_method_that_its_encoding_uses_and_of_no_other(make_run, make_sequences) -> None:
    run = make_run()
    splits = make_sequences(run)

    def modules(spec: EncodingSpec) -> set[str]:
        found = identity_of(run, spec, 0, splits["train"], splits["validation"])
        return {name.removeprefix("code ") for name in found if name.startswith("code ")}

    rope, yarn = modules(SPEC), modules(EncodingSpec(method="yarn", train_length=12))
    assert yarn - rope == {"resonance.encoding.methods.yarn"} and rope - yarn == {"resonance.encoding.methods.rope"}
    assert {"resonance.posgen.train", "resonance.posgen.decoder", "resonance.posgen.step"} <= rope


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# written out, since our dropout goes between softmax and values", "# see there\n            # and here"),
        ("Sizes and the two choices that change the arithmetic.", "Sizes."),
        ("RMS_EPSILON = 1e-6", "RMS_EPSILON = 1e-6  # T5's\n"),
    ],
)
def test_a_checkpoint_outlives_other_comments_and_docstrings(old, new, make_run, fit, change_decoder, tmp_path) -> None:
    run = make_run(steps=9)
    with pytest.raises(Stop):
        fit(run, stop_at=8)
    change_decoder(old, new)
    assert fit(run).resumed_at == [7]
    assert not (tmp_path / OTHERS).exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [("RMS_EPSILON = 1e-6", "RMS_EPSILON = 1e-5"), ("self.o(mixed_BHTD.transpose(1, 2)", "self.o(mixed_BHTD.mT")],
)
def test_a_checkpoint_of_other_code_is_kept_aside_and_training_starts_anew(
    old, new, make_run, fit, change_decoder, tmp_path, capsys
) -> None:
    run = make_run(steps=9)
    with pytest.raises(Stop):
        fit(run, stop_at=8)
    before = {path.read_bytes() for path in (tmp_path / "c").iterdir()}
    change_decoder(old, new)
    assert fit(run).resumed_at == []
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(before) == 2
    for line in said:
        assert re.fullmatch(
            r"checkpoint not used, kept as \S+: step00000000\d\.safetensors is of another run: "
            r"code resonance\.posgen\.decoder is [0-9a-f]{8} here, [0-9a-f]{8} there",
            line,
        )
    assert {path.read_bytes() for path in (tmp_path / OTHERS).iterdir()} == before


@pytest.mark.parametrize("deferred", [False, True], ids=["read at once", "read at looks"])
def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    deferred, make_run, fit, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(training, "reads_every_loss", lambda run: not deferred)
    run = make_run(steps=9, num_looks=1, num_snapshots=1)
    good, calls, loss = fit(run, keep=False), 0, training.F.cross_entropy

    def spoiled(*arguments, **options) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return loss(*arguments, **options) * (float("nan") if calls == 6 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(training.F, "cross_entropy", spoiled)
        with pytest.raises(FloatingPointError, match="the loss at step 6 is nan"):
            fit(run)
    assert max((tmp_path / "c").iterdir()).name == "step000000005.safetensors"
    resumed = fit(run)  # the cause gone
    assert resumed.resumed_at == [5]
    assert_equal(resumed, good)


@pytest.mark.usefixtures("bf16_products")
def test_compiled_training_resumes_bit_equal(make_run, fit) -> None:
    run = make_run("released", steps=12, num_layers=1, compile=True, precision="bf16")
    with pytest.raises(Stop):
        fit(run, stop_at=8)
    torch.compiler.reset()
    resumed = fit(run)
    assert resumed.compiled and resumed.resumed_at == [7]
    assert_equal(resumed, fit(run, keep=False))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("compile_it", [False, True])
def test_on_a_gpu_too(compile_it, make_run, fit) -> None:
    """Never run so far."""
    run = make_run("released", steps=18, num_looks=2, num_snapshots=2, device="cuda", compile=compile_it)
    with pytest.raises(Stop):
        fit(run, stop_at=9)  # only looks are reported there
    resumed = fit(run)
    assert resumed.resumed_at == [8]
    assert_equal(resumed, fit(run, keep=False))


# Killed for good


def work(run: TrainRun, splits: dict[str, np.ndarray], folder: Path) -> None:
    """In a process of its own: train with a checkpoint at every step, and leave the outcome."""
    torch.set_num_threads(1)
    made_of = run, SPEC, SEED, splits["train"], splits["validation"]
    trained = train(*made_of, checkpoints=Checkpoints(folder / "checkpoints", identity_of(*made_of), **EVERY_STEP))
    torch.save(trained, folder / "half")
    (folder / "half").rename(folder / "outcome")


def killed_until_done(run: TrainRun, splits: dict[str, np.ndarray], folder: Path, num_kills: int) -> Trained:
    """A training SIGKILLed num_kills times, each at a random moment after it got a step further.

    The processes are forked from one that has torch loaded: a start costs no seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resonance.posgen.train", "test_resume", "torch._dynamo"])
    draw, steps, kills = random.Random(0), [], 0
    while kills < num_kills:
        process = context.Process(target=work, args=(run, splits, folder))
        before = newest_step(folder)
        process.start()
        while newest_step(folder) == before and process.is_alive():
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it could be killed: give it more steps"
        kills += 1
        steps.append(newest_step(folder))
    process = context.Process(target=work, args=(run, splits, folder))
    process.start()
    process.join()
    assert process.exitcode == 0 and steps == sorted(steps) and steps[0] > 0
    return torch.load(folder / "outcome", weights_only=False)


def newest_step(folder: Path) -> int:
    return max((int(path.stem.removeprefix("step")) for path in folder.glob("checkpoints/step*")), default=0)


@pytest.mark.parametrize(
    ("protocol", "num_kills", "compile_it"),
    [
        ("released", 20, False),
        pytest.param("released", 20, True, marks=pytest.mark.slow),
        pytest.param("paper", 20, True, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_points_a_training_ends_bit_equal(
    protocol, num_kills, compile_it, make_run, make_sequences, fit, tmp_path
) -> None:
    run = make_run(
        protocol, steps=40 * num_kills, num_looks=20, num_snapshots=10, compile=compile_it,
        precision="bf16" if compile_it else "fp32",
    )  # fmt: skip
    trained = killed_until_done(run, make_sequences(run), tmp_path, num_kills)
    assert len(trained.resumed_at) == num_kills and trained.compiled is compile_it
    assert_equal(trained, fit(run, keep=False))


def test_a_killed_command_started_again_leaves_the_same_files(make_run, make_sequences, tmp_path) -> None:
    run = make_run("released", steps=600, num_looks=10, num_snapshots=5)
    splits = make_sequences(run)
    (tmp_path / "train.json").write_text(run.to_json())
    (tmp_path / "rope.json").write_text(SPEC.to_json())
    for split in ("train", "validation"):
        about = {"task": run.task, "prefixes": "distinct", "data": run.data.model_dump(), "split": split}
        rows.write_sequences(tmp_path / f"{split}.parquet", splits[split], {**about, "sha256": digest(splits[split])})

    def command(folder: str) -> list[str]:
        return [
            sys.executable, "-m", "resonance", "posgen", "train",
            *(str(tmp_path / name) for name in ("train.json", "rope.json", "train.parquet", "validation.parquet")),
            str(tmp_path / folder), "--seed=3", "--checkpoint-seconds=0",
        ]  # fmt: skip

    whole = subprocess.run(command("whole"), cwd=ROOT, capture_output=True, text=True, check=True)
    assert "going on" not in whole.stderr
    process = subprocess.Popen(command("killed"), cwd=ROOT, stderr=subprocess.DEVNULL)
    while newest_step(tmp_path / "killed") < 100 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    again = subprocess.run(command("killed"), cwd=ROOT, capture_output=True, text=True, check=True)
    assert "going on from the checkpoint of step " in again.stderr
    names = {p.name for p in (tmp_path / "whole").iterdir()}
    assert names == {"model.safetensors", "snapshots.safetensors", "train.parquet", "run.json"}
    assert {p.name for p in (tmp_path / "killed").iterdir()} == names, "no checkpoints and no leftovers"
    curves = [rows.read_rows(tmp_path / folder / "train.parquet", TRAINING) for folder in ("whole", "killed")]
    assert curves[0].equals(curves[1])
    for name in ("model.safetensors", "snapshots.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert json.loads((tmp_path / "whole/run.json").read_text())["resumed_at"] == []
    assert len(json.loads((tmp_path / "killed/run.json").read_text())["resumed_at"]) == 1
