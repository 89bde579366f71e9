"""`map_cached`: a function of one item, mapped over many, each result kept and computed once."""

import collections
import collections.abc
import contextlib
import copy
import functools
import json
import typing as tp
from pathlib import Path

import pydantic
import xxhash

from ..engine import same_items
from ..helpers import adapter_of, plain, reachable
from ..identity.export import exporter
from ..identity.fields import DROPPED, SCALARS
from ..map import MapInfra
from .content import CALLED, Content, given
from .decorated import OF_JOBLIB, Function, checked_fields
from .fields import MapFields
from .signature import Options, Signature, Unannotated, check_function

P = tp.ParamSpec("P")
I = tp.TypeVar("I")  # noqa: E741 # of items
Y = tp.TypeVar("Y")
ItemUid = tp.Callable[[tp.Any], str]
_PLAIN: tp.Final = (str, int, float, bool)
_LONGEST = 200  # characters of the text of an item; of longer ones the beginning and a digest
_KEPT = 16  # configurations whose open caches are kept

# ---------------------------------------------------------------- items


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    digest = xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))
    return f"{text[: _LONGEST // 2]}..xxh3.{digest}"


def item_text(item: tp.Any) -> str:
    """The text under which an item's result is kept, unless `item_uid` gives one: its JSON."""
    exported = item if type(item) in SCALARS else exporter(True, False).value(item)
    if exported is DROPPED:  # a model that leaves all of itself out
        exported = {}
    return _shortened(json.dumps(exported, sort_keys=True, ensure_ascii=False, separators=(",", ":")))


class Items:
    """What is known of the items of a function: validates them by the type of its first parameter, and names them.

    Parameters
    ----------
    signature: of the function
    item_uid: the user's function from an item to its text
    """

    def __init__(self, signature: Signature, item_uid: ItemUid | None) -> None:
        assert signature.item is not None
        kind, annotation, self._where = signature.item
        self._kind: tp.Any = kind if kind in _PLAIN else None
        self._validate = adapter_of(annotation).validate_python
        self._item_uid = item_uid

    def uid(self, item: tp.Any) -> str:
        """The text under which the result of an item is kept."""
        if self._item_uid is not None:
            return self._item_uid(self.value(item))
        return _shortened(item) if self._kind is str and type(item) is str else item_text(item)

    def value(self, item: tp.Any) -> tp.Any:
        """The item as the function gets it."""
        return given(item, self._where)

    def check(self, item: tp.Any) -> tp.Any:
        """Validate one item."""
        return item if type(item) is self._kind else self._validate(item, context=CALLED)

    def checked(self, items: tp.Iterable[tp.Any]) -> tp.Iterable[tp.Any]:
        """Validate items: now where they are at hand, else as they are taken."""
        if isinstance(items, collections.abc.Sequence):
            return list(map(self.check, items))
        if not (isinstance(items, collections.abc.Iterable) or hasattr(items, "__getitem__")):
            raise TypeError(
                f"map() takes an iterable of items, and got {items!r}: write [{items!r}] for one item"
            )
        return map(self.check, items) if iter(items) is items else _Checked(items, self.check)


class _Checked:
    """Items that can be gone through again, validated each time."""

    def __init__(self, items: tp.Iterable[tp.Any], check: tp.Callable[[tp.Any], tp.Any]) -> None:
        self._items = items
        self._check = check

    def __iter__(self) -> tp.Iterator[tp.Any]:
        return map(self._check, self._items)


# ---------------------------------------------------------------- the configuration of a map


class FunctionMapInfra(MapInfra):
    """The infra of a mapped function: its address is the name of the function."""

    def _factory(self) -> str:
        cls = type(self._bound[0])
        return f"{cls.__module__}.{cls.__qualname__},{self.version}"

    def _check_texts(self, missing: tp.Mapping[str, tp.Any]) -> None:
        cls = type(self._bound[0])
        if cls._exca_item_uid is not None:  # else they are named by what they hold
            items = {uid: cls._exca_items.value(item) for uid, item in missing.items()}
            same_items.check_texts(cls._exca_item_uid, items, self._factory(), cls)


class MapCall(pydantic.BaseModel):
    """All arguments of a `map_cached` function but the item; ``infra`` is its MapInfra, applied to ``build``."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )
    _exca_function: tp.ClassVar[tp.Callable[..., tp.Any]]
    _exca_signature: tp.ClassVar[Signature]
    _exca_items: tp.ClassVar[Items]
    _exca_item_uid: tp.ClassVar[ItemUid | None]

    if tp.TYPE_CHECKING:  # on each model that is made of a function

        def __init__(self, **kwargs: tp.Any) -> None: ...

        infra: FunctionMapInfra

        def build(self, items: tp.Iterable[tp.Any]) -> tp.Iterator[tp.Any]:
            """The results for items."""
            ...

    def __reduce__(self) -> tuple[tp.Any, ...]:
        signature = self._exca_signature
        made_of = reachable(signature.func), signature.options, type(self)._exca_item_uid
        return _blank, made_of, self.__getstate__()


def _blank(function: tp.Any, options: Options, item_uid: ItemUid | None) -> MapCall:
    model = _model_of(plain(function), options, item_uid)
    return model.__new__(model)


@functools.lru_cache(maxsize=1024)
def _model_of(func: tp.Callable[..., tp.Any], options: Options, item_uid: ItemUid | None) -> type[MapCall]:
    signature = Signature(func, options, of_items=True)
    known = Items(signature, item_uid)
    infra = FunctionMapInfra(version="1", keep_in_ram=False)

    def build(self: MapCall, items: tp.Iterable[tp.Any]) -> tp.Iterator[tp.Any]:
        """Call the function with each item."""
        args, kwargs = signature.arguments(self)
        for item in items:
            yield func(known.value(item), *args, **kwargs)

    signature.annotations["infra"] = FunctionMapInfra
    signature.annotations |= dict.fromkeys(("_exca_items", "_exca_item_uid"), tp.ClassVar[tp.Any])
    return tp.cast(
        type[MapCall],
        signature.model(
            signature.name,
            MapCall,
            infra=infra,
            build=infra.apply(item_uid=known.uid, item_uid_max_length=None)(build),
            _exca_items=known,
            _exca_item_uid=item_uid if item_uid is None else staticmethod(item_uid),
        ),
    )


# ---------------------------------------------------------------- the function


class MappedFunction(Function, tp.Generic[I, P, Y]):
    """A function of one item whose results are kept, one per item; made by :class:`map_cached`.

    Parameters
    ----------
    func: callable
        the function
    infra: dict
        fields of its MapInfra
    options: Options
        what the decorator says of its parameters
    item_uid: callable, optional
        gives the text by which an item's result is found again

    Attributes
    ----------
    func: callable
        the plain function: neither cached nor checked
    """

    _of_joblib: tp.ClassVar[tp.Mapping[str, str]] = {
        **OF_JOBLIB,
        "check_call_in_cache": "write bool(exca.why(f.infra_of(...), item)), which is true where a result is cached",
        "call_and_shelve": "write f.map(items), which computes what is missing and returns an iterator",
        "clear": "write f.infra_of(...).clear()",
    }

    def __init__(
        self,
        func: tp.Callable[tp.Concatenate[I, P], Y],
        infra: dict[str, tp.Any],
        options: Options,
        item_uid: ItemUid | None = None,
    ) -> None:
        super().__init__(func, infra, options)
        self.func: tp.Callable[tp.Concatenate[I, P], Y] = func
        self.item_uid = item_uid
        self._made: tuple[type[MapCall], FunctionMapInfra] | None = None
        self._kept: collections.OrderedDict[str, MapCall] = collections.OrderedDict()

    def __call__(self, item: I, /, *args: P.args, **kwargs: P.kwargs) -> Y:
        """The result for one item."""
        return next(self.map([item], *args, **kwargs))

    def map(self, items: tp.Iterable[I], /, *args: P.args, **kwargs: P.kwargs) -> tp.Iterator[Y]:
        """The results for many items; what is missing is computed now, each distinct item once.

        Parameters
        ----------
        items: iterable
            the items
        *args, **kwargs
            the other arguments of the function, the same for all items

        Returns
        -------
        iterator
            the results, in the order of the items
        """
        call = self._config(args, kwargs)
        try:
            return call.build(call._exca_items.checked(items))
        except BaseException:
            self._kept.clear()  # a list in the configuration may have been changed
            raise

    def infra_of(self, /, *args: P.args, **kwargs: P.kwargs) -> MapInfra:
        """The infra for all items with the same other arguments: ``cache_dict``, ``uid_folder()``...

        Parameters
        ----------
        *args, **kwargs
            the arguments of the function but the item

        Returns
        -------
        MapInfra
            infra bound to their configuration
        """
        return self._config(args, kwargs).infra

    def using(
        self, *, folder: Path | str | None = None, **fields: tp.Unpack[MapFields]
    ) -> "MappedFunction[I, P, Y]":
        """The same function with other fields of the infra: ``embed.using(cluster="slurm").map(items)``.

        Parameters
        ----------
        folder: Path or str, optional
            another folder
        **fields
            other fields of the MapInfra

        Returns
        -------
        MappedFunction
            a function that finds the same results, unless folder or version differ
        """
        infra = checked_fields("map_cached", folder, {**self.infra, **fields}, FunctionMapInfra)
        return MappedFunction(self.func, infra, self.options, self.item_uid)

    def _config(self, args: tp.Any, kwargs: tp.Any) -> MapCall:
        """The configuration of the other arguments: the one that is kept, for its cache is open."""
        if self._made is None:  # at the first call, when the types that annotations name are all defined
            model = _model_of(self.func, self.options, self.item_uid)
            self._made = model, FunctionMapInfra(**{"keep_in_ram": False, **self.infra})
        model, infra = self._made
        fields = model._exca_signature.by_field(args, kwargs)
        fields["infra"] = copy.copy(infra)
        call = model.model_validate(fields, context=CALLED)
        if any(type(value) is Content for value in vars(call).values()):
            return call  # not to keep what may be large
        uid = call.infra.uid()
        call = self._kept.setdefault(uid, call)
        if len(self._kept) > _KEPT and not infra.keep_in_ram:
            with contextlib.suppress(KeyError):  # by another thread
                self._kept.popitem(last=False)
        return call

    def __setstate__(self, state: dict[str, tp.Any]) -> None:
        super().__setstate__(state)
        self._kept = collections.OrderedDict()


# ---------------------------------------------------------------- the decorator


class map_cached:  # noqa: N801 # a decorator
    """Decorate a function of one item, so that ``f.map(items)`` computes what is missing where the infra says.

    The first parameter is the item. All others are a configuration: results with other arguments are kept apart.

    Parameters
    ----------
    folder: Path or str, optional
        where results are kept
    item_uid: callable, optional
        gives the text by which an item's result is found again (by default the item itself for text, and its JSON, or
        a digest of what it holds)
    ignore: iterable of str
        parameters that do not count: calls that differ only in them share results
    unannotated: str
        "refuse" (each parameter that counts needs a type), or "hash" (arguments of parameters without one are
        identified by what they hold)
    **fields
        fields of the MapInfra (``version``, ``cluster``, ``max_jobs``...). ``version`` is "1" and ``keep_in_ram``
        False unless given.

    Raises
    ------
    pydantic.ValidationError
        if a field is unknown or mistyped
    TypeError, ValueError
        when a function is decorated that cannot be: a method, an async function, a generator...

    Example
    -------
    >>> @exca.map_cached(folder="cache", cluster="processpool")
    ... def embed(word: str, size: int = 64) -> np.ndarray: ...
    >>> vectors = list(embed.map(words, size=128))
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        item_uid: ItemUid | None = None,
        ignore: tp.Iterable[str] = (),
        unannotated: Unannotated = "refuse",
        **fields: tp.Unpack[MapFields],
    ) -> None:
        given = {"keep_in_ram": False, **fields}
        self.infra: dict[str, tp.Any] = checked_fields("map_cached", folder, given, FunctionMapInfra)
        self.options: Options = Options.of(ignore, unannotated)
        self.item_uid = item_uid

    def __call__(self, func: tp.Callable[tp.Concatenate[I, P], Y], /) -> MappedFunction[I, P, Y]:
        """Decorate a function."""
        if isinstance(func, staticmethod):
            func = func.__func__
        check_function(func, self.options, "exca.map_cached", of_items=True)
        return MappedFunction(func, dict(self.infra), self.options, self.item_uid)

    def __repr__(self) -> str:
        return f"map_cached(**{self.infra!r})"
