"""The command line, as `resonance ...`: puts the wings' commands together. Every workflow rule is one of these lines.

Bad input ends in one line on stderr and status 2, without a traceback.
"""

import os
import sys

import typer

from resonance.hf import cli as hf
from resonance.leval import cli as leval
from resonance.llm import cli as llm
from resonance.posgen import cli as posgen
from resonance.record.files import DISK
from resonance.workflow import cli as workflow

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Resonance RoPE and PosGen (--version: which).",
)
for name, wing in (("posgen", posgen), ("llm", llm), ("leval", leval), ("config", workflow)):
    app.add_typer(wing.app, name=name)
app.command("plan")(workflow.plan)
app.command("collect")(workflow.collect)
app.command("trace", context_settings={"ignore_unknown_options": True})(workflow.trace)  # -11.30 is no option
app.command("crate")(workflow.crate)
app.command("inspect")(hf.inspect)
app.command("export")(hf.export)


def main() -> None:
    """The console script: as `app`, with one line for every error that a user can mend."""
    try:
        for argument in sys.argv:
            if not argument.isascii() and argument != argument.encode(errors="replace").decode():
                raise ValueError(f"an argument must be UTF-8, as paths written into files are, got {argument!a}")
        app()
    except (ValueError, FloatingPointError, OSError, MemoryError, RuntimeError) as error:
        if os.environ.get("RESONANCE_TRACEBACK") or not (said := _said(error)):
            raise
        print(f"error: {' '.join(said.split())}", file=sys.stderr)
        sys.exit(2)


def _said(error: Exception) -> str:
    """What a user is told of an error; nothing where it is ours to mend."""
    if isinstance(error, OSError) and error.strerror:
        said = f"{error.strerror}: {error.filename or 'a file'}"
        return f"{said}; nothing half-written is kept" if error.errno in DISK else said
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc" in str(error)):
        return f"out of memory ({str(error)[:120]}); ask for smaller sizes"
    return "" if isinstance(error, RuntimeError) else str(error)


if __name__ == "__main__":
    main()
