"""How joblib.Memory, diskcache, a plain SQLite table, loky and submitit do in the rows that they can answer.

Each is used as its documentation says: joblib.Memory decorates the function and is called item by item,
diskcache is a dict on disk (many puts in one transaction), the table has the key as its primary key and the
value as JSON. joblib.Memory takes so much longer that it gets 2,000 items where the others get 100,000.
"""

import contextlib
import itertools
import json
import sqlite3
import typing as tp
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from registry import peer, seconds, seconds_per_call

JOBLIB, DISKCACHE, SQLITE = "joblib.Memory", "diskcache", "SQLite"
LOKY, SUBMITIT = "loky", "submitit"
MAP_FIRST = "map, first time, per item"
MAP_AGAIN = "map, again, new object, from disk, per item"
MAP_ONE = "map, one item out of 100,000 cached, new object"
PUT, GET = "CacheDict put, per key", "CacheDict get"
OPEN_LEN = "CacheDict open and len at 100,000 keys"
MISS = 'CacheDict miss ("nope" in cd)'
LOCAL_ARRAY = 'array of 100 trivial tasks, cluster="local"'
TORCH_ARRAY = "array of 20 local tasks whose module imports torch, per task"
SLURM_TASKS = "300 trivial Slurm tasks: from call to all results"
ITEMS = 100_000
FEWER = 2_000


def half(item: int) -> float:
    return item / 2


def remembered(folder: Path) -> Callable[[int], float]:
    import joblib

    memory: tp.Any = joblib.Memory(folder, verbose=0)
    return tp.cast("Callable[[int], float]", memory.cache(half))


def remember(folder: Path) -> None:
    function = remembered(folder)
    assert [function(item) for item in range(FEWER)] == [half(item) for item in range(FEWER)]


@peer(JOBLIB, MAP_FIRST)
def joblib_first(folder: Path) -> float:
    remembered(folder.with_name(folder.name + "-warm-up"))(1)
    return seconds(lambda: remember(folder)) / FEWER


@peer(JOBLIB, MAP_AGAIN, stage=remember)
def joblib_again(folder: Path) -> float:
    remembered(folder)(1)
    return seconds(lambda: remember(folder)) / FEWER


@peer(JOBLIB, MAP_ONE, stage=remember)
def joblib_one(folder: Path) -> float:
    remembered(folder)(1)
    return seconds(lambda: remembered(folder)(1234))


def open_diskcache(folder: Path) -> tp.Any:
    import diskcache

    return diskcache.Cache(str(folder), eviction_policy="none")


def fill_diskcache(folder: Path) -> None:
    cache = open_diskcache(folder)
    with cache.transact():
        for key in range(ITEMS):
            cache[str(key)] = half(key)


class Table(Mapping[str, float]):
    """A table of keys and JSON values."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.connection = sqlite3.connect(folder / "table.sqlite", timeout=60)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"
        )

    def put(self, entries: Iterable[tuple[str, float]]) -> None:
        with contextlib.closing(self.connection.cursor()) as cursor, self.connection:
            for key, value in entries:
                cursor.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (key, json.dumps(value)))

    def __getitem__(self, key: str) -> float:
        found = self.connection.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise KeyError(key)
        return float(json.loads(found[0]))

    def __contains__(self, key: object) -> bool:
        return self.connection.execute("SELECT 1 FROM entries WHERE key = ?", (key,)).fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        return (key for (key,) in self.connection.execute("SELECT key FROM entries"))

    def __len__(self) -> int:
        return int(self.connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0])


def fill_table(folder: Path) -> None:
    Table(folder).put((str(key), half(key)) for key in range(ITEMS))


def mapped(open_it: Callable[[Path], Mapping[str, float]], folder: Path, items: Iterable[int]) -> list[float]:
    cache = open_it(folder)
    return [cache[str(item)] for item in items]


def stores(
    tool: str,
    open_it: Callable[[Path], Mapping[str, float]],
    fill: Callable[[Path], None],
    module: str = "peers",
) -> None:
    """Add the rows of a tool that is a mapping on disk."""

    @peer(tool, MAP_FIRST, module=module)
    @peer(tool, PUT, module=module)
    def put(folder: Path) -> float:
        len(open_it(folder.with_name(folder.name + "-warm-up")))
        took = seconds(lambda: fill(folder))
        assert len(open_it(folder)) == ITEMS
        return took / ITEMS

    @peer(tool, MAP_AGAIN, module=module, stage=fill)
    def again(folder: Path) -> float:
        results: list[float] = []
        took = seconds(lambda: results.extend(mapped(open_it, folder, range(ITEMS))))
        assert results == [half(item) for item in range(ITEMS)]
        return took / ITEMS

    @peer(tool, MAP_ONE, module=module, stage=fill)
    def one(folder: Path) -> float:
        mapped(open_it, folder, [1])
        return seconds(lambda: mapped(open_it, folder, [77_777]))

    @peer(tool, OPEN_LEN, module=module, stage=fill)
    def open_and_len(folder: Path) -> float:
        len(open_it(folder))
        return seconds(lambda: len(open_it(folder)))

    @peer(tool, GET, module=module, stage=fill)
    def get(folder: Path) -> float:
        cache = open_it(folder)
        keys = [str(k * 7919 % ITEMS) for k in range(20_000)]  # all over, in no order
        assert all(cache[key] == half(int(key)) for key in keys)
        following = itertools.cycle(keys)
        return seconds_per_call(lambda: cache[next(following)], 20_000)

    @peer(tool, MISS, module=module, stage=fill)
    def miss(folder: Path) -> float:
        cache = open_it(folder)
        assert "5" in cache
        assert "nope" not in cache
        return seconds_per_call(lambda: "nope" in cache, 20_000)


stores(DISKCACHE, open_diskcache, fill_diskcache)
stores(SQLITE, Table, fill_table)


@peer(LOKY, LOCAL_ARRAY)
def loky_array(folder: Path) -> float:
    """Keeps nothing, and its processes run many tasks each."""
    import loky

    def run() -> None:
        with loky.ProcessPoolExecutor() as pool:
            assert list(pool.map(half, range(100)))[-1] == half(99)

    return seconds(run)


@peer(SUBMITIT, LOCAL_ARRAY, rounds=1)
def submitit_array(folder: Path) -> float:
    import submitit

    executor = submitit.LocalExecutor(folder)

    def run() -> None:
        jobs = executor.map_array(half, range(100))
        assert [job.result() for job in jobs][-1] == half(99)

    return seconds(run)


def ones(count: int) -> float:
    import torch

    return float(torch.ones(count).sum())


@peer(LOKY, TORCH_ARRAY, rounds=1)
def loky_torch_array(folder: Path) -> float:
    import loky

    def run() -> None:
        with loky.ProcessPoolExecutor() as pool:
            assert list(pool.map(ones, range(1, 21))) == list(range(1, 21))

    return seconds(run) / 20


@peer(SUBMITIT, SLURM_TASKS, rounds=1)
def submitit_slurm(folder: Path) -> float:
    import submitit

    from plain_trainer import Trainer

    executor = submitit.AutoExecutor(folder, cluster="slurm")
    # without srun, as exca does: on the test cluster steps of that many jobs at once fail
    executor.update_parameters(slurm_array_parallelism=300, timeout_min=10, slurm_use_srun=False)

    def run() -> None:
        # in two arrays, since the test cluster takes none of 300 (MaxArraySize) and submitit divides none
        halves = range(150), range(150, 300)
        jobs = [
            job
            for seeds in halves
            for job in executor.map_array(Trainer.run, [Trainer(seed=n) for n in seeds])
        ]
        assert [job.result() for job in jobs] == [seed + 0.5 for seed in range(300)]

    return seconds(run)
