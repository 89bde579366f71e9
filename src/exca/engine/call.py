"""What travels to a job: under which claim it computes, and what."""

import contextlib
import dataclasses
import os
import pickle
import sys
import time
import typing as tp
import uuid
from pathlib import Path

from .. import _files
from .._log import logger
from ..errors import UntrustedFileError
from ..jobs import backends, losses
from ..jobs.environment import current_job
from ..jobs.paths import JobPaths, part_of
from ..jobs.remote_errors import RemoteError
from . import earlier, record
from .method import Method, running
from .record import KEY

if tp.TYPE_CHECKING:
    from ..claims import Claim, Claims
    from ..codedigest import CodeDigest


class Worker(tp.Protocol):
    """Computes items and stores their results; travels to jobs and to other processes."""

    def compute(self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any]) -> tp.Sequence[str] | None:
        """Compute the items and store each result under its key; returns the keys left to others, if any."""


@dataclasses.dataclass
class PickledWorker:
    """A worker that many jobs need, pickled once beside their logs."""

    path: Path
    digest: str  # of what was written there; it travels with the call, which is checked itself

    @classmethod
    def write(cls, worker: Worker, folder: Path, max_gb: float | None) -> "PickledWorker":
        """Pickle a worker into a fresh file of a folder."""
        data = backends.pickled(tp.cast(tp.Any, worker), max_gb)
        _files.make_folders(os.fspath(folder))
        path = folder / f"{uuid.uuid4().hex}.shared.pkl"
        _files.write_atomically(path, data, mode=_files.PRIVATE)
        return cls(path, _files.digest(data))

    def load(self) -> Worker:
        """Load the worker, if it is what was written."""
        data = _files.read_file(str(self.path))
        if _files.digest(data) != self.digest:
            raise UntrustedFileError(
                f"{self.path} is not what was submitted: it was exchanged, so it is not loaded"
            )
        return tp.cast(Worker, pickle.loads(data))


@dataclasses.dataclass(repr=False)
class ClaimedCall:
    """What a job runs: some keys of a folder, under the claim that it was given."""

    folder: Path  # of the claim, and of the results
    token: str  # of the claim
    logs: str  # folder of the job's logs, with ``%j`` for its id

    def __call__(self) -> tp.Any:
        """Run in a job; an error that is stored nowhere is returned, to be raised in the caller."""
        from ..claims import Claims, chain

        where, rank = current_job(self.logs)
        if rank > 0:
            try:
                return self.run_beside()
            except Exception as e:
                logger.exception("Process %d of %r failed", rank, self)
                return RemoteError(e)
        claim = Claims(self.folder).adopt(self.token, where["job_id"]) or self.reclaim()
        if claim is None:
            logger.warning("%r: another process computes this by now, and it is left to that one", self)
            return None
        with claim, chain.under(claim):
            return self.compute(claim, where)

    def compute(self, claim: "Claim", where: dict[str, tp.Any]) -> tp.Any:
        """Compute and store, in the first process of the job."""
        raise NotImplementedError

    def run_beside(self) -> tp.Any:
        """What the other processes of the job run and return."""

    def reclaim(self) -> "Claim | None":
        """The claim once more, where it was lost though the job goes on."""


@dataclasses.dataclass(repr=False)
class ItemsCall(ClaimedCall):
    """A share of the items of one computation."""

    worker: PickledWorker
    keys: list[str]
    items: list[tp.Any]
    not_before: float = 0.0  # when it may start, in seconds since the epoch: the job before it was lost

    def __repr__(self) -> str:
        return f"{len(self.keys)} item(s) of {self.folder.parent.name}/{self.folder.name}"

    def compute(self, claim: "Claim", where: dict[str, tp.Any]) -> tp.Any:
        """Compute the items; an error is returned."""
        losses.wait_until(self.not_before)
        try:
            return self.worker.load().compute(self.keys, self.items)
        except Exception as e:
            logger.exception("%r failed", self)
            return RemoteError(e)


@dataclasses.dataclass(repr=False)
class TaskCall(ClaimedCall):
    """A task."""

    method: Method
    replaces: str | None = None  # the attempt whose outcome is there already
    submitted: float | None = None  # when, in seconds since the epoch
    code: "CodeDigest | None" = None
    # the attempts before it, and what becomes of it should it be lost
    series: losses.Series = losses.NONE_LOST

    def __repr__(self) -> str:
        return f"{type(self.method.obj).__qualname__} ({self.folder.parent.name}/{self.folder.name})"

    def run_beside(self) -> tp.Any:
        """Call the method in a process whose outcome is not recorded."""
        if earlier.of(self.method) and earlier.first_in_the_way(self.method) is not None:
            return None
        outer = running.set((self.method, self.token, "task"))
        try:
            return self.method.call()
        finally:
            running.reset(outer)

    def compute(self, claim: "Claim", where: dict[str, tp.Any]) -> None:
        """Compute and publish the outcome; an error is part of it."""
        if where["cluster"] != "debug":
            submitted = record.read_submission(self.folder)
            if submitted is None or submitted.attempt != self.token:
                with contextlib.suppress(OSError):  # the submitter died before it could note which job it is
                    submitted_at = None if self.submitted is None else record.iso(self.submitted)
                    record.note_submission(
                        *(self.folder, where, self.token, self.replaces),
                        series=self.series,
                        submitted=submitted_at,
                    )
        losses.wait_until(self.series.not_before)
        self.method.freeze()
        started = time.time()
        if earlier.of(self.method) and self._comes_too_soon(claim, where, started):
            return
        series = self.series._replace(lost=(*self.series.lost, *self._requeues(where)))
        saving = self._saving(where, started) if where["cluster"] == "slurm" else contextlib.nullcontext()
        try:
            with saving:
                record.compute(
                    *(self.method, self.folder, claim, where, self.token),
                    submitted=self.submitted,
                    sent=self.code,
                    series=series,
                    keep=lambda error: not self._is_lost_by(error, claim, where, started),
                )
        except Exception:
            if where["cluster"] == "debug" and sys.stdin is not None and sys.stdin.isatty():
                raise  # submitit's debug executor stops here in a debugger
            logger.exception("%r failed", self)

    def _comes_too_soon(self, claim: "Claim", where: dict[str, tp.Any], started: float) -> bool:
        """Whether a task before this one has failed, which is published, or is not done, which is no attempt then."""
        now = earlier.first_in_the_way(self.method)
        if now is None:
            return False
        if now.word in ("failed", "nothing"):
            earlier.publish_failure(self.method, claim, now, where, self.token)
        else:
            loss = earlier.loss_of(now, self.token, where, started)
            record.note_loss(self.folder, self.token, [*self._requeues(where), loss], claim)
            logger.warning("%r is sent back: %s", self, loss["reason"])
        return True

    def _requeues(self, where: dict[str, tp.Any]) -> list[losses.Attempt]:
        """The earlier runs of this very job, before the scheduler requeued it."""
        return record.requeues(JobPaths(where["logs"], where["job_id"]).folder, self.token, where)

    def _saving(self, where: dict[str, tp.Any], started: float) -> tp.ContextManager[None]:
        """Context in which the computation saves its state when the job is warned of its end."""
        from ..jobs import before_end, entry

        logs = JobPaths(where["logs"], where["job_id"]).folder
        try:
            since = (logs / entry.BEGAN).stat().st_mtime  # by the clock by which files get their times
        except OSError:
            since = started
        return before_end.saving(
            logs,
            delay=self.method.resources.slurm_signal_delay_s,
            save=_checkpoint_of(self.method.obj),
            resumable=lambda: record.holds_files_of_users(self.folder, since),
            most=0
            if part_of(where["logs"])
            else self.series.policy.max_requeues,  # the whole job is requeued, or none
            minutes=self.method.resources.timeout_min,
        )

    def _is_lost_by(self, error: Exception, claim: "Claim", where: dict[str, tp.Any], started: float) -> bool:
        """Whether an exception is no outcome, since there is another attempt after it: then the loss is noted."""
        name = self.series.policy.named(error)
        if name is None or where["cluster"] == "debug" or not self.series.tries_again(name):
            return False
        submitted = None if self.submitted is None else record.iso(self.submitted)
        loss = record.loss_of(
            *(name, f"{type(error).__qualname__}: {error}", self.token, where),
            host=_files.host_name(),
            submitted=submitted,
            started=record.iso(started),
        )
        try:
            record.note_loss(self.folder, self.token, [*self._requeues(where), loss], claim)
        except OSError as e:  # then it is kept, and not tried again
            error.add_note(f"This loss could not be noted in {self.folder}: {e}")
            return False
        return True

    def reclaim(self) -> "Claim | None":
        """Claim the task again where this very job was noted as lost or failed, though it has just been requeued."""
        from ..claims import Claims

        claims = Claims(self.folder)
        claims.wait([record.end_of(self.token)], done=lambda: False)  # until the record is there
        found = record.read(self.folder)
        if found is None or found.attempt == self.replaces:
            return self._reclaim_lost(claims)
        if found.attempt != self.token or "ended" not in found.content:
            return None
        claim, _ = claims.acquire([KEY])
        if claim is not None:
            logger.warning(
                "The record of %r has this job as ended (%s), but it runs again: computing, and replacing the record",
                self,
                found.content["ended"],
            )
        return claim

    def _reclaim_lost(self, claims: "Claims") -> "Claim | None":
        """Claim the task again where this job was noted as lost and no later attempt is under way."""
        claim, _ = claims.acquire([KEY])
        if claim is not None and not record.note_revival(self.folder, self.token):
            claim.release()
            return None
        return claim


def _checkpoint_of(obj: tp.Any) -> tp.Callable[[], tp.Any] | None:
    """The method by which a configuration offers to save the state of its computation."""
    import inspect

    method = getattr(obj, "checkpoint", None)
    if not callable(method) or not callable(getattr(type(obj), "checkpoint", None)):
        return None
    try:
        inspect.signature(method).bind()
    except (TypeError, ValueError):  # it is for something else
        return None
    return tp.cast("tp.Callable[[], tp.Any]", method)
