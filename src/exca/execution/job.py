"""Jobs: handles on computations that are on their way or done."""

import abc
import dataclasses
import logging
import time
import typing as tp
from pathlib import Path

from .. import _trust
from ..errors import JobError
from . import backends, paths, record
from .submission import Submission

R = tp.TypeVar("R")
logger = logging.getLogger("exca")

# A finished job leaves its mark before the scheduler says it ended; files may show up late on a shared folder.
_FIRST_POLL, _LAST_POLL, _LIVENESS_EVERY = 0.002, 0.25, 1.0


class Job(abc.ABC, tp.Generic[R]):
    """A computation on its way or done: here, in another process or on a cluster.

    Parameters
    ----------
    submission: Submission
        where it went
    """

    def __init__(self, submission: Submission) -> None:
        self.submission = submission

    @property
    def job_id(self) -> str:
        """Id of the job, as its backend names it."""
        return self.submission.job_id

    @property
    def cluster(self) -> str | None:
        """Where the job runs; None is this process."""
        return self.submission.cluster

    @property
    def paths(self) -> paths.JobPaths:
        """Files of the job: ``folder``, ``stdout``, ``stderr``, ``submitted_pickle``, ``result_pickle``."""
        return paths.JobPaths(self.submission.logs, self.job_id)

    @property
    def state(self) -> str:
        """The scheduler's word for the state of the job (``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``...)."""
        outcome = self._finished()
        if outcome is not None:
            return "COMPLETED" if outcome else "FAILED"
        return self._scheduler_state()

    def done(self) -> bool:
        """Whether there is an outcome, be it a result or an error."""
        return self._finished() is not None or self._ended_without_outcome()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is done.

        Parameters
        ----------
        timeout: float, optional
            how long at most, in seconds

        Returns
        -------
        bool
            whether it is done
        """
        start = time.monotonic()
        pause, looked, told = _FIRST_POLL, start, False
        while self._finished() is None:
            now = time.monotonic()
            if timeout is not None and now - start > timeout:
                return False
            if now - looked > min(_LIVENESS_EVERY, 10 * pause):
                looked = now
                if self._ended_without_outcome():
                    return True
            if not told and now - start > 1:
                told = True
                logger.info("Waiting for %s", self.describe())
            time.sleep(pause)
            pause = min(pause * 1.3, _LAST_POLL)
        return True

    @abc.abstractmethod
    def result(self) -> R:
        """Wait for the job and return its result.

        Raises
        ------
        Exception
            the error of the computation, with its own type where it can be carried
        JobError
            if the job ended without an outcome
        """

    def results(self) -> list[R]:
        """Results of all processes of the job (see ``tasks_per_node``), by rank."""
        first = self.result()
        return [first, *(self._result_of_rank(rank) for rank in range(1, self.submission.processes))]

    def exception(self) -> BaseException | None:
        """Wait for the job and return its error, or None."""
        try:
            self.result()
        except Exception as e:
            return e
        return None

    def stdout(self) -> str | None:
        """What the job printed so far, or None where there is no such file."""
        return _text(self.paths.stdout)

    def stderr(self) -> str | None:
        """What the job printed to stderr so far, or None where there is no such file."""
        return _text(self.paths.stderr)

    def cancel(self) -> None:
        """End the job now; one that is done stays as it is."""
        if not self.done():
            backends.cancel(self.submission)

    def describe(self) -> str:
        """The job in words, with the place of its logs."""
        if self.cluster is None:
            return "the computation in this process"
        kind = {"slurm": "Slurm job", "local": "local job"}.get(self.cluster, f"{self.cluster} job")
        return f"{kind} {self.job_id} (logs: {self.paths.stderr})"

    def __await__(self) -> tp.Generator[tp.Any, tp.Any, R]:
        import asyncio

        async def wait() -> R:
            return await asyncio.to_thread(self.result)

        return wait().__await__()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(cluster={self.cluster!r}, job_id={self.job_id!r}, state={self.state!r})"
        )

    @abc.abstractmethod
    def _finished(self) -> bool | None:
        """Whether it succeeded; None while there is no outcome."""

    def _ended_without_outcome(self) -> bool:
        """Whether nothing stands behind the job any more and it left no outcome."""
        if self._process_alive() is not False:
            return False
        return self._finished() is None  # the outcome may have come just before the end

    def _process_alive(self) -> bool | None:
        """Whether the job is waiting or running, as far as the backend can tell."""
        return backends.alive(self.submission)

    def _scheduler_state(self) -> str:
        return backends.state(self.submission)

    def _result_of_rank(self, rank: int) -> tp.Any:
        path = dataclasses.replace(self.paths, rank=rank).result_pickle
        deadline = time.monotonic() + 60
        while not path.exists():
            if self._process_alive() is False or time.monotonic() > deadline:
                raise JobError(f"process {rank} of {self.describe()} left no result; see {path.parent}")
            time.sleep(0.02)
        return load_result_pickle(path, self)

    def death_notice(self) -> str:
        """Why the job has no outcome: what the scheduler says and the end of stderr."""
        text = f"{self.describe()} ended without a result. {backends.verdict(self.submission)}"
        # what another user may have named is not passed on to whoever reads the record
        err = paths.tail(self.paths.stderr) if self.submission.trusted else ""
        return text + (
            f"\nEnd of its stderr ({self.paths.stderr}):\n{err}"
            if err
            else f"\nIts stderr is empty ({self.paths.stderr})."
        )


class DoneJob(Job[R]):
    """A computation that was done in this process.

    Parameters
    ----------
    value: Any
        its result
    error: Exception, optional
        its error
    folder: Path, optional
        uid folder that holds its record
    """

    def __init__(self, value: tp.Any, error: Exception | None = None, folder: Path | None = None) -> None:
        super().__init__(Submission(None, "inline", ""))
        self.value = value
        self.error = error
        self.folder = folder

    @classmethod
    def of(cls, call: tp.Callable[[], tp.Any]) -> "tp.Self":
        """Call, and keep what came of it.

        Parameters
        ----------
        call: callable
            without arguments
        """
        try:
            return cls(call())
        except Exception as e:
            return cls(None, e)

    def outcome(self) -> record.Record | None:
        """The outcome on disk, if any."""
        return None if self.folder is None else record.read(self.folder)

    def _finished(self) -> bool:
        return self.error is None

    def result(self) -> R:
        """The result, or the error raised."""
        if self.error is not None:
            raise self.error
        return tp.cast(R, self.value)


def load_result_pickle(path: Path, job: Job[tp.Any]) -> tp.Any:
    """Load what a process of a job returned, or raise what it raised.

    Parameters
    ----------
    path: Path
        file in submitit's format: a pickled pair of "success" and the value or "error" and the traceback
    job: Job
        the job, for the error
    """
    kind, value = _trust.load_pickle(path)
    if kind != "success":
        raise JobError(f"{job.describe()} failed:\n{value}")
    if isinstance(value, CarriedError):
        raise value.rebuilt(job)
    return value


class CarriedError:
    """An error on its way from a job to the caller.

    Parameters
    ----------
    error: BaseException
        what the computation raised
    """

    def __init__(self, error: BaseException) -> None:
        self.content = record.error_content(error)

    def rebuilt(self, job: Job[tp.Any]) -> BaseException:
        """The error as it was raised in the job, the remote traceback added as a note."""
        return record.rebuild_error(self.content, trusted=True, where=job.describe())


class CallJob(Job[R]):
    """A submitted call whose result lies beside its logs.

    Parameters
    ----------
    submission: Submission
        where it went
    """

    def _finished(self) -> bool | None:
        if not self.paths.result_pickle.exists():
            return None
        try:
            return not isinstance(self._load(), BaseException)
        except OSError:
            return False

    def _load(self) -> tp.Any:
        try:
            return load_result_pickle(self.paths.result_pickle, self)
        except Exception as e:
            return e

    def result(self) -> R:
        """Wait for the call and return what it returned.

        Raises
        ------
        Exception
            the error of the call, with its own type where it can be carried
        JobError
            if the job ended without an outcome
        """
        while not self.paths.result_pickle.exists():
            self.wait()
            if not self.paths.result_pickle.exists():
                raise JobError(self.death_notice())
        return tp.cast(R, load_result_pickle(self.paths.result_pickle, self))

    def done(self) -> bool:
        """Whether there is an outcome, be it a result or an error."""
        return self.paths.result_pickle.exists() or self._ended_without_outcome()


class TaskJob(Job[R]):
    """The computation of a task, whose outcome is the record in its uid folder.

    Parameters
    ----------
    folder: Path
        uid folder of the task
    submission: Submission
        where it went
    attempt: str
        token of the computation that is meant; empty for whichever is recorded
    hint: str
        how to compute it again, added to errors
    replaces: str, optional
        the attempt whose outcome was there before and does not count
    """

    def __init__(
        self,
        folder: Path,
        submission: Submission,
        attempt: str = "",
        hint: str = "",
        replaces: str | None = None,
    ) -> None:
        super().__init__(submission)
        self.folder = folder
        self.attempt = attempt
        self.hint = hint
        self.replaces = replaces

    def outcome(self) -> record.Record | None:
        """The outcome of this attempt, or of a later one that has taken its place."""
        if not self.attempt:
            return record.latest(self.folder)
        found = record.read(self.folder)
        return None if found is None or found.attempt == self.replaces else found

    def _finished(self) -> bool | None:
        found = self.outcome()
        return None if found is None else found.state == "completed"

    def _ended_without_outcome(self) -> bool:
        from ..claims import Claims

        for holder in Claims(self.folder).holders().values():
            if holder.token == self.attempt and holder.alive():
                return False
        if self._process_alive() is True:
            return False
        return self._finished() is None

    def result(self) -> R:
        """Wait for the task and return its result.

        Raises
        ------
        Exception
            the error of the task, with its own type where it can be carried, the remote traceback in it
        JobError
            if the job ended without an outcome
        """
        self.wait()
        found = self.outcome() or self.record_death()
        if found is None:
            raise JobError(f"the computation of {self.folder} was taken over by another; ask again")
        if found.state == "completed":
            return tp.cast(R, found.value())
        error = found.exception()
        if self.hint:
            error.add_note(self.hint)
        raise error

    def record_death(self) -> record.Record | None:
        """Publish that the job ended without an outcome, so that every later reader knows why.

        A result that it was to replace stays: then only the caller is told.
        """
        if not self._ended_without_outcome():
            return self.outcome()
        content = {"type": "", "message": self.death_notice(), "traceback": "", "pickle": None}
        where = self.submission.to_json()
        return record.publish_failure(self.folder, self.attempt, content, where, self.replaces)


class EarlierJob(TaskJob[R]):
    """A task's job that an earlier release submitted: no failure is kept on its behalf."""

    def record_death(self) -> record.Record | None:
        """Raise that the job ended without an outcome.

        Raises
        ------
        JobError
            always, if there is no outcome by now
        """
        found = self.outcome()
        if found is None and self._ended_without_outcome():
            raise JobError(
                f"{self.describe()}, which an earlier release of exca submitted, ended without an outcome that can "
                f"be used. Nothing is kept of it: ask for {self.folder.parent.name}/{self.folder.name} again to "
                "submit it again"
            )
        return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf8", errors="replace")
    except FileNotFoundError:
        return None
