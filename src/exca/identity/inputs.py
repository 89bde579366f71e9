"""Back from an object to what it could have been made of: python values in nested dicts."""

import collections
import copy
import datetime
import enum
import pathlib
import types
import typing as tp

import pydantic
import pydantic_core
from pydantic.fields import FieldInfo

from . import nesting
from .discriminated import is_found
from .fields import (
    DROPPED,
    MAPPING_ORIGINS,
    SCALARS,
    SEQUENCE_ORIGINS,
    is_model,
    keep,
    kept,
    key_text,
    refuse_bare,
    same,
    unwrapped,
)

# which fields are written: what it takes to make an equal object; models at their default, too; all that has parts
GIVEN, MODELS, PATCHABLE = 0, 1, 2
Reader = tp.Callable[[tp.Any, int], tp.Any]

# copies of these are the same objects
_ATOMS: tp.Final = (
    *(str, int, float, bool, complex, bytes, enum.Enum, pathlib.PurePath),
    *(datetime.date, datetime.time, datetime.timedelta),
    *(type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
)
_ENCODED: tp.Final = frozenset((pydantic.EncodedStr, pydantic.EncodedBytes))
_PATCHABLE: tp.Final = frozenset((dict, list, tuple, collections.OrderedDict))


def as_input(obj: pydantic.BaseModel, wanted: int = PATCHABLE) -> dict[str, tp.Any]:
    """Python values from which the class of an object makes an equal object, sharing nothing.

    Sub-models become dicts of the fields that were given to them, with the discriminators that choose their
    class, so that they can be patched. What a dict could not bring back (a child class where its
    parent is expected, a model in a field of any type) is a copy of the object.

    `wanted` is GIVEN, or with further fields at their default MODELS, or PATCHABLE for what could be patched in part.
    """
    plan: InputPlan | None = kept(obj, "input")
    if plan is None:
        refuse_bare(obj)
        plan = InputPlan(type(obj))
        keep(plan, "input")
    return plan.fields(obj, wanted)


def as_patched(
    obj: tp.Any,
    patches: tp.Iterable[tp.Mapping[str, tp.Any]],
    read: tp.Callable[[tp.Any, int], dict[str, tp.Any]] = as_input,
) -> dict[str, tp.Any]:
    """Python values from which the class of an object makes an equal object but for patches by (dotted) name.

    What no patch has changed of a default is left out: a default that was never validated is another value once it is.
    `read` takes the object apart. A patch that does not fit is a TypeError, ValueError or IndexError.
    """
    patches = [patch for patch in patches if patch]
    if not patches:
        return read(obj, GIVEN)
    fields = read(obj, PATCHABLE)
    for patch in patches:
        if not all(_set_leaf(fields, key, value) for key, value in patch.items()):
            fields = patched(fields, patch)
    _drop_unchanged(fields, read(obj, PATCHABLE), read(obj, MODELS), read(obj, GIVEN))
    return fields


def _set_leaf(fields: dict[str, tp.Any], key: str, value: tp.Any) -> bool:
    """Set a value under a dotted key of nested dicts, if that is all there is to do; False where it is not."""
    *parents, last = key.split(".")
    for parent in parents:
        fields = fields.get(parent)  # type: ignore[assignment] # checked in the next line
        if type(fields) is not dict:
            return False
    old = fields.get(last)
    if isinstance(value, dict) or isinstance(old, dict) or (type(value) is str and value.startswith("=")):
        return False  # to be merged, or an operation
    fields[last] = value
    return True


def _drop_unchanged(fields: tp.Any, before: tp.Any, models: tp.Any, given: tp.Any) -> None:
    """Leave out what the object was not given, where it is as before: each but `fields` is the object as it was."""
    if isinstance(fields, dict) and isinstance(before, dict):
        for key in before.keys() & fields.keys():
            if key not in given and same(fields[key], before[key]):
                del fields[key]
            elif key in models:
                _drop_unchanged(fields[key], before[key], models[key], given.get(key, models[key]))
    elif isinstance(fields, list | tuple) and isinstance(before, list | tuple) and len(fields) == len(before):
        for parts in zip(fields, before, models, given, strict=True):
            _drop_unchanged(*parts)


def patched(fields: dict[str, tp.Any], patch: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    """Arguments for a class with a patch applied: dotted keys, merged dicts and operations of a ConfDict."""
    touched = {key.partition(".")[0] for key in patch}
    if not touched.isdisjoint(nesting.OPS):
        touched |= fields.keys()
    kept_fields = () if patch.get(nesting.Ops.REPLACE) else touched & fields.keys()
    level: dict[str, tp.Any] = {}
    nesting.merge(level, _with_text_keys({key: fields[key] for key in kept_fields}).items(), dict)
    items = [(key, value) for key, value in _with_text_keys(patch).items() if key != nesting.Ops.REPLACE]
    nesting.merge(level, items, dict)
    nesting.drop_replacements(level)
    return {key: value for key, value in fields.items() if key not in touched} | level


def _with_text_keys(value: tp.Any) -> tp.Any:
    """Dicts with the text of keys that are an enum, a number or the like, from which pydantic reads them."""
    if type(value) in (dict, collections.OrderedDict):
        items = (
            (key if type(key) is str else key_text(key), _with_text_keys(sub)) for key, sub in value.items()
        )
        return type(value)(items)
    return [_with_text_keys(sub) for sub in value] if type(value) is list else value


class InputPlan:
    """How the objects of one class are taken apart."""

    def __init__(self, cls: type[pydantic.BaseModel]) -> None:
        self.cls = cls
        self.serializer: pydantic_core.SchemaSerializer = cls.__pydantic_serializer__
        by_name = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")
        self._fields = tuple(
            (
                name,
                name if by_name else _key(name, field),
                field.default,
                _factory(field),
                _field_reader(field),
                _ENCODED.isdisjoint(map(type, _metadata(field.annotation, field.metadata))),
            )
            for name, field in cls.__pydantic_fields__.items()
        )

    def fields(self, obj: pydantic.BaseModel, wanted: int) -> dict[str, tp.Any]:
        """What the object was given, and what else it holds as far as that is wanted."""
        values = obj.__dict__
        given = obj.__pydantic_fields_set__
        out: dict[str, tp.Any] = {}
        for name, key, default, factory, read, direct in self._fields:
            value = values.get(name, DROPPED)
            if factory is not None and name not in given:
                default = factory()
            if direct and type(value) in SCALARS:
                if name in given or value != default:
                    out[key] = value
            elif value is default and name not in given and read is _copied and type(value) not in _PATCHABLE:
                continue  # an enum, a path, a date
            elif value is not DROPPED:
                content = read(value, wanted)
                changed = name in given or (content != {} and not same(value, default))
                if changed or (wanted >= (MODELS if is_model(value) else PATCHABLE) and _has_parts(content)):
                    out[key] = content
        out.update(_copied(obj.__pydantic_extra__ or {}))
        return out


def _factory(field: FieldInfo) -> tp.Callable[[], tp.Any] | None:
    takes_nothing = field.default_factory is not None and not field.default_factory_takes_validated_data
    return tp.cast(tp.Callable[[], tp.Any], field.default_factory) if takes_nothing else None


def _key(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias or field.alias
    if isinstance(alias, pydantic.AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), name)
    return alias if isinstance(alias, str) else name


def _has_parts(content: tp.Any) -> bool:
    return (bool(content) and type(content) in _PATCHABLE) or is_model(content)


def _field_reader(field: FieldInfo) -> Reader:
    return _encoder(field.metadata) or _reader(field.annotation, field.discriminator)


def _metadata(annotation: tp.Any, own: tp.Iterable[tp.Any] = ()) -> tp.Iterator[tp.Any]:
    """What `Annotated` adds to an annotation, also to the parts of a union."""
    yield from own
    annotation = unwrapped(annotation)
    origin, args = tp.get_origin(annotation), tp.get_args(annotation)
    if origin is tp.Annotated:
        yield from _metadata(args[0], args[1:])
    elif origin is tp.Union or origin is types.UnionType:
        for arg in args:
            yield from _metadata(arg)


def _encoder(metadata: tp.Iterable[tp.Any]) -> Reader | None:
    """The function that writes again what validation decodes."""
    encoded = next((item for item in metadata if type(item) in _ENCODED), None)
    if encoded is None:
        return None

    def encode(value: tp.Any, wanted: int) -> tp.Any:
        if type(value) is bytes:
            return encoded.encode(value)
        return encoded.encode_str(value) if type(value) is str else value

    return encode


def _reader(annotation: tp.Any, key: tp.Any = None) -> Reader:
    """The function that takes values of an annotation apart."""
    annotation = unwrapped(annotation)
    origin, args = tp.get_origin(annotation), tp.get_args(annotation)
    if origin is tp.Annotated:
        keys = [
            item.discriminator for item in args[1:] if isinstance(item, FieldInfo | pydantic.Discriminator)
        ]
        return _encoder(args[1:]) or _reader(args[0], next(filter(None, keys), key))
    if origin is tp.Union or origin is types.UnionType:
        return _union_reader([arg for arg in args if arg is not type(None)], key)
    if origin in SEQUENCE_ORIGINS:
        return _sequence_reader(
            [_reader(arg) for arg in args if arg is not Ellipsis], args[-1:] != (Ellipsis,)
        )
    if origin in MAPPING_ORIGINS and len(args) == 2:
        return _mapping_reader(_reader(args[1]))
    if isinstance(annotation, type(pydantic.BaseModel)):
        return _model_reader(annotation)
    return _copied


def _model_reader(cls: type[pydantic.BaseModel]) -> Reader:
    if issubclass(cls, pydantic.RootModel):
        root = _field_reader(cls.__pydantic_fields__["root"])
        return lambda value, wanted: root(value.root, wanted) if type(value) is cls else _copied(value)
    if isinstance(getattr(cls, "_exca_discriminator_key", None), str):
        return _named_reader(cls)
    return lambda value, wanted: as_input(value, wanted) if type(value) is cls else _copied(value)


def _named_reader(cls: tp.Any) -> Reader:
    def read(value: tp.Any, wanted: int) -> tp.Any:
        kind = type(value)
        if not isinstance(value, cls) or not is_found(cls, kind):
            return _copied(value)
        return {cls._exca_discriminator_key: kind.__name__, **as_input(value, wanted)}

    return read


def _union_reader(members: list[tp.Any], key: tp.Any) -> Reader:
    if len(members) == 1:
        return _reader(members[0], key)
    if isinstance(key, str):
        return _chosen_reader({kind: read for arg in members for kind, read in _by_kind(arg)}, key)
    readers = [(kind, read) for arg in members for kind, read in _by_kind(arg)]
    models = [kind for kind, _ in readers if isinstance(kind, type(pydantic.BaseModel))]
    counts = collections.Counter(kind for kind, _ in readers)
    # a dict would have to be distinguished from the dicts of the other members
    alone = len(models) + counts[dict] < 2
    known = {
        kind: read for kind, read in readers if counts[kind] == 1 and (alone or kind not in (dict, *models))
    }

    def read(value: tp.Any, wanted: int) -> tp.Any:
        return known.get(type(value), _copied)(value, wanted)

    return read


def _by_kind(annotation: tp.Any) -> list[tuple[type, Reader]]:
    """The runtime types of an annotation, each with the function that takes it apart."""
    annotation = unwrapped(annotation)
    origin, args = tp.get_origin(annotation), tp.get_args(annotation)
    if origin is tp.Annotated and tp.get_origin(unwrapped(args[0])) in (tp.Union, types.UnionType):
        whole = _reader(annotation)
        return [(kind, whole) for arg in tp.get_args(unwrapped(args[0])) for kind, _ in _by_kind(arg)]
    if origin is tp.Annotated:
        return _by_kind(args[0])
    if origin in SEQUENCE_ORIGINS:
        return [
            (kind, _reader(annotation)) for kind in ((origin,) if origin in (list, tuple) else (list, tuple))
        ]
    if origin in MAPPING_ORIGINS:
        return [(dict, _reader(annotation))]
    return [(annotation, _reader(annotation))] if isinstance(annotation, type) else []


def _chosen_reader(members: dict[type, Reader], key: str) -> Reader:
    def read(value: tp.Any, wanted: int) -> tp.Any:
        content = members.get(type(value), _copied)(value, wanted)
        if type(content) is dict and is_model(value) and key in value.__dict__:
            content.setdefault(key, value.__dict__[key])
        return content

    return read


def _sequence_reader(readers: list[Reader], fixed: bool) -> Reader:
    if not readers or all(read is _copied for read in readers):
        return _copied
    first = readers[0]

    def read_items(value: tp.Any, wanted: int) -> tp.Any:
        if type(value) not in (list, tuple):
            return _copied(value)
        if fixed and len(readers) == len(value):
            items = [read(item, wanted) for read, item in zip(readers, value, strict=True)]
        else:
            items = [first(item, wanted) for item in value]
        return items if type(value) is list else tuple(items)

    return read_items


def _mapping_reader(read: Reader) -> Reader:
    if read is _copied:
        return _copied

    def read_values(value: tp.Any, wanted: int) -> tp.Any:
        if type(value) not in (dict, collections.OrderedDict):
            return _copied(value)
        return type(value)((key, read(item, wanted)) for key, item in value.items())

    return read_values


def _copied(value: tp.Any, wanted: int = PATCHABLE) -> tp.Any:
    """A copy that shares nothing that could change."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if kind is list or kind is tuple:
        return kind([item if type(item) in SCALARS else _copied(item) for item in value])
    if kind is dict:
        return {key: item if type(item) in SCALARS else _copied(item) for key, item in value.items()}
    if isinstance(value, _ATOMS):
        return value
    if is_model(value):
        return value.model_copy(deep=True)
    try:
        return copy.deepcopy(value)
    except Exception:  # what cannot be copied (a lock, a connection) can only be shared
        return value
