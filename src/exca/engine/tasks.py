"""Tasks: one result per configuration, which is the record in its folder, and the job that computes it.

A task is claimed first, then computed here, or sent to a job that owns the claim from then on.
"""

import contextlib
import functools
import math
import os
import threading
import time
import typing as tp
from pathlib import Path

from .. import _files
from .._log import logger
from ..errors import DamagedEntryError, JobError, ReadOnlyError, SubmissionError
from ..identity import check_secrets
from ..jobs import backends, losses
from ..jobs.backends import Submission
from ..jobs.job import DoneJob, Job
from ..jobs.paths import JobPaths, fixed_folder, part_of
from . import earlier, record, unsent
from .method import Method, Status, observers
from .record import KEY
from .task_job import Again, EarlierJob, TaskJob, UnsentJob, job_behind

if tp.TYPE_CHECKING:
    from ..claims import Claim, Holder
    from ..jobs.resources import Resources

R = tp.TypeVar("R")


class DoneTask(DoneJob[R]):
    """A task that was computed in this process."""

    nothing_kept = False

    def __init__(self, folder: Path, value: tp.Any, error: Exception | None = None) -> None:
        self.folder: Path = folder
        self.value: tp.Any = value
        self.error: Exception | None = error

    def outcome(self) -> record.Record | None:
        """The outcome on disk, if any."""
        return record.read(self.folder)


AnyJob = TaskJob[tp.Any] | DoneTask[tp.Any]


class Task:
    """A task as one object of the user's sees it."""

    __slots__ = ("forced", "job", "lock", "looked_before", "method")

    def __init__(self, method: Method, lock: "threading.RLock") -> None:
        self.method: Method = method
        self.lock: threading.RLock = lock
        self.job: TaskJob[tp.Any] | DoneTask[tp.Any] | None = None  # the one that this object asked for
        self.forced: bool = False  # whether this object has had it computed again already
        # when it was looked, by the monotonic clock, what was lost before
        self.looked_before: float = -earlier.EVERY

    @property
    def hint(self) -> str:
        """How to compute it again, for a note on a stored error."""
        name = self.method.infra_name
        return (
            f"The error of {self.method.uid} is kept. To compute it again: mode='retry' on {name!r}, "
            f"or obj.{name}.clear_job() and call again."
        )

    # ---------------------------------------------------------------- what there is

    def outcome(self, mode: str) -> record.Record | None:
        """The outcome on disk, unless the mode asks to compute again."""
        return self._if_it_counts(record.latest(self.method.folder), mode)

    def _if_it_counts(self, found: record.Record | None, mode: str) -> record.Record | None:
        if found is None:
            return None
        if not self.forced and (mode == "force" or (mode == "retry" and found.state == "failed")):
            return None
        if earlier.BEFORE in found.content and earlier.is_past(found):
            self._forget(found)
            return None
        digest = found.code
        if digest is None or digest == self.method.digest or not self._is_of_other_code(found):
            return found
        self._forget(found)  # its job was about the other code
        return None

    def _forget(self, found: record.Record) -> None:
        """Forget the job that left an outcome which does not count any more."""
        job = self.job
        if not isinstance(job, TaskJob) or job.attempt == found.attempt:
            self.job, self.forced = None, False

    def _is_of_other_code(self, found: record.Record) -> bool:
        """Whether an outcome does not count since the code is another one today; warns where it does all the same."""
        code = self.method.code
        which = f"the result in {found.folder}, {found.content.get('finished')}"
        return code is not None and not code.counts(found.code, which)

    def _is_stale(self, found: record.Record) -> bool:
        """Whether an outcome does not count any more; warns of nothing."""
        code = self.method.code if self.method.policy == "strict" else None
        return (code is not None and code.differs(found.code)) or earlier.is_past(found)

    def known_job(self, mode: str, *, running: bool = True) -> AnyJob | None:
        """The job of this object, the one that left a record, or the one of the process that computes the task now."""
        folder = self.method.folder
        before = record.latest(folder)
        found = self._if_it_counts(before, mode)
        job = self.job
        if job is not None and (self.forced or job.outcome() is not None):
            if not job.nothing_kept:
                return job
            self.job = None
        if found is not None:
            return self.later_attempt(found) or self.job_of_record(found)
        # what is in no folder yet is computed by no process: were that only not visible yet, the claim would tell
        return self.running_job(before) if running and os.path.isdir(folder) else None

    def running_job(self, before: record.Record | None, mode: str | None = None) -> TaskJob[tp.Any] | None:
        """The job of the process that computes the task now.

        The outcome is read before: what is there once a claim was seen may be of that claim.
        """
        holder = self._holder()
        if holder is None or (
            not holder.alive() and (holder.owner.kind == "process" or (mode or self.method.mode) != "cached")
        ):
            return self.queued_before()
        return self._job_of(holder, before)

    def queued_before(self) -> TaskJob[tp.Any] | None:
        """The job that an earlier release queued for the task and that waits or runs."""
        path = self.method.folder / record.LEGACY_NAME
        if not os.access(path, os.F_OK):
            return None
        from .legacy import queued

        submission = queued(path)
        return None if submission is None else EarlierJob(self.method.folder, submission, hint=self.hint)

    def later_attempt(self, found: record.Record) -> TaskJob[tp.Any] | None:
        """The attempt that is to replace an outcome, if the caller has to wait for it.

        The object that asked for the attempt does; others do where the outcome is a failure.
        """
        job = self.job
        if isinstance(job, TaskJob) and job.goes_on_after(found):
            return job
        if found.state == "failed":
            running = self.running_job(found)
            if running is not None and running.attempt and running.attempt != found.attempt:
                return running
        return None

    def job_of_record(self, found: record.Record) -> TaskJob[tp.Any]:
        """The job that left an outcome."""
        try:
            submission = Submission.from_json(found.content, trusted=found.trusted)
        except ValueError:  # another user wrote it, and what it holds about the job is of no use
            submission = Submission(None, "", "")
        return TaskJob(found.folder, submission, found.attempt, self.hint)

    def _holder(self) -> "Holder | None":
        from ..claims import Claims

        return Claims(self.method.folder).holders([KEY]).get(KEY)

    def _job_of(self, holder: "Holder", before: record.Record | None = None) -> TaskJob[tp.Any]:
        """The job behind a claim, which was looked for after the outcome."""
        again = functools.partial(self.again, self.method, ())
        logs = str(self.method.logs)
        return job_behind(self.method.folder, holder, before, logs, hint=self.hint, again=again)

    def again(self, through: Method, neighbours: "tp.Sequence[Task]") -> AnyJob | None:
        """The next attempt after one that was lost, submitted or computed now unless another caller has done so.

        None where the mode forbids it. Tasks that were in the same job, and lost with it, are submitted together again.
        """
        if "read-only" in (through.mode, self.method.mode):
            return None
        with self.lock, contextlib.ExitStack() as locks:
            lost: list[Task] = [self]
            for one in neighbours:
                if one is not self and one.lock.acquire(blocking=False):  # else another thread is at it
                    locks.callback(one.lock.release)
                    lost += [one] if isinstance(one.job, TaskJob) and one.job.is_lost() else []
            for one in lost:
                one.forced, one.job = False, None
            for one, job in zip(lost, start(lost, through), strict=True):
                one.job = job
            return self.job

    def status(self) -> Status:
        """What is known of it, without computing anything."""
        if self.job is None and self.method.policy != "strict" and record.is_completed(self.method.folder):
            return "completed"
        found = record.latest(self.method.folder)
        stale = found is not None and self._is_stale(found)
        if found is not None and found.state == "completed" and self.job is None and not stale:
            return "completed"
        running = self._holder_status(found)
        if running is not None:
            return running
        job = self.job
        if found is not None and isinstance(job, TaskJob) and job.replaces == found.attempt:
            ended = job.record_death()
            if ended is None and job.lost:
                return "not submitted"
            if ended is None and job.nothing_kept:
                return tp.cast(Status, found.state)
            return "running" if ended is None else tp.cast(Status, ended.state)
        if found is None:
            found = record.latest(self.method.folder)  # it may have finished between the two looks
        if found is None and self.queued_before() is not None:
            return "running"
        return "not submitted" if found is None or stale else tp.cast(Status, found.state)

    def _holder_status(self, found: record.Record | None) -> Status | None:
        """The state of the holder of the task, None where its outcome is there."""
        holder = self._holder()
        if holder is None or (found is not None and found.attempt == holder.token):
            return None
        if holder.alive():
            return "running"
        if holder.owner.kind == "process":
            return None
        death = self._job_of(holder, found).record_death()
        return None if death is None else tp.cast(Status, death.state)

    # ---------------------------------------------------------------- what to do

    def result(self) -> tp.Any:
        """The result, from the record or computed."""
        mode = self.method.mode
        while True:
            found = self._if_it_counts(record.latest(self.method.folder), mode)
            job: AnyJob | None
            if found is None:
                job = self.start()
            elif self.job is None and found.state == "completed":
                job = None
            else:
                job = self.later_attempt(found)
            if found is not None and job is None:
                if found.state == "failed":
                    return self.job_of_record(found).result()  # raises
                try:
                    return found.value()
                except DamagedEntryError as e:
                    record.set_aside(found.folder, str(e), found.attempt)
                    continue
            if isinstance(job, DoneTask):
                if job.error is not None:
                    raise job.error
                return job.value
            if job is not None and job.cluster is not None:
                try:
                    return job.result()
                except JobError:
                    if not self._is_taken_over(job):
                        raise
                    self.job = None  # the outcome of the one that computes it now is the one that counts
                    continue
            self._wait_for_process(found)

    def _is_taken_over(self, job: AnyJob) -> bool:
        """Whether a job has left no outcome, and another one or a process computes its task by now."""
        from ..claims import Claims

        if not isinstance(job, TaskJob) or job.outcome() is not None:
            return False
        holders = Claims(self.method.folder).holders([KEY]).values()
        return any(holder.token != job.attempt and holder.alive() for holder in holders)

    def _wait_for_process(self, old: record.Record | None) -> None:
        """Wait for the process that computes the task: should that one die, it is ours to compute."""
        from ..claims import Claims

        def done() -> bool:
            found = self.outcome(self.method.mode)
            return found is not None and (old is None or found.attempt != old.attempt)

        Claims(self.method.folder).wait([KEY], done=done)

    def start(self) -> AnyJob:
        """The job of the task, started now if there is neither a job nor a result."""
        mode = self.method.mode
        with self.lock:
            known = self.known_job(mode)
            if isinstance(known, TaskJob) and known.is_lost():
                known, self.forced, self.job = None, False, None
            if known is None:
                if mode == "read-only":
                    self.refuse_to_compute()
                known = self.job = start([self], self.method)[0]
            return known

    def clear(self) -> None:
        """Cancel the job if it runs, and remove the outcome."""
        from ..claims import Claims
        from .current import remove_metrics

        folder = self.method.folder
        for holder in Claims(folder).holders([KEY]).values():
            if holder.alive() and holder.owner.kind == "job":
                backends.cancel([self._job_of(holder).submission])
            Claims(folder).revoke(holder.token)
        found = record.read(folder)
        if found is not None:
            found.remove_data()
        for name in record.OUTCOMES:
            with contextlib.suppress(FileNotFoundError):
                _files.remove(f"{folder}/{name}")
        remove_metrics(folder)
        self.job, self.forced = None, False

    def refuse_to_compute(self) -> tp.NoReturn:
        """Raise what tells that the mode forbids computing."""
        found, code = record.latest(self.method.folder), self.method.code
        if found is not None and code is not None and code.differs(found.code):
            raise ReadOnlyError(
                f"the result of {self.method.uid} in {self.method.resources.folder} is of other code "
                f"({code.described(str(found.code))}), so it does not count with code='strict', and mode='read-only' "
                "forbids computing it: use mode='cached', or code='warn'"
            )
        raise ReadOnlyError(
            f"{self.method.uid} has no result in {self.method.resources.folder} and mode='read-only' forbids computing "
            "it: check the folder and the configuration, or use mode='cached'"
        )

    def claim(self, mode: str) -> "Claim | AnyJob":
        """Claim the task, or return the job that computes it or has left an outcome."""
        from .once import claim_missing

        self._note_end(mode)
        while True:
            claim, _, held = claim_missing(
                self.method.folder, [KEY], lambda keys: [] if self.outcome(mode) else list(keys)
            )
            if claim is not None:
                return claim
            found = record.latest(self.method.folder)
            job = self.running_job(found, mode) if held or found is None else self.job_of_record(found)
            if job is not None:
                return job  # else it has ended this moment

    def _note_end(self, mode: str) -> None:
        """Note how the last job of the task ended, if it did without an outcome: a new claim hides the trace of it."""
        folder = self.method.folder
        if not os.access(f"{folder}/{record.SUBMISSION}", os.F_OK):
            return
        holder = self._holder()
        if holder is not None and holder.owner.kind == "job" and not holder.alive():
            job = self._job_of(holder, record.latest(folder))
            if mode == "cached":
                job.record_death()
            else:
                job.note_if_lost()  # a failure is computed again anyway

    def compute_here(self, mode: str) -> AnyJob:
        """Compute it in this thread, unless another process is at it."""
        from ..claims import FirstClaim

        for observe in observers:
            observe(self.method)
        # a folder that is new is born with the claim in it
        first = FirstClaim(self.method.folder, [KEY])
        self.method.make_folder(first)
        claim = first.claim or self.claim(mode)
        if isinstance(claim, Job):
            return claim
        folder, series = self.method.folder, losses.NONE_LOST
        if first.claim is None:
            series = series._replace(lost=_lost_before(folder)[1])
        with claim:
            try:
                value = record.compute(self.method, folder, claim, {}, series=series)
                job: DoneTask[tp.Any] = DoneTask(folder, value)
            except Exception as e:
                kept = record.read(folder)
                if kept is not None and kept.state == "failed":
                    e.add_note(self.hint)
                job = DoneTask(folder, None, e)
            self.forced = True
        return job

    def go_on_before(self) -> None:
        """Submit again what was lost of the tasks before it."""
        now = time.monotonic()
        if now - self.looked_before >= earlier.EVERY:
            self.looked_before = now
            earlier.go_on(self.method)

    def compute_after(self, verdict: earlier.Verdict, mode: str) -> AnyJob:
        """Compute it in this thread, now that what comes before is done; it fails where that has failed."""
        if verdict.failed is None:
            return self.compute_here(mode)
        self.method.make_folder()
        claim = self.claim(mode)
        if isinstance(claim, Job):
            return claim
        with claim:
            error = earlier.publish_failure(self.method, claim, verdict.failed, {})
        self.forced = True
        return DoneTask(claim.folder, None, error)


# -------------------------------------------------------------------- many tasks, in jobs


def start(
    tasks: list[Task], through: Method, max_workers: int = 256, *, listed: bool = False, mode: str = ""
) -> list[AnyJob]:
    """Claim tasks without an outcome, and compute or submit those that no other process computes.

    Cluster, resources and mode, unless another one is given, are those of the infra that they go through. ``listed``:
    those that there is no room for are on the list of them already.
    """
    following = False
    for task in tasks:
        check_secrets(task.method.obj)
        if getattr(task.method.resources, "after", None):
            following = True
    cluster, mode = through.resources.cluster and through.resources.resolved_cluster(), mode or through.mode
    verdicts = _before(tasks, cluster, listed=listed) if following else {}
    if cluster is None and following:
        return [task.compute_after(verdicts[id(task)], mode) for task in tasks]
    if cluster is None:
        return [task.compute_here(mode) for task in tasks]
    logs = fixed_folder(str(through.logs))
    if not listed:
        unsent.send(logs)  # those that wait already come first
    jobs: dict[int, AnyJob] = {}
    claimed = _claim(tasks, mode, jobs)
    try:
        _send_again_together([(tasks[k], job) for k, job in jobs.items()], through)
        if following:
            claimed = _judged(claimed, verdicts, cluster, jobs)
        to_send = [one for one in claimed if one.behind is not None and one.number not in jobs]
        if to_send:
            jobs.update(_submit_groups(to_send, through, cluster, max_workers, listed=listed))
    except BaseException:
        for one in claimed:
            one.claim.release()
        raise
    left = [one for one in claimed if one.number not in jobs]
    for one in left:
        one.claim.release()
    if left and not listed:
        _say_held(left, through, cluster)
        unsent.add(logs, [one.task.method for one in left], through, max_workers)
    jobs.update((one.number, UnsentJob(one.task, logs, cluster, held=one.behind is None)) for one in left)
    return [jobs[k] for k in range(len(tasks))]


def _send_again_together(found: tp.Iterable[tuple[Task, AnyJob]], through: Method) -> None:
    """Have tasks that share a job, which another interpreter has submitted, submitted together should that be lost."""
    of_job: dict[tuple[str | None, str], list[Task]] = {}
    for task, job in found:
        if isinstance(job, TaskJob) and part_of(job.submission.logs) is not None:
            tasks = of_job.setdefault((job.cluster, job.job_id), [])
            tasks.append(task)
            job.send_again_by(functools.partial(task.again, through, tasks))


class _Claimed(tp.NamedTuple):
    """A task to be submitted."""

    number: int
    task: Task
    claim: "Claim"
    replaces: str | None  # the attempt whose outcome is there
    lost: tuple[losses.Attempt, ...]  # attempts since then
    series: losses.Series = losses.NONE_LOST  # what it gets after these
    # jobs that have to end before its own begins; None where its backend can't wait for them
    behind: tuple[Submission, ...] | None = ()


def _claim(tasks: list[Task], mode: str, jobs: dict[int, AnyJob]) -> list[_Claimed]:
    """Claim tasks; those that are claimed already, or have an outcome, get their jobs."""
    claimed: list[_Claimed] = []
    try:
        for k, task in enumerate(tasks):
            task.method.make_folder()
            claim = task.claim(mode)
            if isinstance(claim, Job):
                jobs[k] = claim
            else:
                claimed.append(_Claimed(k, task, claim, *_lost_before(claim.folder)))
    except BaseException:
        for one in claimed:
            one.claim.release()
        raise
    return claimed


def _before(tasks: list[Task], cluster: str | None, *, listed: bool) -> dict[int, earlier.Verdict]:
    """What follows for tasks from those before them, which are started here."""
    known: earlier.Looked = {}
    here = cluster in (None, "debug")
    return {
        id(task): earlier.start_before(task.method, _start_together, known, here=here, listed=listed)
        for task in tasks
    }


def _start_together(tasks: tp.Sequence[earlier.Known]) -> None:
    """Submit those of the tasks in one array per method that have neither an outcome nor a job."""
    groups: dict[tp.Any, list[Task]] = {}
    for task in tp.cast("list[Task]", tasks):
        method = task.method
        if method.resources.cluster is not None and task.known_job(method.mode) is None:
            groups.setdefault((method.family, str(method.logs), method.mode), []).append(task)
    for group in groups.values():
        if len(group) > 1 and group[0].method.mode != "read-only":
            for task, job in zip(group, start(group, group[0].method), strict=True):
                task.job = job


def _judged(
    claimed: list[_Claimed], verdicts: dict[int, earlier.Verdict], cluster: str, jobs: dict[int, AnyJob]
) -> list[_Claimed]:
    """Claimed tasks with the jobs that they come after; those that fail since an earlier one has get their jobs."""
    takes = backends.get(cluster).waits_for_end_of
    for one in claimed:
        failed = verdicts[id(one.task)].failed
        if failed is not None:
            jobs[one.number] = _failed_before(one, failed)
    return [one._replace(behind=verdicts[id(one.task)].behind(takes)) for one in claimed]


def _failed_before(one: _Claimed, failed: earlier.Standing) -> AnyJob:
    """Publish that a task fails since an earlier one has; its job is that of the record."""
    error = earlier.publish_failure(one.task.method, one.claim, failed, {})
    one.claim.release()
    found = record.latest(one.claim.folder)
    return DoneTask(one.claim.folder, None, error) if found is None else one.task.job_of_record(found)


def _say_held(left: list[_Claimed], through: Method, cluster: str) -> None:
    held = sum(one.behind is None for one in left)
    if held:
        logger.info(
            "%d task(s) of %s come after tasks that %s can't wait for, and are sent once those are done, by whichever "
            "process waits for them or submits with the same logs",
            *(held, through.family, cluster),
        )


def _submit_groups(
    claimed: list[_Claimed], through: Method, cluster: str, max_workers: int, *, listed: bool
) -> dict[int, AnyJob]:
    """Submit claimed tasks, one array for each distinct set of resources; returns the jobs of those that were sent."""
    from ..jobs import arrays

    groups: list[tuple[Resources, list[_Claimed]]] = []
    for resources, numbers in arrays.by_resources(
        [c.task.method.resources for c in claimed], through.resources
    ):
        groups += _by_losses(resources, [claimed[n] for n in numbers], cluster)
    jobs: dict[int, AnyJob] = {}
    workers = arrays.shares(max_workers, [len(members) for _, members in groups])
    workdir: Path | None = None
    submissions: list[Submission | None] = []
    for (resources, part), most in zip(groups, workers, strict=True):
        name = part[0].task.method.title if len(part) == 1 else ""  # jobs of an array share one
        request = through.request([], max_workers=most, resources=resources, name=name, workdir=workdir)
        request.after = tuple(dict.fromkeys(job for one in part for job in one.behind or ()))
        workdir = request.workdir  # one copy for all
        try:
            sent = _submit(part, request, cluster)
        except SubmissionError as e:
            # of a first submission the caller is told; those that follow are tried again, as where there is no room.
            # A job that came through all the same finds its claim gone, and computes nothing.
            if not (e.passing and (listed or all(one.lost for one in part))):
                raise
            logger.warning("%s. It is tried again in a while", e)
            sent = [None] * len(part)
        submissions += sent
        of_job: dict[str, list[Task]] = {}  # those that share one
        for one, submission in zip(part, sent, strict=True):
            if submission is not None:
                tasks = of_job.setdefault(submission.job_id, [])
                tasks.append(one.task)
                again = functools.partial(one.task.again, through, tasks)
                jobs[one.number] = _transferred(one, submission, request, again)
    arrays.report(submissions, through.family, cluster)
    return jobs


def _by_losses(
    resources: "Resources", members: list[_Claimed], cluster: str
) -> "list[tuple[Resources, list[_Claimed]]]":
    """Group tasks with the same resources by what they get after attempts that were lost, and from when on."""
    from ..jobs import arrays

    now = time.time()
    groups: dict[str, tuple[Resources, list[_Claimed]]] = {}
    for one in members:
        series = losses.Series.next(resources, one.lost, now)
        pause = max(0, math.ceil(series.not_before - now)) if one.lost and cluster == "slurm" else 0
        behind = sorted({(job.cluster or "", job.job_id) for job in one.behind or ()})
        key = repr((sorted(series.scaled.items()), pause, behind))
        if key not in groups:
            changed = losses.asked_of_next(resources, series, pause)
            groups[key] = (arrays.changed_to(resources, changed) if changed else resources), []
        groups[key][1].append(one._replace(series=series))
    return list(groups.values())


def _lost_before(folder: Path) -> tuple[str | None, tuple[losses.Attempt, ...]]:
    """The attempt whose outcome is in a folder, and the attempts that were lost since."""
    before = record.latest(folder)
    replaces = None if before is None else before.attempt
    return replaces, record.lost_before(folder, replaces)


def _submit(claimed: list[_Claimed], request: "backends.Request", cluster: str) -> list[Submission | None]:
    """Submit claimed tasks with the same resources."""
    from .call import TaskCall
    from .runner import announce

    for one in claimed:
        for observe in observers:
            observe(one.task.method)
        one.task.method.require_unchanged()  # what is pickled now is what its folder is named after
    now = time.time()
    request.calls = [
        TaskCall(
            c.claim.folder,
            c.claim.token,
            request.logs,
            c.task.method,
            replaces=c.replaces,
            submitted=now,
            code=None if c.task.method.code is None else c.task.method.code.now,
            series=c.series,
        )
        for c in claimed
    ]
    request.tag = announce([one.claim for one in claimed], cluster, request)
    return backends.submit(cluster, request)


def _transferred(
    one: _Claimed, submission: Submission, request: "backends.Request", again: "Again"
) -> AnyJob:
    """Make a job the owner of its task, and note which job it is."""
    from .links import link_code, link_logs
    from .runner import transfer_to

    task, claim = one.task, one.claim
    where, now = submission.to_json(), record.iso(time.time())
    record.note_submission(claim.folder, where, claim.token, one.replaces, series=one.series, submitted=now)
    transfer_to(claim, submission)
    link_code(claim.folder, request.workdir)
    link_logs(claim.folder, JobPaths(submission.logs, submission.job_id).folder)
    job: TaskJob[tp.Any] = TaskJob(
        claim.folder, submission, claim.token, task.hint, one.replaces, again=again
    )
    task.job = job  # first: a thread that sees that it was forced waits for it
    task.forced = True
    return job


def _submit_listed(methods: list[Method], through: Method, max_workers: int) -> list[Path]:
    """Submit tasks that wait for room; returns the folders of those for which there is none yet."""
    tasks = [Task(method, threading.RLock()) for method in methods]
    jobs = start(tasks, through, max_workers, listed=True)
    return [task.method.folder for task, job in zip(tasks, jobs, strict=True) if isinstance(job, UnsentJob)]


unsent.submit_by(_submit_listed)
