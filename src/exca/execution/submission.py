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
    trusted: bool
        False where another user may have written down which job it is: then nothing is cancelled on its word, and no
        file that it names is passed on. Never stored.
    """

    cluster: str | None
    job_id: str
    logs: str
    processes: int = 1
    pid: int | None = None
    trusted: bool = True

    def to_json(self) -> dict[str, tp.Any]:
        """As JSON types, the values that are None left out."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and k != "trusted"}

    @classmethod
    def from_json(cls, content: tp.Mapping[str, tp.Any], *, trusted: bool) -> "Submission":
        """Rebuild from what ``to_json`` gave, or from a record.

        Parameters
        ----------
        content: mapping
            JSON types
        trusted: bool
            whether none but this user, or one who was named, can have written it
        """
        names = [f.name for f in dataclasses.fields(cls) if f.name != "trusted"]
        known = {"cluster": None, "job_id": "", "logs": ""} | {k: content[k] for k in names if k in content}
        return cls(**known, trusted=trusted)
