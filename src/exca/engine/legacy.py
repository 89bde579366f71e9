"""Task results that earlier releases left behind, or still leave, as a pickled job, ``job.pkl``.

Two kinds are written: a job of exca's own with the outcome inside, for computations in process, and
a job of submitit's, whose outcome is a file among the job's logs. Neither class is loaded here: stand-ins
take their place, so that old folders need neither the old exca nor the submitit that wrote them.

Both releases may be at work on one folder: of an outcome here and one in a record, the newer counts. With
``EXCA_WRITE_FOR_0_6=1`` a file of the first kind is written beside each record, for release 0.6 to read. That one
counts only where there is no record.
"""

import contextlib
import os
import pickle
import re
import shutil
import traceback
import typing as tp
from pathlib import Path

from .. import _files, _trust
from .._log import logger
from ..errors import DamagedEntryError, OddFileError, StoredValueError
from ..jobs import backends
from ..jobs.backends import Submission

# submitit's frames in the traceback of an error: of the call of the function, and of reading what to call
_CALLED = re.compile(r'submitit[/\\]core[/\\]utils\.py", line \d+, in result\b')
_LOADED = re.compile(r'submitit[/\\]core[/\\]utils\.py", line \d+, in load\b')
# an empty object of the class of 0.6, as only this release writes it
_WRITTEN_HERE = b"\x80\x05cexca.task\nLocalJob\n)\x81"
# what pickle raises where bytes are missing, or others: also what the next opcode makes of them
_DAMAGED = (pickle.UnpicklingError, EOFError, ValueError, IndexError, MemoryError, OverflowError)
_said: set[str] = set()


class _StandIn:
    """Takes the state of a pickled object of an old class."""

    def __setstate__(self, state: dict[str, tp.Any]) -> None:
        self.__dict__.update(state)


class _SlurmStandIn(_StandIn):
    """The same, of a job on Slurm."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> tp.Any:
        if module.partition(".")[0] in ("exca", "submitit"):
            return _SlurmStandIn if name == "SlurmJob" else _StandIn
        return super().find_class(module, name)


def outcome(path: Path, record: Path | None, known_error: str | None) -> dict[str, tp.Any] | None:
    """The content of a record of what an earlier release left for a task; None where the task's own record counts.

    That record is given by its path, where there is one, and the message of the error in it.
    """
    try:
        if record is not None and _written_here(path):
            return None
        job = _state(_load(path))
        result = path if "_result" in job else _result_file(path.parent, job)
        if result is None or (record is not None and _time(result) <= _time(record)):
            return None
        kind, value = job["_result"] if result is path else _load(result)
    except FileNotFoundError:  # removed this moment, or replaced: by a newer release
        return None
    except (OddFileError, DamagedEntryError) as e:  # the other release may be writing it just now
        _trust.skip(path, e)
        return None
    except (KeyError, TypeError, ValueError) as e:  # a pickle of something else
        _trust.skip(path, f"it holds no job of an earlier release: {e!r}")
        return None
    if kind == "success":
        return {"state": "completed", "value": value}
    failure = value if isinstance(value, tuple) else (None, value)
    text = str(failure[1])
    if _LOADED.search(text) is not None and _CALLED.search(text) is None:
        # the error came from reading what to compute: of code that had moved on, not of the computation
        _warn_that_it_never_began(result, text)
        return None
    if known_error is not None and known_error in text:
        return None  # the same error, with its own type: this release ran what the earlier one had queued
    return {"state": "failed", "failure": failure}


def queued(path: Path) -> Submission | None:
    """The Slurm job that an earlier release submitted for a task, while it waits or runs."""
    try:
        pickled = _load(path)
        job = _state(pickled)
        if not isinstance(pickled, _SlurmStandIn) or _result_file(path.parent, job) is not None:
            return None
        submission = Submission("slurm", str(job["_job_id"]), str(_state(job["_paths"])["_folder"]))
    except FileNotFoundError:
        return None
    except (OddFileError, DamagedEntryError, TypeError, ValueError, KeyError) as e:
        _trust.skip(path, e)
        return None
    if shutil.which("squeue") is None or backends.alive(submission) is False:
        return None
    return submission


def _warn_that_it_never_began(result: Path, text: str) -> None:
    if str(result) not in _said:
        _said.add(str(result))
        logger.warning(
            "The job that left %s was submitted by an earlier release of exca and could not be read where it ran "
            "(%s): it counts as not submitted, so submit it again by calling its method",
            result,
            text.strip().rpartition("\n")[2],
        )


def _state(pickled: tp.Any) -> dict[str, tp.Any]:
    return vars(pickled) if isinstance(pickled, _StandIn) else {}


def _result_file(folder: Path, job: dict[str, tp.Any]) -> Path | None:
    """Where a job of submitit's left its outcome."""
    job_id = job.get("_job_id")
    if job_id is None:
        return None
    pattern = str(_state(job["_paths"])["_folder"])
    logs = pattern.replace("%j", job_id).replace("%A", job_id.partition("_")[0])
    for place in (Path(logs), folder / "submitit"):  # the link helps where the cache was moved
        result = place / f"{job_id}_0_result.pkl"
        if result.exists():
            return result
    return None


def _written_here(path: Path) -> bool:
    with _files.open_regular(str(path)) as f:
        return f.read(len(_WRITTEN_HERE)) == _WRITTEN_HERE


def _time(path: Path) -> int:
    return os.stat(path).st_mtime_ns


def _load(path: Path) -> tp.Any:
    try:
        return _trust.load_pickle(path, _Unpickler)
    except _DAMAGED as e:
        raise DamagedEntryError(f"{path} is no whole pickle: {type(e).__name__}: {e}") from e
    except (OSError, ImportError):
        raise
    except Exception as e:  # of what it calls: a class that has changed, for one
        raise StoredValueError(
            f"{path}, which an earlier release of exca left, cannot be unpickled: {type(e).__name__}: {e}; run the "
            "code that it was made with, or clear_job() to compute again"
        ) from e


def write_job_pickle(path: Path, kind: str, value: tp.Any) -> None:
    """Leave the outcome of a task, a "success" or a "failure", as release 0.6 reads it."""
    folder = path.parent
    if kind == "failure":
        value = (value, "".join(traceback.format_exception(value)))
    state = {"_name": folder.parent.name.rpartition(",")[0], "_result": (kind, value)}
    try:
        data = _job_of_0_6(state)
    except Exception as e:
        logger.warning("The outcome of %s cannot be pickled, so release 0.6 will not find it: %s", folder, e)
        with contextlib.suppress(FileNotFoundError):
            _files.remove(str(path))  # an older outcome
        return
    # a pickle runs code where it is loaded: no group may change it, whatever the umask
    _files.write_atomically(path, data, mode=_files.OWN)


def _job_of_0_6(state: tp.Any) -> bytes:
    """A pickle of the class of release 0.6 that holds an outcome, made without that class."""
    try:
        body = pickle.dumps(state, protocol=5)  # with 4, arrays lose their byte order
    except (pickle.PicklingError, AttributeError, TypeError):
        import cloudpickle

        body = cloudpickle.dumps(state, protocol=5)
    # after the object its state, which is the pickle without its head and its end, then that both belong together
    return _WRITTEN_HERE + body[2:-1] + b"b."
