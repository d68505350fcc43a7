"""A copy of the repository in which tests run Snakemake, and what they ask of it."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "workflow", "config", "resonance", "figures", "envs", "profiles", "slurm")
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
# What neither runs a job nor waits for one: done in a fork of a process that has Snakemake imported.
# What `all` ends in: whatever changes, the page of all of it is made anew.
LAST = {"all", "summary"}
RUNS_NOTHING = {"--dry-run", "--touch", "--unlock"}
SECONDS = 900


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


def copy_of_run(run: Path, folder: Path) -> Path:
    """A copy of a copy in which the workflow has run, time stamps and Snakemake's notes with it."""
    return Path(shutil.copytree(run, folder, symlinks=True))


def environment_of(folder: Path) -> dict[str, str]:
    """Snakemake keeps its source cache inside the copy."""
    return {**ENVIRONMENT, "XDG_CACHE_HOME": str(folder / ".cache")}


@cache
def _forks() -> subprocess.Popen:
    """The process that has imported Snakemake; it ends with this one."""
    command = [sys.executable, str(Path(__file__).with_name("snakemake_forks.py"))]
    forks = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(forks.communicate)  # closes its input, and waits
    return forks


def run_snakemake(
    arguments: list[str], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """`python -m snakemake ARGUMENTS` in a folder, what it prints and what it says; a quarter of an hour at most."""
    environment = environment_of(folder) if environment is None else environment
    if not RUNS_NOTHING & set(arguments):
        command = [sys.executable, "-m", "snakemake", *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as said:
        out, err = Path(said, "out"), Path(said, "err")
        request = {
            "folder": str(folder), "arguments": arguments, "environment": environment, "stdout": str(out),
            "stderr": str(err), "seconds": SECONDS,
        }  # fmt: skip
        forks = _forks()
        print(json.dumps(request), file=forks.stdin, flush=True)
        status = forks.stdout.readline()
        assert status, "the process that forks dry runs has ended"
        return subprocess.CompletedProcess(arguments, int(status), out.read_text(), err.read_text())


def snakemake(
    folder: Path, *arguments: str, preset: str = "smoke", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    return run_snakemake([*arguments, "--config", f"preset={preset}"], folder, environment)


def wanted(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, int]:
    """The jobs that Snakemake would run now, by rule; targets and the summary are left out."""
    planned = snakemake(folder, *arguments, "--dry-run", environment=environment)
    assert planned.returncode == 0, planned.stdout[-3000:] + planned.stderr[-3000:]
    stats = re.search(r"^job +count\n[-\s]+\n(.*?)\ntotal", planned.stdout, re.DOTALL | re.MULTILINE)
    if stats is None:
        assert "Nothing to be done" in planned.stdout + planned.stderr
        return {}
    forced = arguments[arguments.index("--forcerun") + 1] if "--forcerun" in arguments else None
    counts = dict(line.split() for line in stats[1].splitlines())
    return {rule: int(count) for rule, count in counts.items() if rule == forced or rule not in LAST | set(arguments)}


def jobs_of(said: str) -> list[tuple[str, dict[str, list[str]]]]:
    """The jobs that a dry run lists, as (rule, what it says of it by name: input, output, wildcards, ...)."""
    found = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", said, re.MULTILINE)
    return [
        (rule, {name: words.split(", ") for name, words in re.findall(r"^    (\w+): (.*)$", text, re.MULTILINE)})
        for rule, text in found
    ]


class Edits:
    """Changes files of a copy, and puts them back, time stamps and all; new ones go away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, {}

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        assert old in text, f"{path} no longer holds {old!r}: mend the test"
        self.write(path, text.replace(old, new))

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        self.kept.setdefault(file, (file.read_text(), file.stat()) if file.exists() else None)
        file.write_text(text)

    def undo(self) -> None:
        for file, kept in self.kept.items():
            if kept is None:
                file.unlink()
                continue
            text, stat = kept
            file.write_text(text)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self.kept.clear()
