"""How LMDB, Dask and hydra do in the rows that they can answer, and the stores under eight processes at once.

LMDB is a table of keys and JSON values with its default settings (each transaction is synced). Under eight processes
each put is a transaction of its own, which is how a value is there for others at once; a `CacheDict` gathers puts for
at most 0.25 s, in one commit of many.
"""

import dataclasses
import functools
import importlib
import json
import os
import sys
import typing as tp
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import rows_percentiles
from peers import (
    DISKCACHE,
    ITEMS,
    JOBLIB,
    LOCAL_ARRAY,
    SQLITE,
    Table,
    half,
    open_diskcache,
    remembered,
    stores,
)
from registry import peer, seconds
from rows_percentiles import CALLS, percentiles, write_percentiles
from rows_tasks import SWEEP

LMDB, DASK, HYDRA = "LMDB", "Dask", "hydra"


class Lmdb(Mapping[str, float]):
    """A database of keys and JSON values."""

    def __init__(self, folder: Path) -> None:
        import lmdb

        folder.mkdir(parents=True, exist_ok=True)
        self.database: tp.Any = lmdb.open(str(folder / "table.lmdb"), map_size=1 << 30)

    def put(self, entries: Iterator[tuple[str, float]]) -> None:
        with self.database.begin(write=True) as transaction:
            for key, value in entries:
                transaction.put(key.encode(), json.dumps(value).encode())

    def __getitem__(self, key: str) -> float:
        with self.database.begin() as transaction:
            found = transaction.get(key.encode())
        if found is None:
            raise KeyError(key)
        return float(json.loads(found))

    def __contains__(self, key: object) -> bool:
        with self.database.begin() as transaction:
            return transaction.get(str(key).encode()) is not None

    def __iter__(self) -> Iterator[str]:
        with self.database.begin() as transaction:
            for key, _ in transaction.cursor():
                yield key.decode()

    def __len__(self) -> int:
        with self.database.begin() as transaction:
            return int(transaction.stat()["entries"])


@functools.cache
def open_lmdb(folder: Path) -> Lmdb:
    """Open a database, once in a process: LMDB allows no more."""
    return Lmdb(folder)


def fill_lmdb(folder: Path) -> None:
    open_lmdb(folder).put((str(key), half(key)) for key in range(ITEMS))


stores(LMDB, open_lmdb, fill_lmdb, module="peers_more")


@peer(DASK, LOCAL_ARRAY, module="peers_more", rounds=1)
def dask_array(folder: Path) -> float:
    """Keeps nothing, and its workers run many tasks each; what it takes to start them is counted, as for loky."""
    import distributed

    cluster_type: tp.Any = distributed.LocalCluster  # they come with no types of their arguments
    client_type: tp.Any = distributed.Client

    def run() -> None:
        with (
            cluster_type(n_workers=os.cpu_count(), threads_per_worker=1, dashboard_address=None) as cluster,
            client_type(cluster) as client,
        ):
            assert client.gather(client.map(half, range(100)))[-1] == half(99)

    return seconds(run)


@dataclasses.dataclass
class Config:
    seed: int = 0


@peer(HYDRA, SWEEP, module="peers_more")
def hydra_sweep(folder: Path) -> float:
    """Keeps what it is told to write, here nothing, and a folder per run with the configuration."""
    # installed by `make bench` alone
    hydra = importlib.import_module("hydra")
    store = importlib.import_module("hydra.core.config_store").ConfigStore.instance()
    os.environ["HYDRA_MAIN_MODULE"] = "__main__"  # else it looks for a package around this module
    store.store(name="config", node=Config)
    seen: list[float] = []

    def app(config: Config) -> None:
        seen.append(config.seed + 0.5)

    def run() -> None:
        sys.argv[1:] = ["-m", "seed=range(1,21)", f"hydra.sweep.dir={folder}"]
        hydra.main(version_base=None, config_path=None, config_name="config")(app)()

    run()  # loads what it loads
    seen.clear()
    took = seconds(run)
    assert seen == [seed + 0.5 for seed in range(1, 21)]
    return took


def prepare_joblib(folder: Path, number: int) -> Callable[[int], object]:
    function = remembered(folder)
    assert function(7) == half(7)
    return lambda index: function(7)


def joblib_calls(folder: Path) -> None:
    assert remembered(folder)(7) == half(7)
    write_percentiles(prepare_joblib, folder)


class Store:
    """The rows of a store under eight processes; picklable, since processes are started with it."""

    def __init__(self, open_it: Callable[[Path], tp.Any], put: Callable[[tp.Any, str, float], None]) -> None:
        self.open_it, self.put = open_it, put

    def prepare_get(self, folder: Path, number: int) -> Callable[[int], object]:
        store = self.open_it(folder)
        keys = [str((k + number) * 7919 % CALLS) for k in range(CALLS)]
        assert store[keys[0]] == half(int(keys[0]))
        return lambda index: store[keys[index]]

    def prepare_put(self, folder: Path, number: int) -> Callable[[int], object]:
        store = self.open_it(folder)
        return lambda index: self.put(store, f"{number}-{index}", half(index))

    def gets(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        store = self.open_it(folder)
        for key in range(CALLS):
            self.put(store, str(key), half(key))
        write_percentiles(self.prepare_get, folder)

    def puts(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.open_it(folder)
        write_percentiles(self.prepare_put, folder)
        assert len(self.open_it(folder)) == rows_percentiles.PROCESSES * CALLS


def put_item(store: tp.Any, key: str, value: float) -> None:
    store[key] = value


def put_entry(store: tp.Any, key: str, value: float) -> None:
    store.put(iter([(key, value)]))


percentiles(rows_percentiles.CALL, joblib_calls, functools.partial(peer, JOBLIB, module="peers_more"))
for tool, store in {
    DISKCACHE: Store(open_diskcache, put_item),
    SQLITE: Store(Table, put_entry),
    LMDB: Store(open_lmdb, put_entry),
}.items():
    percentiles(rows_percentiles.GET, store.gets, functools.partial(peer, tool, module="peers_more"))
    percentiles(rows_percentiles.PUT, store.puts, functools.partial(peer, tool, module="peers_more"))
