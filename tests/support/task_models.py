"""Configurations that the tests of tasks run, importable by jobs."""

import os
import sys
import time
import typing as tp
from pathlib import Path

import numpy as np
import pydantic

import exca


def given(value: object) -> tp.Any:
    """Return what a user gives for a field, such as a dict, which pydantic makes the field's type of."""
    return value


class Conv(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["conv"] = "conv"
    layers: int = 12


class Transformer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["transformer"] = "transformer"
    layers: int = 12
    embeddings: int = 128


class Double(pydantic.BaseModel):
    """Doubles a number, and leaves a line in a file for each time it was computed."""

    x: int = 1
    label: str = "none"
    model: Conv | Transformer = pydantic.Field(default=Conv(), discriminator="name")
    trace: Path | None = None
    infra: exca.TaskInfra = exca.TaskInfra(version="1")
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("trace",)

    @infra.apply
    def compute(self) -> int:
        """Twice x."""
        if self.trace is not None:
            with open(self.trace, "a") as f:
                f.write(f"{self.x} {os.getpid()}\n")
        return 2 * self.x


class Failing(pydantic.BaseModel):
    """Fails in the way it is told, as long as a file says so."""

    kind: str = "ValueError"
    switch: Path | None = None
    infra: exca.TaskInfra = exca.TaskInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("switch",)

    @infra.apply
    def run(self) -> str:
        print("about to fail")
        if self.switch is not None and self.switch.exists():
            return "mended"
        if self.kind == "own":
            raise OwnError(3, reason="own constructor")
        if self.kind == "unpicklable":
            return tp.cast(str, (x for x in range(3)))
        if self.kind == "kill":
            os.kill(os.getpid(), 9)
        if self.kind == "exit":
            os._exit(17)
        raise ValueError("the value is wrong")


class OwnError(RuntimeError):
    """An error whose constructor takes more than a message, so that it does not unpickle by itself."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"number {number}: {reason}")
        self.number = number


class Arrays(pydantic.BaseModel):
    """Returns nested data with arrays."""

    size: int = 3
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def build(self) -> dict[str, tp.Any]:
        return {"array": np.arange(self.size), "names": ("a", "b"), "nested": [{"x": 1.5}, None]}


class Limited(pydantic.BaseModel):
    """Returns an array of 80 KB from a process whose files may have no more than so many bytes."""

    limit: int
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def build(self) -> tp.Any:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        return np.ones(10_000)


class Planned(pydantic.BaseModel):
    """Does what a file says: "fail", or a value to return once ``gate`` is there."""

    place: Path
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("place",)

    @infra.apply
    def run(self) -> str:
        plan = (self.place / "plan").read_text()
        with (self.place / f"started-{plan}-{self.x}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if plan == "fail":
            raise ValueError("as planned")
        while not (self.place / "gate").exists():
            time.sleep(0.01)
        return plan


class Asking(pydantic.BaseModel):
    """Asks another one for its result, once both are at work."""

    name: str
    place: Path
    asks: dict[str, str] = {}
    infra: exca.TaskInfra = exca.TaskInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("place", "asks")

    @infra.apply
    def run(self) -> int:
        (self.place / self.name).touch()
        while not all((self.place / name).exists() for name in self.asks):
            time.sleep(0.01)
        return 1 + Asking(**{**dict(self), "name": self.asks[self.name]}).run()


class Sleeper(pydantic.BaseModel):
    """Says that it started and waits until a file is there."""

    gate: Path
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        print("started", flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        mine = Path(f"{self.started()}.{os.getpid()}")
        mine.write_text(f"{os.getpid()}\n")
        try:
            os.link(mine, self.started())  # whole from the moment that it is there: tests wait for that
        except FileExistsError:
            with self.started().open("a") as f:
                f.write(mine.read_text())
        while not self.gate.exists():
            time.sleep(0.02)
        return self.x

    def started(self) -> Path:
        return Path(f"{self.gate}.{self.x}.started")


class HalvesOrCalls(pydantic.BaseModel):
    """Halves the items of a map, or numbers one call at a time."""

    infra: exca.MapInfra = exca.MapInfra()
    calls: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply(item_uid=str)
    def process(self, items: tp.Iterable[int]) -> tp.Iterator[float]:
        for item in items:
            yield item / 2

    @calls.apply
    def half(self, x: int) -> float:
        return x / 2
