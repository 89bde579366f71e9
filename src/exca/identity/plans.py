"""One plan a model class: what to do with each field when an object is exported.

Reading annotations, exclusions and defaults takes far longer than walking over an object, and they are the same for
every object of a class: they are read once.
"""

import enum
import pathlib
import typing as tp

import pydantic
import pydantic_core

from ..errors import ExportError, IdentityError
from . import exclusions
from .nesting import OrderedItem
from .scalars import (
    DROPPED,
    OVERRIDE,
    SCALARS,
    Export,
    class_has,
    dumped,
    is_model,
    is_nan,
    json_value,
    ordered,
    same,
    split_dots,
    unexportable,
)

if tp.TYPE_CHECKING:
    from .values import ValueExporter

MISSING: tp.Final = object()
_CONTAINERS: tp.Final = frozenset((list, tuple, dict))

Step = tuple[str, frozenset[type], tp.Any, Export]


class FieldDefault:
    """Writes the values of a field that is left out at its default.

    Parameters
    ----------
    values: the mode
    export: how values are written
    default: the default; ignored if there is a factory
    factory: makes the default anew where it may change from call to call
    serialized: a function of the class writes the field: pydantic leaves out no such field since it is at its default
    """

    __slots__ = ("_default", "_export", "_exported", "_factory", "_given", "_serialized", "_values")

    def __init__(
        self,
        values: "ValueExporter",
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
        self._exported: tp.Any = MISSING
        self._given: tuple[dict[str, tp.Any], dict[str, tp.Any], tp.Collection[str]] | None = None

    def written(self, value: tp.Any) -> tp.Any:
        """Returns the exported value, or DROPPED if it is the default."""
        default = self._default if self._factory is None else self._factory()
        if is_model(value):
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
        """Tells if a model is the default of its field in a uid: as a whole, or by what is left of it in the uid.

        The fields that the default was given are compared as they are with what is written of the value: a model in
        the model, a Path or a discriminator makes it another one. Uids were computed like this from the start.
        """
        if not is_model(default):
            return False
        if self._factory is None and isinstance(exported, dict) and self._says_default(exported, default):
            return True
        return (
            not self._serialized
            and type(value) is type(default)
            and same(value.__dict__, default.__dict__)  # most differ here, at a tenth of the cost
            and not _holds_infra(value)
            and same(value, default)
        )

    def _says_default(self, exported: dict[str, tp.Any], default: tp.Any) -> bool:
        if self._given is None:
            left_out = self._values.plan(default).names_left_out(default)
            self._given = *_given(default, left_out), left_out
        usual, unusual, left_out = self._given
        if not usual and not left_out and len(exported) != len(unusual):
            return False
        said = {
            name: part
            for name, part in exported.items()
            if name not in left_out and (name not in usual or not _says(part, usual[name]))
        }
        return said.keys() == unusual.keys() and all(_says(part, unusual[n]) for n, part in said.items())

    def _exported_default(self, default: tp.Any) -> tp.Any:
        if self._factory is not None:
            return self._export(default) if is_model(default) else MISSING
        if self._exported is MISSING:
            self._exported = (
                self._export(default) if is_model(default) else None
            )  # no model is written as None
        return self._exported


def _says(exported: tp.Any, value: tp.Any) -> bool:
    if type(value) is dict and all(isinstance(key, str) for key in value):
        value = split_dots(value)
    return same(exported, value)


def _given(model: tp.Any, left_out: tp.Collection[str]) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
    """Returns the values that a model was given and that count: those at the default of its class, and the others."""
    fields = type(model).__pydantic_fields__
    values = {**model.__dict__, **(model.__pydantic_extra__ or {})}
    usual: dict[str, tp.Any] = {}
    unusual: dict[str, tp.Any] = {}
    for name in model.__pydantic_fields_set__ - set(left_out):
        if name in values:
            value = values[name]
            # infras never counted as equal
            is_usual = name in fields and same(value, fields[name].default) and not _holds_infra(value)
            (usual if is_usual else unusual)[name] = values[name]
    return usual, unusual


def _holds_infra(value: tp.Any) -> bool:
    if is_model(value):
        parts = (part for part in value.__dict__.values() if type(part) not in SCALARS)
        return class_has(type(value), "_infra_name") or any(map(_holds_infra, parts))
    if isinstance(value, dict):
        return any(map(_holds_infra, value.values()))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_holds_infra, value))


class Plan:
    """What to do with the objects of one class, under one mode; filled in by `compile_plan`.

    serializer: pydantic's, by which a rebuilt class is noticed
    run: exports an object of the class to a dict, or DROPPED if it asks to be left out
    """

    def __init__(self, values: "ValueExporter", cls: type[pydantic.BaseModel]) -> None:
        self.cls = cls
        self.values = values
        self.serializer: pydantic_core.SchemaSerializer = cls.__pydantic_serializer__
        self.run: tp.Callable[[tp.Any], tp.Any] = self.fields
        self.head: tuple[str, str] | None = None
        self.steps: tuple[Step, ...] = ()
        self.fault: tp.Callable[[], IdentityError] | None = None
        self.root: Export | None = None
        self.asked: dict[
            str, Export | None
        ] = {}  # what pydantic writes, and how models there are written otherwise
        self.order: tuple[str, ...] = ()
        self.excluded: frozenset[str] = frozenset()
        self.static: tp.Any = None
        self.dynamic = False
        self.by_serializer = False
        self.secrets = False  # whether a field is a secret, or holds some
        self.open = False
        self.overrides = False
        self._compile: tp.Callable[[frozenset[str]], Plan] | None = None
        self._variants: dict[frozenset[str], Plan] = {}

    def fields(self, obj: tp.Any) -> tp.Any:
        """Returns the fields, as they lie in the object: an infra's attribute is a descriptor that binds."""
        values = obj.__dict__
        out: dict[str, tp.Any] = {}
        if self.head is not None:
            out[self.head[0]] = self.head[1]
        for name, direct, default, write in self.steps:
            value = values.get(name, DROPPED)
            if type(value) in direct:
                if value != default:
                    out[name] = value
            elif value is not DROPPED:  # absent after model_construct
                exported = write(value)
                if exported is not DROPPED:
                    out[name] = exported
        return out

    def left_out(self, obj: tp.Any) -> tp.Any:
        """Stands for `run` on classes that drop themselves."""
        return DROPPED

    def overridden(self, obj: tp.Any) -> tp.Any:
        """Stands for `run` on classes that write their own part of the uid configuration."""
        out = getattr(obj, OVERRIDE)()
        return self.unusual(obj) if out is None else dict(self.values.mapping(out, self._as_written))

    def is_overridden(self, obj: tp.Any) -> bool:
        """Tells if an object wrote its part itself: a class may leave it to us from one object to the next."""
        return self.overrides and getattr(obj, OVERRIDE)() is not None

    def _as_written(self, value: tp.Any) -> tp.Any:
        """Returns a value that a class wrote itself: tuples, sets, paths, enums, OrderedDicts in lists stay so."""
        if type(value) in (list, tuple, set):
            return type(value)([self._as_written(item) for item in value])
        if isinstance(value, dict):
            written = self.values.mapping(value, self._as_written)
            return OrderedItem(written) if type(value) is OrderedItem else written  # from an exporter of ours
        return value if isinstance(value, enum.Enum | pathlib.PurePath) else self.values.value(value)

    def without_new(self, obj: tp.Any) -> tp.Any:
        """Stands for `run` on classes with new fields, where these are to be left out."""
        given = obj.__pydantic_fields_set__
        fields = self.cls.__pydantic_fields__
        new = {
            n: obj.__dict__[n] for n in self.excluded if n in given and obj.__dict__[n] != fields[n].default
        }
        if new:
            new = {name: self.values.value(value) for name, value in sorted(new.items())}
            self.values.noticed.fields.append((obj, new))
        return self.unusual(obj)

    def unusual(self, obj: tp.Any) -> tp.Any:
        """Stands for `run` on classes with anything beyond plain fields."""
        if self.dynamic:
            return self.variant(exclusions.asked(obj)).unusual(obj)
        if exclusions.WHOLE in self.excluded:
            return DROPPED
        if self.fault is not None:
            fault = self.fault()
            fault.culprit = obj
            raise fault
        if self.secrets:
            self.values.noticed.secrets = True
        extra = obj.__pydantic_extra__ or {}
        if self.open and self.excluded:
            exclusions.check_known(self.cls, self.excluded, extra)
        if self.root is not None:
            return self.root(obj.root)
        if self.by_serializer:
            return self._serialized(obj)
        out = self.fields(obj)
        if self.asked:
            dump = self._dump(obj, set(self.asked))
            dump = {name: self._as_ever(name, value, obj.__dict__.get(name)) for name, value in dump.items()}
            dump.update(out)
            out = {name: dump[name] for name in self.order if dump.get(name, DROPPED) is not DROPPED}
        if extra:
            for name, value in extra.items():
                if name not in self.excluded:
                    out[name] = self.values.value(value)
            out = split_dots({name: value for name, value in out.items() if value is not DROPPED})
        return out

    def names_left_out(self, obj: tp.Any) -> tp.Collection[str]:
        """Returns the names of the fields of an object that do not count."""
        return exclusions.asked(obj) if self.dynamic else self.excluded

    def variant(self, excluded: frozenset[str]) -> "Plan":
        """Returns the plan of the class that leaves out these fields, in place of those that the class names."""
        plan = self._variants.get(excluded)
        if plan is None:
            assert self._compile is not None
            plan = self._compile(excluded)
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
                return unexportable(obj.__dict__.get(name))
        return ExportError(
            f"Objects of {self.cls.__qualname__} cannot be written as a configuration: {error}"
        )

    def _serialized(self, obj: tp.Any) -> tp.Any:
        """Trusts the class's own serializer, and looks into what it wrote for sub-models that exclude something."""
        out = self._dump(obj, None)
        if not isinstance(out, dict):
            return out
        for name in self.excluded:
            out.pop(name, None)
        if self.values.uid:
            for name, _, _, write in self.steps:
                value = obj.__dict__.get(name)
                if name in out and is_model(value) and out[name] == self._plain(value):
                    exported = write(value)
                    if exported is DROPPED:
                        del out[name]
                    else:
                        out[name] = exported
        return out

    def _as_ever(self, name: str, written: tp.Any, value: tp.Any) -> tp.Any:
        """Returns what a function of the class wrote of a field, or if that is nothing else, what we write."""
        export = self.asked.get(name)
        try:
            unchanged = export is not None and written == json_value(value, **self.values.told)
        except ExportError:  # which is why there is a function
            unchanged = False
        return export(value) if export is not None and unchanged else ordered(written, value)

    def _plain(self, value: pydantic.BaseModel) -> tp.Any:
        return dumped(value.__pydantic_serializer__, value, **self.values.told)


def is_unsafe(default: tp.Any) -> bool:
    """Tells if `value != default` on a scalar may go wrong or mislead."""
    return is_nan(default) or not (
        type(default) in SCALARS or type(default) in _CONTAINERS or is_model(default)
    )
