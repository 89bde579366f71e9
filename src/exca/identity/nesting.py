"""Nested configurations written with dotted keys: set, look up, remove, merge, patch.

Everything here works on plain containers. Functions that create levels take the class of a level
(``dict`` or a subclass of it, whose own ``__setitem__`` is not used), so that ``ConfDict`` and the
computation of uids share one meaning of a dotted key. An ``OrderedDict`` keeps its keys as they are.
"""

import typing as tp
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping


class Ops:
    """The strings that patch a configuration instead of setting a value."""

    REPLACE = "=replace="
    DELETE = "=delete="
    BEFORE = "=before="
    AFTER = "=after="


OPS = frozenset((Ops.REPLACE, Ops.DELETE, Ops.BEFORE, Ops.AFTER))
MOVES = (Ops.BEFORE, Ops.AFTER)
LEAVES = frozenset((str, int, float, bool, type(None)))

Level = type[dict[str, tp.Any]]


class OrderedItem(OrderedDict[str, tp.Any]):
    """An OrderedDict that is an item of a list in an exported configuration.

    Its order tells two configurations apart, but has never been part of the uid: they get folders of their own as any
    two that share one.
    """


def require_str(key: object) -> str:
    """The key; a TypeError if it is no str."""
    if not isinstance(key, str):
        raise TypeError(
            f"configuration keys must be str, got {key!r} ({type(key).__name__}): write it as a str"
        )
    return key


def is_op(value: object) -> bool:
    """Tell whether a value has the form of an operation, `=<anything in one line>=`."""
    return (
        isinstance(value, str)
        and len(value) > 2
        and value[0] == "="
        and value[-1] == "="
        and "\n" not in value
    )


def _check_op(value: object, allowed: str | frozenset[str]) -> None:
    if value in allowed if isinstance(allowed, frozenset) else value == allowed:
        return
    if value in OPS:
        raise ValueError(
            f"operation {value!r} cannot be used here: only '=delete=' is a value, the others are keys"
        )
    known = ", ".join(sorted(OPS))
    raise ValueError(f"unknown operation {value!r}: strings of the form '=<name>=' are kept for {known}")


def _write(level: MutableMapping[str, tp.Any], key: str, value: tp.Any) -> None:
    # a level's own __setitem__ would split and merge again; an OrderedDict needs its own, to keep its order
    if isinstance(level, dict) and not isinstance(level, OrderedDict):
        dict.__setitem__(level, key, value)
    else:
        level[key] = value


def _erase(level: MutableMapping[str, tp.Any], key: str) -> None:
    if isinstance(level, dict) and not isinstance(level, OrderedDict):
        dict.__delitem__(level, key)
    else:
        del level[key]


def _is_level(value: object) -> tp.TypeGuard[Mapping[str, tp.Any]]:
    return isinstance(value, Mapping) and not isinstance(value, OrderedDict)


def absorb(value: tp.Any, new: Level) -> tp.Any:
    """Copy a value with its containers, dotted keys split and mappings made levels of the class `new`.

    Raises: TypeError for a key that is no str, ValueError for an unknown operation.
    """
    kind = type(value)
    if kind in LEAVES:
        return value
    if isinstance(value, OrderedDict):
        ordered = OrderedItem if kind is OrderedItem else OrderedDict
        return ordered((require_str(key), absorb(sub, new)) for key, sub in value.items())
    if isinstance(value, Mapping):
        level = new()
        merge(level, value.items(), new)
        return level
    if isinstance(value, list):
        return [absorb(sub, new) for sub in value]
    if isinstance(value, tuple):
        parts = [absorb(sub, new) for sub in value]
        return kind(*parts) if hasattr(kind, "_fields") else tuple(parts)
    return value


def merge(level: MutableMapping[str, tp.Any], items: Iterable[tuple[str, tp.Any]], new: Level) -> None:
    """Set many (key, value) on a level, in order, each as `assign` does."""
    for key, value in items:
        assign(level, key, value, new)


def assign(level: MutableMapping[str, tp.Any], key: str, value: tp.Any, new: Level) -> None:
    """Set a dotted key: a mapping merges into what is there, operations are applied, the rest replaces.

    Numbers in the key index into lists and tuples. An operation whose target is not there (yet) is kept, for the
    configuration that this one will patch.
    Raises: TypeError for a key that does not fit the container, IndexError outside of a list,
    ValueError for an unknown or impossible operation.
    """
    if "." not in require_str(key) or (isinstance(level, OrderedDict) and key in level):
        _assign_here(level, key, value, new)
        return
    head, _, rest = key.partition(".")
    if rest in OPS and rest != Ops.DELETE:
        _assign_here(level, head, {rest: value}, new)
        return
    child = None
    if head in level:  # not get(), which would take a level's own meaning of a key
        child = level[head]
    if isinstance(child, (list, tuple)):
        _write(level, head, _assign_in_sequence(child, rest, value, new))
        return
    if not isinstance(child, MutableMapping):
        if head in OPS:
            raise ValueError(f"operation {head!r} cannot hold the key {rest!r}")
        child = new()
    assign(child, rest, value, new)
    _write(level, head, child)


def _assign_in_sequence(
    sequence: list[tp.Any] | tuple[tp.Any, ...], key: str, value: tp.Any, new: Level
) -> list[tp.Any] | tuple[tp.Any, ...]:
    head, _, rest = key.partition(".")
    if not (head.isascii() and head.isdigit()):
        raise TypeError(f"key {head!r} does not fit the list {sequence!r}: index it by a number from 0")
    index = int(head)
    if index >= len(sequence):
        raise IndexError(f"index {index} is outside of the list {sequence!r} of length {len(sequence)}")
    items = list(sequence)
    if not rest:
        items[index] = _new_item(value, head, new)
    elif isinstance(items[index], (list, tuple)):
        items[index] = _assign_in_sequence(items[index], rest, value, new)
    else:
        if not isinstance(items[index], MutableMapping):
            items[index] = new()
        assign(items[index], rest, value, new)
    if isinstance(sequence, list):
        sequence[:] = items
        return sequence
    return type(sequence)(*items) if hasattr(sequence, "_fields") else tuple(items)


def _new_item(value: tp.Any, index: str, new: Level) -> tp.Any:
    if isinstance(value, str) and value in OPS:
        raise TypeError(
            f"operation {value!r} does not fit item {index} of a list: give the whole list instead"
        )
    if _is_level(value) and any(op in value for op in (Ops.REPLACE, *MOVES)):
        if any(op in value for op in MOVES):
            raise TypeError(f"item {index} of a list cannot be moved: give the whole list instead")
        value = {key: sub for key, sub in value.items() if key != Ops.REPLACE}
    return absorb(value, new)


def _assign_here(level: MutableMapping[str, tp.Any], key: str, value: tp.Any, new: Level) -> None:
    if isinstance(value, str):
        if value[:1] == "=" and is_op(value):
            _check_op(value, Ops.DELETE)
            if key in level:
                _erase(level, key)
                return
        if key[:1] == "=" and is_op(key):
            _check_op(key, OPS)
        _write(level, key, value)
        return
    if key[:1] == "=" and is_op(key):
        _check_op(key, OPS)
        if key in MOVES:
            raise TypeError(f"{key!r} expects the name of a key beside it, got {value!r}")
    if not _is_level(value):
        _write(level, key, absorb(value, new))
        return
    _moves(key, value)
    _write(level, key, _merged(level, key, value, new))
    merged = level[key]
    # also one that an earlier patch left, whose neighbour came since
    moves = _moves(key, merged) if isinstance(merged, Mapping) else None
    if moves and moves[1] in level:
        _erase(level[key], moves[0])
        _move(level, key, *moves)


def _moves(key: str, value: Mapping[str, tp.Any]) -> tuple[str, str] | None:
    """Return the (operation, neighbour) in a patch for `key`, if there is one."""
    found = [(op, value[op]) for op in MOVES if op in value]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"patch for {key!r} has both '=before=' and '=after=': give one of them")
    op, anchor = found[0]
    if not isinstance(anchor, str):
        raise TypeError(f"{op!r} expects the name of a key beside {key!r}, got {anchor!r}")
    if anchor == key:
        raise ValueError(f"cannot move {key!r} {op.strip('=')} itself: name another key")
    return op, anchor


def _merged(level: MutableMapping[str, tp.Any], key: str, value: Mapping[str, tp.Any], new: Level) -> tp.Any:
    if key not in level:
        return absorb(value, new)
    old = level[key]
    if Ops.REPLACE in value and not (isinstance(old, Mapping) and old):
        # there is nothing to replace yet: the operation waits
        if isinstance(old, OrderedDict):
            old.update(absorb(value, new))
            return old
        return absorb(value, new)
    if Ops.REPLACE in value:
        replace = value[Ops.REPLACE]
        value = {sub: item for sub, item in value.items() if sub != Ops.REPLACE}
        if replace:
            old = OrderedDict() if isinstance(old, OrderedDict) else None
    if isinstance(old, (list, tuple)) and value and all(_is_index(sub, len(old)) for sub in value):
        return _merged_into_sequence(old, value, new)
    if not isinstance(old, MutableMapping):
        return absorb(value, new)
    merge(old, list(value.items()), new)
    return old


def _is_index(key: object, length: int) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdigit() and int(key) < length


def _merged_into_sequence(
    old: list[tp.Any] | tuple[tp.Any, ...], value: Mapping[str, tp.Any], new: Level
) -> list[tp.Any] | tuple[tp.Any, ...]:
    """Apply the nested form of a patch of items: `{"0": {"x": 1}}` as it comes from the key `l.0.x`."""
    for index, item in value.items():
        if _is_level(item) and Ops.REPLACE not in item and isinstance(old[int(index)], Mapping):
            for key, sub in item.items():
                old = _assign_in_sequence(old, f"{index}.{key}", sub, new)
        else:
            old = _assign_in_sequence(old, index, item, new)
    return old


def _move(level: MutableMapping[str, tp.Any], key: str, op: str, anchor: str) -> None:
    moved = level[key]
    items: list[tuple[str, tp.Any]] = []
    for name, value in level.items():
        if name == anchor:
            pair = [(key, moved), (name, value)]
            items += pair if op == Ops.BEFORE else reversed(pair)
        elif name != key:
            items.append((name, value))
    level.clear()
    for name, value in items:
        _write(level, name, value)


def drop_replacements(value: tp.Any) -> None:
    """Drop the replacements that still wait in a configuration, since nothing will come that they could replace."""
    if isinstance(value, MutableMapping):
        if Ops.REPLACE in value:
            _erase(value, Ops.REPLACE)
        for sub in value.values():
            drop_replacements(sub)
    elif isinstance(value, (list, tuple)):
        for sub in value:
            drop_replacements(sub)


def lookup(level: tp.Any, key: str) -> tp.Any:
    """Return what a dotted key holds.

    Raises: KeyError that names the key and the part that is not there, IndexError outside of a list.
    """
    if not isinstance(key, str):
        raise KeyError(f"{key!r} (configuration keys are str)")
    found, rest = level, key
    while True:
        if isinstance(found, OrderedDict) and rest in found:
            return found[rest]
        head, dot, rest = rest.partition(".")
        found = _step(found, head, key)
        if not dot:
            return found


def _step(container: tp.Any, part: str, key: str) -> tp.Any:
    if isinstance(container, dict):
        if part in container if isinstance(container, OrderedDict) else dict.__contains__(container, part):
            return dict.__getitem__(container, part)
        raise KeyError(
            key if part == key else f"{key} (there is no {part!r} beside {sorted(map(str, container))})"
        )
    if isinstance(container, (list, tuple)) and part.isascii() and part.isdigit():
        if int(part) >= len(container):
            raise IndexError(f"key {key!r}: index {part} is outside of a list of length {len(container)}")
        return container[int(part)]
    raise KeyError(f"{key} (there is no {part!r} in {container!r})")


def remove(level: tp.Any, key: str) -> tp.Any:
    """Remove a dotted key and return what it held; levels that become empty stay.

    Raises: KeyError when it is not there, TypeError for an item of a list.
    """
    value = lookup(level, key)
    container, rest = level, key
    while "." in rest and not (isinstance(container, OrderedDict) and rest in container):
        head, _, rest = rest.partition(".")
        container = _step(container, head, key)
    if not isinstance(container, MutableMapping):
        raise TypeError(f"cannot remove {key!r}, an item of a list: set the whole list instead")
    _erase(container, rest)
    return value


def flatten(value: tp.Any) -> tp.Any:
    """Return a mapping as one dict with dotted keys; mappings in lists become flat too, empty ones vanish."""
    if isinstance(value, Mapping):
        return dict(_leaves(value, ""))
    if isinstance(value, list):
        return [flatten(sub) for sub in value]
    if isinstance(value, tuple):
        return tuple([flatten(sub) for sub in value])
    return value


def _leaves(level: Mapping[str, tp.Any], prefix: str) -> Iterable[tuple[str, tp.Any]]:
    for key, value in level.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", flatten(value)
