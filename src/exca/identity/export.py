"""From an object to its configuration: everything, or what its uid is made of.

An object is walked by a plan that is made once per class and mode: exclusions, annotations and defaults (`fields`)
are the same for all objects of a class.
"""

import collections
import collections.abc
import enum
import functools
import pathlib
import threading
import typing as tp
import weakref

import pydantic
import pydantic_core

from .. import settings
from .._callers import warn
from .._log import logger
from ..errors import ExportError, IdentityError, MaskedSecretError
from . import classnames, fields
from .alike import check_look_alikes, has_odd_default, holds_dataclasses, is_suspect
from .fields import (
    DROPPED,
    MODEL,
    SCALARS,
    SECRETS,
    Export,
    class_has,
    dumped,
    has_a_form,
    is_lax,
    is_model,
    json_value,
    keep,
    kept,
    key_text,
    listed,
    may_hold_models,
    misserialized,
    ordered,
    refuse_bare,
    same,
    split_dots,
    text_order,
    unexportable,
    unset_extra,
)
from .nesting import OrderedItem
from .parts import parts

_OVERRIDE: tp.Final = "_exca_uid_dict_override"


def export(
    obj: pydantic.BaseModel,
    *,
    uid: bool = False,
    exclude_defaults: bool = False,
    exclude: tp.Collection[str] = (),
    ignore_first_discriminator: bool = True,
    ignore_first_override: bool = False,
) -> dict[str, tp.Any]:
    """The configuration of an object, as nested plain dicts of JSON values that belong to the caller.

    An OrderedDict stays one, sets are sorted by text, keys with dots are split into dicts (but where nothing at all is
    left out).

    Parameters
    ----------
    obj: the object
    uid: leave out what the object and its sub-models exclude from their uids, and sub-models that equal their
        default after that
    exclude_defaults: leave out fields that equal their default; discriminators stay
    exclude: names to leave out of the outcome, with dots for parts of it; what is not there needs no leaving out
    ignore_first_discriminator: leave out, at its default, the field by which the discriminated unions met so far
        would know the object (the key of a `DiscriminatedModel` is always written)
    ignore_first_override: do not call `_exca_uid_dict_override` of the object itself, so that it can build on this

    Raises
    ------
    IdentityError: a model leaves `extra` unset, a union of models has no discriminator, or a model is a look-alike of
        what its field is declared with (all only where `uid` and `exclude_defaults` are asked for), or a plain
        BaseModel is part of the object
    ExclusionError: a name that a class excludes is no field of it
    ExportError: a value has no JSON form
    """
    values = exporter(bool(uid), bool(exclude_defaults))
    out = _exported(values, obj, ignore_first_override)
    if values.noticed.suspects:
        values.noticed.suspects = False
        names = fields.as_names(type(obj), exclude)
        check_look_alikes(values, obj, exclude=names, ignore_override=ignore_first_override)
    if not ignore_first_discriminator:
        key = fields.DISCRIMINATORS.get(type(obj))
        if key is not None and key in obj.__dict__:
            out.setdefault(key, exporter(False, False).value(obj.__dict__[key]))
    for name in fields.as_names(type(obj), exclude) if exclude else ():
        _leave_out(out, name)
    if values.noticed.secrets:
        values.noticed.secrets = False
        if uid and exclude_defaults:
            warn_of_shared(obj, out)
    return out


def export_readable(
    obj: pydantic.BaseModel, *, ignore_first_override: bool = False
) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
    """The whole configuration of an object as release 0.6 reads it, and apart from it what that cannot.

    The latter holds, by dotted path, the fields that classes name in `_exca_new_fields`, where they are set to anything
    but their default.
    """
    values = exporter(False, False, True)
    found: list[tuple[tp.Any, dict[str, tp.Any]]] = []
    values.noticed.fields = found
    config = _exported(values, obj, ignore_first_override)
    new = ((_path(obj, holder, set()), content) for holder, content in found)
    return config, {f"{path}.{name}": value for path, content in new for name, value in content.items()}


def class_names(
    obj: pydantic.BaseModel, *, exclude: tp.Collection[str] = (), ignore_first_override: bool = False
) -> classnames.Names:
    """The whole names of the classes in an object that its uid holds by their bare names."""
    return classnames.names_in(
        exporter(True, True), obj, exclude=exclude, ignore_override=ignore_first_override
    )


def check_strict(
    obj: pydantic.BaseModel, exclude: tp.Collection[str] = (), *, ignore_first_override: bool = False
) -> None:
    """Refuse a model in an object that leaves `extra` unset, as `export` does, where no uid is asked for.

    Raises
    ------
    ExtraFieldsError: there is one
    """
    try:
        found = [
            part
            for part in parts(
                exporter(True, True), obj, exclude=exclude, ignore_override=ignore_first_override
            )
            if is_model(part.model) and is_lax(type(part.model))
        ]
    except Exception as error:  # a uid would refuse it, and none is asked for
        logger.debug("The models in %s cannot be looked at: %r", type(obj).__qualname__, error)
        return
    for part in found:
        cls = type(part.model)
        refusal = unset_extra(f"{cls.__module__}.{cls.__qualname__}", part.path)
        settings.complain("extra-fields", refusal, cls, type(obj))


def _exported(
    values: "ValueExporter", obj: pydantic.BaseModel, ignore_first_override: bool
) -> dict[str, tp.Any]:
    try:
        plan = values.plan(obj)
        if plan.holds_suspects:
            values.noticed.suspects = True
        out = plan.first(obj) if not ignore_first_override else plan.unusual(obj)
    except (IdentityError, ExportError) as error:
        path = _path(obj, error.culprit, set()) if error.culprit is not None else None
        if path:
            error.add_note(f"Found at {path!r} of {type(obj).__module__}.{type(obj).__qualname__}.")
        raise
    if out is DROPPED:
        return {}
    if not isinstance(out, dict):
        raise ExportError(
            f"{type(obj).__qualname__} is written as {type(out).__name__}, but a configuration has named fields: make "
            "it a field of another model."
        )
    return out


def _leave_out(config: dict[str, tp.Any], name: str) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        config = config.get(parent, {})
        if not isinstance(config, dict):
            return
    config.pop(last, None)


def _path(value: tp.Any, culprit: object, seen: set[int]) -> str | None:
    """Where the culprit is below a value, like "models.0.inner"; "" if it is the value."""
    if value is culprit:
        return ""
    if id(value) in seen:
        return None
    seen.add(id(value))
    items: tp.Iterable[tuple[tp.Any, tp.Any]] = ()
    if is_model(value):
        items = [*value.__dict__.items(), *(value.__pydantic_extra__ or {}).items()]
    elif isinstance(value, collections.abc.Mapping):
        items = value.items()
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        items = enumerate(value)
    for key, item in items:
        below = _path(item, culprit, seen)
        if below is not None:
            return f"{key}.{below}" if below else str(key)
    return None


# ---------------------------------------------------------------- values


class Noticed(threading.local):
    """What a thread met in the export that it makes.

    fields: new fields that were left out, with the object that holds them
    secrets: whether a secret may have been written since this was last looked at
    suspects: the same of a model that may be a look-alike of what its field is declared with
    """

    def __init__(self) -> None:
        self.fields: list[tuple[tp.Any, dict[str, tp.Any]]] = []
        self.secrets = False
        self.suspects = False


class ValueExporter:
    """Writes values as plain dicts, lists and scalars, by their runtime type.

    Parameters
    ----------
    uid: leave out what models exclude from their uid
    exclude_defaults: leave out fields that equal their default
    readable: leave out fields that classes name as new, and collect what they are set to
    within: the mode of which this is the part below discriminated models. There values are written by their own type,
        whatever their field is annotated with: all fields of a dataclass, and nothing that `Annotated` adds. (Uids were
        computed like this from the start.)
    """

    def __init__(
        self, uid: bool, exclude_defaults: bool, readable: bool, within: "ValueExporter | None" = None
    ) -> None:
        self.uid = uid
        self.exclude_defaults = exclude_defaults
        # config.yaml keeps the keys of dicts as they are: everywhere else a dot is a level
        self.splits: bool = uid or exclude_defaults
        self.readable = readable
        self.noticed: Noticed = Noticed() if within is None else within.noticed
        self.told: dict[str, bool] = {
            "exclude_defaults": exclude_defaults,
            "serialize_as_any": within is not None,
        }
        self.by_type: bool = within is not None  # whether values are written by their own type
        self.below_discriminated: ValueExporter = (
            ValueExporter(uid, exclude_defaults, readable, self) if within is None else self
        )
        self._name = f"export {uid} {exclude_defaults} {readable} {within is not None}"

    def plan(self, obj: pydantic.BaseModel) -> "ExportPlan":
        """The plan for the class of an object, made anew if the class was changed since."""
        plan: ExportPlan | None = kept(obj, self._name)
        if plan is None or (plan.static and getattr(obj, fields.EXCLUDED, None) is not plan.static):
            refuse_bare(obj)
            plan = ExportPlan(self, type(obj))
            keep(plan, self._name)
        return plan

    def value(self, value: tp.Any) -> tp.Any:
        """The JSON form of any value, an OrderedDict staying one."""
        kind = type(value)
        if kind in SCALARS:
            return value
        if kind is list or kind is tuple:
            return [item if type(item) in SCALARS else self._item(item) for item in value]
        if kind is dict:
            return self._dict(value)
        if isinstance(kind, MODEL):
            return self.plan(value).run(value)
        return self._rare(value)

    def _dict(self, value: dict[tp.Any, tp.Any]) -> dict[str, tp.Any]:
        out = {}
        for key, item in value.items():
            if type(key) is not str or "." in key:
                return self.mapping(value)
            exported = item if type(item) in SCALARS else self.value(item)
            if exported is not DROPPED:
                out[key] = exported
        return out

    def _item(self, value: tp.Any) -> tp.Any:
        return listed(self.value(value), self.splits)

    def _rare(self, value: tp.Any) -> tp.Any:
        if isinstance(value, enum.Enum):
            return self.value(value.value)
        if isinstance(value, pathlib.PurePath):
            return str(value)
        if isinstance(value, list | tuple | collections.deque):
            return [self._item(item) for item in value]
        if isinstance(value, set | frozenset):
            return sorted((self._item(item) for item in value), key=text_order)
        if isinstance(value, collections.abc.Mapping):
            return self.mapping(value)
        if isinstance(value, SECRETS):
            self.noticed.secrets = True
        return json_value(value, **self.told)

    def mapping(self, value: tp.Mapping[tp.Any, tp.Any], export: Export | None = None) -> dict[str, tp.Any]:
        """A mapping with text for keys, dotted ones split, and values written by `export` if given."""
        ordered = isinstance(value, collections.OrderedDict)
        out: dict[str, tp.Any] = collections.OrderedDict() if ordered else {}
        dotted = False
        for key, item in value.items():
            if type(key) is not str:
                key = key_text(key)
            if export is not None:
                exported = export(item)
            else:
                exported = item if type(item) in SCALARS else self.value(item)
            if exported is not DROPPED:
                out[key] = exported
                dotted = dotted or "." in key
        return split_dots(out) if dotted and self.splits and not ordered else out

    def as_written(self, value: tp.Any) -> tp.Any:
        """A value that a class wrote itself: tuples, sets, paths, enums, OrderedDicts in lists stay so."""
        if type(value) in (list, tuple, set):
            return type(value)([self.as_written(item) for item in value])
        if isinstance(value, dict):
            written = self.mapping(value, self.as_written)
            return OrderedItem(written) if type(value) is OrderedItem else written  # from an exporter of ours
        return value if isinstance(value, enum.Enum | pathlib.PurePath) else self.value(value)

    def unless_default(
        self, export: Export, default: tp.Any, factory: tp.Callable[[], tp.Any] | None, serialized: bool
    ) -> Export:
        """The function that writes values of a field that is left out at its default."""
        return FieldDefault(self, export, default, factory, serialized).written


@functools.cache
def exporter(uid: bool, exclude_defaults: bool, readable: bool = False) -> ValueExporter:
    """The one exporter of a mode."""
    return ValueExporter(uid, exclude_defaults, readable)


# ---------------------------------------------------------------- models


class ExportPlan:
    """What to do with the objects of one class, complete since there is one: `run` exports it to a dict, or DROPPED.

    `first` does so for an object that is not part of another. `excluded` are names of fields to leave out; None for
    those that the class itself names.
    """

    def __init__(
        self, values: ValueExporter, cls: type[pydantic.BaseModel], excluded: frozenset[str] | None = None
    ) -> None:
        key = getattr(cls, "_exca_discriminator_key", None)
        if isinstance(key, str):
            values = values.below_discriminated
        self.cls = cls
        self.values = values
        # a rebuilt class is noticed by it
        self.serializer: pydantic_core.SchemaSerializer = cls.__pydantic_serializer__
        self.static: tp.Any = None
        self.dynamic: bool = False
        if excluded is None and values.uid:
            self.static = fields.never_counted(cls)
            self.dynamic = self.static is None
            excluded = frozenset(self.static or ())
        elif excluded is None:
            excluded = frozenset(getattr(cls, fields.NEW_FIELDS, ()) if values.readable else ())
        self.excluded = excluded
        self._head = (key, cls.__name__) if isinstance(key, str) else None
        self._read = fields.ClassFields() if self.dynamic else fields.read_class(values, cls, excluded)
        self._steps = self._read.steps
        self._open = cls.model_config.get("extra") == "allow"
        self._overrides = values.uid and values.exclude_defaults and hasattr(cls, _OVERRIDE)
        self._variants: dict[frozenset[str], ExportPlan] = {}
        if fields.WHOLE not in excluded and not self._open:
            fields.require_known(cls, excluded)
        self.first: tp.Callable[[tp.Any], tp.Any] = self._shortest()
        in_uid = values.uid and values.exclude_defaults
        self.holds_suspects: bool = in_uid and (has_odd_default(cls) or holds_dataclasses(cls))
        suspect = self.holds_suspects or (in_uid and is_suspect(cls))
        self.run: tp.Callable[[tp.Any], tp.Any] = self._noticed if suspect else self.first

    def _shortest(self) -> tp.Callable[[tp.Any], tp.Any]:
        """The shortest way that does all that the class asks for."""
        read = self._read
        if self._overrides:
            return self._overridden
        if self.values.readable and self.excluded:
            return self._without_new
        if fields.WHOLE in self.excluded:
            return lambda obj: DROPPED
        if self.dynamic or self._open or read.fault or read.root or read.asked or read.by_serializer:
            return self.unusual
        return self._fields

    def _noticed(self, obj: tp.Any) -> tp.Any:
        """The `run` of classes whose objects may be look-alikes, or hold some."""
        self.values.noticed.suspects = True
        return self.first(obj)

    def _fields(self, obj: tp.Any) -> tp.Any:
        """The fields, as they are in the object's dict: an infra's attribute is a descriptor that binds."""
        values = obj.__dict__
        out: dict[str, tp.Any] = {}
        if self._head is not None:
            out[self._head[0]] = self._head[1]
        for name, direct, default, write in self._steps:
            value = values.get(name, DROPPED)
            if type(value) in direct:
                if value != default:
                    out[name] = value
            elif value is not DROPPED:  # absent after model_construct
                exported = write(value)
                if exported is not DROPPED:
                    out[name] = exported
        return out

    def _overridden(self, obj: tp.Any) -> tp.Any:
        """The `run` of classes that write their own part of the uid configuration."""
        out = self.override(obj)
        return self.unusual(obj) if out is None else dict(self.values.mapping(out, self.values.as_written))

    def override(self, obj: tp.Any) -> dict[str, tp.Any] | None:
        """What an object writes as its part; None where it leaves that to us, as it may from one object to the next."""
        return getattr(obj, _OVERRIDE)() if self._overrides else None

    def _without_new(self, obj: tp.Any) -> tp.Any:
        """The `run` of classes with new fields, where these are to be left out."""
        given = obj.__pydantic_fields_set__
        known = self.cls.__pydantic_fields__
        names = [n for n in self.excluded if n in given and obj.__dict__[n] != known[n].default]
        earlier: tp.Mapping[str, tuple[tp.Any, ...]] = getattr(self.cls, fields.EARLIER_VALUES, {})
        moved = [n for n, values in earlier.items() if n in given and obj.__dict__[n] not in values]
        if names or moved:
            new = {name: self.values.value(obj.__dict__[name]) for name in sorted([*names, *moved])}
            self.values.noticed.fields.append((obj, new))
        out = self.unusual(obj)
        for name in moved:
            out.pop(name, None)
        if getattr(self.cls, fields.IS_NEW, False):  # release 0.6 would refuse it by its name
            self.values.noticed.fields.append((obj, out))
            return DROPPED
        return out

    def unusual(self, obj: tp.Any) -> tp.Any:
        """The `run` of classes with anything beyond plain fields."""
        if self.dynamic:
            return self._variant(fields.excluded_by(obj)).unusual(obj)
        if fields.WHOLE in self.excluded:
            return DROPPED
        read = self._read
        if read.fault is not None:
            fault = read.fault()
            fault.culprit = obj
            raise fault
        if read.secrets:
            self.values.noticed.secrets = True
        extra = obj.__pydantic_extra__ or {}
        if self._open and self.excluded:
            fields.require_known(self.cls, self.excluded, extra)
        if read.root is not None:
            return read.root(obj.root)
        if read.by_serializer:
            return self._serialized(obj)
        out = self._fields(obj)
        if read.asked:
            dump = self._dump(obj, set(read.asked))
            dump = {name: self._as_ever(name, value, obj.__dict__.get(name)) for name, value in dump.items()}
            dump.update(out)
            order = read.order if self._head is None else (self._head[0], *read.order)
            out = {name: dump[name] for name in order if dump.get(name, DROPPED) is not DROPPED}
        if extra:
            for name, value in extra.items():
                if name not in self.excluded:
                    out[name] = self.values.value(value)
            out = split_dots({name: value for name, value in out.items() if value is not DROPPED})
        return out

    def names_left_out(self, obj: tp.Any) -> tp.Collection[str]:
        """The names of the fields of an object that do not count."""
        return fields.excluded_by(obj) if self.dynamic else self.excluded

    def _variant(self, excluded: frozenset[str]) -> "ExportPlan":
        """The plan of the class that leaves out these fields, in place of those that the class names."""
        plan = self._variants.get(excluded)
        if plan is None:
            plan = ExportPlan(self.values, self.cls, excluded)
            if len(self._variants) >= 64:  # a method may name fields by their values
                self._variants.clear()
            self._variants[excluded] = plan
        return plan

    def _dump(self, obj: tp.Any, names: set[str] | None) -> tp.Any:
        try:
            return dumped(self.serializer, obj, include=names, **self.values.told)
        except pydantic_core.PydanticSerializationError as error:
            raise self._explained(obj, names, error) from error

    def _explained(self, obj: tp.Any, names: tp.Iterable[str] | None, error: Exception) -> ExportError:
        for name in self.cls.__pydantic_fields__ if names is None else names:
            try:
                self.serializer.to_python(obj, mode="json", include={name}, warnings=False)
            except pydantic_core.PydanticSerializationError:
                value = obj.__dict__.get(name)
                if not has_a_form(value):
                    return unexportable(value)
        return misserialized(obj, error)

    def _serialized(self, obj: tp.Any) -> tp.Any:
        """Trusts the class's own serializer, and looks into what it wrote for sub-models that exclude something."""
        out = self._dump(obj, None)
        if not isinstance(out, dict):
            return out
        for name in self.excluded:
            out.pop(name, None)
        if self.values.uid:
            for name, _, _, write in self._steps:
                value = obj.__dict__.get(name)
                if name in out and is_model(value) and out[name] == self._plain(value):
                    exported = write(value)
                    if exported is DROPPED:
                        del out[name]
                    else:
                        out[name] = exported
        return out

    def _as_ever(self, name: str, written: tp.Any, value: tp.Any) -> tp.Any:
        """What a function of the class wrote of a field, or if that is nothing else, what we write."""
        without, export = self._read.asked.get(name) or (None, None)
        try:
            unchanged = without is not None and written == without(value)
        except ExportError:  # which is why there is a function
            unchanged = False
        return export(value) if export is not None and unchanged else ordered(written, value)

    def _plain(self, value: pydantic.BaseModel) -> tp.Any:
        return dumped(value.__pydantic_serializer__, value, **self.values.told)


# ---------------------------------------------------------------- defaults


class FieldDefault:
    """Writes the values of a field that is left out at its default, which a factory makes anew where it may change.

    `serialized`: a function of the class writes the field, which pydantic does not leave out at its default.
    """

    __slots__ = ("_default", "_export", "_exported", "_factory", "_given", "_serialized", "_values")

    def __init__(
        self,
        values: ValueExporter,
        export: Export,
        default: tp.Any,
        factory: tp.Callable[[], tp.Any] | None,
        serialized: bool,
    ) -> None:
        self._serialized = serialized
        self._values = values
        self._export = export
        self._default = default
        self._factory = factory
        self._exported: tp.Any = fields.MISSING
        self._given: tuple[dict[str, tp.Any], dict[str, tp.Any], tp.Collection[str]] | None = None

    def written(self, value: tp.Any) -> tp.Any:
        """The exported value, or DROPPED if it is the default."""
        default = self._default if self._factory is None else self._factory()
        if isinstance(type(value), MODEL):
            exported = self._export(value)
            if self._values.uid and exported is not DROPPED:
                return DROPPED if self._is_default(value, exported, default) else exported
            if self._serialized:
                return exported
            is_default = type(value) is type(default) and exported == self._exported_default(default)
            # an infra is never a default
            return DROPPED if is_default and same(value, default) and not _holds_infra(value) else exported
        # uids were computed from the start as if infras in a container made it another one
        if not self._serialized and same(value, default) and not _holds_infra(value):
            return DROPPED
        return self._export(value)

    def _is_default(self, value: tp.Any, exported: tp.Any, default: tp.Any) -> bool:
        """Whether a model is the default of its field in a uid: as a whole, or by what is left of it in the uid.

        The fields that the default was given are compared as they are with what is written of the value: a model in
        the model, a Path or a discriminator makes it another one. Uids were computed like this from the start.
        """
        if not is_model(default):
            return False
        if self._factory is None and isinstance(exported, dict):
            overrides = class_has(type(value), _OVERRIDE)
            own = self._values.plan(value).override(value) if overrides else None
            if self._equals_given(exported if own is None else split_dots(own), default):
                return True
        return (
            not self._serialized
            and type(value) is type(default)
            and same(value.__dict__, default.__dict__)  # most differ here, at a tenth of the cost
            and not _holds_infra(value)
            and same(value, default)
        )

    def _equals_given(self, exported: dict[str, tp.Any], default: tp.Any) -> bool:
        if self._given is None:
            left_out = self._values.plan(default).names_left_out(default)
            self._given = *_given(default, left_out), left_out
        usual, unusual, left_out = self._given
        if not usual and not left_out and len(exported) != len(unusual):
            return False
        counted = {
            name: part
            for name, part in exported.items()
            if name not in left_out and (name not in usual or not _equals(part, usual[name]))
        }
        return counted.keys() == unusual.keys() and all(
            _equals(part, unusual[n]) for n, part in counted.items()
        )

    def _exported_default(self, default: tp.Any) -> tp.Any:
        if self._factory is not None:
            return self._export(default) if is_model(default) else fields.MISSING
        if self._exported is fields.MISSING:
            # no model is written as None
            self._exported = self._export(default) if is_model(default) else None
        return self._exported


def _equals(exported: tp.Any, value: tp.Any) -> bool:
    if type(value) is dict and all(isinstance(key, str) for key in value):
        value = split_dots(value)
    return same(exported, value)


def _given(model: tp.Any, left_out: tp.Collection[str]) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
    """The values that a model was given and that count: those at the default of its class, and the others."""
    known = type(model).__pydantic_fields__
    values = {**model.__dict__, **(model.__pydantic_extra__ or {})}
    usual: dict[str, tp.Any] = {}
    unusual: dict[str, tp.Any] = {}
    for name in model.__pydantic_fields_set__ - set(left_out):
        if name in values:
            value = values[name]
            # infras never counted as equal
            is_usual = name in known and same(value, known[name].default) and not _holds_infra(value)
            (usual if is_usual else unusual)[name] = value
    return usual, unusual


def _holds_infra(value: tp.Any) -> bool:
    if is_model(value):
        parts = (part for part in value.__dict__.values() if type(part) not in SCALARS)
        return class_has(type(value), "_infra_name") or any(map(_holds_infra, parts))
    if isinstance(value, dict):
        return any(map(_holds_infra, value.values()))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_holds_infra, value))


# for each class: the fields in which secrets or models may be, and those that were warned of
_fields: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()
_warned: weakref.WeakKeyDictionary[type, set[str]] = weakref.WeakKeyDictionary()


def warn_of_shared(obj: pydantic.BaseModel, config: dict[str, tp.Any]) -> None:
    """Warn, once per field of a class, of a secret in the uid configuration of an object."""
    known = _warned.setdefault(type(obj), set())
    for path, _ in _secrets_in(obj, "", set()):
        field = path.partition(".")[0]
        if field not in known and _is_part(config, path):
            known.add(field)
            name = f"{type(obj).__module__}.{type(obj).__qualname__}"
            warn(
                f"{name}: the secret {path!r} is part of the uid, where a mask stands for it, so that objects with two "
                f"different secrets share a result. Leave {path.split('.')[-1]!r} out of the uid, with "
                "_exclude_from_cls_uid on its class, or change the version of the infra together with the secret.",
            )


def check_secrets(obj: tp.Any) -> None:
    """Raise a MaskedSecretError where an object holds a mask in place of a secret, which cannot be computed with."""
    if not is_model(obj):
        return
    for path, secret in _secrets_in(obj, "", set()):
        value = secret.get_secret_value()
        if value and str(value) == str(secret):
            raise MaskedSecretError(
                f"{type(obj).__module__}.{type(obj).__qualname__} cannot be computed: {path!r} holds {str(secret)!r}, "
                "the mask that stands for the secret in config.yaml, from which the object was made. Give it the "
                f"secret: obj.infra.clone_obj({{{path!r}: ...}}) has the same uid."
            )


def _secrets_in(value: tp.Any, path: str, above: set[int]) -> tp.Iterator[tuple[str, tp.Any]]:
    """The secrets in a value, with their dotted paths."""
    if isinstance(value, SECRETS):
        yield path, value
    elif id(value) in above:
        return  # a circle
    elif is_model(value):
        names = _fields.get(type(value))
        if names is None:
            fields = type(value).__pydantic_fields__.items()
            names = _fields[type(value)] = tuple(name for name, f in fields if may_hold_models(f.annotation))
        inner = [(name, value.__dict__.get(name)) for name in names]
        yield from _among([*inner, *(value.__pydantic_extra__ or {}).items()], path, above | {id(value)})
    elif isinstance(value, dict):
        yield from _among(value.items(), path, above | {id(value)})
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        yield from _among(enumerate(value), path, above | {id(value)})


def _among(
    items: tp.Iterable[tuple[tp.Any, tp.Any]], path: str, above: set[int]
) -> tp.Iterator[tuple[str, tp.Any]]:
    for name, value in items:
        if type(value) not in SCALARS:
            yield from _secrets_in(value, f"{path}.{name}" if path else str(name), above)


def _is_part(config: tp.Any, path: str) -> bool:
    for part in path.split("."):
        if isinstance(config, dict) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return False
    return True
