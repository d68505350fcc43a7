"""DeepSpeed ZeRO-3 Offload, two processes on a CPU, weights partitioned: killed, resumed, equal; the merged weights
load, and the losses are those of a training without it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("deepspeed")
from llm_cases import TINY, L, make_text, protocols, spec
from resonance.hf.swap import load_pretrained, spec_of, swap_rotary
from resonance.llm import models
from resonance.llm.rows import TRAINING
from resonance.llm.settings import FinetuneChoices, FinetuneLoop, FinetuneRun, ModelRun
from resonance.record.rows import read_rows

ROOT = Path(__file__).resolve().parents[1]
STEPS = 8
pytestmark = pytest.mark.slow


def wide() -> torch.nn.Module:
    """Of d = 512, whose matrices are partitioned: DeepSpeed leaves those of under 100,000 weights whole."""
    torch.manual_seed(0)
    model = models.make_tiny(TINY.model_copy(update={"d_model": 512, "num_heads": 4}), L, 10_000.0)
    return swap_rotary(model, spec("rope", False)).eval()


def settings(**changes: object) -> FinetuneRun:
    asked = FinetuneLoop(
        **{
            "seed": 0, "micro_batch_size": 1, "gradient_checkpointing": True, "deepspeed": "zero3_offload",
            "processes": 2, **changes,
        }
    )  # fmt: skip
    return FinetuneRun(
        choices=protocols()["paper"].choices(FinetuneChoices), model="tiny", strategy="long", length=64, steps=STEPS,
        sequences_per_step=4,
        learning_rate=1e-2, train_length=32, settings=asked, device="cpu", precision="fp32", attention="auto",
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_text(folder)
    wide().save_pretrained(folder / "model")
    run = ModelRun(
        source="train:tiny", train_length=32, rope_base=10_000.0, tiny=None, device="cpu",
        precision="fp32",
    )  # fmt: skip
    models.base_of_tiny(run, 0).write(folder / "base.json")
    (folder / "settings.json").write_text(settings().to_json())
    (folder / "resonance_yarn.json").write_text(spec().to_json())
    return folder


def start(inputs: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [
        "-m",
        "resonance",
        "llm",
        "finetune",
        *(str(inputs / f"{n}.json") for n in ("settings", "resonance_yarn")),
    ]
    command += [str(inputs / "base.json"), str(inputs / "packed"), str(output), "--threads", "2"]
    command += ["--checkpoint-every", "2"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    with (output.parent / f"{output.name}.log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def losses(folder: Path) -> list[float]:
    rows = read_rows(folder / "train.parquet", TRAINING)
    return rows.filter(rows["metric"] == "train_loss")["value"].to_list()


def test_killed_and_resumed_loss_identical(inputs, tmp_path):
    whole = start(inputs, tmp_path / "whole")
    assert whole.wait(timeout=900) == 0, (tmp_path / "whole.log").read_text()[-3000:]
    killed = start(inputs, tmp_path / "killed")
    checkpoints, until = tmp_path / "killed/checkpoints", time.monotonic() + 900
    while not list(checkpoints.glob("checkpoint-*/complete.json")) and killed.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert killed.poll() is None, "the training ended before it could be killed"
    for process in [psutil.Process(killed.pid), *psutil.Process(killed.pid).children(recursive=True)]:
        process.kill()  # torchrun's workers have sessions of their own
    killed.wait()
    assert not (tmp_path / "killed/run.json").exists()
    assert start(inputs, tmp_path / "killed").wait(timeout=900) == 0, (tmp_path / "killed.log").read_text()[-3000:]
    assert "resumed at step" in (tmp_path / "killed.log").read_text()
    first, second = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert len(first) == STEPS and first == second
    merged = [load_pretrained(tmp_path / name / "model") for name in ("whole", "killed")]
    assert all(spec_of(model.config) == spec() for model in merged)
    assert sum(p.numel() for p in merged[0].parameters()) == sum(p.numel() for p in wide().parameters())
    a, b = (model.state_dict() for model in merged)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["model.embed_tokens.weight"], wide().state_dict()["model.embed_tokens.weight"])
    alone = settings(deepspeed="none", processes=1)
    (inputs / "alone.json").write_text(alone.to_json())
    command = [sys.executable, "-m", "resonance", "llm", "finetune", str(inputs / "alone.json")]
    command += [str(inputs / name) for name in ("resonance_yarn.json", "base.json", "packed")]
    subprocess.run([*command, str(tmp_path / "alone"), "--threads", "2"], cwd=ROOT, check=True)
    assert losses(tmp_path / "alone") == pytest.approx(first, abs=1e-2)  # other sums, at a large step
