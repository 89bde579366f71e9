"""Arguments that no configuration can hold as they are: a digest of what they hold takes their place."""

import ast
import collections
import collections.abc
import datetime
import enum
import functools
import pathlib
import re
import sys
import types
import typing as tp

import pydantic
import pydantic_core
from pydantic_core import core_schema

from ..errors import ContentError, ExportError, InfraError
from ..helpers import gone_through
from ..identity.export import exporter
from ..identity.fields import SCALARS, unwrapped
from .digest import digest

_is_written = re.compile(r"(.*)-xxh3\.([0-9a-f]{32}|ignored)", re.DOTALL).fullmatch
_LITERALS = frozenset((*SCALARS, tuple, list, dict, set, frozenset, bytes, complex))
_LONGEST_LITERAL = 60  # characters
# what a configuration holds as it is, so that it is never identified by its content
_PLAIN = (
    *(str, bytes, int, float, bool, enum.Enum, pathlib.PurePath),
    *(datetime.date, datetime.time, datetime.timedelta, pydantic.BaseModel),
)


class Content:
    """A value of which a configuration holds a digest only: ``<what it is>-xxh3.<digest>``.

    ``value`` is absent where it was made from a configuration that was read, as by `iter_cached`.
    """

    __slots__ = ("_text", "value")
    __hash__: tp.ClassVar[None] = None  # type: ignore[assignment] # what it holds may change

    def __init__(self, value: tp.Any, text: str | None = None) -> None:
        self.value: tp.Any = value
        self._text = text  # of one that is absent or does not count

    def written(self) -> str:
        """The text that stands for it, computed anew: an array may have been changed."""
        return self._text or f"{_label(self.value)}-xxh3.{digest(self.value)}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self.written() == other.written()

    def __copy__(self) -> "Content":
        return self

    def __deepcopy__(self, memo: dict[int, tp.Any]) -> "Content":
        return self  # an object that is a default may be compared by `is`

    def __repr__(self) -> str:
        return self.written()

    # asked by pydantic wherever a value of any type may be
    __pydantic_serializer__: tp.ClassVar[tp.Any] = None


Content.__pydantic_serializer__ = pydantic_core.SchemaSerializer(
    core_schema.any_schema(
        serialization=core_schema.plain_serializer_function_ser_schema(Content.written, when_used="always")
    )
)
_ABSENT: tp.Final = object()
# what tells a validator that the values are arguments, and not read from a configuration
CALLED: tp.Final = object()


def _label(value: tp.Any) -> str:
    """What a value is, for people."""
    kind = type(value).__qualname__
    if is_data(value):
        name = (
            kind
            if type(value).__module__.partition(".")[0] == "pandas"
            else str(value.dtype).rpartition(".")[2]
        )
        return f"{name}-{'x'.join(map(str, value.shape)) or 'scalar'}"[:80]
    if type(value) in _LITERALS:
        text = f"{value!r:.100}"
        if _from_literal(text, value) is not _ABSENT:
            return text
    return kind


def _from_literal(text: str, like: tp.Any = _ABSENT) -> tp.Any:
    if len(text) > _LONGEST_LITERAL:
        return _ABSENT
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _ABSENT
    return value if like is _ABSENT or (type(value) is type(like) and value == like) else _ABSENT


# ---------------------------------------------------------------- arguments into fields


class ContentValidator:
    """Validates one argument, and puts a `Content` in the place of what no configuration can hold.

    Parameters
    ----------
    where: the argument, for messages
    strict: also of what a configuration does not tell from something else (``1.0``, a tuple, a set): for a parameter
        without a type, which would make them the same
    counts: whether the argument is part of the uid; else it needs no digest
    """

    def __init__(self, where: str, *, strict: bool = False, counts: bool = True) -> None:
        self._where = where
        self._strict = strict
        self._counts = counts
        self.default: tp.Any = None  # where it is a Content

    def __call__(
        self, value: tp.Any, handler: tp.Callable[[tp.Any], tp.Any], info: pydantic.ValidationInfo
    ) -> tp.Any:
        """Validate a value, as pydantic asks for."""
        if type(value) is Content:
            return value
        if info.context is CALLED:
            return self.keep(gone_through(handler(value), value))
        read = self._restored(value)
        if type(read) is Content:
            return read
        try:
            return self.keep(gone_through(handler(value), value) if read is value else read)
        except pydantic.ValidationError:
            if read is value:
                raise
            return read

    def keep(self, value: tp.Any) -> tp.Any:
        """The value with a `Content` in the place of what no configuration can hold."""
        try:
            kept = self._kept(value)
            if (
                self._strict
                and type(kept) is not Content
                and kept == self.default
                and repr(kept) != repr(self.default)
            ):
                return self._content(value)  # True where 1 is the default: it would be left out like it
            return kept
        except RecursionError:
            raise self._refused(
                f"{type(value).__qualname__} that is nested too deeply, or holds itself"
            ) from None

    def _restored(self, value: tp.Any) -> tp.Any:
        if type(value) is str and _is_written(value) and value == _text_of(self.default):
            return self.default
        return restored(value)

    def _kept(self, value: tp.Any) -> tp.Any:
        kind = type(value)
        if kind in SCALARS:
            return self._content(value) if _is_lossy(value, self._strict) else value
        if kind is Content:
            return value
        if is_data(value) or isinstance(value, collections.abc.Iterator):  # of which no copy may be made
            return self._content(value)
        if kind is list or (kind is tuple and not self._strict):
            parts = [part if type(part) is int else self._kept(part) for part in value]
            return value if all(map(_is_one, parts, value)) else kind(parts)
        if kind is dict and all(type(key) is str and not (self._strict and "." in key) for key in value):
            fields = {key: self._kept(part) for key, part in value.items()}
            return value if all(map(_is_one, fields.values(), value.values())) else fields
        return value if not self._strict and _is_exportable(value) else self._content(value)

    def _content(self, value: tp.Any) -> Content:
        if not self._counts:
            return Content(value, f"{type(value).__module__}.{type(value).__qualname__}-xxh3.ignored")
        content = Content(value)
        if not is_data(value):  # which always have a digest
            try:
                digest(value)
            except ContentError as error:
                raise self._refused(str(error)) from error.__cause__
        return content

    def _refused(self, what: str) -> ContentError:
        return ContentError(
            f"{self._where} holds nothing by which a result could be found again: {what}. Give values (numbers, text, "
            "arrays, containers of them), or leave the parameter out of the address by ignore=(...)"
        )


def _text_of(value: tp.Any) -> str | None:
    return value.written() if type(value) is Content else None


def _is_one(part: tp.Any, other: tp.Any) -> bool:
    return part is other


def _is_lossy(value: tp.Any, strict: bool) -> bool:
    """Whether a configuration would read a scalar as something else: what looks like a digest; 1.0 as 1."""
    if type(value) is str:
        return _is_written(value) is not None
    return strict and type(value) is float and value.is_integer()


def _is_exportable(value: tp.Any) -> bool:
    try:
        exporter(True, True).value(value)
    except (ExportError, TypeError):
        return False
    return True


def is_data(value: tp.Any) -> bool:
    """Whether a value is an array, a table or a tensor."""
    return isinstance(value, _data_types(*(name in sys.modules for name in ("numpy", "pandas", "torch"))))


@functools.cache
def _data_types(numpy: bool, pandas: bool, torch: bool) -> tuple[type, ...]:
    found: list[type] = []
    if numpy:
        import numpy as np

        found += [np.ndarray]
    if pandas:
        import pandas as pd

        found += [pd.DataFrame, pd.Series, pd.Index]
    if torch:
        from torch import Tensor

        found += [Tensor]
    return tuple(found)


# ---------------------------------------------------------------- and back


def restored(value: tp.Any) -> tp.Any:
    """A part of a configuration that was read, with a `Content` for each text that stands for one."""
    if type(value) is str:
        return _read(value)
    if type(value) in (list, tuple):
        parts = [restored(part) for part in value]
        changed = any(type(part) is Content for part in value) or not all(map(_is_one, parts, value))
        return type(value)(parts) if changed else value
    if type(value) is dict:
        fields = {key: restored(part) for key, part in value.items()}
        changed = any(type(part) is Content for part in value.values())
        return fields if changed or not all(map(_is_one, fields.values(), value.values())) else value
    return value


def _read(text: str) -> tp.Any:
    match = _is_written(text)
    if match is None:
        return text
    value = _from_literal(match[1])
    if value is not _ABSENT and digest(value) == match[2]:
        return Content(value)
    return Content(_ABSENT, text)


def given(value: tp.Any, where: str) -> tp.Any:
    """The argument that a field stands for; a RuntimeError where only its digest is known."""
    kind = type(value)
    if kind is Content:
        if value.value is _ABSENT:
            raise InfraError(
                f"{where} is known by its digest only ({value}): the result that was kept can be read, but to compute "
                "it again, call the function with the value"
            )
        return value.value
    if kind in (list, tuple):
        return kind([given(part, where) for part in value]) if _holds_content(value) else value
    if kind is dict:
        return {key: given(part, where) for key, part in value.items()} if _holds_content(value) else value
    return value


def _holds_content(value: tp.Any) -> bool:
    if type(value) is dict:
        return any(map(_holds_content, value.values()))
    return type(value) is Content or (type(value) in (list, tuple) and any(map(_holds_content, value)))


def may_be_content(annotation: tp.Any) -> bool:
    """False only where no value of an annotation needs a digest."""
    annotation = unwrapped(annotation)
    origin, args = tp.get_origin(annotation), tp.get_args(annotation)
    if origin is tp.Annotated:
        return may_be_content(args[0])
    if origin is tp.Literal or annotation is None or annotation is type(None):
        return False
    if origin in (tp.Union, types.UnionType) or (
        isinstance(origin, type) and issubclass(origin, collections.abc.Collection) and args
    ):
        return any(may_be_content(arg) for arg in args if arg is not Ellipsis)
    return not (isinstance(annotation, type) and issubclass(annotation, _PLAIN))
