"""Configurations as YAML text: what people read in the cache, written fast and always in the same bytes.

The text is what PyYAML writes for the folded configuration (block style, keys in the order given).
Ordinary configurations are written here without PyYAML, which takes about 20 us a value; whatever is
not plainly ordinary goes through it.
"""

import datetime
import enum
import functools
import re
import typing as tp
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from .nesting import LEAVES, NEVER_FOLDED, DottedKeyError, absorb, fold, folded_entry, is_ordered
from .uid import UidMaker

Config = Mapping[str, tp.Any] | Sequence[tp.Any]

# Strings that YAML writes as they are, whatever stands around them: too short to be wrapped, no space,
# no character with a meaning, and nothing that a reader of YAML 1.1 takes for a bool, a number or a date.
_is_plain = re.compile(r"[a-zA-Z_/][a-zA-Z0-9_/.\-]{0,100}").fullmatch
_is_quoted = re.compile(r"(?:0|[1-9][0-9]{0,30}|[0-9]{4}-[0-9]{2}-[0-9]{2}|)").fullmatch
# Strings that look the same wherever they stand: without spaces there is nowhere to break a line.
_has_no_break = re.compile(r"[!-~]{1,100}").fullmatch
_WORDS = frozenset(
    form
    for word in ("yes", "no", "on", "off", "true", "false", "null")
    for form in (word, word.capitalize(), word.upper())
)


class _UnusualError(Exception):
    """A value that PyYAML has to write."""


def to_text(config: Config) -> str:
    """Write a configuration as YAML.

    Parameters: `config` a mapping, nested or with dotted keys, or a list of them.
    Returns: the YAML text; levels with a single key are folded into dotted keys.
    Raises: TypeError for a value that has no YAML form.
    """
    try:
        return _document(config)
    except DottedKeyError:
        return _document(absorb(config, dict))


def to_nested_text(config: Config) -> str:
    """Write a configuration as YAML, with every level on lines of its own.

    Parameters: `config` a nested mapping, or a list of them.
    Returns: the YAML text.
    Raises: TypeError for a value that has no YAML form.
    """
    try:
        return _block(config, "", folded=False) if config else _scalar(config) + "\n"
    except _UnusualError:
        return _pyyaml_text(config)


def _document(config: Config) -> str:
    try:
        return _block(config, "") if config else _scalar(config) + "\n"
    except _UnusualError:
        return _pyyaml_text(fold(config))


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


def _scalar(value: tp.Any) -> str:
    kind = type(value)
    if kind is str:
        return _string(value)
    if value is None:
        return "null"
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is float and value - value == 0:  # neither infinite nor nan
        text = repr(value)
        return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text
    if kind is list and not value:
        return "[]"
    if isinstance(value, dict) and not value:
        return "{}"
    raise _UnusualError


@functools.lru_cache(maxsize=4096)
def _string(value: str) -> str:
    if _is_name(value):
        return value
    if _is_quoted(value):
        return f"'{value}'"
    if not _has_no_break(value):
        raise _UnusualError
    text = _pyyaml_text([value])
    if not (text.startswith("- ") and text.count("\n") == 1):
        raise _UnusualError
    return text[2:-1]


@functools.lru_cache(maxsize=4096)
def _is_name(text: str) -> bool:
    """Whether a text may stand as a key, and anywhere else, without quotes."""
    return _is_plain(text) is not None and text not in _WORDS


def _block(value: tp.Any, indent: str, folded: bool = True) -> str:
    """Write a filled dict or list; every line but the first begins with the indentation."""
    lines = []
    if isinstance(value, dict):
        ordered = is_ordered(value)
        for key, sub in value.items():
            if not folded:
                pass
            elif type(sub) not in NEVER_FOLDED:
                key, sub = folded_entry(value, key, sub)
            elif "." in key and not ordered:
                raise DottedKeyError(key)
            if not _is_name(key):
                raise _UnusualError
            if type(sub) in LEAVES or not _is_filled(sub):
                lines.append(f"{key}: {_scalar(sub)}\n")
            elif type(sub) is list:
                lines.append(f"{key}:\n{indent}{_block(sub, indent, folded)}")
            else:
                lines.append(f"{key}:\n{indent}  {_block(sub, indent + '  ', folded)}")
    elif type(value) is list:
        lines = [
            f"- {_block(sub, indent + '  ', folded)}" if _is_filled(sub) else f"- {_scalar(sub)}\n"
            for sub in value
        ]
    else:
        raise _UnusualError
    return indent.join(lines)


def _is_filled(value: tp.Any) -> bool:
    return (type(value) is list or isinstance(value, dict)) and bool(value)


def _pyyaml_text(folded: tp.Any) -> str:
    import yaml

    try:
        text: str = yaml.dump(_plain(folded), Dumper=_dumper(), sort_keys=False, default_flow_style=False)
    except yaml.representer.RepresenterError as error:
        value = error.args[1] if len(error.args) > 1 else folded
        raise TypeError(
            f"{value!r} of type {type(value).__qualname__} has no YAML form: use str, numbers, None, Path, enum, date, "
            "bytes, list, tuple, set or dict"
        ) from None
    return text


class _Set(dict[tp.Any, None]):
    """The items of a set, in the order to write them."""


def _uid_order(value: tp.Any) -> tuple[str, str]:
    maker = UidMaker(value)
    return maker.string, maker.hash


@functools.cache
def _dumper() -> type[tp.Any]:
    import yaml

    class Dumper(yaml.SafeDumper):
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
        # in an order that no hash seed changes
        return _Set.fromkeys(_plain(sub) for sub in sorted(value, key=_uid_order))
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
