"""The command line, as `resonance ...` or `python -m resonance ...`, also where nothing is installed."""

import sys


def main() -> None:
    if sys.argv[1:] == ["--version"]:  # also without the workflow's libraries
        from importlib.metadata import version

        print(f"resonance-rope {version('resonance-rope')}")
        return
    try:
        from resonance.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("resonance"):
            raise
        sys.exit(
            f"error: {error.name} is not installed, which the workflow needs; pip install 'resonance-rope[workflow]'"
        )
    run()


if __name__ == "__main__":
    main()
