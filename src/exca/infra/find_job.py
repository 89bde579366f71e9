"""From the id of a job back to the configuration that it computes."""

import contextlib
import os
import pickle
import re
import typing as tp
from pathlib import Path

from .. import _trust
from .._log import logger
from ..engine import tasks as _tasks  # noqa: F401 # with it, a job that is waited for sends those without room
from ..engine.call import ItemsCall, TaskCall
from ..engine.record import SUBMISSION, read_submission
from ..engine.task_job import TaskJob
from ..jobs.backends import Submission
from ..jobs.entry import BEGAN, noted_process
from ..jobs.job import CallJob, Job
from ..jobs.pack import Pack
from ..jobs.paths import JobPaths, logs_of_part, part_of

if tp.TYPE_CHECKING:
    from ..confdict import ConfDict

# <module>.<Class>.<method>,<version>
_METHOD_FOLDER = re.compile(r"[^,]+\.[^,]+,[^,]+")
# what is not entered: in the folder of a method, and elsewhere
_NO_RESULTS = frozenset(("code", "logs"))
_NO_CACHE = frozenset(("__pycache__", "node_modules"))


class InfraSlurmJob(Job[tp.Any]):
    """A job found by its id, with the configuration that it computes.

    It is a :class:`Job` as any other: ``result()``, ``done()``, ``cancel()``, ``stdout()``, ``state``...

    Attributes
    ----------
    folder: Path
        uid folder of what it computes
    """

    folder: Path

    @property
    def config(self) -> "ConfDict":
        """The whole configuration, as it was when it was first computed (``config.yaml``)."""
        return self._read("config.yaml")

    @property
    def uid_config(self) -> "ConfDict":
        """What makes the address of the result: the configuration without defaults (``uid.yaml``)."""
        return self._read("uid.yaml")

    def _read(self, name: str) -> "ConfDict":
        from ..confdict import ConfDict

        return ConfDict.from_yaml(self.folder / name)


class _SlurmTaskJob(TaskJob[tp.Any], InfraSlurmJob):
    """A task's job: its outcome is the record in the uid folder."""


class _SlurmCallJob(CallJob[tp.Any], InfraSlurmJob):
    """A job whose outcome is beside its logs, as that of a part of a map."""

    def __init__(self, folder: Path, submission: Submission) -> None:
        super().__init__(submission)
        self.folder = folder


def find_slurm_job(
    *, job_id: str | int, folder: str | Path | None = None, task: int | None = None
) -> InfraSlurmJob | None:
    """Find a job that was submitted through an infra, to Slurm or locally.

    Parameters
    ----------
    job_id: str or int
        id of the job, as ``squeue`` shows it: ``12``, or ``12_3`` for a task of an array; of a local job its ``job_id``
    folder: str or Path, optional
        folder of the infra, or one above or below it. Without it Slurm is asked, which forgets jobs some minutes after
        they end and knows no local ones.
    task: int, optional
        which task of a job that holds several (``tasks_per_job``): the number in the name of its folder of logs,
        ``task-<number>-of-<count>``. `job_id` with ``_3`` is a job of an array, and not such a task

    Returns
    -------
    InfraSlurmJob or None
        the job, with its configuration as ``config`` and ``uid_config``; None if it is not found below the folder

    Raises
    ------
    ValueError
        if no folder is given and Slurm does not know the job (any more); if the job holds several tasks and `task`
        does not tell which of them is meant
    FileNotFoundError
        if the folder does not exist
    """
    job_id = str(job_id)
    root = _folder_from_slurm(job_id) if folder is None else Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder: give the folder of the infra through which {job_id} was submitted"
        )
    found = [job for place in _folders(root.absolute()) for job in _jobs_in(place, job_id)]
    # Slurm counts anew after a reinstallation: the youngest is meant
    youngest = max(found, key=lambda job: _age_mark(job.folder), default=None)
    return None if youngest is None else _task_of(youngest, found, task)


def _task_of(youngest: InfraSlurmJob, found: tp.Sequence[InfraSlurmJob], task: int | None) -> InfraSlurmJob:
    """The task that is meant of those that share a job, or the only one that a job holds."""
    which = part_of(youngest.submission.logs)
    if which is None or which.of == 1:
        if task is None or (which is not None and task == 0):
            return youngest
        raise ValueError(f"job {youngest.job_id} holds a single task: leave out task={task}")
    parts: dict[int, InfraSlurmJob] = {}
    for job in found:
        part = part_of(job.submission.logs)
        if part is not None and (part.logs, part.of) == (which.logs, which.of):
            parts.setdefault(part.number, job)
    if task is None and len(parts) == 1:
        return youngest
    if task is not None and task in parts:
        return parts[task]
    names = [f"{k}: {parts[k].folder.parent.name}/{parts[k].folder.name}" for k in sorted(parts)]
    raise ValueError(
        f"job {youngest.job_id} holds {which.of} tasks"
        + ("" if task is None else f", and none with the number {task} is found")
        + f": say which one is meant by task=<number> ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
    )


def _folders(root: Path) -> tp.Iterator[Path]:
    """The root and all folders below that may tell of a job: those of methods and of what they compute."""
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # not ours to read
            continue
        yield folder
        if _METHOD_FOLDER.fullmatch(folder.parent.name):
            continue  # what is below is the user's
        skipped = _NO_RESULTS if _METHOD_FOLDER.fullmatch(folder.name) else _NO_CACHE
        names = [entry.name for entry in found if entry.name not in skipped and entry.name[0] != "."]
        pending.extend(folder / name for name in names)


def _jobs_in(folder: Path, job_id: str) -> tp.Iterator[InfraSlurmJob]:
    """The job, or the tasks that share it, if the folder tells of it."""
    with contextlib.suppress(OSError):  # not ours to read
        submitted = read_submission(folder)
        if submitted is not None and submitted.submission.job_id == job_id:
            yield _SlurmTaskJob(folder, submitted.submission, submitted.attempt, replaces=submitted.replaces)
            return
    link = folder / "submitit"  # to the folder of the job's logs: all that earlier releases left of the job
    if link.is_symlink() and Path(os.readlink(link)).name == job_id:
        yield _SlurmTaskJob(folder, _submission_of(Path(os.path.realpath(link)), job_id))
        return
    for logs in folder.glob(f"logs/*/{job_id}"):
        submission = _submission_of(logs, job_id)
        if (folder / "uid.yaml").exists():
            yield _SlurmCallJob(folder, submission)
            return
        sent = _what_was_sent(logs / f"{job_id}_submitted.pkl")
        calls = _calls_of(sent, submission) if isinstance(sent, Pack) else [(sent, submission)]
        for call, own in calls:
            if isinstance(call, TaskCall):
                yield _SlurmTaskJob(call.folder, own, call.token, replaces=call.replaces)
            elif isinstance(call, ItemsCall):
                yield _SlurmCallJob(call.folder, own)


def _calls_of(pack: Pack, job: Submission) -> tp.Iterator[tuple[tp.Any, Submission]]:
    """What the tasks of a job were asked to run, and where each of them is."""
    count = len(pack.contents)
    for k, content in enumerate(pack.contents):
        with contextlib.suppress(Exception):  # it may need code that is not at hand here
            yield pickle.loads(content), job._replace(logs=logs_of_part(job.logs, k, count))


def _submission_of(logs: Path, job_id: str) -> Submission:
    """What the folder of its logs tells of a job: for Slurm, submitit leaves the batch script there."""
    pattern = str(logs.with_name("%j"))
    script = JobPaths(pattern, job_id).submission_file
    if script.exists() or (logs.with_name(job_id.partition("_")[0]) / script.name).exists():
        return Submission("slurm", job_id, pattern)
    if job_id.startswith("DEBUG_"):
        return Submission("debug", job_id, pattern)
    process = noted_process(logs / BEGAN)
    return Submission("local", job_id, pattern, pid=None if process is None else process.pid)


def _what_was_sent(pickled: Path) -> tp.Any:
    """What a job was asked to run, or None where that is unknown."""
    from submitit.core.utils import DelayedSubmission

    try:
        fd = _trust.open_trusted(pickled)
    except FileNotFoundError:
        return None
    try:
        with open(fd, "rb") as file:
            sent = pickle.load(file)
        return sent.function if isinstance(sent, DelayedSubmission) else sent
    except Exception as error:  # it may need code that is not at hand here
        logger.debug("What was sent to the job cannot be read from %s: %r", pickled, error)
        return None


def _age_mark(folder: Path) -> float:
    for name in (SUBMISSION, "submitit", "uid.yaml"):
        try:
            return os.lstat(folder / name).st_mtime
        except OSError:
            continue
    return 0.0


def _folder_from_slurm(job_id: str) -> Path:
    """The method's folder of a job, from where Slurm writes what it prints."""
    import subprocess

    try:
        command = ["scontrol", "show", "job", "-o", job_id]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        output = done.stdout if done.returncode == 0 else ""
        said = done.stderr.strip()
    except (OSError, subprocess.SubprocessError) as error:
        output, said = "", str(error)
    for log in re.findall(r"\bStdOut=(\S+)", output):
        for parent in Path(log).parents:
            if _METHOD_FOLDER.fullmatch(parent.name):
                return parent
    raise ValueError(
        f"Slurm does not tell where job {job_id} keeps its results "
        f"({said or 'its logs are in no folder of an infra'}): give the folder of its infra."
    )
