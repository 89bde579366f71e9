"""All questions to Slurm: one bounded query for all jobs that are asked about, remembered for two seconds.

``squeue`` decides whether a job is alive; ``sacct`` tells how one ended that ``squeue`` has forgotten. "Cannot be
asked" is an answer of its own (``alive`` is None), from which nothing follows: a job whose scheduler does not answer
has not ended. A caller that waits gets an error when that has lasted for long (`check_patience`).
"""

import functools
import os
import re
import shutil
import subprocess
import threading
import time
import typing as tp

from .._clusters import UNKNOWN, JobState
from .._log import logger
from ..errors import SchedulerError
from .silence import Silence

REMEMBER = 2.0  # seconds an answer is good for
WANTED = 10.0  # seconds for which a job that was asked about is asked for along with others
TIMEOUT = 20.0  # seconds for the scheduler to answer
ACCOUNTING_TIMEOUT = 10.0  # seconds for accounting to answer
ACCOUNTING_AGAIN = 30.0  # seconds after which accounting is asked again that gave no answer
MAX_LISTED = 500  # with more jobs than this, all jobs are asked for instead of a list
MAX_ARGUMENT = 100_000  # characters of one argument of a command: Linux takes 131,072
# reason of a job that squeue does not list, and that has no end elsewhere
STILL = "accounting still has it as "
_JOB_ID = re.compile(r"\d+([_.+]\d+)?", re.ASCII)
_RANGES = re.compile(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", re.ASCII)  # pending tasks of an array: 565_[0-7,9%64]
_TAG_RANGE = re.compile(r"(.*)\[(\d+)-(\d+)\]", re.ASCII)

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
    ("MinMemory", 16),
    ("Comment", 256),
    ("Command", 512),
)


def is_job_id(text: str) -> bool:
    """Whether a text can be the id of a job: "12", "12_3", "12+1" or "12.0"."""
    return _JOB_ID.fullmatch(text) is not None


def job_states(job_ids: tp.Iterable[str]) -> dict[str, JobState]:
    """The states of Slurm jobs: at most one ``squeue`` per two seconds, and ``sacct`` for what that has forgotten.

    A whole array is alive while one of its tasks is; what can be no job id counts as ended.
    """
    ids = list(job_ids)
    known = _slurm.states([i for i in ids if is_job_id(i)])
    return {i: known.get(i) or JobState(i, UNKNOWN, "this is no job id", alive=False) for i in ids}


def note_submitted(job_id: str) -> None:
    """Ask for a job along with the others that were submitted a moment ago, whichever is asked about first."""
    _slurm.note_submitted(job_id)


def tagged_job(tag: str, task: int | None = None, *, not_before: float = 0.0) -> str | None:
    """The id of the job whose comment is this tag, None when there is none; raises OSError where that cannot be asked.

    A tag of one array of several is followed by the numbers of its tasks: ``tag[1000-1999]``. An answer from before the
    monotonic time `not_before` will not do.
    """
    return _slurm.tagged(tag, task, not_before)


def submitted_with(tag: str, first: int = 0) -> list[str]:
    """The ids of all jobs and arrays submitted with a tag, as their comments tell at this moment.

    Arrays that begin before the task `first` do not count. Raises OSError where Slurm cannot be asked.
    """
    return _slurm.submitted_with(tag, first)


def cancel(job_ids: tp.Iterable[str], *, pending: bool = False) -> None:
    """Cancel jobs, or only the `pending` among them, with one command; none if one is no job id (ValueError)."""
    ids = list(job_ids)
    for job_id in ids:
        if not is_job_id(job_id):
            raise ValueError(f"{job_id!r} is no id of a Slurm job: nothing was cancelled")
    for part in _parts(ids, " "):
        subprocess.run(
            ["scancel", *(["--state=PENDING"] if pending else []), "--", *part],
            check=False,
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )


def throttle(array_id: str, most: int) -> None:
    """Change how many jobs of an array may run at once; raises SchedulerError where Slurm refuses."""
    try:
        _run(["scontrol", "update", f"JobId={array_id}", f"ArrayTaskThrottle={most}"], answers=False)
    except OSError as e:
        raise SchedulerError(
            f"Slurm did not change how many jobs of array {array_id} run at once: {e}. Look with `squeue -j "
            f"{array_id}`, and try again if some of them still wait"
        ) from e


def check_patience() -> None:
    """Raise SchedulerError after ``EXCA_SCHEDULER_PATIENCE`` seconds (default 1800) without an answer."""
    _slurm.check_patience()


def answers() -> bool:
    """Whether there is a Slurm controller that answers from here."""
    if shutil.which("sbatch") is None:
        return False
    try:
        done = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return " is UP" in done.stdout


@functools.cache
def max_array_size() -> int:
    """The most tasks that one array may have here, asked once per process."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]), re.MULTILINE)
    except OSError as e:
        logger.debug("Slurm's configuration cannot be asked for: %s", e)
        found = None
    return max(1, int(found.group(1))) if found else 1001  # Slurm's own default


class _Slurm:
    """The last answer of the scheduler, and what accounting said about jobs that it does not know any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._good_until = 0.0  # monotonic time
        self._named: set[str] = set()  # the submissions that were asked for by name
        self._index = _Index(())
        self._failure = ""
        self._silence = Silence("Slurm", " (try `squeue`)")
        self._wanted: dict[str, float] = {}
        self._old: dict[str, JobState] = {}  # ended and out of squeue: nothing changes any more
        self._unknown: dict[str, tuple[float, JobState]] = {}
        self._no_accounting = ("", 0.0)  # why it gave no answer, and the time from which it is asked again
        self._tags: tuple[float, dict[str, str]] = (-1.0e9, {})

    def states(self, ids: list[str]) -> dict[str, JobState]:
        with self._lock:  # callers that come while it is asked wait for that answer
            recent = [i for i in ids if i not in self._old]
            if recent and not self._knows(recent):
                self._ask({base_id(i) for i in recent})
            if self._failure:
                found = {i: JobState(i, UNKNOWN, reason=self._failure) for i in recent}
            else:
                found = {i: state for i in recent if (state := self._index.get(i)) is not None}
                found |= self._account([i for i in recent if i not in found])
            return {i: self._old[i] if i in self._old else found[i] for i in ids}

    def note_submitted(self, job_id: str) -> None:
        with self._lock:
            self._wanted[job_id] = time.monotonic()

    def check_patience(self) -> None:
        self._silence.check()

    def _knows(self, ids: list[str]) -> bool:
        """Whether the last answer will do: a job that is not in it, nor was asked for, may be a newer one."""
        if time.monotonic() >= self._good_until:
            return False
        return bool(self._failure) or all(base_id(i) in self._named or self._index.get(i) for i in ids)

    def _ask(self, bases: set[str]) -> None:
        start = time.monotonic()
        self._wanted = {i: t for i, t in self._wanted.items() if start - t < WANTED}
        self._wanted.update(dict.fromkeys(bases, start))
        # asked one by one for many jobs, the second question is for all there are
        again = start < self._good_until
        self._named = set(self._wanted)
        try:
            index = _Index(_squeue(None if again or len(self._named) > MAX_LISTED else self._named))
        except OSError as e:
            logger.debug("Slurm cannot be asked about jobs: %s", e)
            self._failure = str(e) or repr(e)
            self._silence.begin(self._failure, start)
        else:
            self._index, self._failure = index, ""
            self._silence.end()
        now = time.monotonic()
        # where it takes long to get no answer, it is not asked for most of the time
        self._good_until = now + REMEMBER + (now - start if self._failure else 0.0)

    def _account(self, ids: list[str]) -> dict[str, JobState]:
        """States of jobs that squeue does not know: they run no more, whatever accounting has."""
        now = time.monotonic()
        self._unknown = {i: (t, s) for i, (t, s) in self._unknown.items() if now - t < WANTED}
        asked = [i for i in ids if i not in self._unknown]
        why, again = self._no_accounting
        if asked and now >= again:
            try:
                index = _Index(_sacct({base_id(i) for i in asked}))
                why = ""
            except OSError as e:
                logger.debug("Slurm's accounting cannot be asked: %s", e)
                why = f"accounting gave no answer: {e}"
                self._no_accounting = (why, time.monotonic() + ACCOUNTING_AGAIN)
            else:
                # an array may have tasks that ended and others that live: then squeue knows it
                self._old.update((i, s) for i, s in index.items() if s.ended and self._index.get(i) is None)
                for i in asked:
                    self._unknown[i] = (now, index.get(i) or JobState(i, UNKNOWN, alive=False))
        gone = {i: JobState(i, UNKNOWN, why, alive=False) for i in ids}
        return gone | {i: self._unknown[i][1] for i in ids if i in self._unknown}

    def tagged(self, tag: str, task: int | None, not_before: float) -> str | None:
        tags = self._tagged(not_before)
        if tag in tags:
            return _task_id(tags[tag], 0, task)
        for job_id, first, last in _ranges(tags, tag):
            if task is not None and first <= task <= last:
                return _task_id(job_id, first, None if first == last else task)
        return None

    def submitted_with(self, tag: str, first: int) -> list[str]:
        tags = self._tagged(time.monotonic())
        whole = [tags[tag]] if tag in tags and first == 0 else []
        return [base_id(i) for i in whole + [i for i, start, _ in _ranges(tags, tag) if start >= first]]

    def _tagged(self, not_before: float) -> dict[str, str]:
        """By comment, the id of a job that has it."""
        with self._lock:
            at, tags = self._tags
            if at < not_before or time.monotonic() - at > REMEMBER:
                at = time.monotonic()
                tags = {row.comment: row.job.job_id for row in _squeue(None) if row.comment}
                self._tags = (at, tags)
            return tags


def _ranges(tags: dict[str, str], tag: str) -> tp.Iterator[tuple[str, int, int]]:
    """Of the jobs whose comment is a tag and the numbers of their tasks: the id, the first and the last number."""
    for comment, job_id in tags.items():
        found = _TAG_RANGE.fullmatch(comment)
        if found is not None and found.group(1) == tag:
            yield job_id, int(found.group(2)), int(found.group(3))


def _task_id(job_id: str, first: int, task: int | None) -> str:
    """The id of the task of an array of which one job is known, or of a job that is no array."""
    base = base_id(job_id)
    return base if task is None or "_" not in job_id else f"{base}_{task - first}"


def _parts(texts: tp.Iterable[str], separator: str) -> tp.Iterator[list[str]]:
    """Cut a list where one argument of a command would become too long."""
    part: list[str] = []
    length = 0
    for text in texts:
        if part and length + len(text) > MAX_ARGUMENT:
            yield part
            part, length = [], 0
        part.append(text)
        length += len(text) + len(separator)
    if part:
        yield part


class _Row(tp.NamedTuple):
    job: JobState
    raw_id: str
    comment: str


def base_id(job_id: str) -> str:
    """The id of the job that was submitted: "12" for "12_3" and for "12+1"."""
    return job_id.partition("_")[0].partition("+")[0]


def _run(args: list[str], timeout: float | None = None, *, answers: bool = True) -> str:
    """The output of a Slurm command, or "" of one that answers nothing; raises OSError when it cannot say."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SACCT_"))}
    env["SLURM_BITSTR_LEN"] = "0"  # or long lists of an array's tasks are cut short
    limit = TIMEOUT if timeout is None else timeout
    try:
        done = subprocess.run(
            args,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            env=env,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{args[0]} gave no answer within {limit:.0f} s") from None
    if done.returncode and not (answers and "Invalid job id" in done.stderr):
        raise OSError(f"{args[0]} failed: {done.stderr.strip()[-300:]}")
    # even where there is nothing to list, there is a header
    if answers and not done.returncode and not done.stdout.strip():
        raise OSError(f"{args[0]} answered nothing at all")
    return done.stdout


def _squeue(base_ids: set[str] | None) -> list[_Row]:
    fields = ",".join(f"{name}:{width}" for name, width in _COLUMNS)
    args = ["squeue", "--array", "--states=all", "-O", fields]
    if base_ids is not None:
        args.append("--jobs=" + ",".join(sorted(base_ids)))
    rows = []
    for line in _run(args).splitlines()[1:]:
        cells, at = [], 0
        for _, width in _COLUMNS:
            cells.append(line[at : at + width].strip())
            at += width
        job_id, raw_id, state, exit_code, reason, memory, comment, script = cells
        if not is_job_id(raw_id):
            raise OSError(f"squeue answered what cannot be read: {line[:100]!r}")
        alive = state not in _FINAL
        code = "" if alive else _exit_code(exit_code)
        reason = "" if reason == "None" else reason
        script = script if len(script) < _COLUMNS[-1][1] else ""  # else its end is cut off
        job = JobState(job_id, state, reason, code, memory, alive, script)
        rows += [_Row(one, raw_id, "" if comment == "(null)" else comment) for one in _each_task(job)]
    return rows


def _each_task(job: JobState) -> list[JobState]:
    """One row per task of those that a scheduler lists together, as ``565_[0-7,9%64]``."""
    found = _RANGES.fullmatch(job.job_id)
    if found is None:
        return [job]
    out = []
    for part in found.group(2).split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        numbers = range(int(first), int(last or first) + 1, int(step or 1))
        out += [job._replace(job_id=f"{found.group(1)}_{n}") for n in numbers]
    return out


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
        return None if job is None else job._replace(job_id=job_id)

    def items(self) -> tp.Iterator[tuple[str, JobState]]:
        for job_id in self._exact.keys() | self._tasks.keys():
            yield job_id, tp.cast(JobState, self.get(job_id))


def _sacct(base_ids: tp.Collection[str]) -> list[_Row]:
    """What accounting knows about ended jobs, asked at once for all; raises OSError when it gives no answer."""
    rows = []
    fields = "--format=JobID,JobIDRaw,State,ExitCode,ReqMem,Reason"
    deadline = time.monotonic() + ACCOUNTING_TIMEOUT
    for part in _parts(sorted(base_ids), ","):
        args = ["sacct", "--parsable2", "--allocations", fields, "--jobs=" + ",".join(part)]
        for line in _run(args, max(0.1, deadline - time.monotonic())).splitlines()[1:]:
            cells = line.split("|", 5)
            if len(cells) < 6:
                raise OSError(f"sacct answered what cannot be read: {line[:100]!r}")
            job_id, raw_id, state, exit_code, memory, reason = cells
            reason = "" if reason == "None" else reason
            state = state.partition(" ")[0]  # "CANCELLED by 1000"
            if state not in _FINAL:  # accounting lags behind
                state, exit_code, reason = UNKNOWN, "", f"{STILL}{state}"
            job = JobState(job_id, state, reason, exit_code, memory, alive=False)
            rows += [_Row(one, raw_id, "") for one in _each_task(job)]
    return rows


_slurm = _Slurm()
