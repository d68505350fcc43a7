"""The CUDA kernel without a GPU: it compiles for every GPU that we name, and its body, compiled by the
host's compiler (csrc/cuda/host.h), gives the reference's bits."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from resonance.encoding import ops
from resonance.encoding.ops import Table, rotate
from test_ops import draw_case

CUDA = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
# From fields in the order of `fields()` below to a Call.
SHIM = """
#include "rotate.cu"
extern "C" const char* run(const int64_t* f, double amplitude) {
  Call call{};
  for (Side& side : call.side) {
    side.in = (const void*)f[0]; side.out = (void*)f[1]; side.heads = f[2];
    side.in_b = f[3]; side.in_h = f[4]; side.in_t = f[5];
    side.out_b = f[6]; side.out_h = f[7]; side.out_t = f[8];
    f += 9;
  }
  call.batch = f[0]; call.num_positions = f[1]; call.head_dim = f[2]; call.half = f[3];
  call.type = Type(f[4]); call.interleaved = f[5]; call.conjugate = f[6]; call.wide = f[7];
  call.cos = (const void*)f[8]; call.sin = (const void*)f[9]; call.table_b = f[10]; call.table_t = f[11];
  call.start = (const int64_t*)f[12]; call.modulus = (const int64_t*)f[13];
  call.positions = (const int64_t*)f[14]; call.position_b = f[15]; call.position_t = f[16];
  call.limit = f[17]; call.entries = f[18]; call.amplitude = amplitude;
  try { return rotate_cuda(call, 0, nullptr); } catch (const std::out_of_range& error) { return "trap"; }
}
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> ctypes.CDLL:
    """The kernel's body as a library for the CPU."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("kernel")
    source, library = folder / "shim.cpp", folder / "kernel.so"
    source.write_text(SHIM)
    command = [compiler, "-std=c++17", "-O2", "-ffp-contract=off", "-fno-tree-slp-vectorize", "-w", "-DRESONANCE_HOST"]
    command += ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"]  # what a GPU would trap on ends the process
    subprocess.run([*command, "-shared", "-fPIC", f"-I{CUDA}", str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.run.restype = ctypes.c_char_p
    loaded.run.argtypes = [ctypes.POINTER(ctypes.c_int64), ctypes.c_double]
    return loaded


def run(kernel: ctypes.CDLL, q, k, table: Table, positions, interleaved: bool, conjugate: bool, in_place=False):
    """The kernel as `rotate` is called."""
    out = (q, k) if in_place else (torch.empty_like(q), torch.empty_like(k))
    fields = []
    for x, y in zip((q, k), out, strict=True):
        fields += [x.data_ptr(), y.data_ptr(), x.shape[1], *x.stride()[:3], *y.stride()[:3]]
    packed, rows = table.start is not None, table.cos.ndim == 3
    half = len(table.start) if packed else table.cos.shape[-1]
    kinds = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    fields += [q.shape[0], q.shape[2], q.shape[3], half, kinds.index(q.dtype), interleaved, conjugate]
    fields += [table.cos.dtype == torch.float64, table.cos.data_ptr(), table.sin.data_ptr()]
    fields += [table.cos.stride(0) if rows else 0, 0 if packed else table.cos.stride(-2)]
    fields += [table.start.data_ptr(), table.modulus.data_ptr()] if packed else [0, 0]
    fields += [0, 0, 0]
    if positions is not None:
        each = positions.stride(0) if positions.ndim == 2 else 0
        fields[-3:] = [positions.data_ptr(), each, positions.stride(-1)]
    limit = 2**63 - 1 if table.num_positions is None else table.num_positions
    fields += [limit if packed else table.cos.shape[-2], table.cos.numel() if packed else 0]
    error = kernel.run((ctypes.c_int64 * len(fields))(*(int(field) for field in fields)), table.amplitude)
    if error:
        raise RuntimeError(error.decode())
    return out


def test_the_body_gives_the_references_bits(kernel: ctypes.CDLL) -> None:
    for seed in range(400):
        case = draw_case(seed)
        options = case["layout"] == "interleaved", case["conjugate"]
        arguments = case["q"], case["k"], case["table"], case["positions"]
        wanted = rotate(*arguments, pair_layout=case["layout"], conjugate=case["conjugate"])
        for x, y in zip(run(kernel, *arguments, *options), wanted, strict=True):
            assert torch.equal(x, y), f"case {seed}"


@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("half", [32, 12, 6, 5])
@pytest.mark.parametrize("layout", ops.PAIR_LAYOUTS)
@pytest.mark.parametrize("dtype", ops.DTYPES, ids=str)
def test_the_body_in_accesses_of_every_width(
    kernel: ctypes.CDLL, dtype: torch.dtype, layout: str, half: int, packed: bool
) -> None:
    """In place, with a part of the head that is only kept; of the table too, also where it is aligned for none."""
    draw = torch.Generator().manual_seed(0)
    modulus = torch.arange(3, 3 + half)
    start = modulus.cumsum(0) - modulus
    angle = torch.randn((int(modulus.sum()),) if packed else (9, half), generator=draw)
    periods = {"start": start, "modulus": modulus} if packed else {}
    for odd in (False, True):
        cos, sin = angle.cos(), angle.sin()
        if odd:  # four bytes further on
            cos, sin = (torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape) for x in (cos, sin))
        table = Table(cos, sin, **periods)
        for head_dim in (2 * half, 2 * half + 16):
            q = torch.randn(2, 6, 9, head_dim, generator=draw).to(dtype)
            k = torch.randn(2, 9, 1, head_dim, generator=draw).to(dtype).transpose(1, 2)
            wanted = rotate(q, k, table, pair_layout=layout)
            found = run(kernel, q, k, table, None, layout == "interleaved", False, in_place=True)
            assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


def test_a_position_outside_the_table_traps(kernel: ctypes.CDLL) -> None:
    q, cos = torch.ones(1, 1, 2, 8), torch.ones(4, 4)
    for bad in (-1, 4):
        with pytest.raises(RuntimeError, match="trap"):
            run(kernel, q, q, Table(cos, cos), torch.tensor([0, bad]), False, False)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not here")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_the_kernel_compiles_to_a_cubin(architecture: str, tmp_path: Path) -> None:
    command = ["nvcc", "-cubin", f"-arch={architecture}", "-std=c++17", "-O3", "-fmad=false", str(CUDA / "rotate.cu")]
    done = subprocess.run([*command, "-o", str(tmp_path / "op.cubin")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"rotate_kernel" in (tmp_path / "op.cubin").read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_bits_are_the_cpus() -> None:
    for seed in range(400):
        case = draw_case(seed)
        table, positions = case["table"], case["positions"]
        options = {"pair_layout": case["layout"], "conjugate": case["conjugate"]}
        wanted = rotate(case["q"], case["k"], table, positions, **options)
        there = Table(*(x.cuda() if isinstance(x, torch.Tensor) else x for x in table))
        moved = None if positions is None else positions.cuda()
        found = rotate(case["q"].cuda(), case["k"].cuda(), there, moved, **options)
        assert all(torch.equal(x.cpu(), y) for x, y in zip(found, wanted, strict=True)), f"case {seed}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_a_graph_captures_the_op() -> None:
    """Capture fails at the first wait for the device; replays see new data and new positions."""
    angle = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    table = Table(angle.cos().cuda(), angle.sin().cuda())
    q, k = torch.ones(2, 4, 5, 64, device="cuda"), torch.ones(2, 1, 5, 64, device="cuda")
    work, positions = (q.clone(), k.clone()), torch.arange(5, device="cuda")
    rotate(q, k, table, positions)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fresh = rotate(q, k, table, positions)
        rotate(*work, table, positions, in_place=True)
    for seed in (1, 2):
        draw = torch.Generator("cuda").manual_seed(seed)
        for x, y in zip((q, k), work, strict=True):
            y.copy_(x.normal_(generator=draw))
        positions.random_(64, generator=draw)
        graph.replay()
        wanted = rotate(q.cpu(), k.cpu(), Table(angle.cos(), angle.sin()), positions.cpu())
        for found in (fresh, work):
            assert all(torch.equal(x.cpu(), y) for x, y in zip(found, wanted, strict=True))
