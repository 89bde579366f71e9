"""The working directory of jobs: which code is copied when they are submitted, and where it is found."""

import contextlib
import importlib.machinery
import json
import os
import sys
import typing as tp
from pathlib import Path

import pydantic

from .. import _files
from .._log import logger
from ..errors import WorkDirError
from . import workdir_copy
from .workdir_copy import Rules, Source

__all__ = ["WorkDir", "identify_path", "inside"]

if tp.TYPE_CHECKING:
    import importlib.metadata

_PACKAGES = frozenset(("site-packages", "dist-packages"))


class WorkDir(pydantic.BaseModel):
    """Copy code once a submission, so that later edits do not reach the jobs that were submitted.

    Parameters
    ----------
    copied: sequence of str or Path
        files, folders, and names of packages or modules installed in editable mode; ``"."`` is the
        content of the current working directory. A relative path keeps its place in the copy, any other
        lands at its top under its last name.
    folder: str or Path, optional
        where to copy; by default a fresh folder for each submission, in the folder of the infra.
    log_commit: bool
        refuse uncommitted changes in what is copied, and record the commits in the copy's ``git-hashes.log``.
    includes: sequence of str
        patterns (as in ``*.py``) of the names of files to copy from folders; a file named in ``copied`` is
        copied whatever its name.
    excludes: sequence of str
        patterns of the names of files and folders to leave out.

    Raises
    ------
    WorkDirError
        there is nothing to copy, two of the copied have the same place, or (:code:`log_commit`) changes are
        not committed.
    pydantic.ValidationError
        a field is mistyped, a copied name is found nowhere or is no editable package, or the parent of
        ``folder`` does not exist.
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        extra="forbid", validate_assignment=True
    )

    copied: tp.Sequence[str | Path] = []
    folder: str | Path | None = None
    log_commit: bool = False
    includes: tp.Sequence[str] = ("*.py",)
    excludes: tp.Sequence[str] = ("__pycache__", ".git")
    # found when the configuration is built: relative names are those of that moment's working directory
    _sources: tuple[Source, ...] = pydantic.PrivateAttr(())

    @pydantic.field_validator("folder")
    @classmethod
    def _expand(cls, folder: str | Path | None) -> str | Path | None:
        return None if folder is None else type(folder)(_files.expand(str(folder), "workdir.folder"))

    @pydantic.model_validator(mode="after")
    def _locate(self) -> tp.Self:
        if not self.copied:
            raise WorkDirError(
                "The workdir copies nothing: name files, folders or editable packages in 'workdir.copied' "
                '("." for the current directory), or remove the workdir.'
            )
        parent = None if self.folder is None else Path(self.folder).absolute().parent
        if parent is not None and not parent.is_dir():
            raise ValueError(
                f"The parent of workdir.folder={str(self.folder)!r} does not exist: create {parent}."
            )
        sources = tuple(workdir_copy.source_of(name, identify_path(name)) for name in self.copied)
        workdir_copy.check_places(sources)
        workdir_copy.check_something_matches(sources, self._rules())
        if self.log_commit:
            workdir_copy.check_committed(sources, self._rules())
        self._sources = sources
        return self

    def _rules(self) -> Rules:
        return Rules.of(self.includes, self.excludes)

    def prepare(self, default_folder: str | Path) -> Path:
        """Copy the code, once for a submission, and return the folder in which its jobs run.

        Parameters
        ----------
        default_folder: str or Path
            where to copy when the field ``folder`` is not set; missing parents are created. The copy
            appears there whole or not at all.

        Returns
        -------
        Path
            the absolute path of the copy.

        Raises
        ------
        WorkDirError
            no file matches, a file cannot be read or written, the folder holds another version of the code,
            or (``log_commit``) changes are not committed.
        UntrustedFileError
            the folder belongs to another user.
        """
        default = Path(default_folder).absolute()
        folder = default if self.folder is None else Path(self.folder).absolute()
        rules = self._rules().without(folder, *([default.parent] if folder == default else []))
        commits = workdir_copy.commits_of(self._sources, rules) if self.log_commit else {}
        workdir_copy.copy(self._sources, rules, folder)
        workdir_copy.require_ours(folder)
        if commits:
            workdir_copy.write_commits(commits, folder)
        workdir_copy.note_commits({source.place: str(source.path) for source in self._sources}, folder)
        return folder

    @contextlib.contextmanager
    def activate(self, folder: str | Path | None = None) -> tp.Iterator[None]:
        """Context that copies the code, and works inside the copy for the time of the context.

        Parameters
        ----------
        folder: str or Path, optional
            where to copy when the field ``folder`` is not set.

        Raises
        ------
        WorkDirError
            neither ``folder`` is set, or as :meth:`prepare`.
        """
        place = self.folder if self.folder is not None else folder
        if place is None:
            raise WorkDirError(
                "The workdir has no folder to copy to: set 'workdir.folder', or give one to activate()."
            )
        with inside(self.prepare(place)):
            yield


@contextlib.contextmanager
def inside(folder: str | Path) -> tp.Iterator[None]:
    """Make a folder the current directory and the first on ``sys.path`` for the time of the context.

    Both belong to the whole process: threads that run meanwhile see them too.

    Parameters
    ----------
    folder: str or Path
        an existing folder.
    """
    before, entry = os.getcwd(), str(Path(folder).absolute())
    os.chdir(entry)
    sys.path.insert(0, entry)
    logger.debug("Working in %s", entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have removed it
            sys.path.remove(entry)
        os.chdir(before)


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
        is not editable (the message says where it is).
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
        return None
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
