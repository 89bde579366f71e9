"""Jobs as processes of their own on this machine."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import typing as tp
import uuid
from pathlib import Path

from .. import _files
from .._clusters import JobState
from .._polling import Poller
from ..claims.owner import Process
from ..errors import SubmissionError
from . import entry
from .backends import Backend, Ending, Request, Submission, pickled
from .environment import import_path
from .paths import JobPaths, make_log_folder, open_log, write_digests
from .workdir_copy import CODE, require_ours

if tp.TYPE_CHECKING:
    import psutil

# processes started by this interpreter, by pid: asked for their exit code, which also reaps them
_STARTED: dict[int, "subprocess.Popen[bytes]"] = {}
TIMED_OUT = 124  # exit code


class LocalBackend(Backend):
    """Detached worker processes: they go on when the submitting interpreter ends.

    An array is looked after by one more process, which keeps at most ``max_workers`` jobs
    running and never more than there are CPUs. What is known of a job is in files beside its logs, so that every
    interpreter gives the same answers: the supervisor, the process that began it, how that ended, that it is cancelled.
    """

    def submit(self, request: Request) -> list[Submission | None]:
        """Start a process for a single job, or the supervisor of an array."""
        resources = request.resources
        base = _base_of(request.tag or uuid.uuid4().hex)
        many = len(request.calls) > 1
        ids = [f"{base}_{k}" for k in range(len(request.calls))] if many else [base]
        limit = resources.max_pickle_size_gb
        data = [pickled(call, limit) for call in request.calls]  # all of them before anything is written
        for job_id, content in zip(ids, data, strict=True):
            job_paths = JobPaths(request.logs, job_id)
            try:
                make_log_folder(request.logs, job_paths.folder)
                _files.write_atomically(job_paths.submitted_pickle, content, mode=_files.PRIVATE)
            except OSError as e:
                raise SubmissionError(f"cannot write the job to {job_paths.folder}: {e}") from e
        processes = resources.nodes * resources.tasks_per_node
        command = [
            _python(request),
            "-m",
            "exca.jobs.worker",
            request.logs,
            base,
            str(len(ids) if many else 0),
        ]
        workers = max(1, min(request.max_workers, os.cpu_count() or 1))
        first = JobPaths(request.logs, ids[0]).folder
        digest = write_digests(first, data) if many else _files.digest(data[0])
        minutes = request.parameters.get("timeout_min", resources.timeout_min)
        command += [str(workers), str(processes), str(60 * (minutes or 0)), digest]
        pid = _start(command, JobPaths(request.logs, ids[0]), request, direct=not many and processes == 1)
        return [Submission("local", job_id, request.logs, processes, pid) for job_id in ids]

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``CANCELLED`` or ``TIMEOUT``.

        A job lives while its process does, or the supervisor that is yet to start it.
        """
        looks = ((job.job_id, _look(job)) for job in jobs)
        return [JobState(job_id, look.state, alive=look.alive) for job_id, look in looks]

    def ending(self, submission: Submission) -> Ending:
        """How the job's process ended."""
        look = _look(submission)
        text = {
            "CANCELLED": "It was cancelled.",
            "TIMEOUT": "It reached its time limit: raise timeout_min.",
        }.get(look.state) or _exit_text(submission, look.exit_code)
        return Ending(look.state, text)

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """The job that was submitted with a tag, from which its id was made."""
        base = _base_of(tag)
        job_id = base if task is None else f"{base}_{task}"
        supervisor = entry.noted_process(_supervisor_file(Submission("local", job_id, logs)))
        return None if supervisor is None else Submission("local", job_id, logs, pid=supervisor.pid)

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """End the processes of jobs, and keep from beginning what has not begun."""
        running: list[Process] = []
        for submission in submissions:
            folder = JobPaths(submission.logs, submission.job_id).folder
            if _look(submission).alive is False:
                continue
            with contextlib.suppress(OSError):  # its folder is gone: so is what it would run
                _files.write_atomically(folder / entry.CANCELLED, b"", mode=_files.OWN)
            noted = (entry.noted_process(folder / entry.began(k)) for k in range(submission.processes))
            running += [process for process in noted if process is not None]
        _end(running)


@dataclasses.dataclass(frozen=True)
class _Look:
    """What the files beside the logs of a job tell."""

    state: str
    alive: bool | None
    exit_code: int | None = None


def _look(submission: Submission) -> _Look:
    folder = JobPaths(submission.logs, submission.job_id).folder
    code = _exit_code(submission)
    if code is not None:
        return _Look(_word(folder, code), False, code)
    process = entry.noted_process(folder / entry.BEGAN)
    if process is None:
        if (folder / entry.CANCELLED).exists():
            return _Look("CANCELLED", False)
        supervised = _supervised(submission)
        return _Look("FAILED" if supervised is False else "PENDING", supervised)
    lives = process.alive()
    if lives is not False:
        return _Look("RUNNING", lives)
    child = _STARTED.get(submission.pid or -1)
    if child is not None and "_" not in submission.job_id:
        with contextlib.suppress(subprocess.TimeoutExpired):  # its last threads may take a moment to end
            child.wait(timeout=10)
    code = _exit_code(submission)  # it may have ended between the two looks
    return _Look(_word(folder, code), False, code)


def _word(folder: Path, code: int | None) -> str:
    if code == 0:
        return "COMPLETED"
    if (folder / entry.CANCELLED).exists():
        return "CANCELLED"
    return "TIMEOUT" if code == TIMED_OUT else "FAILED"


def _supervised(submission: Submission) -> bool | None:
    """Whether the process is there that is to start a job."""
    process = _STARTED.get(submission.pid or -1)
    if process is not None:
        return process.poll() is None
    supervisor = entry.noted_process(_supervisor_file(submission))
    # where there is no such file, the claim tells, which knows the start time of its owner
    return None if supervisor is None else supervisor.alive()


def _supervisor_file(submission: Submission) -> Path:
    base, array, _ = submission.job_id.partition("_")
    return JobPaths(submission.logs, f"{base}_0" if array else base).folder / "supervisor"


def _base_of(tag: str) -> str:
    """The id of a submission, from its tag: so it is found again by whoever knows the tag."""
    import hashlib

    return hashlib.sha256(tag.encode()).hexdigest()[:8]


def _exit_code(submission: Submission) -> int | None:
    """How a job ended: as it or its supervisor wrote it, or as this interpreter's child."""
    try:
        text = _files.read_file(str(JobPaths(submission.logs, submission.job_id).exit_file))
        return int(text)
    except (OSError, ValueError):
        pass
    process = _STARTED.get(submission.pid or -1)
    return None if process is None or "_" in submission.job_id else process.poll()


def _exit_text(submission: Submission, code: int | None) -> str:
    if code is None:
        return "Its process is gone."
    if code < 0:
        hint = " (out of memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
        return f"Its process was killed by {signal.Signals(-code).name}{hint}."
    return f"Its process ended with exit code {code}."


def _end(processes: "tp.Sequence[Process]") -> None:
    """End processes and their children: asked first, then made to; only those that still are what was written down."""
    import psutil

    victims = []
    for process in processes:
        try:
            found = psutil.Process(process.pid)
            if process.alive():  # looked at after psutil has taken its own note of the start time
                victims += [found, *found.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for send in ("terminate", "kill"):
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(victim, send)()
        poller = Poller(3)
        while any(_runs(victim) for victim in victims):
            if not poller.pause():
                break
        else:
            return


def _runs(process: "psutil.Process") -> bool:
    # not psutil's wait: it would take the exit code away from the parent
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _python(request: Request) -> str:
    if request.resources.conda_env is None:
        return sys.executable
    from .environment import python_of

    return str(python_of(request.resources.conda_env))


def _start(command: list[str], job_paths: JobPaths, request: Request, direct: bool) -> int:
    """Start a detached process, its output in the logs of the (first) job."""
    from .environment import clean_environment

    with clean_environment():
        env = dict(os.environ)
    if direct:
        env.update(submitit_variables(job_paths, 0, 1))
    if request.resources.gpus_per_node is not None:
        visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if visible != [""] else [str(k) for k in range(request.resources.gpus_per_node)]
        env["CUDA_VISIBLE_DEVICES"] = ",".join(names[: request.resources.gpus_per_node])
    env["PYTHONPATH"] = import_path(request.workdir)
    env.pop(CODE, None)  # of the job in which this one is submitted
    if request.workdir is not None:
        require_ours(request.workdir)
        env[CODE] = str(request.workdir)
    out = job_paths.stdout if direct else job_paths.folder / "array.out"
    err = job_paths.stderr if direct else job_paths.folder / "array.err"
    with open_log(out) as stdout, open_log(err) as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=request.workdir,
            start_new_session=True,  # ignored where there are no sessions
        )
    _STARTED[process.pid] = process
    with contextlib.suppress(OSError):  # only other interpreters read it
        entry.note_process(job_paths.folder / "supervisor", Process.of(process.pid))
    return process.pid


def submitit_variables(job_paths: JobPaths, rank: int, processes: int) -> dict[str, str]:
    """Environment by which ``submitit.JobEnvironment`` knows where it is."""
    return {
        "SUBMITIT_EXECUTOR": "local",
        "SUBMITIT_FOLDER": job_paths.pattern,
        "SUBMITIT_LOCAL_JOB_ID": job_paths.job_id,
        "SUBMITIT_LOCAL_NTASKS": str(processes),
        "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
        "SUBMITIT_LOCAL_NODEID": "0",
        "SUBMITIT_LOCAL_GLOBALID": str(rank),
        "SUBMITIT_LOCAL_LOCALID": str(rank),
    }


BACKEND = LocalBackend()
