"""CacheDict: floats under 100,000 keys, and what is under a key that is not there."""

import itertools
import subprocess
import sys
from pathlib import Path

from exca.cachedict import CacheDict
from registry import aside, row, seconds, seconds_per_call

KEYS = 100_000


def filled(folder: Path, size: int = KEYS) -> None:
    cache: CacheDict[float] = CacheDict(folder)
    with cache.write():
        for key in range(size):
            cache[str(key)] = key / 2


def warm_up(folder: Path) -> None:
    """Load what a first cache of many keys loads, numpy too, in a folder that is not the one measured."""
    unused = aside(folder)
    filled(unused, 5000)
    assert len(CacheDict(unused)) == 5000


@row("CacheDict put, per key", bar=6, than=("SQLite", 1.2))
def put(folder: Path) -> float:
    warm_up(folder)
    took = seconds(lambda: filled(folder))
    assert CacheDict(folder)["77777"] == 77777 / 2
    return took / KEYS


@row("CacheDict open and len at 100,000 keys", bar=10, stage=filled)
def open_and_len(folder: Path) -> float:
    warm_up(folder)
    sizes: list[int] = []
    took = seconds(lambda: sizes.append(len(CacheDict(folder))))
    assert sizes == [KEYS]
    return took


@row("CacheDict open and len at 100,000 keys, first since they were written")
def open_and_len_first(folder: Path) -> float:
    warm_up(folder)
    program = f"import rows_cachedict as r; r.filled(r.Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent)
    sizes: list[int] = []
    took = seconds(lambda: sizes.append(len(CacheDict(folder))))
    assert sizes == [KEYS]
    return took


@row("CacheDict get", bar=1.5, stage=filled)
def get(folder: Path) -> float:
    cache: CacheDict[float] = CacheDict(folder)
    keys = [str(k * 7919 % KEYS) for k in range(20_000)]  # all over, in no order
    assert all(cache[key] == int(key) / 2 for key in keys)
    following = itertools.cycle(keys)
    return seconds_per_call(lambda: cache[next(following)], 20_000)


@row('CacheDict miss ("nope" in cd)', bar=2, stage=filled)
def miss(folder: Path) -> float:
    cache: CacheDict[float] = CacheDict(folder)
    assert "5" in cache
    assert "nope" not in cache
    return seconds_per_call(lambda: "nope" in cache, 20_000)
