"""Slurm's commands as the workflow calls them."""

import os
from pathlib import Path


def send_patiently(root: Path) -> None:
    """Put the sbatch that waits for a busy controller (profiles/slurm/bin) before Slurm's own in PATH."""
    os.environ["PATH"] = f"{root / 'profiles/slurm/bin'}{os.pathsep}{os.environ['PATH']}"
