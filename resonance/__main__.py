"""The command line, as `resonance ...` or `python -m resonance ...`, also where nothing is installed."""

import sys
from importlib.metadata import PackageNotFoundError, version


def main() -> None:
    if sys.argv[1:] == ["--version"]:  # here, so that it needs none of the workflow's libraries
        try:
            print(f"resonance-rope {version('resonance-rope')}")
        except PackageNotFoundError:
            sys.exit("error: resonance-rope is not installed, and a checkout has no version; pip install .")
        return
    try:
        from resonance.cli import main as run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("resonance"):
            raise
        sys.exit(
            f"error: {error.name} is not installed, which this command needs; in the checkout: "
            "pip install '.[workflow,llm]'"
        )


if __name__ == "__main__":
    main()
