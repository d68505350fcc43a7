"""The command line, as `resonance ...`: puts the wings' commands together. Every workflow rule is one of these lines.

Bad input ends in one line on stderr and status 2, without a traceback.
"""

import os
import sys

import typer

from resonance.leval import cli as leval
from resonance.llm import cli as llm
from resonance.posgen import cli as posgen
from resonance.workflow import cli as workflow

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Resonance RoPE and PosGen (--version: which).",
)
for name, wing in (("posgen", posgen), ("llm", llm), ("leval", leval), ("config", workflow)):
    app.add_typer(wing.app, name=name)
app.command("plan")(workflow.plan)
app.command("collect")(workflow.collect)


def main() -> None:
    """The console script: as `app`, with one line for every error that a user can mend."""
    try:
        app()
    except (ValueError, FloatingPointError, FileNotFoundError, PermissionError) as error:
        if os.environ.get("RESONANCE_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(
            f"error: {error.strerror or error}: {error.filename or ''}; nothing half-written is kept", file=sys.stderr
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
