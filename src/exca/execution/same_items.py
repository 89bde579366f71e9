"""Whether items that have one uid are one item."""

import datetime
import decimal
import enum
import logging
import pathlib
import sys
import typing as tp

from ..errors import AmbiguousItemError

logger = logging.getLogger("exca")
_PLAIN = (str, bytes, int, float, complex, bool, type(None), pathlib.PurePath, enum.Enum, decimal.Decimal)
_DATES = (datetime.date, datetime.time, datetime.timedelta)
_warned: set[str] = set()  # methods for which it was said that items cannot be compared


def check(
    keys: tp.Sequence[str], items: tp.Iterable[tp.Any], known: tp.Mapping[str, tp.Any], name: str
) -> None:
    """Check that items with one uid are the same.

    Parameters
    ----------
    keys: sequence of str
        uids of the items
    items: iterable
        the items
    known: mapping
        earlier items by uid
    name: str
        the method, for messages

    Raises
    ------
    AmbiguousItemError
        if two different plain values have one uid: one of them would get the result of the other
    """
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
    """Whether two values are equal; None for objects of which only their class knows what counts.

    Parameters
    ----------
    one, other: Any
        the values
    """
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
