"""A conda channel on this disk, conda-forge's stand-in: this machine's CPython, pip's wheel, a compiler's name.

What envs/*.yaml ask of conda and nothing more; every library comes from their pip sections. Made with
rattler-build, so that rattler can solve and install it. A test tool.
"""

import asyncio
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from rattler.index import index_fs
from rattler_build import assemble_package

PLATFORM = "linux-64"
LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "__pycache__", "test", "tests", "idlelib", "turtledemo", "ensurepip", "config-*"
)


def make_channel(folder: Path, pip_version: str, compiler_version: str) -> Path:
    """The channel's folder, with the packages that it serves."""
    staged = folder / "staged"
    channel = folder / "conda-forge"
    (channel / PLATFORM).mkdir(parents=True)
    (channel / "noarch").mkdir()

    def package(name: str, version: str, depends: list[str]) -> None:
        assemble_package(
            name, version, PLATFORM, "0", channel / PLATFORM, files_dir=staged / name, depends=depends,
            compression_level=1, detect_prefix=False,
        )  # fmt: skip

    stage_python(staged / "python")
    package("python", platform.python_version(), [])
    stage_pip(staged / "pip", pip_version)
    package("pip", pip_version, [f"python {platform.python_version()}.*"])
    stage_compiler(staged / "cxx-compiler")
    package("cxx-compiler", compiler_version, [])
    shutil.rmtree(staged)
    asyncio.run(index_fs(channel))
    return channel


def stage_python(target: Path) -> None:
    """This interpreter without what is installed in it."""
    if "deb_system" in sysconfig.get_scheme_names():
        raise RuntimeError(
            f"python must keep its packages in site-packages to be packed, got Debian's at {sys.base_prefix}, which "
            "keeps them in dist-packages; make the environment with another one: make PYTHON=..."
        )
    base, name = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    (target / "bin").mkdir(parents=True)
    shutil.copy2(base / "bin" / name, target / "bin" / name)
    for alias in ("python", "python3"):
        (target / "bin" / alias).symlink_to(name)
    shutil.copytree(base / "lib" / name, target / "lib" / name, ignore=LEFT_OUT)
    shutil.copytree(base / "include" / name, target / "include" / name)
    for library in (base / "lib").glob(f"lib{name}*.so*"):
        shutil.copy2(library, target / "lib" / library.name, follow_symlinks=False)


def stage_pip(target: Path, version: str) -> None:
    """pip's wheel, unpacked where a conda package has it."""
    wheels = target.parent / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
    subprocess.run([*download, f"pip=={version}"], check=True)
    packages = target / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(packages)


def stage_compiler(target: Path) -> None:
    """As conda-forge's: CC and CXX are set on activation; here they are this machine's."""
    script = target / "etc" / "conda" / "activate.d" / "cxx-compiler.sh"
    script.parent.mkdir(parents=True)
    script.write_text("".join(f"export {name}={shutil.which(command)}\n" for name, command in COMPILERS.items()))


COMPILERS = {"CC": "gcc", "CXX": "g++"}
