"""The working directory: a copy of the code, made at submission, in which the jobs run."""

import contextlib
import logging
import os
import sys
import typing as tp
from pathlib import Path

import pydantic

from .. import _files
from ..errors import WorkDirError
from . import workdir_copy, workdir_git
from .workdir_copy import Rules, Source
from .workdir_locate import identify_path

__all__ = ["WorkDir", "identify_path", "inside"]

logger = logging.getLogger("exca")


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

    model_config = pydantic.ConfigDict(extra="forbid", validate_assignment=True)

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
            workdir_git.check_committed(sources, self._rules())
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
        commits = workdir_git.commits_of(self._sources, rules) if self.log_commit else {}
        workdir_copy.copy(self._sources, rules, folder)
        workdir_copy.require_ours(folder)
        if commits:
            workdir_git.record(commits, folder)
        workdir_git.note_commits({source.place: str(source.path) for source in self._sources}, folder)
        return folder

    @contextlib.contextmanager
    def activate(self, folder: str | Path | None = None) -> tp.Iterator[None]:
        """Copy the code, and work inside the copy for the time of the context.

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
