"""The digest of a method's code: of the code that runs, in the process that runs it.

It is found once in a process, and again only where what it was made of has changed in memory: a notebook's cell that
was run again, a module that was reloaded. Later processes find it by the status of the files (`usercache`).
"""

import contextlib
import functools
import os
import sys
import threading
import types
import typing as tp
from collections.abc import Iterable, Mapping

from .. import _perclass, _reloads
from .._log import logger
from . import usercache
from .digest import CodeDigest

if tp.TYPE_CHECKING:
    from .record import Content

_MISSING: tp.Final = object()
_LIVE = tuple[Mapping[str, tp.Any], str, tp.Any]


class _Known:
    """What was found in this process, and what must be as it was for it to hold.

    In a notebook, what changes between two cells may be a file, by which code in memory is replaced (``%autoreload``).
    """

    def __init__(
        self, code: CodeDigest, live: tuple[_LIVE, ...], files: tuple[tuple[str, str], ...] | None
    ) -> None:
        self.code: CodeDigest = code
        self.live: tuple[_LIVE, ...] = live  # values that must be in memory as they were
        # their status; None where what they hold is not what is in memory
        self.files: tuple[tuple[str, str], ...] | None = files
        self.cell: int = _cell()

    def holds(self) -> bool:
        for names, name, value in self.live:
            if names.get(name, _MISSING) is not value:
                return False
        if self.cell != (cell := _cell()):
            if self.files is None or not usercache.are_unchanged(self.files):
                return False
            self.cell = cell
        return True


def _cell() -> int:
    """Number of the cell that a notebook runs; 0 where there is none."""
    shell = _reloads.shell()
    return int(shell.execution_count) if shell is not None else 0


_KNOWN: tp.Final = "_exca_known_code"  # what is kept on a class


def digest_of(
    cls: type,
    function: tp.Any,
    *,
    extra_classes: Iterable[type] = (),
    roots: Iterable[str | os.PathLike[str]] = (),
    packages: Iterable[str] = (),
) -> CodeDigest:
    """Return the digest of the code that a method of a class reaches.

    Parameters
    ----------
    cls
        class of the object
    function
        the method, undecorated
    extra_classes
        classes of the models that the object holds: where a field may hold several, these count
    roots
        what belongs to the project, although it is installed: folders, and names of packages. By default, all that is
        not installed, and the package of the class
    packages
        names of installed packages whose versions are part of the digest

    Returns
    -------
    CodeDigest
        its text is empty where nothing can be told of the code: see its content for the reason
    """
    key = (function, frozenset(extra_classes), tuple(roots), tuple(packages))
    known: dict[tp.Any, _Known] = cls.__dict__.get(_KNOWN) or _perclass.kept(cls, _KNOWN)
    found = known.get(key)
    if found is None or not found.holds():
        try:
            found = _found(cls, *key)
        except Exception as e:  # of what odd classes and modules do when they are looked at
            from .computing import unknown

            logger.debug("There is no digest of %r", function, exc_info=True)
            found = _Known(unknown(function, e), (), ())
        known[key] = found
    return found.code


_parsing: tp.Final = threading.Lock()
_TRIES = 5


def _computed(computing: tp.Any, wanted: tuple[tp.Any, ...]) -> tp.Any:
    """Compute in one thread at a time: CPython up to 3.13 raises a SystemError where two make syntax trees at once."""
    with _parsing:
        for _ in range(_TRIES - 1):
            with contextlib.suppress(SystemError):  # another thread, of the user's, was at it too
                return computing.compute(*wanted)
        return computing.compute(*wanted)


def _found(
    cls: type, function: tp.Any, extra: frozenset[type], roots: tuple[tp.Any, ...], packages: tuple[str, ...]
) -> _Known:
    key = _key(cls, function, extra, roots, packages)
    kept = usercache.look_up(key) if key is not None else None
    if kept is not None:
        digest, name, files, loaded = kept
        load = functools.partial(_content_of, digest, cls, function, extra, roots, packages)
        return _Known(CodeDigest(digest, name, load), _specs(loaded), files)
    from . import computing

    reach, finder, content = _computed(computing, (cls, function, extra, roots, packages))
    digest = content.digest()
    read = [each for each in finder.modules.values() if each is not None]
    same = not any(each.problem or (each.may_differ and each.memory and each.changed) for each in read)
    if key is not None and same and reach.stable:
        computing.keep(key, digest, content, finder)
    noted = ((each.file, usercache.noted_status(each.status)) for each in read if each.file and each.status)
    code = CodeDigest(digest, content.method, content=content)
    live = (*reach.live, *_specs(each.name for each in read if each.by_value is None))
    return _Known(code, live, tuple(noted) if same else None)


def _content_of(digest: str, *wanted: tp.Any) -> "Content":
    """What a digest that another process found was made of."""
    from .record import Content

    data = usercache.content_of(digest)
    if data is not None:
        with contextlib.suppress(ValueError):
            return Content.decode(data, digest)
    from .computing import compute

    return compute(*wanted)[2]


# ---------------------------------------------------------------------------------------------- in this process


def _specs(names: Iterable[str]) -> tuple[_LIVE, ...]:
    """What changes when one of some modules is imported, imported again or reloaded."""
    live: list[_LIVE] = []
    for name in names:
        module = sys.modules.get(name, _MISSING)
        live.append((sys.modules, name, module))
        if isinstance(module, types.ModuleType):
            live.append((vars(module), "__spec__", getattr(module, "__spec__", _MISSING)))
    return tuple(live)


# -------------------------------------------------------------------------------------------- in later processes


def _key(
    cls: type, function: tp.Any, extra: frozenset[type], roots: tuple[tp.Any, ...], packages: tuple[str, ...]
) -> str | None:
    """Name of the entry of a method; None where it can't be found again by files."""
    import hashlib

    from .. import __version__

    code = getattr(function, "__code__", None)
    if code is None:
        return None
    words = ["1", __version__, sys.version, code.co_qualname, str(code.co_firstlineno), code.co_filename]
    for each in (*cls.__mro__, None, *sorted(extra, key=_name)):
        if each is None:
            words.append("extra")
            continue
        if each.__module__ not in ("builtins", "pydantic.main") and not _is_found_by_name(each):
            return None
        words.append(_name(each))
    words += ["roots", *map(os.path.abspath, roots), *map(str, roots), "packages", *packages]
    words += ["path", *map(str, sys.path), os.getcwd() if "" in sys.path else ""]
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _is_found_by_name(cls: type) -> bool:
    """Whether a class is the one that its module, read from a file, has under its name."""
    module = sys.modules.get(cls.__module__)
    if getattr(module, "__file__", None) is None:
        return module is not None and cls.__module__ in sys.stdlib_module_names
    if "[" in cls.__qualname__:  # a parametrised model, whose origin is among the bases
        return True
    value: tp.Any = module
    for name in cls.__qualname__.split("."):
        value = getattr(value, "__dict__", {}).get(name)
    return value is cls
