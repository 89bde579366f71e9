"""MapInfra: one result an item, each cached and computed once."""

import collections
import collections.abc
import itertools
import logging
import typing as tp
from pathlib import Path

import pydantic

from .errors import DamagedEntryError, InfraError, ReadOnlyError
from .execution import once
from .infra.base import Applied, BaseInfra, Exclusion, wrap
from .infra.submitting import link_code, request_for

if tp.TYPE_CHECKING:
    from .cachedict import CacheDict
    from .claims import Claim
    from .execution.backends import Request

F = tp.TypeVar("F", bound=tp.Callable[..., tp.Any])
Items = collections.OrderedDict[str, tp.Any]  # missing items by uid
logger = logging.getLogger("exca")
_LOOKUP = 8192  # items looked up together: bounds what is held of items that are cached already


class MapInfra(BaseInfra):
    """Runs a method over items where its fields say, and keeps one result an item.

    Parameters
    ----------
    cluster: str, optional
        as for all infras, or "threadpool" or "processpool"
    mode: str
        "cached", "force" (items are computed again, once per object), "read-only" (nothing is computed)
    keep_in_ram: bool
        also keep results on the object, for instant access
    max_jobs: int, optional
        most jobs (or threads, or processes) for one call
    min_samples_per_job: int
        fewest items worth a job
    forbid_single_item_computation: bool
        refuse to compute when a single item is asked for: a guard against loops that should be one call
    """

    keep_in_ram: bool = True
    max_jobs: pydantic.PositiveInt | None = 128
    min_samples_per_job: pydantic.PositiveInt = 1
    forbid_single_item_computation: bool = False
    mode: tp.Literal["cached", "force", "read-only"] = "cached"

    def apply(
        self,
        *,
        item_uid: tp.Callable[[tp.Any], str],
        item_uid_max_length: int | None = 256,
        exclude_from_cache_uid: Exclusion = (),
        cache_type: str | None = None,
    ) -> tp.Callable[[F], F]:
        """Tie the infra to a method; used as a decorator.

        Parameters
        ----------
        item_uid: callable
            gives the text by which an item's result is found again
        item_uid_max_length: int, optional
            longer texts are shortened, with a hash
        exclude_from_cache_uid: iterable of str, callable on the object, or "method:<name>"
            fields that do not count for the cache
        cache_type: str, optional
            name of the handler that stores the results (by default chosen by their type)

        Raises
        ------
        ValueError
            if the method does not take exactly ``self`` and the items
        """
        return lambda function: self._apply_to(
            function, exclude_from_cache_uid, _uid_function(item_uid, item_uid_max_length), cache_type
        )

    def _apply_to(
        self, function: F, exclude: Exclusion, item_uid: tp.Callable[[tp.Any], str], cache_type: str | None
    ) -> F:
        name = _items_parameter(function)
        applied = Applied(function, exclude, item_uid=item_uid, cache_type=cache_type, parameter=name)

        def call(obj: tp.Any, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            infra = getattr(obj, self._infra_name)
            if infra._applied is not applied:
                return function(
                    obj, *args, **kwargs
                )  # super().method() from a child with an infra of its own
            if len(args) == 1 and not kwargs:
                return infra._process(args[0])
            if args or list(kwargs) != [name]:
                raise TypeError(f"{applied.name}() takes the items, as its only argument or as {name}=...")
            return infra._process(kwargs[name])

        self._register(applied, wrap(function, call))
        return tp.cast(F, applied.wrapper)

    @property
    def item_uid(self) -> tp.Callable[[tp.Any], str]:
        """Function that gives the text by which an item's result is found again."""
        return tp.cast(tp.Callable[[tp.Any], str], self._bound[1].options["item_uid"])

    @property
    def cache_dict(self) -> "CacheDict[tp.Any]":
        """The results on disk (and in memory), by item uid."""
        state = self._state
        if state.cache_dict is None:
            from .cachedict import CacheDict

            folder = self.uid_folder()
            keep = self.keep_in_ram or folder is None
            state.cache_dict = CacheDict(
                folder, keep_in_ram=keep, cache_type=self._bound[1].options["cache_type"]
            )
        return tp.cast("CacheDict[tp.Any]", state.cache_dict)

    # ---------------------------------------------------------------- the way of a call

    def _process(self, items: tp.Iterable[tp.Any]) -> tp.Iterator[tp.Any]:
        """Compute what is missing, now, and return an iterator over the results in the order asked."""
        if self.folder is None and not self.keep_in_ram:
            return iter(self._compute_without_cache(list(items)))
        cache = self.cache_dict
        uids, missing = self._look_up(items, cache)
        if missing:
            self._check_computable(len(uids), missing)
            if self.folder is not None:
                self.uid_folder(create=True)
            self._compute_missing(missing, cache)
        return self._results(uids, items if isinstance(items, collections.abc.Sequence) else None)

    def _results(self, uids: list[str], items: tp.Sequence[tp.Any] | None) -> tp.Iterator[tp.Any]:
        """Read results one at a time; one that turns out damaged is computed again."""
        done = 0
        while done < len(uids):
            try:
                for value in self.cache_dict.iter_values(itertools.islice(uids, done, None)):
                    yield value
                    done += 1
            except KeyError:
                if items is None:
                    raise DamagedEntryError(
                        f"the stored result of item {uids[done]!r} of {self.uid()} is damaged or was deleted meanwhile: "
                        "call again to compute it"
                    ) from None
                yield from self._process([items[done]])
                done += 1

    def _compute_without_cache(self, items: list[tp.Any]) -> list[tp.Any]:
        obj, applied = self._bound
        uids = [self.item_uid(item) for item in items]
        self._check_computable(len(items), Items(zip(uids, items, strict=True)))
        return list(outputs(applied.function, obj, uids, items))

    def _look_up(self, items: tp.Iterable[tp.Any], cache: "CacheDict[tp.Any]") -> tuple[list[str], Items]:
        """Uids of all items, and the items that have no result (or are forced)."""
        item_uid = self.item_uid
        uids: list[str] = []
        missing = Items()
        forced: set[str] = self._state.forced
        iterator = iter(items)
        while chunk := list(itertools.islice(iterator, _LOOKUP)):
            keys = [item_uid(item) for item in chunk]
            uids.extend(keys)
            if self.mode == "force":
                absent = [key for key in keys if key not in forced]
            else:
                absent = cache.missing(keys)
            if absent:
                wanted = set(absent)
                missing.update((key, item) for key, item in zip(keys, chunk, strict=True) if key in wanted)
        return uids, missing

    def _check_computable(self, asked: int, missing: Items) -> None:
        if self.mode == "read-only":
            raise ReadOnlyError(
                f"{len(missing)} of {asked} item(s) of {self.uid()} have no result in {self.folder}, such as "
                f"{next(iter(missing))!r}, and mode='read-only' forbids computing them"
            )
        if asked == 1 and self.forbid_single_item_computation:
            raise InfraError(
                f"item {next(iter(missing))!r} of {self.uid()} would be computed alone, which "
                "forbid_single_item_computation=True forbids: ask for all items in one call first"
            )

    def _compute_missing(self, missing: Items, cache: "CacheDict[tp.Any]") -> None:
        work = MapWork(self, missing, cache)
        if self.folder is None:
            work.run(missing)
        else:
            once.compute_once(work, list(missing))
        if self.mode == "force":
            self._state.forced.update(missing)
            if self.cluster is not None and self.folder is not None:
                self._state.cache_dict = None  # others have written: what is in memory may be old


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

    def __init__(self, infra: MapInfra, items: Items, cache: "CacheDict[tp.Any]") -> None:
        self.infra = infra
        self.items = items
        self.cache = cache
        self.recomputed: set[str] = set()

    @property
    def folder(self) -> Path:
        """Folder that holds the results and the claims on them."""
        return tp.cast(Path, self.infra.uid_folder())

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have no result yet, or not yet a new one where that is forced."""
        if self.infra.mode == "force":
            return [key for key in keys if key not in self.recomputed]
        return self.cache.missing(keys)

    def execute(self, claim: "Claim", keys: tp.Sequence[str]) -> None:
        """Compute claimed keys where the infra says."""
        self.run(Items((key, self.items[key]) for key in keys), claim)
        self.recomputed.update(keys)

    def run(self, items: Items, claim: "Claim | None" = None) -> None:
        """Compute items on the cluster of the infra.

        Parameters
        ----------
        items: OrderedDict
            items by uid
        claim: Claim, optional
            claim on them; None without a folder
        """
        from .execution import pools
        from .utils import to_chunks

        infra = self.infra
        cluster = infra.resolved_cluster()
        computer = MapComputer(infra, self.cache if claim is None else None)
        with ProgressBar(len(items), infra._factory()) as tick:
            if cluster is None:
                MapComputer(infra, self.cache).compute(list(items), list(items.values()), tick)
                return
            workers = infra.max_jobs
            if cluster in ("threadpool", "processpool"):
                workers = pools.worker_count(cluster, infra.max_jobs)
            pairs = to_chunks(
                list(items.items()), max_chunks=workers, min_items_per_chunk=infra.min_samples_per_job
            )
            groups = [([k for k, _ in chunk], [v for _, v in chunk]) for chunk in pairs]
            if cluster == "threadpool":
                pools.run_in_threads(MapComputer(infra, self.cache), groups, tick)
            elif cluster == "processpool":
                pools.run_in_processes(computer, groups, self.cache if claim is None else None, tick)
            else:
                assert claim is not None, "jobs need a folder"
                once.run_in_jobs(
                    claim, groups, computer, cluster=cluster, request=self._request, progress=tick
                )

    def _request(self, calls: list[tp.Callable[[], tp.Any]], tag: str) -> "Request":
        request = request_for(self.infra, calls, max_workers=self.infra.max_jobs or len(calls), tag=tag)
        link_code(self.folder, request.workdir)
        return request


class MapComputer:
    """Computes items and stores their results; travels to jobs.

    Parameters
    ----------
    infra: MapInfra
        infra of the method
    cache: CacheDict, optional
        where results go; by default the infra's own
    """

    def __init__(self, infra: MapInfra, cache: "CacheDict[tp.Any] | None" = None) -> None:
        self.obj, _ = infra._bound
        self.infra_name = infra._infra_name
        self.cache = cache

    def compute(
        self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any], tick: tp.Callable[[int], None] | None = None
    ) -> None:
        """Compute items and store each result as soon as it is there.

        Parameters
        ----------
        keys: sequence of str
            uids of the items
        items: sequence
            the items
        tick: callable, optional
            told about each item done
        """
        infra = getattr(self.obj, self.infra_name)
        cache = infra.cache_dict if self.cache is None else self.cache
        with cache.write():
            for key, value in zip(keys, outputs(infra._applied.function, self.obj, keys, items), strict=True):
                cache[key] = value
                if tick is not None:
                    tick(1)

    def values(self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any]) -> list[tp.Any]:
        """Compute items and return the results, for an infra without folder."""
        infra = getattr(self.obj, self.infra_name)
        return list(outputs(infra._applied.function, self.obj, keys, items))


def outputs(
    function: tp.Any, obj: tp.Any, keys: tp.Sequence[str], items: tp.Sequence[tp.Any]
) -> tp.Iterator[tp.Any]:
    """Call a map method and check that it yields one output an item.

    Parameters
    ----------
    function: callable
        the method
    obj: Any
        the object
    keys: sequence of str
        uids of the items, for errors
    items: sequence
        the items

    Yields
    ------
    Any
        outputs, in the order of the items

    Raises
    ------
    ValueError
        if there are too many or too few
    """
    done = 0
    name = f"{type(obj).__qualname__}.{function.__name__}"
    try:
        for value in function(obj, items):
            if done == len(keys):
                raise ValueError(
                    f"{name} yielded more than one output an item: {len(keys)} item(s) were given"
                )
            yield value
            done += 1
    except Exception as e:
        if done < len(keys):
            e.add_note(
                f"Raised by {name} while computing item {keys[done]!r} "
                f"({done} of {len(keys)} were done before it and are kept)."
            )
        raise
    if done < len(keys):
        raise ValueError(
            f"{name} yielded {done} output(s) for {len(keys)} items, none for {keys[done]!r}: "
            "it must yield exactly one an item, in order"
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

    def __enter__(self) -> tp.Callable[[int], None]:
        import sys

        if self.total < 2 or not sys.stderr.isatty():
            return lambda n: None
        import tqdm

        self.bar = tqdm.tqdm(total=self.total, desc=self.name, delay=self.DELAY, unit="item", leave=False)
        return tp.cast(tp.Callable[[int], None], self.bar.update)

    def __exit__(self, *args: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _uid_function(item_uid: tp.Callable[[tp.Any], str], max_length: int | None) -> tp.Callable[[tp.Any], str]:
    if max_length is None:
        return item_uid
    from .utils import ShortItemUid

    return ShortItemUid(item_uid, max_length)


def _items_parameter(function: tp.Any) -> str:
    import inspect

    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 2:
        raise ValueError(
            f"MapInfra cannot be applied to {function.__module__}.{function.__qualname__}, which takes {parameters}: "
            "a map method takes 'self' and the items"
        )
    return parameters[1]
