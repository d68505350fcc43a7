"""How the op is built: for another processor, and what RESONANCE_CUDA asks for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARM = shutil.which("aarch64-linux-gnu-g++")  # Debian: g++-aarch64-linux-gnu


@pytest.mark.skipif(ARM is None, reason="no cross compiler for ARM here")
@pytest.mark.parametrize("source", ["portable.cpp", "rotate.cpp"])
def test_the_op_compiles_for_arm(source: str, tmp_path: Path) -> None:
    """Against this machine's torch headers, which are the same for every processor."""
    from torch.utils.cpp_extension import include_paths

    includes = [f"-I{path}" for path in include_paths()]
    flags = ["-std=c++20", "-O2", "-fopenmp", "-ffp-contract=off", "-w"]
    target = tmp_path / "op.o"
    done = subprocess.run(
        [ARM, *flags, *includes, "-c", str(ROOT / "csrc" / "cpu" / source), "-o", str(target)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert target.read_bytes()[18:20] == b"\xb7\x00"  # ELF's number for AArch64


def choose(**environment: str) -> subprocess.CompletedProcess:
    """setup.py up to its call of setup(), in a fresh process."""
    code = (
        "import setuptools; setuptools.setup = lambda ext_modules, **_: print(ext_modules[0].define_macros)\n"
        "import setup"
    )
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_resonance_cuda_is_met_or_refused(tmp_path: Path) -> None:
    nowhere = {"CUDA_HOME": str(tmp_path)}
    done = choose(RESONANCE_CUDA="auto", **nowhere)
    assert "RESONANCE_CUDA" not in done.stdout and "RESONANCE_CUDA=auto: no CUDA kernels (no nvcc)" in done.stderr
    done = choose(RESONANCE_CUDA="0")
    assert done.returncode == 0 and "RESONANCE_CUDA" not in done.stdout
    done = choose(RESONANCE_CUDA="1", **nowhere)
    assert done.returncode and "error: RESONANCE_CUDA=1, but the build cannot find nvcc; set CUDA_HOME" in done.stderr
    done = choose(RESONANCE_CUDA="yes")
    assert done.returncode and "error: RESONANCE_CUDA must be auto, 0 or 1, got 'yes'" in done.stderr


@pytest.mark.skipif(shutil.which("c++") is None or shutil.which("nvcc") is None, reason="nvcc or c++ is not here")
def test_with_nvcc_the_cuda_kernels_are_asked_for() -> None:
    done = choose(RESONANCE_CUDA="1")
    assert "('RESONANCE_CUDA', " in done.stdout, done.stderr
