"""One job of the workflow as the plan sees it: what it asks a scheduler for, and the devices that it may run on.

A model of four numbers a device: how fast it multiplies matrices, what an element of an activation
costs, what a job costs before its first step, how many jobs run side by side. Those of the CPU are fitted
to runs of the laptop preset and compared with them by `--check`; those of GPUs are estimates from data
sheets and say so.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import Field

from resonance.record.settings import Count, Settings


class RuleResources(Settings):
    """What one job of a rule asks of a scheduler."""

    threads: Count
    """Cores."""
    mem_mb: Count
    """Memory in MB."""
    runtime: Count
    """Minutes."""
    gpu: int = Field(ge=0)
    """GPUs."""


class Resources(Settings):
    """Resources by kind of rule."""

    data: RuleResources
    train: RuleResources
    evaluate: RuleResources
    render: RuleResources
    llm_train: RuleResources | None = None
    """Of one pretraining or fine-tuning; left out: as `train`."""
    llm_evaluate: RuleResources | None = None
    """Of one evaluation of a language model, or its answers to L-Eval; left out: as `evaluate`."""

    def of(self, kind: str) -> RuleResources:
        """Those of a kind of rule."""
        return getattr(self, kind) or getattr(self, kind.removeprefix("llm_"))


@dataclass(frozen=True)
class Device:
    """products: FLOP/s of matrix products by precision; element: seconds for one element of an
    activation in compiled forward and backward; lanes: jobs side by side; start: seconds that a job
    takes on top of a CPU's before its first step."""

    name: str
    products: dict[str, float]
    element: float
    lanes: int
    start: float
    measured: bool
    attention: float | None = None
    """FLOP/s of attention in long windows, where it is slower than other products."""
    bandwidth: float = math.inf
    """Bytes/s of its memory, where a token at a time waits for it alone; a CPU's decoding is measured as it is."""


def _from_data_sheet(name: str, tf32: float, bf16: float, fp32: float, bandwidth: float) -> Device:
    """Peaks in TFLOP/s and TB/s: 40 % of the products', and 12 bytes an element at 80 % of the memory's."""
    products = {"tf32": 0.4e12 * tf32, "bf16": 0.4e12 * bf16, "fp32": 0.4e12 * fp32}
    reads = 0.8e12 * bandwidth
    return Device(name, products, 12 / reads, lanes=1, start=10.0, measured=False, bandwidth=reads)


CPU = "cpu"
DEVICES = {
    # An Intel Xeon with AMX, a core each.
    CPU: Device("2 CPU cores", {"bf16": 1.2e12, "fp32": 0.14e12}, 2.8e-9, 2, 0.0, True, attention=0.185e12),
    "a100": _from_data_sheet("A100 80 GB", 156, 312, 19.5, 2.0),
    "h100": _from_data_sheet("H100 SXM", 495, 989, 67, 3.35),
}


@dataclass(frozen=True)
class Work:
    """What the arithmetic of a job is: FLOP of matrix products, elements of activations (in those of
    compiled forward and backward), how many of the FLOP are attention's in long windows, and bytes that
    are read a token at a time: decoding reads all weights and keys for every token of a batch."""

    flop: float
    elements: float
    attention: float = 0.0
    traffic: float = 0.0


NOTHING = Work(0, 0)


@dataclass(frozen=True)
class Job:
    """One job. Memory and disk in MB, of a GPU `device_memory`, `scratch` disk only while it runs."""

    rule: str
    wildcards: Mapping[str, str]
    asks: RuleResources
    """What the workflow asks a scheduler for; with a GPU among it, the job is of the GPU partition."""
    benchmark: str = ""
    """Where Snakemake writes what it took."""
    work: Work = NOTHING
    precision: str = "fp32"
    start: float = 0.0
    """Seconds before its first step."""
    memory: float = 0.0
    disk: float = 0.0
    scratch: float = 0.0
    device_memory: float = 0.0
    processes: int = 1
    """Devices that share its work."""
    slowdown: float = 1.0
    """What its work takes in place of the device's own time, where it waits for something else."""
    computes: bool = False
    """Whether a device speeds it up; the others take `start` on a core everywhere."""
    only_gpu: bool = False
    unknown: str = ""
    """Why its time and its sizes are not known, and so not counted."""
    download: str = ""
    """What it fetches, `hf:` or `pypi:` and a name."""
    left_out: str = ""
    """What of it is not known, and so not counted in it."""

    @property
    def partition(self) -> str:
        return "GPU" if self.asks.gpu else "CPU"

    def seconds(self, device: Device) -> float | None:
        """Wall time by the rates of a lane; None where the device cannot run it or nothing is known."""
        if self.unknown or (self.only_gpu and device is DEVICES[CPU]):
            return None
        if not self.computes:
            return self.start
        # A CPU has no tf32; bf16 is what its presets take.
        precision = self.precision if self.precision in device.products else "bf16"
        speed = device.products[precision]
        work = (self.work.flop - self.work.attention) / speed + self.work.elements * device.element
        work += self.work.attention / min(speed, device.attention or speed) + self.work.traffic / device.bandwidth
        return self.start + device.start + work * self.slowdown / self.processes / self.lanes_of(device)

    def lanes_of(self, device: Device) -> int:
        """How many of a device's lanes it takes: a core a thread."""
        return min(self.asks.threads, device.lanes)


def fetching(job: Job, source: str) -> Job:
    """A job that downloads: nobody knows how long it takes. A digest says nothing to a reader, a branch does."""
    source = re.sub(r"#.*|@[0-9a-f]{40}\b", "", source)
    moves = " (a branch, which may move)" if "@" in source else ""
    return replace(job, download=source + moves, unknown=f"{source} is a download")


def light(job: Job, **known: object) -> Job:
    """A job in which no model runs, on one core. Seconds and MB: the most that such jobs took, 2026-11-22."""
    return replace(job, **{"start": 1.9, "memory": 220.0, "disk": 0.05, **known})
