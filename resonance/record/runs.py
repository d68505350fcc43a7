"""Everything one run needs, to and from JSON, and what is written down about it afterwards."""

import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from resonance.encoding.spec import EncodingSpec
from resonance.record.config import Config
from resonance.record.files import read_json
from resonance.record.posgen_settings import DataSettings, EvaluationSettings, LoopSettings, ModelSettings, TaskName
from resonance.record.protocol import TrainChoices
from resonance.record.settings import Settings, parse


class DataRun(Settings):
    """What the sequences of a task depend on, and nothing else."""

    task: TaskName
    prefixes: str
    data: DataSettings


class TrainRun(Settings):
    """What a training depends on beside its encoding, its seed and its sequences."""

    protocol: str
    task: TaskName
    choices: TrainChoices
    data: DataSettings
    model: ModelSettings
    training: LoopSettings
    steps: int

    @property
    def num_layers(self) -> int:
        return self.model.num_layers or self.choices.num_layers

    @property
    def vocab_size(self) -> int:
        return self.data.modulus + self.choices.num_extra_tokens


class EvaluateRun(Settings):
    """What an evaluation depends on beside the trained run and its encoding."""

    evaluation: EvaluationSettings


def data_run(config: Config, protocol: str, task: str) -> DataRun:
    return DataRun(
        task=task, prefixes=config.protocols[protocol].prefixes, data=config.preset.posgen.data.of_task(task)
    )


def train_run(config: Config, protocol: str, task: str) -> TrainRun:
    posgen = config.preset.posgen
    return TrainRun(
        protocol=protocol,
        task=task,
        choices=config.protocols[protocol].train_choices(),
        data=posgen.data.of_task(task),
        model=posgen.model,
        training=LoopSettings(**posgen.training.model_dump(include=set(LoopSettings.model_fields))),
        steps=posgen.steps(protocol, task),
    )


def evaluate_run(config: Config) -> EvaluateRun:
    return EvaluateRun(evaluation=config.preset.posgen.evaluation)


def read_settings(kind: type, path: Path) -> Settings:
    return parse(kind, read_json(path), str(path))


class Stopwatch:
    """Wall time, CPU time and peak memory from its making on."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "wall_seconds": round(time.perf_counter() - self.wall, 3),
            "cpu_seconds": round(time.process_time() - self.cpu, 3),
            "peak_memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1),
        }


def provenance() -> dict:
    """Where and with what a result was made: commit, versions, machine. No host or user names."""
    packages = ("resonance-rope", "torch", "numpy", "polars", "scipy", "safetensors")
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: found for name in packages if (found := _version(name))},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, `+changes` where it is not clean."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def read_encoding(path: Path) -> EncodingSpec:
    """The encoding that a file of the workflow holds."""
    try:
        return EncodingSpec.from_dict(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def device_name(device: str) -> str:
    """The processor or GPU by its maker's name."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
