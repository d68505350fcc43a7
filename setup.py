"""The compiled rotary op, and nothing else: metadata lives in pyproject.toml.

The op is optional: without torch, a compiler or nvcc the package installs and its torch reference
runs under the same name (resonance/encoding/ops.py says so aloud). It is built against the torch
that is installed, so a build has to see that torch: `pip install --no-build-isolation .`. With
isolation the build would have to fetch a torch of its own (hundreds of megabytes, and in general
another build of torch, whose extension does not load), so there it installs without the op.

  RESONANCE_CUDA=auto   CUDA kernels where nvcc and a CUDA torch are (default); says what it chose
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

from setuptools import setup
from setuptools.command.build_clib import build_clib

CSRC = Path("csrc")
# Bit-equal variants need uncontracted arithmetic (csrc/rotate.h). GCC 12's SLP vectorizer makes
# fmaddsub of a pair all the same, so it stays off. GCC's own headers warn, not we.
FLAGS = ["-O3", "-std=c++20", "-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
FLAGS += ["-Wno-psabi", "-Wno-unused-function", "-fvisibility=hidden"]
FLAGS += ["-ffp-contract=off", "-fno-tree-slp-vectorize"]
VARIANTS = {"portable": []}
if platform.machine() in ("x86_64", "AMD64"):
    VARIANTS["avx2"] = ["-mavx2", "-mf16c"]
    VARIANTS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mf16c"]
    VARIANTS["avx512"] += ["-mprefer-vector-width=512"]
# Machine code for these GPUs, and PTX for later ones.
ARCHITECTURES = ("80", "86", "89", "90", "100", "120")


def say(text: str) -> None:
    print(f"resonance: {text}", file=sys.stderr, flush=True)


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")


def choose_cuda(torch) -> str | None:
    """The nvcc to use, or None. Raises SystemExit where RESONANCE_CUDA=1 cannot be met."""
    asked = os.environ.get("RESONANCE_CUDA", "auto")
    if asked not in ("auto", "0", "1"):
        raise SystemExit(f"error: RESONANCE_CUDA must be auto, 0 or 1, got {asked!r}")
    nvcc = find_nvcc()
    if asked == "1":
        if torch is None or nvcc is None:
            missing = "torch; install it and pass --no-build-isolation" if torch is None else "nvcc; set CUDA_HOME"
            raise SystemExit(f"error: RESONANCE_CUDA=1, but the build cannot find {missing}")
        return nvcc
    if asked == "0" or torch is None:
        return None
    if nvcc and torch.version.cuda:
        say(f"RESONANCE_CUDA=auto: building CUDA kernels with {nvcc}")
        return nvcc
    say(f"RESONANCE_CUDA=auto: no CUDA kernels ({'torch is a CPU build' if nvcc else 'no nvcc'})")
    return None


def compile_cuda(nvcc: str, folder: Path) -> str:
    """Compile the CUDA kernels, which include no torch, to an object file."""
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    codes = [a for a in ARCHITECTURES if f"sm_{a}\n" in known + "\n"]
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in codes]
    targets += [f"-gencode=arch=compute_{codes[-1]},code=compute_{codes[-1]}"]
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "rotate_cuda.o"
    command = [nvcc, "-c", str(CSRC / "cuda" / "rotate.cu"), "-o", str(output), "-O3", "-std=c++17", "-fmad=false"]
    subprocess.run([*command, "-Xcompiler", "-fPIC", "--threads", "0", *targets], check=True)
    return str(output)


def extension() -> dict:
    """setup()'s arguments that build the op, or none of them."""
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        choose_cuda(None)
        say("no torch in the build environment, so no compiled op; for it: pip install --no-build-isolation .")
        return {}
    compiler = os.environ.get("CXX", "c++")
    if sys.platform == "win32" or shutil.which(compiler.split()[0]) is None:
        if os.environ.get("RESONANCE_CUDA") == "1":
            raise SystemExit("error: RESONANCE_CUDA=1, but the build cannot find a C++ compiler; set CXX")
        say(f"no C++ compiler ({compiler}), so no compiled op; the torch reference will run")
        return {}
    nvcc = choose_cuda(torch)

    class Build(BuildExtension):
        def run(self) -> None:
            try:
                self.distribution.building_the_op = True
                self.distribution.have_run["build_clib"] = False  # an editable install ran it by itself
                self.run_command("build_clib")
                if nvcc:
                    self.extensions[0].extra_objects.append(compile_cuda(nvcc, Path(self.build_temp)))
                super().run()
            except Exception as error:  # a compiler without headers, say: the package works without the op
                if os.environ.get("RESONANCE_CUDA") == "1":
                    raise
                say(f"the compiled op could not be built ({error}); the torch reference will run")
                self.extensions = []

    class BuildVariants(build_clib):
        """Only as a part of building the op, so that one place answers for failure."""

        def run(self) -> None:
            if getattr(self.distribution, "building_the_op", False):
                super().run()

    op = CppExtension(
        "resonance.encoding._op",
        [str(CSRC / "module.cpp"), str(CSRC / "cpu" / "rotate.cpp")],
        depends=[str(header) for header in CSRC.rglob("*.h")],
        # -fopenmp to compile at::parallel_for, but not to link: a second OpenMP beside torch's would
        # not know torch.set_num_threads.
        extra_compile_args=["-O2", "-fopenmp", *FLAGS[1:3], "-fvisibility=hidden"],
        extra_link_args=["-Wl,-s"] if sys.platform == "linux" else [],
    )
    if nvcc:
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        op.define_macros.append(("RESONANCE_CUDA", f'"{re.search(r"release ([0-9.]+)", version)[1]}"'))
        # Asked of nvcc itself: the command may be a wrapper elsewhere than its toolkit.
        plan = subprocess.run([nvcc, "--dryrun", str(CSRC / "cuda" / "rotate.cu")], capture_output=True, text=True)
        top = Path(re.search(r"TOP=(.+)", plan.stderr)[1].strip())
        # lib64 in NVIDIA's toolkit, lib in conda-forge's.
        op.extra_link_args += [f"-L{top / 'lib64'}", f"-L{top / 'lib'}"]
        op.extra_link_args += ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    libraries = [
        (
            f"resonance_{name}",
            {
                "sources": [str(CSRC / "cpu" / f"{name}.cpp")],
                "obj_deps": {"": [str(header) for header in CSRC.rglob("*.h")]},
                "cflags": [*FLAGS, *flags],
            },
        )
        for name, flags in VARIANTS.items()
    ]
    return {"ext_modules": [op], "libraries": libraries, "cmdclass": {"build_ext": Build, "build_clib": BuildVariants}}


setup(**extension())
