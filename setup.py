"""The compiled rotary op, and nothing else: metadata lives in pyproject.toml.

The module needs pybind11's headers, a C++ compiler and no torch: it reads torch's tensors through a C
interface that is the same from torch 2.10 on (csrc/module.cpp). So a plain `pip install .` builds it,
and its wheel serves every such torch. Where the compiler is missing or fails, the package installs
without it, and its torch reference runs under the same name (resonance/encoding/ops.py says so aloud).

  RESONANCE_CUDA=auto   CUDA kernels where nvcc is (default), but not for a CPU torch that the build sees
  RESONANCE_CUDA=1      CUDA kernels, or an error
  RESONANCE_CUDA=0      none
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
FLAGS = ["-O3", "-std=c++20", "-Wall", "-Wextra", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
# Bit-equal variants need uncontracted arithmetic (csrc/rotate.h). GCC 12's SLP vectorizer makes
# fmaddsub of a pair all the same, so it stays off. GCC's own headers warn, not we.
KERNEL_FLAGS = ["-ffp-contract=off", "-fno-tree-slp-vectorize"]
KERNEL_FLAGS += ["-Wno-uninitialized", "-Wno-maybe-uninitialized", "-Wno-psabi", "-Wno-unused-function"]
VARIANTS = {"portable": []}
if platform.machine() in ("x86_64", "AMD64"):
    VARIANTS["avx2"] = ["-mavx2", "-mf16c"]
    VARIANTS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mf16c"]
    VARIANTS["avx512"] += ["-mprefer-vector-width=512"]
# Machine code for these GPUs, and PTX for later ones.
ARCHITECTURES = ("80", "86", "89", "90", "100", "120")


def say(text: str) -> None:
    print(f"resonance: {text}", file=sys.stderr, flush=True)


def choose_cuda() -> str | None:
    """The nvcc to use, or None. Raises SystemExit where RESONANCE_CUDA=1 cannot be met."""
    asked = os.environ.get("RESONANCE_CUDA", "auto")
    if asked not in ("auto", "0", "1"):
        raise SystemExit(f"error: RESONANCE_CUDA must be auto, 0 or 1, got {asked!r}")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if asked == "1" and nvcc is None:
        raise SystemExit("error: RESONANCE_CUDA=1, but the build cannot find nvcc; set CUDA_HOME")
    if asked != "auto":
        return nvcc if asked == "1" else None
    try:
        from torch.version import cuda
    except ImportError:  # an isolated build: nvcc alone decides
        cuda = "any"
    if nvcc and cuda:
        say(f"RESONANCE_CUDA=auto: building CUDA kernels with {nvcc}")
        return nvcc
    say(f"RESONANCE_CUDA=auto: no CUDA kernels ({'torch is a CPU build' if nvcc else 'no nvcc'})")
    return None


def compile_cuda(nvcc: str, folder: Path) -> str:
    """Compile the CUDA kernels to an object file."""
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    codes = [a for a in ARCHITECTURES if f"sm_{a}\n" in known + "\n"]
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in codes]
    targets += [f"-gencode=arch=compute_{codes[-1]},code=compute_{codes[-1]}"]
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "rotate_cuda.o"
    command = [nvcc, "-c", str(CSRC / "cuda" / "rotate.cu"), "-o", str(output), "-O3", "-std=c++17", "-fmad=false"]
    subprocess.run([*command, "-Xcompiler", "-fPIC", "--threads", "0", *targets], check=True)
    return str(output)


class Build(build_ext):
    """Every CPU variant and the CUDA kernels with their own flags, and the module around them."""

    def build_extension(self, op: Extension) -> None:
        try:
            for name, flags in VARIANTS.items():
                op.extra_objects += self.compiler.compile(
                    [str(CSRC / "cpu" / f"{name}.cpp")],
                    output_dir=self.build_temp,
                    extra_postargs=[*FLAGS, *KERNEL_FLAGS, *flags],
                    depends=op.depends,
                )
            if nvcc:
                op.extra_objects.append(compile_cuda(nvcc, Path(self.build_temp)))
            super().build_extension(op)
        except Exception as error:  # a compiler without Python's headers, say
            if os.environ.get("RESONANCE_CUDA") == "1":
                op.optional = False
            say(f"the compiled op could not be built ({error}); the torch reference will run")
            raise


def extension() -> dict:
    """setup()'s arguments that build the op, or none of them."""
    compiler = os.environ.get("CXX", "c++")
    if sys.platform == "win32" or shutil.which(compiler.split()[0]) is None:
        if os.environ.get("RESONANCE_CUDA") == "1":
            raise SystemExit("error: RESONANCE_CUDA=1, but the build cannot find a C++ compiler; set CXX")
        say(f"no C++ compiler ({compiler}), so no compiled op; the torch reference will run")
        return {}
    op = Extension(
        "resonance.encoding._op",
        [str(CSRC / "module.cpp"), str(CSRC / "cpu" / "rotate.cpp")],
        depends=[str(header) for header in CSRC.rglob("*.h")],
        include_dirs=[pybind11.get_include()],
        extra_compile_args=["-O2", *FLAGS[1:]],
        extra_link_args=["-Wl,-s", "-ldl"] if sys.platform == "linux" else [],
        language="c++",
        optional=True,
    )
    if nvcc:
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        op.define_macros.append(("RESONANCE_CUDA", f'"{re.search(r"release ([0-9.]+)", version)[1]}"'))
        # Asked of nvcc itself: the command may be a wrapper elsewhere than its toolkit.
        plan = subprocess.run([nvcc, "--dryrun", str(CSRC / "cuda" / "rotate.cu")], capture_output=True, text=True)
        top = Path(re.search(r"TOP=(.+)", plan.stderr)[1].strip())
        # lib64 in NVIDIA's toolkit, lib in conda-forge's.
        op.extra_link_args += [f"-L{top / 'lib64'}", f"-L{top / 'lib'}", "-lcudart_static", "-lrt", "-lpthread"]
    return {"ext_modules": [op], "cmdclass": {"build_ext": Build}}


nvcc = choose_cuda()
setup(**extension())
