"""What a preset costs, before anything runs: jobs, FLOP, hours, memory, disk, rule by rule.

A model of four numbers a device: how fast it multiplies matrices, what an element of an activation
costs, what a job costs before its first step, how many jobs run side by side. Those of the CPU are fitted
to a run of the laptop preset and compared with it by `--check`; those of GPUs are estimates from data
sheets and say so. Imports no torch.

Legend: B sequences, T positions fed, V vocabulary.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from resonance.record import runs
from resonance.record.config import Cell, Config
from resonance.record.runs import TrainRun

# What a job that renders or generates takes on one core, and its memory in MB: measured, 2026-11-22.
LIGHT_JOBS = {
    "posgen_data": (0.5, 110),
    "posgen_baseline": (1.8, 290),
    "study_table": (1.5, 150),
    "figures": (1.9, 140),
}
TRAIN_START, EVALUATE_START = 11.0, 2.2  # seconds of a CPU job before its first step: imports, compiled code
EAGER = 3.0  # what an element costs in uncompiled training, in those of compiled training
FORWARD = 0.36  # an element in an uncompiled forward pass, in those of compiled forward and backward


class Training(NamedTuple):
    """One trained model."""

    protocol: str
    task: str
    train_encoding: str
    seed: int


def training_of(cell: Cell) -> Training:
    """The model that an evaluation measures; what protocols and encodings share is one."""
    return Training(cell.train_protocol, cell.task, cell.train_encoding, cell.seed)


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


def _from_data_sheet(name: str, tf32: float, bf16: float, fp32: float, bandwidth: float) -> Device:
    """Peaks in TFLOP/s and TB/s: 40 % of the products', and 12 bytes an element at 80 % of the memory's."""
    products = {"tf32": 0.4e12 * tf32, "bf16": 0.4e12 * bf16, "fp32": 0.4e12 * fp32}
    return Device(name, products, 12 / (0.8e12 * bandwidth), lanes=1, start=10.0, measured=False)


DEVICES = {
    # An Intel Xeon with AMX.
    "cpu": Device("2 CPU cores", {"bf16": 1.2e12, "fp32": 0.14e12}, 2.8e-9, 2, 0.0, True),
    "a100": _from_data_sheet("A100 80 GB", 156, 312, 19.5, 2.0),
    "h100": _from_data_sheet("H100 SXM", 495, 989, 67, 3.35),
}


@dataclass(frozen=True)
class Work:
    """What the arithmetic of a job is: FLOP of matrix products, elements of activations (in those of
    compiled forward and backward)."""

    flop: float
    elements: float


@dataclass(frozen=True)
class Job:
    """One job: its rule, what of it a path names, its work, the seconds before it; memory, disk, and
    scratch disk while it runs, in MB."""

    rule: str
    protocol: str | None
    task: str | None
    work: Work
    precision: str
    start: float
    memory: float
    disk: float
    on_device: bool
    scratch: float = 0.0

    def seconds(self, device: Device) -> float:
        if not self.on_device:
            return self.start
        # A CPU has no tf32; bf16 is what its presets take.
        precision = self.precision if self.precision in device.products else "bf16"
        work = self.work.flop / device.products[precision] + self.work.elements * device.element
        return self.start + device.start + work


def jobs(config: Config, studies: Iterable[str] = ("table1",)) -> list[Job]:
    """Every job that the studies need, once: what they share is trained and generated once."""
    studies = list(dict.fromkeys(studies))
    return jobs_of_cells(config, [cell for study in studies for cell in config.study_cells(study)], studies)


def jobs_of_cells(config: Config, cells: Iterable[Cell], studies: Iterable[str] = ()) -> list[Job]:
    """The same for any evaluations, with the tables and figures of some studies."""
    cells = sorted(set(cells))
    trainings = sorted({training_of(cell) for cell in cells})
    data = config.preset.posgen.data
    splits = [(data.num_train, data.train_length), (data.num_validation + data.num_test, data.test_length)]
    sequences = sum(count * length for count, length in splits) * 0.6e-6  # a token takes 0.4 to 0.8 bytes
    drawn = sorted({(config.data_protocol(cell.protocol), cell.task) for cell in cells})
    made = [_light("posgen_data", *place, disk=sequences) for place in drawn]
    lists = {study: config.preset.posgen.all_studies[study] for study in studies}
    beside = [study for study in lists if study in ("table1", "extended", "keyed")]
    scored = {
        (protocol, task) for study in beside for protocol in lists[study].protocols for task in lists[study].tasks
    }
    made += [_light("posgen_baseline", *place) for place in sorted(scored)]
    of = {place: runs.train_run(config, *place) for place in {(t.protocol, t.task) for t in trainings}}
    made += [_train_job(of[t.protocol, t.task]) for t in trainings]
    made += [_evaluate_job(config, of[cell.train_protocol, cell.task], cell.protocol) for cell in cells]
    for study, its in lists.items():
        if study not in beside:  # collected, then one table and one figure
            made += [_light("study_table", None), _light("figures", None)]
            continue
        made += [_light("study_table", protocol) for protocol in its.protocols]
        # Shortcuts; and of Table 1 also Figures 1, 2 and 3.
        drawings = {"table1": [None, None, *its.protocols, *its.protocols], "keyed": its.protocols}
        made += [_light("figures", protocol) for protocol in drawings.get(study, [])]
    return made


def weights(run: TrainRun) -> tuple[int, int]:
    """How many numbers the decoder holds, and how many of them are trained."""
    m, inner = run.model, run.model.num_heads * run.model.head_dim
    feed_forward = 2 * m.d_model * m.d_ff + m.d_model
    attention = 4 * m.d_model * inner + m.d_model
    rest = run.vocab_size * m.d_model + m.d_model
    held = run.num_layers * (attention + feed_forward) + rest
    frozen = run.num_layers * feed_forward if run.choices.trained == "all_but_feed_forward" else 0
    return held, held - frozen


def products(run: TrainRun, num_sequences: float, num_positions: int, training: bool) -> float:
    """FLOP of the matrix products: 2 for a multiplication and addition; backward costs as much twice,
    once where a weight is frozen. Scores are made whole, without leaving out the masked half."""
    m, inner = run.model, run.model.num_heads * run.model.head_dim
    frozen = run.choices.trained == "all_but_feed_forward"
    every, fixed = (3, 2 if frozen else 3) if training else (1, 1)
    a_layer = every * (8 * m.d_model * inner + 4 * num_positions * inner) + fixed * 4 * m.d_model * m.d_ff
    return num_sequences * num_positions * (run.num_layers * a_layer + every * 2 * m.d_model * run.vocab_size)


def activations(run: TrainRun, num_sequences: float, num_positions: int, scores: bool = True) -> float:
    """Elements of activations of all layers: scores (left out where attention is fused), hidden
    layer, q k v and what they mix to, and some six of the model's width."""
    m = run.model
    width = num_positions * m.num_heads * scores + m.d_ff + 4 * m.num_heads * m.head_dim + 6 * m.d_model
    return num_sequences * num_positions * run.num_layers * width


def train_work(run: TrainRun) -> Work:
    """The steps, and the looks between them, which run uncompiled."""
    settings, length = run.training, run.data.train_length - 1 + run.choices.start_token
    looks = settings.num_looks * settings.look_sequences
    elements = run.steps * activations(run, settings.batch_size, length) * (1.0 if settings.compile else EAGER)
    return Work(
        flop=run.steps * products(run, settings.batch_size, length, True) + products(run, looks, length, False),
        elements=elements + FORWARD * activations(run, looks, length, scores=False),
    )


def _train_job(run: TrainRun) -> Job:
    (held, trained), settings = weights(run), run.training
    snapshots = 4e-6 * settings.num_snapshots * trained
    alive = activations(run, settings.batch_size, run.data.train_length)
    checkpoint = 16e-6 * trained + snapshots  # weights, two moments, the best look so far
    return Job(
        "posgen_train", run.protocol, run.task, train_work(run), settings.precision, TRAIN_START,
        memory=470 + 3.3e-6 * alive + 16e-6 * held + snapshots, disk=4e-6 * held + snapshots, on_device=True,
        scratch=3 * checkpoint,  # two are kept while one is written
    )  # fmt: skip


def _evaluate_job(config: Config, run: TrainRun, protocol: str) -> Job:
    asked, length = config.preset.posgen.evaluation, run.data.test_length - 1 + run.choices.start_token
    sequences = asked.test_sequences + asked.curve_sequences * run.training.num_snapshots
    work = Work(products(run, sequences, length, False), FORWARD * activations(run, sequences, length, scores=False))
    held, trained = weights(run)
    alive = activations(run, asked.batch_size, length, scores=False) / run.num_layers
    memory = 330 + 4e-6 * (held + run.training.num_snapshots * trained + alive)
    return Job(
        "posgen_evaluate", protocol, run.task, work, asked.precision, EVALUATE_START, memory, 0.02, on_device=True
    )


def _light(rule: str, protocol: str | None, task: str | None = None, disk: float = 0.05) -> Job:
    seconds, memory = LIGHT_JOBS[rule]
    return Job(rule, protocol, task, Work(0, 0), "fp32", seconds, memory, disk, on_device=False)


@dataclass(frozen=True)
class Row:
    """A rule's jobs together: FLOP, wall seconds by device (its lanes side by side), peak memory of one
    job in MB, disk in MB."""

    rule: str
    jobs: int
    flop: float
    seconds: dict[str, float]
    memory: float
    disk: float


def rows(planned: list[Job]) -> list[Row]:
    """One row a rule, in the order of their running, and the total."""

    def row(name: str, some: list[Job]) -> Row:
        seconds = {key: sum(job.seconds(d) for job in some) / d.lanes for key, d in DEVICES.items()}
        flop, memory, disk = sum(j.work.flop for j in some), max(j.memory for j in some), sum(j.disk for j in some)
        return Row(name, len(some), flop, seconds, memory, disk)

    rules = list(dict.fromkeys(job.rule for job in planned))
    return [*(row(rule, [job for job in planned if job.rule == rule]) for rule in rules), row("total", planned)]


def checkpoint_disk(planned: list[Job]) -> float:
    """MB that the checkpoints of one running training take at most."""
    return max((job.scratch for job in planned), default=0.0)


@dataclass(frozen=True)
class Check:
    """A rule's measured jobs beside what was predicted for them: seconds in all, peak memory in MB."""

    rule: str
    jobs: int
    predicted: float
    measured: float
    predicted_memory: float
    measured_memory: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


def check(planned: list[Job], folder: Path, device: Device) -> list[Check]:
    """Every job that Snakemake's benchmark files of a run know, by rule, and the total.

    Raises ValueError where the folder holds none.
    """
    by_cell: dict[tuple, Job] = {(job.rule, job.protocol, job.task): job for job in planned}
    found: dict[str, list[tuple[Job, float, float]]] = {}
    for path in sorted(Path(folder).rglob("*.tsv")):
        parts = path.relative_to(folder).with_suffix("").parts
        drawn = parts[0].startswith("figure") or parts[0] == "study_shortcuts"
        rule = "figures" if drawn else parts[0]
        # A study's table lies under the study's name.
        names = (
            parts[1:3] if rule.startswith("posgen_") else parts[2:3] if parts[0].startswith("study_") else parts[1:2]
        )
        job = by_cell.get((rule, *names, *(None,) * (2 - len(names))))
        if job is None:
            continue
        with path.open(newline="", encoding="utf-8") as file:
            measured = next(csv.DictReader(file, delimiter="\t"))
        memory = measured["max_rss"]
        found.setdefault(rule, []).append((job, float(measured["s"]), 0.0 if memory in ("NA", "-") else float(memory)))
    if not found:
        raise ValueError(
            f"{folder} must hold benchmark files of a run (posgen_train/..., *.tsv), got none that this preset plans; "
            "they lie in results/<preset>/benchmarks"
        )

    def summary(name: str, some: list[tuple[Job, float, float]]) -> Check:
        predicted, measured = sum(job.seconds(device) for job, _, _ in some), sum(seconds for _, seconds, _ in some)
        return Check(
            name, len(some), predicted, measured, max(job.memory for job, _, _ in some), max(m for _, _, m in some)
        )

    total = summary("total", [entry for some in found.values() for entry in some])
    return [*(summary(rule, some) for rule, some in found.items()), total]


def show(preset: str, config: Config, studies: list[str], planned: list[Job]) -> None:
    """The plan as a table on stdout."""
    table = Table(title=f"Plan of the preset {preset}: {', '.join(studies)}", box=box.SIMPLE_HEAD)
    table.add_column("rule", no_wrap=True)
    for name in ("jobs", "PFLOP", *(device.name + ("" if device.measured else "*") for device in DEVICES.values())):
        table.add_column(name, justify="right")
    table.add_column("MB a job", justify="right")
    table.add_column("disk", justify="right")
    for row in rows(planned):
        table.add_row(
            row.rule, str(row.jobs), f"{row.flop / 1e15:.3g}", *(_time(seconds) for seconds in row.seconds.values()),
            f"{row.memory:.0f}", _size(row.disk), end_section=row.rule == "figures",
        )  # fmt: skip
    console = Console(width=max(100, Console().width), highlight=False)
    console.print(table)
    training = config.preset.posgen.training
    console.print(
        f"Every rule's wall time by itself. The preset asks for {training.precision} on {training.device}; a CPU is "
        "counted in bf16 where that is tf32. * estimated from data sheets, never run. Checkpoints of a running "
        f"training take up to {_size(checkpoint_disk(planned))} more.",
        soft_wrap=True,
    )


def show_check(preset: str, compared: list[Check], device: Device) -> None:
    """Prediction beside measurement as a table on stdout."""
    table = Table(title=f"{preset}: planned for {device.name}, and measured", box=box.SIMPLE_HEAD)
    table.add_column("rule", no_wrap=True)
    for name in ("jobs", "planned s", "measured s", "planned / measured", "planned MB", "measured MB"):
        table.add_column(name, justify="right")
    for row in compared:
        table.add_row(
            row.rule, str(row.jobs), f"{row.predicted:.1f}", f"{row.measured:.1f}", f"{row.ratio:.2f}",
            f"{row.predicted_memory:.0f}", f"{row.measured_memory:.0f}",
        )  # fmt: skip
    Console(width=max(100, Console().width), highlight=False).print(table)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 2000 else f"{megabytes / 1000:.1f} GB"
