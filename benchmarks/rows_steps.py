"""Pipelines: chains of ten steps, and many items, all cached."""

import typing as tp
from pathlib import Path

from exca import steps
from registry import aside, row, seconds, seconds_per_call

ITEMS = 10_000
BACKEND = "Cached"


class Load(steps.Step):
    size: int = 3

    def _run(self) -> list[float]:
        return [float(k) for k in range(self.size)]


class Scale(steps.Step):
    factor: float = 2.0
    offset: float = 0.0

    def _run(self, x: tp.Any) -> tp.Any:
        return [k * self.factor for k in x] if isinstance(x, list) else x * self.factor + self.offset


def ten_steps(folder: Path, *, each: bool = False) -> steps.Chain:
    """Return a chain of ten, cached at its end or at each step."""
    parts = [Load(), *(Scale(factor=1 + k / 8) for k in range(9))]
    if each:
        inner = {"backend": BACKEND, "folder": folder}
        parts = [part.model_copy(update={"infra": steps.backends.Cached(folder=folder)}) for part in parts]
        return steps.Chain(steps=parts, infra=inner)
    return steps.Chain(steps=parts, infra={"backend": BACKEND, "folder": folder})


def many(folder: Path) -> steps.Chain:
    """Return a chain of three over items."""
    parts = [Scale(factor=2), Scale(factor=3), Scale(offset=1)]
    return steps.Chain(steps=parts, infra={"backend": BACKEND, "folder": folder})


def ten_cached(folder: Path) -> None:
    ten_steps(folder, each=True).run()


def items_cached(folder: Path) -> None:
    list(many(folder).run_many(range(ITEMS)))


@row("steps, warm run of a ten-step chain, same object", bar=5, stage=ten_cached)
def same_object(folder: Path) -> float:
    chain = ten_steps(folder)
    expected = chain.run()
    assert chain.run() == expected
    return seconds_per_call(chain.run, 300)


@row("steps, warm run of a ten-step chain, new object", bar=5, stage=ten_cached)
def new_object(folder: Path) -> float:
    assert ten_steps(folder).run() == ten_steps(folder).run()
    return seconds_per_call(lambda: ten_steps(folder).run(), 10)


@row("steps, the same with each step cached, new object", bar=5, stage=ten_cached)
def new_object_each_cached(folder: Path) -> float:
    assert ten_steps(folder, each=True).run() == ten_steps(folder).run()
    return seconds_per_call(lambda: ten_steps(folder, each=True).run(), 10)


@row("steps, run_many over 10,000 cached items, same object, per item", bar=3, stage=items_cached)
def many_same_object(folder: Path) -> float:
    chain = many(folder)
    assert len(list(chain.run_many(range(ITEMS)))) == ITEMS
    return seconds(lambda: list(chain.run_many(range(ITEMS)))) / ITEMS


@row("steps, run_many over 10,000 cached items, new object, per item", bar=3, stage=items_cached)
def many_new_object(folder: Path) -> float:
    many(aside(folder)).run(1)
    return seconds(lambda: list(many(folder).run_many(range(ITEMS)))) / ITEMS


@row("steps, run_many over 10,000 items, first time, per item", rounds=1)
def many_first_time(folder: Path) -> float:
    many(aside(folder)).run(1)
    return seconds(lambda: list(many(folder).run_many(range(ITEMS)))) / ITEMS
