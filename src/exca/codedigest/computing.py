"""Finds a digest, whatever is known already, and keeps it for later processes."""

import functools
import importlib.metadata
import os
import sys
import typing as tp
from collections.abc import Iterable, Mapping

from . import importing, usercache
from .digest import CodeDigest
from .modules import INSTALLED, Finder, absolute
from .normal import SCHEME, digest
from .reach import Reach
from .record import WHEN, Content


def compute(
    cls: type, function: tp.Any, extra: Iterable[type], roots: Iterable[tp.Any], packages: Iterable[str]
) -> tuple[Reach, Finder, Content]:
    """Find the digest, whatever is known already."""
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
    _find_packages_above(finder)
    for module in filter(None, finder.modules.values()):
        for statement in importing.effects(module):
            reach.note(f"{module.title}{WHEN}", statement)
    unresolved = {name: sorted(reasons) for name, reasons in sorted(reach.unresolved.items())}
    versions = _versions({*finder.installed, *_imported(finder), *compared})
    return reach, finder, Content(SCHEME, method, parts, sources, unresolved, versions, compared)


def unknown(function: tp.Any, error: Exception) -> CodeDigest:
    """What is returned where a digest can't be found: one without a text, which says why."""
    method = str(getattr(function, "__qualname__", type(function).__qualname__))
    content = Content(SCHEME, method, {}, {}, {method: [f"{type(error).__name__}: {error}"]}, {}, [])
    return CodeDigest("", method, content=content)


def keep(key: str, code: str, content: Content, finder: Finder) -> None:
    """Keep a digest for later processes."""
    if not set(content.compared) <= set(content.packages):
        return  # where it may be installed later is not known
    read = [each for each in finder.modules.values() if each is not None]
    files = [(each.file, each.status) for each in read if each.file is not None and each.status is not None]
    loaded = [(each.name, each.file) for each in read if each.file is not None]
    folders = _metadata(content.packages) | _without(finder)
    found = (code, content.method)
    usercache.keep(key, found, content.encode(), files=files, loaded=loaded, folders=sorted(folders))


def _find_packages_above(finder: Finder) -> None:
    """Read the packages that Python imports before a module in them, though no code names them."""
    for module in [each for each in finder.modules.values() if each is not None]:
        parent = module.name.rpartition(".")[0]
        while parent:
            finder.module(parent)
            parent = parent.rpartition(".")[0]


def _without(finder: Finder) -> set[str]:
    """The folders in which a module was not found that some code would import: it may come to be there."""
    found: set[str] = set()
    for name in finder.missing:
        parent = name.rpartition(".")[0]
        module = finder.modules.get(parent)
        if module is not None and module.file is not None:
            found.add(os.path.dirname(module.file))
        else:
            found.update(getattr(sys.modules.get(parent), "__path__", sys.path))
    return {path for path in found if os.path.isdir(path)}


def _imported(finder: Finder) -> set[str]:
    """Top names of the installed modules that the modules of the project import."""
    ours = {name: module for name, module in finder.modules.items() if module is not None}
    found = {absolute(each, module.package) for module in ours.values() for each in module.imports}
    tops = {name.partition(".")[0] for name in found}
    return {top for top in tops if top and top not in finder.modules} - (
        {name.partition(".")[0] for name in ours} | sys.stdlib_module_names | {"exca", "__main__"}
    )


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    """The installed package of a name that is imported."""
    try:
        return importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        known = _distributions().get(name)
        return importlib.metadata.distribution(known) if known else None


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of installed packages, by the names that they are imported by."""
    found = [(name, _distribution(name)) for name in sorted(names)]
    return {name: distribution.version for name, distribution in found if distribution is not None}


@functools.lru_cache(maxsize=1)
def _distributions() -> Mapping[str, str]:
    """Which installed package has a module: it takes long to find, so it is kept until something is installed."""
    import json

    folders = [path for path in sys.path if os.path.basename(path) in INSTALLED]
    try:
        noted = "\n".join(f"{path} {usercache.noted_status(os.stat(path))}" for path in folders)
    except OSError:
        noted = ""
    name = f"packages-{digest(noted)}"
    kept = usercache.content_of(name) if noted else None
    try:
        known = json.loads(kept) if kept else None
    except ValueError:
        known = None
    if not isinstance(known, dict):
        known = {module: names[0] for module, names in importlib.metadata.packages_distributions().items()}
        if noted:
            usercache.keep_text(name, json.dumps(known).encode("ascii"))
    return known


def _metadata(names: Iterable[str]) -> set[str]:
    """Where the packages are installed; each change of one changes its folder."""
    found = [distribution for name in names if (distribution := _distribution(name)) is not None]
    return {os.path.abspath(os.fspath(tp.cast("str", each.locate_file("")))) for each in found}
