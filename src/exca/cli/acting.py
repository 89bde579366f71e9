"""The commands that change something: cancel, rm, restore, gc. Each says what it would do, and does it when told so."""

import argparse
import collections
import os
import shlex
import sys
import typing as tp
from collections.abc import Sequence
from pathlib import Path

from .. import _files
from .._clusters import Submission
from ..catalog import scan
from ..catalog.rows import Row, amount
from ..catalog.select import moment
from ..errors import NoSuchTaskError
from . import trash
from .commandline import FAILED
from .output import Output
from .tasks import selection

_SHOWN = 10


def cancel(options: argparse.Namespace) -> int:
    """End the jobs of tasks that wait or run."""
    _require_scope(options)
    jobs: list[Submission] = []
    lines, left = [], []
    for row in selection(options).rows():
        if row.state == "running":
            found, others = jobs_behind(row.folder)
            jobs += found
            lines += [f"{row.address}   {job.cluster} job {job.job_id}" for job in found]
            left += [f"{row.address}   left: {reason}" for reason in others]
    jobs = list(dict.fromkeys(jobs))
    if not jobs and not left:
        print("nothing that fits waits or runs, so nothing is cancelled")
        return 0
    if not _agreed(options, f"cancel {len(jobs)} job(s)", [*lines, *left]):
        return 0
    failed = end_jobs(jobs)
    _tell([f"cancelled {len(jobs) - len(failed)} job(s)"])
    _tell(failed, sys.stderr)
    return FAILED if left or failed else 0


def jobs_behind(folder: str) -> tuple[list[Submission], list[str]]:
    """The jobs that compute what is in a folder, and why what else computes there is no job that could be ended."""
    from ..engine import record
    from ..engine.running import holders_in, submission_of

    submitted = record.read_submission(Path(folder))
    holders = holders_in(map(Path, scan.claim_folders(folder)))
    jobs, left = [], []
    for holder in {holder.token: holder for holder in holders.values()}.values():
        job = submission_of(holder, "")
        if holder.owner.kind != "job" or not job.job_id:
            left.append(f"computed by {holder.owner.describe()}, not by a job")
            continue
        if submitted is not None and submitted.submission.job_id == job.job_id:
            job = submitted.submission._replace(trusted=submitted.submission.trusted and job.trusted)
        if not job.trusted:
            left.append(
                f"another user may have written down that {job.cluster} job {job.job_id} computes it, and can cancel "
                "it; to trust what that user writes: export EXCA_TRUSTED_USERS=<name>"
            )
        elif not job.logs:
            left.append(f"it is not noted where the logs of {job.cluster} job {job.job_id} are")
        else:
            jobs.append(job)
    return jobs, left


def end_jobs(jobs: Sequence[Submission]) -> list[str]:
    """End jobs, those of a cluster by one command; why some could not be ended."""
    from ..jobs import backends

    by_cluster = collections.defaultdict(list)
    for job in jobs:
        by_cluster[job.cluster].append(job)
    failed = []
    for cluster, some in by_cluster.items():
        try:
            backends.cancel(some)
        except (OSError, RuntimeError, LookupError) as e:  # of the scheduler, or a backend that is not here
            failed += [f"left {cluster} job {job.job_id}: {e}" for job in some]
    return failed


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
    chosen = selection(options)
    kept = {folder for name in options.keep for folder in chosen.points(name)}
    rows = [
        row
        for row in chosen.rows()
        if row.state != "running" and row.folder not in kept and _is_due(row, options)
    ]
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
        read = max((status.st_atime for _, status in scan.walk_files(row.folder)), default=0.0)
        if read >= moment(options.unread):
            return False
    return True


def _require_scope(options: argparse.Namespace) -> None:
    """Refuse to do something to all there is."""
    if not (
        options.names or options.where or options.state or options.since or options.user or options.sweep
    ):
        raise ValueError("name the tasks, or give a condition: this is not done to everything in a folder")


def _agreed(options: argparse.Namespace, what: str, lines: Sequence[str], flag: str = "-y") -> bool:
    """Say what would be done; whether it is to be done."""
    done = bool(options.yes)
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  and {len(lines) - _SHOWN} more")
    if not done:
        shown.append(f"would {what}; nothing done: add {flag}")
    _tell(shown)
    return done


def _tell(lines: Sequence[str], stream: tp.TextIO | None = None) -> None:
    Output(stream).write(lines)


def _discard(options: argparse.Namespace, rows: Sequence[Row], flag: str) -> int:
    sizes = {row: scan.size_of(row.folder) for row in rows}
    what = f"move {len(rows)} folder(s), {amount(sum(sizes.values()))}, to {trash.FOLDER}"
    if not _agreed(
        options, what, [f"{row.address}   {row.state}   {amount(sizes[row])}" for row in rows], flag
    ):
        return 0
    place = trash.new_place()
    moved, failed = [], []
    for row in reversed(rows):  # later stages of a pipeline before those above them
        try:
            trash.discard(row, place, user=options.user)
            moved.append(row)
        except OSError as e:
            failed.append(f"left {row.address}: {e}")
    for row in moved:
        _files.remove_empty(row.folder)
    for top, count in collections.Counter(row.top for row in moved).items():
        where = "" if top == os.getcwd() else f" -C {shlex.quote(top)}"
        back = f"`exca restore{where} {place}` brings them back, `exca gc{where} --trash` empties it"
        _tell([f"moved {count} folder(s) to {trash.FOLDER}/{place}: {back}"])
    _tell(failed, sys.stderr)
    return FAILED if failed else 0


def restore(options: argparse.Namespace) -> int:
    """Bring back what was moved into the trash."""
    top = scan.named_folder(options.folder)
    there = trash.places(top)
    unknown = [name for name in options.places if name not in there]
    if unknown:
        raise NoSuchTaskError(
            f"there is no {unknown[0]} in the trash of {top}: it holds {', '.join(there) or 'nothing'}"
        )
    count, failed = 0, []
    for place in options.places or there[-1:]:
        try:
            trash.require_ours(top, place)
        except OSError as e:
            failed.append(str(e))
            continue
        for row in scan.rows_below(top, f"{trash.FOLDER}/{place}"):
            try:
                trash.restore(row, f"{top}/{row.address}")
                count += 1
            except FileExistsError:
                failed.append(f"left {row.address}: something is there again")
            except OSError as e:
                failed.append(f"left {row.address}: {e}")
        _files.remove_empty(f"{top}/{trash.FOLDER}/{place}")
    _tell([f"brought back {count} folder(s)"])
    _tell(failed, sys.stderr)
    return FAILED if failed else 0


def _empty_trash(options: argparse.Namespace) -> int:
    top = scan.named_folder(options.folder)
    limit = None if options.older is None else moment(options.older)
    due, left = [], []
    places = trash.places(top)
    for place in places:
        path = f"{top}/{trash.FOLDER}/{place}"
        if limit is not None and _files.status_of(path).st_mtime >= limit:
            continue
        try:
            trash.require_ours(top, place)
            due.append(path)
        except OSError as e:
            left.append(str(e))
    _tell(left, sys.stderr)
    if not due:
        if not left:
            print("nothing in the trash is that old" if places else "the trash is empty")
        return FAILED if left else 0
    size = sum(scan.size_of(path, whole=True) for path in due)
    if not _agreed(options, f"delete {amount(size)} for good", due, "--apply"):
        return 0
    for path in due:
        _files.remove_tree(path)
    rest = [path for path in due if os.path.lexists(path)]
    _tell([f"deleted {amount(size - sum(scan.size_of(path, whole=True) for path in rest))}"])
    _tell([f"left {path}: not all in it may be deleted by this user" for path in rest], sys.stderr)
    return FAILED if rest or left else 0
