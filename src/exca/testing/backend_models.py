"""What the tests of a backend run in its jobs, and a submitter that can be killed."""

import json
import os
import signal
import typing as tp
from pathlib import Path

import pydantic

import exca
from exca import steps
from exca._polling import Poller

BEGAN = "began"  # file of a task that waits, with its process


class Task(pydantic.BaseModel):
    """Doubles a number, or does something else on the way."""

    x: int = 2
    how: tp.Literal["double", "fail", "die", "wait"] = "double"
    folder: Path | None = None  # where a task that waits leaves word, and looks for a file called "go"
    infra: exca.TaskInfra = exca.TaskInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("folder",)

    @infra.apply
    def compute(self) -> int:
        """Return the double."""
        print(f"computing {self.x}", flush=True)  # noqa: T201  # to the logs of the job
        if self.how == "fail":
            raise ZeroDivisionError(f"this is the error of {self.x}")
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "wait":
            assert self.folder is not None
            with (self.folder / BEGAN).open("a") as f:
                f.write(f"{os.getpid()}\n")
            until((self.folder / "go").exists, "is told to go on")
        return 2 * self.x


class Items(pydantic.BaseModel):
    """Doubles many numbers."""

    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def compute(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        """Yield the double of each; there is none of 13."""
        for item in items:
            if item == 13:
                raise ZeroDivisionError("this is the error of 13")
            yield 2 * item


class Call(pydantic.BaseModel):
    """Adds two numbers."""

    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def add(self, a: int, b: int) -> int:
        """Return the sum."""
        return a + b


class Double(steps.Step):
    """A step that doubles."""

    def _run(self, value: int) -> int:
        return 2 * value


def until(condition: tp.Callable[[], object], what: str, timeout: float = 90.0) -> None:
    """Wait until a condition holds; raises TimeoutError after the time."""
    poller = Poller(timeout)
    while not condition():
        if not poller.pause():
            raise TimeoutError(f"waited {timeout:.0f} s in vain until it {what}")


def main(fields: str, how: str, folder: str) -> None:
    """Submit a task, and end: as a process does, or, for how="crash", before it noted which job it became."""
    task = Task.model_validate({"x": 21, "how": "wait", "folder": folder, "infra": json.loads(fields)})
    if how == "crash":
        from exca.engine import record

        def end(*args: object, **kwargs: object) -> None:
            os._exit(0)

        record.note_submission = end
    print(task.infra.job().job_id, flush=True)  # noqa: T201  # for the process that started this one
