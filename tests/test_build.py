"""How the op is built: from the sdist alone, for another processor, and what RESONANCE_CUDA asks for."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pybind11
import pytest

ROOT = Path(__file__).resolve().parents[1]
ARM = shutil.which("aarch64-linux-gnu-g++")  # Debian: g++-aarch64-linux-gnu
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")


def call(*command: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


@needs_compiler
def test_the_sdist_builds_the_op_where_no_torch_is(tmp_path: Path) -> None:
    """As an isolated build does, but with this environment's setuptools: sdist, wheel, op."""
    backend = "import sys, setuptools.build_meta as b; sys.modules['torch'] = None; print(b.build_{}(sys.argv[1]))"
    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "*.so", "results*", "tests", "build", "*.egg-info")
    )
    done = call(sys.executable, "-c", backend.format("sdist"), tmp_path, cwd=source)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "sdist", filter="data")
    unpacked = next((tmp_path / "sdist").iterdir())
    environment = {**os.environ, "RESONANCE_CUDA": "0"}
    done = call(sys.executable, "-c", backend.format("wheel"), tmp_path, cwd=unpacked, env=environment)
    assert done.returncode == 0, done.stderr
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert "resonance/py.typed" in names and any(name.startswith("resonance/encoding/_op.") for name in names)
        archive.extractall(tmp_path / "installed")
    code = "from resonance.encoding import ops; print(ops.__file__, ops.implementation())"
    done = call(sys.executable, "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")})
    assert done.stdout.startswith(str(tmp_path)) and "C++ (" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(not list(ROOT.glob("resonance/encoding/_op*.so")), reason="the extension is not built here")
def test_a_torch_without_the_c_exchange_gets_the_reference() -> None:
    """As torch before 2.10."""
    code = (
        "import torch; del torch.Tensor.__dlpack_c_exchange_api__\n"
        "from resonance.encoding import ops; print(ops.implementation(), ops._missing)"
    )
    done = call(sys.executable, "-c", code, cwd=ROOT)
    assert done.stdout.startswith("torch reference it needs torch >= 2.10"), done.stdout + done.stderr


def test_version_needs_no_library_of_the_workflow() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom resonance.__main__ import main; main()"
    done = call(sys.executable, "-c", code, "--version", cwd=ROOT)
    assert done.stdout.startswith("resonance-rope 0."), done.stderr


@pytest.mark.skipif(ARM is None, reason="no cross compiler for ARM here")
@pytest.mark.parametrize("source", ["module.cpp", "cpu/portable.cpp", "cpu/rotate.cpp"])
def test_the_op_compiles_for_arm(source: str, tmp_path: Path) -> None:
    """With this machine's headers of Python and pybind11, which are the same for every processor."""
    includes = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]
    flags = ["-std=c++20", "-O2", "-ffp-contract=off", "-w", *includes]
    target = tmp_path / "op.o"
    done = call(ARM, *flags, "-c", ROOT / "csrc" / source, "-o", target)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes()[18:20] == b"\xb7\x00"  # ELF's number for AArch64


def choose(**environment: str) -> subprocess.CompletedProcess:
    """setup.py up to its call of setup(), in a fresh process."""
    code = (
        "import setuptools; setuptools.setup = lambda ext_modules, **_: print(ext_modules[0].define_macros)\n"
        "import setup"
    )
    return call(sys.executable, "-c", code, cwd=ROOT, env={**os.environ, **environment})


@needs_compiler
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
