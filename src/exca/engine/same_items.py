"""Whether items that have one uid are one item, and whether a uid can be of one item only."""

import array
import collections.abc
import datetime
import decimal
import enum
import pathlib
import re
import sys
import typing as tp

from .. import settings
from .._log import logger
from ..errors import AmbiguousItemError

_PLAIN = (str, bytes, int, float, complex, bool, type(None), pathlib.PurePath, enum.Enum, decimal.Decimal)
_DATES = (datetime.date, datetime.time, datetime.timedelta)
_warned: set[str] = set()  # methods for which it was said that items cannot be compared


class Seen:
    """The items of one call so far, by uid.

    Of a sequence only the place of the first item of each uid is held, and only once a uid comes again. Of items that
    can't be gone through again a hash is held of each that is a plain value, and nothing of others, which are only
    compared within a share.
    """

    def __init__(self, items: tp.Iterable[tp.Any], name: str) -> None:
        self._items = items if isinstance(items, collections.abc.Sequence) else None
        self._name = name
        self._uids: set[str] = set()
        self._first: dict[str, int] = {}  # number of the first item by uid, filled when a uid comes again
        self._noted = 0  # items that are in it
        self._hashes = array.array("q")

    def add(
        self, uids: list[str], count: int, share: tp.Sequence[tp.Any], known: tp.Mapping[str, tp.Any]
    ) -> None:
        """Take note of the next share of items, and check that those with one uid are the same.

        The uids are those of all items so far, the last ``count`` of them of this share; ``known`` holds earlier items.
        """
        start = len(uids) - count
        keys = uids[start:] if start else uids
        again = len(self._uids) + count
        self._uids.update(keys)
        if len(self._uids) < again:
            check(
                keys,
                share,
                {**self._earlier(uids, start, keys, share), **known} if start else known,
                self._name,
            )
        if self._items is None:
            self._hashes.extend(map(_hash, share))

    def _earlier(
        self, uids: list[str], start: int, keys: list[str], share: tp.Sequence[tp.Any]
    ) -> tp.Mapping[str, tp.Any]:
        """The first items of the uids of a share that came in earlier ones."""
        for number in range(self._noted, start):
            self._first.setdefault(uids[number], number)
        self._noted = start
        firsts = {key: self._first[key] for key in keys if key in self._first}
        if self._items is not None:
            return {key: self._items[number] for key, number in firsts.items()}
        for key, item in zip(keys, share, strict=True):
            if key in firsts:
                mine, other = _hash(item), self._hashes[firsts[key]]
                if _UNKNOWN not in (mine, other) and mine != other:
                    raise AmbiguousItemError(
                        f"item_uid of {self._name} gives {key!r} for two different items, {item!r} and an earlier one, "
                        "of which one would get the result of the other: let it tell them apart"
                    )
        return {}


_UNKNOWN = 0


def _hash(item: tp.Any) -> int:
    if type(item) in (int, str):
        return hash(item)
    return hash(item) if isinstance(item, _PLAIN + _DATES) and item == item else _UNKNOWN


def check(
    keys: tp.Sequence[str], items: tp.Iterable[tp.Any], known: tp.Mapping[str, tp.Any], name: str
) -> None:
    """Raise an AmbiguousItemError where different plain values have one uid: one would get the result of the other."""
    first: dict[str, tp.Any] = {}
    for key, item in zip(keys, items, strict=True):
        other = first.setdefault(key, known.get(key, item))
        if other is item or (equal := are_equal(other, item)):
            continue
        if equal is not None:
            raise AmbiguousItemError(
                f"item_uid of {name} gives {key!r} for two different items, {other!r} and {item!r}, of which one would "
                "get the result of the other: let it tell them apart"
            )
        if name not in _warned:
            _warned.add(name)
            logger.warning(
                "Items of %s, such as %s, have one uid, %r, and cannot be compared: all get the same result",
                name,
                type(item).__qualname__,
                key,
            )


def are_equal(one: tp.Any, other: tp.Any) -> bool | None:
    """Whether two values are equal; None for objects of which only their class knows what counts."""
    if one is other:
        return True
    if isinstance(one, _PLAIN + _DATES) and isinstance(other, _PLAIN + _DATES):
        return bool(one == other) or (one != one and other != other)  # nan
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(one, numpy.ndarray | numpy.generic):
        return _equal_arrays(one, other, numpy)
    if type(one) is not type(other):
        return None
    return _equal_containers(one, other)


def _equal_containers(one: tp.Any, other: tp.Any) -> bool | None:
    if type(one) in (list, tuple):
        return len(one) == len(other) and _all(are_equal(a, b) for a, b in zip(one, other, strict=True))
    if type(one) is dict:
        return one.keys() == other.keys() and _all(are_equal(one[key], other[key]) for key in one)
    if type(one) in (set, frozenset):
        return bool(one == other) or None
    return None


def _all(parts: tp.Iterable[bool | None]) -> bool | None:
    known = set(parts)
    return False if False in known else None if None in known else True


def _equal_arrays(one: tp.Any, other: tp.Any, numpy: tp.Any) -> bool | None:
    if (
        not isinstance(other, numpy.ndarray | numpy.generic)
        or one.dtype != other.dtype
        or one.dtype.hasobject
    ):
        return None
    return bool(one.shape == other.shape and one.tobytes() == other.tobytes())


# ---------------------------------------------------------------- texts that are not of one item only

# packages whose objects show a part of what they hold
_SHOWN_IN_PART = ("pandas", "polars", "torch", "xarray")
_IN_MEMORY = re.compile(r" at 0x[0-9a-fA-F]{4,}")


def check_texts(
    text_of: tp.Callable[[tp.Any], str | None], items: tp.Mapping[str, tp.Any], name: str, cls: type
) -> None:
    """Refuse to compute items whose uid another item can have, in this call or in a later one.

    Parameters
    ----------
    text_of: the function that names items
    items: those that are to be computed, by uid
    name: what computes them
    cls: its class

    Raises
    ------
    AmbiguousItemError: the text of an array or table leaves out values or digits, or an object is named by its place
        in memory
    """
    if all(type(item) in (str, int, float, bool) for item in items.values()):
        return
    for uid, item in items.items():
        why = None if isinstance(item, _PLAIN + _DATES) else _what_is_lost(text_of, uid, item)
        if why is not None:
            settings.complain(
                "lossy-item-uid",
                AmbiguousItemError(
                    f"item_uid of {name} names an item of type {type(item).__name__} by {uid!r}, which {why}: another "
                    "item could have the same uid, and get its result. Let item_uid return what tells items apart, "
                    "such as the name of a file, or of an array hashlib.sha256(item.tobytes()).hexdigest(); "
                    "@exca.map_cached without item_uid identifies items by what they hold"
                ),
                cls,
            )
            return


def _what_is_lost(text_of: tp.Callable[[tp.Any], str | None], uid: str, item: tp.Any) -> str | None:
    if _IN_MEMORY.search(uid):
        return "is its place in memory, where another object may be later"
    package = type(item).__module__.partition(".")[0]
    if package in _SHOWN_IN_PART:
        return (
            f"is how {package} shows it, without all values and digits" if _is_shown(text_of, item) else None
        )
    numpy = sys.modules.get("numpy")
    if numpy is None or "[" not in uid:
        return None
    text = text_of(item) or ""
    with numpy.printoptions(**({"edgeitems": 1} if "..." in text else {"floatmode": "unique"})):
        return None if text_of(item) == text else "is how numpy shows it, without all values and digits"


def _is_shown(text_of: tp.Callable[[tp.Any], str | None], item: tp.Any) -> bool:
    return text_of(item) in (str(item), repr(item))
