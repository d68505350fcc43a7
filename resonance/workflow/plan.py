"""What a preset costs before anything runs: the jobs of Snakemake's own dry run, each costed by its wing, added up by
partition and rule, beside a run's benchmarks where asked. Local rules, which write settings, are not counted. No torch.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from resonance.leval import cost as leval_cost
from resonance.llm import cost as llm_cost
from resonance.posgen import cost as posgen_cost
from resonance.record import paths
from resonance.record.job import CPU, DEVICES, Device, Job, RuleResources, light
from resonance.record.provenance import instruction_sets
from resonance.record.settings import SettingsError
from resonance.workflow.preset import Config

GPUS = [key for key in DEVICES if key != CPU]
ROOT = Path(__file__).resolve().parents[2]
"""The checkout that holds the Snakefile."""
_SLOWER = {"amx_bf16": "", "avx512f": "twice", "avx2": "3 to 5 times"}
"""How much longer the laptop preset takes where this is the best instruction set: measured, docs/log.md."""
_JOB = re.compile(r"^rule (\w+):\n((?:    .*\n)*)", re.MULTILINE)


def jobs(config: Config, targets: Iterable[str] = ("all",), root: Path = ROOT, *, remaining: bool = False) -> list[Job]:
    """Every job that the targets take from nothing, each with its cost; or those that remain to be run here."""
    wings = (config.posgen, posgen_cost.COSTS), (config.llm, llm_cost.COSTS), (config.leval, leval_cost.COSTS)
    costs = {rule: partial(cost, wing) for wing, of_wing in wings for rule, cost in of_wing.items()}
    return [costs.get(job.rule, light)(job) for job in dry_run(config.name, targets, root, remaining=remaining)]


def dry_run(preset: str, targets: Iterable[str], root: Path = ROOT, *, remaining: bool = False) -> list[Job]:
    """The jobs of `snakemake --forceall --dry-run`, local ones left out; without --forceall those that remain.

    Raises SettingsError with Snakemake's own last line where it refuses, the one above where in the rules that was.
    """
    every = "--rerun-incomplete" if remaining else "--forceall"
    command = [sys.executable, "-m", "snakemake", *targets, every, "--dry-run", "--nolock"]
    command += ["--cores", "100000", "--config"]  # this machine's would cut the threads of jobs that ask for more
    done = subprocess.run([*command, f"preset={preset}"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).partition("\nWildcards:")[0].strip().splitlines() or ["no word from it"]
        raise SettingsError(f"snakemake --dry-run: {said[-1].strip()}")
    found = _JOB.findall(done.stdout + done.stderr)
    return [_job(rule, said) for rule, said in found if "benchmark:" in said]  # targets have none


def _job(rule: str, text: str) -> Job:
    said = dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
    wildcards, resources = (
        dict(pair.split("=", 1) for pair in said.get(key, "").split(", ") if pair) for key in ("wildcards", "resources")
    )
    asked = {name: int(resources[name]) for name in ("mem_mb", "runtime", "gpu")}
    asks = RuleResources(threads=int(said.get("threads", 1)), **asked)
    return Job(rule, wildcards, asks, said.get("benchmark", ""))


@dataclass(frozen=True)
class Row:
    """A rule's jobs together: FLOP, wall seconds by device (its lanes side by side; None where one of them
    cannot run there), GPU-hours by GPU, the largest job's memory on host and GPU in MB, disk in MB.
    `unknown` jobs are among `jobs` and in no sum."""

    partition: str
    rule: str
    jobs: int
    unknown: int
    flop: float
    seconds: dict[str, float | None]
    gpu_hours: dict[str, float]
    memory: float
    device_memory: float
    disk: float


def rows(planned: list[Job]) -> list[Row]:
    """For each partition its total and one row a rule, and the total of both at the end."""
    made = []
    for partition in ("CPU", "GPU"):
        if there := [job for job in planned if job.partition == partition]:
            made.append(_row(partition, "total", there))
        for rule in dict.fromkeys(job.rule for job in there):
            made.append(_row(partition, rule, [job for job in there if job.rule == rule]))
    return [*made, _row("both", "total", planned)]


def _row(partition: str, rule: str, some: list[Job]) -> Row:
    known = [job for job in some if not job.unknown]
    on_gpus = [job for job in known if job.asks.gpu]
    seconds = {}
    for key, device in DEVICES.items():
        there = known if key == CPU else on_gpus
        each = [job.seconds(device) for job in there]
        seconds[key] = None
        if each and None not in each:
            taken = sum(wall * job.lanes_of(device) for wall, job in zip(each, there, strict=True))
            seconds[key] = taken / device.lanes
    gpu_hours = {key: sum(job.seconds(DEVICES[key]) * job.asks.gpu for job in on_gpus) / 3600 for key in GPUS}
    return Row(
        partition, rule, len(some), len(some) - len(known), sum(job.work.flop for job in known), seconds, gpu_hours,
        memory=max((job.memory for job in known), default=0.0),
        device_memory=max((job.device_memory for job in known), default=0.0), disk=sum(job.disk for job in known),
    )  # fmt: skip


def shortfalls(planned: list[Job]) -> list[str]:
    """Where the preset asks a scheduler for less than a rule's largest job is planned to need."""
    said = {}
    for job in sorted(planned, key=lambda job: job.memory):  # what is said of a rule is of its largest job
        seconds = job.seconds(DEVICES["a100" if job.asks.gpu else CPU])
        if job.memory > job.asks.mem_mb:
            said[job.rule, "mem_mb"] = f"{job.rule}: {_size(job.memory)} of memory, asked for {job.asks.mem_mb} MB"
        if seconds is not None and seconds > 60 * job.asks.runtime:
            said[job.rule, "runtime"] = f"{job.rule}: {_time(seconds)}, asked for {job.asks.runtime} minutes"
    return list(said.values())


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


def check(planned: list[Job], device: Device, root: Path = ROOT) -> list[Check]:
    """Every job that has a benchmark file of Snakemake's, by rule, and the total.

    Raises ValueError where none has.
    """
    found = []
    for job in planned:
        path, seconds = root / job.benchmark, job.seconds(device)
        if path.is_file() and seconds is not None:
            took = pl.read_csv(path, separator="\t", null_values=["NA", "-"]).row(0, named=True)
            found.append(Check(job.rule, 1, seconds, took["s"], job.memory, took["max_rss"] or 0.0))
    if not found:
        raise ValueError("--check wants the benchmarks of a run of this preset, got none; run it first")

    def together(name: str, some: list[Check]) -> Check:
        seconds = sum(each.predicted for each in some), sum(each.measured for each in some)
        memory = max(each.predicted_memory for each in some), max(each.measured_memory for each in some)
        return Check(name, len(some), *seconds, *memory)

    rules = dict.fromkeys(each.rule for each in found)
    by_rule = [together(rule, [each for each in found if each.rule == rule]) for rule in rules]
    return [*by_rule, together("total", found)]


def cpu_here() -> str:
    """The processor whose times are planned, and how much longer this one takes."""
    known = instruction_sets().split()
    slower = next((said for name, said in _SLOWER.items() if name in known), "")
    return DEVICES[CPU].name + (f" with AMX; {slower} as long on this processor" if slower else "")


def show(preset: str, targets: list[str], planned: list[Job]) -> None:
    """The plan as tables on stdout, of GPUs their own, and in words what it leaves out."""
    host = {"jobs": "jobs", "flop": "PFLOP", CPU: DEVICES[CPU].name, "memory": "memory", "disk": "disk"}
    short = {key: f"{DEVICES[key].name.split()[0]}*" for key in GPUS}
    gpus = {"jobs": "jobs", **short, **{f"hours {key}": f"GPU-h {name}" for key, name in short.items()}}
    summed = rows(planned)
    _print_rows(f"Plan of the preset {preset}: {', '.join(targets)}", host, summed)
    if on_gpus := [row for row in summed if row.partition == "GPU"]:
        named = ", ".join(f"{DEVICES[key].name}*" for key in GPUS)
        _print_rows(f"On GPUs: {named}", gpus | {"device_memory": "memory"}, on_gpus)
    scratch = max((job.scratch for job in planned), default=0.0)
    say = [
        "Times: a rule's jobs one after another, on CPU cores two at a time. memory: of the largest job.",
        "* estimated from data sheets, never run. A CPU is counted in bf16 where the preset has tf32. –: not there.",
        f"Checkpoints of a running training take up to {_size(scratch)} more.",
    ]
    if (here := cpu_here()) != DEVICES[CPU].name:
        say.append(f"CPU times: {here}.")
    say += dict.fromkeys(f"not counted (+?): {job.rule}, {job.unknown}" for job in planned if job.unknown)
    say += dict.fromkeys(f"not counted in {job.rule}: {job.left_out}" for job in planned if job.left_out)
    say += [f"the preset asks for too little: {line}" for line in shortfalls(planned)]
    print("\n".join(say))


def _print_rows(title: str, columns: dict[str, str], summed: list[Row]) -> None:
    table = _table(title, "partition, rule", *columns.values())
    for row in summed:
        name = f"  {row.rule}" if row.rule != "total" else "total" if row.partition == "both" else row.partition
        if row.rule == "total":
            table.add_section()
        cells = _cells(row)
        table.add_row(name, *("?" if row.unknown == row.jobs and key != "jobs" else cells[key] for key in columns))
    _print(table)


def _cells(row: Row) -> dict[str, str]:
    more = "+?" if row.unknown else ""
    times = {key: "–" if seconds is None else _time(seconds) + more for key, seconds in row.seconds.items()}
    hours = {f"hours {key}": _number(hours) if hours else "–" for key, hours in row.gpu_hours.items()}
    sizes = {"memory": _size(row.memory), "device_memory": _size(row.device_memory) if row.device_memory else "–"}
    counted = {"jobs": str(row.jobs), "flop": _number(row.flop / 1e15), "disk": _size(row.disk) + more}
    return counted | times | hours | sizes


def show_brief(preset: str, left: list[Job]) -> None:
    """What a run from here takes, in three lines on stdout: time and disk, downloads, where logs lie."""
    if not left:
        print(f"{preset}: everything is made and up to date")
        return
    total = rows(left)[-1]
    key = GPUS[0] if any(job.asks.gpu for job in left) else CPU
    on = cpu_here() if key == CPU else DEVICES[key].name + ", estimated from data sheets, never run"
    more = f" and {total.unknown} of unknown length" if total.unknown else ""
    fetched = ", ".join(sorted({job.download for job in left if job.download})) or "nothing"
    time = _time(total.seconds[key] or 0)
    logs, results = (folder.format(preset=preset) for folder in (paths.LOGS, paths.RESULTS))
    print(f"{preset}: {len(left)} jobs, about {time} ({on}){more}; {_size(total.disk)} of disk")
    print(f"downloads: {fetched}\nlogs, one a job: {logs}; results: {results}", flush=True)


def show_check(preset: str, compared: list[Check], device: Device) -> None:
    """Prediction beside measurement as a table on stdout."""
    numbers = ("jobs", "planned s", "measured s", "ratio", "planned MB", "measured MB")
    table = _table(f"{preset} on {device.name}; ratio: planned / measured", "rule", *numbers)
    for row in compared:
        seconds = f"{row.predicted:.1f}", f"{row.measured:.1f}", f"{row.ratio:.2f}"
        table.add_row(row.rule, str(row.jobs), *seconds, f"{row.predicted_memory:.0f}", f"{row.measured_memory:.0f}")
    _print(table)


def _table(title: str, names: str, *numbers: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(names, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    return table


def _print(table: Table) -> None:
    Console(width=max(80, Console().width), highlight=False).print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(megabytes: float) -> str:
    if megabytes < 2000:
        return f"{megabytes:.0f} MB"
    return f"{megabytes / 1000:.1f} GB" if megabytes < 1e5 else f"{megabytes / 1000:.0f} GB"
