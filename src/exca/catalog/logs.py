"""Logs of jobs: which file holds what the job of a task printed."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from .. import _files
from ..errors import NoSuchTaskError, OddFileError, UntrustedFileError
from ..jobs import losses
from ..jobs.paths import JobPaths
from .rows import Row, printable

CONTROL: re.Pattern[str] = re.compile(r"[^\n\t -~]")  # what may not be printable
_JOB = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)  # no path
_COLOURS = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")


@dataclasses.dataclass(frozen=True)
class Logged:
    """Where the job of a task has its logs, as the folder tells.

    Parameters
    ----------
    logs, job_id: str
        folder of the job's logs, as a pattern, and the job
    processes: int
        how many the job has
    trusted: bool
        whether a user who is trusted wrote that down
    earlier: sequence of dict
        the attempts that were lost before it
    """

    logs: str
    job_id: str
    processes: int
    trusted: bool
    earlier: Sequence[losses.Attempt]

    def job_of(self, attempt: int) -> str:
        """The job of an attempt, counted from 1, or with 0 of the latest; "" where none of its own is known."""
        if not attempt:
            return self.job_id
        job_id = self.earlier[attempt - 1].get("job_id") if attempt <= len(self.earlier) else None
        # a job that was requeued goes on with the same log
        fits = isinstance(job_id, str) and _JOB.fullmatch(job_id) and job_id != self.job_id
        return str(job_id) if fits else ""


def logged_by(row: Row) -> Logged | None:
    """Which job has what a task printed; None where none is known."""
    from ..engine import record

    folder = Path(row.folder)
    submitted = record.read_submission(folder) if row.state in ("running", "empty", "interrupted") else None
    if submitted is not None:
        job = submitted.submission
        return Logged(job.logs, job.job_id, job.processes, job.trusted, submitted.lost)
    found = record.read(folder, looking=True)
    if found is None or not found.content.get("job_id"):
        return None
    content, processes = found.content, found.content.get("processes")
    return Logged(
        str(content.get("logs")),
        str(content["job_id"]),
        processes if type(processes) is int else 1,
        found.trusted,
        losses.lost_attempts(content.get("attempts")),
    )


def log_of(row: Row, *, err: bool = False, rank: int = 0, attempt: int = 0) -> Path:
    """The file with what the job of a task printed, or that of an earlier attempt, counted from 1.

    Raises
    ------
    NoSuchTaskError
        if no such job of it is known
    UntrustedFileError
        if another user wrote down where it is, outside of the cache
    """
    found = logged_by(row)
    if found is None:
        raise NoSuchTaskError(
            f"{row.address} was computed by no job, so there is no log: it printed where it was called"
        )
    job_id = found.job_of(attempt)
    if not job_id:
        raise NoSuchTaskError(f"{row.address} has no attempt {attempt} with a log of its own")
    paths = JobPaths(found.logs, job_id, rank)
    path = paths.stderr if err else paths.stdout
    if not found.trusted and not path.resolve().is_relative_to(Path(row.top).resolve()):
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
