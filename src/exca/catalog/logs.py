"""Logs of jobs: which file holds what the job of a task printed."""

import os
import re
from pathlib import Path

from .. import _files
from ..errors import NoSuchTaskError, OddFileError, UntrustedFileError
from ..jobs.paths import JobPaths
from .rows import Row, printable

CONTROL: re.Pattern[str] = re.compile(r"[^\n\t -~]")  # what may not be printable
_COLOURS = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")


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
    found = None if submitted is not None else record.read(folder, looking=True)
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


def tail(path: str | Path, most: int = 4096) -> str:
    """The end of a log as a text of at most so many bytes, from the beginning of a line; "" where there is none.

    Colours are left out, and other control characters are shown as they are written in Python.
    """
    try:
        with _files.open_regular(str(path)) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            data = file.read(most)
    except (OSError, OddFileError):
        return ""
    text = data.decode("utf-8", "replace")
    if size > most:
        text = text.partition("\n")[2] or text
    lines = _COLOURS.sub("", text).replace("\r\n", "\n").split("\n")
    return plain("\n".join(line.rpartition("\r")[2] for line in lines))


def plain(text: str) -> str:
    """A text without colours, in which nothing moves a cursor or turns the direction of what follows."""
    return CONTROL.sub(lambda m: printable(m[0]), _COLOURS.sub("", text))
