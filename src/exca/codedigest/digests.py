"""The digest of a method's code: of the code that runs, in the process that runs it.

It is found once in a process, and again only where what it was made of has changed in memory: a notebook's cell that
was run again, a module that was reloaded. Later processes find it by the status of the files (`usercache`).
"""

import functools
import os
import sys
import typing as tp
import weakref
from collections.abc import Iterable, Mapping

from . import usercache
from .record import CodeDigest, Content

if tp.TYPE_CHECKING:
    from .modules import Finder, SourceModule
    from .reach import Reach

_MISSING: tp.Final = object()
_LIVE = tuple[Mapping[str, tp.Any], str, tp.Any]


class _Known:
    """What was found in this process, and what must be as it was for it to hold.

    In a notebook, what changes between two cells may be a file, by which code in memory is replaced (``%autoreload``).

    Attributes
    ----------
    code
        the digest
    live
        values that must be in memory as they were
    files
        the status of the files; None where what they hold is not what is in memory
    cell
        number of the notebook's cell
    """

    __slots__ = ("cell", "code", "files", "live")

    def __init__(
        self, code: CodeDigest, live: tuple[_LIVE, ...], files: tuple[tuple[str, str], ...] | None
    ) -> None:
        self.code: CodeDigest = code
        self.live: tuple[_LIVE, ...] = live
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
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return 0
    shell = ipython.get_ipython()
    return int(shell.execution_count) if shell is not None else 0


_known: "weakref.WeakKeyDictionary[type, dict[tp.Any, _Known]]" = weakref.WeakKeyDictionary()


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
    """
    key = (function, frozenset(extra_classes), tuple(roots), tuple(packages))
    known = _known.get(cls)
    if known is None:
        known = _known[cls] = {}
    found = known.get(key)
    if found is None or not found.holds():
        found = known[key] = _found(cls, function, key[1], key[2], key[3])
    return found.code


def _found(
    cls: type, function: tp.Any, extra: frozenset[type], roots: tuple[tp.Any, ...], packages: tuple[str, ...]
) -> _Known:
    key = _key(cls, function, extra, roots, packages)
    kept = usercache.look_up(key) if key is not None else None
    if kept is not None:
        load = functools.partial(_content, kept.digest, cls, function, extra, roots, packages)
        return _Known(CodeDigest(kept.digest, kept.method, load), _modules_of(cls), kept.files)
    reach, finder, content = compute(cls, function, extra, roots, packages)
    digest = content.digest()
    read = [each for each in finder.modules.values() if each is not None]
    same = not any(each.problem or (each.may_differ and each.loaded and each.changed) for each in read)
    if key is not None and same and reach.stable and not finder.missing:
        _keep(key, digest, content, read)
    noted = ((each.file, usercache.noted_status(each.status)) for each in read if each.file and each.status)
    code = CodeDigest(digest, content.method, content=content)
    return _Known(code, (*reach.live, *_specs(read)), tuple(noted) if same else None)


def compute(
    cls: type, function: tp.Any, extra: Iterable[type], roots: Iterable[tp.Any], packages: Iterable[str]
) -> "tuple[Reach, Finder, Content]":
    """Find the digest, whatever is known already."""
    from .modules import Finder
    from .normal import SCHEME, digest
    from .reach import Reach

    finder = Finder(cls.__module__, roots)
    reach = Reach(cls, extra, finder)
    method = reach.run(cls, function)
    parts: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name, found in reach.parts.items():
        ordered = sorted(found)
        whole = "\n".join(each.digest for each in ordered)
        prefix = next((each.digest.partition("-")[0] + "-" for each in ordered if "-" in each.digest), "")
        parts[name] = ordered[0].digest if len(ordered) == 1 else prefix + digest(whole)
        sources[name] = "\n".join(each.text for each in ordered)
    compared = sorted(set(packages))
    unresolved = {name: sorted(reasons) for name, reasons in sorted(reach.unresolved.items())}
    versions = _versions({*finder.installed, *_imported(finder), *compared})
    return reach, finder, Content(SCHEME, method, parts, sources, unresolved, versions, compared)


def _content(digest: str, *wanted: tp.Any) -> Content:
    """What a digest that another process found was made of."""
    data = usercache.content_of(digest)
    if data is not None:
        try:
            return Content.decode(data, digest)
        except ValueError:
            pass
    return compute(*wanted)[2]


# ---------------------------------------------------------------------------------------------- in this process


def _modules_of(cls: type) -> tuple[_LIVE, ...]:
    loaded = {each.__module__: sys.modules.get(each.__module__) for each in cls.__mro__}
    return tuple(
        each for name, module in loaded.items() if module is not None for each in _spec(name, module)
    )


def _specs(read: "Iterable[SourceModule]") -> tuple[_LIVE, ...]:
    loaded = [(module.name, module.loaded) for module in read]
    return tuple(each for name, module in loaded if module is not None for each in _spec(name, module))


def _spec(name: str, module: tp.Any) -> tuple[_LIVE, ...]:
    """What changes when a module is imported again, or reloaded."""
    return (sys.modules, name, module), (vars(module), "__spec__", getattr(module, "__spec__", _MISSING))


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


def _keep(key: str, digest: str, content: Content, read: "Iterable[SourceModule]") -> None:
    files = [(each.file, each.status) for each in read if each.file is not None and each.status is not None]
    loaded = [(each.name, each.file) for each in read if each.file is not None]
    folders = _metadata(content.packages)
    found = usercache.Found(digest, content.method)
    usercache.keep(key, found, content.encode(), files=files, loaded=loaded, folders=sorted(folders))


def _imported(finder: "Finder") -> set[str]:
    """Top names of the installed modules that the modules of the project import."""
    from .modules import absolute

    found: set[str] = set()
    for module in list(finder.modules.values()):
        for each in module.imports if module is not None else ():
            assert module is not None
            top = absolute(each, module.package).partition(".")[0]
            if top and top not in sys.stdlib_module_names and top not in finder.modules:
                found.add(top)
    ours = {name.partition(".")[0] for name, module in finder.modules.items() if module is not None}
    return found - ours - {"exca", "__main__"}


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of installed packages, by the names that they are imported by."""
    import importlib.metadata

    versions: dict[str, str] = {}
    rest = []
    for name in sorted(names):
        try:
            versions[name] = importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            rest.append(name)
    known = _distributions() if rest else {}
    for name in rest:
        for each in known.get(name, ())[:1]:
            versions[name] = importlib.metadata.version(each)
    return dict(sorted(versions.items()))


@functools.lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    import importlib.metadata

    return importlib.metadata.packages_distributions()


def _metadata(names: Iterable[str]) -> set[str]:
    """Where the packages are installed; each change of one changes its folder."""
    import importlib.metadata

    found = set()
    for name in names:
        try:
            distribution = importlib.metadata.distribution(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            known = _distributions().get(name)
            if not known:
                continue
            distribution = importlib.metadata.distribution(known[0])
        found.add(os.path.abspath(os.fspath(tp.cast("str", distribution.locate_file("")))))
    return found
