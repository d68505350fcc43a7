"""A copy of the repository in which tests run Snakemake, and what they ask of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "workflow", "config", "resonance", "figures", "envs", "profiles", "slurm")
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def copy_of_repository(folder: Path) -> Path:
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    """Snakemake keeps its source cache inside the copy."""
    return {**ENVIRONMENT, "XDG_CACHE_HOME": str(folder / ".cache")}


def snakemake(folder: Path, *arguments: str, preset: str = "smoke") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", *arguments, "--config", f"preset={preset}"]
    return subprocess.run(
        command, cwd=folder, env=environment_of(folder), capture_output=True, text=True, timeout=900
    )  # fmt: skip


def wanted(folder: Path, *arguments: str) -> dict[str, int]:
    """The jobs that Snakemake would run now, by rule; targets are left out."""
    planned = snakemake(folder, *arguments, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    stats = re.search(r"^job +count\n[-\s]+\n(.*?)\ntotal", planned.stdout, re.DOTALL | re.MULTILINE)
    if stats is None:
        assert "Nothing to be done" in planned.stdout + planned.stderr
        return {}
    forced = arguments[arguments.index("--forcerun") + 1] if "--forcerun" in arguments else None
    counts = dict(line.split() for line in stats[1].splitlines())
    return {rule: int(count) for rule, count in counts.items() if rule == forced or rule not in {"all", *arguments}}


class Edits:
    """Replaces text in files of a copy, and puts the files back, time stamps and all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, {}

    def replace(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        self.kept.setdefault(file, (file.read_text(), file.stat()))
        text = file.read_text()
        assert old in text, f"{path} no longer holds {old!r}: mend the test"
        file.write_text(text.replace(old, new))

    def undo(self) -> None:
        for file, (text, stat) in self.kept.items():
            file.write_text(text)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self.kept.clear()
