"""Jobs: handles on computations that are on their way or done."""

import abc
import contextlib
import os
import typing as tp
from pathlib import Path

from .. import _files, _foreign, _trust
from .._log import logger
from .._polling import Poller
from ..errors import JobError
from . import backends, entry, losses, paths
from .backends import Submission
from .remote_errors import RemoteError, rebuild_error

R = tp.TypeVar("R")

# seconds: a finished job leaves its mark before the scheduler tells that it ended
_LIVENESS_EVERY = 1.0
SAY_WHY = 60.0  # seconds of waiting after which it is said why a job is pending


# attributes of submitit's jobs, and what to write here
_OF_SUBMITIT = {
    "awaitable": "write await job",
    "task": "write job.results()[rank] for the result of one process",
    "num_tasks": "write len(job.results())",
    "submission_id": "write job.submission",
    "get_info": "write job.state",
    "cancel_at_deletion": "write job.cancel() where the job is to end",
}


class Job(abc.ABC, tp.Generic[R]):
    """A computation on its way or done: here, in another process or on a cluster.

    Parameters
    ----------
    submission: Submission
        where it went
    """

    def __init__(self, submission: Submission) -> None:
        self.submission: Submission = submission

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
            return "COMPLETED" if outcome else self._word_of_failure()
        return self._scheduler_state()

    def _word_of_failure(self) -> str:
        return "FAILED"

    def send_others(self) -> None:
        """Send what waits for room in the queue, since a caller waits anyway."""

    def sent_with(self) -> tp.Hashable:
        """Return what is the same for all jobs for which `send_others` does the same."""
        return None

    def go_on(self) -> bool:
        """Submit again what was lost and is to be tried again, since a caller waits; return whether it was so."""
        return False

    def is_listed(self) -> bool:
        """Whether it waits to be sent, so that there is nothing to ask about it yet."""
        return False

    def succeeded(self) -> bool | None:
        """Whether there is a result (True), or an error; None while there is neither. No scheduler is asked."""
        return self._finished()

    def began(self) -> bool:
        """Whether the job has started to run what it was given; no scheduler is asked."""
        return entry.has_begun(self.paths.folder)

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
        poller = Poller(timeout)
        try:
            with self.waiting() as look:
                while self._finished() is None:
                    if poller.is_time_to("look for its end", every=_LIVENESS_EVERY):
                        if self._ended_without_outcome():
                            return True
                        self.send_others()
                        if poller.is_time_once("tell why", after=SAY_WHY):
                            logger.info("Still waiting for %s", self.describe())
                    look(poller.waited)
                    if not poller.pause():
                        return False
        except KeyboardInterrupt:
            if timeout is None:  # else the caller has something to say
                say_they_go_on([self])
            raise
        return True

    @contextlib.contextmanager
    def waiting(self) -> tp.Iterator[tp.Callable[[float], None]]:
        """Context of waiting: gives what is to be called now and then, with the seconds waited."""
        yield lambda waited: None

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
        """Return the results of all processes of the job (see ``tasks_per_node``), by rank."""
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
        """Return what the job printed so far, or None where there is no such file."""
        return _text(self.paths.stdout)

    def stderr(self) -> str | None:
        """Return what the job printed to stderr so far, or None where there is no such file."""
        return _text(self.paths.stderr)

    def cancel(self) -> None:
        """End the job now; one that is done stays as it is."""
        if not self.done():
            backends.cancel([self.submission])
            self.was_cancelled()

    def was_cancelled(self) -> None:
        """Take note that the job was just ended."""

    def describe(self) -> str:
        """Return the job in words, with the place of its logs."""
        waits_for = "" if self._finished() is not None else self._backend.waits_for(self.submission)
        return self.label() + (f", pending: {waits_for}" if waits_for else "")

    def label(self) -> str:
        """Return the job in words, for messages that ask nothing of the scheduler."""
        if self.cluster is None:
            return "the computation in this process"
        kind = {"slurm": "Slurm job", "local": "local job"}.get(self.cluster, f"{self.cluster} job")
        part = paths.part_of(self.submission.logs)
        which = "" if part is None else f"task {part.number} of the {part.of} in "
        return f"{which}{kind} {self.job_id} (logs: {self.paths.stderr})"

    if not tp.TYPE_CHECKING:  # type checkers refuse unknown attributes

        def __getattr__(self, name: str) -> tp.Any:
            return _foreign.attribute(self, name, "submitit", _OF_SUBMITIT)

    def __await__(self) -> tp.Generator[tp.Any, tp.Any, R]:
        from .watching import result_of

        return result_of(self).__await__()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(cluster={self.cluster!r}, job_id={self.job_id!r}, state={self.state!r})"
        )

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        title = "computed in this process" if self.cluster is None else f"{self.cluster} job {self.job_id}"
        known: list[tuple[str, str]] = [("state", self.state)]
        if self.cluster is not None:
            known.append(("logs", str(self.paths.folder)))
            if self.succeeded() is False and self.submission.trusted:
                known.append(("end of stderr", paths.tail(self.paths.stderr, 1)))
        return _notebook.card(title, _notebook.pairs(known))

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(repr(self), self._repr_html_())

    @abc.abstractmethod
    def _finished(self) -> bool | None:
        """Whether it succeeded; None while there is no outcome."""

    def _ended_without_outcome(self) -> bool:
        """Whether the job ended without an outcome."""
        if self._process_alive() is not False:
            return False
        return self._finished() is None  # the outcome may have come just before the end

    @property
    def _backend(self) -> backends.Backend:
        return backends.of_job(self.submission)

    def _process_alive(self) -> bool | None:
        """Whether the job is waiting or running, as far as the backend can tell.

        Raises SchedulerError if a scheduler has not answered for so long that waiting on makes no sense.
        """
        alive = backends.alive(self.submission)
        if alive is None and self._backend.decides:
            self._backend.check_patience()
        return alive

    def _scheduler_state(self) -> str:
        return self._backend.state(self.submission)

    def began_at(self) -> tuple[str | None, float | None]:
        """Return on which host the job began, and when, in seconds since the epoch."""
        path = self.paths.folder / entry.BEGAN
        process = entry.noted_process(path)
        try:
            started = path.stat().st_mtime
        except OSError:
            return None, None
        return None if process is None else process.hostname, started

    def _result_of_rank(self, rank: int) -> tp.Any:
        path = self.paths._replace(rank=rank).result_pickle
        poller = Poller(60)
        while not path.exists():
            late = self._process_alive() is False or not poller.pause()
            if late and not path.exists():  # it may have come just before the end
                raise JobError(f"process {rank} of {self.label()} left no result; see {path.parent}")
        return load_result_pickle(path, self)

    def _error_of_a_rank(self) -> dict[str, tp.Any] | None:
        """The error of a process other than the first, which ended the whole job."""
        for rank in range(1, self.submission.processes):
            place = self.paths._replace(rank=rank)
            try:
                kind, value = read_outcome(place.result_pickle)
            except OSError:
                continue
            where = f"Raised by process {rank} of {self.submission.processes}, whose log is {place.stderr}"
            if isinstance(value, RemoteError):
                return {**value.content, "traceback": f"{value.content['traceback'].rstrip()}\n{where}"}
            if kind != "success":
                return {"type": "", "message": f"{where}:\n{value}", "traceback": "", "pickle": None}
        return None

    def death_notice(self) -> str:
        """Return why the job has no outcome: the scheduler's words and the end of stderr."""
        text = f"{self.label()} ended without a result. {self._backend.ending(self.submission).text}"
        # what another user may have named is not passed on to all who read the record
        err = paths.tail(self.paths.stderr) if self.submission.trusted else ""
        return text + (
            f"\nEnd of its stderr ({self.paths.stderr}):\n{err}"
            if err
            else f"\nIts stderr is empty ({self.paths.stderr})."
        )


def say_they_go_on(jobs: "tp.Sequence[Job[tp.Any]]") -> None:
    """Say, when the waiting is interrupted, that the jobs go on and how they are ended."""
    submitted = [job for job in jobs if job.cluster is not None]
    if not submitted:
        return
    ids = list(dict.fromkeys(job.job_id for job in submitted))
    bases = list(dict.fromkeys(i.partition("_")[0] for i in ids))
    how = "job.cancel(), of a task infra.job().cancel()"
    if submitted[0].cluster == "slurm" and all(
        paths.part_of(job.submission.logs) is None for job in submitted
    ):
        how += f", or `scancel {' '.join(ids if len(ids) <= 3 else bases[:10])}`"
    shown = ids[0] if len(ids) == 1 else f"{len(ids)} jobs, {ids[0]} to {ids[-1]},"
    place = "without" if backends.of_job(submitted[0].submission).outlive_submitter else "only as long as"
    logger.warning(
        "Interrupted while waiting: %s %s on %s this interpreter%s. To end %s: %s",
        f"{submitted[0].cluster} job {shown}" if len(ids) == 1 else shown,
        "goes" if len(ids) == 1 else "go",
        place,
        "" if place == "without" else " lives",
        "it" if len(ids) == 1 else "them",
        how,
    )


def cancel_all(jobs: "tp.Iterable[Job[tp.Any]]") -> None:
    """End jobs that are not done, those of a cluster by one command."""
    of_cluster: dict[str | None, list[Job[tp.Any]]] = {}
    for job in jobs:
        if job.succeeded() is not None:
            continue
        if job.is_listed() or not job.job_id:
            job.cancel()
        else:
            of_cluster.setdefault(job.cluster, []).append(job)
    for some in of_cluster.values():
        backends.cancel([job.submission for job in some])
        for job in some:
            job.was_cancelled()


class DoneJob(Job[R]):
    """A computation that was done in this process.

    Parameters
    ----------
    value: Any
        its result
    error: Exception, optional
        its error
    """

    submission: Submission = Submission(None, "inline", "")  # of all of them: nothing was submitted

    def __init__(self, value: tp.Any, error: Exception | None = None) -> None:
        self.value = value
        self.error = error

    @classmethod
    def of(cls, call: tp.Callable[[], tp.Any]) -> "tp.Self":
        """Call, and keep what came of it."""
        try:
            return cls(call())
        except Exception as e:
            return cls(None, e)

    def _finished(self) -> bool:
        return self.error is None

    def result(self) -> R:
        """The result, or the error raised."""
        if self.error is not None:
            raise self.error
        return tp.cast(R, self.value)


def load_result_pickle(path: Path, job: Job[tp.Any]) -> tp.Any:
    """Load what a process of a job returned, or raise what it raised."""
    kind, value = read_outcome(path)
    if kind != "success":
        raise JobError(f"{job.label()} failed:\n{value}")
    if isinstance(value, RemoteError):
        raise value.rebuilt(job.label())
    return value


def read_outcome(path: Path) -> tuple[str, tp.Any]:
    """Read what a process of a job left: "success" and the value, or "error" and the traceback."""
    kind, value = _trust.load_pickle(path)
    return kind, value


class CallJob(Job[R]):
    """A submitted call whose result is kept beside its logs.

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

    def _ended_without_outcome(self) -> bool:
        if self._process_alive() is not False:
            return False
        folder = os.fspath(self.paths.folder)
        # which may remember that there is no result: listing the folder asks the server
        if _files.on_network(folder):
            with contextlib.suppress(OSError):
                os.listdir(folder)
        return self._finished() is None

    def loss(self, policy: losses.Policy) -> losses.Loss | None:
        """What became of a job that is done, where that is no result but a loss, or an error that the policy names."""
        if not self.paths.result_pickle.exists():
            if self._error_of_a_rank() is not None:
                return None
            ending = self._backend.ending(self.submission)
            return losses.Loss(losses.kind_of(ending, began=self.began()), ending.text, ending.counts)
        # else a result, which may be large, need not be loaded for that
        error = self._load() if set(policy.on).difference(losses.KINDS) else None
        name = policy.named(error) if isinstance(error, Exception) else None
        return None if name is None else losses.Loss(name, f"{type(error).__qualname__}: {error}")

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
                content = self._error_of_a_rank()
                if content is not None:
                    raise rebuild_error(content, trusted=True, where=self.label())
                raise JobError(self.death_notice())
        return tp.cast(R, load_result_pickle(self.paths.result_pickle, self))

    def done(self) -> bool:
        """Whether there is an outcome, be it a result or an error."""
        return self.paths.result_pickle.exists() or self._ended_without_outcome()


def _text(path: Path) -> str | None:
    try:
        with _files.open_regular(str(path)) as f:
            return f.read().decode("utf8", errors="replace")
    except FileNotFoundError:
        return None
