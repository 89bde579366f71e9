"""The commands that change something: cancel, rm, restore, gc. Each says what it would do, and does it when told so."""

import argparse
import collections
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .. import _files
from ..catalog import scan
from ..catalog.rows import Row
from ..catalog.select import moment
from ..claims import Claims
from ..errors import NoSuchTaskError
from .commandline import FAILED
from .output import Output, amount
from .tasks import selection

TRASH = ".trash"
_SHOWN = 10


def cancel(options: argparse.Namespace) -> int:
    """End the jobs of tasks that wait or run."""
    from ..engine import record
    from ..jobs import backends

    _require_scope(options)
    jobs, others = [], []
    for row in selection(options).rows():
        if row.state != "running":
            continue
        submitted = record.read_submission(Path(row.folder))
        if submitted is None:
            others.append(row)
        else:
            jobs.append((row, submitted.submission))
    lines = [f"{row.address}   {job.cluster} job {job.job_id}" for row, job in jobs]
    lines += [
        f"{row.address}   left: computed by {row.facts.get('owner', 'a process')}, not by a job"
        for row in others
    ]
    if not _agreed(options, f"cancel {len(jobs)} job(s)", lines):
        return 0
    by_cluster = collections.defaultdict(list)
    for _, job in jobs:
        by_cluster[job.cluster].append(job)
    for submissions in by_cluster.values():
        backends.cancel(submissions)
    print(f"cancelled {len(jobs)} job(s)")
    return FAILED if others else 0


def rm(options: argparse.Namespace) -> int:
    """Move tasks into the trash."""
    _require_scope(options)
    rows = selection(options).rows()
    if not rows:
        raise NoSuchTaskError("nothing fits, so nothing is removed: `exca ls` shows what there is")
    return _discard(options, rows, "-y")


def gc(options: argparse.Namespace) -> int:
    """Move what is old, failed or of an earlier version into the trash, or empty the trash."""
    if options.trash:
        return _empty_trash(options)
    conditions = [
        options.older,
        options.failed,
        options.version_below,
        options.unread,
        options.where,
        options.state,
    ]
    if not any(condition not in (None, False, []) for condition in conditions):
        raise ValueError(
            "gc removes nothing without a condition: --older 90d, --failed, --version-below 3, --unread 180d, -w EXPR, "
            "or --trash to empty the trash"
        )
    rows = [row for row in selection(options).rows() if row.state != "running" and _is_due(row, options)]
    if not rows:
        print("nothing to remove")
        return 0
    return _discard(options, rows, "--apply")


def _is_due(row: Row, options: argparse.Namespace) -> bool:
    if options.older is not None and row.when >= moment(options.older):
        return False
    if options.failed and row.state != "failed":
        return False
    if options.version_below is not None:
        version = row.method.rpartition(",")[2]
        if not version.isdecimal() or int(version) >= options.version_below:
            return False
    if options.unread is not None:
        read = max((status.st_atime for status in scan.walk_files(row.folder)), default=0.0)
        if read >= moment(options.unread):
            return False
    return True


def _require_scope(options: argparse.Namespace) -> None:
    """Refuse to do something to all there is."""
    if not (options.names or options.where or options.state or options.since or options.user):
        raise ValueError("name the tasks, or give a condition: this is not done to everything in a folder")


def _agreed(options: argparse.Namespace, what: str, lines: Sequence[str], flag: str = "-y") -> bool:
    """Say what would be done; whether it is to be done."""
    done = getattr(options, "yes", False)
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  and {len(lines) - _SHOWN} more")
    if not done:
        shown.append(f"would {what}; nothing done: add {flag}")
    Output().write(shown)
    return done


def _discard(options: argparse.Namespace, rows: Sequence[Row], flag: str) -> int:
    sizes = {row: sum(status.st_size for status in scan.walk_files(row.folder)) for row in rows}
    what = f"move {len(rows)} folder(s), {amount(sum(sizes.values()))}, to {TRASH}"
    if not _agreed(
        options, what, [f"{row.address}   {row.state}   {amount(sizes[row])}" for row in rows], flag
    ):
        return 0
    place = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
    moved, failed = 0, []
    for row in rows:
        try:
            move_to_trash(row, place)
            moved += 1
        except OSError as e:
            failed.append(f"left {row.address}: {e}")
    print(
        f"moved {moved} folder(s) to {TRASH}/{place}: `exca restore {place}` brings them back, "
        "`exca gc --trash` empties it"
    )
    for line in failed:
        print(line, file=sys.stderr)
    return FAILED if failed else 0


def move_to_trash(row: Row, place: str) -> None:
    """Move the folder of one row into the trash of the folder that was listed; refused while its claim is held.

    Raises
    ------
    OSError
        if it is being computed, or may not be moved
    """
    _require_unclaimed(row.folder)
    target = f"{row.top}/{TRASH}/{place}/{row.address}"
    _files.make_folders(os.path.dirname(target), _files.OWN_FOLDER)
    os.rename(row.folder, target)
    try:
        _require_unclaimed(target)  # a claim may have come between the look and the move
    except OSError:
        os.rename(target, row.folder)
        raise


def _require_unclaimed(folder: str) -> None:
    for holder in Claims(folder).holders().values():
        if holder.alive():
            raise OSError(f"it is being computed by {holder.describe()}: cancel that first")


def restore(options: argparse.Namespace) -> int:
    """Bring back what was moved into the trash."""
    trash = Path(options.folder) / TRASH
    places = [trash / name for name in options.places] or sorted(trash.glob("*"))[-1:]
    count, failed = 0, []
    for place in places:
        if place.parent != trash or not place.is_dir():
            raise NoSuchTaskError(f"there is no {place.name} in {trash}: `ls {trash}` shows what there is")
        for row in scan.rows(place, keep=False):
            target = f"{options.folder}/{row.address}"
            if os.path.lexists(target):
                failed.append(f"left {row.address}: something is there again")
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(row.folder, target)
            count += 1
        if not failed:
            _files.remove_tree(str(place))
    print(f"brought back {count} folder(s)")
    for line in failed:
        print(line, file=sys.stderr)
    return FAILED if failed else 0


def _empty_trash(options: argparse.Namespace) -> int:
    trash = f"{options.folder}/{TRASH}"
    limit = None if options.older is None else moment(options.older)
    try:
        places = [entry for entry in os.scandir(trash) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        places = []
    due = [entry for entry in places if limit is None or entry.stat(follow_symlinks=False).st_mtime < limit]
    if not due:
        print("the trash is empty" if not places else "nothing in the trash is that old")
        return 0
    size = sum(status.st_size for entry in due for status in scan.walk_files(entry.path))
    if not _agreed(options, f"delete {amount(size)} for good", [entry.path for entry in due], "--apply"):
        return 0
    for entry in due:
        _files.remove_tree(entry.path)
    print(f"deleted {amount(size)}")
    return 0
