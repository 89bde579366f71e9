"""Repair: what is damaged or abandoned goes out of the way, what is derived is made anew, what is good stays."""

import contextlib
import dataclasses
import os
import typing as tp
from pathlib import Path

from .. import _files, _trust
from ..cachedict import CacheDict, DumpContext
from ..cachedict.index import index_of
from ..cachedict.sideindex import FILE_NAME
from ..cachedict.textindex import keep_line
from ..claims import Claims
from ..claims.claimfile import SUFFIX as CLAIM_SUFFIX
from ..engine import record
from ..errors import DamagedEntryError, OddFileError
from ..identity.configfolder import CONFIG, FULL, SIDECAR, UID
from . import leftovers
from .check import ORPHANED, folders_below, is_whole, report_on, verify
from .report import Damaged, FolderReport, Report

_OF_NEW_FOLDERS = {UID, FULL, CONFIG, SIDECAR}  # files in a folder that was never renamed into place


@dataclasses.dataclass
class Repairs:
    """What a repair has done.

    Parameters
    ----------
    before: Report
        what was found at first
    done: list of str
        what was done, one sentence each
    left: list of str
        what was left as it was, and why
    after: Report
        what is found now
    """

    before: Report
    done: list[str]
    left: list[str]
    after: Report

    def to_json(self) -> dict[str, tp.Any]:
        """Return the whole report in JSON types."""
        reports = {"before": self.before.to_json(), "after": self.after.to_json()}
        return {**reports, "done": self.done, "left": self.left}

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        done = [("done", each) for each in self.done] + [("left", each) for each in self.left]
        shown = _notebook.table(["", "what"], done, "what was done, and what was left") or _notebook.line(
            "nothing to repair"
        )
        return _notebook.card(f"repaired {self.after.root}", shown, self.after._repr_html_() or "")

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(str(self), self._repr_html_())

    def __str__(self) -> str:
        left = [f"left: {line}" for line in self.left]
        return "\n".join([*self.done, *left, str(self.after)])


def repair(
    folder: str | os.PathLike[str], *, orphans: bool = False, older_than: float = leftovers.OLD
) -> Repairs:
    """Repair what `verify` finds under a folder; nothing that is whole, or may still be in use, is touched.

    Damaged entries are set aside under a name that says so, and count as missing: the next call computes them
    again. Claims and temporary files of dead owners are removed, damaged derived files are made anew. It may run
    while others work there.

    Parameters
    ----------
    folder: path
        a cache folder, or any folder in or above one
    orphans: bool
        also move data that no entry names aside (as ``<name>.orphaned``), where no process is at work and its writer
        is dead
    older_than: float
        seconds of silence after which a writer that cannot be asked (on another host) counts as dead

    Returns
    -------
    Repairs
        what was done, what was left and why, and the reports before and after

    Raises
    ------
    NotADirectoryError
        if there is no such folder
    """
    before = verify(folder)
    repairer = _Repairer(before.root, orphans=orphans, older_than=older_than)
    for found in before.folders:
        if not found.sound:
            repairer.repair(found)
    after = {report.folder: report for report in before.folders if report.sound}
    for path, whole in folders_below(before.root):
        name = os.path.relpath(path, before.root)
        if name not in after:
            report = report_on(before.root, path, holds_results=whole)
            if report is not None:
                after[name] = report
    return Repairs(before, repairer.done, repairer.left, Report(before.root, list(after.values())))


class _Repairer:
    def __init__(self, root: str, *, orphans: bool, older_than: float) -> None:
        self.root = root
        self.orphans = orphans
        self.older_than = older_than
        self.done: list[str] = []
        self.left: list[str] = []

    def repair(self, found: FolderReport) -> None:
        folder = Path(self.root, found.folder)
        for damaged in found.damaged:
            with self._leaving(f"{folder}/{damaged}"):
                self._set_aside(folder, damaged)
        self.left += [f"{folder}/{item}: it cannot be checked by this user" for item in found.unreadable]
        if found.stale_claims:
            count = Claims(folder).sweep()
            self.done.append(f"{folder}: removed {count} claim(s) of dead owners")
        for name in found.leftovers:
            with self._leaving(f"{folder}/{name}"):
                self._remove(folder / name)
        for name in found.derived:
            with self._leaving(f"{folder}/{name}"):
                self._renew(folder, name)
        for relative in found.orphans:
            with self._leaving(f"{folder}/{relative}"):
                self._move_orphan(folder, relative, found)

    @contextlib.contextmanager
    def _leaving(self, what: str) -> tp.Iterator[None]:
        """Context in which an error of the system leaves one thing as it is."""
        try:
            yield
        except OSError as e:
            self.left.append(f"{what}: could not be repaired: {e}")

    def _is_theirs(self, path: Path) -> bool:
        """Whether another user may have put something there, which is left as it is then."""
        if _trust.may_move(path):
            return False
        self.left.append(f"{path}: another user may have written it, and can repair it")
        return True

    # ------------------------------------------------------------ damaged

    def _set_aside(self, folder: Path, damaged: Damaged) -> None:
        path = folder / damaged.file
        if damaged.offset is None:
            self._set_file_aside(folder, damaged)
        elif not damaged.length:
            self._cut(path, damaged)
        else:
            ctx, error = DumpContext(folder), DamagedEntryError(damaged.error)
            span = (damaged.offset, damaged.length)
            if index_of(str(folder)).set_line_aside(ctx, damaged.file, span, damaged.key, error):
                self.done.append(f"{path}: set aside the damaged entry at byte {damaged.offset}")
            else:
                self.left.append(f"{folder}/{damaged}: it changed meanwhile, or was written a moment ago")

    def _set_file_aside(self, folder: Path, damaged: Damaged) -> None:
        path = folder / damaged.file
        if self._is_theirs(path):
            return
        if damaged.file == record.NAME:
            found = record.read(folder)  # sets it aside when it is no whole record
            if found is not None:
                info = found.content.get("result")
                if info is None or is_whole(folder, info):
                    self.left.append(f"{path}: it was published anew meanwhile")
                    return
            if os.path.lexists(path):
                record.set_aside(folder, damaged.error)
        else:
            _files.move(str(path), f"{damaged.file}.damaged-{os.urandom(4).hex()}")
        self.done.append(f"{folder / damaged.file}: set aside, since {damaged.error}")

    def _cut(self, path: Path, damaged: Damaged) -> None:
        """Cut an unfinished last line off an index file that no process appends to any more."""
        if not leftovers.writer_is_dead(str(path), self.older_than):
            self.left.append(f"{path}: it ends within a line, and its writer may live")
            return
        assert damaged.offset is not None
        if self._is_theirs(path):
            return
        with open(_files.open_file(str(path), _files.UPDATE), "rb+") as f:
            _files.require_regular(f.fileno())
            f.seek(damaged.offset)
            rest = f.read()
            if b"\n" in rest:
                return
            keep_line(str(path), rest + b"\n")
            f.truncate(damaged.offset)
        self.done.append(f"{path}: cut off the {len(rest)} bytes of a line that was never finished")

    # ------------------------------------------------------------ the rest

    def _remove(self, path: Path) -> None:
        if self._is_theirs(path):
            return
        if path.is_dir() and not path.is_symlink():
            names = {p.name for p in path.rglob("*") if p.is_file() and p.suffix != CLAIM_SUFFIX}
            if not names <= _OF_NEW_FOLDERS:
                self.left.append(f"{path}: a folder that looks temporary, which is left as it is")
                return
            _files.remove_tree(str(path))
        else:
            with contextlib.suppress(FileNotFoundError):
                _files.remove(str(path))
        self.done.append(f"{path}: removed, its writer is dead")

    def _renew(self, folder: Path, name: str) -> None:
        if os.path.lexists(folder / name) and self._is_theirs(folder / name):
            return
        try:
            _files.remove(f"{folder}/{name}")
        except FileNotFoundError:
            pass
        except OddFileError:  # a folder
            _files.move(f"{folder}/{name}", f"{name}.damaged-{os.urandom(4).hex()}")
        if name == FILE_NAME:
            index = index_of(str(folder))
            index.reset()
            len(CacheDict[tp.Any](folder))
            with contextlib.suppress(OSError):
                index.save()
        self.done.append(
            f"{folder / name}: removed, since it is damaged; it is made anew from the files that it was derived from"
        )

    def _move_orphan(self, folder: Path, relative: str, found: FolderReport) -> None:
        path = folder / relative
        if not self.orphans:
            reason = "no entry names it; repair(..., orphans=True) moves such files aside"
        elif found.live_claims:
            reason = "another process is at work there and may be about to name it"
        elif not leftovers.writer_is_dead(str(path), self.older_than):
            reason = "its writer may live"
        else:
            if self._is_theirs(path):
                return
            with contextlib.suppress(FileNotFoundError):
                _files.move(str(path), f"{path.name}{ORPHANED}")
            self.done.append(f"{path}: moved aside, since no entry names it")
            return
        self.left.append(f"{path}: {reason}")
