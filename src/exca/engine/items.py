"""The items of one call of a map: their missing results, computed where the infra tells to and stored one by one."""

import collections.abc
import dataclasses
import sys
import typing as tp
from pathlib import Path

from ..errors import BatchProtocolError, ChangedConfigError
from ..identity import check_secrets
from .method import Method, observers, running
from .once import Advance
from .runner import run_shares

if tp.TYPE_CHECKING:
    from ..cachedict import CacheDict
    from ..claims import Claim
    from ..claims.chain import Batch
    from ..codedigest import CodeDigest
    from ..jobs.backends import Request
    from ..jobs.remote_errors import RemoteError


@dataclasses.dataclass
class ItemStore:
    """Results of items by uid; where they are forced, one counts as missing until it was computed for this call."""

    cache: "CacheDict[tp.Any]"
    force: bool
    computed: set[str] = dataclasses.field(default_factory=set)

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that are to be computed, in order."""
        if self.force:
            return [key for key in keys if key not in self.computed]
        return self.cache.missing(keys)

    def drop(self, keys: list[str]) -> None:
        """Remove results, and take the keys out of the list."""
        for key in keys:
            del self.cache[key]
        keys.clear()


@dataclasses.dataclass
class ItemWork:
    """The missing items of one call and how to compute them (a ``once.Work``)."""

    method: Method
    items: tp.Mapping[str, tp.Any]  # missing ones, by uid
    store: ItemStore
    most: int | None  # shares of one call
    fewest: int  # items of a share
    cache_type: str | None  # name of the handler that stores the results
    stored: list[str] = dataclasses.field(default_factory=list)  # those that were computed here just now

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that are to be computed, in order."""
        return [] if keys == self.stored else self.store.missing(keys)

    @property
    def folder(self) -> Path:
        """Folder that holds the results and the claims on them."""
        return self.method.folder

    def execute(self, claim: "Claim | None", keys: tp.Sequence[str]) -> None:
        """Compute items where the infra tells to, under a claim on them; there is none without a folder."""
        from ..claims import chain

        for observe in observers:
            observe(self.method)
        check_secrets(self.method.obj)
        cluster = self.method.resources.resolved_cluster()
        with ProgressBar(len(keys), self.method.family) as progress, chain.under(claim):
            worker = ItemWorker(self.method, self.cache_type, self.store)
            if cluster is None:
                shown = None if progress is no_progress else progress
                left = worker.compute(keys, list(map(self.items.__getitem__, keys)), shown)
                self.stored = [] if left else list(keys)
                return
            run_shares(
                cluster,
                worker,
                self._shares(cluster, keys),
                claim,
                request=self._request,
                progress=progress,
                cache=None if claim is not None else self.store.cache,
                computed=self.store.computed.update,
            )

    def _shares(self, cluster: str, keys: tp.Sequence[str]) -> list[tuple[list[str], list[tp.Any]]]:
        from ..jobs import pools
        from ..utils import even_chunks

        pool = cluster in ("threadpool", "processpool")
        most = pools.worker_count(cluster, self.most) if pool else self.most
        chunks = even_chunks(keys, max_chunks=most, min_items=self.fewest)
        return [(list(chunk), [self.items[key] for key in chunk]) for chunk in chunks]

    def _request(self, calls: list[tp.Callable[[], tp.Any]], tag: str) -> "Request":
        from .links import link_code

        most = self.most or max(1, len(self.items))
        request = self.method.request(calls, max_workers=most, name=self.method.title, tag=tag)
        link_code(self.folder, request.workdir)
        return request


class ItemWorker:
    """Computes items and stores their results; travels to jobs and to other processes, without its store."""

    def __init__(self, method: Method, cache_type: str | None, store: ItemStore | None = None) -> None:
        self.method = method
        self.cache_type = cache_type
        self.store = store
        self.folder: Path = method.folder
        self.code: CodeDigest | None = None  # in another process: of the code that was sent

    def __getstate__(self) -> dict[str, tp.Any]:
        code = self.method.code
        return {**self.__dict__, "store": None, "code": None if code is None else code.now}

    def compute(
        self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any], progress: Advance | None = None
    ) -> list[str]:
        """Compute items and store each result as soon as it is there; returns the keys that were left to others."""
        store = self.store
        if store is None:
            from ..cachedict import CacheDict

            # without keep_in_ram: the memory of a job is read by no caller
            cache: CacheDict[tp.Any] = CacheDict(self.folder, cache_type=self.cache_type)
            code = self.method.code
            if code is not None:
                cache.judge_by(code, code.kept(self.code)["digest"])
            store = ItemStore(cache, force=self.method.mode == "force")
            # a job that was preempted and requeued goes on where it stopped
            left = set(store.missing(keys))
            items = [item for key, item in zip(keys, items, strict=True) if key in left]
            keys = [key for key in keys if key in left]
        return self._compute(store, keys, items, progress) if keys else []

    def gather(
        self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any]
    ) -> tuple[dict[str, tp.Any], "RemoteError | None"]:
        """Compute items for a caller without a folder: what was computed, and the error that came then, if any."""
        from ..cachedict import CacheDict
        from ..jobs.remote_errors import RemoteError

        cache: CacheDict[tp.Any] = CacheDict(None, keep_in_ram=True)
        error = None
        try:
            self._compute(ItemStore(cache, force=False), keys, items, None)
        except Exception as e:
            error = RemoteError(e)
        return dict(cache.items()), error

    def _compute(
        self,
        store: ItemStore,
        keys: tp.Sequence[str],
        items: tp.Sequence[tp.Any],
        progress: Advance | None,
    ) -> list[str]:
        from ..claims import chain

        method, cache = self.method, store.cache
        method.require_unchanged()
        done: list[str] = []
        with chain.computing(keys) as batch:
            outer = running.set((method, "", "items"))
            try:
                results = self._iterator(method.call(Handed(batch, items)))
                with cache.write():
                    taken = batch.taken
                    for value in results:
                        key = taken.popleft() if taken else batch.answered()
                        if key is None:
                            store.drop(done)
                            self._complain_of_number(keys, len(keys) + 1)
                        if key not in batch.given:  # a nested call has computed it meanwhile
                            cache[key] = value
                            done.append(key)
                        if progress is not None:
                            progress(1)
                    if batch.taken or batch.left():
                        yielded = len(done)
                        store.drop(done)
                        self._complain_of_number(keys, yielded)
                    try:
                        method.require_unchanged()
                    except ChangedConfigError:
                        store.drop(done)
                        raise
            except Exception as e:
                self._add_notes(e, [*batch.taken, *batch.left()], len(done), len(keys))
                raise
            finally:
                running.reset(outer)
                if store.force:
                    store.computed.update(done)
        return list(batch.given)

    def _add_notes(self, error: Exception, left: list[str], done: int, total: int) -> None:
        name = self.method.name
        if isinstance(error, AttributeError) and isinstance(error.obj, Handed):
            error.add_note(
                f"{name} is given all items at once: go through them, and yield one result per item."
            )
        if left and not isinstance(error, BatchProtocolError | ChangedConfigError):
            kept = " and are kept" if self.method.keeps else ""
            error.add_note(
                f"Raised by {name} at item {left[0]!r}: {done} of {total} were done before it{kept}."
            )

    def _iterator(self, output: tp.Any) -> tp.Iterator[tp.Any]:
        if not isinstance(output, collections.abc.Iterable):
            raise BatchProtocolError(
                f"{self.method.name} returned {output!r}: a map method yields one output per item, or returns an "
                "iterable of them"
            )
        return iter(output)

    def _complain_of_number(self, keys: tp.Sequence[str], yielded: int) -> tp.NoReturn:
        if yielded < len(keys):
            what = f"only {yielded} output(s) for {len(keys)} items (from {keys[0]!r} to {keys[-1]!r})"
        else:
            what = (
                f"more outputs than the {len(keys)} item(s) it was given (from {keys[0]!r} to {keys[-1]!r})"
            )
        raise BatchProtocolError(
            f"{self.method.name} yielded {what}: it must yield exactly one per item, in order. The outputs cannot be "
            "matched to items, so none were stored"
        )


class Handed(list[tp.Any]):
    """The items of a batch as the method gets them: a list that notes what has been taken from it."""

    def __init__(self, batch: "Batch", items: tp.Sequence[tp.Any]) -> None:
        super().__init__(items)
        self._batch = batch
        self._gone_through = False

    def __iter__(self) -> tp.Iterator[tp.Any]:
        if self._gone_through:
            self._batch.promised = True
            return super().__iter__()
        self._gone_through = True
        return map(super().__getitem__, self._batch.hand_out())

    # a method that looks at them in another way than from the first to the last gets all of them

    def __len__(self) -> int:
        self._batch.promised = True
        return super().__len__()

    def __getitem__(self, index: tp.Any) -> tp.Any:
        self._batch.promised = True
        return super().__getitem__(index)

    def __reversed__(self) -> tp.Iterator[tp.Any]:
        self._batch.promised = True
        return super().__reversed__()

    def __reduce_ex__(self, protocol: tp.SupportsIndex) -> tuple[tp.Any, ...]:
        self._batch.promised = True
        return list, (list(super().__iter__()),)


class ProgressBar:
    """Context of a progress bar for the computation of items, silent but in terminals and notebooks."""

    DELAY = 2.0  # seconds before it shows, so that short work stays quiet

    def __init__(self, total: int, name: str) -> None:
        self.total = total
        self.name = name
        self.bar: tp.Any = None

    def __enter__(self) -> Advance:
        stderr = sys.stderr
        if self.total < 2:
            return no_progress
        from .. import _notebook

        if _notebook.is_notebook():
            self.bar = _notebook.progress(self.total, self.name, "item", leave=False, delay=self.DELAY)
            return tp.cast(Advance, self.bar.update)
        if stderr is None or not stderr.isatty():
            return no_progress
        import tqdm

        self.bar = tqdm.tqdm(total=self.total, desc=self.name, delay=self.DELAY, unit="item", leave=False)
        return tp.cast(Advance, self.bar.update)

    def __exit__(self, *args: object) -> None:
        if self.bar is not None:
            self.bar.close()


def no_progress(count: int) -> None:
    """Report no progress."""
