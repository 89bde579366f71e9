"""Percentiles under eight processes at once: a cached call, `CacheDict` put and get.

Eight processes begin together, and each times every call of its own; the percentiles are those of all calls. A stage
writes them down, so that one run gives all three.
"""

import json
import multiprocessing
import multiprocessing.synchronize
import statistics
import time
import typing as tp
from collections.abc import Callable, Sequence
from pathlib import Path

from exca.cachedict import CacheDict
from registry import Measure, Stage, row
from rows_tasks import trainer

PROCESSES, CALLS = 8, 250
PERCENTILES = (50, 95, 99)
CALL, GET, PUT = "cached call, same object", "CacheDict get", "CacheDict put"
# called in each process with the folder and its number; returns what is timed, given a number from 0 to CALLS
Prepare = Callable[[Path, int], Callable[[int], object]]


def title(what: str, percentile: int) -> str:
    return f"{what}, 8 processes at once: p{percentile}"


def timed(prepare: Prepare, folder: Path, number: int, barrier: multiprocessing.synchronize.Barrier) -> None:
    """Time the calls of one process, and write them down."""
    call = prepare(folder, number)
    took = [0] * CALLS
    clock = time.perf_counter_ns
    barrier.wait(timeout=120)
    for index in range(CALLS):
        start = clock()
        call(index)
        took[index] = clock() - start
    barrier.wait(timeout=120)  # what is done at the end by one does not fall into the calls of another
    folder.with_name(f"times-{number}.json").write_text(json.dumps(took))


def write_percentiles(prepare: Prepare, folder: Path) -> None:
    """Have eight processes call at once, and write the percentiles of all calls, in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    processes = [
        context.Process(target=timed, args=(prepare, folder, number, barrier)) for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    took: list[int] = []
    for number in range(PROCESSES):
        took += json.loads(folder.with_name(f"times-{number}.json").read_text())
    cuts = statistics.quantiles(took, n=100)
    found = {str(percentile): cuts[percentile - 1] / 1e9 for percentile in PERCENTILES}
    folder.with_name("percentiles.json").write_text(json.dumps(found))


def percentile_of(percentile: int) -> Measure:
    def measure(folder: Path) -> float:
        return float(json.loads(folder.with_name("percentiles.json").read_text())[str(percentile)])

    measure.__module__ = __name__
    return measure


def percentiles(
    what: str, stage: Stage, add: Callable[..., Callable[[Measure], Measure]], **options: tp.Any
) -> None:
    """Add the rows of all percentiles, by `row` or by a tool's `peer`."""
    for percentile in PERCENTILES:
        add(title(what, percentile), stage=stage, rounds=1, **options)(percentile_of(percentile))


def prepare_call(folder: Path, number: int) -> Callable[[int], object]:
    obj = trainer(folder, 7, keep_in_ram=False)
    assert obj.run() == 7.5
    return lambda index: obj.run()


def prepare_get(folder: Path, number: int) -> Callable[[int], object]:
    cache: CacheDict[float] = CacheDict(folder)
    keys: Sequence[str] = [str((k + number) * 7919 % CALLS) for k in range(CALLS)]
    assert cache[keys[0]] == int(keys[0]) / 2
    return lambda index: cache[keys[index]]


def prepare_put(folder: Path, number: int) -> Callable[[int], object]:
    cache: CacheDict[float] = CacheDict(folder)
    writing = cache.write()  # for all puts: the first one enters it, the last one leaves it

    def put(index: int) -> None:
        if index == 0:
            writing.__enter__()
        cache[f"{number}-{index}"] = index / 2
        if index == CALLS - 1:
            writing.__exit__(None, None, None)

    return put


def calls(folder: Path) -> None:
    assert trainer(folder, 7).run() == 7.5
    write_percentiles(prepare_call, folder)


def gets(folder: Path) -> None:
    cache: CacheDict[float] = CacheDict(folder)
    with cache.write():
        for key in range(CALLS):
            cache[str(key)] = key / 2
    write_percentiles(prepare_get, folder)


def puts(folder: Path) -> None:
    write_percentiles(prepare_put, folder)
    cache: CacheDict[float] = CacheDict(folder)
    assert len(cache) == PROCESSES * CALLS


percentiles(CALL, calls, row)
percentiles(GET, gets, row)
percentiles(PUT, puts, row)
