"""The backends by name, what is submitted to each of them, and what it answers."""

import abc
import collections.abc
import dataclasses
import importlib
import pickle
import typing as tp
from pathlib import Path

from ..errors import SubmissionError, UnknownClusterError, UntrustedFileError

if tp.TYPE_CHECKING:
    from .resources import Resources

_MODULES = ("local", "slurm", "debug")


@dataclasses.dataclass(frozen=True)
class Submission:
    """What is known of a job since it was submitted."""

    cluster: str | None  # where it runs; None is this process
    job_id: str  # id given by the backend
    logs: str  # folder of its logs, with ``%j`` for the id
    processes: int = 1  # number of its processes (nodes times tasks per node)
    pid: int | None = None  # its process, for local jobs
    # False where another user may have written down which job it is: then nothing is cancelled on its word, and no
    # file that it names is passed on. Never stored.
    trusted: bool = True

    def to_json(self) -> dict[str, tp.Any]:
        """As JSON types, the values that are None left out."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and k != "trusted"}

    @classmethod
    def from_json(cls, content: tp.Mapping[str, tp.Any], *, trusted: bool) -> "Submission":
        """Rebuild from what ``to_json`` gave, or from a record; raises ValueError for a value of another type."""
        if not isinstance(content, collections.abc.Mapping):
            raise ValueError(f"{content!r} describes no job")  # noqa: TRY004  # as for what is in a mapping
        known: dict[str, tp.Any] = {"cluster": None, "job_id": "", "logs": ""}
        for name, kinds in _KINDS.items():
            if name in content:
                if type(content[name]) not in kinds:
                    raise ValueError(f"{name}={content[name]!r} is none of a job's")
                known[name] = content[name]
        return cls(**known, trusted=trusted)


_KINDS: dict[str, tuple[type, ...]] = {
    "cluster": (str, type(None)),
    "job_id": (str,),
    "logs": (str,),
    "processes": (int,),
    "pid": (int, type(None)),
}


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


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a job ended that left no outcome."""

    state: str  # the backend's word: ``FAILED``, ``CANCELLED``, ``TIMEOUT``, ``OUT_OF_MEMORY``...
    text: str  # a sentence
    # it ended by the signal that only warns of a preemption, which tells nothing about the computation
    warned: bool = False


class Backend(abc.ABC):
    """A place where jobs run."""

    decides: tp.ClassVar[bool] = False  # whether "cannot be told" is never taken for the end of a job

    @abc.abstractmethod
    def submit(self, request: Request) -> list[Submission | None]:
        """Submit jobs, several as arrays; None for those, at the end, that have no room now.

        Raises SubmissionError if they cannot be pickled or the backend refuses them.
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
        """The job that was submitted with a tag, should its submitter have died before it could note which it is.

        The task is the number of the call, where there were several.
        """
        return None

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

    def alive(self, submission: Submission) -> bool | None:
        """Unknown here: the claim on the folder tells."""
        return None

    def state(self, submission: Submission) -> str:
        """No scheduler, so no word of its own."""
        return "RUNNING"

    def ending(self, submission: Submission) -> Ending:
        """Nothing is known beyond the end of the process."""
        return Ending("FAILED", "The interpreter that computed it ended.")

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """Nothing to end."""


_INLINE = InlineBackend()


def get(cluster: str | None) -> Backend:
    """The backend of a cluster; None is this process."""
    if cluster is None:
        return _INLINE
    if cluster not in _MODULES:
        raise UnknownClusterError(
            f"there is no cluster {cluster!r}: known are {', '.join(map(repr, _MODULES))}, and None for this process"
        )
    return tp.cast(Backend, importlib.import_module(f".{cluster}", __package__).BACKEND)


def submit(cluster: str, request: Request) -> list[Submission | None]:
    """Submit jobs to a cluster; see ``Backend.submit``."""
    return get(cluster).submit(request)


def alive(submission: Submission) -> bool | None:
    """Whether a job is waiting or running; None where that cannot be told."""
    return get(submission.cluster).alive(submission)


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
