"""Snakemake's dry runs, each a fork of one process that has imported it: the imports are most of their time.

A program of its own: a JSON object a line comes in (folder, arguments, environment, files for what is said, seconds),
and a line with the exit status goes out. Nothing of `resonance` or `figures` is imported before the fork, so that
every run reads those of its own folder; what they import of others is.
"""

import json
import os
import signal
import sys
import traceback

import numpy  # noqa: F401
import polars  # noqa: F401
import pydantic  # noqa: F401
import snakemake.cli
import yaml  # noqa: F401


def answer(line: str) -> int:
    """The exit status of one run, negative for the signal that ended it."""
    child = os.fork()
    if child == 0:
        _run(**json.loads(line))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(
    folder: str, arguments: list[str], environment: dict[str, str], stdout: str, stderr: str, seconds: int
) -> None:
    """As `python -m snakemake ...` in that folder, and never back."""
    status = 1
    try:
        signal.alarm(seconds)
        for number, path in ((0, os.devnull), (1, stdout), (2, stderr)):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["snakemake", *arguments]
        sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        snakemake.cli.main(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: a test file is nobody's module
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for request in sys.stdin:
        print(answer(request), file=answers, flush=True)
