"""What a backend is: what is submitted to it, and what it answers.

A backend is one file, which answers all questions about its jobs: see `Backend`. How to write one: docs/own-backend.md.
"""

import abc
import dataclasses
import pickle
import typing as tp
from pathlib import Path

from .. import _clusters
from .._clusters import JobState, Submission
from ..errors import InfraError, SubmissionError, UnknownClusterError, UntrustedFileError

if tp.TYPE_CHECKING:
    from .resources import Resources

__all__ = ["Backend", "Ending", "InlineBackend", "JobState", "Request", "Submission"]


@dataclasses.dataclass
class Request:
    """What is to be submitted, and how."""

    # one per job, without arguments; what they return is kept beside the logs
    calls: list[tp.Callable[[], tp.Any]]
    resources: "Resources"  # what each job asks for
    logs: str  # folder of a job's logs, with ``%j`` for its id
    name: str  # name shown by the scheduler
    max_workers: int = 256  # how many of the jobs may run at once
    workdir: Path | None = None  # folder in which the jobs run, first on ``sys.path``
    tag: str = ""  # text by which the jobs can be found again in the scheduler
    # further parameters of submitit's executor, which go before those of the resources
    parameters: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    first: int = 0  # number of the first call among all that were given the tag
    files: tuple[Path, ...] = ()  # pickles that the calls load besides
    # jobs that have to end, in whichever way, before these begin; only such that `waits_for_end_of` takes
    after: tuple[Submission, ...] = ()


class Ending(tp.NamedTuple):
    """How a job ended that left no outcome."""

    state: str  # the backend's word: ``FAILED``, ``CANCELLED``, ``TIMEOUT``, ``OUT_OF_MEMORY``...
    text: str  # a sentence
    # it ended by the signal that only warns of a preemption, which tells nothing about the computation
    warned: bool = False
    signal: int = 0  # that ended it
    counts: bool = True  # whether it is one of the losses that the number of retries is about
    loss: str = ""  # one of `losses.KINDS`, where the backend knows more than state and signal tell


class Backend(abc.ABC):
    """A place where jobs run."""

    decides: tp.ClassVar[bool] = False  # whether "cannot be told" is never taken for the end of a job
    # whether exca itself enforces ``mem_gb`` there: of several calls in one job, each then has a limit of its own
    limits_memory: tp.ClassVar[bool] = False
    # whether its jobs go on when the process ends that submitted them
    outlive_submitter: tp.ClassVar[bool] = True

    @abc.abstractmethod
    def submit(self, request: Request) -> list[Submission | None]:
        """Submit jobs, several as arrays; None for those, at the end, that have no room now.

        Raises SubmissionError if they cannot be pickled or the backend refuses them.
        """

    @abc.abstractmethod
    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """How jobs of this backend are, in their order, by one query for all.

        ``alive`` is None where that cannot be told: such a job has not ended. It never raises, since what waits for
        one job may ask about others.
        """

    def alive(self, submission: Submission) -> bool | None:
        """Whether a job is waiting or running; None where that cannot be told."""
        return self.states([submission])[0].alive

    def state(self, submission: Submission) -> str:
        """The backend's word for the state of a job."""
        return self.states([submission])[0].state

    @abc.abstractmethod
    def ending(self, submission: Submission) -> Ending:
        """How a job ended."""

    @abc.abstractmethod
    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """End jobs."""

    def waits_for_end_of(self, submission: Submission) -> bool:
        """Whether jobs can be submitted that begin once another job, perhaps of another backend, has ended.

        That is to cost nothing while it lasts. Where it cannot be had, the submitter waits, and submits then.
        """
        return False

    def throttle(self, submissions: tp.Sequence[Submission], most: int) -> None:
        """Change how many jobs of arrays run at once."""
        raise InfraError(
            f"jobs of cluster {submissions[0].cluster!r} can't be throttled once they are submitted, only those of "
            "Slurm: cancel them, and submit again with another max_workers"
        )

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """The job that was submitted with a tag, should its submitter have died before it could note which it is.

        The task is the number of the call, where there were several. An answer that was found before the monotonic
        time `not_before` will not do. Raises OSError where the backend cannot be asked.
        """
        return None

    def check_patience(self) -> None:  # noqa: B027  # those that always answer have nothing to check
        """Raise SchedulerError where the backend has not answered for so long that waiting on makes no sense."""

    def how_to_look(self, job_id: str) -> str:
        """The command by which a person looks at a job; empty where there is none."""
        return ""

    def waits_for(self, submission: Submission) -> str:
        """Why a job is pending, in the backend's words; empty where it is not, or where that cannot be told."""
        return ""


class InlineBackend(Backend):
    """No job at all: the answers for what ran, or runs, in an interpreter."""

    def submit(self, request: Request) -> list[Submission | None]:
        """Run the calls here and now."""
        for call in request.calls:
            call()
        return [Submission(None, "inline", request.logs) for _ in request.calls]

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """No scheduler, so no word of its own: the claim on the folder tells."""
        return [JobState(job.job_id, "RUNNING") for job in jobs]

    def ending(self, submission: Submission) -> Ending:
        """Nothing is known beyond the end of the process."""
        return Ending("FAILED", "The interpreter that computed it ended.")

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """Nothing to end."""


class AbsentBackend(_clusters.Absent, Backend):
    """Answers for a backend that is not here: nothing is known of its jobs."""

    def submit(self, request: Request) -> list[Submission | None]:
        """Refuse."""
        raise SubmissionError(self.why)

    def ending(self, submission: Submission) -> Ending:
        """Unknown."""
        return Ending(_clusters.UNKNOWN, f"What became of it is not known here: {self.why}.")

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """Refuse."""
        raise SubmissionError(f"cannot cancel {len(submissions)} job(s): {self.why}")


_INLINE = InlineBackend()


def get(cluster: str | None) -> Backend:
    """The backend of a cluster; None is this process.

    Raises UnknownClusterError if there is none, SubmissionError if it cannot be loaded.
    """
    if cluster is None:
        return _INLINE
    return tp.cast(Backend, _clusters.get(cluster))


def of_job(submission: Submission) -> Backend:
    """The backend that a job was submitted to, to ask about it; where that is not here, one that knows of none."""
    try:
        return get(submission.cluster)
    except (UnknownClusterError, SubmissionError) as e:
        return AbsentBackend(str(e))


def submit(cluster: str, request: Request) -> list[Submission | None]:
    """Submit jobs to a cluster; see ``Backend.submit``."""
    return get(cluster).submit(request)


def alive(submission: Submission) -> bool | None:
    """Whether a job is waiting or running; None where that cannot be told."""
    return of_job(submission).alive(submission)


def tagged(cluster: str, tag: str, task: int | None, logs: str) -> Submission | None:
    """The job that was submitted with a tag; None where there is none, or where that cannot be asked."""
    try:
        return _clusters.asked(cluster).tagged(tag, task, logs)
    except OSError:
        return None


def cancel(submissions: tp.Sequence[Submission]) -> None:
    """End jobs of one cluster; none if another user may have written down which job one of them is."""
    for submission in submissions:
        if not submission.trusted:
            raise UntrustedFileError(
                f"Not cancelling {submission.cluster} job {submission.job_id}: another user may have written down that "
                "it is the one. Its owner can cancel it; to trust what that user writes: "
                "export EXCA_TRUSTED_USERS=<name>"
            )
    if submissions:
        get(submissions[0].cluster).cancel(submissions)


def pickled(call: tp.Callable[[], tp.Any], max_gb: float | None) -> bytes:
    """Pickle a call for a job; classes of ``__main__``, notebooks and functions go by value."""
    from .pickling import dumps

    try:
        data = dumps(call)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError) as e:
        raise SubmissionError(
            f"cannot send {call} to a job: {e}. Everything an object holds must be picklable: "
            "create locks, open files, connections and the like inside the method, or leave them out in __getstate__"
        ) from e
    if max_gb is not None and len(data) > max_gb * 1e9:
        raise SubmissionError(
            f"{call} is {len(data) / 1e9:.3g} GB as a pickle, more than max_pickle_size_gb={max_gb}: "
            "load large data inside the method, or raise the limit"
        )
    return data
