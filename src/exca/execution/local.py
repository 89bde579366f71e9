"""Jobs as processes of their own on this machine."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as tp
import uuid
from pathlib import Path

from .._files import write_atomically
from ..errors import SubmissionError
from .backends import Backend, Request, pickled
from .import_path import import_path
from .paths import JobPaths
from .submission import Submission

if tp.TYPE_CHECKING:
    import psutil

# processes started by this interpreter, by pid: asked for their exit code, which also reaps them
_STARTED: dict[int, "subprocess.Popen[bytes]"] = {}


class LocalBackend(Backend):
    """Detached worker processes: they go on when the submitting interpreter ends.

    An array is looked after by one more process, which keeps at most ``max_workers`` jobs
    running and never more than there are CPUs.
    """

    def submit(self, request: Request) -> list[Submission]:
        """Start a process for a single job, or the keeper of an array."""
        resources = request.resources
        base = uuid.uuid4().hex[:8]
        many = len(request.calls) > 1
        ids = [f"{base}_{k}" for k in range(len(request.calls))] if many else [base]
        limit = resources.max_pickle_size_gb
        data = [pickled(call, limit) for call in request.calls]  # all of them before anything is written
        for job_id, content in zip(ids, data, strict=True):
            job_paths = JobPaths(request.logs, job_id)
            try:
                job_paths.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(job_paths.submitted_pickle, content)
            except OSError as e:
                raise SubmissionError(f"cannot write the job to {job_paths.folder}: {e}") from e
        processes = resources.nodes * resources.tasks_per_node
        command = [
            _python(request),
            "-m",
            "exca.execution.worker",
            request.logs,
            base,
            str(len(ids) if many else 0),
        ]
        workers = max(1, min(request.max_workers, os.cpu_count() or 1))
        minutes = request.parameters.get("timeout_min", resources.timeout_min)
        command += [str(workers), str(processes), str(60 * (minutes or 0))]
        pid = _start(command, JobPaths(request.logs, ids[0]), request, direct=not many and processes == 1)
        return [Submission("local", job_id, request.logs, processes, pid) for job_id in ids]

    def alive(self, submission: Submission) -> bool | None:
        """Whether the job's process is there."""
        if submission.pid is None:
            return None
        if _exit_code(submission) is not None:
            return False
        process = _STARTED.get(submission.pid)
        if process is None:
            return None  # another interpreter's child: the claim, which knows its start time, tells
        if process.poll() is not None:
            return False
        # of an array, this is the keeper: once a job has started, its own process counts
        return None if "_" in submission.job_id and _pid_file(submission).exists() else True

    def state(self, submission: Submission) -> str:
        """``RUNNING`` while the process is there."""
        return "FAILED" if self.alive(submission) is False else "RUNNING"

    def verdict(self, submission: Submission) -> str:
        """The exit code or signal, where this interpreter started the process."""
        process = _STARTED.get(submission.pid or -1)
        code = _exit_code(submission)
        if code is None and process is not None:
            code = process.poll()
        if code is None:
            return f"Its process {submission.pid} is gone."
        if code < 0:
            hint = " (out of memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
            return f"Its process {submission.pid} was killed by {signal.Signals(-code).name}{hint}."
        return f"Its process {submission.pid} ended with exit code {code}."

    def cancel(self, submission: Submission) -> None:
        """End the job's processes."""
        if submission.pid is None or self.alive(submission) is False:
            return
        pid_file = _pid_file(submission)
        pids = [submission.pid] if "_" not in submission.job_id else []
        if not pids:  # one job of an array: only its own worker, or none where it has not started
            (pid_file.parent / "cancelled").touch()
            if pid_file.exists():
                pids = [int(pid_file.read_text())]
        for pid in pids:
            _end_group(pid)


def _exit_code(submission: Submission) -> int | None:
    """How a job of an array ended, as its keeper wrote it."""
    try:
        return int(JobPaths(submission.logs, submission.job_id).exit_file.read_text())
    except FileNotFoundError:
        return None


def _pid_file(submission: Submission) -> Path:
    """Where the first process of a job writes its pid."""
    return JobPaths(submission.logs, submission.job_id).folder / "pid"


def _end_group(pid: int) -> None:
    """End a process and its children: asked first, then made to."""
    import psutil

    try:
        process = psutil.Process(pid)
        victims = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for send in ("terminate", "kill"):
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(victim, send)()
        deadline = time.monotonic() + 3
        while any(_runs(victim) for victim in victims) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not any(_runs(victim) for victim in victims):
            return


def _runs(process: "psutil.Process") -> bool:
    # not psutil's wait: it would take the exit code away from who started the process
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _python(request: Request) -> str:
    if request.resources.conda_env is None:
        return sys.executable
    from .python_env import python_of

    return str(python_of(request.resources.conda_env))


def _start(command: list[str], job_paths: JobPaths, request: Request, direct: bool) -> int:
    """Start a detached process, its output in the logs of the (first) job."""
    from .python_env import clean_environment

    with clean_environment():
        env = dict(os.environ)
    if direct:
        env.update(submitit_variables(job_paths, 0, 1))
    if request.resources.gpus_per_node is not None:
        visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if visible != [""] else [str(k) for k in range(request.resources.gpus_per_node)]
        env["CUDA_VISIBLE_DEVICES"] = ",".join(names[: request.resources.gpus_per_node])
    env["PYTHONPATH"] = import_path(request.workdir)
    out = job_paths.stdout if direct else job_paths.folder / "array.out"
    err = job_paths.stderr if direct else job_paths.folder / "array.err"
    with open(out, "ab") as stdout, open(err, "ab") as stderr:
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
    return process.pid


def submitit_variables(job_paths: JobPaths, rank: int, processes: int) -> dict[str, str]:
    """Environment by which ``submitit.JobEnvironment`` knows where it is.

    Parameters
    ----------
    job_paths: JobPaths
        the job
    rank: int
        which of its processes
    processes: int
        how many there are
    """
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
