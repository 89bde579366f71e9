"""MapInfra: one result per item, each cached and computed once."""

import collections.abc
import itertools
import os
import sys
import time
import typing as tp
from pathlib import Path

import pydantic

from ._earlier import earlier_names
from .engine import once, same_items
from .engine.items import ItemStore, ItemWork
from .errors import DamagedEntryError, InfraError, ReadOnlyError
from .infra.base import Applied, BaseInfra, Exclusion, wrap
from .utils import ShortItemUid

if tp.TYPE_CHECKING:
    from .cachedict import CacheDict
    from .engine.reports import Progress
    from .jobs.job import Job

Items = dict[str, tp.Any]  # by uid
F = tp.TypeVar("F", bound=tp.Callable[..., tp.Any])
_LOOKUP = 8192  # items looked up together: bounds what is held of items that are cached already
_FEW = 16  # items that are looked up one by one first
_DAMAGED_TOGETHER = 256  # items from a damaged one on that are looked at before it is computed again
_END: tp.Any = object()


class ItemUid:
    """Gives the text by which an item's result is found again."""

    def __init__(self, function: tp.Callable[[tp.Any], str], max_length: int | None) -> None:
        self.function = function
        self.max_length: int = sys.maxsize if max_length is None else max_length
        self._shorten = ShortItemUid(str, self.max_length)

    def __call__(self, item: tp.Any) -> str:
        """The uid of one item."""
        return self.of_all([item])[0]

    def of_all(self, items: tp.Sequence[tp.Any]) -> list[str]:
        """The uids of many items."""
        uids = list(map(self.function, items))
        limit = self.max_length
        for uid in uids:
            if type(uid) is not str or len(uid) > limit:
                return self._shortened(items, uids)
        return uids

    def _shortened(self, items: tp.Sequence[tp.Any], uids: list[tp.Any]) -> list[str]:
        for item, uid in zip(items, uids, strict=True):
            if not isinstance(uid, str):
                raise TypeError(
                    f"item_uid must return a str, got {uid!r} ({type(uid).__name__}) for the item {item!r}"
                )
        return [self._shorten(str.__str__(uid)) for uid in uids]  # plain text also of numpy's and enums'


class MapInfra(BaseInfra):
    """Runs a method over items where its fields tell to, and keeps one result per item.

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

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(defer_build=False)
    keep_in_ram: bool = True
    max_jobs: pydantic.PositiveInt | None = 128
    min_samples_per_job: pydantic.PositiveInt = 1
    forbid_single_item_computation: bool = False
    mode: tp.Literal["cached", "force", "read-only"] = "cached"

    @pydantic.field_validator("folder")
    @classmethod
    def _check_parent(cls, folder: Path | str | None) -> Path | str | None:
        if folder is not None and not os.path.isdir(os.path.dirname(os.path.abspath(folder))):
            raise ValueError(
                f"the parent of folder={str(folder)!r} does not exist: create it, or correct the path "
                "(only the folder itself is made)"
            )
        return folder

    def apply(
        self,
        *method: tp.Never,
        item_uid: tp.Callable[[tp.Any], str],
        item_uid_max_length: int | None = 256,
        exclude_from_cache_uid: Exclusion = (),
        cache_type: str | None = None,
    ) -> tp.Callable[[F], F]:
        """Tie the infra to a method; used as a decorator: ``@infra.apply(item_uid=...)``.

        Parameters
        ----------
        *method: never
            only so that ``@infra.apply`` without arguments is an error that asks for ``item_uid``
        item_uid: callable
            gives the text by which an item's result is found again
        item_uid_max_length: int, optional
            longer texts are shortened, with a hash
        exclude_from_cache_uid: iterable of str, callable on the object, or "method:<name>"
            fields that do not count for the cache
        cache_type: str, optional
            name of the handler that stores the results (by default chosen by their type)

        Returns
        -------
        callable
            a decorator for the method

        Raises
        ------
        ValueError
            if the method does not take exactly ``self`` and the items
        TypeError
            if it is not called with keywords only
        """
        if method:
            raise TypeError(
                f"MapInfra.apply takes no method, but got {method[0]!r}: write @infra.apply(item_uid=...) above it"
            )
        return lambda function: self._apply_to(
            function, exclude_from_cache_uid, ItemUid(item_uid, item_uid_max_length), cache_type
        )

    def _apply_to(self, function: F, exclude: Exclusion, item_uid: ItemUid, cache_type: str | None) -> F:
        name = _items_parameter(function)
        applied = Applied(function, exclude, item_uid=item_uid, cache_type=cache_type, parameter=name)

        def call(obj: tp.Any, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            infra = applied.infra_of(obj, self._infra_name)
            if infra is None:
                return function(obj, *args, **kwargs)
            if len(args) == 1 and not kwargs:
                try:
                    return infra._process(args[0])
                except TypeError:
                    if isinstance(args[0], collections.abc.Iterable) or hasattr(args[0], "__getitem__"):
                        raise
                    raise TypeError(
                        f"{applied.name}() takes an iterable of items, and got {args[0]!r}: write [{args[0]!r}] "
                        "for one item"
                    ) from None
            if args or list(kwargs) != [name]:
                raise TypeError(f"{applied.name}() takes the items, as its only argument or as {name}=...")
            return infra._process(kwargs[name])

        self._register(applied, wrap(function, call))
        return tp.cast(F, applied.wrapper)

    @property
    def item_uid(self) -> ItemUid:
        """Function that gives the text by which an item's result is found again."""
        applied = self._applied or self._bound[1]
        return applied.options["item_uid"]  # type: ignore[no-any-return] # as given to Applied

    @property
    def cache_dict(self) -> "CacheDict[tp.Any]":
        """The results on disk (and in memory), by item uid."""
        if self._state.cache_dict is None and not self._is_kept():
            self._require_own_method("cache_dict")
        return self._shared_cache()

    def _shared_cache(self) -> "CacheDict[tp.Any]":
        state = self._state
        if state.cache_dict is None:
            # were two threads to get one each, one would miss what the other keeps in memory
            with state.lock:
                if state.cache_dict is None:
                    state.cache_dict = self._make_cache()
        return tp.cast("CacheDict[tp.Any]", state.cache_dict)

    def _make_cache(self) -> "CacheDict[tp.Any]":
        from .cachedict import CacheDict

        folder = self.uid_folder()
        keep = self.keep_in_ram or folder is None
        return CacheDict(folder, keep_in_ram=keep, cache_type=self._bound[1].options["cache_type"])

    # ---------------------------------------------------------------- what is computed now

    def jobs(self) -> "list[Job[tp.Any]]":
        """The jobs that compute items now, whichever interpreter submitted them.

        Returns
        -------
        list of Job
            handles, for `exca.wait` and `exca.as_completed`: a job is done when its items are
        """
        from .engine.running import holders_in, jobs_of

        folder = self.uid_folder()
        if folder is None:
            return []
        return list(jobs_of(holders_in([folder]).values(), str(self._logs_folder())))

    def progress(self, items: tp.Iterable[tp.Any] | None = None) -> "Progress":
        """How far items are.

        Parameters
        ----------
        items: iterable, optional
            the items, by default those that are being computed now

        Returns
        -------
        Progress
            how many have a result, are computed now, and wait in a queue; a sentence when printed
        """
        from .engine.running import holders_in, progress_of

        folder = self.uid_folder()
        keys = None if items is None else list(dict.fromkeys(self.item_uid.of_all(list(items))))
        holders = {} if folder is None else holders_in([folder], keys)
        return progress_of(list(holders) if keys is None else keys, holders, self.cache_dict.missing)

    def cancel(self) -> None:
        """End the jobs that compute items now; results that are stored stay, the next call computes the others."""
        from .jobs.job import cancel_all

        cancel_all(self.jobs())

    def clear(self) -> None:
        """End the jobs that compute items now, and remove all results."""
        self.cancel()
        self.cache_dict.clear()
        self._state.forced.clear()

    # ---------------------------------------------------------------- the way of a call

    def _process(self, items: tp.Iterable[tp.Any]) -> tp.Iterator[tp.Any]:
        """Compute what is missing, now, and return an iterator over the results in the order asked."""
        cache: CacheDict[tp.Any] | None = self._state.cache_dict
        if cache is None:
            obj, applied = self._bound
            own = self.folder is None or getattr(type(obj), applied.name, None) is applied.wrapper
            if not own and not self._is_kept():
                return self._compute_unkept(items)
            # without folder and memory, results live as long as this call's iterator
            cache = (
                self._make_cache() if self.folder is None and not self.keep_in_ram else self._shared_cache()
            )
        if not cache.code or time.monotonic() >= self._state.digest_until:  # else it was asked a moment ago
            digest = self._digest()
            if digest is not None and cache.code != digest.digest:
                cache.judge_by(self._method.code, digest.digest)
        if type(items) is list and self.mode != "force" and len(items) <= _LOOKUP and cache.in_ram:
            try:  # all in memory: nothing to look up, and loops over single items are common
                uids = self.item_uid.of_all(items)
                values = list(map(cache.in_ram.__getitem__, uids))
                if len(items) > 1 and len(set(uids)) < len(uids):
                    same_items.check(uids, items, {}, self._factory())
                return iter(values)
            except KeyError:
                pass
        uids, missing = self._look_up(items, cache, self.item_uid)
        if missing:
            self._check_computable(len(uids), missing)
            self._compute(missing, cache)
        return self._results(uids, items, cache)

    def _look_up(
        self, items: tp.Iterable[tp.Any], cache: "CacheDict[tp.Any]", item_uid: ItemUid
    ) -> tuple[list[str], Items]:
        """Uids of all items, and the items that have no result (or are forced)."""
        uids: list[str] = []
        missing = Items()
        seen = same_items.Seen(items, self._factory())
        ram = cache.in_ram
        total = len(items) if isinstance(items, tp.Sized) else 0
        for chunk in _chunks(items):
            keys = item_uid.of_all(chunk)
            uids += keys
            seen.add(uids, len(keys), chunk, missing)
            # what is in memory needs no look at the folder
            absent = [key for key in keys if key not in ram] if ram else keys
            if len(absent) <= _FEW:  # known ones cost no look at the folder
                absent = [key for key in absent if key not in cache]
            if absent:
                absent = cache.missing(absent, total=total)
            if self.mode == "force":
                gone, forced = set(absent), self._state.forced
                absent = [key for key in keys if key not in forced or key in gone]
            if absent:
                pairs: tp.Iterable[tuple[str, tp.Any]] = zip(keys, chunk, strict=True)
                if len(absent) < len(keys):
                    wanted = set(absent)
                    pairs = ((key, item) for key, item in pairs if key in wanted)
                missing.update(pairs)
        return uids, missing

    def _has_outcome(self, folder: Path) -> bool:
        try:
            return any(name.endswith("-info.jsonl") for name in os.listdir(folder))
        except OSError:
            return False

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

    def _compute_unkept(self, items: tp.Iterable[tp.Any]) -> tp.Iterator[tp.Any]:
        """Compute what super() of a child's method asks for, where the results would not be those of the parent."""
        if self.mode == "read-only":
            raise ReadOnlyError(
                f"{self._factory()} has no results for a {type(self._obj).__qualname__}, which overrides the method "
                "and what it uses, and mode='read-only' forbids computing them"
            )
        return iter(self._method.call(items))

    def _compute(self, missing: Items, cache: "CacheDict[tp.Any]") -> None:
        if self.folder is None:
            self._require_strict()
        self._require_unchanged()
        self._check_texts(missing)
        store = ItemStore(cache, force=self.mode == "force")
        work = ItemWork(
            self._method,
            missing,
            store,
            most=self.max_jobs,
            fewest=self.min_samples_per_job,
            cache_type=self._bound[1].options["cache_type"],
        )
        code = work.method.code
        if code is not None:
            code.kept()
        try:
            if self.folder is not None:
                self.uid_folder(create=True)
                once.compute_once(work, list(missing))
            elif self.cluster is None:
                with self._state.lock:  # without a folder there are no claims
                    work.execute(None, store.missing(list(missing)))
            else:
                work.execute(None, list(missing))
        finally:
            if self.mode == "force":
                self._state.forced.update(store.computed)
                if self.folder is not None and self.cluster is not None:
                    cache.doubt(missing)

    def _check_texts(self, missing: tp.Mapping[str, tp.Any]) -> None:
        """Refuse items whose uid others can have."""
        same_items.check_texts(self.item_uid.function, missing, self._factory(), type(self._obj))

    def _call_and_store(self, items: tp.Any, use_cache_dict: bool = True) -> dict[str, tp.Any]:
        # kept for jobs that 0.6 queued, which call it
        from .kept.queued import run_items

        return run_items(self, items, use_cache_dict)

    # ---------------------------------------------------------------- results

    def _results(
        self, uids: list[str], items: tp.Iterable[tp.Any], cache: "CacheDict[tp.Any]"
    ) -> tp.Iterator[tp.Any]:
        ram = cache.in_ram
        if ram and uids and uids[-1] in ram:
            try:
                return iter([ram[uid] for uid in uids])
            except KeyError:  # some are on disk only
                pass
        return self._read(uids, None if iter(items) is items else items, cache)

    def _read(
        self, uids: list[str], items: tp.Iterable[tp.Any] | None, cache: "CacheDict[tp.Any]"
    ) -> tp.Iterator[tp.Any]:
        """Read results one at a time; those that turn out damaged are computed again."""
        done = 0
        while True:
            try:
                for value in cache.iter_values(itertools.islice(uids, done, None) if done else uids):
                    done += 1
                    yield value
                return
            except KeyError:
                self._compute_damaged(uids, done, items, cache)
                yield cache[uids[done]]
                done += 1

    def _compute_damaged(
        self, uids: list[str], place: int, items: tp.Iterable[tp.Any] | None, cache: "CacheDict[tp.Any]"
    ) -> None:
        """Compute again the result at a place, and those found damaged a little further on along with it."""
        window = uids[place : place + _DAMAGED_TOGETHER]
        again = [] if items is None else list(itertools.islice(items, place, place + len(window)))
        found = Items()
        for uid, item in zip(self.item_uid.of_all(again), again, strict=False):
            if uid not in window or cache.get(uid, _END) is not _END:
                continue  # read, and perhaps read again in a moment: a job per item would cost more
            found[uid] = item
        if uids[place] not in found:
            raise DamagedEntryError(
                f"the stored result of item {uids[place]!r} of {self.uid()} is damaged or was deleted meanwhile, and "
                "the items cannot be gone through again: ask again to compute it"
            )
        self._check_computable(len(uids), found)
        self._compute(found, cache)


def _chunks(items: tp.Iterable[tp.Any]) -> tp.Iterable[tp.Sequence[tp.Any]]:
    if type(items) is list and len(items) <= _LOOKUP:
        return (items,)
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, _LOOKUP)), [])


def _items_parameter(function: tp.Any) -> str:
    import inspect

    from .infra.placing import refuse_descriptor

    refuse_descriptor("MapInfra", function)
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 2:
        raise ValueError(
            f"MapInfra cannot be applied to {function.__module__}.{function.__qualname__}, which takes {parameters}: "
            "a map method takes 'self' and the items"
        )
    return parameters[1]


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
