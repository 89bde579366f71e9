"""Where a name given to a working directory lies: a local path, ``PYTHONPATH``, an editable install, ``sys.path``."""

import importlib.machinery
import json
import os
import sys
import typing as tp
from pathlib import Path

if tp.TYPE_CHECKING:
    import importlib.metadata

_PACKAGES = frozenset(("site-packages", "dist-packages"))


def identify_path(name: str | Path) -> Path:
    """Find what a name stands for: a local path, one in ``PYTHONPATH``, an editable install, or a path in ``sys.path``.

    Parameters
    ----------
    name: str or Path
        a file or folder (``~`` is expanded), or the name of a package, a module or a distribution that is
        installed in editable mode (``pip install -e``).

    Returns
    -------
    Path
        the absolute path of an existing file or folder.

    Raises
    ------
    ValueError
        nothing has this name (the message lists where it was looked for), or it is an installed package that
        is not editable (the message says where it lies).
    """
    given = Path(name).expanduser()
    looked = [Path(os.path.abspath(given))]
    if not given.is_absolute():
        entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        looked += [Path(os.path.abspath(entry)) / given for entry in entries]
    for path in looked:
        if path.exists():
            return path
    if str(name).isidentifier() or (given.name == str(name) and not given.suffix):
        found = _module_path(str(name)) or _editable_project_path(str(name))
        if found is not None:
            return found
    if not given.is_absolute():
        # a file beside the script, as Python would import it
        for entry in sys.path:
            path = Path(os.path.abspath(entry)) / given
            if entry and path.exists() and not _is_installed(path):
                return path
    raise ValueError(_not_found(str(name), looked))


def _module_path(name: str) -> Path | None:
    """The place of a module that Python would import from outside the folders of installed packages."""
    spec = _find_spec(name)
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        raise ValueError(f"{name!r} is part of Python itself and needs no copy: remove it from 'copied'.")
    if spec.submodule_search_locations is None:
        places = [Path(spec.origin)] if spec.origin else []
    else:
        places = [Path(place) for place in spec.submodule_search_locations]
    places = [place for place in places if place.exists()]
    if len(places) > 1:
        shown = ", ".join(map(str, places))
        raise ValueError(
            f"{name!r} is a namespace package in several folders ({shown}): name the one to copy by its path."
        )
    if places and _is_installed(places[0]):
        raise _not_editable(name, places[0])
    return places[0].absolute() if places else None


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    # not importlib.util.find_spec: it answers from sys.modules, where a module of the same name may come
    # from a place that is no longer on the path
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec
    return None


def _is_installed(place: Path) -> bool:
    import sysconfig

    if _PACKAGES & set(place.parts):
        return True
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return any(place.is_relative_to(folder) for folder in standard)


def _editable_project_path(name: str) -> Path | None:
    """The package of a distribution in editable mode that is not (yet) on the path of this process."""
    import importlib.metadata

    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return _egg_link(name)
    project = _editable_project(distribution)
    if project is None:
        raise _not_editable(name, distribution.locate_file(""))
    modules = (distribution.read_text("top_level.txt") or "").split()
    if len(modules) == 1 and (found := _module_path(modules[0])) is not None:
        return found
    return _package_in(project, name)


def _editable_project(distribution: "importlib.metadata.Distribution") -> Path | None:
    """The folder of an editable distribution's project (``direct_url.json``, PEP 610 and 660)."""
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    text = distribution.read_text("direct_url.json")
    if text is None:
        return None
    origin = json.loads(text)
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlparse(origin["url"]).path))


def _egg_link(name: str) -> Path | None:
    """The package of a project installed by ``setup.py develop``, which leaves ``<name>.egg-link``."""
    for entry in sys.path:
        link = Path(entry) / f"{name.replace('_', '-')}.egg-link"
        if link.is_file():
            return _package_in(Path(link.read_text("utf8").splitlines()[0].strip()), name)
    return None


def _package_in(project: Path, name: str) -> Path:
    module = name.replace("-", "_").replace(".", "_")
    candidates = [root / end for root in (project / "src", project) for end in (module, f"{module}.py")]
    for path in candidates:
        if path.exists():
            return path
    shown = ", ".join(map(str, candidates))
    raise ValueError(
        f"The distribution {name!r} is installed in editable mode from {project}, but none of these is "
        f"there: {shown}. Give the name that its code is imported by, or its path."
    )


def _not_editable(name: str, place: object) -> ValueError:
    return ValueError(
        f"{name!r} is installed in {place}, but not in editable mode: its code does not change. "
        "Remove it from 'copied', install it with 'pip install -e', or name its folder by path."
    )


def _not_found(name: str, looked: tp.Sequence[Path]) -> str:
    shown = "".join(f"\n  {path}" for path in looked)
    return (
        f"Nothing to copy is called {name!r}. It was looked for in the current directory ({os.getcwd()}), in "
        f"PYTHONPATH ({os.environ.get('PYTHONPATH') or 'not set'}), sys.path and among the packages installed in "
        f"editable mode in {sys.prefix}:{shown}\n"
        "Give an existing file or folder, or install the package with 'pip install -e'."
    )
