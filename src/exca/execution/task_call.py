"""Computing one task, here or in a job, and publishing its outcome."""

import contextlib
import logging
import os
import sys
import typing as tp
from pathlib import Path

import orjson

from .. import _files
from ..errors import ChangedConfigError, ResultError
from ..jobs.current import current_job
from ..jobs.remote_errors import RemoteError
from . import record
from .record import KEY

if tp.TYPE_CHECKING:
    from ..claims import Claim
    from ..infra.base import BaseInfra

logger = logging.getLogger("exca")


class TaskCall:
    """What a job runs for a task.

    Parameters
    ----------
    obj: Any
        the configuration
    infra_name: str
        name of its infra
    folder: Path
        uid folder of the task
    token: str
        token of the claim under which it runs
    logs: str
        folder of the job's logs, with ``%j`` for its id
    replaces: str, optional
        the attempt whose outcome is there already
    """

    def __init__(
        self,
        obj: tp.Any,
        infra_name: str,
        folder: Path,
        token: str,
        logs: str,
        *,
        replaces: str | None = None,
    ) -> None:
        self.obj = obj
        self.infra_name = infra_name
        self.folder = folder
        self.token = token
        self.logs = logs
        self.replaces = replaces

    def __repr__(self) -> str:
        return f"{type(self.obj).__qualname__} ({self.folder.parent.name}/{self.folder.name})"

    def __call__(self) -> tp.Any:
        """Run in a job: the first process publishes the outcome, the others return theirs."""
        from ..claims import Claims

        infra = getattr(self.obj, self.infra_name)
        where, rank = current_job(self.logs)
        if rank > 0:
            try:
                return infra._applied.function(self.obj)
            except Exception as e:
                logger.exception("Process %d of %r failed", rank, self)
                return RemoteError(e)
        claim = Claims(self.folder).adopt(self.token) or self._contradict()
        if claim is None:
            logger.warning("%r is computed by another process by now: leaving it to that one", self)
            return None
        with claim:
            self._note_submission(where)
            try:
                compute(infra, self.folder, claim, where, attempt=self.token)
            except Exception:
                if where["cluster"] == "debug" and sys.stdin is not None and sys.stdin.isatty():
                    raise  # submitit's debug executor stops here in a debugger
                logger.exception("%r failed", self)
        return None

    def _note_submission(self, where: dict[str, tp.Any]) -> None:
        """Say which job computes the task, should the submitter have died before it could."""
        from .task_start import SUBMISSION, read_attempt

        if where["cluster"] == "debug" or read_attempt(self.folder) == self.token:
            return
        note = orjson.dumps({**where, "attempt": self.token, "replaces": self.replaces})
        with contextlib.suppress(OSError):
            _files.write_atomically(self.folder / SUBMISSION, note, mode=_files.OWN)

    def _contradict(self) -> "Claim | None":
        """Claim the task again where its record says that this very job failed, though it has just been requeued."""
        from ..claims import Claims

        claims = Claims(self.folder)
        claims.wait([record.end_of(self.token)], done=lambda: False)  # until the record is there
        found = record.read(self.folder)
        if found is None or found.attempt != self.token or "ended" not in found.content:
            return None
        claim, _ = claims.acquire([KEY])
        if claim is not None:
            logger.warning(
                "The record of %r says that this job had ended (%s), but it runs again: computing, and replacing the "
                "record",
                self,
                found.content["ended"],
            )
        return claim


def compute(
    infra: "BaseInfra", folder: Path, claim: "Claim", where: dict[str, tp.Any], *, attempt: str = ""
) -> tp.Any:
    """Compute a task and publish its outcome under a claim.

    Parameters
    ----------
    infra: BaseInfra
        infra of the task, bound to its object
    folder: Path
        uid folder
    claim: Claim
        the claim on the task
    where: dict
        cluster, job id and logs, for the record
    attempt: str
        token of the attempt in the record, by default the claim's

    Returns
    -------
    Any
        what the method returned

    Raises
    ------
    Exception
        what the method raised, after it was published
    """
    obj, applied = infra._bound
    from ..claims import chain

    infra.uid()  # from here on, a change is seen
    this = record.Attempt(folder, attempt or claim.token, where, _source_folder(type(obj)))
    try:
        with chain.under(claim), chain.computing([KEY], started=True):
            value = applied.function(obj)
    except Exception as e:
        infra._require_unchanged()
        _publish_error(this, e)
        raise
    try:
        infra._require_unchanged()
    except ChangedConfigError as e:
        if where:  # who waits for a job gets no other word of it
            _publish_error(this, e)
        raise
    if not claim.is_valid():
        logger.warning(
            "%s was taken over by another process while it was computed: not published again", folder
        )
        return value
    try:
        this.completed(value)
    except ResultError as e:
        _publish_error(this, e)
        raise
    return value


def _publish_error(attempt: record.Attempt, error: Exception) -> None:
    try:
        attempt.failed(error)
    except OSError as e:  # say what went wrong first, not that it could not be kept
        error.add_note(f"This error could not be kept in {attempt.folder}: {e}")


def _source_folder(cls: type) -> str:
    """Folder of the code of a class, or the current one where it has no file."""
    module = sys.modules.get(cls.__module__)
    # in a job, __main__ is the program that runs jobs, not the script that defined the class
    known = hasattr(module, cls.__qualname__.partition(".")[0])
    file = getattr(module, "__file__", None) if known else None
    return os.path.dirname(file or "") or os.getcwd()
