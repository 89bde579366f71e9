"""JSON, and containers walked so that each part is stored by its own handler and comes back as what it was."""

import math
import typing as tp

import orjson
import xxhash

from ...errors import DamagedEntryError, HandlerError
from .. import registry
from ..dumpcontext import DumpContext, Info
from .base import BuiltinHandler, read_range

MAX_INLINE = 1024  # bytes of JSON from which on a value goes to a shared file
_PLAIN = frozenset((str, bool, type(None)))


class _Walk:
    """One walk over a value: JSON with the parts that JSON cannot hold as they are handed to their handlers."""

    def __init__(self, ctx: DumpContext, strict_text: bool = False) -> None:
        self.ctx = ctx
        self.special = False  # whether anything is not plain JSON
        self.strict_text = strict_text

    def __call__(self, value: tp.Any, name: tp.Any) -> tp.Any:
        kind = type(value)
        if kind is dict and registry.TYPE_DEFAULTS.get(dict) is None:
            return self.items(value, name)
        if kind is list and registry.TYPE_DEFAULTS.get(list) is None:
            return self.sequence(value, name)
        if self.plain(value, kind):
            return value
        self.special = True
        if name is None:
            return self.ctx.dump(value)
        with self.ctx.part(name):
            return self.ctx.dump(value)

    def plain(self, value: tp.Any, kind: type) -> bool:
        """Whether JSON brings a scalar back as it was."""
        if kind in registry.TYPE_DEFAULTS:
            return False
        if kind is str:
            return not self.strict_text or _encodable(value)
        if kind is float:
            return math.isfinite(value)
        if kind is int:
            return bool(-(1 << 63) <= value < 1 << 64)
        return kind is bool or kind is type(None)

    def sequence(self, values: tp.Sequence[tp.Any], name: tp.Any = None) -> list[tp.Any]:
        kinds = set(map(type, values))
        simple = not self.strict_text and registry.TYPE_DEFAULTS.keys().isdisjoint(kinds)
        if simple and (kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, values)))):
            return list(values)
        with self.ctx.part(name) if name is not None else _nothing:
            return [self(value, number) for number, value in enumerate(values)]

    def items(self, value: dict[tp.Any, tp.Any], name: tp.Any) -> tp.Any:
        if all(type(key) is str and key[:1] != "#" for key in value) and (
            not self.strict_text or all(map(_encodable, value))
        ):
            with self.ctx.part(name) if name is not None else _nothing:
                return {key: self(item, key) for key, item in value.items()}
        self.special = True
        return {"#type": "py.dict", "content": self.pairs(value)}

    def pairs(self, value: tp.Mapping[tp.Any, tp.Any]) -> list[tp.Any]:
        """A mapping whose keys are no plain text."""
        self.special = True
        return [[self(key, f"key{n}"), self(item, n)] for n, (key, item) in enumerate(value.items())]


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


_nothing = _Nothing()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unwrap(ctx: DumpContext, content: tp.Any) -> tp.Any:
    """Load what a walk made."""
    kind = type(content)
    if kind is dict:
        if "#type" in content:
            return ctx.load(content)
        return {key: unwrap(ctx, item) for key, item in content.items()}
    if kind is list:
        return [unwrap(ctx, item) for item in content]
    return content


def delete_parts(ctx: DumpContext, content: tp.Any) -> None:
    """Delete the data of all parts of what a walk made."""
    if isinstance(content, dict):
        if "#type" in content:
            ctx.delete(content)
            return
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            delete_parts(ctx, item)


def delete_content(ctx: DumpContext, info: Info) -> None:
    """Delete the data of all parts of an entry."""
    try:
        content = content_of(ctx, info)
    except DamagedEntryError:  # nobody knows what it named; verification finds the orphans
        return
    delete_parts(ctx, content)


def walked(ctx: DumpContext, make: tp.Callable[[_Walk], tp.Any]) -> tuple[tp.Any, bool]:
    """The content that ``make`` gives with a walk, and whether it is more than plain JSON."""
    walk = _Walk(ctx)
    content = make(walk)
    try:
        orjson.dumps(content)
    except TypeError:  # text with lone surrogates: rare, so it is looked for only now
        walk = _Walk(ctx, strict_text=True)
        content = make(walk)
    return content, walk.special


def stored(ctx: DumpContext, content: tp.Any, type_: str) -> Info:
    """An entry for JSON content: inline when small, else in a shared file."""
    text = orjson.dumps(content)
    if len(text) <= MAX_INLINE:
        return {"content": content, "#type": type_}
    file, name = ctx.shared(".jsonl")
    offset = file.tell()
    file.write(text + b"\n")
    return {
        "filename": name,
        "offset": offset,
        "length": len(text),
        "#type": type_,
        "#sum": xxhash.xxh3_64_hexdigest(text),
    }


def content_of(ctx: DumpContext, info: Info) -> tp.Any:
    """The JSON content of an entry, wherever it lies. Raises DamagedEntryError."""
    if "filename" not in info:
        return info["content"]
    data = read_range(ctx, info["filename"], info["offset"], info["length"], info.get("#sum"))
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise DamagedEntryError(
            f"The data file {ctx.path(info['filename'])} holds no JSON where it should"
        ) from e


class Json(BuiltinHandler):
    """Values that JSON brings back as they were: text, numbers, booleans, None, lists, dicts with text keys."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        content, special = walked(ctx, lambda walk: walk(value, None))
        if special:
            delete_parts(ctx, content)
            raise HandlerError(
                f"This value of type {type(value).__name__} is more than JSON can hold; "
                "leave cache_type out (each part is then stored by its own handler) or use cache_type='Pickle'"
            )
        return stored(ctx, content, "Json")

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        return content_of(ctx, info)

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, **info: tp.Any) -> tp.Any:
        return content_of(ctx, info)


class Auto(BuiltinHandler):
    """Containers: each part is stored by its own handler, what has none as a pickle."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        if type(value) not in (dict, list):
            return ctx.dump(value)
        content, special = walked(ctx, lambda walk: walk(value, None))
        return stored(ctx, content, "Auto" if special else "Json")

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        return unwrap(ctx, content_of(ctx, info))

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, **info: tp.Any) -> tp.Any:
        return cls.load(ctx, info)

    @classmethod
    def __delete_info__(cls, ctx: DumpContext, **info: tp.Any) -> None:
        delete_content(ctx, info)


class AutoPickle(Auto):
    """`Auto` under the name that an earlier release gave to the variant that pickles what it does not know."""


registry.add_builtin(Json, exact=(str, int, float, bool, type(None)))
registry.add_builtin(Auto, exact=(dict, list))
registry.add_builtin(AutoPickle)
