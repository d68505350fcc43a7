"""What is written down about a run beside its settings: where, when and with what it was made, and what it took."""

import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("resonance-rope", "torch", "numpy", "polars", "scipy", "safetensors")


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


def provenance(more: Iterable[str] = ()) -> dict:
    """Where and with what a result was made: commit, versions (of `more` packages too), machine. No host or user
    names."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: found for name in (*PACKAGES, *more) if (found := _version(name))},
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


def device_name(device: str) -> str:
    """The processor or GPU by its maker's name."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return _cpu("model name") or platform.processor() or platform.machine()


def cuda_versions() -> str:
    """Which CUDA torch was built for, and the driver here: a GPU is mostly not seen since the driver is too old."""
    import torch

    built = torch.version.cuda
    torch_is = f"torch {torch.__version__.partition('+')[0]} is built " + (
        f"for CUDA {built}" if built else "without CUDA"
    )
    needed = {"13": "580", "12": "525"}.get((built or "").partition(".")[0])
    said = f"{torch_is}, whose driver is {needed} or later" if needed else torch_is
    return f"{said}; the driver here is {driver_version() or 'none'}"


def driver_version() -> str | None:
    """NVIDIA's, as the kernel module says it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    return found and found[0]


def instruction_sets() -> str:
    """Those of the processor on which the bits of a matrix product depend; a name alone does not tell them."""
    kept = [flag for flag in _cpu("flags").split() if flag.startswith(("avx", "amx", "fma"))]
    return " ".join([platform.machine(), *sorted(kept)])


def bits_depend_on(device: str) -> str:
    """What of a device tells whether another gives the same bits."""
    return device_name(device) if device == "cuda" else instruction_sets()


def _cpu(name: str) -> str:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
