"""The handle on the tasks that were submitted together: what `job_array` yields.

It only reads, but for `wait`, `cancel`, `throttle` and `retry`. What is asked for all tasks is asked at once: the
outcome of a task that is completed is read once, the backend gets one question for all that are not done.
"""

import dataclasses
import datetime
import os
import sys
import time
import typing as tp
from collections.abc import Sequence
from pathlib import Path

from .._log import logger
from .._polling import Poller
from ..errors import InfraError
from ..jobs import backends, entry, paths
from ..jobs.job import Job, cancel_all
from ..jobs.waiting import one_by_one
from . import earlier, record
from .method import Method, Status
from .reports import Progress, Row, Statuses, Summary, Table, differing, summary

if tp.TYPE_CHECKING:
    from .._clusters import JobState
    from .record import Record
    from .tasks import Task

REMEMBER = 1.0  # seconds for which what was found of all tasks is good
UNSUBMITTED = "UNSUBMITTED"  # of what waits for room in the queue
Only: tp.TypeAlias = tp.Literal["lost", "failed"]


@dataclasses.dataclass
class Member:
    """One task of an array; without a folder there is a job, and no task."""

    task: "Task | None"
    inline: Job[tp.Any] | None = None
    found: "Record | None" = None  # its outcome, once there is one
    status: Status = "not submitted"
    word: str = ""  # the backend's word for its state, where there is no outcome
    reason: str = ""

    @property
    def job(self) -> Job[tp.Any] | None:
        """Its job, if it has one: nothing is submitted."""
        if self.task is None:
            return self.inline
        job = self.task.job
        return job if job is not None and not job.nothing_kept else self.task.known_job("cached")

    @property
    def config(self) -> dict[str, tp.Any]:
        """What its uid was computed from."""
        return {} if self.task is None else self.task.method.config

    @property
    def obj(self) -> tp.Any:
        """The object of the user."""
        return None if self.task is None else self.task.method.obj

    def take_outcome(self) -> bool:
        """Read its outcome, if there is one that counts; whether there is."""
        if self.task is None:
            self.status = "failed" if self.inline is None or not self.inline.succeeded() else "completed"
            return True
        if self.found is not None and self.found.state == "completed":
            return True
        found = record.latest(self.task.method.folder)
        replaced = getattr(self.task.job, "replaces", None)
        if found is None or (self.task.job is not None and found.attempt == replaced):
            return False
        if found.state == "failed" and self.task.later_attempt(found) is not None:
            return False
        if earlier.is_past(found):
            return False
        self.found, self.status = found, tp.cast(Status, found.state)
        return True

    def is_lost(self) -> bool:
        """Whether its job ended without an outcome of its own."""
        if self.found is None:
            return self.status == "not submitted" and self.word != UNSUBMITTED
        return self.found.state == "failed" and "ended" in self.found.content


class ArrayHandle:
    """The tasks of an array: how they are, and what can be done with all of them.

    It is of use once the ``with`` block of `job_array` is left.
    """

    _members: "list[Member] | None" = None
    _through: Method | None = None
    _most: int = 256
    _since: float = 0.0
    _looked_at: float = -1e9

    def attach(self, members: "list[Member]", through: Method, max_workers: int) -> None:
        """Take the tasks, when they are submitted.

        Parameters
        ----------
        members: list
            the tasks
        through: infra
            the infra that submits them
        max_workers: int
            how many run at once
        """
        self._members, self._through, self._most = members, through, max_workers
        self._since = time.time()

    def follow(self, other: "ArrayHandle") -> None:
        """Be a handle on the same tasks as another one.

        Parameters
        ----------
        other: JobArray
            the handle to follow
        """
        self._members, self._through, self._most = other._members, other._through, other._most
        self._since = other._since

    def _attached(self) -> "list[Member]":
        if self._members is None:
            raise InfraError(
                "this array is not submitted yet: leave the `with infra.job_array()` block first, then ask it"
            )
        return self._members

    # ---------------------------------------------------------------- looking

    def jobs(self) -> list[Job[tp.Any]]:
        """The jobs of the tasks, in order, for `exca.wait` and `exca.as_completed`; nothing is submitted.

        Returns
        -------
        list of Job
            one per task; a task that has none, since its job was cancelled before it began, is left out
        """
        jobs = (member.job for member in self._attached())
        return [job for job in jobs if job is not None]

    def status(self) -> Statuses:
        """The status of each task, by one question to the scheduler for all; remembered for a second.

        Returns
        -------
        Statuses
            list of "not submitted", "running" (or in the queue), "completed" or "failed", with ``counts``; as text, the
            counts
        """
        return Statuses(member.status for member in self._look())

    def table(self) -> Table:
        """A table with the parameters that differ, state, reason, node, time and the end of stderr.

        Returns
        -------
        Table
            list of `Row`; a table when printed, and one of Rich when its console prints it
        """
        members = self._look()
        parameters = differing([m.config for m in members], [m.obj for m in members])
        return Table(_row(member, own) for member, own in zip(members, parameters, strict=True))

    def progress(self) -> Progress:
        """How many are done, run and wait, at which rate, and how long that will take.

        Returns
        -------
        Progress
            counts, ``rate`` and ``seconds_left``; a sentence when printed
        """
        members = self._look()
        counts = Statuses(member.status for member in members).counts
        waiting = sum(member.status == "running" and member.word == "PENDING" for member in members)
        return Progress(
            total=len(members),
            completed=counts.get("completed", 0),
            failed=counts.get("failed", 0),
            running=counts.get("running", 0) - waiting,
            waiting=waiting,
            rate=_rate(members, self._since),
        )

    def summary(self) -> Summary:
        """What the tasks have used, waited for and were attempted, and what would have done, in sentences.

        Returns
        -------
        Summary
            a text
        """
        members = self._look()
        records = [member.found.content for member in members if member.found is not None]
        known = [content for content in records if "attempt" in content]  # not those of earlier releases
        return summary(Statuses(member.status for member in members), known)

    def _look(self) -> "list[Member]":
        """Look at all tasks, unless the last look was a moment ago."""
        members = self._attached()
        if time.monotonic() - self._looked_at < REMEMBER:
            return members
        left = [member for member in members if not member.take_outcome()]
        states = _states_of(left)
        for member in left:
            state = states.get(id(member))
            task = tp.cast("Task", member.task)
            if task.job is not None and task.job.is_listed():
                member.found, member.status, member.word = None, "not submitted", UNSUBMITTED
                continue
            member.found, member.reason = None, "" if state is None else state.reason
            if state is not None and state.alive:
                member.status, member.word = "running", state.state
            else:  # it ended, or is not known to the backend: what is to be published of it is
                member.status, member.word = task.status(), "" if state is None else state.state
                if member.status in ("completed", "failed"):
                    member.take_outcome()
        self._looked_at = time.monotonic()
        return members

    def _repr_html_(self) -> str | None:
        """For notebooks; None (so that it is shown as the list that it is) before it is submitted."""
        from .. import _notebook

        if self._members is None:
            return None
        table = self.table()
        shown = _notebook.table(*table.columns(), f"{len(table):,} tasks")
        progress = self.progress()
        title = "array" if self._through is None else self._through.family
        return _notebook.card(title, _notebook.meter(progress.done, progress.total, progress), shown)

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        if self._members is None:
            return None
        return _notebook.bundle(str(self.progress()), self._repr_html_())

    # ---------------------------------------------------------------- doing

    def wait(self, timeout: float | None = None, *, bar: bool | None = None) -> bool:
        """Wait until all tasks are done.

        Parameters
        ----------
        timeout: float, optional
            how long at most, in seconds
        bar: bool, optional
            show a progress bar, with rate and time left (default: where stderr is a terminal, and in notebooks)

        Returns
        -------
        bool
            whether all are done, be it with a result or an error
        """
        jobs = self.jobs()
        stderr = sys.stderr
        from .. import _notebook

        in_notebook = _notebook.is_notebook()
        shown = in_notebook or (stderr is not None and stderr.isatty()) if bar is None else bar
        name = "" if self._through is None else self._through.family
        failed = 0
        if shown and in_notebook:
            made = _notebook.progress(len(jobs), name, "task")
        else:
            import tqdm

            made = tqdm.tqdm(total=len(jobs), desc=name, unit="task", disable=not shown)
        with made as line:
            for job in one_by_one(jobs, Poller(timeout)):
                if job is None:
                    return False
                failed += job.succeeded() is not True
                if failed:
                    line.set_postfix_str(f"{failed} failed", refresh=False)
                line.update()
        self._looked_at = -1e9
        return True

    def cancel(self) -> None:
        """End the jobs of all tasks that are not done, and keep those from being sent that wait for room."""
        cancel_all(self.jobs())
        self._looked_at = -1e9

    def throttle(self, most: int) -> None:
        """Change how many jobs may run at once, on Slurm.

        Parameters
        ----------
        most: int
            the number; what runs goes on

        Raises
        ------
        InfraError
            if the jobs are not Slurm's
        SchedulerError
            if Slurm refuses
        ValueError
            if the number is below 1
        """
        if most < 1:
            raise ValueError(f"most={most} jobs can't be: give 1 or more, or cancel()")
        of_cluster: dict[str, list[backends.Submission]] = {}
        for member in self._look():
            job = member.job
            if member.status == "running" and job is not None and job.cluster is not None and job.job_id:
                of_cluster.setdefault(job.cluster, []).append(job.submission)
        for cluster, submissions in of_cluster.items():
            backends.get(cluster).throttle(submissions, most)

    def retry(self, only: Only | None = None) -> list[Job[tp.Any]]:
        """Submit again, as one array, the tasks that failed or were lost.

        Parameters
        ----------
        only: str, optional
            "failed" (the computation raised an error), or "lost" (the job ended without an outcome: killed, out of time
            or memory, cancelled); both by default

        Returns
        -------
        list of Job
            those that were submitted

        Raises
        ------
        ValueError
            if ``only`` is another word
        """
        from .tasks import start

        if only not in (None, *tp.get_args(Only)):
            raise ValueError(f"only={only!r} is none of 'lost', 'failed' and None")
        self._looked_at = -1e9
        todo: list[Task] = []
        for member in self._look():
            if member.task is None or member.status not in ("failed", "not submitted"):
                continue
            if member.word == UNSUBMITTED:
                continue  # it is sent as room comes
            if only is None or member.is_lost() == (only == "lost"):
                member.task.forced, member.task.job = False, None
                member.found = None
                todo.append(member.task)
        self._looked_at = -1e9
        if not todo or self._through is None:
            return []
        jobs = start(todo, self._through, self._most, mode="retry")
        for task, job in zip(todo, jobs, strict=True):
            task.job = job
        logger.info("Retrying %d of %d task(s)", len(todo), len(self._attached()))
        self._since = time.time()
        return list(jobs)


class JobArray(list[tp.Any], ArrayHandle):
    """The list to which `job_array` has objects appended, and then the handle on their tasks."""


def _states_of(members: "Sequence[Member]") -> "dict[int, JobState]":
    """How the jobs of tasks without an outcome are, by one question to each backend."""
    found: dict[int, JobState] = {}
    of_cluster: dict[str | None, list[tuple[Member, backends.Submission]]] = {}
    for member in members:
        job = member.task.job if member.task is not None else None
        if job is not None and not job.nothing_kept and job.cluster is not None and job.job_id:
            of_cluster.setdefault(job.cluster, []).append((member, job.submission))
    for some in of_cluster.values():
        states = backends.of_job(some[0][1]).states([submission for _, submission in some])
        found.update((id(member), state) for (member, _), state in zip(some, states, strict=True))
    return found


def _row(member: Member, parameters: dict[str, tp.Any]) -> Row:
    found = member.found
    if found is None:
        job = member.job
        if job is None or member.status != "running":
            return Row(parameters, member.word or member.status.upper())
        node, seconds = _start_of(job.paths.folder)
        word = member.word or job.state
        return Row(parameters, word, member.reason if word == "PENDING" else "", node, seconds)
    content = found.content
    if "attempt" not in content:  # of an earlier release
        return Row(parameters, found.state.upper())
    state, reason, log = "COMPLETED", "", ""
    if found.state == "failed":
        state, error = str(content.get("ended", "FAILED")), content["error"]
        kind = str(error.get("type") or "").rpartition(".")[2]
        reason = f"{kind}: {error.get('message')}" if kind else str(error.get("message"))
        job = member.job
        if job is not None and job.cluster is not None and job.submission.trusted:
            log = paths.tail(job.paths.stderr, 1)
    seconds = content.get("seconds")
    return Row(parameters, state, reason, str(content.get("host", "")), seconds, log)


def _start_of(folder: Path) -> tuple[str, float | None]:
    """Node and running time of a job that has begun."""
    mark = folder / entry.BEGAN
    process = entry.noted_process(mark)
    if process is None:
        return "", None
    try:
        return process.hostname, max(0.0, time.time() - os.stat(mark).st_mtime)
    except OSError:
        return process.hostname, None


def _rate(members: "Sequence[Member]", since: float) -> float | None:
    """How many tasks were done per second since a time; None where that is not known yet."""
    finished = [_time_of(member.found) for member in members if member.found is not None]
    recent = [at for at in finished if at is not None and at > since]
    return len(recent) / (time.time() - since) if recent and time.time() > since else None


def _time_of(found: "Record") -> float | None:
    try:
        return datetime.datetime.fromisoformat(found.content["finished"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
