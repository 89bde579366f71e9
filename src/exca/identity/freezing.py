"""Freezing: an object whose uid is in use refuses changes that would make the uid a lie.

The mark is in the set of fields that were given to the object, which every pydantic model has and which no comparison
looks at. It is a plain set to all code, and copies and pickles of it are plain sets: copies of objects are not frozen.
"""

import collections
import datetime
import enum
import pathlib
import threading
import typing as tp
import weakref

import pydantic

from ..errors import FrozenError
from .fields import SCALARS, is_model, may_hold_models

_MARK: tp.Final = "_exca_refuses_changes"
# for each class that was made ready: the fields in which models may be, or None if its objects never freeze
_ready: weakref.WeakKeyDictionary[type, tuple[str, ...] | None] = weakref.WeakKeyDictionary()
_lock: tp.Final = threading.Lock()
_ATOMS: tp.Final = (enum.Enum, pathlib.PurePath, datetime.date, datetime.timedelta)


class _FrozenSet(set[str]):
    """The names of the fields that were given to a frozen object."""

    def copy(self) -> set[str]:
        return set(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, tp.Any]) -> set[str]:
        return set(self)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return set, (list(self),)

    def __repr__(self) -> str:
        return repr(set(self))


def freeze(obj: pydantic.BaseModel) -> None:
    """Make an object and the models in it refuse to have their public fields set.

    Infras stay as they are: they say where something runs, not what it is. Private attributes and properties can still
    be set; copies are not frozen.
    """
    given = obj.__pydantic_fields_set__
    if type(given) is _FrozenSet:
        return
    cls = type(obj)
    fields = _ready[cls] if cls in _ready else _make_ready(cls)
    if fields is None:
        return
    for name in fields:
        value = obj.__dict__.get(name)
        if type(value) not in SCALARS:
            _visit(value, freeze)
    if obj.__pydantic_extra__:
        _visit(obj.__pydantic_extra__, freeze)
    object.__setattr__(obj, "__pydantic_fields_set__", _FrozenSet(given))


def _visit(
    value: tp.Any,
    visit: tp.Callable[[pydantic.BaseModel], None],
    visit_dataclass: tp.Callable[[tp.Any], None] | None = None,
) -> None:
    """Visit the models in a value, and its dataclasses if asked to, but not those in them."""
    if is_model(value):
        visit(value)
    elif isinstance(value, list | tuple | set | frozenset | collections.deque | dict):
        for item in value.values() if isinstance(value, dict) else value:
            if type(item) not in SCALARS:
                _visit(item, visit, visit_dataclass)
    elif visit_dataclass is not None and hasattr(type(value), "__dataclass_fields__"):
        visit_dataclass(value)


def holds_containers(obj: pydantic.BaseModel) -> bool:
    """Whether anything in a frozen object can still be changed: a list, a dict, an object of any other kind."""
    if obj.__pydantic_extra__:
        return True
    for value in obj.__dict__.values():
        if type(value) in SCALARS or isinstance(value, _ATOMS) or hasattr(value, "_infra_name"):
            continue
        if not is_model(value) or holds_containers(value):
            return True
    return False


def classes_in(obj: pydantic.BaseModel) -> frozenset[type]:
    """The classes of the models and dataclasses in a frozen object."""
    found: set[type] = set()
    seen: set[int] = set()  # a dataclass can hold itself

    def add(model: pydantic.BaseModel) -> None:
        fields = _ready.get(type(model))
        if fields is None:
            return
        found.add(type(model))
        for name in fields:
            value = model.__dict__.get(name)
            if type(value) not in SCALARS:
                _visit(value, add, add_dataclass)
        if model.__pydantic_extra__:
            _visit(model.__pydantic_extra__, add, add_dataclass)

    def add_dataclass(value: tp.Any) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        found.add(type(value))
        for name in type(value).__dataclass_fields__:
            item = getattr(value, name, None)
            if type(item) not in SCALARS:
                _visit(item, add, add_dataclass)

    add(obj)
    return frozenset(found - {type(obj)})


def is_frozen(obj: pydantic.BaseModel) -> bool:
    """Whether an object refuses to have its fields set."""
    return type(obj.__pydantic_fields_set__) is _FrozenSet


def refuse(obj: pydantic.BaseModel, name: str, change: str) -> None:
    """Raise a FrozenError if an object is frozen and the name of the attribute to change is a public one."""
    if name.startswith("_") or type(getattr(obj, "__pydantic_fields_set__", None)) is not _FrozenSet:
        return
    cls = type(obj)
    if isinstance(getattr(cls, name, None), property):
        return
    new = f"{{{name!r}: ...}}"
    raise FrozenError(
        f"{cls.__module__}.{cls.__qualname__}.{name} cannot be {change}: the object is frozen since its uid is in use, "
        f"under which results are kept. Change a copy instead: obj.infra.clone_obj({new}) of an object with an "
        f"infra, or obj.model_copy(update={new}) of any."
    )


def _make_ready(cls: type[pydantic.BaseModel]) -> tuple[str, ...] | None:
    """Guard the attributes of a class, unless a parent's guard does already; returns its entry in `_ready`."""
    if hasattr(cls, "_infra_name"):  # infras know themselves what may change when
        _ready[cls] = None
        return None
    fields = cls.__pydantic_fields__.items()
    with _lock:
        if not hasattr(cls.__setattr__, _MARK):
            _guard(cls)
        _ready[cls] = names = tuple(name for name, field in fields if may_hold_models(field.annotation))
    return names


def _guard(cls: type[pydantic.BaseModel]) -> None:
    set_attribute, delete_attribute = cls.__setattr__, cls.__delattr__

    # the class may travel by value: what these refer to must be found by its name, or pickle
    def guarded_set(self: tp.Any, name: str, value: tp.Any) -> None:
        refuse(self, name, "set")
        set_attribute(self, name, value)

    def guarded_delete(self: tp.Any, name: str) -> None:
        refuse(self, name, "deleted")
        delete_attribute(self, name)

    setattr(guarded_set, _MARK, True)
    type.__setattr__(cls, "__delattr__", guarded_delete)
    type.__setattr__(cls, "__setattr__", guarded_set)
