"""The calls of `conda` that Snakemake makes, answered by rattler: a test tool, and not conda.

  conda info --json | --version | config --get channel_priority --json
  conda env create --file FILE --prefix PREFIX | clean
  source activate PREFIX    (bin/activate)

Channels come from the local folder RESONANCE_TEST_CHANNELS (channel.py makes them): conda-forge is its
subfolder of that name, and nothing is fetched.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import rattler
import yaml

VERSION = "24.7.1"  # the oldest that Snakemake takes


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--version"]:
        print(f"conda {VERSION}")
    elif arguments == ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(Path(__file__).resolve().parent), "platform": "linux-64"}))
    elif arguments == ["config", "--get", "channel_priority", "--json"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif arguments[:1] == ["clean"]:
        pass  # the cache goes with the channel's folder
    elif arguments[:2] == ["env", "create"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--file", type=Path, required=True)
        parser.add_argument("--prefix", type=Path, required=True)
        parser.add_argument("--quiet", action="store_true")
        parser.add_argument("--no-default-packages", action="store_true")
        asked = parser.parse_args(arguments[2:])
        create(asked.file, asked.prefix)
    else:
        sys.exit(f"error: not a call of conda that Snakemake is known to make: {arguments}")


def create(file: Path, prefix: Path) -> None:
    """Solve and install an environment, then its pip section, as conda does."""
    wanted = yaml.safe_load(file.read_text())
    folder = Path(os.environ["RESONANCE_TEST_CHANNELS"])
    channels = [rattler.Channel((folder / name).as_uri()) for name in wanted["channels"] if name != "nodefaults"]
    specs = [rattler.MatchSpec(spec, strict=True) for spec in wanted["dependencies"] if isinstance(spec, str)]
    asyncio.run(_install(channels, specs, prefix, folder / "cache"))
    for section in wanted["dependencies"]:
        if isinstance(section, dict):
            _pip(section["pip"], prefix)


async def _install(channels: list, specs: list, prefix: Path, cache: Path) -> None:
    records = await rattler.solve(channels, specs, virtual_packages=rattler.VirtualPackage.detect())
    await rattler.install(records, prefix, cache_dir=cache, show_progress=False)
    for record in sorted(records, key=lambda record: record.name.normalized):
        print(f"{record.name.normalized} {record.version} from {record.url}")


def _pip(requirements: list[str], prefix: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        subprocess.run([prefix / "bin/python", "-m", "pip", "install", "--quiet", "-U", "-r", file.name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
