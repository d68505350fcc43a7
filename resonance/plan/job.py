"""One job of the workflow as the plan sees it, and the devices that it may run on.

A model of four numbers a device: how fast it multiplies matrices, what an element of an activation
costs, what a job costs before its first step, how many jobs run side by side. Those of the CPU are fitted
to runs of the laptop preset and compared with them by `--check`; those of GPUs are estimates from data
sheets and say so.
"""

from dataclasses import dataclass

from resonance.record.config import Config, RuleResources

# What a job takes that draws, collects or renders, on one core: seconds, and memory in MB. Measured, 2026-11-22.
LIGHT_JOBS = {
    "posgen_data": (0.5, 110),
    "posgen_baseline": (1.8, 290),
    "posgen_collect": (0.4, 100),
    "study_table": (1.5, 150),
    "study_shortcuts": (1.9, 140),
    "rounding_table": (1.9, 210),
    "ablation_table": (1.5, 220),
    "figure1": (1.9, 140),
    "figure2": (1.9, 140),
    "figure3": (1.9, 140),
    "figure4": (1.9, 140),
    "passkey_figure": (1.9, 140),
    "leval_tasks": (1.0, 110),
    "leval_score": (1.0, 110),
    "table2": (1.9, 140),
    "table2_stand_in": (1.9, 140),
}


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


def _from_data_sheet(name: str, tf32: float, bf16: float, fp32: float, bandwidth: float) -> Device:
    """Peaks in TFLOP/s and TB/s: 40 % of the products', and 12 bytes an element at 80 % of the memory's."""
    products = {"tf32": 0.4e12 * tf32, "bf16": 0.4e12 * bf16, "fp32": 0.4e12 * fp32}
    return Device(name, products, 12 / (0.8e12 * bandwidth), lanes=1, start=10.0, measured=False)


CPU = "cpu"
DEVICES = {
    # An Intel Xeon with AMX.
    CPU: Device("2 CPU cores", {"bf16": 1.2e12, "fp32": 0.14e12}, 2.8e-9, 2, 0.0, True, attention=0.185e12),
    "a100": _from_data_sheet("A100 80 GB", 156, 312, 19.5, 2.0),
    "h100": _from_data_sheet("H100 SXM", 495, 989, 67, 3.35),
}


@dataclass(frozen=True)
class Work:
    """What the arithmetic of a job is: FLOP of matrix products, elements of activations (in those of
    compiled forward and backward), and how many of the FLOP are attention's in long windows."""

    flop: float
    elements: float
    attention: float = 0.0


NOTHING = Work(0, 0)


@dataclass(frozen=True)
class Job:
    """One job. Memory and disk in MB, of a GPU `device_memory`, `scratch` disk only while it runs."""

    rule: str
    names: tuple[str, ...]
    """The first of the folders that its benchmark lies under: protocol and task, or a model and what of it."""
    asks: RuleResources
    """What the preset asks a scheduler for; with a GPU among it, the job is of the GPU partition."""
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
    left_out: str = ""
    """What of it is not known, and so not counted in it."""

    @property
    def partition(self) -> str:
        return "GPU" if self.asks.gpu else "CPU"

    def seconds(self, device: Device) -> float | None:
        """Wall time, None where the device cannot run it or nothing is known."""
        if self.unknown or (self.only_gpu and device is DEVICES[CPU]):
            return None
        if not self.computes:
            return self.start
        # A CPU has no tf32; bf16 is what its presets take.
        precision = self.precision if self.precision in device.products else "bf16"
        speed = device.products[precision]
        work = (self.work.flop - self.work.attention) / speed + self.work.elements * device.element
        work += self.work.attention / min(speed, device.attention or speed)
        return self.start + device.start + work * self.slowdown / self.processes


def light_job(config: Config, rule: str, *names: str, disk: float = 0.05) -> Job:
    """A job of LIGHT_JOBS: no model runs in it."""
    seconds, memory = LIGHT_JOBS[rule]
    kind = "data" if rule in ("posgen_data", "posgen_baseline", "leval_tasks") else "render"
    return Job(rule, names, config.preset.resources.of(kind), start=seconds, memory=memory, disk=disk)
