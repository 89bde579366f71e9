"""The text of a uid: readable, short, and the same in every process and every Python version."""

import datetime
import decimal
import enum
import hashlib
import numbers
import re
import reprlib
import sys
import typing as tp
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import PurePath

from .nesting import LEAVES, OPS, OrderedItem, absorb, require_str

MAX_TEXT = 128  # characters of the readable text of one value, before its brackets

_is_safe = re.compile(r"[a-zA-Z0-9{}\-=,_.()]*").fullmatch
_drop_unsafe = re.compile(r"[^a-zA-Z0-9{}\-=,_.()]+").sub
_DASHES = str.maketrans(dict.fromkeys("/\\\n\t ", "-"))
# what a value or a key of the form "=...=" looks like in a hash text; false alarms only cost a second look
_looks_like_op = re.compile(r"[:{,.]=[^=]+=").search

NEVER_FOLDED: frozenset[object] = LEAVES | {list, tuple}
# how keys are treated: as they are; nested, so that a dotted one is refused; nested, and single keys folded
AS_IS, NEST, FOLD = 0, 1, 2

# the readable text, the text to hash, and the brackets around both
_Pair = tuple[str, str]
_Entry = tuple[int, str, str, str]  # what a dict is sorted by, a key, and the text and hash text of its value
_Made = dict[tuple[str, int], tuple[_Entry, tp.Any]]  # entries with their values, by key and id of the value


class UidMaker:
    """Makes the uid of a value.

    Parameters
    ----------
    data: the value: bool, int, float, str, None, Path, enum, date, time, list, tuple, set, mapping with
        str keys, numpy array or torch tensor, nested in any way.
    version: deprecated, below 3 for the text that the first releases wrote

    Attributes
    ----------
    string: the readable text, in which characters that do not fit a file name are replaced or dropped
    hash: the text whose md5 tells values apart

    Raises
    ------
    TypeError: a value of another type, or a key that is no str
    """

    __slots__ = ("_brackets", "_earlier", "hash", "string")

    string: str
    hash: str
    _earlier: str  # the whole uid, where an earlier version was asked for

    def __init__(self, data: tp.Any, version: int | None = None) -> None:
        if version is not None:
            self._write_earlier(data, version)
            return
        self.string, self.hash = _pair(data, AS_IS)
        # only a container carries brackets of ours, a str may begin with a bracket of its own
        self._brackets: bool | None = self.hash.startswith(("seq:", "dict:"))

    def format(self) -> str:
        """Return the uid: the text without its outer brackets, a dash, and 8 hex digits of the md5 of the hash text."""
        if self._brackets is None:
            return self._earlier
        return _format(self.string[1:-1] if self._brackets else self.string, self.hash)

    def _write_earlier(self, data: tp.Any, version: int) -> None:
        from ..kept import earlier_uids

        earlier_uids.warn_of_version("UidMaker", stacklevel=4)
        if version >= earlier_uids.CURRENT:
            self.__init__(data)  # type: ignore[misc]  # the same object, with the current version
            return
        self.string, self.hash = earlier_uids.pair(data)
        self._earlier = earlier_uids.uid(data)
        self._brackets = None

    def __repr__(self) -> str:
        return f"UidMaker(string={self.string!r}, hash={self.hash!r})"


def uid_text(config: Mapping[str, tp.Any], made: _Made | None = None) -> str:
    """The uid of a configuration, nested or with dotted keys, as `ConfDict(config).to_uid()`; "" for an empty one.

    Parameters: `made`, one dict for several configurations that share values, which must not change between the calls:
    what was written for a value is used again.

    Raises: TypeError for a value or key of an unknown type, ValueError for an operation that was not applied.
    """
    if not config:
        return ""
    # the outermost level is a dict whatever it was given as: only inner OrderedDicts have an order
    top = dict(config) if isinstance(config, OrderedDict) else config
    try:
        text, hashed = _dict(top, FOLD, made)
    except DottedKeyError:
        text, hashed = _dict(absorb(top, dict), FOLD)
    if _looks_like_op(hashed):
        _refuse_ops(absorb(top, dict))
    return _format(text[1:-1], hashed)


def _format(text: str, hashed: str) -> str:
    digest = hashlib.md5(hashed.encode("utf-8", "surrogatepass"), usedforsecurity=False)
    return f"{text}-{digest.hexdigest()[:8]}"


def _refuse_ops(value: tp.Any) -> None:
    if isinstance(value, str):
        if value in OPS:
            raise ValueError(
                f"operation {value!r} was not applied: its target is missing, there is no uid yet"
            )
    elif isinstance(value, Mapping):
        for key, sub in value.items():
            _refuse_ops(key)
            _refuse_ops(sub)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for sub in value:
            _refuse_ops(sub)


def _clean(text: str) -> str:
    if not _is_safe(text):
        text = _drop_unsafe("", text.translate(_DASHES))
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}...{len(text) - MAX_TEXT}"


def _str(value: str, mode: int = AS_IS) -> _Pair:
    return _clean(value), f"str:{value}"


def _int(value: tp.Any, mode: int = AS_IS) -> _Pair:
    text = str(value)
    return _cut(text), f"int:{text}"


def _float(value: tp.Any, mode: int = AS_IS) -> _Pair:
    if value != value:  # hash(nan) differs from one nan to the next
        return "nan", "float:nan"
    number = float(value)
    exact = isinstance(value, (decimal.Decimal, numbers.Rational))  # these never counted as int
    if not exact and number not in (float("inf"), float("-inf")) and value == int(value):
        return _int(int(value))
    text = f"{number:.2f}" if 1e-3 <= abs(number) < 1e4 else f"{number:.2e}"
    return _clean(text), f"float:{hash(value)}"


def _seq(value: tp.Iterable[tp.Any], mode: int) -> _Pair:
    return _bracketed([_pair(item, mode) for item in value])


def _tuple(value: tuple[tp.Any, ...], mode: int) -> _Pair:
    # configurations come with lists: what is in a tuple was never folded, and uids hold for ever
    return _seq(value, NEST if mode else AS_IS)


def _set(value: tp.Iterable[tp.Any], mode: int) -> _Pair:
    return _bracketed(sorted([_pair(item, mode) for item in value]))


def _bracketed(pairs: list[_Pair]) -> _Pair:
    # the items' texts are clean already, and so are the commas between them
    text = _cut(",".join([pair[0] for pair in pairs]))
    return f"({text})", "seq:(" + ",".join([pair[1] for pair in pairs]) + ")"


def _dict(value: Mapping[str, tp.Any], mode: int, made: _Made | None = None) -> _Pair:
    ordered = is_ordered(value)
    entries: list[_Entry] = []
    for key, item in value.items():
        given_key, given = key, item
        if made and (known := made.get((key, id(item)))) is not None:
            entries.append(known[0])
            continue
        if not isinstance(key, str):
            raise TypeError(
                f"key {key!r} ({type(key).__name__}) has no uid: keys must be str, convert it first"
            )
        if mode:
            if mode == FOLD and type(item) not in NEVER_FOLDED:
                key, item = folded_entry(value, key, item, ordered)
            elif "." in key and not ordered:
                raise DottedKeyError(key)
        maker = _MAKERS.get(type(item))
        text, hashed = maker(item, mode) if maker is not None else _other_pair(item, mode)
        entries.append((len(text) + len(key), key, text, hashed))
        if made is not None:
            made[given_key, id(given)] = entries[-1], given  # kept, so that no other object gets its id
    if not ordered:
        entries.sort()
    text = _clean(",".join([f"{key}={text}" for _, key, text, _ in entries]))
    return f"{{{text}}}", "dict:{" + ",".join([f"{key}={hashed}" for _, key, _, hashed in entries]) + "}"


def _array(value: tp.Any, mode: int = AS_IS) -> _Pair:
    import numpy as np

    if value.dtype.hasobject:
        raise TypeError(
            f"array of dtype {value.dtype} has no uid: it holds addresses, convert it to numbers or a list"
        )
    array = np.ascontiguousarray(value)
    data: tp.Any = array.reshape(-1).view(np.uint8) if array.nbytes else b""
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()[:8]
    text = f"{','.join(map(str, array.shape))}-{digest}"
    return f"data-{text}", f"array:{text}"


def _tensor(value: tp.Any, mode: int = AS_IS) -> _Pair:
    import torch

    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype is torch.bfloat16:  # numpy has no such type: the same bytes under another name
        tensor = tensor.view(torch.int16)
    return _array(tensor.numpy())


def _date(value: tp.Any, mode: int = AS_IS) -> _Pair:
    if isinstance(value, datetime.timedelta):
        import pydantic_core

        return _str(tp.cast(str, pydantic_core.to_jsonable_python(value)))
    text: str = value.isoformat()
    return _str(text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text)


_Maker = Callable[[tp.Any, int], _Pair]
# exact types first: one look-up decides for nearly every value
_MAKERS: dict[type, _Maker] = {
    str: _str,
    bool: _int,
    int: _int,
    type(None): _int,
    float: _float,
    list: _seq,
    tuple: _tuple,
    set: _set,
    frozenset: _set,
    dict: _dict,
    OrderedDict: _dict,
}
# then what derives from them, in this order: many enums are a str or an int as well, a datetime is a date
_BASES: tuple[tuple[tp.Any, _Maker], ...] = (
    (enum.Enum, lambda value, mode: _str(str(value)) if isinstance(value, str) else _pair(value.value, mode)),
    (Mapping, _dict),
    ((datetime.date, datetime.time, datetime.timedelta), _date),
    (PurePath, lambda value, mode: _str(str(value))),
    (str, lambda value, mode: _str(str.__str__(value))),
    (list, _seq),
    (tuple, _tuple),
    ((set, frozenset), _set),
    (numbers.Integral, lambda value, mode: _int(int(value))),
    ((numbers.Real, decimal.Decimal), _float),
)


def _pair(value: tp.Any, mode: int) -> _Pair:
    maker = _MAKERS.get(type(value))
    return maker(value, mode) if maker is not None else _other_pair(value, mode)


def _other_pair(value: tp.Any, mode: int) -> _Pair:
    maker = next((maker for kind, maker in _BASES if isinstance(value, kind)), None) or _foreign_maker(value)
    if maker is None:
        raise TypeError(
            f"{reprlib.repr(value)} of type {type(value).__module__}.{type(value).__qualname__} has no uid: "
            "use str, numbers, None, Path, enum, date, list, tuple, set, dict or array, or convert it to one of them"
        )
    if isinstance(value, dict):
        _MAKERS[type(value)] = maker  # a ConfDict comes often
    return maker(value, mode)


def _foreign_maker(value: tp.Any) -> _Maker | None:
    """Return the maker for what numpy or torch made, which are never imported for the question alone."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _array
    if numpy is not None and isinstance(value, numpy.bool_):
        return lambda flag, mode: _int(bool(flag))
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor
    return None


# ---------------------------------------------------------------- folding, for uids and YAML


class DottedKeyError(ValueError):
    """A key still holds a dot: the configuration must be nested first."""


def is_ordered(level: object) -> bool:
    """Whether the order of a level's keys is part of the uid, and dots in them are no levels."""
    kind = type(level)
    return kind is not dict and kind is not OrderedItem and isinstance(level, OrderedDict)


def fold(value: tp.Any) -> tp.Any:
    """Fold every level with a single key into its parent (`a: {b: 1}` becomes `a.b: 1`), except an OrderedDict.

    What is in a tuple stays as it is. Raises: DottedKeyError for a dotted key (nest it with `absorb` first).
    """
    if type(value) in LEAVES:
        return value
    if isinstance(value, Mapping):
        ordered = is_ordered(value)
        entries = [folded_entry(value, key, sub, ordered) for key, sub in value.items()]
        kind: type[dict[str, tp.Any]] = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((key, fold(sub)) for key, sub in entries)
    if isinstance(value, list):
        return [fold(sub) for sub in value]
    return value


def folded_entry(level: Mapping[str, tp.Any], key: str, value: tp.Any, ordered: bool) -> tuple[str, tp.Any]:
    """The key and value under which an entry of a level is written, levels of a single key folded."""
    if type(key) is not str:
        require_str(key)
    if "." in key and not ordered:
        raise DottedKeyError(key)
    path, inner = key, value
    while isinstance(inner, dict) and len(inner) == 1 and not isinstance(inner, OrderedDict):
        ((name, inner),) = inner.items()
        if type(name) is not str:
            require_str(name)
        if "." in name:
            raise DottedKeyError(name)
        path = f"{path}.{name}"
    # keys of an OrderedDict may hold dots of their own: never let two of them meet
    return (key, value) if ordered and path != key and path in level else (path, inner)
