"""Task results that earlier releases left behind as a pickled job, ``job.pkl``.

Two kinds were written: a job of exca's own with the outcome inside, for computations in process, and
a job of submitit's, whose outcome is a file among the job's logs. Neither class is loaded here: stand-ins
take their place, so that old folders need neither the old exca nor the submitit that wrote them.
"""

import os
import pickle
import typing as tp
from pathlib import Path

from .record import Record

NAME = "job.pkl"


class _StandIn:
    """Takes the state of a pickled object of an old class."""

    def __setstate__(self, state: dict[str, tp.Any]) -> None:
        self.__dict__.update(state)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> tp.Any:
        if module.partition(".")[0] in ("exca", "submitit"):
            return _StandIn
        return super().find_class(module, name)


class LegacyRecord(Record):
    """Outcome of a task as an earlier release left it."""

    def value(self) -> tp.Any:
        """The result."""
        return self.content["value"]

    def exception(self) -> BaseException:
        """The error, the traceback added as a note."""
        from ..errors import JobError

        raised, text = self.content["failure"]
        last_line = str(text).strip().rpartition("\n")[2]
        error = raised if isinstance(raised, BaseException) else JobError(last_line)
        error.add_note(f"\nTraceback where it ran:\n{text}")
        return error


def read_job_pickle(folder: Path) -> LegacyRecord | None:
    """Read the outcome that an earlier release left in a uid folder.

    Parameters
    ----------
    folder: Path
        uid folder of the task

    Returns
    -------
    LegacyRecord or None
        None where there is none
    """
    path = os.path.join(folder, NAME)
    if not os.path.exists(path):
        return None
    kind, value = _outcome(Path(path))
    if kind is None:
        return None
    if kind == "success":
        return LegacyRecord(folder, {"state": "completed", "value": value})
    failure = value if isinstance(value, tuple) else (None, value)
    return LegacyRecord(folder, {"state": "failed", "failure": failure})


def _outcome(path: Path) -> tuple[str | None, tp.Any]:
    job = _load(path)
    if hasattr(job, "_result"):
        return tp.cast(tuple[str, tp.Any], job._result)
    job_id = getattr(job, "_job_id", None)
    if job_id is None:
        return None, None
    logs = str(job._paths._folder).replace("%j", job_id).replace("%A", job_id.partition("_")[0])
    for folder in (Path(logs), path.parent / "submitit"):  # the link helps where the cache was moved
        result = folder / f"{job_id}_0_result.pkl"
        if result.exists():
            return tp.cast(tuple[str, tp.Any], _load(result))
    return None, None


def _load(path: Path) -> tp.Any:
    from ..cachedict import require_trusted

    require_trusted(path)
    with open(path, "rb") as f:
        return _Unpickler(f).load()
