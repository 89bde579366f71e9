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
from .environment import THREADS, import_path
from .pack import Pack
from .paths import JobPaths, open_log, write_digests, written
from .workdir_copy import CODE, require_ours

if tp.TYPE_CHECKING:
    import psutil

    from .order import Order

# processes started by this interpreter, by pid: asked for their exit code, which also reaps them
_STARTED: dict[int, "subprocess.Popen[bytes]"] = {}
_WORDS = ("TIMEOUT", "OUT_OF_MEMORY")  # by which the supervisor notes that it ended a job at a limit
_MINUTE = 60.0  # seconds
_GIB = 1 << 30
NOTED_WITHIN = 5.0  # seconds for a supervisor to note how a job ended
_late: set[int | None] = set()  # supervisors that did not, by pid


class LocalBackend(Backend):
    """Detached processes, one per task: they go on when the submitting interpreter ends.

    They are looked after by one more process, the supervisor, which keeps at most ``max_workers`` jobs running and
    never more than there are CPUs, and enforces their limits. It forks the tasks where it can (`forking`); with
    ``EXCA_LOCAL=spawn`` each gets an interpreter of its own. What is known of a job is in files beside its logs, so
    that every interpreter gives the same answers: the supervisor, the process that began it, how that ended, that it is
    cancelled.
    """

    limits_memory = True

    def submit(self, request: Request) -> list[Submission | None]:
        """Start a process for a single job, or the supervisor of an array."""
        resources = request.resources
        base = base_of(request.tag or uuid.uuid4().hex)
        many = len(request.calls) > 1
        ids = [f"{base}_{k}" for k in range(len(request.calls))] if many else [base]
        limit = resources.max_pickle_size_gb
        data = [pickled(call, limit) for call in request.calls]  # all of them before anything is written
        with written(request.logs, dict(zip(ids, data, strict=True))):
            order = self._order(request, base, ids, data)
            if request.after:
                order = order.note_after(request.after)
            pid = _start(order, request)
        return [Submission("local", job_id, request.logs, order.processes, pid) for job_id in ids]

    def _order(self, request: Request, base: str, ids: list[str], data: list[bytes]) -> "Order":
        from . import forking
        from .order import Order

        resources, many = request.resources, len(ids) > 1
        first = JobPaths(request.logs, ids[0]).folder
        asked = {
            name: request.parameters.get(name, getattr(resources, name)) for name in ("timeout_min", "mem_gb")
        }
        forks = may_fork() and forking.possible()
        needed: list[str] = []
        if forks:
            shared = [Path(file).read_bytes() for file in request.files]
            needed = forking.modules_needed([data[0], *shared])
        return Order(
            logs=request.logs,
            base=base,
            size=len(ids) if many else 0,
            workers=max(1, min(request.max_workers, os.cpu_count() or 1)),
            processes=resources.nodes * resources.tasks_per_node,
            seconds=_MINUTE * (asked["timeout_min"] or 0),
            digest=write_digests(first, data) if many else _files.digest(data[0]),
            memory=int(_GIB * resources.nodes * (asked["mem_gb"] or 0)),
            forks=forks,
            modules=tuple(needed),
        )

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``CANCELLED``, ``TIMEOUT`` or ``OUT_OF_MEMORY``.

        A job lives while its process does, or the supervisor that is yet to start it.
        """
        looks = ((job.job_id, _look(job)) for job in jobs)
        return [JobState(job_id, look.state, alive=look.alive) for job_id, look in looks]

    def waits_for_end_of(self, submission: Submission) -> bool:
        """The supervisor waits, for jobs of this machine and of Slurm."""
        return submission.cluster in ("local", "slurm") and submission.trusted

    def ending(self, submission: Submission) -> Ending:
        """How the job's process ended."""
        look = _look(submission)
        code = look.exit_code
        # only its parent knows the exit code of a single job that wrote none: a process that ends by itself writes
        # an outcome, so one that is gone was most likely killed
        began = entry.has_begun(JobPaths(submission.logs, submission.job_id).folder)
        loss = "killed" if code is None and look.state == "FAILED" and began else ""
        return Ending(look.state, in_words(look.state, code), signal=max(0, -(code or 0)), loss=loss)

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """The job that was submitted with a tag, from which its id was made."""
        base = base_of(tag)
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
            noted = (entry.noted_process(folder / entry.mark_of(k)) for k in range(submission.processes))
            running += [process for process in noted if process is not None]
        end_processes(running)


@dataclasses.dataclass(frozen=True)
class _Look:
    """What the files beside the logs of a job tell."""

    state: str
    alive: bool | None
    exit_code: int | None = None


def _look(submission: Submission) -> _Look:
    folder = JobPaths(submission.logs, submission.job_id).folder
    noted = noted_exit(submission)
    if noted is not None:
        return _ended(folder, noted)
    process = entry.noted_process(folder / entry.BEGAN)
    if process is None:
        if (folder / entry.CANCELLED).exists():
            return _Look("CANCELLED", False)
        supervised = _supervised(submission)
        noted = noted_exit(submission)  # it may have begun and ended between the looks
        if noted is not None:
            return _ended(folder, noted)
        return _Look(
            "FAILED" if supervised is False else "PENDING", supervised, _exit_code_of_supervisor(submission)
        )
    lives = process.alive()
    if lives is not False:
        return _Look("RUNNING", lives)
    child = _STARTED.get(submission.pid or -1)
    if child is not None and process.pid == child.pid:  # there is no supervisor
        with contextlib.suppress(subprocess.TimeoutExpired):  # its last threads may take a moment to end
            child.wait(timeout=10)
        return _ended(folder, (child.poll(), ""))
    return _ended(folder, _exit_after(submission) or (None, ""))


def _ended(folder: Path, noted: tuple[int | None, str]) -> _Look:
    return _Look(word_of_end(folder, noted), False, noted[0])


def word_of_end(folder: Path, noted: tuple[int | None, str]) -> str:
    """The state of a job that ended, by how that was noted and by the files in its folder."""
    code, word = noted
    if code == 0:
        return "COMPLETED"
    if (folder / entry.CANCELLED).exists():
        return "CANCELLED"
    return word or "FAILED"


def _exit_after(submission: Submission) -> tuple[int, str] | None:
    """How a job ended whose process is dead, as its supervisor notes in a moment; None if that is dead, or stopped."""
    poller = Poller(0 if submission.pid in _late else NOTED_WITHIN)
    while True:
        supervised = _supervised(submission)  # first: it notes how its jobs ended before it ends itself
        noted = noted_exit(submission)
        if noted is not None or not supervised:
            return noted
        if not poller.pause():
            _late.add(submission.pid)  # do not wait for it once more
            return None


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


def base_of(tag: str) -> str:
    """The id of a submission, from its tag: so all who know the tag find it again."""
    import hashlib

    return hashlib.sha256(tag.encode()).hexdigest()[:8]


def noted_exit(submission: Submission) -> tuple[int, str] | None:
    """How a job ended, as its supervisor wrote it: exit code (negative for a signal), and at which limit."""
    try:
        text = _files.read_file(str(JobPaths(submission.logs, submission.job_id).exit_file))
        code, _, word = text.decode("ascii").partition(" ")
        return int(code), word if word in _WORDS else ""
    except (OSError, ValueError):
        return None


def _exit_code_of_supervisor(submission: Submission) -> int | None:
    """How the supervisor ended that this interpreter started, before it began the job."""
    process = _STARTED.get(submission.pid or -1)
    return None if process is None else process.poll()


def in_words(state: str, code: int | None) -> str:
    """How the processes of a job ended, in a sentence."""
    known = {
        "CANCELLED": "It was cancelled.",
        "TIMEOUT": "It reached its time limit: raise timeout_min.",
        "OUT_OF_MEMORY": "Its processes held more memory than its limit: raise mem_gb.",
    }
    if state in known:
        return known[state]
    if code is None:
        return "Its process is gone."
    if code < 0:
        hint = " (out of memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
        return f"Its process was killed by {signal.Signals(-code).name}{hint}."
    return f"Its process ended with exit code {code}."


def end_processes(processes: "tp.Sequence[Process]") -> None:
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


def may_fork() -> bool:
    """Whether ``EXCA_LOCAL`` leaves it to the supervisor to fork."""
    said = os.environ.get("EXCA_LOCAL", "fork")
    if said not in ("fork", "spawn"):
        raise SubmissionError(
            f"EXCA_LOCAL={said!r} is neither 'fork' (the default: tasks are forked where that is safe) nor 'spawn' (an "
            "interpreter for each): nothing was submitted, correct or unset the variable"
        )
    return said == "fork"


def _start(order: "Order", request: Request) -> int:
    """Start a detached process that looks after the jobs, or that is the only one of a job which is not forked."""
    from .environment import submitit_variables
    from .order import spawn_arguments

    first = order.first()
    if not order.size:
        for log in (first.stdout, first.stderr):
            open_log(log).close()  # refuses what another user put in its place
    env = _environment(request)
    if order.forks and request.workdir is None:  # a copy of the code serves one submission
        from . import warm

        stays = warm.seconds()
        address = warm.address(_python(request), env) if stays else ""
        pid = warm.ask(address, order) if address else None
        if pid is not None:
            _note_supervisor(first, pid)
            return pid
        order = dataclasses.replace(order, address=address, stays=stays)
    direct = (
        not order.forks
        and not order.size
        and order.processes == 1
        and not (order.seconds or order.memory or order.after)
    )
    command = [_python(request), "-m", "exca.jobs.worker"]
    command += spawn_arguments(first, order.digest) if direct else [order.text()]
    if direct:
        env.update(submitit_variables(first, 0, 1))
    out = first.stdout if direct else first.folder / "array.out"
    err = first.stderr if direct else first.folder / "array.err"
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
    _note_supervisor(first, process.pid)
    return process.pid


def _note_supervisor(first: JobPaths, pid: int) -> None:
    with contextlib.suppress(OSError):  # only other interpreters read it
        entry.note_process(first.folder / "supervisor", Process.of(pid))


def _environment(request: Request) -> dict[str, str]:
    """The environment of the jobs, but for what tells one from another."""
    from .environment import clean_environment

    with clean_environment():
        env = dict(os.environ)
    resources = request.resources
    if resources.gpus_per_node is not None:
        visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if visible != [""] else [str(k) for k in range(resources.gpus_per_node)]
        env["CUDA_VISIBLE_DEVICES"] = ",".join(names[: resources.gpus_per_node])
    threads = request.parameters.get("cpus_per_task", resources.cpus_per_task)
    if any(isinstance(call, Pack) for call in request.calls):
        threads = None  # it has those of all its parts, and gives each its own
    if threads is not None and THREADS[0] not in env:  # which the others go by
        for name in THREADS:
            env.setdefault(name, str(threads))
    env["PYTHONPATH"] = import_path(request.workdir)
    env.pop(CODE, None)  # of the job in which this one is submitted
    if request.workdir is not None:
        require_ours(request.workdir)
        env[CODE] = str(request.workdir)
    return env


BACKEND = LocalBackend()
