"""Logs of jobs: which file, and following it while it grows."""

import os
import re
import sys
import time
import typing as tp
from pathlib import Path

from .. import _files
from ..catalog import scan
from ..catalog.rows import Row
from ..errors import NoSuchTaskError, UntrustedFileError
from ..jobs.paths import JobPaths

_PAUSE = 0.2  # seconds between two looks at a log
_BLOCK = 1 << 16
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def log_of(row: Row, *, err: bool = False, rank: int = 0) -> Path:
    """The file with what the job of a task printed.

    Raises
    ------
    NoSuchTaskError
        if no job of it is known
    UntrustedFileError
        if another user wrote down where it is, outside of the cache
    """
    from ..engine import record

    folder = Path(row.folder)
    submitted = record.read_submission(folder) if row.state in ("running", "empty", "interrupted") else None
    found = None if submitted is not None else record.read(folder)
    if submitted is not None:
        logs, job_id, trusted = (
            submitted.submission.logs,
            submitted.submission.job_id,
            submitted.submission.trusted,
        )
    elif found is not None and found.content.get("job_id"):
        logs, job_id, trusted = str(found.content.get("logs")), str(found.content["job_id"]), found.trusted
    else:
        raise NoSuchTaskError(
            f"{row.address} was computed by no job, so there is no log: it printed where it was called"
        )
    paths = JobPaths(logs, job_id, rank)
    path = paths.stderr if err else paths.stdout
    if not trusted and not path.resolve().is_relative_to(Path(row.top).resolve()):
        raise UntrustedFileError(
            f"another user may have written down that the log of {row.address} is {path}, outside of {row.top}: not "
            "printed. To trust what that user writes: export EXCA_TRUSTED_USERS=<name>"
        )
    return path


def print_log(row: Row, path: Path, *, follow: bool, lines: int | None) -> int:
    """Print a log, and go on while its job runs."""
    try:
        file = _files.open_regular(str(path))
    except FileNotFoundError:
        raise NoSuchTaskError(f"there is no log {path}: its job has not begun, or it was removed") from None
    with file:
        foreign = hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid != os.geteuid()
        quoted = foreign and sys.stdout.isatty()  # a stranger's log moves no cursor
        if lines is not None:
            _go_to_last(file, lines)
        while True:
            # asked before the rest is read: what a job prints at its end is printed here too
            ended = not follow or _has_ended(row)
            while data := file.read(_BLOCK):
                text = data.decode("utf-8", "replace")
                sys.stdout.write(_CONTROL.sub(lambda m: repr(m[0])[1:-1], text) if quoted else text)
            sys.stdout.flush()
            if ended:
                return 0
            time.sleep(_PAUSE)


def _has_ended(row: Row) -> bool:
    now = scan.look_again(row)
    return now is None or now.state != "running"


def _go_to_last(file: tp.BinaryIO, lines: int) -> None:
    """Go to the beginning of the last lines of a file."""
    end = at = file.seek(0, os.SEEK_END)
    tail = b""
    while at and tail.count(b"\n") <= lines:
        at = max(0, at - _BLOCK)
        file.seek(at)
        tail = file.read(end - at)
    rest = b"".join(tail.splitlines(keepends=True)[-lines:]) if lines > 0 else b""
    file.seek(end - len(rest))
