"""Ten minutes that say whether a GPU machine is fit for `preset=paper`: `make gpu-check`.

Each step is a process of its own with a time limit, and one line: pass or fail, what was measured, the limit. Without a
GPU it says so and runs the parts that need none, at sizes for a CPU: the kernel's body, the op beside a copy, PosGen
killed and resumed, ZeRO-3 with its weights partitioned over two processes, a prompt answered. What never ran on a GPU
was tested in this way alone. Writes results/gpu-check.json and a page beside it; status 1 where a step failed.
"""

import argparse
import contextlib
import html
import importlib.util
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from resonance.encoding import EncodingSpec
from resonance.encoding.ops import Table, rotate
from resonance.encoding.rotary import Rotary
from resonance.record.files import write_json, write_text
from resonance.record.provenance import cuda_versions, device_name, provenance
from resonance.workflow.preset import load

ROOT = Path(__file__).resolve().parents[1]
CUDA = "cuda"


class FailedError(Exception):
    """What a step found wrong, in a line."""


def machine(device: str) -> Iterator[str]:
    yield f"{device_name(device)}, {os.cpu_count()} cores; {cuda_versions()}"
    yield f"nvcc {_version_of('nvcc', '--version') or 'none: the op is built without CUDA'}"
    yield f"disk {shutil.disk_usage(ROOT).free / 1e9:,.0f} GB free"
    if device == CUDA:
        free, total = torch.cuda.mem_get_info()
        yield f"GPU memory {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        if not _version_of("nvcc", "--version"):
            raise FailedError("no nvcc: say make setup again where it is")
    from huggingface_hub import get_token

    yield "logged in to the hub" if get_token() else "not logged in to the hub: hf auth login, for LLaMA2's weights"


def op(device: str) -> Iterator[str]:
    from resonance.hf.swap import rotation_on

    yield rotation_on(device)
    if device == CUDA and "CUDA" not in rotation_on(device):
        raise FailedError("the op was built without CUDA: say make setup again where nvcc is")
    which = ["-m", "gpu"] if device == CUDA else ["tests/test_cuda.py"]
    yield _pytest([*which, "-m", "gpu"] if device == CUDA else which)
    if device == CUDA and (sanitizer := shutil.which("compute-sanitizer")):
        yield "compute-sanitizer: " + _pytest(["tests/test_cuda.py", "-m", "gpu"], [sanitizer, "--error-exitcode=9"])


def bandwidth(device: str) -> Iterator[str]:
    """GB/s of q and k, each element read once and written once, as medians of interleaved turns."""
    length, rounds = (32_768, 20) if device == CUDA else (4096, 5)
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, heads, length, 128, generator=draw).to(device, torch.bfloat16) for heads in (32, 8))
    rotary = Rotary(EncodingSpec(resonance=True), head_dim=128, num_positions=2 * length).to(device)
    cos, sin = rotary.tables(length)
    out = torch.empty_like(q), torch.empty_like(k)
    wide = tuple(torch.cat((x, x), dim=-1).to(q.dtype)[None] for x in (cos, sin))
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as eager

    dense, compiled = Table(cos, sin), torch.compile(eager, dynamic=False, fullgraph=True)
    turns = {
        "copy": lambda: [y.copy_(x) for x, y in zip((q, k), out, strict=True)],
        "packed": lambda: rotate(q, k, rotary.table, out=out),
        "dense": lambda: rotate(q, k, dense, out=out),
        "backward": lambda: rotate(q, k, dense, out=out, conjugate=True),
        "eager": lambda: eager(q, k, *wide),
        "compiled": lambda: compiled(q, k, *wide),
    }
    if importlib.util.find_spec("liger_kernel") and device == CUDA:
        from liger_kernel.ops.rope import LigerRopeFunction

        turns["Liger, in place"] = lambda: LigerRopeFunction.apply(q, k, *wide)
    if importlib.util.find_spec("flashinfer") and device == CUDA:
        import flashinfer

        flat = [x[0].transpose(0, 1).contiguous() for x in (q, k)]
        at, cache = torch.arange(length, device=device), torch.cat((cos, sin), dim=-1)
        turns["FlashInfer, in place"] = lambda: flashinfer.apply_rope_with_cos_sin_cache_inplace(
            at, flat[0].flatten(1), flat[1].flatten(1), 128, cache
        )
    speed = _speeds(turns, 2 * (q.nbytes + k.nbytes), rounds, device)
    yield f"T = {length:,}, bf16: " + ", ".join(f"{name} {value:,.0f} GB/s" for name, value in speed.items())
    least = min(speed[name] for name in ("packed", "dense", "backward")) / speed["copy"]
    yield f"the op is {least:.2f} of a copy"
    if device == CUDA and least < 0.75:
        raise FailedError(f"the op's bandwidth is {least:.2f} of a copy's; at least 0.75 is asked for")


def posgen(device: str) -> Iterator[str]:
    """ms a step of both protocols, the graph's beside eager's; killed halfway, resumed, bit-equal."""
    from resonance.posgen import train as training
    from resonance.posgen.stages import generate, prepare_torch, read_split
    from resonance.record.checkpoint import Checkpoints

    preset = load(ROOT / "config", "paper" if device == CUDA else "smoke").posgen
    steps = 200 if device == CUDA else 60
    prepare_torch(device, preset.settings.training.precision, threads=2)
    with tempfile.TemporaryDirectory() as folder:
        for protocol in ("paper", "released"):
            asked, spec = preset.train_run(protocol, "cot"), preset.spec(protocol, "resonance_rope")
            write_text(Path(folder) / "data.json", preset.data_run(protocol, "cot").to_json())
            files = [Path(folder) / f"{split}.parquet" for split in ("train", "validation", "test")]
            generate(Path(folder) / "data.json", files)
            data = [read_split(path, path.stem)[0] for path in files[:2]]
            found = {}
            for compiled in (True, False):
                loop = asked.training.model_copy(update={"compile": compiled, "device": device})
                run = asked.model_copy(update={"steps": steps, "training": loop})
                seen: list[tuple[int, float]] = []
                whole = training.train(
                    run, spec, 0, *data, lambda at, seen=seen: seen.append((at["step"], time.perf_counter()))
                )
                (first, begun), (last, ended) = seen[len(seen) // 2], seen[-1]
                found["graph" if compiled else "eager"] = 1000 * (ended - begun) / max(1, last - first)
                if compiled:
                    made_of = run, spec, 0, *data
                    checkpoints = Checkpoints(
                        Path(folder) / protocol, training.identity_of(*made_of), 0.0, share=float("inf")
                    )
                    with contextlib.suppress(InterruptedError):
                        training.train(*made_of, _stop_at(steps // 2), checkpoints)
                    resumed = training.train(*made_of, checkpoints=checkpoints)
                    a, b = (trained.decoder.state_dict() for trained in (whole, resumed))
                    if not resumed.resumed_at or not all(torch.equal(a[name], b[name]) for name in a):
                        raise FailedError(f"{protocol}: a resumed training ends with other weights")
            yield f"{protocol}: " + ", ".join(f"{name} {ms:.1f} ms a step" for name, ms in found.items()) + ", resumed"


def zero3(device: str) -> Iterator[str]:
    """Two layers of 7B's width (d = 512 on a CPU) under ZeRO-3 Offload, killed after a checkpoint and gone on with."""
    if not importlib.util.find_spec("deepspeed"):
        raise FailedError("DeepSpeed is not installed: say make setup GPU=1")
    from transformers import LlamaConfig, LlamaForCausalLM

    from resonance.llm import models
    from resonance.llm.rows import TRAINING
    from resonance.llm.settings import FinetuneLoop, ModelRun, Text, TextRun
    from resonance.llm.text import BYTE_BOS, BYTE_EOS, BYTE_VOCABULARY, Tokenizer, pack
    from resonance.record.rows import read_rows, read_run

    width, length, processes = (4096, 32_768, 1) if device == CUDA else (512, 256, 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = LlamaConfig(
            vocab_size=BYTE_VOCABULARY, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=2,
            num_attention_heads=width // 128, max_position_embeddings=4096, bos_token_id=BYTE_BOS,
            eos_token_id=BYTE_EOS,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / "model")
        precision = "bf16" if device == CUDA else "fp32"
        source = ModelRun(
            source="train:tiny", train_length=4096, rope_base=10_000.0, tiny=None, device=device, precision=precision
        )
        models.base_of_tiny(source, 0).write(folder / "base.json")
        (folder / "text").mkdir()
        (folder / "text/a.txt").write_text("".join(f"{n} times {n} is {n * n}. " for n in range(20_000)))
        text = TextRun(text=Text(source=f"path:{folder / 'text'}", held_out=0), tokenizer="bytes")
        pack(text, Tokenizer.of_bytes(), folder / "packed")
        llm = load(ROOT / "config", "paper").llm
        loop = FinetuneLoop(
            seed=0, micro_batch_size=1, gradient_checkpointing=True, deepspeed="zero3_offload", processes=processes
        )
        asked = llm.finetune_run("llama2_7b", "long").model_copy(
            update={
                "length": length, "steps": 4, "sequences_per_step": processes, "settings": loop, "device": device,
                "precision": precision,
            }
        )  # fmt: skip
        (folder / "encoding.json").write_text(
            EncodingSpec(method="yarn", resonance=True, train_length=4096, scale=8.0).filled().to_json()
        )
        flash = ["flash_attention_2"] if importlib.util.find_spec("flash_attn") and device == CUDA else []
        for attention in ["sdpa", *flash]:
            (folder / "settings.json").write_text(asked.model_copy(update={"attention": attention}).to_json())
            curves = []
            for kill in (False, True):
                output, begun = folder / f"{attention}-{kill}", time.perf_counter()
                line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
                line += ["-m", "resonance", "llm", "finetune", folder / "settings.json", folder / "encoding.json"]
                line += [folder / "base.json", folder / "packed", output, "--checkpoint-every=1"]
                if kill:
                    _until_checkpoint(line, output, device)
                if status := _start(line, output, device).wait():
                    said = re.findall(r".*(?:error:|Error: ).*", output.with_suffix(".log").read_text())
                    raise FailedError(f"{attention}: ended with {status}: {(said or ['no word from it'])[0][:200]}")
                rows = read_rows(output / "train.parquet", TRAINING)
                curves.append(rows.filter(rows["metric"] == "train_loss")["value"].to_list())
                run, took = read_run(output / "train.parquet"), time.perf_counter() - begun
            if curves[0] != curves[1]:
                raise FailedError(f"{attention}: resumed losses {curves[1]} are not those of a whole run {curves[0]}")
            yield (
                f"{attention}, d = {width}, {length:,} tokens, {processes} processes: {took:.0f} s, "
                f"host memory {run['cost']['peak_memory_mb'] / 1000:.1f} GB a process, resumed with equal losses"
            )


def answer(device: str) -> Iterator[str]:
    """A long prompt answered under dynamic NTK and YaRN by a model of two layers."""
    from resonance.hf.swap import swap_rotary
    from resonance.llm.generate import answers

    width, length = (4096, 31_000) if device == CUDA else (256, 2000)
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=2,
        num_attention_heads=width // 128, max_position_embeddings=512 if device == "cpu" else 4096,
    )  # fmt: skip
    prompt = torch.randint(0, 1000, (length,), generator=torch.Generator().manual_seed(0)).tolist()
    for method in ("dynamic_ntk", "yarn"):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).to(device, torch.bfloat16 if device == CUDA else torch.float32).eval()
        spec = EncodingSpec(method=method, train_length=config.max_position_embeddings, scale=8.0)
        model = swap_rotary(model, spec)
        took = {}
        for tokens in (1, 33):
            begun = time.perf_counter()
            said = next(answers(model, [prompt], max_new_tokens=tokens, ends=()))
            took[tokens] = time.perf_counter() - begun
            if len(said) != tokens:
                raise FailedError(f"{method}: {len(said)} tokens of {tokens}")
        yield f"{method}: prompt of {length:,} in {took[1]:.1f} s, {1000 * (took[33] - took[1]) / 32:.1f} ms a token"


def hub(_: str) -> Iterator[str]:
    """The first row of every text of preset paper, L-Eval's tasks, and the configs of the gated models."""
    from huggingface_hub import hf_hub_download

    from resonance.llm.text import documents

    config = load(ROOT / "config", "paper")
    for name, text in config.llm.settings.texts.items():
        next(documents(text))
        yield f"{name}: its first row"
    for name, model in config.llm.settings.models.items():
        repository, _, commit = model.source.removeprefix("hf:").partition("@")
        hf_hub_download(repository, "config.json", revision=commit)
        yield f"{name}: its config"
    repository, _, commit = config.leval.settings.source.removeprefix("hf:").partition("@")
    from huggingface_hub import list_repo_files

    files = [f for f in list_repo_files(repository, repo_type="dataset", revision=commit) if f.endswith(".jsonl")]
    yield f"L-Eval: {len(files)} files"


STEPS: dict[str, tuple[int, Callable[[str], Iterator[str]]]] = {
    "machine": (30, machine), "op": (240, op), "bandwidth": (120, bandwidth), "posgen": (240, posgen),
    "zero3": (300, zero3), "answer": (90, answer), "hub": (60, hub),
}  # fmt: skip
"""Seconds that each may take, and what it does."""
NEEDS_NETWORK = {"hub"}


def _start(line: list, output: Path, device: str) -> subprocess.Popen:
    environment = os.environ | ({} if device == CUDA else {"DS_ACCELERATOR": "cpu"})
    with output.with_suffix(".log").open("a") as log:
        return subprocess.Popen([*map(str, line)], cwd=ROOT, env=environment, stdout=log, stderr=log)


def _until_checkpoint(line: list, output: Path, device: str) -> None:
    """Runs a fine-tuning until it has a whole checkpoint, and kills it with its children."""
    import psutil

    process = _start(line, output, device)
    while process.poll() is None and not list(output.glob("checkpoints/checkpoint-*/complete.json")):
        time.sleep(0.02)
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            each.kill()
    process.wait()


def _version_of(command: str, asked: str) -> str | None:
    if not shutil.which(command):
        return None
    said = subprocess.run([command, asked], capture_output=True, text=True).stdout
    found = re.search(r"release ([\d.]+)|([\d]+\.[\d.]+)", said)
    return found and (found[1] or found[2])


def _pytest(arguments: list[str], before: list[str] = ()) -> str:
    line = [*before, sys.executable, "-m", "pytest", "-q", "--no-header", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1].strip("= ")
    if done.returncode:
        raise FailedError(last)
    return last


def _speeds(turns: dict[str, Callable], num_bytes: int, rounds: int, device: str) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(rounds + 2):
        for name, act in turns.items():
            if device == CUDA:
                begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begun.record()
                act()
                ended.record()
                ended.synchronize()
                seconds = begun.elapsed_time(ended) / 1000
            else:
                started = time.perf_counter()
                act()
                seconds = time.perf_counter() - started
            if turn >= 2:  # compiled, and warm
                took[name].append(seconds)
    return {name: num_bytes / statistics.median(each) / 1e9 for name, each in took.items()}


def _stop_at(step: int) -> Callable[[dict], None]:
    def report(seen: dict) -> None:
        if seen["step"] >= step:
            raise InterruptedError

    return report


def step(name: str, device: str) -> None:
    """One step in this process: what it says as JSON lines; status 1 and its error where it fails."""
    try:
        for said in STEPS[name][1](device):
            print(json.dumps({"said": said}), flush=True)
    except Exception as error:
        print(json.dumps({"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}), flush=True)
        sys.exit(1)


def run(name: str, device: str) -> dict:
    """A step in a process of its own, with its children ended at its limit."""
    limit, begun = STEPS[name][0], time.perf_counter()
    line = [sys.executable, "-m", "benchmarks.gpu_check", "--step", name, "--device", device]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(line, cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        said = [json.loads(line) for line in out if line.startswith("{")]
    failed = [each["failed"] for each in said if "failed" in each]
    if process.returncode and not failed:
        failed = [f"ended at its limit of {limit} s" if process.returncode < 0 else f"ended with {process.returncode}"]
    return {
        "step": name, "passed": not failed, "said": [each["said"] for each in said if "said" in each] + failed,
        "seconds": round(time.perf_counter() - begun, 1), "limit": limit,
    }  # fmt: skip


def page(title: str, made: list[dict]) -> str:
    rows = "".join(
        f'<tr class="{"pass" if each["passed"] else "fail"}"><th>{each["step"]}</th><td>'
        f"{'pass' if each['passed'] else 'FAIL'}, {each['seconds']:g} of {each['limit']} s</td><td>"
        f"{'<br>'.join(map(html.escape, each['said']))}</td></tr>"
        for each in made
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
table {{ border-collapse: collapse }}
th, td {{ border-top: 1px solid #ccc; padding: .5rem; text-align: left; vertical-align: top; overflow-wrap: anywhere }}
th, td:nth-child(2) {{ white-space: nowrap }}
.fail td:nth-child(2) {{ color: #b00020; font-weight: bold }}
@media (max-width: 40rem) {{
  tr, th, td {{ display: block; border: 0; padding: .1rem 0 }}
  tr {{ border-top: 1px solid #ccc; padding: .5rem 0 }}
}}
</style><h1>{html.escape(title)}</h1><table>{rows}</table></html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", choices=STEPS, help="only this one, in this process")
    parser.add_argument("--device", choices=(CUDA, "cpu"), help="left out: cuda where torch sees a GPU")
    parser.add_argument("--output", type=Path, default=ROOT / "results/gpu-check.json")
    asked = parser.parse_args()
    device = asked.device or (CUDA if torch.cuda.is_available() else "cpu")
    if asked.step:
        step(asked.step, device)
        return
    names = [name for name in STEPS if device == CUDA or name not in NEEDS_NETWORK]
    title = f"GPU check on {device_name(device)}"
    if device != CUDA:
        title += ": no GPU, so the parts that need none"
        print(f"no GPU here ({cuda_versions()}): these are the parts that need none")
    made = []
    for name in names:
        made.append(run(name, device))
        said = "; ".join(made[-1]["said"])
        word = "pass" if made[-1]["passed"] else "FAIL"
        print(f"{word}  {name:<10}{made[-1]['seconds']:>6.1f} of {made[-1]['limit']} s  {said}", flush=True)
    for name in NEEDS_NETWORK - set(names):
        print(f"left  {name}: needs the network; --step {name}")
    write_json(asked.output, {"device": device_name(device), "steps": made, "provenance": provenance()})
    write_text(asked.output.with_suffix(".html"), page(title, made))
    print(f"{asked.output} and {asked.output.with_suffix('.html').name}")
    sys.exit(not all(each["passed"] for each in made))


if __name__ == "__main__":
    main()
