"""Which fields a model leaves out of its uid: `_exclude_from_cls_uid`."""

import inspect
import typing as tp

import pydantic

from ..errors import ExclusionError

ATTRIBUTE: tp.Final = "_exclude_from_cls_uid"
WHOLE: tp.Final = "."
NEW_FIELDS: tp.Final = "_exca_new_fields"  # of infras and backends: fields that release 0.6 would refuse


def fixed(cls: type[pydantic.BaseModel]) -> tuple[str, ...] | frozenset[str] | None:
    """Returns what the class excludes where that can never change; None where it must be asked every time."""
    value = inspect.getattr_static(cls, ATTRIBUTE, ())
    if ATTRIBUTE in cls.__private_attributes__ or type(value) not in (tuple, frozenset):
        return None
    return tp.cast(tuple[str, ...] | frozenset[str], value)


def asked(obj: pydantic.BaseModel) -> frozenset[str]:
    """Returns the names that an object excludes, by whatever its class wrote: variable, property or method."""
    names = getattr(obj, ATTRIBUTE)
    return checked(type(obj), names() if callable(names) else names)


def checked(cls: type[pydantic.BaseModel], names: tp.Any) -> frozenset[str]:
    """Returns names as a set.

    Parameters
    ----------
    cls: the class that excludes them
    names: the names of its fields, or "." for the whole of it

    Raises
    ------
    ExclusionError: if a string was given in place of a collection of strings
    """
    if isinstance(names, str) or not isinstance(names, tp.Iterable):
        raise ExclusionError(
            f"{ATTRIBUTE} of {cls.__qualname__} must be a list, tuple or set of names, not {names!r}: "
            f"write ({names!r},) instead."
        )
    return frozenset(names)


def check_known(
    cls: type[pydantic.BaseModel], names: tp.Collection[str], extra: tp.Collection[str] = ()
) -> None:
    """Raises an ExclusionError if a name is neither a field of the class, nor an extra field, nor computed."""
    known = {WHOLE, *cls.__pydantic_fields__, *cls.__pydantic_computed_fields__, *extra}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ExclusionError(
            f"{cls.__module__}.{cls.__qualname__} excludes {', '.join(map(repr, unknown))} from its uid, but has "
            f"no such field: its fields are {', '.join(cls.__pydantic_fields__) or '(none)'}. Mend {ATTRIBUTE}."
        )
