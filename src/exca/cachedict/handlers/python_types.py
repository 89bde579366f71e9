"""Types of Python's own that JSON does not know, and users' dataclasses, named tuples, enums and pydantic models.

Their names under ``#type`` start with ``py.``, so that none can collide with a class of a user. A user's class is
named by module and qualified name, and must be importable where the value is loaded. Fields are stored and set as
they are: no ``__init__``, ``__post_init__`` or validator runs when a value is loaded.
"""

import base64
import collections
import dataclasses
import datetime
import enum
import importlib
import pathlib
import sys
import typing as tp

import xxhash

from ... import _trust
from ...errors import DamagedEntryError, StoredValueError, UnknownHandlerError, UntrustedFileError
from .. import registry
from ..dumpcontext import DumpContext
from ..textindex import Info
from .base import BuiltinHandler, read_range
from .pickled import PickleFallback
from .structured import Container, content_of, load_parts, stored, walked


def class_name(class_: type) -> str:
    """How a class is named in an entry."""
    return f"{class_.__module__}:{class_.__qualname__}"


def find_class(name: str, kind: type | None = None) -> type:
    """The class of that name. Raises UnknownHandlerError when it cannot be imported or is of another kind."""
    module, _, path = name.partition(":")
    try:
        found: tp.Any = sys.modules.get(module)
        if found is None:
            if not _trust.importing.get():
                raise UntrustedFileError(
                    f"Not importing {module}, the module of a stored value: another user may have written that it is "
                    "of this class, and importing runs code. To load it, import the module first, or name that user "
                    "in EXCA_TRUSTED_USERS or the group in EXCA_TRUSTED_GROUPS"
                )
            found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except UntrustedFileError:
        raise
    except Exception as e:  # whatever its module does
        raise UnknownHandlerError(f"The class {name} of a stored value cannot be imported: {e!r}") from e
    if not isinstance(found, type) or (kind is not None and not issubclass(found, kind)):
        raise StoredValueError(_changed(name, "it is no longer the kind of class that it was"))
    return found


def _changed(name: str, how: str) -> str:
    return (
        f"The class {name} of a stored value has changed since: {how}. The value is unharmed: load it with the earlier "
        "class, or compute it again"
    )


def _completed(
    name: str, content: dict[str, tp.Any], fields: tp.Iterable[str], default: tp.Callable[[str], tp.Any]
) -> dict[str, tp.Any]:
    """The values of all fields of a class, the defaults of those that came since."""
    fields = list(fields)
    gone = [field for field in content if field not in fields]
    if gone:
        raise StoredValueError(_changed(name, f"it has no field {', '.join(map(repr, gone))} any more"))
    found = {}
    for field in fields:
        try:
            found[field] = content[field] if field in content else default(field)
        except LookupError:
            raise StoredValueError(_changed(name, f"the field {field!r} is new and has no default")) from None
        except Exception as e:
            raise StoredValueError(_changed(name, f"the default of the field {field!r} fails: {e!r}")) from e
    return found


def importable(class_: type) -> bool:
    """Whether a class is found again by its name."""
    try:
        return find_class(class_name(class_)) is class_
    except UnknownHandlerError:
        return False


def _scalar(
    name: str,
    types: tp.Iterable[type],
    to_text: tp.Callable[[tp.Any], tp.Any],
    from_text: tp.Callable[[tp.Any], tp.Any],
) -> type:
    """A handler for values that one text, or another JSON value, holds all of."""

    class Scalar(BuiltinHandler):
        only_reads = True

        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
            return stored(ctx, to_text(value), name)

        @classmethod
        def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
            return from_text(content_of(ctx, info)[0])

    Scalar.__name__ = Scalar.__qualname__ = name
    registry.add_builtin(Scalar, name, exact=types)
    return Scalar


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _complex(value: complex) -> list[str]:
    return [value.real.hex(), value.imag.hex()]


def _timedelta(value: datetime.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


# bound first by type: values that plain JSON holds come here only when they are too odd for it
_scalar("py.float", (), float.hex, float.fromhex)
_scalar("py.int", (), str, int)
_scalar(
    "py.str",
    (),
    lambda v: _base64(v.encode("utf8", "surrogatepass")),
    lambda t: base64.b64decode(t).decode("utf8", "surrogatepass"),
)
_scalar("py.complex", (complex,), _complex, lambda parts: complex(*map(float.fromhex, parts)))
_scalar("py.date", (datetime.date,), datetime.date.isoformat, datetime.date.fromisoformat)
_scalar("py.timedelta", (datetime.timedelta,), _timedelta, lambda parts: datetime.timedelta(*parts))
_scalar("py.ellipsis", (type(Ellipsis),), lambda v: None, lambda c: Ellipsis)


class Odd(BuiltinHandler):
    """Numbers and text, the odd ones of which JSON cannot hold."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        content, _ = walked(ctx, lambda walk: value if walk.plain(value, type(value)) else None)
        if content is not None or value is None:
            return stored(ctx, value, "Json")
        handler = registry.for_name(f"py.{type(value).__name__}")
        return tp.cast(Info, handler.__dump_info__(ctx, value))


class Clock(BuiltinHandler):
    """Times of day and datetimes, without a zone or with a fixed offset; others are pickled."""

    only_reads = True

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        zone = value.tzinfo
        fixed = type(zone) is datetime.timezone and zone == datetime.timezone(value.utcoffset())
        if zone is not None and not fixed:
            return PickleFallback.__dump_info__(ctx, value)
        return {"content": value.isoformat(), **({"fold": value.fold} if value.fold else {})}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, content: str, fold: int = 0) -> tp.Any:
        return cls.parse(content).replace(fold=fold)

    @staticmethod
    def parse(text: str) -> tp.Any:
        """The value that a text means."""
        return datetime.datetime.fromisoformat(text)


class TimeOfDay(Clock):
    """Times of day."""

    @staticmethod
    def parse(text: str) -> tp.Any:
        """The value that a text means."""
        return datetime.time.fromisoformat(text)


class Bytes(BuiltinHandler):
    """Bytes: base64 when short, else in a shared file."""

    only_reads = True
    kind: tp.ClassVar[tp.Callable[[bytes], tp.Any]] = bytes

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        data = bytes(value)
        if len(data) <= 512:
            return {"content": _base64(data)}
        file, name = ctx.shared(".data")
        offset = file.tell()
        file.write(data)
        digest = xxhash.xxh3_64_hexdigest(data)
        return {"filename": name, "offset": offset, "length": len(data), "#sum": digest}

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        if "content" in info:
            return cls.kind(base64.b64decode(info["content"], validate=True))
        return cls.kind(read_range(ctx, info["filename"], info["offset"], info["length"], info.get("#sum")))


class ByteArray(Bytes):
    """Byte arrays, as bytes."""

    kind: tp.ClassVar[tp.Callable[[bytes], tp.Any]] = bytearray


class _BuiltContainer(Container):
    """A container that is built again from its parts."""

    @classmethod
    def store(cls, ctx: DumpContext, make: tp.Callable[[tp.Any], tp.Any], **more: tp.Any) -> Info:
        """The entry of a container, but for the name of its handler."""
        content, walk = walked(ctx, make)
        info = stored(ctx, content, "", walk.reserved)
        del info["#type"]  # the context puts in the name under which the handler was found
        return {**info, **more}

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        content = load_parts(ctx, info)
        try:
            return cls.build(content, info)
        except DamagedEntryError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            name = info.get("#as") or info["#type"]
            raise DamagedEntryError(f"An entry of {ctx.root} holds no value for {name}: {e!r}") from e

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        raise NotImplementedError


class Tuple(_BuiltContainer):
    """Tuples, written as lists: that is what release 0.6 makes of them."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        items = list(value)
        content, walk = walked(ctx, lambda walk: walk.sequence(items))
        return {**stored(ctx, content, "Auto", walk.reserved), "#as": "py.tuple"}

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        return tuple(content)


class Set(_BuiltContainer):
    """Sets, sorted where they can be, so that equal sets give equal entries."""

    kind: tp.ClassVar[tp.Callable[[tp.Any], tp.Any]] = set

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        items = list(value)
        if all(type(item) is str for item in items):
            items.sort()
        return cls.store(ctx, lambda walk: walk.sequence(items))

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        return cls.kind(content)


class FrozenSet(Set):
    """Frozen sets."""

    kind: tp.ClassVar[tp.Callable[[tp.Any], tp.Any]] = frozenset


class Deque(_BuiltContainer):
    """Deques, with their bound."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        return cls.store(ctx, lambda walk: walk.sequence(list(value)), maxlen=value.maxlen)

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        return collections.deque(content, info["maxlen"])


class Pairs(_BuiltContainer):
    """Dicts whose keys are more than plain text."""

    kind: tp.ClassVar[tp.Callable[[tp.Any], tp.Any]] = dict

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        return cls.store(ctx, lambda walk: walk.pairs(value))

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        return cls.kind((key, value) for key, value in content)


class OrderedPairs(Pairs):
    """Ordered dicts."""

    kind: tp.ClassVar[tp.Callable[[tp.Any], tp.Any]] = collections.OrderedDict


class NamedTuple(_BuiltContainer):
    """Named tuples, by the name of their class."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        if not importable(type(value)):
            return PickleFallback.__dump_info__(ctx, value)
        more = {"class_": class_name(type(value)), "names": list(value._fields)}
        return cls.store(ctx, lambda walk: walk.sequence(list(value)), **more)

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        class_: tp.Any = find_class(info["class_"], tuple)
        if not hasattr(class_, "_fields"):
            raise StoredValueError(_changed(info["class_"], "it is no named tuple any more"))
        further = (f"#{n}" for n in range(len(class_._fields), len(content)))
        names = info.get("names") or [*class_._fields, *further]  # they were not always stored
        stored = dict(zip(names, content, strict=False))
        found = _completed(info["class_"], stored, class_._fields, class_._field_defaults.__getitem__)
        return tuple.__new__(class_, found.values())


class Dataclass(_BuiltContainer):
    """Dataclasses: their fields, where these are all that they hold; others are pickled."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        names = [field.name for field in dataclasses.fields(value)]
        more = set(getattr(value, "__dict__", ())) - set(names)
        custom = any(hasattr(type(value), m) for m in ("__setstate__", "__getnewargs__", "__getnewargs_ex__"))
        slots = "__slots__" in vars(type(value))
        complete = all(hasattr(value, name) for name in names)
        if more or (custom and not slots) or not importable(type(value)) or not complete:
            return PickleFallback.__dump_info__(ctx, value)
        fields = {name: getattr(value, name) for name in names}
        return cls.store(ctx, lambda walk: walk(fields, None), class_=class_name(type(value)))

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        class_ = find_class(info["class_"])
        if not dataclasses.is_dataclass(class_):
            raise StoredValueError(_changed(info["class_"], "it is no dataclass any more"))
        fields = {field.name: field for field in dataclasses.fields(class_)}

        def default(name: str) -> tp.Any:
            factory: tp.Any = fields[name].default_factory
            if factory is not dataclasses.MISSING:
                return factory()
            if fields[name].default is dataclasses.MISSING:
                raise LookupError(name)
            return fields[name].default

        value = object.__new__(class_)
        for name, item in _completed(info["class_"], content, fields, default).items():
            object.__setattr__(value, name, item)  # a frozen dataclass refuses setattr
        return value


class Model(_BuiltContainer):
    """Pydantic models: fields and extras as they are; those with private attributes are pickled."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        import pydantic

        if (
            getattr(value, "__pydantic_private__", None)
            or not importable(type(value))
            or getattr(value, "__pydantic_root_model__", False)
            or type(value).__setstate__ is not pydantic.BaseModel.__setstate__
            or set(value.__dict__) - set(type(value).__pydantic_fields__)  # cached properties
        ):
            return PickleFallback.__dump_info__(ctx, value)
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        given = sorted(value.__pydantic_fields_set__)
        return cls.store(ctx, lambda walk: walk(fields, None), class_=class_name(type(value)), given=given)

    @classmethod
    def build(cls, content: tp.Any, info: Info) -> tp.Any:
        """The container, from its parts."""
        import pydantic

        class_: tp.Any = find_class(info["class_"], pydantic.BaseModel)
        fields = class_.__pydantic_fields__
        allows = class_.model_config.get("extra") == "allow"
        extra = {name: item for name, item in content.items() if name not in fields} if allows else {}

        def default(name: str) -> tp.Any:
            if fields[name].is_required():
                raise LookupError(name)
            return fields[name].get_default(call_default_factory=True, validated_data=known)

        known = {name: item for name, item in content.items() if name not in extra}
        value = class_.__new__(class_)
        object.__setattr__(value, "__dict__", _completed(info["class_"], known, fields, default))
        object.__setattr__(value, "__pydantic_extra__", extra if allows else None)
        object.__setattr__(value, "__pydantic_fields_set__", set(info["given"]))
        object.__setattr__(value, "__pydantic_private__", None)
        if class_.__pydantic_post_init__ is not None and class_.__private_attributes__:
            try:
                value.model_post_init(None)
            except Exception as e:
                raise StoredValueError(_changed(info["class_"], f"its model_post_init fails: {e!r}")) from e
        return value


class EnumMember(BuiltinHandler):
    """Members of enums, by name; combinations of flags are pickled."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        named = value.name is not None and type(value).__members__.get(value.name) is value
        if not named or not importable(type(value)):
            return PickleFallback.__dump_info__(ctx, value)
        return {"class_": class_name(type(value)), "name": value.name}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, **info: tp.Any) -> tp.Any:
        name = info.get("class_")
        if type(name) is not str or type(info.get("name")) is not str:
            raise DamagedEntryError(f"An entry of {ctx.root} names no member of an enum")
        found = tp.cast(type[enum.Enum], find_class(name, enum.Enum)).__members__.get(info["name"])
        if found is None:
            raise StoredValueError(_changed(name, f"it has no member {info['name']!r} any more"))
        return found


class PurePath(BuiltinHandler):
    """Paths, as text; a path of this system comes back as one of the system that loads it."""

    only_reads = True

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        if type(value).__module__.partition(".")[0] != "pathlib":
            return PickleFallback.__dump_info__(ctx, value)
        content, _ = walked(ctx, lambda walk: walk(str(value), None))
        pure = type(value) in (pathlib.PurePosixPath, pathlib.PureWindowsPath)
        return {"content": content, "kind": type(value).__name__ if pure else "Path"}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, content: tp.Any, kind: str) -> tp.Any:
        if kind not in ("Path", "PurePosixPath", "PureWindowsPath"):
            raise DamagedEntryError(f"Not a kind of path: {kind!r}")
        return getattr(pathlib, kind)(ctx.load(content))


class NumpyScalar(BuiltinHandler):
    """NumPy scalars, with their type."""

    only_reads = True

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        import numpy as np

        from .arrays import describe

        array = np.asarray(value)
        if array.dtype.hasobject or type(value) is not type(array[()]):
            return PickleFallback.__dump_info__(ctx, value)
        return {"dtype": describe(array.dtype), "content": _base64(array.tobytes())}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, dtype: tp.Any, content: str) -> tp.Any:
        import numpy as np

        from .arrays import dtype_of

        return np.frombuffer(base64.b64decode(content), dtype=dtype_of(dtype))[0]


registry.add_builtin(Odd, "py.odd", exact=(str, int, float))
registry.add_builtin(Clock, "py.datetime", exact=(datetime.datetime,))
registry.add_builtin(TimeOfDay, "py.time", exact=(datetime.time,))
registry.add_builtin(Bytes, "py.bytes", exact=(bytes,))
registry.add_builtin(ByteArray, "py.bytearray", exact=(bytearray,))
registry.add_builtin(Tuple, "py.tuple", exact=(tuple,))
registry.add_builtin(Set, "py.set", exact=(set,))
registry.add_builtin(FrozenSet, "py.frozenset", exact=(frozenset,))
registry.add_builtin(Deque, "py.deque", exact=(collections.deque,))
registry.add_builtin(Pairs, "py.dict")
registry.add_builtin(OrderedPairs, "py.ordered_dict", exact=(collections.OrderedDict,))
registry.add_builtin(NamedTuple, "py.named_tuple")
registry.add_builtin(Dataclass, "py.dataclass")
registry.add_builtin(Model, "py.model")
registry.add_builtin(EnumMember, "py.enum")
registry.add_builtin(PurePath, "py.path")
registry.add_builtin(NumpyScalar, "py.numpy_scalar")
