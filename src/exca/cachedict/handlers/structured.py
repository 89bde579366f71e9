"""JSON, and containers walked so that each part is stored by its own handler and comes back as what it was."""

import contextlib
import math
import typing as tp

import orjson
import xxhash

from ...errors import DamagedEntryError, HandlerError
from .. import registry
from ..dumpcontext import DumpContext
from ..textindex import Info, Reserved, iter_parts, reserved_of, take_reserved, with_reserved
from .base import BuiltinHandler, read_range

MAX_INLINE = 1024  # bytes of JSON from which on a value goes to a shared file
_PLAIN = frozenset((str, bool, type(None)))


class _Walk:
    """One walk over a value: JSON with the parts that JSON cannot hold as they are handed to their handlers."""

    def __init__(self, ctx: DumpContext, strict_text: bool = False) -> None:
        self.ctx = ctx
        self.special = False  # whether anything is not plain JSON
        self.reserved: list[Info | None] = []  # fields of the parts, in their order
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
        with self.ctx.part(name) if name is not None else _nothing:
            part = self.ctx.dump(value)
        self.reserved.append(take_reserved(part))
        return part

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
        before, self.reserved = self.reserved, []
        content = self.pairs(value)
        before.append({"#parts": self.reserved} if any(self.reserved) else None)
        self.reserved = before
        return {"#type": "py.dict", "content": content}

    def pairs(self, value: tp.Mapping[tp.Any, tp.Any]) -> list[tp.Any]:
        """A mapping whose keys are no plain text."""
        self.special = True
        return [[self(key, f"key{n}"), self(item, n)] for n, (key, item) in enumerate(value.items())]


_nothing = contextlib.nullcontext()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unwrap(ctx: DumpContext, content: tp.Any, reserved: tp.Iterator[Info | None]) -> tp.Any:
    """Load what a walk made."""
    kind = type(content)
    if kind is dict:
        if "#type" in content:
            return ctx.load(with_reserved(content, reserved))
        return {key: unwrap(ctx, item, reserved) for key, item in content.items()}
    if kind is list:
        return [unwrap(ctx, item, reserved) for item in content]
    return content


def load_parts(ctx: DumpContext, info: Info) -> tp.Any:
    """Load the content of a container, each part by its own handler."""
    return unwrap(ctx, *content_of(ctx, info))


def walked(ctx: DumpContext, make: tp.Callable[[_Walk], tp.Any]) -> tuple[tp.Any, _Walk]:
    """The content that ``make`` gives with a walk, and the walk, which knows what it has met."""
    walk = _Walk(ctx)
    content = make(walk)
    try:
        orjson.dumps(content)
    except TypeError:  # text with lone surrogates: rare, so it is looked for only now
        walk = _Walk(ctx, strict_text=True)
        content = make(walk)
    return content, walk


def stored(ctx: DumpContext, content: tp.Any, type_: str, reserved: Reserved = ()) -> Info:
    """An entry for JSON content: inline when small, else in a shared file, as lines of JSON.

    There the fields of the parts follow the content, and ``#parts`` is the length of their text.
    """
    text = orjson.dumps(content)
    info: Info = {}
    if len(text) <= MAX_INLINE:
        info["content"] = content
        if any(reserved):
            info["#parts"] = reserved
        return {**info, "#type": type_}
    file, name = ctx.shared(".jsonl")
    place = {"filename": name, "offset": file.tell(), "length": len(text)}
    more = orjson.dumps(reserved) if any(reserved) else b""
    text = b"%b\n%b" % (text, more) if more else text
    file.write(text + b"\n")
    # a container whose content is in a file has this form since release 0.6
    info = (
        {"content": {**place, "#type": "Json"}, "#type": type_}
        if type_ == "Auto"
        else {**place, "#type": type_}
    )
    if more:
        info["#parts"] = len(more)
    info["#sum"] = xxhash.xxh3_64_hexdigest(text)
    return info


def place_of(info: Info) -> Info | None:
    """The fields that hold where the JSON content of an entry is, or None where it is in the entry itself."""
    if "filename" in info:
        return info
    content = info.get("content")
    in_file = type(content) is dict and content.get("#type") == "Json" and "filename" in content
    return content if in_file else None


def text_size(info: Info, place: Info) -> int:
    """Bytes of content in a file, with the fields of the parts that may follow it there."""
    more = info.get("#parts")
    return int(place["length"]) + (1 + more if isinstance(more, int) else 0)


def content_of(ctx: DumpContext, info: Info) -> tuple[tp.Any, tp.Iterator[Info | None]]:
    """The JSON content of an entry, wherever it is, and the fields of its parts. Raises DamagedEntryError."""
    try:
        place = place_of(info)
        if place is None:
            return info["content"], reserved_of(info)
        length, size = place["length"], text_size(info, place)
        if min(length, size) < 0:
            raise ValueError(f"{length} bytes")
        data = read_range(ctx, place["filename"], place["offset"], size, info.get("#sum"))
    except DamagedEntryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise DamagedEntryError(f"An entry of {ctx.root} does not tell where its content is: {e!r}") from e
    try:
        return orjson.loads(data[:length]), iter(orjson.loads(data[length:]) if len(data) > length else ())
    except orjson.JSONDecodeError as e:
        raise DamagedEntryError(
            f"The data file {ctx.path(place['filename'])} holds no JSON where it should"
        ) from e


def parts_of_entry(ctx: DumpContext, info: Info) -> tp.Iterator[Info]:
    """The entries of all parts of an entry, with their reserved fields."""
    if info["#type"] == "Json":
        return
    place = place_of(info)
    if place is not None and str(place["filename"]).endswith(".jsonl"):
        yield from iter_parts(*content_of(ctx, info))
        return
    content = {key: value for key, value in info.items() if key[:1] != "#"}
    yield from iter_parts(content, reserved_of(info))


def named_files(ctx: DumpContext, info: Info) -> set[str]:
    """Data files that an entry and its parts name, as paths within the folder."""
    found = set(ctx.own_files(info))
    ranges = info.get("#ranges")
    if isinstance(ranges, list):
        found |= {part[0] for part in ranges if isinstance(part, list) and part and isinstance(part[0], str)}
    place = place_of(info)
    if place is not None and isinstance(place["filename"], str):
        found.add(place["filename"])
        if info["#type"] == "MneRawBrainVision":
            stem = info["filename"].removesuffix(".vhdr")
            found.update(stem + ending for ending in (".vmrk", ".eeg"))
    try:
        parts = list(parts_of_entry(ctx, info))
    except (DamagedEntryError, OSError):
        parts = []
    return found.union(*(named_files(ctx, part) for part in parts))


class Json(BuiltinHandler):
    """Values that JSON brings back as they were: text, numbers, booleans, None, lists, dicts with text keys."""

    only_reads = True

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        content, walk = walked(ctx, lambda walk: walk(value, None))
        if walk.special:
            for part in iter_parts(content, iter(walk.reserved)):
                ctx.delete(part)
            raise HandlerError(
                f"This value of type {type(value).__name__} is more than JSON can hold; "
                "leave cache_type out (each part is then stored by its own handler) or use cache_type='Pickle'"
            )
        return stored(ctx, content, "Json")

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        return content_of(ctx, info)[0]


class Container(BuiltinHandler):
    """A container whose parts are stored one by one."""

    @classmethod
    def delete(cls, ctx: DumpContext, info: Info) -> None:
        """Delete the data of all parts."""
        try:
            parts = list(iter_parts(*content_of(ctx, info)))
        except DamagedEntryError:  # what it named is not known; verification finds the orphans
            return
        for part in parts:
            ctx.delete(part)

    @classmethod
    def __delete_info__(cls, ctx: DumpContext, **info: tp.Any) -> None:
        cls.delete(ctx, info)


class Auto(Container):
    """Containers: each part is stored by its own handler, what has none as a pickle."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        if type(value) not in (dict, list):
            return ctx.dump(value)
        content, walk = walked(ctx, lambda walk: walk(value, None))
        return stored(ctx, content, "Auto" if walk.special else "Json", walk.reserved)

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        return load_parts(ctx, info)


class AutoPickle(Auto):
    """`Auto` under the name that an earlier release gave to the variant that pickles what it does not know."""

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        content, reserved = content_of(ctx, info)
        if type(content) is dict and content.get("#type") == "Pickle":  # of the entries of its parts
            content, reserved = ctx.load(content), iter(())
        return unwrap(ctx, content, reserved)


registry.add_builtin(Json, exact=(str, int, float, bool, type(None)))
registry.add_builtin(Auto, exact=(dict, list))
registry.add_builtin(AutoPickle)
