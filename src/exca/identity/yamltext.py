"""Configurations as YAML text: what people read in the cache, always in the same bytes.

The text is what PyYAML writes for the folded configuration (block style, keys in the order given). What needs no
thought about quotes and line breaks is laid out here: three texts of a new task take 30 us, which libyaml would
write in 340 us, a third of the time of a first task, and no new process has to import PyYAML (10 ms). The rest
goes through libyaml, and where that breaks lines differently, through PyYAML.
"""

import contextlib
import datetime
import enum
import functools
import re
import typing as tp
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath

from .nesting import absorb
from .uid import NEVER_FOLDED, DottedKeyError, UidMaker, fold, folded_entry, is_ordered

Config = Mapping[str, tp.Any] | Sequence[tp.Any]

# Strings that YAML writes as they are, whatever is around them: too short to be wrapped, no space,
# no character with a meaning, and nothing that a reader of YAML 1.1 takes for a bool, a number or a date.
_is_plain = re.compile(r"[a-zA-Z_/][a-zA-Z0-9_/.\-]{0,100}").fullmatch
# Strings that it puts in quotes: numbers, dates, and what begins with a character that has a meaning there.
_is_quoted = re.compile(r"0|[1-9][0-9]{0,30}|[0-9]{4}-[0-9]{2}-[0-9]{2}|[{\[%@][!-&(-~]{0,100}|").fullmatch
_WORDS = frozenset(
    form
    for word in ("yes", "no", "on", "off", "true", "false", "null")
    for form in (word, word.capitalize(), word.upper())
)
_WIDTH = 78  # characters, below those from which on lines are broken


class _UnusualError(Exception):
    """A value that libyaml has to write."""


def to_text(config: Config) -> str:
    """A mapping, nested or with dotted keys, or a list of them as YAML; levels with a single key are folded.

    Raises: TypeError for a value that has no YAML form.
    """
    try:
        return _document(config, folded=True)
    except DottedKeyError:
        return _document(absorb(config, dict), folded=True)


def to_nested_text(config: Config) -> str:
    """A nested mapping, or a list of them, as YAML with every level on lines of its own.

    Raises: TypeError for a value that has no YAML form.
    """
    return _document(config, folded=False)


def from_text(text: str | bytes) -> tp.Any:
    """Read YAML text (safe types only).

    Raises: yaml.YAMLError when it is no YAML.
    """
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except yaml.YAMLError:
        # libyaml refuses some texts that PyYAML itself writes, such as a lone surrogate
        return yaml.load(text, Loader=yaml.SafeLoader)


def _document(config: Config, *, folded: bool) -> str:
    try:
        return _block(config, "", folded) if config else f"{_empty(config)}\n"
    except _UnusualError:
        return _yaml_text(fold(config) if folded else config)


def _block(value: tp.Any, indent: str, folded: bool) -> str:
    """Write a filled dict or list; every line but the first begins with the indentation."""
    if type(value) is list:
        return indent.join([f"-{_entry(sub, ' ', indent + '  ', folded)}" for sub in value])
    if not isinstance(value, dict):
        raise _UnusualError
    lines = []
    ordered = folded and is_ordered(value)
    for key, sub in value.items():
        if folded:
            if type(sub) not in NEVER_FOLDED:
                key, sub = folded_entry(value, key, sub, ordered)
            elif "." in key and not ordered:
                raise DottedKeyError(key)
        write = _SCALARS.get(type(sub))
        if write is not None:
            lines.append(f"{_name(key)}: {write(sub)}\n")
        else:
            below = indent if type(sub) is list else indent + "  "
            lines.append(f"{_name(key)}:" + _entry(sub, f"\n{below}", below, folded))
    return indent.join(lines)


def _entry(value: tp.Any, start: str, indent: str, folded: bool) -> str:
    write = _SCALARS.get(type(value))
    if write is not None or not value:
        return f" {(write or _empty)(value)}\n"
    return f"{start}{_block(value, indent, folded)}"


def _empty(value: tp.Any) -> str:
    if type(value) is not list and not isinstance(value, dict):
        raise _UnusualError
    return "[]" if type(value) is list else "{}"


@functools.lru_cache(maxsize=4096)
def _name(text: str) -> str:
    """A text that may stand as a key, and anywhere else, without quotes."""
    if not _is_plain(text) or text in _WORDS:
        raise _UnusualError
    return text


@functools.lru_cache(maxsize=4096)
def _string(text: str) -> str:
    return f"'{text}'" if _is_quoted(text) else _name(text)


def _float(value: float) -> str:
    if value - value != 0:  # infinite or nan
        raise _UnusualError
    text = repr(value)
    return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text


_SCALARS: tp.Final[dict[type, Callable[[tp.Any], str]]] = {
    str: _string,
    int: str,
    float: _float,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}


# ---------------------------------------------------------------- by libyaml


def _yaml_text(folded: tp.Any) -> str:
    import yaml

    plain = _plain(folded)
    how: dict[str, tp.Any] = {"sort_keys": False, "default_flow_style": False}
    try:
        if hasattr(yaml, "CSafeDumper"):
            with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate, which libyaml does not write
                text: str = yaml.dump(plain, Dumper=_dumper(yaml.CSafeDumper), **how)
                if not _may_differ(text):
                    return text
        return tp.cast(str, yaml.dump(plain, Dumper=_dumper(yaml.SafeDumper), **how))
    except yaml.representer.RepresenterError as error:
        value = error.args[1] if len(error.args) > 1 else folded
        raise TypeError(
            f"{value!r} of type {type(value).__qualname__} has no YAML form: use str, numbers, None, Path, enum, date, "
            "bytes, list, tuple, set or dict"
        ) from None


def _may_differ(text: str) -> bool:
    """Whether PyYAML may write otherwise what libyaml wrote: an empty key, and where breaks are in double quotes."""
    return "'':" in text or ('"' in text and ("? " in text or max(map(len, text.split("\n"))) > _WIDTH))


class _Set(dict[tp.Any, None]):
    """The items of a set, in the order to write them."""


@functools.cache
def _dumper(base: tp.Any) -> type[tp.Any]:
    class Dumper(base):  # type: ignore[misc]  # the class is only known here
        def ignore_aliases(self, data: tp.Any) -> bool:
            return True  # an object used twice is written twice

    Dumper.add_representer(_Set, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:set", data))
    return Dumper


def _plain(value: tp.Any) -> tp.Any:
    """Convert to the types that PyYAML writes."""
    if value is None or type(value) in (str, bool, int, float, bytes):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {key: _plain(sub) for key, sub in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(sub) for sub in value]
    if isinstance(value, (set, frozenset)):
        makers = [(UidMaker(sub), sub) for sub in value]  # in an order that no hash seed changes
        makers.sort(key=lambda made: (made[0].string, made[0].hash))
        return _Set.fromkeys(_plain(sub) for _, sub in makers)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value
    item = getattr(value, "item", None)  # a number or bool of numpy's
    if item is not None and getattr(value, "shape", None) == ():
        return _plain(item())
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value
