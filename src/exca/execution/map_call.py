"""Computing the items of one map call: split into shares, run where the infra says, stored one by one."""

import collections
import collections.abc
import sys
import typing as tp
from pathlib import Path

from ..errors import BatchProtocolError, ChangedConfigError
from ..identity import check_secrets
from . import once

if tp.TYPE_CHECKING:
    from ..cachedict import CacheDict
    from ..claims import Claim
    from ..claims.chain import Batch
    from ..jobs.backends import Request
    from ..jobs.remote_errors import RemoteError
    from ..map import MapInfra

Items = collections.OrderedDict[str, tp.Any]  # items by uid
Tick = tp.Callable[[int], None]


class ItemUid:
    """Gives the text by which an item's result is found again.

    Parameters
    ----------
    function: callable
        gives the full text of an item
    max_length: int, optional
        longer texts are shortened, with a hash
    """

    def __init__(self, function: tp.Callable[[tp.Any], str], max_length: int | None) -> None:
        from ..utils import ShortItemUid

        self.function = function
        self.max_length = sys.maxsize if max_length is None else max_length
        self._shorten = ShortItemUid(str, self.max_length)

    def __call__(self, item: tp.Any) -> str:
        """The uid of one item."""
        return self.of_all([item])[0]

    def of_all(self, items: tp.Sequence[tp.Any]) -> list[str]:
        """The uids of many items.

        Raises
        ------
        TypeError
            if the function gives anything but text
        """
        uids = list(map(self.function, items))
        limit = self.max_length
        for uid in uids:
            if type(uid) is not str or len(uid) > limit:
                return self._mended(items, uids)
        return uids

    def _mended(self, items: tp.Sequence[tp.Any], uids: list[tp.Any]) -> list[str]:
        for item, uid in zip(items, uids, strict=True):
            if not isinstance(uid, str):
                raise TypeError(
                    f"item_uid must return a str, got {uid!r} ({type(uid).__name__}) for the item {item!r}"
                )
        return [self._shorten(str.__str__(uid)) for uid in uids]  # plain text also of numpy's and enums'


class MapWork:
    """The missing items of one call and how to compute them (a ``once.Work``).

    Parameters
    ----------
    infra: MapInfra
        infra of the method
    items: OrderedDict
        missing items by uid
    cache: CacheDict
        where results go
    """

    def __init__(self, infra: "MapInfra", items: Items, cache: "CacheDict[tp.Any]") -> None:
        self.infra = infra
        self.items = items
        self.cache = cache
        self.computed: set[str] = set()

    @property
    def folder(self) -> Path:
        """Folder that holds the results and the claims on them."""
        return tp.cast(Path, self.infra.uid_folder())

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have no result yet, or not yet a new one where that is forced."""
        if self.infra.mode == "force":
            return [key for key in keys if key not in self.computed]
        return self.cache.missing(keys)

    def execute(self, claim: "Claim", keys: tp.Sequence[str]) -> None:
        """Compute claimed keys where the infra says."""
        self.run(keys, claim)

    def run(self, keys: tp.Sequence[str], claim: "Claim | None" = None) -> None:
        """Compute items on the cluster of the infra.

        Parameters
        ----------
        keys: sequence of str
            uids of the items
        claim: Claim, optional
            claim on them; None without a folder
        """
        from ..claims import chain

        check_secrets(self.infra._obj)
        cluster = self.infra.resolved_cluster()
        with ProgressBar(len(keys), self.infra._factory()) as tick, chain.under(claim):
            if cluster is None:
                computer = MapComputer(self.infra, self.cache, self.computed)
                computer.compute(keys, [self.items[key] for key in keys], tick)
            elif cluster in ("threadpool", "processpool"):
                self._run_in_pool(cluster, keys, tick, claim)
            else:
                assert claim is not None, "jobs need a folder"
                once.run_in_jobs(
                    claim,
                    self._shares(keys, self.infra.max_jobs),
                    MapComputer(self.infra),
                    cluster=cluster,
                    request=self._request,
                    progress=tick,
                    computed=self.computed.update,
                )

    def _run_in_pool(self, cluster: str, keys: tp.Sequence[str], tick: Tick, claim: "Claim | None") -> None:
        from ..jobs import pools

        shares = self._shares(keys, pools.worker_count(cluster, self.infra.max_jobs))
        if cluster == "threadpool":
            pools.run_in_threads(MapComputer(self.infra, self.cache, self.computed), shares, tick)
        else:
            cache = self.cache if self.infra.folder is None else None
            computer = MapComputer(self.infra)
            pools.run_in_processes(computer, shares, cache, tick, computed=self.computed.update, claim=claim)

    def _shares(self, keys: tp.Sequence[str], most: int | None) -> list[tuple[list[str], list[tp.Any]]]:
        from ..utils import even_chunks

        fewest = self.infra.min_samples_per_job
        chunks = even_chunks(keys, max_chunks=most, min_items=fewest)
        return [(list(chunk), [self.items[key] for key in chunk]) for chunk in chunks]

    def _request(self, calls: list[tp.Callable[[], tp.Any]], tag: str) -> "Request":
        from .requests import link_code, request_for

        most = self.infra.max_jobs or max(1, len(self.items))
        request = request_for(self.infra, calls, max_workers=most, tag=tag)
        link_code(self.folder, request.workdir)
        return request


class MapComputer:
    """Computes items and stores their results; travels to jobs and to other processes.

    Parameters
    ----------
    infra: MapInfra
        infra of the method
    cache: CacheDict, optional
        where results go in this process; left out for one that travels
    computed: set of str, optional
        takes the uids of the items that are done in this process
    """

    def __init__(
        self,
        infra: "MapInfra",
        cache: "CacheDict[tp.Any] | None" = None,
        computed: set[str] | None = None,
    ) -> None:
        self.obj, _ = infra._bound
        self.infra_name = infra._infra_name
        self.folder = infra.uid_folder()
        self.cache = cache
        self.computed = computed

    def compute(
        self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any], tick: Tick | None = None
    ) -> list[str]:
        """Compute items and store each result as soon as it is there; returns the keys that were left to others.

        Parameters
        ----------
        keys: sequence of str
            uids of the items
        items: sequence
            the items
        tick: callable, optional
            told about each item done
        """
        cache = self.cache
        if cache is None:
            from ..cachedict import CacheDict

            infra = self._infra()
            # without keep_in_ram: the memory of a job is read by no caller
            cache = CacheDict(self.folder, cache_type=infra._applied.options["cache_type"])
            if infra.mode != "force":  # a job that was preempted and requeued goes on where it stopped
                left = set(cache.missing(keys))
                items = [item for key, item in zip(keys, items, strict=True) if key in left]
                keys = [key for key in keys if key in left]
        return self._store(cache, keys, items, tick) if keys else []

    def gather(
        self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any]
    ) -> tuple[dict[str, tp.Any], "RemoteError | None"]:
        """Compute items for a caller without a folder: what was computed, and the error that came then, if any.

        Parameters
        ----------
        keys: sequence of str
            uids of the items
        items: sequence
            the items
        """
        from ..cachedict import CacheDict
        from ..jobs.remote_errors import RemoteError

        cache: CacheDict[tp.Any] = CacheDict(None, keep_in_ram=True)
        error = None
        try:
            self._store(cache, keys, items, None)
        except Exception as e:
            error = RemoteError(e)
        return dict(cache.items()), error

    def _infra(self) -> tp.Any:
        return getattr(self.obj, self.infra_name)

    def _store(
        self,
        cache: "CacheDict[tp.Any]",
        keys: tp.Sequence[str],
        items: tp.Sequence[tp.Any],
        tick: Tick | None,
    ) -> list[str]:
        from ..claims import chain

        infra = self._infra()
        infra._require_unchanged()
        name = f"{type(self.obj).__qualname__}.{infra._applied.name}"
        done: list[str] = []
        with chain.computing(keys) as batch:
            try:
                results = _iterator(infra._applied.function(self.obj, Handed(batch, items)), name)
                with cache.write():
                    for value in results:
                        key = batch.answered()
                        if key is None:
                            _drop(cache, done)
                            _complain_of_number(name, keys, len(keys) + 1)
                        if key not in batch.given:  # a nested call has computed it meanwhile
                            cache[key] = value
                            done.append(key)
                        if tick is not None:
                            tick(1)
                    if batch.taken or batch.left():
                        yielded = len(done)
                        _drop(cache, done)
                        _complain_of_number(name, keys, yielded)
                    try:
                        infra._require_unchanged()
                    except ChangedConfigError:
                        _drop(cache, done)
                        raise
            except Exception as e:
                left = [*batch.taken, *batch.left()]
                if left and not isinstance(e, BatchProtocolError | ChangedConfigError):
                    kept = " and are kept" if infra.folder is not None or infra.keep_in_ram else ""
                    e.add_note(
                        f"Raised by {name} at item {left[0]!r}: {len(done)} of {len(keys)} were done before it{kept}."
                    )
                raise
            finally:
                if self.computed is not None:
                    self.computed.update(done)
        return list(batch.given)


class Handed(list[tp.Any]):
    """The items of a batch as the method gets them: a list that notes what has been taken from it.

    Parameters
    ----------
    batch: Batch
        their keys
    items: sequence
        the items
    """

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

    # who looks at them in another way than from the first to the last gets all of them

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


def _iterator(output: tp.Any, name: str) -> tp.Iterator[tp.Any]:
    if not isinstance(output, collections.abc.Iterable):
        raise BatchProtocolError(
            f"{name} returned {output!r}: a map method yields one output an item, or returns an iterable of them"
        )
    return iter(output)


def _drop(cache: "CacheDict[tp.Any]", keys: list[str]) -> None:
    for key in keys:
        del cache[key]
    keys.clear()


def _complain_of_number(name: str, keys: tp.Sequence[str], yielded: int) -> tp.NoReturn:
    if yielded < len(keys):
        what = f"only {yielded} output(s) for {len(keys)} items (from {keys[0]!r} to {keys[-1]!r})"
    else:
        what = f"more outputs than the {len(keys)} item(s) it was given (from {keys[0]!r} to {keys[-1]!r})"
    raise BatchProtocolError(
        f"{name} yielded {what}: it must yield exactly one an item, in order. Nobody can tell "
        "which output belongs to which item, so none of them is kept"
    )


class ProgressBar:
    """Context of a progress bar for long work, silent where stderr is no terminal.

    Parameters
    ----------
    total: int
        number of items
    name: str
        what is computed
    """

    DELAY = 2.0  # seconds before it shows, so that short work stays quiet

    def __init__(self, total: int, name: str) -> None:
        self.total = total
        self.name = name
        self.bar: tp.Any = None

    def __enter__(self) -> Tick:
        stderr = sys.stderr
        if self.total < 2 or stderr is None or not stderr.isatty():
            return _ignore
        import tqdm

        self.bar = tqdm.tqdm(total=self.total, desc=self.name, delay=self.DELAY, unit="item", leave=False)
        return tp.cast(Tick, self.bar.update)

    def __exit__(self, *args: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _ignore(count: int) -> None:
    """Nobody watches."""
