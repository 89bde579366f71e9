"""Shares of items in threads or processes of this machine."""

import concurrent.futures
import os
import typing as tp

if tp.TYPE_CHECKING:
    from .once import Computer

Groups = tp.Sequence[tuple[list[str], list[tp.Any]]]


def worker_count(cluster: str, limit: int | None) -> int:
    """How many threads or processes to use.

    Parameters
    ----------
    cluster: str
        "threadpool" or "processpool"
    limit: int, optional
        most that are wanted
    """
    cpus = os.cpu_count() or 1
    count = cpus if cluster == "processpool" else 4 * cpus  # threads mostly wait
    return count if limit is None else max(1, min(limit, count))


def run_in_threads(computer: tp.Any, groups: Groups, tick: tp.Callable[[int], None]) -> None:
    """Compute shares of items in threads of this process.

    Parameters
    ----------
    computer: Computer
        computes and stores
    groups: sequence of (keys, items)
        the shares
    tick: callable (number of items)
        told about progress
    """
    with concurrent.futures.ThreadPoolExecutor(max(1, len(groups))) as pool:
        _finish([pool.submit(computer.compute, keys, items, tick) for keys, items in groups])


def run_in_processes(
    computer: "Computer", groups: Groups, cache: tp.Any, tick: tp.Callable[[int], None]
) -> None:
    """Compute shares of items in processes of this machine.

    Parameters
    ----------
    computer: Computer
        computes and stores; pickled by value where its class cannot be imported
    groups: sequence of (keys, items)
        the shares
    cache: CacheDict, optional
        given without a folder: results then come back and are stored here
    tick: callable (number of items)
        told about progress
    """
    import multiprocessing

    from .backends import pickled

    data = pickled(tp.cast(tp.Any, computer), None)
    # spawn: a forked child inherits locks held by other threads, and may hang
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        max(1, len(groups)), mp_context=context, initializer=_load_computer, initargs=(data,)
    ) as pool:
        futures = {}
        for keys, items in groups:
            futures[
                pool.submit(_compute_share, keys, pickled(tp.cast(tp.Any, items), None), cache is not None)
            ] = keys
        for future in concurrent.futures.as_completed(futures):
            values = future.result() if future.exception() is None else None
            if values is not None and cache is not None:
                with cache.write():
                    for key, value in zip(futures[future], values, strict=True):
                        cache[key] = value
            tick(len(futures[future]))
        _finish(list(futures))


def _finish(futures: "list[concurrent.futures.Future[tp.Any]]") -> None:
    """Wait for all, so that what is computed is kept, then raise the first error."""
    concurrent.futures.wait(futures)
    for future in futures:
        future.result()


_LOADED: dict[str, tp.Any] = {}  # in a worker process: the computer, loaded once for all its shares


def _load_computer(data: bytes) -> None:
    import pickle

    _LOADED["computer"] = pickle.loads(data)


def _compute_share(keys: list[str], data: bytes, give_back: bool) -> tp.Any:
    import pickle

    items = pickle.loads(data)
    computer = _LOADED["computer"]
    return computer.values(keys, items) if give_back else computer.compute(keys, items)
