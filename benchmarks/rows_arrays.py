"""Arrays of 128 KiB: writing, and reading back through a new object in a new process."""

from pathlib import Path

import numpy as np

from exca.cachedict import CacheDict
from registry import aside, row, seconds

COUNT = 2000
FLOATS = 128 * 1024 // 8
MEGABYTES = COUNT * FLOATS * 8 / 1e6


def written(folder: Path, count: int = COUNT) -> None:
    array = np.arange(FLOATS, dtype=float)
    cache: CacheDict[np.ndarray] = CacheDict(folder)
    with cache.write():
        for key in range(count):
            array[0] = key
            cache[str(key)] = array


def total(folder: Path) -> float:
    """Return the sum of all elements: every byte is read."""
    cache: CacheDict[np.ndarray] = CacheDict(folder)
    return sum(float(cache[key].sum()) for key in cache)


@row("arrays of 128 KiB, write", unit="MB/s", bar=1.2, higher_is_better=True)
def write(folder: Path) -> float:
    written(aside(folder), 3)
    took = seconds(lambda: written(folder))
    cache: CacheDict[np.ndarray] = CacheDict(folder)
    assert (cache["1234"][0], cache["1234"][-1]) == (1234, FLOATS - 1)
    return MEGABYTES / took


@row(
    "arrays of 128 KiB, read back through a new object",
    unit="MB/s",
    bar=1,
    higher_is_better=True,
    stage=written,
)
def read(folder: Path) -> float:
    unused = aside(folder)
    written(unused, 3)
    total(unused)
    totals: list[float] = []
    took = seconds(lambda: totals.append(total(folder)))
    assert totals == [COUNT * sum(range(FLOATS)) + sum(range(COUNT))]
    return MEGABYTES / took
