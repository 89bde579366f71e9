"""What Slurm says about jobs: one query for all that are asked about, remembered for a second."""

import dataclasses
import logging
import os
import subprocess
import threading
import time
import typing as tp

logger = logging.getLogger("exca")

REMEMBER = 1.0  # seconds an answer is good for
WANTED = 10.0  # seconds for which a job that was asked about is asked for along with others
TIMEOUT = 20.0  # seconds for the scheduler to answer
MAX_LISTED = 500  # with more jobs than this, all jobs are asked for instead of a list
UNKNOWN = "UNKNOWN"

# every other state is one from which a job may still come back, by itself (requeue, preemption) or by hand
_FINAL = frozenset((
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
))  # fmt: skip
_COLUMNS = (
    ("JobArrayID", 48),
    ("JobID", 24),
    ("State", 24),
    ("exit_code", 12),
    ("Reason", 80),
    ("Comment", 256),
)


@dataclasses.dataclass(frozen=True, slots=True)
class JobState:
    """How a job is.

    Parameters
    ----------
    job_id
        the scheduler's id
    state
        the scheduler's word ("PENDING", "RUNNING", "COMPLETED", "OUT_OF_MEMORY"...), "UNKNOWN" when it has none
    reason
        why it waits or how it ended, as the scheduler says; may be empty
    exit_code
        "<code>:<signal>" of an ended job, else empty
    alive
        whether it runs or may run later; None when the scheduler cannot be asked
    """

    job_id: str
    state: str
    reason: str = ""
    exit_code: str = ""
    alive: bool | None = None

    @property
    def ended(self) -> bool:
        """Whether the scheduler says that it ended and that its processes are gone (a lost node's may be not)."""
        return self.alive is False and self.state not in (UNKNOWN, "NODE_FAIL", "BOOT_FAIL")


def job_states(job_ids: tp.Iterable[str]) -> dict[str, JobState]:
    """The states of Slurm jobs: at most one ``squeue`` a second, and ``sacct`` for what that has forgotten.

    Parameters
    ----------
    job_ids
        "12" for a job (or a whole array, alive while one task is), "12_3" for a task of an array
    """
    return _slurm.states(list(job_ids))


def tagged_job(tag: str, task: int | None = None, *, not_before: float = 0.0) -> str | None:
    """The id of the job whose comment is this tag, None when there is none.

    Parameters
    ----------
    tag
        the comment
    task
        number of the array's task, None for a job that is no array
    not_before
        monotonic time: an older answer will not do

    Raises
    ------
    OSError
        when the scheduler cannot be asked
    """
    base = _slurm.tagged(tag, not_before)
    return base if base is None or task is None else f"{base}_{task}"


class _Slurm:
    """The last answer of the scheduler, and what accounting said about jobs that it does not know any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = -REMEMBER  # monotonic time
        self._named: set[str] = set()  # the submissions that were asked for by name
        self._index = _Index(())
        self._failure = ""
        self._wanted: dict[str, float] = {}
        self._old: dict[str, JobState] = {}  # ended and out of squeue: nothing changes any more
        self._unknown: dict[str, tuple[float, JobState]] = {}
        self._tags: tuple[float, dict[str, str]] = (-1.0e9, {})

    def states(self, ids: list[str]) -> dict[str, JobState]:
        with self._lock:  # whoever comes while the scheduler is asked waits for that answer
            recent = [i for i in ids if i not in self._old]
            if recent and not self._knows(recent):
                self._ask({base_id(i) for i in recent})
            if self._failure:
                found = {i: JobState(i, UNKNOWN, reason=self._failure) for i in recent}
            else:
                found = {i: state for i in recent if (state := self._index.get(i)) is not None}
                found |= self._account([i for i in recent if i not in found])
            return {i: self._old[i] if i in self._old else found[i] for i in ids}

    def _knows(self, ids: list[str]) -> bool:
        """Whether the last answer will do: a job that is not in it, nor was asked for, may be a newer one."""
        if time.monotonic() - self._answered >= REMEMBER:
            return False
        return bool(self._failure) or all(base_id(i) in self._named or self._index.get(i) for i in ids)

    def _ask(self, bases: set[str]) -> None:
        now = time.monotonic()
        self._wanted = {i: t for i, t in self._wanted.items() if now - t < WANTED}
        self._wanted.update(dict.fromkeys(bases, now))
        # asked one by one for many jobs, the second question is for all there are
        again = now - self._answered < REMEMBER
        self._failure, self._named = "", set(self._wanted)
        try:
            self._index = _Index(_squeue(None if again or len(self._named) > MAX_LISTED else self._named))
        except OSError as e:
            logger.debug("Slurm cannot be asked about jobs: %s", e)
            self._failure = str(e) or repr(e)
        self._answered = time.monotonic()

    def _account(self, ids: list[str]) -> dict[str, JobState]:
        """States of jobs that squeue does not know: they run no more, whatever accounting says."""
        now = time.monotonic()
        self._unknown = {i: (t, s) for i, (t, s) in self._unknown.items() if now - t < WANTED}
        asked = [i for i in ids if i not in self._unknown]
        if asked:
            index = _Index(_sacct(sorted({base_id(i) for i in asked})))
            # an array may have tasks that ended and others that live: then squeue knows it
            self._old.update((i, s) for i, s in index.items() if s.ended and self._index.get(i) is None)
            for i in asked:
                self._unknown[i] = (now, index.get(i) or JobState(i, UNKNOWN, alive=False))
        return {i: self._unknown[i][1] for i in ids}

    def tagged(self, tag: str, not_before: float) -> str | None:
        with self._lock:
            at, tags = self._tags
            if at < not_before or time.monotonic() - at > REMEMBER:
                at = time.monotonic()
                tags = {row.comment: base_id(row.job.job_id) for row in _squeue(None) if row.comment}
                self._tags = (at, tags)
            return tags.get(tag)


class _Row(tp.NamedTuple):
    job: JobState
    raw_id: str
    comment: str


def base_id(job_id: str) -> str:
    """The id of the job that was submitted: "12" for "12_3" and for "12+1"."""
    return job_id.partition("_")[0].partition("+")[0]


def _run(args: list[str]) -> str:
    """The output of a Slurm command; raises OSError when it cannot say."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(
            args,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            env=env,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{args[0]} gave no answer within {TIMEOUT:.0f} s") from None
    if done.returncode and "Invalid job id" not in done.stderr:
        raise OSError(f"{args[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _squeue(base_ids: set[str] | None) -> list[_Row]:
    fields = ",".join(f"{name}:{width}" for name, width in _COLUMNS)
    args = ["squeue", "--noheader", "--array", "--states=all", "-O", fields]
    if base_ids is not None:
        args.append("--jobs=" + ",".join(sorted(base_ids)))
    rows = []
    for line in _run(args).splitlines():
        cells, at = [], 0
        for _, width in _COLUMNS:
            cells.append(line[at : at + width].strip())
            at += width
        job_id, raw_id, state, exit_code, reason, comment = cells
        alive = state not in _FINAL
        code = "" if alive else _exit_code(exit_code)
        reason = "" if reason == "None" else reason
        job = JobState(job_id, state, reason, code, alive)
        rows.append(_Row(job, raw_id, "" if comment == "(null)" else comment))
    return rows


def _exit_code(status: str) -> str:
    """The "code:signal" that sacct and people use, out of the wait status that squeue shows."""
    try:
        return f"{int(status) >> 8}:{int(status) & 127}"
    except ValueError:
        return status


class _Index:
    """Rows by every id under which a job may be asked for."""

    def __init__(self, rows: tp.Iterable[_Row]) -> None:
        self._exact: dict[str, JobState] = {}
        self._tasks: dict[str, JobState] = {}
        for job, raw_id, _ in rows:
            self._exact.setdefault(raw_id, job)
            self._exact[job.job_id] = job
            base, task, _ = job.job_id.partition("_")
            # a whole array is as its liveliest task
            if task and (base not in self._tasks or not self._tasks[base].alive):
                self._tasks[base] = job

    def get(self, job_id: str) -> JobState | None:
        job = self._tasks.get(job_id) or self._exact.get(job_id)
        return None if job is None else dataclasses.replace(job, job_id=job_id)

    def items(self) -> tp.Iterator[tuple[str, JobState]]:
        for job_id in self._exact.keys() | self._tasks.keys():
            yield job_id, tp.cast("JobState", self.get(job_id))


def _sacct(base_ids: list[str]) -> list[_Row]:
    """What accounting knows about ended jobs; nothing where a cluster keeps none."""
    rows, chunk = [], 1000
    fields = "--format=JobID,JobIDRaw,State,ExitCode,Reason"
    try:
        for at in range(0, len(base_ids), chunk):
            jobs = "--jobs=" + ",".join(base_ids[at : at + chunk])
            for line in _run(
                ["sacct", "--noheader", "--parsable2", "--allocations", fields, jobs]
            ).splitlines():
                job_id, raw_id, state, exit_code, reason = line.split("|", 4)
                reason = "" if reason == "None" else reason
                state = state.partition(" ")[0]  # "CANCELLED by 1000"
                if state not in _FINAL:  # accounting lags behind
                    state, exit_code = UNKNOWN, ""
                rows.append(_Row(JobState(job_id, state, reason, exit_code, alive=False), raw_id, ""))
    except (OSError, ValueError) as e:
        logger.debug("Slurm's accounting cannot be asked: %s", e)
    return rows


_slurm = _Slurm()
