"""Progress of a training: a bar on a terminal, plain lines in a log."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Shows loss, accuracy and time left. `report` takes what `train` reports."""

    def __init__(self, title: str, num_steps: int) -> None:
        self.title, self.num_steps = title, num_steps
        self.started, self.accuracy = 0.0, float("nan")
        console = Console(file=sys.stderr)
        self.bar = None
        if console.is_terminal:
            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.3f}"),
                TimeRemainingColumn(),
                console=console,
            )
            self.job = self.bar.add_task(title, total=num_steps, loss=float("nan"), accuracy=float("nan"))

    def __enter__(self) -> "Progress":
        self.started = time.perf_counter()
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def report(self, seen: dict) -> None:
        self.accuracy = seen.get("accuracy", self.accuracy)
        if self.bar:
            self.bar.update(self.job, completed=seen["step"], loss=seen["loss"], accuracy=self.accuracy)
        elif "accuracy" in seen:
            passed = time.perf_counter() - self.started
            left = passed / seen["step"] * (self.num_steps - seen["step"])
            print(
                f"{self.title}: step {seen['step']}/{self.num_steps} loss {seen['loss']:.4f} "
                f"accuracy {self.accuracy:.4f} elapsed {passed:.0f} s left {left:.0f} s",
                file=sys.stderr,
                flush=True,
            )
