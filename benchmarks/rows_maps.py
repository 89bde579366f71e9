"""Maps: 100,000 ints to floats, in process."""

import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic

import exca
from registry import aside, row, seconds, seconds_per_call

ITEMS = 100_000


class Halves(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[float]:
        for item in items:
            yield item / 2


def halves(folder: Path, **infra: tp.Any) -> Halves:
    return Halves.model_validate({"infra": {"folder": folder, **infra}})


def warm_up(folder: Path) -> None:
    """Load what a first map of many items loads, in a folder that is not the one measured."""
    unused = aside(folder)
    for _ in range(2):
        assert len(list(halves(unused).process(range(5000)))) == 5000


def cached_items(folder: Path) -> None:
    assert sum(halves(folder).process(range(ITEMS))) == sum(range(ITEMS)) / 2


@row("map, first time, per item", bar=8, than=("SQLite", 1.2))
def first_time(folder: Path) -> float:
    warm_up(folder)
    results: list[float] = []
    took = seconds(lambda: results.extend(halves(folder).process(range(ITEMS))))
    assert results == [item / 2 for item in range(ITEMS)]
    return took / ITEMS


@row("map, again, new object, from disk, per item", bar=4, stage=cached_items)
def again(folder: Path) -> float:
    warm_up(folder)
    results: list[float] = []
    took = seconds(lambda: results.extend(halves(folder).process(range(ITEMS))))
    assert results == [item / 2 for item in range(ITEMS)]
    return took / ITEMS


@row("map, one item out of 100,000 cached, new object", bar=50, than=("SQLite", 1), stage=cached_items)
def one_of_many(folder: Path) -> float:
    """The first question of a new process."""
    warm_up(folder)
    results: list[float] = []
    took = seconds(lambda: results.extend(halves(folder).process([77_777])))
    assert results == [77_777 / 2]
    return took


@row("map, one cached item, same object", bar=2, stage=cached_items)
def one_item_same_object(folder: Path) -> float:
    obj = halves(folder)
    assert list(obj.process([5])) == [2.5]
    return seconds_per_call(lambda: list(obj.process([5])), 2000)


@row("map of floats: bytes on disk per item", unit="B", limit=60, stage=cached_items, rounds=1)
def bytes_on_disk(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / ITEMS
