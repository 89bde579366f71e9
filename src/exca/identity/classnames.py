"""Which classes a configuration is of, where its address holds no more than their bare names.

Steps and other discriminated models are in a uid by the name of their class, and classes of a script are addressed as
``__main__``. A model in a field that is declared as Any or BaseModel is there by its fields alone: then the path of
the field takes the place of the bare name. ``classes.json``, beside the configuration, holds the whole names under
which results were computed: of a class of a script, the name of its file, never its folder. It is written when a result
is computed, and lists all names that were met; a cache without it is taken as it is.
"""

import contextlib
import sys
import types
import typing as tp
import weakref
from collections.abc import Iterable
from pathlib import PurePath

import orjson
import pydantic

from .. import _files
from .._log import logger
from .fields import class_has, is_discriminated
from .parts import model_fields, parts

if tp.TYPE_CHECKING:
    from .export import ValueExporter

FILE: tp.Final = "classes.json"
VERSION: tp.Final = 1
_SCRIPT: tp.Final = "__main__"

Names = dict[str, list[str]]  # whole names by bare names, or by paths of fields
# classes of modules whose objects hold no models, so that no names are noted for them
_plain: "weakref.WeakSet[type]" = weakref.WeakSet()


def names_in(values: "ValueExporter", obj: pydantic.BaseModel, **told: tp.Any) -> Names:
    """The whole names of the classes in an object that its uid holds by their bare names; `told` as for `parts`."""
    found: Names = {}
    kind = type(obj)
    if kind in _plain:
        return found
    may_hold = model_fields(kind) or kind.model_config.get("extra") == "allow"
    if not may_hold and kind.__module__ != _SCRIPT and not _is_bare(kind):
        _plain.add(kind)
    classes: dict[tuple[str, type], None] = {(kind.__name__, kind): None}
    for part in parts(values, obj, **told):
        cls = type(part.model)
        classes[cls.__name__, cls] = None
        if not part.declared.models and not _is_bare(cls) and not class_has(cls, "_infra_name"):
            # declared as Any or BaseModel: nothing tells the class
            field = ".".join(each for each in part.path.split(".") if not each.isdigit())
            classes[field, cls] = None
    for title, cls in classes:
        name = _name(cls) if title != cls.__name__ or cls.__module__ == _SCRIPT or _is_bare(cls) else None
        if name is not None:
            found.setdefault(title, []).append(name)
    return found


def united(several: Iterable[Names]) -> Names:
    """All names of several objects."""
    both: Names = {}
    for names in several:
        for bare, known in names.items():
            both[bare] = sorted({*both.get(bare, ()), *known})
    return both


def _is_bare(cls: type) -> bool:
    return is_discriminated(cls) and not class_has(cls, "_infra_name")


def _name(cls: type) -> str | None:
    """The whole name of a class; None where it is of a script that cannot be told, as in a notebook."""
    if cls.__module__ != _SCRIPT:
        return f"{cls.__module__}.{cls.__qualname__}"
    file = _file_of(cls)
    return None if file is None else f"{PurePath(file).name}:{cls.__qualname__}"


def _file_of(cls: type) -> str | None:
    """The file of a class of a script: a job has another one, and classes that are pickled by value with their code."""
    for value in list(vars(cls).values()):
        function = getattr(value, "__wrapped__", getattr(value, "__func__", value))
        if isinstance(function, types.FunctionType) and function.__module__ == _SCRIPT:
            file = function.__code__.co_filename
            return file if file.endswith(".py") and "ipykernel" not in file else None
    main = sys.modules.get(_SCRIPT)
    return getattr(main, "__file__", None) if getattr(main, cls.__qualname__, None) is cls else None


def read(place: str) -> Names | None:
    """The names in a folder, none where there is no file; None where a later release wrote it, or it is damaged."""
    try:
        content = orjson.loads(_files.read_file(f"{place}/{FILE}"))
        if content["version"] == VERSION:
            return {str(bare): [str(name) for name in known] for bare, known in content["classes"].items()}
        logger.debug("%s/%s is of version %s, which is not known here", place, FILE, content["version"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.debug("%s/%s holds no names of classes: %r", place, FILE, error)
    return None


class NotedNames:
    """The names of the classes of a configuration, on their way into its folder."""

    __slots__ = ("_find", "_written")

    def __init__(self, find: tp.Callable[[], Names]) -> None:
        self._find = find  # what takes a while, and only a folder that is written to needs
        self._written = False

    def write_into(self, draft: str) -> None:
        """Write the file into a folder that is being made."""
        self._written = True
        names = self._find()
        if names:
            _files.write_new(f"{draft}/{FILE}", _encoded(names), mode=_files.OWN)

    def add_to(self, place: str) -> None:
        """Add the names to those in a folder, whose results such classes are about to join."""
        names = {} if self._written else self._find()
        known = read(place) if names else None
        if known is None:
            return
        both = united((known, names))
        if both != known:
            with contextlib.suppress(OSError):  # a folder that only others can write to is as good
                _files.write_atomically(f"{place}/{FILE}", _encoded(both), mode=_files.OWN)


def _encoded(names: Names) -> bytes:
    return orjson.dumps({"version": VERSION, "classes": names}, option=orjson.OPT_INDENT_2) + b"\n"
