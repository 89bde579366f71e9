"""What the runtime type of a value decides about its place in a configuration, and what is kept once per class."""

import typing as tp
import weakref
from collections import OrderedDict, deque

import pydantic
import pydantic_core
from pydantic_core import core_schema

from ..errors import BareModelError, ExportError
from .nesting import OrderedItem

# JSON takes these as they are; the exact type is asked, since a subclass may print differently
SCALARS: tp.Final[frozenset[type]] = frozenset((int, str, float, bool, type(None)))

# written as a mask, in uids as anywhere
SECRETS: tp.Final = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)

Export = tp.Callable[[tp.Any], tp.Any]

_SETS: tp.Final = (set, frozenset)
_LISTS: tp.Final = (list, tuple, deque)


class Dropped:
    """The type of `DROPPED`, which stands for a sub-model that asks to be left out with "."."""


DROPPED: tp.Final = Dropped()

# inf and nan would become None without the config, and two configurations would then share a uid
_ANY = pydantic_core.SchemaSerializer(
    core_schema.any_schema(), core_schema.CoreConfig(ser_json_inf_nan="constants")
)


def json_value(value: tp.Any, **told: tp.Any) -> tp.Any:
    """The JSON form that pydantic infers for a value of which no annotation is known."""
    try:
        return dumped(_ANY, value, **told)
    except pydantic_core.PydanticSerializationError as error:
        raise unexportable(value) from error


def dumped(serializer: pydantic_core.SchemaSerializer, value: tp.Any, **told: tp.Any) -> tp.Any:
    """The JSON form that pydantic writes, with sets sorted by text; `told` are further arguments of ``to_python``."""
    told = {"by_alias": False, "warnings": False, **told}
    written = serializer.to_python(value, mode="json", **told)
    if not _has_list(written):
        return written
    try:
        # in JSON a set is a list, in an order that differs from process to process: this shows where they are
        return _with_sets_sorted(written, serializer.to_python(value, mode="python", **told))
    except Exception:  # what can only be written as JSON shows nothing about sets
        return written


def _has_list(value: tp.Any) -> bool:
    kind = type(value)
    return kind is list or (kind is dict and any(map(_has_list, value.values())))


def _with_sets_sorted(written: tp.Any, value: tp.Any) -> tp.Any:
    if type(written) is dict and isinstance(value, dict) and len(written) == len(value):
        pairs = zip(written.items(), value.values(), strict=True)
        return {key: _with_sets_sorted(item, part) for (key, item), part in pairs}
    if type(written) is list and isinstance(value, (*_LISTS, *_SETS)) and len(written) == len(value):
        items = [_with_sets_sorted(item, part) for item, part in zip(written, value, strict=True)]
        return sorted(items, key=text_order) if isinstance(value, _SETS) else items
    return written


def ordered(written: tp.Any, value: tp.Any) -> tp.Any:
    """What was written of a value, with the OrderedDicts in dicts: pydantic writes them as dicts."""
    if type(written) is not dict or not isinstance(value, dict) or len(written) != len(value):
        return written
    pairs = zip(written.items(), value.values(), strict=True)
    out = {key: ordered(item, part) for (key, item), part in pairs}
    return OrderedDict(out) if isinstance(value, OrderedDict) else out


def unexportable(value: tp.Any) -> ExportError:
    """The error for a value that has no JSON form."""
    kind = type(value)
    error = ExportError(
        f"A value of type {kind.__module__}.{kind.__qualname__} has no place in a configuration: {value!r:.120}\n"
        "Give a path, a list or a number instead, write a pydantic.field_serializer for the field, keep the value "
        "in a private attribute (_name), or leave it out with pydantic.Field(exclude=True)."
    )
    error.culprit = value
    return error


def key_text(key: tp.Any) -> str:
    """The JSON form of a key of a dict, which is always text."""
    if type(key) is str:
        return key
    if type(key) is int:
        return str(key)
    (text,) = json_value({key: None})
    return str(text)


def text_order(value: tp.Any) -> tuple[str, str]:
    """The order of the members of a set, on which every process agrees."""
    return str(value), type(value).__name__


def split_dots(mapping: dict[str, tp.Any]) -> dict[str, tp.Any]:
    """Write `{"a.b": 1}` as `{"a": {"b": 1}}`, as configurations read it."""
    out: dict[str, tp.Any] = {}
    for key, value in mapping.items():
        *parents, last = key.split(".")
        place = out
        for parent in parents:
            inner = place.get(parent)
            if type(inner) is not dict:
                inner = place[parent] = {}
            place = inner
        _merge(place, last, value)
    return out


def _merge(place: dict[str, tp.Any], key: str, value: tp.Any) -> None:
    old = place.get(key)
    if type(old) is dict and type(value) is dict:
        for name, item in value.items():
            _merge(old, name, item)
    else:
        place[key] = value


def listed(exported: tp.Any, splits: bool) -> tp.Any:
    """What a list holds for an exported value: a place in a list cannot be left out."""
    if exported is DROPPED:
        return {}
    if type(exported) is OrderedDict:
        # an item's order was never part of a uid, and its dotted keys are split as those of a dict
        dotted = splits and any("." in key for key in exported)
        return OrderedItem(split_dots(exported) if dotted else exported)
    return exported


def is_nan(value: tp.Any) -> bool:
    """Whether a value is the float that equals nothing."""
    return type(value) is float and value != value


def same(value: tp.Any, default: tp.Any) -> bool:
    """Whether a value is its default, also for values whose `==` gives no truth value (arrays)."""
    if value is default:
        return True
    try:
        return bool(value == default) or (type(value) is float and is_nan(value) and is_nan(default))
    except Exception:  # `==` is the user's code: whatever goes wrong there, the value is not the default
        return False


MODEL: tp.Final = type(pydantic.BaseModel)


def is_model(value: tp.Any) -> tp.TypeGuard[pydantic.BaseModel]:
    """By its metaclass: `isinstance` takes three times longer."""
    return isinstance(type(value), MODEL)


_known_attributes: "weakref.WeakKeyDictionary[type, dict[str, bool]]" = weakref.WeakKeyDictionary()


def class_has(cls: type, name: str) -> bool:
    """As hasattr, from the second time on without pydantic's slow look for what is missing."""
    known = _known_attributes.get(cls)
    if known is None:
        known = _known_attributes[cls] = {}
    found = known.get(name)
    if found is None:
        found = known[name] = hasattr(cls, name)
    return found


# ---------------------------------------------------------------- what is worked out once per class

_PLANS: tp.Final = "_exca_plans"  # kept on the class itself, so that it dies with it


class _Plans(dict[str, tp.Any]):
    """Empty after its class is pickled by value: every process works out its own."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _Plans, ()


def kept(obj: pydantic.BaseModel, name: str) -> tp.Any:
    """What is kept under a name for the class of an object; None if the class was rebuilt since."""
    try:
        # asked of the object, since attributes of model classes are slow; it may answer with those of a parent
        plan = obj._exca_plans[name]  # type: ignore[attr-defined] # set below, on the class
    except (AttributeError, KeyError, TypeError):  # the last where a user's __getattr__ answers to any name
        return None
    return plan if plan.cls is type(obj) and plan.serializer is obj.__pydantic_serializer__ else None


def keep(plan: tp.Any, name: str) -> None:
    """Keep what has a `cls`, and the `serializer` that the class had, under a name for the class."""
    plans = plan.cls.__dict__.get(_PLANS)
    if plans is None:
        plans = _Plans()
        type.__setattr__(plan.cls, _PLANS, plans)
    plans[name] = plan


def refuse_bare(obj: pydantic.BaseModel) -> None:
    """Raise a BareModelError for an object of ``pydantic.BaseModel`` itself, which lacks what its children have."""
    if type(obj) is pydantic.BaseModel:
        error = BareModelError(
            "A plain pydantic.BaseModel has no fields, so what it was given is lost. Annotate the field that holds it "
            "with the class that is meant, or with a discriminated union of several."
        )
        error.culprit = obj
        raise error
