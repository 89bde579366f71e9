"""Steps for the tests, importable by the jobs that run them."""

import os
import threading
import time
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic

from exca import steps


class Numbers(steps.Step):
    size: int = 3
    workers: int = 1

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "workers"]

    def _run(self) -> list[int]:
        return list(range(self.size))


class Plus(steps.Step):
    value: float = 1.0

    def _run(self, x: float) -> float:
        return x + self.value


class Times(steps.Step):
    coeff: float = 2.0

    def _run(self, x: tp.Any) -> tp.Any:
        return [k * self.coeff for k in x] if isinstance(x, list) else x * self.coeff


class Noted(steps.Step):
    """Adds a number, and notes in a file that it was computed."""

    notes: Path
    value: float = 1.0
    name: str = ""
    seconds: float = 0.0
    gate: Path | None = None  # a file to wait for

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "notes", "seconds", "gate"]

    def _run(self, x: float) -> float:
        note(self.notes, f"{self.name}{x:g}")
        if self.seconds:
            time.sleep(self.seconds)
        while self.gate is not None and not self.gate.exists():
            time.sleep(0.02)
        return x + self.value


def note(folder: Path, text: str) -> None:
    """Append a line to a file of this thread: lines of others are never torn."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{os.getpid()}-{threading.get_ident()}", "a") as f:
        f.write(f"{text}\n")


def noted(folder: Path) -> list[str]:
    """All lines, sorted."""
    return sorted(line for path in folder.glob("*") for line in path.read_text().splitlines())


class Fails(steps.Step):
    """Fails for negative values, unless a file allows them."""

    allowed: Path = Path("nowhere")

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "allowed"]

    def _run(self, x: float) -> float:
        if x < 0 and not self.allowed.exists():
            raise ArithmeticError(f"{x:g} is below zero")
        return x


class Batch(steps.Step):
    """Yields too many (or too few) results, or fails on its way."""

    surplus: int = 0
    fail_at: int = -1
    eager: bool = True

    def _run_batch(self, values: Iterator[int]) -> Iterator[int]:
        items: tp.Iterable[int] = list(values) if self.eager else values
        for count, value in enumerate(items):
            if value == self.fail_at:
                raise ArithmeticError(f"no result for {value}")
            if isinstance(items, list) and count >= len(items) + self.surplus:
                return
            yield 10 * value
        for _ in range(self.surplus):
            yield -1


class Decomposed(steps.Step):
    """Stands for itself and its transforms."""

    size: int = 2
    transforms: list[steps.Step] = []

    def _run(self) -> list[int]:
        return list(range(self.size))

    def _resolve_step(self) -> steps.Step:
        if not self.transforms:
            return self
        return steps.Chain(steps=[self.model_copy(update={"transforms": []}), *self.transforms])


class Circle(steps.Step):
    def _resolve_step(self) -> steps.Step:
        return steps.Chain(steps=[Plus(), self])


class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    step: steps.Step


class Named(steps.Step, discriminator_key="name"):
    def _run(self, x: float) -> float:
        return x


class Sub(Named):
    k: int = 0


class NamedChain(steps.Chain, Named):
    pass


class NamedHolder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    step: Named


class Unpicklable(steps.Step):
    _lock: tp.Any = pydantic.PrivateAttr(default_factory=threading.Lock)

    def _run(self, x: float) -> float:
        return x


class Planned(steps.Step):
    """Gives what a file says, once there is a file of that name; fails where it says "fail"."""

    place: Path

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "place"]

    def _run(self, x: tp.Any) -> str:
        plan = (self.place / "plan").read_text()
        note(self.place / "started", plan)
        while not (self.place / plan).exists() and self.place.exists():
            time.sleep(0.02)
        if plan == "fail":
            raise ArithmeticError(f"no result for {x}")
        return f"{plan} {x}"


class Weighted(steps.Step):
    """Multiplies by the sum of its weights, of which it may make more."""

    weights: list[float]
    grows: bool = False

    def _run(self, x: float) -> float:
        if self.grows:
            self.weights.append(1)
        return x * sum(self.weights)
