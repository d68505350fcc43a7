"""Progress of a long job: a bar on a terminal, plain lines in a log. Imports no torch."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINES = 20
"""Lines that a log gets of one job, about."""


class Progress:
    """title and how much there is to do (None: not known); `report(done, note)` as it goes on.

    found  how much of it a run before this one had done
    """

    def __init__(self, title: str, total: int | None, *, found: int = 0, quiet: bool = False) -> None:
        self.title, self.total, self.found, self.quiet = title, total, found, quiet
        self.started, self.shown, self.bar = time.perf_counter(), 0.0, None
        console = Console(file=sys.stderr)
        if console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            note = TextColumn("{task.fields[note]}")
            self.bar = Bar(*columns, note, TimeRemainingColumn(), console=console)
            self.job = self.bar.add_task(title, total=total, completed=found, note="")

    def __enter__(self) -> "Progress":
        self.started = time.perf_counter()
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def report(self, done: int, note: str = "", *, line: bool = False) -> None:
        """line: print one to the log though it is not due."""
        if self.quiet:
            return
        if self.bar:
            self.bar.update(self.job, completed=done, note=note)
            return
        passed = time.perf_counter() - self.started
        due = done / self.total >= self.shown if self.total else passed >= self.shown
        if due or line:
            self.shown = (int(LINES * done / self.total) + 1) / LINES if self.total else passed + 10
            of = f"/{self.total}" if self.total else ""
            new = done - self.found
            left = f" left {passed / new * (self.total - done):.0f} s" if self.total and new > 0 else ""
            print(f"{self.title}: {done}{of} {note} elapsed {passed:.0f} s{left}", file=sys.stderr, flush=True)
