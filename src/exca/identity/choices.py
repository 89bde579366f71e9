"""The classes of a hierarchy, by name."""

import gc
import inspect
import itertools
import typing as tp
import weakref

# every class is numbered when it is defined: a table made before the last one is out of date
_numbers: tp.Final = itertools.count(1)
_last = [0]
_tables: weakref.WeakKeyDictionary[type, tuple[int, dict[str, list[weakref.ref[type]]]]] = (
    weakref.WeakKeyDictionary()
)


class AmbiguousNameError(LookupError):
    """Several classes of one hierarchy bear the name."""


def note_definition(cls: type) -> None:
    """Makes a new class known."""
    number = next(_numbers)
    type.__setattr__(cls, "_exca_definition", number)
    _last[0] = number


def choices(base: type) -> list[str]:
    """Returns the names that can be chosen for a class: its own and those of all that derive from it, if concrete."""
    names = {cls.__name__ for cls in _family(base) if not inspect.isabstract(cls)}
    return sorted(names)


def by_name(base: type) -> dict[str, type]:
    """Returns a class and all that derive from it, by name; of several with one name the last definition."""
    found = {
        name: [cls for cls in (ref() for ref in refs) if cls is not None]
        for name, refs in _table(base).items()
    }
    return {name: classes[-1] for name, classes in found.items() if classes}


def find(base: type, name: object) -> type | None:
    """Returns the class of a name among a class and all that derive from it.

    Of several definitions in one place (a notebook's cell run again) the last one counts.

    Raises
    ------
    AmbiguousNameError: if classes of different places bear the name
    """
    if not isinstance(name, str):
        return None
    found = _named(base, name)
    if len(found) > 1:
        gc.collect()  # a class made inside a function outlives it until then
        found = _named(base, name)
    if len(found) > 1:
        places = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
        raise AmbiguousNameError(f"several classes bear the name {name!r}: {places}")
    return found[0] if found else None


def _named(base: type, name: str) -> list[type]:
    """Returns the last definition of each place."""
    by_place: dict[tuple[str, str], type] = {}
    for ref in _table(base).get(name, ()):
        cls = ref()
        if cls is not None:
            by_place[cls.__module__, cls.__qualname__] = cls
    return list(by_place.values())


def _table(base: type) -> dict[str, list[weakref.ref[type]]]:
    count, table = _tables.get(base, (-1, {}))
    if count != _last[0]:
        count, table = _last[0], {}
        for cls in _family(base):
            table.setdefault(cls.__name__, []).append(weakref.ref(cls))
        _tables[base] = count, table
    return table


def _family(base: type) -> list[type]:
    """Returns a class and all that derive from it, in the order of definition."""
    family = {base}
    waiting = [base]
    while waiting:
        kinds: list[type] = waiting.pop().__subclasses__()
        for cls in kinds:
            if cls not in family:
                family.add(cls)
                waiting.append(cls)
    return sorted(family, key=lambda cls: cls.__dict__.get("_exca_definition", 0))
