"""What the supervisor of local jobs is to do, as it travels to that: in a command line, or through a socket."""

import dataclasses
import json
import typing as tp

from .. import _files
from ..errors import UntrustedFileError
from . import paths

if tp.TYPE_CHECKING:
    from .._clusters import Submission

AFTER = "after.json"  # beside the logs of the first job
TIMED_OUT, OUT_OF_MEMORY_CODE = 124, 125  # exit codes of supervisors


@dataclasses.dataclass(frozen=True)
class Order:
    """What a supervisor is to do."""

    logs: str  # folder of a job's logs, with ``%j`` for its id
    base: str  # id of the job, or of the array
    size: int  # how many tasks the array has; 0 for a single job
    workers: int  # how many jobs run at once
    processes: int  # of each job
    seconds: float  # time limit of a job; 0 for none
    digest: str  # of what was submitted, or of the list of digests of an array
    memory: int = 0  # bytes; 0 for no limit
    forks: bool = False  # whether tasks may be forked
    modules: tuple[str, ...] = ()  # what they need, to be imported before
    # where later submissions find a supervisor that stays (see `warm`); empty if none is to stay
    address: str = ""
    stays: float = 0  # seconds that it does
    # digest of the list of jobs before whose end none of these begins; empty if there are none
    after: str = ""

    def text(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Order":
        """What was written by :meth:`text`."""
        return cls(**json.loads(text))

    def jobs(self) -> list[tuple[str, str]]:
        """Ids of the jobs, each with the digest of what it runs."""
        if not self.size:
            return [(self.base, self.digest)]
        folder = self.first().folder
        return [(f"{self.base}_{k}", paths.digest_of(folder, k, self.digest)) for k in range(self.size)]

    def note_after(self, others: "tp.Sequence[Submission]") -> "Order":
        """Write down, beside the logs, the jobs before whose end none of these begins; returns the order with that."""
        content = json.dumps([other.to_json() for other in others]).encode()
        _files.write_atomically(self.first().folder / AFTER, content, mode=_files.OWN)
        return dataclasses.replace(self, after=_files.digest(content))

    def others(self) -> "list[Submission]":
        """The jobs before whose end none of these begins; raises OSError where the list is not what was ordered."""
        from .._clusters import Submission

        if not self.after:
            return []
        path = self.first().folder / AFTER
        content = _files.read_file(str(path))
        if _files.digest(content) != self.after:
            raise UntrustedFileError(
                f"{path} is not what was submitted: it was exchanged, so nothing is begun"
            )
        return [Submission.from_json(each, trusted=True) for each in json.loads(content)]

    def first(self) -> paths.JobPaths:
        """Files of the only job, or of the first of the array."""
        return paths.JobPaths(self.logs, f"{self.base}_0" if self.size else self.base)


def spawn_arguments(own: paths.JobPaths, digest: str) -> list[str]:
    """What the interpreter of one process of a job is started with."""
    return [own.pattern, own.job_id, "0", "1", "1", "0", digest]
