"""What a Slurm job does when it is warned of its end, by a preemption or by its time limit, and when it begins again.

The warning is let pass: Slurm ends the job itself and then tells why. Before that a computation may save its state,
and at the time limit the job has itself requeued where that was done, to go on from there. A job that is begun again
notes how it came to that, for the record.
"""

import contextlib
import os
import re
import signal
import threading
import time
import typing as tp
from pathlib import Path

from .. import _files, _trust
from . import paths
from .environment import CLUSTER

if tp.TYPE_CHECKING:
    from ..claims.owner import Process

REQUEUES = "requeues.jsonl"  # file beside the logs: how a job came to be begun again, each time
WARNED = "warned"  # file beside the logs: that the warning was heard, and what came of it
SAVED = "saved"  # in that file
LEAVING = "leaving"  # file beside the logs: why a job had itself requeued
TIMEOUT = 30.0  # seconds for Slurm to answer
_EARLY = 60.0  # seconds by which Slurm may warn earlier than it is asked to
_AGAIN = 20.0  # seconds within which a further signal is about the same end
# Slurm's own words at the end of a process's log
_CANCELLED = re.compile(
    r"^slurmstepd\S*: error: \*\*\* (?:JOB|STEP) .* CANCELLED AT (\S+) DUE TO ([A-Z ]+)", re.MULTILINE
)
_STATES = {"PREEMPTION": "preempted", "NODE FAILURE": "node_fail", "TIME LIMIT": "timeout"}
Save = tp.Callable[[], None]


class _Saving(tp.NamedTuple):
    """What is to be done before the end."""

    folder: Path  # of the job's logs
    delay: float  # seconds before the end at which the job is warned
    save: Save | None  # what the computation offers
    resumable: tp.Callable[
        [], bool
    ]  # whether the computation has left something of its own from which it can go on
    most: int  # how often the job may be requeued

    def before(self, times: "_Times") -> float:
        """How many seconds before its end the job is requeued."""
        return min(self.delay, times.limit / 2)


class _Job:
    """The job of this process, as far as its end goes."""

    def __init__(self) -> None:
        self.saving: _Saving | None = None
        self.saved = float("-inf")  # monotonic time
        self.timer: threading.Timer | None = None
        self.busy = False  # with a signal: one that comes meanwhile is about the same end
        self.early = False  # a warning came before there was anything to save


_job = _Job()


def listen() -> None:
    """Let the signals pass that Slurm sends ahead of a preemption or a time limit, and save on them.

    The end itself can't be ignored, and Slurm then tells why it came. Were the warning to end the computation, a job
    that is about to be requeued would leave an error. Functions, so that child processes start with the defaults.
    """
    for name in ("SIGTERM", "SIGCONT", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _on_signal)


def forget() -> None:
    """In a forked process: what the other one has to do before the end is not this one's."""
    _job.saving, _job.timer, _job.busy, _job.early = None, None, False, False


@contextlib.contextmanager
def saving(
    folder: Path,
    *,
    delay: float,
    save: Save | None,
    resumable: tp.Callable[[], bool],
    most: int,
    minutes: float | None = None,
) -> tp.Iterator[None]:
    """Context in which a warning has the state of a computation saved, and the job requeued at its time limit.

    The folder is that of the job's logs, the delay the seconds before the end at which it is warned, ``most`` how often
    it may be requeued, and the minutes its time limit. A job that is shorter than the delay is warned at once, which
    may be before the context is entered, or before Python is up.
    """
    _job.saving = _Saving(folder, delay, save, resumable, most)
    try:
        if _job.early or (minutes is not None and 60 * minutes <= delay + _EARLY):
            _make_up_for_warning(_job.saving)
        yield
    finally:
        _job.saving = None
        if _job.timer is not None:
            _job.timer.cancel()
            _job.timer = None


def _on_signal(number: int, frame: tp.Any) -> None:
    _say(f"{signal.Signals(number).name} came, and is not the end yet: going on")
    if number == getattr(signal, "SIGCONT", None) or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    todo = _job.saving
    if todo is None:
        _job.early = True
        return
    if _job.busy:
        return
    _job.busy = True
    try:
        saved = _save(todo)
        with contextlib.suppress(OSError):  # the process that passed it on then waits for longer
            _files.write_atomically(todo.folder / WARNED, SAVED.encode() if saved else b"", mode=_files.OWN)
        if todo.most and number == getattr(signal, "SIGUSR2", None):  # the other one comes with the end
            _leave_at_time_limit(todo, saved)
    finally:
        _job.busy = False


def _make_up_for_warning(todo: _Saving) -> None:
    """Warn this process when its end is near, since the warning of Slurm may have come before it could hear it."""
    times = _times() if todo.most else None
    if times is not None and times.left > todo.before(times) + 1:
        _warn_in(times.left - todo.before(times))
    elif _job.early:
        os.kill(os.getpid(), signal.SIGUSR2)
    _job.early = False


def _warn_in(seconds: float) -> None:
    if _job.timer is None:
        _job.timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR2))
        _job.timer.daemon = True
        _job.timer.start()


def _save(todo: _Saving) -> bool:
    """Have the computation save its state; whether it can go on from what is saved."""
    if todo.save is None:
        return todo.resumable()
    if time.monotonic() - _job.saved < _AGAIN:
        return True
    try:
        todo.save()
    except Exception:
        import traceback

        _say(
            f"checkpoint() failed, so nothing is saved, and the computation goes on:\n{traceback.format_exc()}"
        )
        return False
    _job.saved = time.monotonic()
    _say("checkpoint() has saved the state of the computation")
    return True


def _leave_at_time_limit(todo: _Saving, saved: bool) -> None:
    """Have the job requeued if the time limit is near and there is something to go on from."""
    times = _times()
    if times is None:
        return
    # Slurm may warn up to a minute early, and at once where the whole job is shorter than the delay
    delay = todo.before(times)
    if times.left > delay + 1:
        _warn_in(times.left - delay)
        return
    if saved and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < todo.most:
        _requeue(todo, times)


class _Times(tp.NamedTuple):
    """How long a job runs, in seconds by the clock of the scheduler, from which that of its node may differ."""

    job: str
    left: float
    limit: float


def _times() -> _Times | None:
    """How long this job may run; None where it is preempted, or Slurm can't tell."""
    import subprocess

    fields = "JobID:24,PreemptTime:32,TimeLeft:32,TimeUsed:32"
    job = os.environ.get("SLURM_JOB_ID", "")
    command = ["squeue", "--noheader", f"--jobs={job}", "-O", fields]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=True, stdin=subprocess.DEVNULL
        )
        _, preempted, *texts = done.stdout.split()
        left, used = map(_seconds, texts)
    except (OSError, subprocess.SubprocessError, ValueError) as e:
        _say(f"Slurm did not tell when this job ends: {e}")
        return None
    return _Times(job, left, left + used) if preempted in ("N/A", "(null)", "None") else None


def _seconds(text: str) -> float:
    """A time as Slurm writes it, ``[days-][[hours:]minutes:]seconds``; raises ValueError for anything else."""
    days, _, rest = text.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = 60 * seconds + int(part)
    return 86400.0 * int(days or 0) + seconds


def _requeue(todo: _Saving, times: _Times) -> None:
    """Have the job requeued, and end this process; go on where it may not be requeued."""
    import subprocess

    import orjson

    minutes = times.limit / 60
    reason = f"it reached its time limit of {minutes:g} min, and goes on from what it saved"
    leaving = todo.folder / LEAVING
    try:
        _files.write_atomically(
            leaving, orjson.dumps({"state": "timeout", "reason": reason}), mode=_files.OWN
        )
        command = ["scontrol", "requeue", times.job]
        subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as e:
        leaving.unlink(missing_ok=True)
        said = getattr(e, "stderr", "") or str(e)
        _say(f"this job could not be requeued, so its time limit will end it: {said.strip()}")
        return
    _say(f"requeued: {reason}")
    os._exit(0)


def has_saved(mark: Path) -> bool:
    """Whether a mark tells that the state of a computation was saved on the warning."""
    try:
        return _trust.read_trusted(mark) == SAVED.encode()
    except OSError:
        return False


def note_requeue(job_paths: paths.JobPaths, before: "Process | None", started: float) -> None:
    """Note how the process ended that began this job before, and when that had started, in seconds since the epoch."""
    import orjson

    path = job_paths.folder / REQUEUES
    how = _why_left(job_paths, started)
    ended = {"host": None if before is None else before.hostname, "started": started, **how}
    try:
        earlier = _trust.read_trusted(path)
    except OSError:  # there is none, or it is not of ours
        earlier = b""
    with contextlib.suppress(OSError):  # no reason not to compute
        _files.write_atomically(path, earlier + orjson.dumps(ended) + b"\n", mode=_files.OWN)


def _why_left(job_paths: paths.JobPaths, started: float) -> dict[str, str]:
    import datetime

    import orjson

    leaving = job_paths.folder / LEAVING
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        how = dict(orjson.loads(_trust.read_trusted(leaving)))
        leaving.unlink()
        return {"state": str(how["state"]), "reason": str(how["reason"])}
    if paths.part_of(job_paths.pattern) is not None:  # it came to that by its job, which has noted why
        for ended in requeues_of(job_paths.folder.parent)[-1:]:
            return {"state": str(ended.get("state")), "reason": str(ended.get("reason"))}
    if CLUSTER in os.environ:  # its engine runs again what a worker ran that is gone, and nothing else
        return {"state": "node_fail", "reason": "the worker that ran it was lost"}
    for at, words in reversed(_CANCELLED.findall(paths.tail(job_paths.stderr))):
        with contextlib.suppress(ValueError):
            if datetime.datetime.fromisoformat(at).timestamp() >= started - 1:  # else it is of an earlier run
                state = _STATES.get(words.strip(), "requeued")
                return {"state": state, "reason": f"Slurm ended it due to {words.strip().lower()}"}
    return {"state": "requeued", "reason": "it was requeued"}


def requeues_of(folder: Path) -> list[dict[str, tp.Any]]:
    """How a job with this folder of logs came to be begun again, each time, the first one first.

    What another user may have written there goes into no record.
    """
    import orjson

    try:
        return [dict(orjson.loads(line)) for line in _trust.read_trusted(folder / REQUEUES).splitlines()]
    except (OSError, ValueError, TypeError):
        return []


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # write, not print: a signal may come in the middle of one
        os.write(2, f"exca: {text}\n".encode())
