"""Progress of a training: a bar on a terminal, plain lines in a log."""

import sys
import time

from rich.progress import TextColumn

from resonance.record.progress import JobProgress


class Progress(JobProgress):
    """Shows loss, accuracy and time left. `report` takes what `train` reports."""

    def __init__(self, title: str, num_steps: int) -> None:
        shown = TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.3f}")
        super().__init__(title, num_steps, shown, loss=float("nan"), accuracy=float("nan"))
        self.accuracy = float("nan")

    def report(self, seen: dict) -> None:
        self.accuracy = seen.get("accuracy", self.accuracy)
        if self.bar:
            self.bar.update(self.job, completed=seen["step"], loss=seen["loss"], accuracy=self.accuracy)
        elif "accuracy" in seen:
            passed = time.perf_counter() - self.started
            left = passed / seen["step"] * (self.total - seen["step"])
            print(
                f"{self.title}: step {seen['step']}/{self.total} loss {seen['loss']:.4f} "
                f"accuracy {self.accuracy:.4f} elapsed {passed:.0f} s left {left:.0f} s",
                file=sys.stderr,
                flush=True,
            )
