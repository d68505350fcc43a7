"""Training of PosGen beside a plain loop: `python -m benchmarks.training [--sizes laptop paper] [--rounds 5]`.

Run-steps per second of a machine with two cores: our trainer as the workflow runs it, one process of one
thread a core, beside one process of two threads that trains the same model as one would write it with
torch.nn, eagerly, in fp32 and in bf16. Every candidate lives in processes of its own that wait for their
turn; turns alternate in a new order every round; medians. Then a profile of our step, against the
matrix products alone. Some four minutes on two quiet cores; prints one Markdown table and the targets.

Legend: B batch, H heads, T positions, D head dim, M d_model.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from resonance.encoding import EncodingSpec
from resonance.encoding.frequencies import frequency_table
from resonance.posgen import tasks
from resonance.posgen.settings import TrainRun
from resonance.posgen.step import tune_allocator
from resonance.posgen.train import _Training, to_inputs
from resonance.record.provenance import device_name
from resonance.workflow.preset import load

ROOT = Path(__file__).resolve().parents[1]
STEPS_A_TURN = {"laptop": 40, "paper": 4}
CANDIDATES = {"ours": 2, "plain fp32": 1, "plain bf16": 1}  # and how many processes
TARGETS = {"plain fp32": 5.0, "plain bf16": 2.8}  # times as fast, at the paper's size


def sized_run(size: str) -> TrainRun:
    """The preset's run of CoT under `paper`, in bf16 on the CPU, with no look in the way."""
    run = load(ROOT / "config", size).posgen.train_run("paper", "cot")
    training = run.training.model_copy(update={"device": "cpu", "precision": "bf16", "compile": True, "num_looks": 1})
    return run.model_copy(update={"training": training.model_copy(update={"num_snapshots": 1}), "steps": 10**9})


def sequences(run: TrainRun) -> dict[str, np.ndarray]:
    rule = tasks.Rule(task=run.task, modulus=run.data.modulus, j=run.data.j, k=run.data.k)
    counts = {"train": run.data.num_train, "validation": run.data.num_validation}
    prefixes = tasks.draw_prefixes("distinct", rule, counts, tasks.prefix_generator(0, run.task))
    return {split: tasks.generate(rule, rows, run.data.train_length) for split, rows in prefixes.items()}


def ours(run: TrainRun) -> Callable[[], None]:
    tune_allocator()
    drawn = sequences(run)
    return _Training(run, EncodingSpec(), 0, drawn["train"], drawn["validation"], lambda _: None).advance


class PlainLayer(nn.Module):
    def __init__(self, run: TrainRun) -> None:
        super().__init__()
        m, rate, inner = run.model, run.choices.dropout, run.model.num_heads * run.model.head_dim
        self.num_heads, self.rate = m.num_heads, rate
        self.q, self.k, self.v = (nn.Linear(m.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, m.d_model, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(m.d_model, eps=1e-6) for _ in range(2))
        self.feed_forward = nn.Sequential(
            nn.Linear(m.d_model, m.d_ff, bias=False), nn.ReLU(), nn.Dropout(rate),
            nn.Linear(m.d_ff, m.d_model, bias=False),
        )  # fmt: skip
        self.dropout = nn.Dropout(rate)

    def forward(self, x_BTM: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        normed = self.norms[0](x_BTM)
        q, k, v = (w(normed).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for w in (self.q, self.k, self.v))
        q, k = (x * cos + torch.cat((-x.chunk(2, -1)[1], x.chunk(2, -1)[0]), dim=-1) * sin for x in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.rate)
        x_BTM = x_BTM + self.dropout(self.o(mixed.transpose(1, 2).flatten(-2)))
        return x_BTM + self.dropout(self.feed_forward(self.norms[1](x_BTM)))


class Plain(nn.Module):
    """The same decoder, as one would write it."""

    def __init__(self, run: TrainRun) -> None:
        super().__init__()
        m = run.model
        self.embedding = nn.Embedding(run.vocab_size, m.d_model)
        self.layers = nn.ModuleList(PlainLayer(run) for _ in range(run.num_layers))
        self.norm, self.dropout = nn.RMSNorm(m.d_model, eps=1e-6), nn.Dropout(run.choices.dropout)
        theta = torch.from_numpy(frequency_table(EncodingSpec(), m.head_dim, run.data.train_length).theta)
        angle = torch.arange(run.data.train_length)[:, None] * torch.cat((theta, theta))
        self.register_buffer("cos", angle.cos().float())
        self.register_buffer("sin", angle.sin().float())

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        x_BTM, num_positions = self.dropout(self.embedding(tokens_BT)), tokens_BT.shape[1]
        for layer in self.layers:
            x_BTM = layer(x_BTM, self.cos[:num_positions], self.sin[:num_positions])
        return self.dropout(self.norm(x_BTM)) @ self.embedding.weight.T * x_BTM.shape[-1] ** -0.5


def plain(run: TrainRun, precision: str) -> Callable[[], None]:
    inputs, targets, first = to_inputs(run, sequences(run)["train"])
    model, loader = (
        Plain(run),
        DataLoader(TensorDataset(inputs, targets), run.training.batch_size, True, drop_last=True),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.training.learning_rate)
    batches = iter(())

    def step() -> None:
        nonlocal batches
        if (batch := next(batches, None)) is None:
            batches = iter(loader)
            batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(batch[0])[:, first:]
            loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[1][:, first:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def products_alone(run: TrainRun) -> float:
    """Seconds of a step's matrix products in bf16, each made by itself into warm memory."""
    m, rows, inner = run.model, run.training.batch_size * 63, run.model.num_heads * run.model.head_dim
    shapes = [(m.d_model, inner)] * 4 + [(m.d_model, m.d_ff)] * 2

    def timed(call: Callable[[], object]) -> float:
        taken = []
        for _ in range(7):
            started = time.thread_time()
            call()
            taken.append(time.thread_time() - started)
        return statistics.median(taken)

    def three_ways(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> float:
        out = torch.empty_like(y), torch.empty_like(x), torch.empty_like(w)
        return (
            timed(lambda: torch.matmul(x, w, out=out[0]))
            + timed(lambda: torch.matmul(y, w.mT, out=out[1]))
            + timed(lambda: torch.matmul(x.mT, y, out=out[2]))
        )

    def matrix(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.bfloat16)

    total = sum(three_ways(matrix(rows, k), matrix(k, n), matrix(rows, n)) for k, n in shapes)
    pairs, d = run.training.batch_size * m.num_heads, m.head_dim
    total += three_ways(matrix(pairs, 63, d), matrix(pairs, d, 63), matrix(pairs, 63, 63))
    total += three_ways(matrix(pairs, 63, 63), matrix(pairs, 63, d), matrix(pairs, 63, d))
    return run.num_layers * total


def where_the_time_goes(run: TrainRun, num_steps: int) -> dict[str, float]:
    """Seconds of one of our steps by what they are spent on (torch.profiler, self CPU time)."""
    torch.set_num_threads(1)
    step = ours(run)
    for _ in range(3):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(num_steps):
            step()
    kinds = {
        "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "mkldnn"),
        "generated kernels": ("Call CompiledFxGraph",),
        "random bytes": ("aten::random_",),
        "optimizer": ("adam",),
    }
    spent = dict.fromkeys([*kinds, "rest"], 0.0)
    for event in profiled.key_averages():
        kind = next((kind for kind, parts in kinds.items() if any(part in event.key for part in parts)), "rest")
        spent[kind] += event.self_cpu_time_total * 1e-6 / num_steps
    return spent


# Processes that wait for their turn


def work(candidate: str, size: str) -> None:
    """A worker: makes ready, then for every number on stdin makes so many steps and says how long."""
    torch.set_num_threads(1 if candidate == "ours" else 2)
    run = sized_run(size)
    step = ours(run) if candidate == "ours" else plain(run, candidate.split()[1])
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        started, used = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - started, time.process_time() - used, flush=True)


class Worker:
    def __init__(self, candidate: str, size: str) -> None:
        command = [sys.executable, "-m", "benchmarks.training", "--worker", candidate, "--sizes", size]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def wait(self) -> list[float]:
        return [float(word) for word in self.process.stdout.readline().split() if word != "ready"]

    def start(self, num_steps: int) -> None:
        self.process.stdin.write(f"{num_steps}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(size: str, num_rounds: int) -> dict[str, tuple[float, float]]:
    """By candidate: run-steps per second of all its processes together, and CPU-seconds a run-step."""
    workers = {name: [] for name in CANDIDATES}
    for name, count in CANDIDATES.items():
        for _ in range(count):  # one after the other: the second finds what the first has compiled
            workers[name].append(Worker(name, size))
            workers[name][-1].wait()
    found, names = {name: [] for name in CANDIDATES}, list(CANDIDATES)
    for _ in range(num_rounds):
        random.shuffle(names)
        for name in names:
            for worker in workers[name]:
                worker.start(STEPS_A_TURN[size])
            taken = [worker.wait() for worker in workers[name]]
            rate = sum(STEPS_A_TURN[size] / wall for wall, _ in taken)
            found[name].append((rate, statistics.mean(cpu for _, cpu in taken) / STEPS_A_TURN[size]))
    for some in workers.values():
        for worker in some:
            worker.end()
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True)) for name, rows in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=STEPS_A_TURN, default=list(STEPS_A_TURN))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=CANDIDATES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker, asked.sizes[0])
        return
    load_before = os.getloadavg()[0]
    print(
        f"{device_name('cpu')}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, {asked.rounds} rounds; ", end=""
    )
    print(f"load average at the start {load_before:.1f}{' (NOT quiet)' if load_before > 0.5 else ''}\n")
    measured = {size: measure(size, asked.rounds) for size in asked.sizes}
    print("| size | candidate | run-steps/s, two cores | ms of CPU a run-step | ours is faster by | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size, found in measured.items():
        for name, (rate, cpu) in found.items():
            times = f"{found['ours'][0] / rate:.2f}" if name != "ours" else ""
            target = TARGETS.get(name) if size == "paper" else None
            verdict = f"{target} ({'met' if found['ours'][0] / rate >= target else 'NOT met'})" if target else ""
            print(f"| {size} | {name} | {rate:.3g} | {1000 * cpu:.0f} | {times} | {verdict} |")
    print("\n| size | " + " | ".join([*(spent := where_the_time_goes(sized_run(asked.sizes[0]), 10))]), end="")
    print(" | sum, ms of one thread | products alone, ms |\n|" + " --- |" * (len(spent) + 3))
    for size in asked.sizes:
        spent = where_the_time_goes(sized_run(size), 10 if size == "laptop" else 3)
        total, floor = sum(spent.values()), products_alone(sized_run(size))
        parts = " | ".join(f"{1000 * seconds:.1f} ({seconds / total:.0%})" for seconds in spent.values())
        print(f"| {size} | {parts} | {1000 * total:.0f} | {1000 * floor:.1f} |")


if __name__ == "__main__":
    main()
