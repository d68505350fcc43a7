"""Progress of a long job: a bar on a terminal, about twenty plain lines in a log."""

import sys
import time

from rich.progress import TextColumn

from resonance.record.progress import JobProgress


class Progress(JobProgress):
    """title and how much there is to do (None: not known); `report(done, note)` as it goes on."""

    def __init__(self, title: str, total: int | None, *, quiet: bool = False) -> None:
        super().__init__(title, total, TextColumn("{task.fields[note]}"), quiet=quiet, note="")
        self.quiet, self.shown = quiet, 0.0

    def report(self, done: int, note: str = "") -> None:
        if self.quiet:
            return
        if self.bar:
            self.bar.update(self.job, completed=done, note=note)
            return
        passed = time.perf_counter() - self.started
        due = done / self.total >= self.shown if self.total else passed >= self.shown
        if due:
            self.shown = (int(20 * done / self.total) + 1) / 20 if self.total else passed + 10
            of = f"/{self.total}" if self.total else ""
            print(f"{self.title}: {done}{of} {note} elapsed {passed:.0f} s", file=sys.stderr, flush=True)
