"""What a model class holds about its fields: which are left out, how values of an annotation are written, defaults.

The runtime type of a value tells nearly everything (the first half); the annotation adds what it cannot: which models
form a discriminated union, where a number is meant to be a float, and where pydantic has to be asked since there is a
serializer of the user's. Reading it takes far longer than walking over an object, so it is done once.
"""

import collections.abc
import dataclasses
import datetime
import enum
import functools
import inspect
import pathlib
import types
import typing as tp
import weakref
from collections import OrderedDict, deque

import pydantic
import pydantic_core
import typing_extensions
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from .. import _perclass
from ..errors import (
    BareModelError,
    DiscriminatorError,
    ExclusionError,
    ExportError,
    ExtraFieldsError,
    IdentityError,
)
from .nesting import OrderedItem

if tp.TYPE_CHECKING:
    from .export import ValueExporter

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


def has_a_form(value: tp.Any) -> bool:
    """Whether pydantic knows a JSON form of a value, so that it is not the value that cannot be written."""
    try:
        pydantic_core.to_jsonable_python(value)
    except pydantic_core.PydanticSerializationError:
        return False
    return True


def misserialized(value: tp.Any, cause: Exception) -> ExportError:
    """The error for a value that has a JSON form, and whose own serializer, or that of its field, fails."""
    kind = type(value)
    error = ExportError(
        f"The serializer for a value of type {kind.__module__}.{kind.__qualname__} fails, so that it cannot be written "
        f"as a configuration: {cause}. Correct the serializer."
    )
    error.culprit = value
    return error


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


def is_discriminated(cls: type) -> bool:
    """Whether configurations name the class by a key, as they do for a `DiscriminatedModel`."""
    return class_has(cls, _KEY) and isinstance(getattr(cls, _KEY), str)


_KEY: tp.Final = "_exca_discriminator_key"


# ---------------------------------------------------------------- what is worked out once per class


def kept(obj: pydantic.BaseModel, name: str) -> tp.Any:
    """What is kept under a name for the class of an object; None if the class was rebuilt since."""
    try:
        # asked of the object, since attributes of model classes are slow; it may answer with those of a parent
        plan = obj._exca_plans[name]  # type: ignore[attr-defined] # set by `keep`, on the class
    except (AttributeError, KeyError, TypeError):  # the last where a user's __getattr__ answers to any name
        return None
    return plan if plan.cls is type(obj) and plan.serializer is obj.__pydantic_serializer__ else None


def keep(plan: tp.Any, name: str) -> None:
    """Keep what has a `cls`, and the `serializer` that the class had, under a name for the class."""
    _perclass.kept(plan.cls, "_exca_plans")[name] = plan


def refuse_bare(obj: pydantic.BaseModel) -> None:
    """Raise a BareModelError for an object of ``pydantic.BaseModel`` itself, which lacks what its children have."""
    if type(obj) is pydantic.BaseModel:
        error = BareModelError(
            "A plain pydantic.BaseModel has no fields, so what it was given is lost. Annotate the field that holds it "
            "with the class that is meant, or with a discriminated union of several."
        )
        error.culprit = obj
        raise error


EXCLUDED: tp.Final = "_exclude_from_cls_uid"
WHOLE: tp.Final = "."
NEW_FIELDS: tp.Final = "_exca_new_fields"  # of infras and backends: fields that release 0.6 would refuse
# of infras: by field, the only values that release 0.6 takes
EARLIER_VALUES: tp.Final = "_exca_earlier_values"
IS_NEW: tp.Final = "_exca_is_new"  # of backends of steps: release 0.6 has none of that name
MISSING: tp.Final = object()

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
# their results are always equal: they need not be called for every object
_PURE_FACTORIES: tp.Final = frozenset((list, dict, set, frozenset, tuple, str, int, float, bool))
_NOTHING: tp.Final[frozenset[type]] = frozenset()
_DIRECT: tp.Final[dict[tp.Any, frozenset[type]]] = {
    int: SCALARS - {bool},
    float: SCALARS - {bool, int},
    int | None: SCALARS - {bool},
    float | None: SCALARS - {bool, int},
}

# ---------------------------------------------------------------- what is left out


def never_counted(cls: type[pydantic.BaseModel]) -> tuple[str, ...] | frozenset[str] | None:
    """What the class excludes where that can never change; None where each object has to be asked."""
    value = inspect.getattr_static(cls, EXCLUDED, ())
    if EXCLUDED in cls.__private_attributes__ or type(value) not in (tuple, frozenset):
        return None
    return tp.cast(tuple[str, ...] | frozenset[str], value)


def excluded_by(obj: pydantic.BaseModel) -> frozenset[str]:
    """What an object excludes, by whatever its class wrote: variable, property or method."""
    names = getattr(obj, EXCLUDED)
    return as_names(type(obj), names() if callable(names) else names)


def as_names(cls: type[pydantic.BaseModel], names: tp.Any) -> frozenset[str]:
    """Names as a set; ExclusionError if a string was given in place of a collection of strings."""
    if isinstance(names, str) or not isinstance(names, tp.Iterable):
        raise ExclusionError(
            f"{EXCLUDED} of {cls.__qualname__} must be a list, tuple or set of names, not {names!r}: "
            f"write ({names!r},) instead."
        )
    return frozenset(names)


def require_known(
    cls: type[pydantic.BaseModel], names: tp.Collection[str], extra: tp.Collection[str] = ()
) -> None:
    """Raise an ExclusionError if a name is neither a field of the class, nor an extra field, nor computed."""
    known = {WHOLE, *cls.__pydantic_fields__, *cls.__pydantic_computed_fields__, *extra}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ExclusionError(
            f"{cls.__module__}.{cls.__qualname__} excludes {', '.join(map(repr, unknown))} from its uid, but has "
            f"no such field: its fields are {', '.join(cls.__pydantic_fields__) or '(none)'}. Correct {EXCLUDED}."
        )


# ---------------------------------------------------------------- all fields of a class


class FieldStep(tp.NamedTuple):
    """How a field is written: as it is where its type is in `direct`, but not at its default; else by `write`."""

    name: str
    direct: frozenset[type]
    default: tp.Any
    write: Export


class ClassFields(tp.NamedTuple):
    """The fields of a class that are not left out, in one mode.

    root: how the value of a RootModel is written
    asked: fields that a function of the class writes: how pydantic would write them without it, and how we would
    order: of all keys
    fault: makes the error for a class whose objects have no uid
    """

    steps: tuple[FieldStep, ...] = ()
    root: Export | None = None
    asked: tp.Mapping[str, tuple[Export, Export] | None] = {}
    order: tuple[str, ...] = ()
    fault: tp.Callable[[], IdentityError] | None = None
    by_serializer: bool = False
    secrets: bool = False


def read_class(
    values: "ValueExporter", cls: type[pydantic.BaseModel], excluded: tp.Collection[str]
) -> ClassFields:
    """Read a class, complete since there is an object of it."""
    in_uid = values.uid and values.exclude_defaults
    is_root = issubclass(cls, pydantic.RootModel)
    decorators = cls.__pydantic_decorators__
    serialized = {name for d in decorators.field_serializers.values() for name in d.info.fields}
    reader = ShapeReader(values, cls.model_config)
    fault: tp.Callable[[], IdentityError] | None = None
    if in_uid and is_lax(cls):
        fault = functools.partial(unset_extra, f"{cls.__module__}.{cls.__qualname__}")
    root: Export | None = None
    steps: list[FieldStep] = []
    asked: dict[str, tuple[Export, Export] | None] = {}
    secrets = False
    for name, field in cls.__pydantic_fields__.items():
        if name in excluded or field.exclude:
            continue
        secrets = secrets or _holds_secrets(field.annotation)
        shape = reader.read(field)
        if shape.ambiguous and fault is None and in_uid:
            fault = functools.partial(_ambiguous, cls.__qualname__, name, shape)
        if not serialized.isdisjoint((name, "*")) or getattr(field, "exclude_if", None):
            write = _step(values, name, field, shape, serialized=True).write
            without = _Asked(values, cls.model_config, field.annotation).export
            asked[name] = (without, write) if shape.scalars else None
        elif is_root:
            root = shape.export
        else:
            steps.append(_step(values, name, field, shape))
    computed = [name for name in cls.__pydantic_computed_fields__ if name not in excluded]
    return ClassFields(
        steps=tuple(steps),
        root=root,
        asked=asked | dict.fromkeys(computed),
        order=(*cls.__pydantic_fields__, *computed),
        fault=fault,
        by_serializer=bool(decorators.model_serializers or cls.model_config.get("json_encoders")),
        secrets=secrets,
    )


def _step(
    values: "ValueExporter", name: str, field: FieldInfo, shape: "FieldShape", *, serialized: bool = False
) -> FieldStep:
    export = shape.export
    direct = _DIRECT.get(field.annotation, SCALARS) if shape.scalars else _NOTHING
    default: tp.Any = MISSING
    factory: tp.Any = field.default_factory
    if factory is None:
        default = MISSING if field.is_required() else field.default
    elif field.default_factory_takes_validated_data:
        factory = None
    elif factory in _PURE_FACTORIES:
        default, factory = factory(), None
    if not values.exclude_defaults or (default is MISSING and factory is None):
        return FieldStep(name, direct, MISSING, export)
    write = values.unless_default(export, default, factory, serialized)
    if factory is not None or _is_unsafe(default):
        return FieldStep(name, _NOTHING, MISSING, write)
    return FieldStep(name, direct, default, write)


def _is_unsafe(default: tp.Any) -> bool:
    """Whether `value != default` on a scalar may go wrong or mislead."""
    known = type(default) in SCALARS or type(default) in (list, tuple, dict) or is_model(default)
    return is_nan(default) or not known


def _holds_secrets(annotation: tp.Any) -> bool:
    annotation = unwrapped(annotation)
    kind = tp.get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, SECRETS):
        return True
    return any(map(_holds_secrets, tp.get_args(annotation)))


def is_lax(cls: type[pydantic.BaseModel]) -> bool:
    """Whether a class does not say what to do with unknown fields."""
    return cls.model_config.get("extra") is None and not issubclass(cls, pydantic.RootModel)


def unset_extra(name: str, path: str = "") -> IdentityError:
    """The error for a class that is lax, found at a path."""
    found = f" (found at {path!r})" if path else ""
    return ExtraFieldsError(
        f"{name}{found} does not say what to do with unknown fields, so that a typing error would be ignored and "
        'change no uid. Add `model_config = pydantic.ConfigDict(extra="forbid")` to the class (or extra="allow", if '
        "they are meant)."
    )


def _ambiguous(cls: str, name: str, shape: "FieldShape") -> IdentityError:
    kinds = [kind.__name__ for kind in shape.ambiguous]
    return DiscriminatorError(
        f"Field {name!r} of {cls} may hold {' or '.join(kinds)}, and its uid would not tell which. Give each of them "
        'a field like `kind: typing.Literal["..."] = "..."` with a text of its own, and write '
        f'`{name}: {" | ".join(kinds)} = pydantic.Field(..., discriminator="kind")` (for a member of a list or '
        'dict: `typing.Annotated[A | B, pydantic.Field(discriminator="kind")]`).'
    )


# ---------------------------------------------------------------- from an annotation to how its values are written

# the key by which a union knows a model, for models met as members of a discriminated union
DISCRIMINATORS: tp.Final[weakref.WeakKeyDictionary[type, str]] = weakref.WeakKeyDictionary()


class FieldShape(tp.NamedTuple):
    """How values of an annotation are written.

    export: writes them
    scalars: whether numbers and text are written as they are
    ambiguous: the models of a union that nothing tells apart
    """

    export: Export
    scalars: bool = True
    ambiguous: tuple[type, ...] = ()


class ShapeReader:
    """Reads the annotations of one model class; `values` writes what no annotation decides."""

    def __init__(self, values: "ValueExporter", config: tp.Mapping[str, tp.Any]) -> None:
        self._values = values
        self._value: Export = values.value
        self._config = config
        self._ambiguous: tuple[type, ...] = ()
        self._in_union = False
        self._scalars = True

    def read(self, field: FieldInfo) -> FieldShape:
        """Read the annotation of a field."""
        self._ambiguous = ()
        self._in_union = False
        self._scalars = True
        export = self._annotated(field.annotation, field.metadata, field.discriminator)
        return FieldShape(export, self._scalars, self._ambiguous)

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
        """Whether only pydantic knows how to write the values of a type."""
        if hasattr(kind, "__get_pydantic_core_schema__"):
            return True
        if self._values.by_type:
            return False
        if typing_extensions.is_typeddict(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
            hints = typing_extensions.get_type_hints(kind, include_extras=True)
            return any(self._export(member) != self._value for member in hints.values())
        return dataclasses.is_dataclass(kind)

    def _float(self, value: tp.Any) -> tp.Any:
        # a default like `x: float = 1` is never validated, and has to read as the same value given by hand
        if type(value) is float:
            return value
        return float(value) if type(value) in (int, bool) else self._value(value)

    def _int(self, value: tp.Any) -> tp.Any:
        if type(value) is int:
            return value
        return int(value) if type(value) is bool else self._value(value)

    def _sequence(self, args: tuple[tp.Any, ...]) -> Export:
        exports = [self._export(arg) for arg in args if arg is not Ellipsis]
        if all(export == self._value for export in exports):
            return self._value
        if len(args) < 2 or args[-1] is Ellipsis:
            return self._items(exports[0])

        def export_tuple(value: tp.Any) -> tp.Any:
            if isinstance(value, _SEQUENCES) and len(value) == len(exports):
                items = [export(item) for export, item in zip(exports, value, strict=True)]
                return [listed(item, self._values.splits) for item in items]
            return self._value(value)

        return export_tuple

    def _items(self, export: Export) -> Export:
        def export_items(value: tp.Any) -> tp.Any:
            if not isinstance(value, _SEQUENCES):
                return self._value(value)
            splits = self._values.splits
            out = [
                exported if type(exported := export(item)) in SCALARS else listed(exported, splits)
                for item in value
            ]
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
        if not self._scalars:
            # one of them decides how a number or a text is written, which has no type of its own
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
        """With the discriminator added to what is left of a model, which tells the model it was."""

        def export_choice(value: tp.Any) -> tp.Any:
            out = export(value)
            if type(out) is dict and key not in out and is_model(value):
                choice = value.__dict__.get(key, DROPPED)
                if choice is not DROPPED and self._values.plan(value).override(value) is None:
                    out[key] = self._value(choice)
            return out

        return export_choice


class _Asked:
    """Writes values as pydantic does in a field of a model with this configuration."""

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
            raise (misserialized(value, error) if has_a_form(value) else unexportable(value)) from error


_Members = list[tuple[tuple[type, ...], Export]]


class _Branches:
    """Writes a value as the first member of a union that it can be."""

    def __init__(self, value: Export, members: _Members) -> None:
        self._value = value
        # lone numbers stay what they are: in `int | float` nothing shows that 1 was meant to be 1.0
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

    def __init__(self, value: Export, converted: _Branches, members: _Members, annotation: tp.Any) -> None:
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


def _holds_number(annotation: tp.Any) -> bool:
    """Whether numbers are in containers of an annotation."""
    args = tp.get_args(unwrapped(annotation))
    return any(arg in (int, float) or _holds_number(arg) for arg in args)


def _matched_types(annotation: tp.Any) -> tuple[type, ...]:
    found: list[type] = []
    for member in members(annotation):
        origin = tp.get_origin(member)
        if origin in SEQUENCE_ORIGINS:
            found += _SEQUENCES
        elif origin in MAPPING_ORIGINS:
            found.append(dict)
        elif isinstance(member, type) and member not in SCALARS:
            found.append(member)
    return tuple(found)


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
    """The annotation that a type alias or a NewType names."""
    while True:
        if isinstance(annotation, typing_extensions.TypeAliasType | getattr(tp, "TypeAliasType", tuple)):
            annotation = annotation.__value__
        elif isinstance(annotation, tp.NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def members(annotation: tp.Any) -> tuple[tp.Any, ...]:
    """The members of a union, of unions in it and of what aliases name; else the annotation alone."""
    annotation = unwrapped(annotation)
    origin = tp.get_origin(annotation)
    if origin is tp.Annotated:
        return members(tp.get_args(annotation)[0])
    if origin is tp.Union or origin is types.UnionType:
        return tuple(member for arg in tp.get_args(annotation) for member in members(arg))
    return (annotation,)


def may_hold_models(annotation: tp.Any) -> bool:
    """False only where it is certain that no values of an annotation hold models."""
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
