"""Are two configurations the same one: ours in hand, and the one that YAML brought back."""

import enum
import json
import typing as tp
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath

from .nesting import absorb
from .uid import UidMaker

#: Callables `(key, new, old) -> bool` that allow a default to have changed under a cached result.
DEFAULT_CHECK_SKIPS: list[Callable[[str, tp.Any, tp.Any], bool]] = []

Config = Mapping[str, tp.Any] | Sequence[tp.Any]


def same(ours: tp.Any, theirs: tp.Any) -> bool:
    """Tell whether two nested configurations are the same one, whatever the order of their dicts.

    Parameters: `ours` in which an OrderedDict asks for its order; `theirs` as YAML brings it back, in plain dicts.
    """
    if isinstance(ours, Mapping):
        if not isinstance(theirs, Mapping) or len(ours) != len(theirs):
            return False
        if isinstance(ours, OrderedDict) and list(ours) != list(theirs):
            return False
        return all(key in theirs and same(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, (list, tuple)):
        if not isinstance(theirs, (list, tuple)) or len(ours) != len(theirs):
            return False
        return all(map(same, ours, theirs))
    return _same_leaf(_leaf(ours), _leaf(theirs))


def changes(new: tp.Any, old: tp.Any, key: str = "") -> Iterator[tuple[str, tp.Any, tp.Any]]:
    """Yield (dotted key, new value, old value) of what two nested configurations hold both, and differently.

    Fields that only one of them has are no change: code grows and shrinks around its results.
    """
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        if isinstance(new, OrderedDict) and [k for k in new if k in old] != [k for k in old if k in new]:
            yield key, new, old
            return
        for name, value in new.items():
            if name in old:
                yield from changes(value, old[name], f"{key}.{name}" if key else name)
    elif isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)) and len(new) == len(old):
        for index, (value, previous) in enumerate(zip(new, old, strict=True)):
            yield from changes(value, previous, f"{key}.{index}" if key else str(index))
    elif not same(new, old):
        yield key, new, old


def united(new: tp.Any, old: tp.Any) -> tp.Any:
    """Return `old` with the fields that only `new` has: everything that is known to hold."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        both = {key: united(new[key], value) if key in new else value for key, value in old.items()}
        return both | {key: value for key, value in new.items() if key not in old}
    if isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)) and len(new) == len(old):
        return list(map(united, new, old))
    return old


def ordered_like(ours: tp.Any, theirs: tp.Any) -> tp.Any:
    """Return `theirs` with OrderedDicts where `ours` has them, which YAML does not tell."""
    if isinstance(theirs, Mapping):
        like = ours if isinstance(ours, Mapping) else {}
        kind: type[dict[str, tp.Any]] = type(ours) if isinstance(ours, OrderedDict) else dict
        return kind((key, ordered_like(like.get(key), value)) for key, value in theirs.items())
    if isinstance(theirs, list):
        likes = list(ours) if isinstance(ours, (list, tuple)) else []
        likes += [None] * (len(theirs) - len(likes))
        return [ordered_like(like, value) for like, value in zip(likes, theirs, strict=False)]
    return theirs


def canonical(config: Config) -> bytes:
    """Return bytes that tell configurations apart, the same in every process and whatever the order of dicts."""
    return json.dumps(_tagged(absorb(config, dict)), separators=(",", ":")).encode()


def _tagged(value: tp.Any) -> tp.Any:
    if isinstance(value, OrderedDict):
        return {"ordered": [[key, _tagged(sub)] for key, sub in value.items()]}
    if isinstance(value, Mapping):
        return {"dict": sorted([key, _tagged(sub)] for key, sub in value.items())}
    if isinstance(value, (list, tuple)):
        return [_tagged(sub) for sub in value]
    leaf = _leaf(value)
    if isinstance(leaf, float) and leaf.is_integer():
        return int(leaf)
    return [_tagged(sub) for sub in leaf] if isinstance(leaf, list) else leaf


def _leaf(value: tp.Any) -> tp.Any:
    """Return a value in the form in which YAML and JSON know it."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return _leaf(value.value)
    if isinstance(value, (set, frozenset)):
        return sorted(map(_leaf, value), key=lambda item: UidMaker(item).hash)
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    maker = UidMaker(value)  # an array, or the TypeError that explains what is wrong
    return f"{maker.string} {maker.hash}"


def _same_leaf(ours: tp.Any, theirs: tp.Any) -> bool:
    if isinstance(ours, bool) is not isinstance(theirs, bool):
        return False
    return bool(ours == theirs) or (ours != ours and theirs != theirs)
