"""The rotary op beside its peers: `python -m benchmarks.rotary [--threads 1 2] [--shapes ...] [--json FILE]`.

One process, candidates interleaved, medians. One thread is timed by its CPU time, so that other
work on the machine disturbs little; two by the wall. Needs the extension, transformers and a C++
compiler; five minutes. Prints every time, then the targets, met or not, and at the end both as
Markdown: the table of docs/op.md.

Legend: q [B, H, T, D], k [B, K, T, D].
"""

import argparse
import ctypes
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils import cpp_extension
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from resonance.encoding import EncodingSpec, ops
from resonance.encoding.ops import Table, rotate
from resonance.encoding.rotary import Rotary
from resonance.record.provenance import device_name

SHAPES = {"prefill": (1, 32, 8, 4096, 128), "posgen": (128, 8, 8, 64, 64), "decode": (1, 32, 8, 1, 128)}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def best_form(q, k, cos, sin):
    """The form that compiles best: halves, one concatenation, arithmetic in float32."""

    def turn(x):
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)

    return turn(q), turn(k)


def complex_multiply(q, k, unit):
    def turn(x):
        z = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(z * unit).flatten(-2).to(x.dtype)

    return turn(q), turn(k)


def token_major() -> Callable:
    source = Path(__file__).with_name("token_major.cpp")
    flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp"]
    return cpp_extension.load("token_major", [str(source)], extra_cflags=flags).rotate


def candidates(shape: str, dtype: torch.dtype, plain_loop: Callable) -> dict[str, Callable]:
    """Every contender by its name, as a function of nothing."""
    b, h, k_heads, t, d = SHAPES[shape]
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(b, n, t, d, generator=draw).to(dtype) for n in (h, k_heads))
    # Longer than every integer period up to 2^15: all of the table is packed. Decoding stands at the end.
    rotary = Rotary(EncodingSpec(resonance=True), head_dim=d, num_positions=65536)
    positions = torch.tensor([4095]) if shape == "decode" else None
    cos, sin = rotary.tables(t if positions is None else positions)
    packed, dense = rotary.table, Table(cos, sin)
    wide = tuple(torch.cat((x, x), dim=-1).to(dtype)[None] for x in (cos, sin))
    unit = torch.complex(cos, sin)
    out = torch.zeros_like(q), torch.zeros_like(k)
    by_token = tuple(x.transpose(1, 2).flatten(0, 1).clone() for x in (q, k))
    by_position = tuple(x.transpose(1, 2).clone(memory_format=torch.contiguous_format) for x in (q, k))
    # The identity: a cache in bfloat16 would, applied in place ten thousand times, shrink the data to
    # subnormal numbers, and those are slow.
    cache = torch.ones_like(cos, dtype=dtype), torch.zeros_like(sin, dtype=dtype)
    work = q.clone(), k.clone()
    names = {
        "ours fresh": lambda: rotate(q, k, packed, positions),
        "ours fresh, dense": lambda: rotate(q, k, dense),
        "ours out=": lambda: rotate(q, k, packed, positions, out=out),
        "ours out=, dense": lambda: rotate(q, k, dense, out=out),
        "ours in place": lambda: rotate(*work, packed, positions, in_place=True),
        "ours in place, dense": lambda: rotate(*work, dense, in_place=True),
        "ours in place, BTHD": lambda: rotate(*by_position, packed, positions, axes="BTHD", in_place=True),
        "token-major loop": lambda: plain_loop(*by_token, *cache),
        "memcpy": lambda: [
            ctypes.memmove(y.data_ptr(), x.data_ptr(), x.nbytes) for x, y in zip((q, k), out, strict=True)
        ],
        "clone": lambda: (q.clone(), k.clone()),
    }
    compiled_eager = torch.compile(apply_rotary_pos_emb, dynamic=False, fullgraph=True)
    compiled_best = torch.compile(best_form, dynamic=False, fullgraph=True)

    def best_in_place(q, k, cos, sin):
        for x, y in zip((q, k), best_form(q, k, cos, sin), strict=True):
            x.copy_(y)

    compiled_in_place = torch.compile(best_in_place, dynamic=False, fullgraph=True)

    def best_into(q, k, cos, sin, q_out, k_out):
        for x, y in zip((q_out, k_out), best_form(q, k, cos, sin), strict=True):
            x.copy_(y)

    compiled_into = torch.compile(best_into, dynamic=False, fullgraph=True)
    names |= {
        "transformers eager": lambda: apply_rotary_pos_emb(q, k, *wide),
        "transformers compiled": lambda: compiled_eager(q, k, *wide),
        "best compiled": lambda: compiled_best(q, k, cos, sin),
        "best compiled, out=": lambda: compiled_into(q, k, cos, sin, *out),
        "best compiled, in place": lambda: compiled_in_place(*work, cos, sin),
        "complex multiply": lambda: complex_multiply(q, k, unit),
    }
    if shape == "decode":
        low = (packed.cos, packed.sin, packed.start, packed.modulus, positions, -1, False, False, 1.0)
        names["torch.ops in place"] = lambda: torch.ops.resonance.rotate_(*work, *low[:5])  # the rest by default
        names["module in place"] = lambda: ops._compiled.rotate(*work, *work, *low, False, True)
        names["nothing"] = lambda: None
        return {name: torch.no_grad()(call) if name[:4] == "ours" else call for name, call in names.items()}
    learned = q.clone().requires_grad_(), k.clone().requires_grad_()
    grads = torch.randn_like(q), torch.randn_like(k)

    def there_and_back(turn: Callable) -> Callable:
        return lambda: torch.autograd.grad(turn(*learned), learned, grads)

    return names | {
        "ours forward+backward": there_and_back(lambda q, k: rotate(q, k, packed)),
        "transformers eager forward+backward": there_and_back(lambda q, k: apply_rotary_pos_emb(q, k, *wide)),
        "transformers compiled forward+backward": there_and_back(lambda q, k: compiled_eager(q, k, *wide)),
        "best compiled forward+backward": there_and_back(lambda q, k: compiled_best(q, k, cos, sin)),
    }


def measure(calls: dict[str, Callable], clock: Callable[[], float], seconds: float) -> dict[str, float]:
    """Median seconds a call, all candidates in turn; short calls are timed in bunches."""
    bunch = {}
    for name, call in calls.items():
        once = []
        for _ in range(12):
            start = clock()
            call()
            once.append(clock() - start)
        bunch[name] = max(1, min(2000, int(2e-3 / max(min(once), 1e-7))))
    draw = random.Random(0)
    times, end = {name: [] for name in calls}, time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[name]) < 7:
        # In another order every time: whoever comes second finds the data in the cache.
        for name, call in draw.sample(list(calls.items()), len(calls)):
            start = clock()
            for _ in range(bunch[name]):
                call()
            times[name].append((clock() - start) / bunch[name])
    return {name: statistics.median(values) for name, values in times.items()}


def targets(shape: str, t: dict[str, float]) -> list[tuple[str, float, float, bool]]:
    """What the op set out for: (what, measured, limit, met). Ratios, but for decoding: microseconds."""

    def at_most(what: str, value: float, limit: float) -> tuple[str, float, float, bool]:
        return what, value, limit, value <= limit

    def at_least(what: str, value: float, limit: float) -> tuple[str, float, float, bool]:
        return what, value, limit, value >= limit

    if shape == "decode":
        rows = [at_most("module in place, µs over nothing",
                        (t["module in place"] - t["nothing"]) * 1e6, 1.5)]  # fmt: skip
        rows.append(at_least("best compiled, in place / ours in place",
                             t["best compiled, in place"] / t["ours in place"], 1))  # fmt: skip
        rows.append(at_least("best compiled, in place / torch.ops in place",
                             t["best compiled, in place"] / t["torch.ops in place"], 1))  # fmt: skip
        rows.append(at_least("token-major loop / module in place",
                             t["token-major loop"] / t["module in place"], 1))  # fmt: skip
        return rows
    eager = {"prefill": 12, "posgen": 7}[shape]
    rows = [
        at_most("out= / memcpy", t["ours out="] / t["memcpy"], 1.10),
        at_most("in place / memcpy", t["ours in place"] / t["memcpy"], 0.75),
        at_most("fresh / clone", t["ours fresh"] / t["clone"], 1.10),
        at_least("transformers eager / out=", t["transformers eager"] / t["ours out="], eager),
        at_least("best compiled / fresh", t["best compiled"] / t["ours fresh"], 1),
        at_least("best compiled, out= / out=", t["best compiled, out="] / t["ours out="], 1),
        at_least("best compiled, in place / in place", t["best compiled, in place"] / t["ours in place"], 1),
        at_least("token-major loop / in place", t["token-major loop"] / t["ours in place"], 1),
        at_least("best compiled / ours, forward+backward",
                 t["best compiled forward+backward"] / t["ours forward+backward"], 1.15),
        at_most("packed / dense, out=", t["ours out="] / t["ours out=, dense"], 1.05),
        at_most("packed / dense, in place", t["ours in place"] / t["ours in place, dense"], 1.05),
    ]  # fmt: skip
    if shape == "prefill":
        rows.append(at_least("transformers compiled / out=", t["transformers compiled"] / t["ours out="], 5))
    return rows


def markdown(record: list[dict]) -> str:
    """Targets as rows, shapes and dtypes as columns; a cell has one thread / two, in bold where missed."""
    lines, shapes = [], list(dict.fromkeys(entry["shape"] for entry in record))
    for group in ([shape for shape in shapes if shape != "decode"], [shape for shape in shapes if shape == "decode"]):
        entries = [entry for entry in record if entry["shape"] in group]
        columns = list(dict.fromkeys((entry["shape"], entry["dtype"]) for entry in entries))
        if not entries:
            continue
        cells, aims = {}, {}
        for entry in entries:
            for what, value, limit, met in entry["targets"]:
                text = f"{value:.2f}" if met else f"**{value:.2f}**"
                cells.setdefault((what, entry["shape"], entry["dtype"]), []).append(text)
                sign = "≤" if (value <= limit) == met else "≥"
                aims.setdefault(what, {})[entry["shape"]] = f"{sign} {limit:g}"
        lines += ["", "| | target | " + " | ".join(" ".join(column) for column in columns) + " |"]
        lines.append("| --- | --- |" + " --- |" * len(columns))
        for what, aim in aims.items():
            row = [" / ".join(cells.get((what, *column), ["–"])) for column in columns]
            lines.append(f"| {what} | {', '.join(dict.fromkeys(aim.values()))} | {' | '.join(row)} |")
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--seconds", type=float, default=6.0, help="of measuring for each shape, dtype, thread count")
    parser.add_argument("--json", type=Path, help="where to write every time and ratio")
    asked = parser.parse_args()
    if ops._compiled is None:
        raise SystemExit("error: the extension is not built; pip install -e .")
    print(f"{device_name('cpu')}, torch {torch.__version__}, {ops.implementation()}")
    plain_loop, record = token_major(), []
    for num_threads in asked.threads:
        torch.set_num_threads(num_threads)
        clock = time.thread_time if num_threads == 1 else time.perf_counter
        for shape in asked.shapes:
            for name in asked.dtypes:
                torch._dynamo.reset()
                found = measure(candidates(shape, DTYPES[name], plain_loop), clock, asked.seconds)
                judged = targets(shape, found)
                unit, factor = ("us", 1e6) if shape == "decode" else ("ms", 1e3)
                print(f"\n{shape} {name}, {num_threads} thread{'s' * (num_threads > 1)} ({unit})")
                for candidate, seconds in sorted(found.items(), key=lambda item: item[1]):
                    print(f"  {seconds * factor:9.3f}  {candidate}")
                for what, value, limit, met in judged:
                    print(f"  {'met   ' if met else 'MISSED'}  {what}: {value:.2f} (target {limit:g})")
                record.append(
                    {"shape": shape, "dtype": name, "threads": num_threads, "seconds": found, "targets": judged}
                )
    met = [row[3] for entry in record for row in entry["targets"]]
    print(f"\n{markdown(record)}\n\n{device_name('cpu')}, {' / '.join(map(str, asked.threads))} threads, torch "
          f"{torch.__version__}, {time.strftime('%Y-%m-%d')}: {sum(met)} of {len(met)} targets met")  # fmt: skip
    if asked.json:
        asked.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
