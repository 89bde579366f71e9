"""What is known of a job since it was submitted."""

import collections.abc
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

        Raises
        ------
        ValueError
            a value is of another type
        """
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
