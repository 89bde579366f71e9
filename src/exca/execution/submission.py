"""What is known of a job since it was submitted."""

import dataclasses
import typing as tp


@dataclasses.dataclass(frozen=True)
class Submission:
    """What is known of a job since it was submitted.

    Parameters
    ----------
    cluster: str or None
        where it runs; None is this process
    job_id: str
        id given by the backend
    logs: str
        folder of its logs, with ``%j`` for the id
    processes: int
        number of its processes (nodes times tasks per node)
    pid: int, optional
        its process, for local jobs
    """

    cluster: str | None
    job_id: str
    logs: str
    processes: int = 1
    pid: int | None = None

    def to_json(self) -> dict[str, tp.Any]:
        """As JSON types, the values that are None left out."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    @classmethod
    def from_json(cls, content: tp.Mapping[str, tp.Any]) -> "Submission":
        """Rebuild from what ``to_json`` gave, or from a record."""
        names = [f.name for f in dataclasses.fields(cls)]
        known = {"cluster": None, "job_id": "", "logs": ""} | {k: content[k] for k in names if k in content}
        return cls(**known)
