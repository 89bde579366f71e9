"""Shares of items in threads or processes of this machine."""

import concurrent.futures
import concurrent.futures.process
import contextvars
import dataclasses
import os
import threading
import time
import typing as tp

from .._log import logger
from ..errors import JobError, ResultError

if tp.TYPE_CHECKING:
    from pathlib import Path

    from ..claims import Claim, chain
    from ..claims.owner import Process
    from .remote_errors import RemoteError

Groups = tp.Sequence[tuple[list[str], list[tp.Any]]]
_LOOK_EVERY = 0.1  # seconds


def worker_count(cluster: str, limit: int | None) -> int:
    """How many threads or processes to use."""
    cpus = os.cpu_count() or 1
    count = cpus if cluster == "processpool" else 4 * cpus  # threads mostly wait
    return count if limit is None else max(1, min(limit, count))


def run_in_threads(worker: tp.Any, groups: Groups, progress: tp.Callable[[int], None]) -> None:
    """Compute shares of items in threads of this process; raises the first error once all ended."""
    with concurrent.futures.ThreadPoolExecutor(max(1, len(groups))) as pool:
        futures = [
            pool.submit(contextvars.copy_context().run, worker.compute, keys, items, progress)
            for keys, items in groups
        ]
    _raise_first([future.exception() for future in futures])


def run_in_processes(
    worker: tp.Any,
    groups: Groups,
    cache: tp.Any,
    progress: tp.Callable[[int], None],
    *,
    computed: tp.Callable[[list[str]], None] | None = None,
    claim: "Claim | None" = None,
) -> None:
    """Compute shares of items in processes of this machine; raises the first error once all ended.

    A cache is given without a folder: then results come back (by the worker's ``gather``) and are stored here. Each
    process gets its share of the claim, and gives back what others are to compute.
    """
    from ..claims import chain

    claims = [None] * len(groups) if claim is None else claim.split([keys for keys, _ in groups])
    shares = [
        _Share(keys, items, cache is not None, None if c is None else (c.folder, c.token))
        for c, (keys, items) in zip(claims, groups, strict=True)
    ]
    keys = [key for share in shares for key in share.keys]
    try:
        with chain.Waiting(None if claim is None else claim.folder, keys) as waiting:
            _run_shares(worker, shares, cache, progress, computed=computed, waiting=waiting)
    finally:
        for part in claims:  # those that no process has made its own
            if part is not None:
                part.release()


def _run_shares(
    worker: tp.Any,
    shares: "list[_Share]",
    cache: tp.Any,
    progress: tp.Callable[[int], None],
    *,
    computed: tp.Callable[[list[str]], None] | None,
    waiting: "chain.Waiting",
) -> None:
    import loky  # slow to import, and few need it

    from ..claims.owner import Process
    from .backends import pickled

    content = [pickled(tp.cast(tp.Any, share), None) for share in shares]
    errors: list[BaseException | None] = [None] * len(shares)
    # fresh interpreters (a forked one inherits locks of other threads) that do not run the main script again: scripts
    # need no ``if __name__ == "__main__"``, and what lives in them comes pickled by value
    with loky.ProcessPoolExecutor(
        max(1, len(shares)),
        initializer=_start_worker,
        initargs=(Process.current(), pickled(tp.cast(tp.Any, worker), None)),
    ) as pool:
        futures: dict[concurrent.futures.Future[_Outcome], int] = {
            pool.submit(_compute_share, data): k for k, data in enumerate(content)
        }
        for future in _as_completed(futures, waiting):
            k = futures[future]
            errors[k] = _outcome(future, shares[k], cache)
            if errors[k] is None and computed is not None:
                left = set(future.result()[3])
                computed([key for key in shares[k].keys if key not in left])
            progress(len(shares[k].keys))
    _raise_first(errors)


def _as_completed(
    futures: "tp.Iterable[concurrent.futures.Future[_Outcome]]", waiting: "chain.Waiting"
) -> "tp.Iterator[concurrent.futures.Future[_Outcome]]":
    start, pending = time.monotonic(), set(futures)
    pause = _LOOK_EVERY if waiting.matters else None
    while pending:
        done, pending = concurrent.futures.wait(pending, pause, concurrent.futures.FIRST_COMPLETED)
        yield from done
        if pending:
            waiting.look(time.monotonic() - start)


def _raise_first(errors: tp.Sequence[BaseException | None]) -> None:
    found = [error for error in errors if error is not None]
    for other in found[1:]:
        logger.warning("More than one share of the items failed; another one by %r", other)
    if found:
        raise found[0]


@dataclasses.dataclass(repr=False)
class _Share:
    """What one process computes."""

    keys: list[str]  # keys of the items
    items: list[tp.Any]  # the items
    give_back: bool  # whether the results come back
    claim: "tuple[Path, str] | None" = None  # folder and token of the claim on them

    def __repr__(self) -> str:
        return f"{len(self.keys)} item(s), from {self.keys[0]!r} to {self.keys[-1]!r},"


def _outcome(
    future: "concurrent.futures.Future[_Outcome]", share: _Share, cache: tp.Any
) -> BaseException | None:
    """Store what came back; returns the error, if any."""
    broken = future.exception()
    if isinstance(broken, concurrent.futures.process.BrokenProcessPool):
        return JobError(
            f"A process of the pool that computes {share!r} was killed (out of memory?), and the others ended with "
            "it. Results that were stored before are kept: ask again to compute the rest"
        )
    if broken is not None:
        return broken
    pid, data, carried, _ = future.result()
    if data is not None:
        import pickle

        with cache.write():
            for key, value in pickle.loads(data).items():
                cache[key] = value
    if carried is None:
        return None
    return carried.rebuilt(f"process {pid} of a pool")


# ---------------------------------------------------------------- in a process of the pool

# pid, results that go back, error, keys left to others
_Outcome = tuple[int, bytes | None, "RemoteError | None", tp.Sequence[str]]
_LOADED: dict[str, tp.Any] = {}  # the worker, loaded once


def _start_worker(parent: "Process", data: bytes) -> None:
    import pickle

    threading.Thread(target=_end_with, args=(parent,), name="exca-parent", daemon=True).start()
    _LOADED["worker"] = pickle.loads(data)


def _end_with(parent: "Process") -> None:
    """End when the parent does: its claim ends with it, and another process may compute the same."""
    while parent.alive() is not False:
        time.sleep(_LOOK_EVERY)
    os._exit(1)


def _compute_share(content: bytes) -> _Outcome:
    import pickle

    from .remote_errors import RemoteError

    share: _Share = pickle.loads(content)
    data = None
    error: RemoteError | None = None
    left: tp.Sequence[str] = ()
    try:
        if share.give_back:
            values, error = _LOADED["worker"].gather(share.keys, share.items)
            data = _pickled_values(values)
        else:
            left = _compute_claimed(share)
    except Exception as e:
        error = RemoteError(e)
    return os.getpid(), data, error, left


def _compute_claimed(share: _Share) -> tp.Sequence[str]:
    """Compute a share under its claim; returns what was left to others."""
    from ..claims import Claims, chain

    worker = _LOADED["worker"]
    if share.claim is None:
        return worker.compute(share.keys, share.items) or ()
    folder, token = share.claim
    claim = Claims(folder).adopt(token)
    if claim is None:
        return share.keys
    with claim, chain.under(claim):
        return worker.compute(share.keys, share.items) or ()


def _pickled_values(values: dict[str, tp.Any]) -> bytes:
    import cloudpickle

    try:
        return tp.cast(bytes, cloudpickle.dumps(values))
    except Exception as e:
        raise ResultError(
            f"results of the items from {next(iter(values))!r} on cannot be sent back from a process: {e}; return "
            "picklable objects, or give the infra a folder"
        ) from e
