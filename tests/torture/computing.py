"""What the crowd computes: a task and a map whose computations are noted, one line each, in a journal."""

import contextlib
import os
import threading
import time
import typing as tp
from pathlib import Path

import numpy as np
import pydantic

import exca
import exca.steps


def now() -> float:
    """Seconds that are the same for all processes, and that no faked clock changes."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def value_of(n: int) -> tp.Any:
    """What comes out for a number: a number, an array, or a nested value."""
    if n % 3 == 0:
        return n * n
    if n % 3 == 1:
        return np.arange(n, n + 50)
    return {"n": n, "text": "x" * n, "halves": [n / 2, (n, None)]}


def same(value: tp.Any, n: int) -> bool:
    """Whether this is what comes out for the number."""
    wanted = value_of(n)
    if isinstance(wanted, np.ndarray):
        return isinstance(value, np.ndarray) and value.dtype == wanted.dtype and np.array_equal(value, wanted)
    return type(value) is type(wanted) and bool(value == wanted)


def note(journal: str, line: str) -> None:
    """Add a line to this thread's file of the journal, in one write."""
    name = Path(journal, f"{os.getpid()}-{threading.get_ident()}.log")
    fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(fd, f"{line} {now():.6f}\n".encode())
    finally:
        os.close(fd)


@contextlib.contextmanager
def noted(journal: str, key: str, seconds: float) -> tp.Iterator[None]:
    """Note the start and the end of a computation that takes so many seconds."""
    if journal:
        note(journal, f"S {key}")
    time.sleep(seconds)
    yield
    if journal:
        note(journal, f"E {key}")


class Number(pydantic.BaseModel):
    """A task."""

    n: int
    journal: str = ""
    seconds: float = 0.0
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply(exclude_from_cache_uid=("journal", "seconds"))
    def compute(self) -> tp.Any:
        """The value of n."""
        with noted(self.journal, f"t{self.n}", self.seconds):
            return value_of(self.n)


class Numbers(pydantic.BaseModel):
    """A map."""

    journal: str = ""
    seconds: float = 0.0
    infra: exca.MapInfra = exca.MapInfra(keep_in_ram=False)

    @infra.apply(item_uid=str, exclude_from_cache_uid=("journal", "seconds"))
    def compute(self, items: tp.Iterable[int]) -> tp.Iterator[tp.Any]:
        """The values of the items."""
        for n in items:
            with noted(self.journal, f"m{n}", self.seconds):
                value = value_of(n)
            yield value


class Needing(pydantic.BaseModel):
    """Maps whose items need lower items of each other, so that batches need each other's without any circle."""

    name: tp.Literal["x", "y"] = "x"
    journal: str = ""
    seconds: float = 0.0
    infra: exca.MapInfra = exca.MapInfra(keep_in_ram=False)

    @infra.apply(item_uid=str, exclude_from_cache_uid=("journal", "seconds"))
    def compute(self, items: tp.Iterable[int]) -> tp.Iterator[tp.Any]:
        """The values of the items."""
        other = self.infra.clone_obj(name="y" if self.name == "x" else "x")
        for n in items:
            lower = sorted({n // 2, n * 5 % max(n, 1), n - 1} - {n, -1})
            if not all(map(same, other.compute(lower), lower)):
                raise AssertionError(f"wrong values for {lower}")
            with noted(self.journal, f"n{self.name}{n}", self.seconds):
                value = value_of(n)
            yield value


class Stage(exca.steps.Step):
    """A stage of a pipeline."""

    journal: str = ""
    seconds: float = 0.0

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return ["journal", "seconds"]

    def _run(self, n: int) -> tp.Any:
        with noted(self.journal, f"p{n}", self.seconds):
            return value_of(n)
