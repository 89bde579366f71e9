"""The backends by the names of their clusters, each loaded when it is first asked for, and how a job is.

Ours are named here; those of other packages are found by their entry points of the group ``exca.backends``. What waits
for a job asks the backend of its cluster; where that one is not installed, nothing is known of the job.
"""

import collections.abc
import functools
import importlib
import typing as tp
from pathlib import Path

from .errors import SubmissionError, UnknownClusterError

if tp.TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "exca.backends"
UNKNOWN = "UNKNOWN"
POOLS = ("threadpool", "processpool")  # of a map or a step: no jobs, so no backend
_OURS = {name: f"exca.jobs.{name}" for name in ("local", "slurm", "debug", "dask", "executor")}
_METHODS = ("submit", "states", "ending", "cancel", "tagged", "check_patience")
_loaded: dict[str, tp.Any] = {}


class Redirection(tp.NamedTuple):
    """Where all runs and is kept in tests (`exca.testing.redirect`)."""

    folder: Path | None  # in the place of every folder; None for their own
    in_process: bool  # in the place of every cluster


redirection: Redirection | None = None


class Submission(tp.NamedTuple):
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
        return {k: v for k, v in self._asdict().items() if v is not None and k != "trusted"}

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


class JobState(tp.NamedTuple):
    """How a job is."""

    job_id: str  # the backend's id
    # the backend's word ("PENDING", "RUNNING", "COMPLETED", "OUT_OF_MEMORY"...), "UNKNOWN" when it has none
    state: str
    reason: str = ""  # why it waits or how it ended, in the backend's words; may be empty
    exit_code: str = ""  # "<code>:<signal>" of an ended job, else empty
    memory: str = ""  # the memory that was asked for, as the backend writes it; may be empty
    alive: bool | None = None  # whether it runs or may run later; None when the backend cannot be asked
    script: str = ""  # the path of what was submitted, where the backend tells it; may be empty

    @property
    def ended(self) -> bool:
        """Whether it ended for the backend, and that its processes are gone (a lost node's may be not)."""
        return self.alive is False and self.state not in (UNKNOWN, "NODE_FAIL", "BOOT_FAIL")


class Asked(tp.Protocol):
    """What is asked of the backend of a job, by what only waits for it: see `jobs.backends.Backend`."""

    decides: tp.ClassVar[bool]

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """How jobs are."""
        ...

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """The job that was submitted with a tag."""
        ...

    def check_patience(self) -> None:
        """Raise SchedulerError where there has been no answer for long."""
        ...

    def how_to_look(self, job_id: str) -> str:
        """The command that shows a job."""
        ...


class Absent:
    """Stands in for a backend that is not here: of its jobs nothing is known, so none of them counts as ended."""

    decides: tp.ClassVar[bool] = True

    def __init__(self, why: str) -> None:
        self.why = why

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """Unknown, all of them."""
        return [JobState(job.job_id, UNKNOWN, self.why) for job in jobs]

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """Cannot be asked."""
        raise OSError(self.why)

    def check_patience(self) -> None:
        """Nothing: the job may be as well as can be."""

    def how_to_look(self, job_id: str) -> str:
        """Nothing that is known here."""
        return ""


def names() -> list[str]:
    """The names of all clusters that have a backend here."""
    return [*_OURS, *sorted(_registered().keys() - _OURS.keys())]


def known(name: str) -> bool:
    """Whether there is a backend of this name here, be it one that cannot be loaded."""
    return name in _OURS or name in _registered()


def unknown(name: str, also: tp.Sequence[str] = ()) -> str:
    """What to tell of a name that no backend has; `also` are names that stand for no backend."""
    there = ", ".join(map(repr, [*names(), *also]))
    return (
        f"there is no cluster {name!r}: known are {there}, and None for this process. Install "
        f"the package that brings it (entry point group {GROUP!r}), or take another"
    )


def get(name: str) -> tp.Any:
    """The backend of a cluster.

    Raises
    ------
    UnknownClusterError
        if there is none of this name
    SubmissionError
        if it cannot be loaded
    """
    found = _loaded.get(name)
    if found is None:
        # jobs of several calls are alike for all backends
        parts = importlib.import_module("exca.jobs.parts")
        found = _loaded[name] = parts.Parts(_load(name), name)
    return found


def asked(name: str) -> Asked:
    """The backend of a cluster, to ask about its jobs; where it is not here, one that knows of none."""
    try:
        return tp.cast(Asked, get(name))
    except (UnknownClusterError, SubmissionError) as e:
        return Absent(str(e))


def states(jobs: tp.Iterable[Submission]) -> dict[tuple[str, str], JobState]:
    """How jobs are, by cluster and id: each backend is asked once for all of its jobs."""
    of_cluster: dict[str, list[Submission]] = {}
    for job in jobs:
        if job.cluster is not None:
            of_cluster.setdefault(job.cluster, []).append(job)
    return {
        (name, state.job_id): state for name, some in of_cluster.items() for state in asked(name).states(some)
    }


def state(job: Submission) -> JobState:
    """How a job is."""
    return asked(job.cluster or "").states([job])[0]


@functools.cache
def _registered() -> "dict[str, list[EntryPoint]]":
    """The entry points of other packages, looked for once per process: all installed packages are gone through."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _load(name: str) -> tp.Any:
    if name in _OURS:
        return importlib.import_module(_OURS[name]).BACKEND
    entries = _registered().get(name)
    if not entries:
        raise UnknownClusterError(unknown(name))
    entry = entries[0]
    if any(other.value != entry.value for other in entries):
        both = " and ".join(f"{_distribution(other)} ({other.value})" for other in entries)
        raise SubmissionError(f"two packages bring a backend called {name!r}: {both}. Uninstall one of them")
    where = f"the backend of cluster={name!r}, which {_distribution(entry)} registers as {entry.value}"
    try:
        found = entry.load()
    except Exception as e:
        raise SubmissionError(
            f"cannot load {where}: {type(e).__name__}: {e}. Nothing was submitted. Repair or update that package, or "
            f"take another cluster: {', '.join(map(repr, _OURS))}"
        ) from e
    missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
    if missing or isinstance(found, type):
        what = "is a class, not an object of it" if isinstance(found, type) else f"has no {missing[0]}()"
        raise SubmissionError(
            f"{where}, is no backend: {found!r} {what}. The entry point has to name an object of a class that is "
            "derived from exca.jobs.backends.Backend. Nothing was submitted"
        )
    return found


def _distribution(entry: "EntryPoint") -> str:
    return "a package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
