"""Several calls in one job: how they are put together, and what is known of each of them.

A part of a job has a folder of logs of its own below that of the job, ``task-<number>-of-<count>``. By that folder
a part is told from its neighbours wherever a submitted job is known: `Parts` answers for the parts of any backend's
jobs by what the job leaves there (``exit``, once a part ended), and else by what the backend knows of the job.
"""

import contextlib
import dataclasses
import math
import os
import signal
import typing as tp
from pathlib import Path

from .. import _files
from .._clusters import JobState
from . import entry
from .backends import Backend, Ending, Request, Submission, pickled
from .limits import OUT_OF_MEMORY
from .pack import EXIT, Pack, how, is_cancelled, read_exit
from .paths import JobPaths, logs_of_part, part_of

if tp.TYPE_CHECKING:
    from .resources import Resources

_NO_JOBS = ("debug",)  # clusters whose calls run in this very thread, one after the other anyway


# ---------------------------------------------------------------- putting together


def places(request: Request, cluster: str, count: int) -> list[tuple[int | None, str | None]]:
    """The number of the job of each of so many calls, and the folder of its logs; None where these tell nothing."""
    per = _per_job(request.resources, cluster, count)
    if per == 1:
        return [(k if count > 1 else None, None) for k in range(count)]
    jobs = math.ceil(count / per)
    return [
        (
            k // per if jobs > 1 else None,
            logs_of_part(request.logs, k % per, min(per, count - k // per * per)),
        )
        for k in range(count)
    ]


def _per_job(resources: "Resources", cluster: str, count: int) -> int:
    """How many of so many calls are in one job."""
    return 1 if count == 1 or cluster in _NO_JOBS else resources.tasks_per_job or 1


def of_job(resources: "Resources", count: int) -> "Resources":
    """What a job of so many calls asks for: as much as those need that run at once."""
    at_once = min(count, resources.concurrent_per_job or 1)
    changed: dict[str, tp.Any] = {}
    if at_once > 1:
        changed["cpus_per_task"] = at_once * (resources.cpus_per_task or 1)
        if resources.mem_gb is not None:
            changed["mem_gb"] = at_once * resources.mem_gb
    gpus = gpus_of_task(resources)
    if gpus is not None:
        changed["gpus_per_node"] = math.ceil(at_once * gpus - 0.05)
    if count > 1:
        changed["max_pickle_size_gb"] = None  # each call was looked at by itself
    changed = {name: value for name, value in changed.items() if value != getattr(resources, name)}
    if not changed:
        return resources
    content = {name: getattr(resources, name) for name in type(resources).model_fields} | changed
    return type(resources).model_construct(_fields_set=set(content), **content)


def gpus_of_task(resources: "Resources") -> float | None:
    """How many GPUs a task gets; below 1 it shares one."""
    return resources.gpus_per_task or resources.gpus_per_node


def submit(backend: Backend, cluster: str, request: Request) -> list[Submission | None]:
    """Submit calls, as many in one job as the resources tell; see ``Backend.submit``."""
    resources, calls = request.resources, request.calls
    per = _per_job(resources, cluster, request.first + len(calls))
    if per == 1:
        return backend.submit(dataclasses.replace(request, resources=of_job(resources, 1)))
    limit = resources.max_pickle_size_gb
    contents = [pickled(call, limit) for call in calls]  # all of them before anything is submitted
    at_once = min(resources.concurrent_per_job or 1, len(calls))
    draft = Pack(
        request.logs,
        [],
        concurrent=at_once,
        cpus=resources.cpus_per_task,
        gpus=_gpus(resources, at_once),
        mem_gb=resources.mem_gb,
        delay=resources.slurm_signal_delay_s,
        max_requeues=resources.max_requeues,
        modules=_modules(request, contents[0]),
        minutes=resources.timeout_min,
        limits=backend.limits_memory,
    )
    packs = [dataclasses.replace(draft, contents=contents[k : k + per]) for k in range(0, len(contents), per)]
    most = request.max_workers
    if cluster == "local":
        most = min(most, os.cpu_count() or 1)
    sent = backend.submit(
        dataclasses.replace(
            request,
            calls=list[tp.Callable[[], tp.Any]](packs),
            resources=of_job(resources, max(len(pack.contents) for pack in packs)),
            max_workers=max(1, most // at_once),
            first=request.first // per,
            # by the limit of the job, the first that needs too much would end its neighbours, too
            parameters=request.parameters | ({"mem_gb": None} if backend.limits_memory else {}),
        )
    )
    out: list[Submission | None] = []
    for pack, job in zip(packs, sent, strict=True):
        count = len(pack.contents)
        logs = [logs_of_part(job.logs, k, count) for k in range(count)] if job is not None else []
        out += [job._replace(logs=own) for own in logs] if job is not None else [None] * count
    return out


def _modules(request: Request, content: bytes) -> tuple[str, ...] | None:
    """What the calls need of installed packages, where they may be forked."""
    from . import forking
    from .local import may_fork

    if not may_fork() or not forking.possible():
        return None
    shared = [file.read_bytes() for file in request.files]
    return tuple(forking.modules_needed([content, *shared]))


def _gpus(resources: "Resources", at_once: int) -> float | None:
    """GPUs by which those that run at once are told apart; None where one task has all of its job."""
    gpus = gpus_of_task(resources)
    return gpus if gpus and (at_once > 1 or resources.gpus_per_task) else None


# ---------------------------------------------------------------- from outside


class Parts(Backend):
    """The backend of a cluster for all of its jobs, those among them that are parts of one included."""

    def __init__(self, backend: Backend, cluster: str) -> None:
        self.backend = backend
        self.cluster = cluster

    def __getattr__(self, name: str) -> tp.Any:
        return getattr(self.backend, name)

    @property
    def decides(self) -> bool:  # type: ignore[override] # as the backend has it
        """Whether "cannot be told" is never taken for the end of a job."""
        return self.backend.decides

    @property
    def outlive_submitter(self) -> bool:  # type: ignore[override] # as the backend has it
        """Whether jobs go on when the process ends that submitted them."""
        return self.backend.outlive_submitter

    def submit(self, request: Request) -> list[Submission | None]:
        """Submit calls, as many in one job as its resources tell."""
        return submit(self.backend, self.cluster, request)

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """How jobs and parts of jobs are, by one query for all."""
        known: dict[Submission, JobState] = {}
        asked = list(dict.fromkeys(map(_job_of, jobs)))
        known = dict(zip(asked, self.backend.states(asked), strict=True))
        return [known[job] if part_of(job.logs) is None else _state(job, known[_job_of(job)]) for job in jobs]

    def alive(self, submission: Submission) -> bool | None:
        """Whether it is waiting or running."""
        return self.states([submission])[0].alive

    def state(self, submission: Submission) -> str:
        """The word for its state."""
        return self.states([submission])[0].state

    def ending(self, submission: Submission) -> Ending:
        """How it ended."""
        part = part_of(submission.logs)
        if part is None:
            return self.backend.ending(submission)
        return _own_ending(submission) or _ending_with_job(
            submission, self.backend.ending(_job_of(submission))
        )

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """End jobs and parts of jobs; a job ends of which no part is left."""
        whole = [one for one in submissions if part_of(one.logs) is None]
        of_jobs: dict[Submission, int] = {}
        for one in submissions:
            part = part_of(one.logs)
            if part is None:
                continue
            of_jobs[_job_of(one)] = part.of
            folder = _folder(one)
            if read_exit(folder) is None:
                with contextlib.suppress(OSError):  # its folder is gone: so is what it would run
                    _files.make_folders(str(folder), _files.OWN_FOLDER)
                    _files.write_atomically(folder / entry.CANCELLED, b"", mode=_files.OWN)
        whole += [job for job, count in of_jobs.items() if not _any_left(job, count)]
        if whole:
            self.backend.cancel(whole)

    def waits_for_end_of(self, submission: Submission) -> bool:
        """Whether jobs can begin once another job has ended; of a part, once its whole job has."""
        return self.backend.waits_for_end_of(submission)

    def throttle(self, submissions: tp.Sequence[Submission], most: int) -> None:
        """Change how many jobs run at once, whatever number of parts they have."""
        self.backend.throttle(list(dict.fromkeys(map(_job_of, submissions))), most)

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """The job that was submitted with a tag, or the part of it that has these logs."""
        part = part_of(logs)
        if part is None:
            return self.backend.tagged(tag, task, logs, not_before=not_before)
        job = self.backend.tagged(tag, task, part.logs, not_before=not_before)
        return None if job is None else job._replace(logs=logs)

    def check_patience(self) -> None:
        """Raise SchedulerError where the backend has not answered for long."""
        self.backend.check_patience()

    def how_to_look(self, job_id: str) -> str:
        """The command by which a person looks at a job."""
        return self.backend.how_to_look(job_id)

    def waits_for(self, submission: Submission) -> str:
        """Why it is pending."""
        part = part_of(submission.logs)
        if part is None:
            return self.backend.waits_for(submission)
        why = self.backend.waits_for(_job_of(submission))
        if not why and not entry.has_begun(_folder(submission)) and self.alive(submission):
            return f"other tasks of the {part.of} in its job"
        return why


def _job_of(submission: Submission) -> Submission:
    """The job that a part is of; a job itself where it is none."""
    part = part_of(submission.logs)
    return submission if part is None else submission._replace(logs=part.logs)


def _folder(submission: Submission) -> Path:
    return JobPaths(submission.logs, submission.job_id).folder


def _any_left(job: Submission, count: int) -> bool:
    """Whether a part of a job is still to end by itself."""
    folders = (_folder(job._replace(logs=logs_of_part(job.logs, k, count))) for k in range(count))
    return any(read_exit(folder) is None and not is_cancelled(folder) for folder in folders)


def _state(part: Submission, job: JobState) -> JobState:
    """How a part is, by what it left and how its job is."""
    folder = _folder(part)
    ended = read_exit(folder)
    if ended is not None:
        word = "CANCELLED" if is_cancelled(folder) else "FAILED" if ended.code else "COMPLETED"
        word = ended.word or word
        code = f"{max(0, ended.code)}:{max(0, -ended.code)}"
        return JobState(part.job_id, word, exit_code=code, alive=False)
    if not entry.has_begun(folder):
        if is_cancelled(folder):
            return JobState(part.job_id, "CANCELLED", alive=False)
        if job.state == "RUNNING":
            return job._replace(state="PENDING", reason="")
    if job.alive is False and job.state == "COMPLETED":
        return job._replace(state="FAILED")
    return job


def _own_ending(part: Submission) -> Ending | None:
    """How a part ended, where that is its own doing; None where it ended with its job."""
    folder = _folder(part)
    ended, cancelled = read_exit(folder), is_cancelled(folder)
    if cancelled and (ended is not None or not entry.has_begun(folder)):
        return Ending("CANCELLED", "It was cancelled.")
    if ended is None:
        return None
    if ended.word == OUT_OF_MEMORY:
        return Ending(OUT_OF_MEMORY, "It needed more memory than it had: raise mem_gb.")
    if ended.code >= 0:
        return Ending("FAILED", f"Its process ended with exit code {ended.code}.")
    hint = " (out of memory?)" if -ended.code == getattr(signal, "SIGKILL", 9) else ""
    return Ending("FAILED", f"Its process was killed by {how(ended.code)}{hint}.", signal=-ended.code)


def _ending_with_job(part: Submission, job: Ending) -> Ending:
    """How a part ended that ended with its job."""
    others, own = _others(part), _folder(part)
    began = "it had begun" if entry.has_begun(own) else "it had not begun yet"
    log = JobPaths(_job_of(part).logs, part.job_id).stderr
    text = f"It ended with its job of {1 + len(others)} tasks (log: {log}), and {began}: {job.text}"
    state = "FAILED" if job.state == "COMPLETED" else job.state
    ending = job._replace(state=state, text=text)
    if not entry.has_begun(own):
        if state != "CANCELLED" and any(map(entry.has_begun, others)):
            # the doing of its neighbours, of which at least one has begun each time: it has used up no attempt
            return ending._replace(loss="launch_failure", counts=False, warned=True)
        return ending
    if state == "TIMEOUT" and _had_to_wait(own, others):
        return ending._replace(loss="preempted")  # it has not had the time that it was given
    return ending


def _others(part: Submission) -> list[Path]:
    """The folders of the logs of the neighbours of a part."""
    which = part_of(part.logs)
    if which is None:
        return []
    numbers = (k for k in range(which.of) if k != which.number)
    job = _job_of(part)
    return [_folder(job._replace(logs=logs_of_part(which.logs, k, which.of))) for k in numbers]


def _had_to_wait(own: Path, others: tp.Sequence[Path]) -> bool:
    """Whether a part began after another part had ended, in the last run of their job."""
    try:
        job, mine = (os.stat(folder / entry.BEGAN).st_mtime for folder in (own.parent, own))
    except OSError:
        return False
    return any(ended is not None and job <= ended <= mine for ended in map(_ended_at, others))


def _ended_at(folder: Path) -> float | None:
    try:
        return os.stat(folder / EXIT).st_mtime
    except OSError:
        return None
