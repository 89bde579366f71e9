"""Configurations that the tests of maps run, importable by jobs."""

import os
import threading
import time
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic

import exca

Infra = dict[str, tp.Any]


class Halves(pydantic.BaseModel):
    """Halves numbers, leaves a line for each that it computed, and fails at some as it is told."""

    factor: float = 0.5
    trace: Path | None = None
    fail_at: int | None = None
    how: str = "error"
    gate: Path | None = None  # items wait until this file is there
    infra: exca.MapInfra = exca.MapInfra(version="1")
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("trace", "fail_at", "how", "gate")

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[float]:
        """Half of each."""
        for item in items:
            if item == self.fail_at:
                self.fail(item)
            if self.trace is not None:
                with open(self.trace, "a") as f:
                    f.write(f"{item} {os.getpid()} {threading.get_ident()}\n")
            while self.gate is not None and not self.gate.exists():
                time.sleep(0.01)
            yield self.factor * item

    def fail(self, item: int) -> None:
        if self.how == "kill":
            os.write(2, b"last words\n")
            os.kill(os.getpid(), 9)
        if self.how == "own":
            raise OwnError(item, reason="own constructor")
        raise ValueError(f"cannot halve {item}")


class OwnError(RuntimeError):
    """An error whose constructor takes more than a message, so that it does not unpickle by itself."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"number {number}: {reason}")


class Counted:
    """An object that counts in a file how often it is pickled."""

    def __init__(self, counter: Path) -> None:
        self.counter = counter

    def __reduce__(self) -> tuple[tp.Any, ...]:
        with open(self.counter, "a") as f:
            f.write("x")
        return Counted, (self.counter,)


class Heavy(pydantic.BaseModel):
    """Carries an object that counts how often it is pickled."""

    infra: exca.MapInfra = exca.MapInfra()
    _large: Counted | None = pydantic.PrivateAttr(default=None)

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[bool]:
        for _ in items:
            yield self._large is not None


class Odd(pydantic.BaseModel):
    """Yields as many outputs as it is told, whatever it is given."""

    outputs: int | None = 1
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[int]:
        if self.outputs is None:
            return tp.cast(Iterator[int], None)
        return iter(range(self.outputs))


def halves(infra: Infra, **fields: tp.Any) -> Halves:
    return Halves.model_validate({"infra": infra, **fields})


def computed(trace: Path) -> list[int]:
    """The items that were computed, sorted; one that was computed twice stands twice."""
    return sorted(int(line.split()[0]) for line in trace.read_text().splitlines()) if trace.exists() else []


class Needing(pydantic.BaseModel):
    """Counts what an item needs, itself included: items of others, which need items in turn.

    Where two items are to be at work at the same time, each waits for the trace of the other.
    """

    name: str
    place: Path
    needs: dict[str, str] = {}  # of "name item"
    together: tuple[str, ...] = ()
    how: str = "one by one"
    infra: exca.MapInfra = exca.MapInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("place", "needs", "together", "how")

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[str]) -> Iterator[int]:
        if self.how == "counted":
            assert len(tp.cast(tp.Sized, items)) > 0
        for item in list(items) if self.how == "all at once" else items:
            me = f"{self.name} {item}"
            with (self.place / "trace").open("a") as file:
                file.write(f"{me}\n")
            while me in self.together and not set(self.together) <= set(self.trace()):
                time.sleep(0.01)
            needed = self.needs.get(me)
            yield 1 if needed is None else 1 + self.other(needed)

    def trace(self) -> list[str]:
        return (self.place / "trace").read_text().splitlines()

    def other(self, needed: str) -> int:
        name, item = needed.split()
        other = self if name == self.name else self.infra.clone_obj(name=name)
        return next(iter(other.process([item])))
