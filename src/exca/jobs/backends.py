"""The backends by name, and what each of them answers."""

import abc
import dataclasses
import importlib
import pickle
import typing as tp
from pathlib import Path

from ..errors import SubmissionError, UnknownClusterError, UntrustedFileError
from .submission import Submission

if tp.TYPE_CHECKING:
    from .resources import Resources

_MODULES = {"local": "local", "slurm": "slurm", "debug": "debug"}


@dataclasses.dataclass
class Request:
    """What is to be submitted, and how.

    Parameters
    ----------
    calls: list of callable
        one a job, without arguments; what they return is kept beside the logs
    resources: Resources
        what each job asks for
    logs: str
        folder of a job's logs, with ``%j`` for its id
    name: str
        name shown by the scheduler
    max_workers: int
        how many of the jobs may run at once
    workdir: Path, optional
        folder in which the jobs run, first on ``sys.path``
    tag: str
        text by which the jobs can be found again in the scheduler
    parameters: dict
        further parameters of submitit's executor, which go before those of the resources
    first: int
        number of the first call among all that were given the tag
    """

    calls: list[tp.Callable[[], tp.Any]]
    resources: "Resources"
    logs: str
    name: str
    max_workers: int = 256
    workdir: Path | None = None
    tag: str = ""
    parameters: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    first: int = 0


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a job ended that left no outcome.

    Parameters
    ----------
    state: str
        the backend's word: ``FAILED``, ``CANCELLED``, ``TIMEOUT``, ``OUT_OF_MEMORY``...
    text: str
        a sentence
    warned: bool
        it ended by the signal that only warns of a preemption, which says nothing about the computation
    """

    state: str
    text: str
    warned: bool = False


class Backend(abc.ABC):
    """A place where jobs run."""

    decides: tp.ClassVar[bool] = False  # whether "cannot be told" is never taken for the end of a job

    @abc.abstractmethod
    def submit(self, request: Request) -> list[Submission | None]:
        """Submit jobs; more than one go as arrays.

        Returns
        -------
        list
            what became of each call; None for those, at the end, that there is no room for now

        Raises
        ------
        SubmissionError
            if they cannot be pickled or the backend refuses them
        """

    @abc.abstractmethod
    def alive(self, submission: Submission) -> bool | None:
        """Whether a job is waiting or running; None where that cannot be told."""

    @abc.abstractmethod
    def state(self, submission: Submission) -> str:
        """The backend's word for the state of a job."""

    @abc.abstractmethod
    def ending(self, submission: Submission) -> Ending:
        """How a job ended."""

    @abc.abstractmethod
    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """End jobs."""

    def tagged(self, tag: str, task: int | None, logs: str) -> Submission | None:
        """The job that was submitted with a tag, should its submitter have died before it could say which it is.

        Parameters
        ----------
        tag: str
            as in the request
        task: int, optional
            number of the call, where there were several
        logs: str
            folder of a job's logs, with ``%j`` for its id
        """
        return None

    def waits_for(self, submission: Submission) -> str:
        """Why a job is pending, in the backend's words; empty where it is not, or where that cannot be told."""
        return ""


def get(cluster: str | None) -> Backend:
    """The backend of a cluster.

    Parameters
    ----------
    cluster: str or None
        name of the cluster; None is this process

    Raises
    ------
    UnknownClusterError
        if there is none of this name
    """
    name = "inline" if cluster is None else _MODULES.get(cluster)
    if name is None:
        raise UnknownClusterError(
            f"there is no cluster {cluster!r}: known are {', '.join(map(repr, _MODULES))}, and None for this process"
        )
    backend = importlib.import_module(f".{name}", __package__).BACKEND
    return tp.cast(Backend, backend)


def submit(cluster: str, request: Request) -> list[Submission | None]:
    """Submit jobs to a cluster; see ``Backend.submit``."""
    return get(cluster).submit(request)


def alive(submission: Submission) -> bool | None:
    """Whether a job is waiting or running; None where that cannot be told."""
    return get(submission.cluster).alive(submission)


def cancel(submissions: tp.Sequence[Submission]) -> None:
    """End jobs of one cluster.

    Raises
    ------
    UntrustedFileError
        if another user may have written down which job one of them is; none is ended then
    """
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
    """Pickle a call for a job; classes of ``__main__``, notebooks and functions go by value.

    Parameters
    ----------
    call: callable
        what the job runs
    max_gb: float, optional
        largest size allowed, in GB

    Raises
    ------
    SubmissionError
        if it cannot be pickled, or is too large
    """
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(call)
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
