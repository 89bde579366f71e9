"""Tasks that the scheduler had no room for: listed in one file beside the logs, and sent as room comes.

Whoever waits for a task of the list, or submits another one with the same logs, sends what there is room for by then.
The list holds all that is needed for it, so that it need not be the interpreter that made the list. It is changed
under a claim only, and believed only if it is this user's.
"""

import base64
import logging
import os
import pickle
import time
import typing as tp
import uuid
from pathlib import Path

import orjson

from .. import _files, _trust
from ..errors import OddFileError, UntrustedFileError
from ..jobs.job import SAY_WHY, Job
from ..jobs.submission import Submission
from . import record
from .task_job import TaskJob
from .task_start import UNSENT as NAME

if tp.TYPE_CHECKING:
    from ..claims import Claim
    from ..task import TaskInfra

EVERY = 5.0  # seconds between two attempts
_KEY = "unsent"
_tried: dict[str, float] = {}
_unread: set[str] = set()  # pickles that could not be read here, of which this process has spoken
R = tp.TypeVar("R")
Batch = dict[str, tp.Any]
logger = logging.getLogger("exca")


def add(logs: Path, infras: "list[TaskInfra]", through: "TaskInfra", max_workers: int) -> None:
    """Put tasks on the list.

    Parameters
    ----------
    logs: Path
        folder of the logs
    infras: list of TaskInfra
        the tasks
    through: TaskInfra
        infra whose cluster, resources and mode are used
    max_workers: int
        how many of their jobs may run at once
    """
    import cloudpickle

    content = ((through._obj, through._infra_name), [(i._obj, i._infra_name) for i in infras])
    batch: Batch = {
        "id": uuid.uuid4().hex,
        "max_workers": max_workers,
        "tasks": [str(i.uid_folder()) for i in infras],
        "pickle": base64.b64encode(cloudpickle.dumps(content)).decode(),
    }
    with _Changing(logs, wait=True):
        batches = _read(logs)
        if not _listed(batches).issuperset(batch["tasks"]):
            _write(logs, [*batches, batch])


def send(logs: Path) -> None:
    """Send the tasks on the list that there is room for now; at most every few seconds.

    Parameters
    ----------
    logs: Path
        folder of the logs
    """
    path = f"{logs}/{NAME}"
    now = time.monotonic()
    if not os.access(path, os.F_OK) or now - _tried.get(path, -EVERY) < EVERY:
        return
    _tried[path] = now
    with _Changing(logs, wait=False) as claim:
        if claim is None:
            return  # another process is at it
        left = []
        for batch in _read(logs):
            rest = _send_batch(batch)
            if rest["tasks"]:
                left.append(rest)
        _write(logs, left)


def forget(logs: Path, folder: Path) -> None:
    """Take a task off the list.

    Parameters
    ----------
    logs: Path
        folder of the logs
    folder: Path
        uid folder of the task
    """
    if not os.access(f"{logs}/{NAME}", os.F_OK):
        return
    with _Changing(logs, wait=True):
        batches = _read(logs)
        for batch in batches:
            batch["tasks"] = [f for f in batch["tasks"] if f != str(folder)]
        _write(logs, [b for b in batches if b["tasks"]])


def _send_batch(batch: Batch) -> Batch:
    """Send what there is room for, return what is left of it."""
    from . import task_start

    wanted = set(batch["tasks"])
    try:
        (obj, name), members = pickle.loads(base64.b64decode(batch["pickle"]))
        through = getattr(obj, name)
        infras = [i for i in (getattr(o, n) for o, n in members) if str(i.uid_folder()) in wanted]
    except Exception as e:  # of what it calls: it may need code that is not at hand here, and is elsewhere
        if batch["pickle"] not in _unread:
            _unread.add(batch["pickle"])
            logger.warning(
                "%d task(s) that wait for room can't be read here, and wait on: %r", len(wanted), e
            )
        return batch
    try:
        jobs = task_start.start(infras, through, batch["max_workers"], listed=True)
    except Exception as e:  # it is refused for good: who asks for one of them submits it, and is told why
        logger.warning("%d task(s) that waited for room can't be submitted any more: %s", len(infras), e)
        return {**batch, "tasks": []}
    left = [str(i.uid_folder()) for i, job in zip(infras, jobs, strict=True) if isinstance(job, UnsentJob)]
    return {**batch, "tasks": left}


class _Changing:
    """Context in which this thread alone changes the list; gives None where another one does and it is not to wait."""

    def __init__(self, logs: Path, *, wait: bool) -> None:
        self._logs = logs
        self._wait = wait
        self._claim: Claim | None = None

    def __enter__(self) -> "Claim | None":
        from ..claims import Claims

        self._logs.mkdir(parents=True, exist_ok=True)
        claims = Claims(self._logs)
        while True:
            self._claim, _ = claims.acquire([_KEY])
            if self._claim is not None or not self._wait:
                return self._claim
            claims.wait([_KEY], done=lambda: False)

    def __exit__(self, *args: object) -> None:
        if self._claim is not None:
            self._claim.release()


def _read(logs: Path) -> list[Batch]:
    path = logs / NAME
    try:
        fd = _trust.open_trusted(path)
        try:
            content = orjson.loads(_files.read_all(fd))
        finally:
            os.close(fd)
        return [b for b in content["batches"] if _is_batch(b)]
    except FileNotFoundError:
        return []
    except (UntrustedFileError, OddFileError) as e:
        _trust.skip(path, e)
        return []
    except (ValueError, KeyError, TypeError) as e:
        logger.warning("The list of tasks that wait for room, %s, is damaged and left alone: %s", path, e)
        return []


def _listed(batches: list[Batch]) -> set[str]:
    """The uid folders of the tasks that wait."""
    return {folder for batch in batches for folder in batch["tasks"]}


def _is_batch(batch: tp.Any) -> bool:
    tasks = batch["tasks"]
    return (
        isinstance(tasks, list)
        and all(isinstance(task, str) for task in tasks)
        and isinstance(batch["pickle"], str)
        and type(batch["max_workers"]) is int
    )


def _write(logs: Path, batches: list[Batch]) -> None:
    path = logs / NAME
    if batches:
        content = orjson.dumps({"version": 1, "batches": batches})
        _files.write_atomically(path, content, mode=_files.PRIVATE, durable=True)
    else:
        path.unlink(missing_ok=True)


class UnsentJob(TaskJob[R]):
    """A task that waits for room in the queue.

    Parameters
    ----------
    infra: TaskInfra
        infra of the task
    logs: Path
        folder of the logs, beside which it is listed
    cluster: str
        where it is to run
    """

    def __init__(self, infra: "TaskInfra", logs: Path, cluster: str) -> None:
        folder = tp.cast(Path, infra.uid_folder())
        super().__init__(folder, Submission(cluster, "", str(logs / "%j")), "", infra._hint())
        self._infra = infra
        self._logs = logs
        self._sent: Job[R] | None = None

    def sent(self) -> Job[R] | None:
        """The job once there is one."""
        if self._sent is None:
            found = self._infra._running_job()
            if found is not None and found.job_id:
                self._sent = found
                self.submission = found.submission
        return self._sent

    @property
    def state(self) -> str:
        """The scheduler's word for the state of the job, ``UNSUBMITTED`` as long as it is not sent."""
        if self._finished() is None and self.sent() is None:
            return "UNSUBMITTED"
        return super().state

    def outcome(self) -> record.Record | None:
        """The outcome, once there is one."""
        found = record.latest(self.folder)
        return None if found is None or (self._infra.mode != "cached" and not self._sent) else found

    def describe(self) -> str:
        """The task in words."""
        job = self.sent()
        return f"{self.folder.name}, for which there is no room yet" if job is None else job.describe()

    def done(self) -> bool:
        """Whether there is an outcome, be it a result or an error."""
        return self._finished() is not None or (self.sent() is not None and super().done())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is sent and done, sending what there is room for meanwhile.

        Parameters
        ----------
        timeout: float, optional
            how long at most, in seconds
        """
        start, told = time.monotonic(), False
        try:
            while self._finished() is None:
                waited = time.monotonic() - start
                left = None if timeout is None else timeout - waited
                job = self.sent()
                if job is not None:
                    break
                if left is not None and left <= 0:
                    return False
                send(self._logs)
                if str(self.folder) not in _listed(_read(self._logs)) and self.sent() is None:
                    return self._finished() is not None  # nothing waits any more: ask again
                if not told and waited > SAY_WHY:
                    told = True
                    logger.info("Still waiting for %s", self.describe())
                time.sleep(0.25 if left is None else min(0.25, left))
            else:
                return True
        except KeyboardInterrupt:
            logger.warning(
                "Interrupted while waiting for room in the queue: %s was not submitted yet. It is sent as soon as "
                "another call waits for it, or submits with the same logs; infra.job().cancel() takes it off the list",
                self.folder.name,
            )
            raise
        return job.wait(left)

    def result(self) -> R:
        """Wait for the task and return its result."""
        self.wait()
        job = self.sent()
        return super().result() if job is None else job.result()

    def cancel(self) -> None:
        """Take it off the list, or end its job."""
        job = self.sent()
        if job is not None:
            job.cancel()
            return
        forget(self._logs, self.folder)
        self.nothing_kept = True
