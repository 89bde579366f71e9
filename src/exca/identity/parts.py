"""The models and dataclasses that are part of an object's uid, each with the place that holds it."""

import collections
import collections.abc
import dataclasses
import typing as tp

import pydantic
import typing_extensions

from .. import _perclass
from . import fields
from .fields import MAPPING_ORIGINS, SCALARS, SEQUENCE_ORIGINS, class_has, is_model, may_hold_models, members

if tp.TYPE_CHECKING:
    from .export import ValueExporter

_SEQUENCES: tp.Final = (list, tuple, set, frozenset, collections.deque)


class Declared:
    """What an annotation allows: the classes of models and dataclasses, and the same of the items of containers."""

    def __init__(self, annotations: tp.Iterable[tp.Any]) -> None:
        self._alternatives: list[tp.Any] = [m for annotation in annotations for m in _members(annotation)]
        self.models: tuple[type[tp.Any], ...] = tuple(
            m
            for m in self._alternatives
            if isinstance(m, type)
            and (issubclass(m, pydantic.BaseModel) or dataclasses.is_dataclass(m))
            and m is not pydantic.BaseModel
        )
        self._known: dict[tuple[int, int] | None, Declared] = {}

    def member(self) -> "Declared":
        """Of the values of a mapping."""
        if None not in self._known:
            args = (tp.get_args(m) for m in self._alternatives if tp.get_origin(m) in MAPPING_ORIGINS)
            self._known[None] = Declared(arg[1] for arg in args if len(arg) == 2)
        return self._known[None]

    def item(self, place: int, count: int) -> "Declared":
        """Of one of so many items of a sequence."""
        if (place, count) not in self._known:
            found: list[tp.Any] = []
            for sequence in self._alternatives:
                args = tp.get_args(sequence) if tp.get_origin(sequence) in SEQUENCE_ORIGINS else ()
                if len(args) > 1 and args[-1] is not Ellipsis:
                    found += [args[place]] if len(args) == count else []
                else:
                    found += [arg for arg in args if arg is not Ellipsis]
            self._known[place, count] = Declared(found)
        return self._known[place, count]


def _members(annotation: tp.Any) -> tp.Iterator[tp.Any]:
    for member in members(annotation):
        if isinstance(member, tp.TypeVar):
            for bound in member.__constraints__ or (member.__bound__,):
                yield from () if bound is None else _members(bound)
        else:
            yield member


class Field(tp.NamedTuple):
    """A field that may hold models; `default` is the class of the model that is its default, if it is one."""

    name: str
    declared: Declared
    default: type | None


class Part(tp.NamedTuple):
    """A model or dataclass in an object: where it is, what holds it, and what it might be.

    `default` is as of its field, where it is the whole value of that.
    """

    path: str
    model: tp.Any
    holder: type[tp.Any]
    field: str
    declared: Declared
    default: type | None


_FIELDS: tp.Final = "_exca_model_fields"  # kept on a class, which may hold models of its own kind


def model_fields(cls: type[tp.Any]) -> tuple[Field, ...]:
    """The fields of a class that may hold models other than infras and that no function of the class writes."""
    known: dict[str, tuple[Field, ...]] | None = cls.__dict__.get(_FIELDS)
    if not known:
        found = _of_dataclass(cls) if not isinstance(cls, fields.MODEL) else _of_model(cls)
        known = _perclass.kept(cls, _FIELDS)
        known["models"] = tuple(field for field in found if not _is_infra(field.declared))
    return known["models"]


def _of_model(cls: type[pydantic.BaseModel]) -> tuple[Field, ...]:
    decorators = cls.__pydantic_decorators__
    written = {name for d in decorators.field_serializers.values() for name in d.info.fields}
    if decorators.model_serializers:
        written.add("*")
    return tuple(
        Field(name, Declared([field.annotation]), _default_class(field))
        for name, field in cls.__pydantic_fields__.items()
        if not field.exclude and written.isdisjoint((name, "*")) and may_hold_models(field.annotation)
    )


def _of_dataclass(cls: type[tp.Any]) -> tuple[Field, ...]:
    hints = annotations(cls)
    return tuple(
        Field(field.name, Declared([hints[field.name]]), None)
        for field in dataclasses.fields(cls)
        if may_hold_models(hints[field.name])
    )


def annotations(cls: type[tp.Any]) -> dict[str, tp.Any]:
    """The annotations of the fields of a model or dataclass; Any for one that names what is not there."""
    if isinstance(cls, fields.MODEL):
        return {name: field.annotation for name, field in cls.__pydantic_fields__.items()}
    try:
        hints = typing_extensions.get_type_hints(cls, include_extras=True)
    except Exception:  # it runs what is in the annotations
        hints = {}
    return {field.name: hints.get(field.name, tp.Any) for field in dataclasses.fields(cls)}


def is_dataclass(value: object) -> bool:
    """Whether a value is an object of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def values_of(obj: tp.Any) -> tp.Mapping[str, tp.Any]:
    """The values of the fields of a model or dataclass."""
    if is_model(obj):
        return obj.__dict__
    return {field.name: getattr(obj, field.name, None) for field in dataclasses.fields(obj)}


def _is_infra(declared: Declared) -> bool:
    return bool(declared.models) and all(class_has(model, "_infra_name") for model in declared.models)


def _default_class(field: tp.Any) -> type | None:
    factory = field.default_factory
    if factory is None:
        return type(field.default) if is_model(field.default) or is_dataclass(field.default) else None
    if isinstance(factory, type):
        return (
            factory if issubclass(factory, pydantic.BaseModel) or dataclasses.is_dataclass(factory) else None
        )
    if field.default_factory_takes_validated_data:
        return None
    try:
        made = factory()
    except Exception:  # the user's, and called where it is needed
        return None
    return type(made) if is_model(made) or is_dataclass(made) else None


def parts(
    values: "ValueExporter",
    obj: pydantic.BaseModel,
    *,
    exclude: tp.Collection[str] = (),
    ignore_override: bool = False,
) -> tp.Iterator[Part]:
    """The models in an object that its uid is made of, each before those in it.

    Parameters
    ----------
    values: the exporter of uids
    obj: the object
    exclude: dotted names that do not count
    ignore_override: look into the object itself even where it writes its uid itself
    """
    for part in _below(values, obj, "", frozenset(), ignore_override):
        if not exclude or not any(f"{part.path}.".startswith(f"{name}.") for name in exclude):
            yield part


def _below(
    values: "ValueExporter", obj: tp.Any, path: str, above: frozenset[int], ignore_override: bool = False
) -> tp.Iterator[Part]:
    if id(obj) in above:
        return
    left_out: tp.Collection[str] = ()
    extra: tp.Mapping[str, tp.Any] = {}
    if is_model(obj):
        plan = values.plan(obj)
        left_out, extra = plan.names_left_out(obj), obj.__pydantic_extra__ or {}
        if fields.WHOLE in left_out or (not ignore_override and plan.override(obj) is not None):
            return
    above |= {id(obj)}
    content = values_of(obj)
    for field in model_fields(type(obj)):
        value = content.get(field.name)
        if type(value) not in SCALARS and field.name not in left_out:
            place = Part(_joined(path, field.name), obj, type(obj), field.name, field.declared, field.default)
            yield from _in_value(values, value, place, above)
    for name, value in extra.items():
        if type(value) not in SCALARS and name not in left_out:
            yield from _in_value(
                values, value, Part(_joined(path, name), obj, type(obj), name, Declared(()), None), above
            )


def _in_value(
    values: "ValueExporter", value: tp.Any, place: Part, above: frozenset[int]
) -> tp.Iterator[Part]:
    inside: tp.Iterable[tuple[tp.Any, tp.Any, Declared]] = ()
    if is_model(value) or is_dataclass(value):
        yield place._replace(model=value)
        yield from _below(values, value, place.path, above)
    elif id(value) in above:
        return
    elif isinstance(value, collections.abc.Mapping):
        declared = place.declared.member()
        inside = ((key, item, declared) for key, item in value.items())
    elif isinstance(value, _SEQUENCES):
        count = len(value)
        inside = (
            (k, item, place.declared.item(k, count))
            for k, item in enumerate(value)
            if type(item) not in SCALARS
        )
    for key, item, declared in inside:
        if type(item) not in SCALARS:
            below = place._replace(path=f"{place.path}.{key}", declared=declared, default=None)
            yield from _in_value(values, item, below, above | {id(value)})


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
