"""From the annotation of a field to the function that exports its values.

The runtime type of a value says nearly everything; the annotation adds what it cannot: which models form a
discriminated union, where a number is meant to be a float, and where pydantic has to be asked since
somebody wrote a serializer.
"""

import collections.abc
import dataclasses
import datetime
import enum
import pathlib
import types
import typing as tp
import weakref

import pydantic
import pydantic_core
import typing_extensions
from pydantic.fields import FieldInfo

from .scalars import DROPPED, SCALARS, Export, dumped, is_model, listed, text_order, unexportable

if tp.TYPE_CHECKING:
    from .values import ValueExporter

_SEQUENCES: tp.Final = (list, tuple, set, frozenset, collections.deque)
SEQUENCE_ORIGINS: tp.Final = frozenset(
    (
        *_SEQUENCES,
        *(collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable),
        *(collections.abc.Collection, collections.abc.Set, collections.abc.MutableSet),
    )
)
MAPPING_ORIGINS: tp.Final = frozenset(
    (
        *(dict, collections.OrderedDict, collections.defaultdict),
        *(collections.abc.Mapping, collections.abc.MutableMapping),
    )
)
# their text depends on these keys of a model's configuration: pydantic reads them
_CONFIGURED: tp.Final[dict[type, tuple[str, ...]]] = {
    bytes: ("ser_json_bytes",),
    datetime.timedelta: ("ser_json_timedelta", "ser_json_temporal"),
    datetime.datetime: ("ser_json_temporal",),
    datetime.date: ("ser_json_temporal",),
    datetime.time: ("ser_json_temporal",),
}
# metadata that shapes validation only
_HARMLESS: tp.Final[tuple[tp.Any, ...]] = (
    FieldInfo,
    pydantic.BeforeValidator,
    pydantic.AfterValidator,
    pydantic.WrapValidator,
    pydantic.Discriminator,
    pydantic.SerializeAsAny,
    pydantic.Strict,
    pydantic.StringConstraints,
    pydantic.Tag,
)


# the key by which a union knows a model, for models met as members of a discriminated union
DISCRIMINATORS: tp.Final[weakref.WeakKeyDictionary[type, str]] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Shape:
    """What an annotation says.

    export: how values are written
    scalars: whether numbers and text are written as they are
    ambiguous: the models of a union that nothing tells apart
    """

    export: Export
    scalars: bool = True
    ambiguous: tuple[type, ...] = ()


class ShapeReader:
    """Reads the annotations of one model class.

    Parameters
    ----------
    values: exports values whose annotation says nothing
    config: the `model_config` of the class
    """

    def __init__(self, values: "ValueExporter", config: tp.Mapping[str, tp.Any]) -> None:
        self._values = values
        self._value: Export = values.value
        self._config = config
        self._ambiguous: tuple[type, ...] = ()
        self._in_union = False
        self._scalars = True

    def read(self, field: FieldInfo) -> Shape:
        """Returns the shape of a field."""
        self._ambiguous = ()
        self._in_union = False
        self._scalars = True
        export = self._annotated(field.annotation, field.metadata, field.discriminator)
        return Shape(export, self._scalars, self._ambiguous)

    def _annotated(self, annotation: tp.Any, metadata: tp.Iterable[tp.Any], key: tp.Any = None) -> Export:
        metadata = tuple(metadata)
        for item in metadata:
            odd = not isinstance(item, _HARMLESS) and hasattr(item, "__get_pydantic_core_schema__")
            if odd and not self._values.by_type:
                self._scalars = False
                return _Asked(self._values, self._config, tp.Annotated[annotation, *metadata]).export
            if isinstance(item, FieldInfo | pydantic.Discriminator) and item.discriminator is not None:
                key = item.discriminator
        return self._export(annotation, key)

    def _export(self, annotation: tp.Any, key: tp.Any = None) -> Export:
        annotation = unwrapped(annotation)
        origin, args = tp.get_origin(annotation), tp.get_args(annotation)
        if origin is tp.Annotated:
            return self._annotated(args[0], args[1:], key)
        if origin is tp.Union or origin is types.UnionType:
            return self._union(args, key)
        if origin in (tp.Literal, typing_extensions.Literal) or isinstance(annotation, tp.TypeVar):
            return self._value
        if origin in SEQUENCE_ORIGINS:
            return self._sequence(args)
        if origin in MAPPING_ORIGINS and len(args) == 2:
            return self._mapping(self._export(args[1]))
        return self._plain(annotation)

    def _plain(self, annotation: tp.Any) -> Export:
        if annotation is float and not self._in_union:
            return self._float
        if annotation is int and not self._in_union:
            return self._int
        if not isinstance(annotation, type):
            return self._value
        if any(self._config.get(name) for name in _CONFIGURED.get(annotation, ())):
            return _Asked(self._values, self._config, annotation).export
        if issubclass(annotation, pydantic.BaseModel | enum.Enum | pathlib.PurePath):
            return self._value
        if self._is_odd(annotation):
            return _Asked(self._values, self._config, annotation).export
        return self._value

    def _is_odd(self, kind: type) -> bool:
        """Tells if only pydantic knows how to write the values of a type."""
        if hasattr(kind, "__get_pydantic_core_schema__"):
            return True
        if self._values.by_type:
            return False
        if typing_extensions.is_typeddict(kind) or _is_named_tuple(kind):
            hints = typing_extensions.get_type_hints(kind, include_extras=True)
            return any(self._export(member) != self._value for member in hints.values())
        return dataclasses.is_dataclass(kind)

    def _float(self, value: tp.Any) -> tp.Any:
        # a default like `x: float = 1` is never validated, and has to read as the same value given by hand
        return float(value) if type(value) in (int, bool) else self._value(value)

    def _int(self, value: tp.Any) -> tp.Any:
        return int(value) if type(value) is bool else self._value(value)

    def _sequence(self, args: tuple[tp.Any, ...]) -> Export:
        fixed = len(args) > 1 and args[-1] is not Ellipsis
        exports = [self._export(arg) for arg in args if arg is not Ellipsis]
        if all(export == self._value for export in exports):
            return self._value
        if not fixed:
            return self._items(exports[0])

        def export_tuple(value: tp.Any) -> tp.Any:
            if isinstance(value, _SEQUENCES) and len(value) == len(exports):
                return [
                    listed(export(item), self._values.splits)
                    for export, item in zip(exports, value, strict=True)
                ]
            return self._value(value)

        return export_tuple

    def _items(self, export: Export) -> Export:
        def export_items(value: tp.Any) -> tp.Any:
            if not isinstance(value, _SEQUENCES):
                return self._value(value)
            out = [listed(export(item), self._values.splits) for item in value]
            if isinstance(value, set | frozenset):
                out.sort(key=text_order)
            return out

        return export_items

    def _mapping(self, export: Export) -> Export:
        if export == self._value:
            return self._value

        def export_mapping(value: tp.Any) -> tp.Any:
            if isinstance(value, collections.abc.Mapping):
                return self._values.mapping(value, export)
            return self._value(value)

        return export_mapping

    def _union(self, args: tuple[tp.Any, ...], key: tp.Any) -> Export:
        members = [arg for arg in args if arg is not type(None)]
        if len(members) == 1:
            return self._export(members[0], key)
        models = [arg for arg in members if _is_undiscriminated(arg)]
        if key is None and len(models) > 1:
            self._ambiguous = tuple(models)
        outer_scalars, self._scalars = self._scalars, True
        exports = [self._export(arg) for arg in members]
        value = self._value
        if (
            not self._scalars
        ):  # one of them says how a number or a text is written, which has no type of its own
            value = _Asked(self._values, self._config, tp.Union[args]).export  # noqa: UP007 # the members are only known here
        self._scalars = self._scalars and outer_scalars
        branches = _Branches(
            value, [(_matched_types(arg), e) for arg, e in zip(members, exports, strict=True)]
        )
        choose: Export = branches.export if branches.known else value
        if any(map(_holds_number, members)):
            outer, self._in_union = self._in_union, True
            as_they_are = [(_matched_types(arg), self._export(arg)) for arg in members]
            self._in_union = outer
            choose = _NumberBranches(self._value, branches, as_they_are, tp.Union[tuple(members)]).export  # noqa: UP007 # the members are only known here
        if not isinstance(key, str):
            return choose
        for kind in (kind for arg in members for kind in _matched_types(arg)):
            DISCRIMINATORS[kind] = key
        return self._discriminated(choose, key)

    def _discriminated(self, export: Export, key: str) -> Export:
        """Adds the discriminator to what is left of a model: without it nobody knows which model it was."""

        def export_choice(value: tp.Any) -> tp.Any:
            out = export(value)
            if type(out) is dict and key not in out and is_model(value):
                choice = value.__dict__.get(key, DROPPED)
                if choice is not DROPPED and not self._values.plan(value).is_overridden(value):
                    out[key] = self._value(choice)
            return out

        return export_choice


class _Asked:
    """Exports values as pydantic writes them in a field of a model with this configuration."""

    def __init__(self, values: "ValueExporter", config: tp.Mapping[str, tp.Any], annotation: tp.Any) -> None:
        self._values = values
        self._config = config
        self._annotation = annotation
        self._holder: tp.Any = None

    def export(self, value: tp.Any) -> tp.Any:
        if self._holder is None:
            config = pydantic.ConfigDict(**{**self._config, "defer_build": False, "title": None})  # type: ignore[typeddict-item] # of a model
            self._holder = pydantic.create_model("Holder", __config__=config, value=(self._annotation, ...))
        held = self._holder.model_construct(value=value)
        try:
            return dumped(self._holder.__pydantic_serializer__, held, **self._values.told)["value"]
        except pydantic_core.PydanticSerializationError as error:
            raise unexportable(value) from error


class _Branches:
    """Exports a value as the first member of a union that it can be."""

    def __init__(self, value: Export, members: list[tuple[tuple[type, ...], Export]]) -> None:
        self._value = value
        # lone numbers stay what they are: in `int | float` nothing says that 1 was meant to be 1.0
        self.known = [(kinds, export) for kinds, export in members if kinds and export != value]

    def export(self, value: tp.Any) -> tp.Any:
        for kinds, export in self.known:
            if isinstance(value, kinds):
                return export(value)
        return self._value(value)


class _NumberBranches(_Branches):
    """Branches with containers of numbers: only pydantic knows if it takes 1 for 1.0 in one of them.

    That matters for a default like `x: float | list[float] = [1]`, which is never validated.
    """

    def __init__(
        self,
        value: Export,
        converted: _Branches,
        members: list[tuple[tuple[type, ...], Export]],
        annotation: tp.Any,
    ) -> None:
        super().__init__(value, members)
        self._converted = converted
        self._annotation = annotation
        self._adapter: pydantic.TypeAdapter[tp.Any] | None = None

    def export(self, value: tp.Any) -> tp.Any:
        out = super().export(value)
        if type(value) in SCALARS or repr(out) == repr(self._converted.export(value)):
            return out
        if self._adapter is None:
            self._adapter = pydantic.TypeAdapter(self._annotation)
        return dumped(tp.cast(tp.Any, self._adapter.serializer), value)


def _is_named_tuple(annotation: type) -> bool:
    return issubclass(annotation, tuple) and hasattr(annotation, "_fields")


def _holds_number(annotation: tp.Any) -> bool:
    """Tells if numbers lie in containers of an annotation."""
    args = tp.get_args(unwrapped(annotation))
    return any(arg in (int, float) or _holds_number(arg) for arg in args)


def _matched_types(annotation: tp.Any) -> tuple[type, ...]:
    annotation = unwrapped(annotation)
    origin, args = tp.get_origin(annotation), tp.get_args(annotation)
    if origin is tp.Annotated:
        return _matched_types(args[0])
    if origin is tp.Union or origin is types.UnionType:
        return tuple(kind for arg in args for kind in _matched_types(arg))
    if origin in SEQUENCE_ORIGINS:
        return _SEQUENCES
    if origin in MAPPING_ORIGINS:
        return (dict,)
    if isinstance(annotation, type) and annotation not in SCALARS:
        return (annotation,)
    return ()


def _is_undiscriminated(annotation: tp.Any) -> bool:
    annotation = unwrapped(annotation)
    if tp.get_origin(annotation) is tp.Annotated:
        return _is_undiscriminated(tp.get_args(annotation)[0])
    return (
        isinstance(annotation, type)
        and issubclass(annotation, pydantic.BaseModel)
        and not hasattr(annotation, "_exca_discriminator_key")
    )


def unwrapped(annotation: tp.Any) -> tp.Any:
    """Returns what a type alias or a NewType stands for."""
    while True:
        if isinstance(annotation, typing_extensions.TypeAliasType | getattr(tp, "TypeAliasType", tuple)):
            annotation = annotation.__value__
        elif isinstance(annotation, tp.NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def may_hold_models(annotation: tp.Any) -> bool:
    """Tells if models may lie in values of an annotation: False only where that is certain."""
    annotation = unwrapped(annotation)
    origin, args = tp.get_origin(annotation), tp.get_args(annotation)
    if origin is tp.Annotated:
        return may_hold_models(args[0])
    if origin in (tp.Literal, typing_extensions.Literal):
        return False
    if origin in (tp.Union, types.UnionType) or (args and origin in SEQUENCE_ORIGINS | MAPPING_ORIGINS):
        return any(may_hold_models(arg) for arg in args if arg is not Ellipsis)
    if annotation is None or annotation in SCALARS or annotation in _CONFIGURED:
        return False
    return not (isinstance(annotation, type) and issubclass(annotation, enum.Enum | pathlib.PurePath))
