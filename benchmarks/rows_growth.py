"""Growth: a million keys, a million items, ten thousand tasks, eight writers."""

import multiprocessing
import multiprocessing.synchronize
import os
import time
from collections.abc import Iterable
from pathlib import Path

import rows_cachedict
from exca.cachedict import CacheDict
from registry import peak_memory, row, seconds
from rows_maps import halves, warm_up
from rows_tasks import trainer

MILLION = 1_000_000
QUARTER = MILLION // 4


def a_million(folder: Path) -> None:
    """Write a million items of a map: its cache is the CacheDict of a million keys, too."""
    assert sum(1 for _ in halves(folder, keep_in_ram=False).process(range(MILLION))) == MILLION


def cache_folder(folder: Path) -> Path:
    """Return where the map's cache is, found by its files: nothing of it is open in this process yet."""
    return next(folder.rglob("*-info.jsonl")).parent


@row("1,000,000 keys: open and get one", limit=0.020, stage=a_million, rounds=3)
def open_and_get(folder: Path) -> float:
    warm_up(folder)
    place = cache_folder(folder)
    values: list[float] = []
    took = seconds(lambda: values.append(CacheDict[float](place)["777777"]))
    assert values == [777777 / 2]
    return took


@row("1,000,000 keys: memory to open and get one", unit="MB", limit=60, stage=a_million, rounds=3)
def open_and_get_memory(folder: Path) -> float:
    warm_up(folder)
    place = cache_folder(folder)
    values: list[float] = []
    grown = peak_memory(lambda: values.append(CacheDict[float](place)["777777"]))
    assert values == [777777 / 2]
    return grown / 1e6


@row("1,000,000 keys: open and len", limit=0.100, stage=a_million, rounds=3)
def open_and_len(folder: Path) -> float:
    warm_up(folder)
    place = cache_folder(folder)
    sizes: list[int] = []
    took = seconds(lambda: sizes.append(len(CacheDict(place))))
    assert sizes == [MILLION]
    return took


def bytes_an_item(folder: Path, items: int) -> float:
    """Return the bytes by which a process grows at most, for each item of a map over cached items."""
    warm_up(folder)
    obj = halves(folder, keep_in_ram=False)
    seen: list[int] = []

    def ask() -> None:
        results = obj.process(range(items))
        seen.append(sum(1 for item, result in enumerate(results) if result == item / 2))

    grown = peak_memory(ask)
    assert seen == [items]
    return grown / items


@row("map of 1,000,000 cached items: memory per item", unit="B", stage=a_million, rounds=1)
def map_memory(folder: Path) -> float:
    return bytes_an_item(folder, MILLION)


@row("map of 250,000 cached items: memory per item", unit="B", stage=a_million, rounds=1)
def quarter_map_memory(folder: Path) -> float:
    return bytes_an_item(folder, QUARTER)


def first_time(folder: Path, items: int) -> float:
    """Return the seconds per item of a first map."""
    warm_up(folder)
    results: list[float] = []
    took = seconds(lambda: results.extend(halves(folder, keep_in_ram=False).process(range(items))))
    assert len(results) == items
    return took / items


@row("map, first time: 1,000,000 items beside 100,000, per item", unit="x", limit=1.3, rounds=1, beside=False)
def first_time_growth(folder: Path) -> float:
    return first_time(folder / "many", MILLION) / first_time(folder / "few", MILLION // 10)


@row("map, first time, 1,000,000 items: memory beyond the items", unit="MB", limit=150, rounds=1)
def first_time_memory(folder: Path) -> float:
    warm_up(folder)
    items = list(range(MILLION))
    obj = halves(folder, keep_in_ram=False)
    return peak_memory(lambda: sum(obj.process(items))) / 1e6


def again(folder: Path, items: int) -> float:
    """Return the seconds per item of a map whose items are cached, through a new object."""
    warm_up(folder)
    seen: list[int] = []
    took = seconds(
        lambda: seen.append(sum(1 for _ in halves(folder, keep_in_ram=False).process(range(items))))
    )
    assert seen == [items]
    return took / items


def cached_maps(folder: Path) -> None:
    """Write maps of three sizes."""
    for items in (MILLION // 10, MILLION, 5 * MILLION):
        place = folder / str(items)
        place.mkdir(parents=True)
        assert sum(1 for _ in halves(place, keep_in_ram=False).process(range(items))) == items


@row(
    "map, again, new object, 1,000,000 items, per item", limit=7e-6, stage=cached_maps, rounds=3, beside=False
)
def million_again(folder: Path) -> float:
    return again(folder / str(MILLION), MILLION)


@row(
    "map, again, new object, 5,000,000 items, per item", limit=7e-6, stage=cached_maps, rounds=1, beside=False
)
def five_million_again(folder: Path) -> float:
    return again(folder / str(5 * MILLION), 5 * MILLION)


@row(
    "map, again: 5,000,000 items beside 100,000, per item",
    unit="x",
    limit=1.3,
    stage=cached_maps,
    rounds=1,
    beside=False,
)
def again_growth(folder: Path) -> float:
    few = min(again(folder / str(MILLION // 10), MILLION // 10) for _ in range(3))
    return again(folder / str(5 * MILLION), 5 * MILLION) / few


def sweep(folder: Path, tasks: int) -> float:
    """Return the seconds to submit that many tasks, to list their results, and to read their states anew."""
    base = trainer(folder, 0)
    assert base.run() == 0.5
    seen: list[object] = []

    def submit_list_and_look() -> None:
        with base.infra.job_array() as array:
            array.extend(base.infra.clone_obj({"data.seed": seed}) for seed in range(1, tasks + 1))
        seen.append(sum(obj.run() for obj in base.infra.iter_cached()))
        seen.append({trainer(folder, seed).infra.status() for seed in range(1, tasks + 1)})

    took = seconds(submit_list_and_look)
    assert seen == [sum(range(tasks + 1)) + 0.5 * (tasks + 1), {"completed"}]
    return took


@row("sweep of 1,000 tasks in process: submit, list, states", rounds=1)
def small_sweep(folder: Path) -> float:
    return sweep(folder, 1_000)


@row("sweep of 10,000 tasks in process: submit, list, states", rounds=1, beside=False)
def big_sweep(folder: Path) -> float:
    return sweep(folder, 10_000)


@row("sweep of 10,000 tasks: time per task, beside one of 2,500", unit="x", limit=1.3, rounds=1, beside=False)
def sweep_growth(folder: Path) -> float:
    small = sweep(folder / "small", 2_500) / 2_500
    return sweep(folder / "big", 10_000) / 10_000 / small


def write_range(folder: Path, keys: Iterable[int], barrier: multiprocessing.synchronize.Barrier) -> None:
    rows_cachedict.warm_up(folder)
    cache: CacheDict[float] = CacheDict(folder)
    barrier.wait()
    with cache.write():
        for key in keys:
            cache[str(key)] = key / 2
    barrier.wait()


def keys_per_second(folder: Path, writers: int, each: int = 50_000) -> float:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(writers + 1)
    ranges = [range(each * writer, each * (writer + 1)) for writer in range(writers)]
    processes = [context.Process(target=write_range, args=(folder, keys, barrier)) for keys in ranges]
    for process in processes:
        process.start()
    barrier.wait(timeout=60)
    start = time.perf_counter()
    barrier.wait(timeout=300)
    took = time.perf_counter() - start
    for process in processes:
        process.join()
    cache: CacheDict[float] = CacheDict(folder)
    assert len(cache) == writers * each
    assert cache[str(writers * each - 1)] == (writers * each - 1) / 2
    return writers * each / took


WRITERS_LIMIT = min(4.0, max(1.0, (os.cpu_count() or 1) / 2))  # 4 times on 8 cores, nothing lost on 2


@row(
    "8 writers at once: throughput beside one", unit="x", limit=WRITERS_LIMIT, higher_is_better=True, rounds=3
)
def writers(folder: Path) -> float:
    return keys_per_second(folder / "eight", 8) / keys_per_second(folder / "one", 1)
