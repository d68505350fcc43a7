"""The bar of a long job on a terminal; what stands in a log instead is the job's own. Imports no torch."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class JobProgress:
    """title and how much there is to do (None: not known); `bar` is None where no terminal shows it.

    shown   the column between the count and the time left
    fields  what it shows at first, by name
    """

    def __init__(
        self, title: str, total: int | None, shown: ProgressColumn, *, quiet: bool = False, **fields: object
    ) -> None:
        self.title, self.total = title, total
        self.started = time.perf_counter()
        console = Console(file=sys.stderr)
        self.bar = None
        if console.is_terminal and not quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), shown)
            self.bar = Bar(*columns, TimeRemainingColumn(), console=console)
            self.job = self.bar.add_task(title, total=total, **fields)

    def __enter__(self) -> "JobProgress":
        self.started = time.perf_counter()
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
