"""Jobs on Slurm: the batch script as submitit writes it, submitted and looked after from here."""

import collections
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import typing as tp
import uuid
from pathlib import Path

from .. import _files
from .._clusters import UNKNOWN, JobState
from .._log import logger
from .._polling import Poller
from ..errors import SubmissionError
from . import arrays, paths, slurm_queue
from .arrays import RefusedError, UnsureError
from .backends import Backend, Ending, Request, Submission, pickled
from .entry import BEGAN, CANCELLED
from .environment import import_path

if tp.TYPE_CHECKING:
    from .resources import Resources

SBATCH_TIMEOUT = 300.0  # seconds
# seconds for which a job may be in no list before it counts as gone without a word of its end
GONE_AFTER = 90.0
NEW = 900.0  # seconds for which a job that neither squeue nor accounting knows may be too new for them
LATE = 2.5  # seconds for what sbatch was interrupted at to be listed
_CANNOT_OPEN = 53  # the signal that Slurm reports where it could not open a file of the job
# after these words a job may have been submitted all the same, and so it may without the words of a refusal
_UNSURE = re.compile(r"timed out|Unable to contact|No reply|Connection|Zero Bytes", re.IGNORECASE)
# Slurm's own words in the log of a job, where it has no state of its own for that (JobAcctGatherParams=OverMemoryKill)
_OVER_MEMORY = re.compile(
    r"^slurmstepd\S*: error:.*(?:exceeded memory limit|oom[-_ ]kill)", re.IGNORECASE | re.MULTILINE
)
_REFUSED = re.compile(r"submission failed|unrecognized option|invalid|unable to open", re.IGNORECASE)


_not_listed: dict[str, float] = {}  # by id of a job, the first look at which it was in no list
_IMPORT_PATH = "export PYTHONPATH="
_CHECK_CODE = '[ "'
_SENT = ".sent-"  # begins the name of the folder of what was submitted together


def make_executor(
    resources: "Resources",
    logs: Path | str,
    *,
    name: str,
    max_workers: int = 256,
    workdir: Path | None = None,
    tag: str = "",
) -> tp.Any:
    """A submitit executor with the given resources."""
    import submitit

    cluster = resources.resolved_cluster()
    kwargs: dict[str, tp.Any] = {}
    if cluster == "slurm":
        # in place of the batch script's shell: where Slurm tracks processes by their parents, a Python that
        # outlives its shell (it lets SIGTERM pass) would escape the end of its job
        kwargs["slurm_python"] = ("" if resources.slurm_use_srun else "exec ") + _python_command(resources)
    if resources.max_pickle_size_gb is not None and cluster in ("local", "slurm"):
        kwargs[f"{cluster}_max_pickle_size_gb"] = resources.max_pickle_size_gb
    executor = submitit.AutoExecutor(folder=logs, cluster=cluster, **kwargs)
    params: dict[str, tp.Any] = {"name": name}
    for field in ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"):
        value = getattr(resources, field)
        if value is not None:
            params[field] = value
    if cluster == "slurm":
        params.update(_slurm_parameters(resources, max_workers, workdir, tag))
    executor.update_parameters(**params)
    if (
        cluster == "slurm"
        and resources.timeout_min is None
        and "time" not in (resources.slurm_additional_parameters or {})
    ):
        executor._executor.parameters["time"] = None  # the partition's default; submitit's own is 5 minutes
    return executor


def _python_command(resources: "Resources") -> str:
    python = Path(sys.executable)
    if resources.conda_env is not None:
        from .environment import python_of

        python = python_of(resources.conda_env)
    return shlex.quote(str(python))


def _slurm_parameters(
    resources: "Resources", max_workers: int, workdir: Path | None, tag: str
) -> dict[str, tp.Any]:
    params: dict[str, tp.Any] = {
        "slurm_use_srun": resources.slurm_use_srun,
        "slurm_array_parallelism": max_workers,
        "slurm_signal_delay_s": resources.slurm_signal_delay_s,
    }
    for field in ("slurm_constraint", "slurm_partition", "slurm_account", "slurm_qos"):
        if getattr(resources, field) is not None:
            params[field] = getattr(resources, field)
    # what is given by the names of sbatch goes first
    additional = {**resources.mail_options(), **(resources.slurm_additional_parameters or {})}
    if additional.keys().isdisjoint(("requeue", "no-requeue", "no_requeue")):
        additional["requeue"] = True  # where the site's default is another one
    if tag and "comment" not in additional:
        additional["comment"] = tag
    setup = [f"{_IMPORT_PATH}{shlex.quote(import_path(workdir))}", *(resources.slurm_setup or [])]
    if workdir is not None:
        additional.setdefault("chdir", str(workdir))
        setup.insert(0, _check_code(workdir))
    if additional:
        params["slurm_additional_parameters"] = additional
    params["slurm_setup"] = setup
    return params


def _check_code(workdir: Path) -> str:
    """A line of the batch script that ends a job whose code was exchanged while it waited, before Python starts."""
    code, owner = shlex.quote(str(workdir)), os.stat(workdir).st_uid
    said = f'"exca: the copy of the code "{code}" now belongs to another user: it was exchanged, so nothing is run"'
    return f'{_CHECK_CODE}$(stat -L -c %u {code})" = {owner} ] || {{ echo {said} >&2; exit 1; }}'


def _set_parameters(executor: tp.Any, parameters: dict[str, tp.Any]) -> None:
    """Set parameters of a launcher, and keep what the jobs cannot do without: the import path and the tag."""
    executor = executor._executor
    known = {name: value for name, value in parameters.items() if name in executor._valid_parameters()}
    ours = executor.parameters
    if "setup" in known:
        kept = (_IMPORT_PATH, _CHECK_CODE)
        own = [line for line in known["setup"] or () if not line.startswith(kept)]
        known["setup"] = [line for line in ours["setup"] if line.startswith(kept)] + own
    if "additional_parameters" in known:
        known["additional_parameters"] = {
            **ours.get("additional_parameters", {}),
            **(known["additional_parameters"] or {}),
        }
    executor.update_parameters(**known)


class SlurmBackend(Backend):
    """Jobs and job arrays on a Slurm cluster."""

    decides = True

    def submit(self, request: Request) -> list[Submission | None]:
        """Submit one job, or arrays for several: as many as there is room for."""
        if shutil.which("sbatch") is None:
            raise SubmissionError(
                f"cannot submit {request.name}: there is no sbatch on the PATH of this host. Submit from a host of the "
                "Slurm cluster, or use cluster='local' or 'auto'"
            )
        sender = _Sbatch(request)
        try:
            return arrays.send(request, sender)
        except RefusedError:
            raise  # none was taken
        except BaseException:  # the caller learns of none of them, so none may go on
            sender.withdraw()
            raise

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """The states in Slurm's words, by one query for all; ``alive`` is None where Slurm does not answer."""
        found = slurm_queue.job_states(job.job_id for job in jobs)
        return [_believed(job, found[job.job_id]) for job in jobs]

    def waits_for(self, submission: Submission) -> str:
        """Why the job is pending, in Slurm's words."""
        (state,) = self.states([submission])
        return state.reason if state.state == "PENDING" else ""

    def ending(self, submission: Submission) -> Ending:
        """How the job ended, in Slurm's words."""
        return ending_of(self.states([submission])[0], submission)

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """The job with this tag in its comment."""
        job_id = slurm_queue.tagged_job(tag, task, not_before=not_before)
        return None if job_id is None else Submission("slurm", job_id, logs)

    def check_patience(self) -> None:
        """Raise SchedulerError where Slurm has not answered for long."""
        slurm_queue.check_patience()

    def how_to_look(self, job_id: str) -> str:
        """The command that shows a job."""
        return f"squeue -j {job_id}"

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """Cancel the jobs, with one command for all, and note it, since accounting may not tell it, or not yet."""
        found = slurm_queue.job_states(s.job_id for s in submissions)
        slurm_queue.cancel([s.job_id for s in submissions if not _is_another(s, found[s.job_id])])
        for submission in submissions:
            with contextlib.suppress(OSError):  # its folder is gone
                _files.write_atomically(_cancelled(submission), b"", mode=_files.OWN)

    def waits_for_end_of(self, submission: Submission) -> bool:
        """Slurm waits for its own jobs, if it is this user's word that they are the ones."""
        return (
            submission.cluster == "slurm" and submission.trusted and slurm_queue.is_job_id(submission.job_id)
        )

    def throttle(self, submissions: tp.Sequence[Submission], most: int) -> None:
        """Change how many jobs of arrays run at once, of several in proportion to their jobs."""
        sizes = collections.Counter(slurm_queue.base_id(s.job_id) for s in submissions if "_" in s.job_id)
        for base, share in zip(sizes, arrays.shares(most, list(sizes.values())), strict=True):
            slurm_queue.throttle(base, share)


class _Sbatch:
    """Sends arrays of one request, each from a folder of its own that holds all that its jobs need.

    The folder is there before the jobs have an id: a job may start before ``sbatch`` has answered, or when its
    submitter is gone, and finds its log files and what it runs.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        resources = request.resources
        limit = resources.max_pickle_size_gb
        # all of them before anything is written
        self.content = [pickled(call, limit) for call in request.calls]
        self.processes = resources.nodes * resources.tasks_per_node
        self.tag = request.tag or f"exca:{uuid.uuid4().hex}"
        self.pattern = request.logs
        self.made: list[Path] = []  # folders of what was, or may have been, submitted
        self.taken: list[str] = []  # ids that Slurm gave
        self.asking = False  # whether Slurm was given an array, and its answer is not known

    def largest(self) -> int:
        """The most tasks of one array."""
        count = len(self.content)
        return count if count <= arrays.SMALL else slurm_queue.max_array_size()

    def send(self, first: int, count: int) -> list[Submission]:
        """Submit some of the calls as one array; raises RefusedError if Slurm takes none of them."""
        folder = paths.fixed_folder(self.pattern) / f"{_SENT}{uuid.uuid4().hex[:12]}"
        self.made.append(folder)
        try:
            script = self._lay_out(folder, first, count)
        except OSError as e:
            self._drop(folder)
            raise SubmissionError(f"cannot write the jobs of {self.request.name} to {folder}: {e}") from e
        try:
            self.asking = True
            base = self._sbatch(script, first, count)
        except RefusedError:
            self.asking = False
            self._drop(folder)
            raise
        except OSError as e:
            self.asking = False
            self._drop(folder)
            raise SubmissionError(f"cannot submit {self.request.name}: {e}") from e
        self.asking = False
        self.taken.append(base)
        slurm_queue.note_submitted(base)
        ids = [base] if count == 1 else [f"{base}_{k}" for k in range(count)]
        for k, job_id in enumerate(ids):
            paths.link_logs(folder / str(k), paths.JobPaths(self.pattern, job_id))
        return [Submission("slurm", job_id, self.pattern, self.processes) for job_id in ids]

    def _drop(self, folder: Path) -> None:
        """Remove the folder of what was certainly not submitted."""
        self.made.remove(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def withdraw(self) -> None:
        """End what was submitted, also by an ``sbatch`` that was interrupted before it answered.

        A job that began under a claim owns what it was given: it goes on, and the next caller finds it.
        """
        if not self.made:
            return
        owns = bool(self.request.tag)
        try:
            slurm_queue.cancel(self.taken, pending=owns)
            slurm_queue.cancel(self._others_taken(), pending=owns)
        except (OSError, subprocess.TimeoutExpired) as e:
            logger.warning(
                "Jobs of %s may have been submitted before this, and Slurm can't be asked to end them now (%s): look "
                "with `squeue -O JobID,Comment:80` for the comment %r",
                self.request.name,
                e,
                self.tag,
            )
            return
        for folder in self.made:
            if not (owns and list(folder.glob(f"*/{BEGAN}"))):
                shutil.rmtree(folder, ignore_errors=True)

    def _others_taken(self) -> list[str]:
        """The ids of what was submitted, of which no answer came; a list of Slurm may be empty for a moment."""
        poller = Poller(LATE if self.asking else 0.0)
        while True:
            found = slurm_queue.submitted_with(self.tag, self.request.first)
            others = [job_id for job_id in found if job_id not in self.taken]
            if others or not poller.pause(at_least=0.25):
                return others

    def _lay_out(self, folder: Path, first: int, count: int) -> Path:
        paths.make_log_folder(self.pattern, folder)
        for k, content in enumerate(self.content[first : first + count]):
            own = folder / str(k)
            own.mkdir(_files.OWN_FOLDER)
            _files.write_atomically(own / paths.SUBMITTED, content, mode=_files.PRIVATE)
        script = folder / paths.SCRIPT
        _files.write_atomically(script, self._script(folder, first, count).encode(), mode=_files.OWN)
        return script

    def _script(self, folder: Path, first: int, count: int) -> str:
        """The batch script, as submitit writes it, with a command and places of our own."""
        request, total = self.request, len(self.content)
        (share, *_) = arrays.shares(request.max_workers, [count, total - count] if total > count else [count])
        resources = request.resources
        executor = make_executor(
            resources,
            folder,
            name=request.name,
            max_workers=share,
            workdir=request.workdir,
            tag=self._comment(first, count),
        )
        _set_parameters(executor, request.parameters)
        inner = executor._executor
        inner.folder = folder / ("%a" if count > 1 else "0")
        if count > 1:
            inner.parameters["map_count"] = count
        if not inner.parameters.get("use_srun", True):  # else no step is signalled, and Python is no step
            options = inner.parameters.setdefault("additional_parameters", {})
            options.setdefault("signal", f"B:USR2@{inner.parameters.get('signal_delay_s', 90)}")
        if request.after:
            options = inner.parameters.setdefault("additional_parameters", {})
            options["dependency"] = _dependency(options.get("dependency"), request)
        if self.processes > 1:  # the others wait for each other, so one that fails ends all
            inner.parameters["srun_args"] = [*inner.parameters.get("srun_args", ()), "--kill-on-bad-exit=1"]
        contents = self.content[first : first + count]
        digest = paths.write_digests(folder, contents) if count > 1 else _files.digest(contents[0])
        run = f"-u -m exca.jobs.entry {shlex.quote(str(folder))} {shlex.quote(self.pattern)} {digest}"
        python = _python_command(resources)
        # ignored from before Python is up: a job that is preempted while it starts must not end by the warning
        ignore = "trap '' USR2"
        if resources.slurm_use_srun:
            command = f"bash -c {shlex.quote(f'{ignore}; exec {python} {run}')}"
        else:
            command = f"exec {python} {run}"
        text = str(inner._make_submission_file_text(command, uuid.uuid4().hex))
        most = resources.max_requeues
        said = f"exca: this job was requeued {most} times, which is all that max_requeues allows: not begun again"
        guard = f'[ "${{SLURM_RESTART_COUNT:-0}}" -le {most} ] || {{ echo {shlex.quote(said)} >&2; exit 1; }}'
        return text.replace("\n# command\n", f"\n# command\n{ignore}\n{guard}\n", 1)

    def _comment(self, first: int, count: int) -> str:
        """The tag, with the numbers of the calls where these are not all."""
        if count == len(self.content) and not self.request.first:
            return self.tag
        first += self.request.first
        return f"{self.tag}[{first}-{first + count - 1}]"

    def _sbatch(self, script: Path, first: int, count: int) -> str:
        """Submit a script, return the id of its job."""
        from .environment import cleaned

        try:
            done = subprocess.run(
                ["sbatch", "--parsable", str(script)],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=SBATCH_TIMEOUT,
                env=cleaned(os.environ),
                stdin=subprocess.DEVNULL,
            )
            answer, said = done.stdout.strip().partition(";")[0], done.stderr.strip()
            if answer.isdecimal():  # printed once it is submitted, whatever became of the command then
                return answer
        except subprocess.TimeoutExpired:
            said = f"sbatch gave no answer within {SBATCH_TIMEOUT:.0f} s"
            done = None
        if done is None or done.returncode == 0 or _UNSURE.search(said) or not _REFUSED.search(said):
            found = self._look_for(first, count, said)
            if found is not None:
                return found
        raise RefusedError(said or "sbatch said nothing", self.request)

    def _look_for(self, first: int, count: int, said: str) -> str | None:
        """The id of a submission that came through although sbatch did not say so."""
        comment = self._comment(first, count)
        try:
            job_id = slurm_queue.tagged_job(comment, not_before=time.monotonic())
        except OSError as e:
            raise UnsureError(
                f"cannot tell whether {self.request.name} was submitted: sbatch said {said or 'nothing'!r}, and {e}. "
                f"Look with `squeue -O JobID,Comment:80` for a job with the comment {comment!r} before you submit again"
            ) from e
        return None if job_id is None else slurm_queue.base_id(job_id)


def _believed(job: Submission, state: JobState) -> JobState:
    """The state of a job, of which nothing is told yet where the lists of Slurm may be late.

    A list may be empty for a moment, or a copy that the site renews now and then, and accounting may lag for minutes.
    """
    if _is_another(job, state):
        why = f"the job with id {job.job_id} is another one by now"
        return JobState(job.job_id, UNKNOWN, why, alive=False)
    if state.state != UNKNOWN or state.alive is not False:
        _not_listed.pop(job.job_id, None)
        return state
    now = time.monotonic()
    since = _not_listed.setdefault(job.job_id, now)
    late = now - since < GONE_AFTER and (state.reason.startswith(slurm_queue.STILL) or _is_new(job))
    if not late or _cancelled(job).exists():
        return state
    why = f"squeue does not list it, and {state.reason or 'accounting does not know it'}: they may be late"
    return state._replace(reason=why, alive=None)


def _is_another(job: Submission, state: JobState) -> bool:
    """Whether Slurm has given the id of a job to a later one: ids start anew at some number, or with a new controller.

    What Slurm was given is in a folder whose name is never used again, and where the logs of the job lead to. Of a job
    that an earlier release submitted there is no such folder.
    """
    if not state.script:
        return False
    try:
        target = _files.read_link(str(paths.JobPaths(job.logs, job.job_id).folder))
    except OSError:  # it is not there, or another user's
        return False
    sent, script = Path(target or "").parent.name, Path(state.script)
    return sent.startswith(_SENT) and (script.parent.name, script.name) != (sent, paths.SCRIPT)


def _is_new(job: Submission) -> bool:
    """Whether a job was submitted not long ago, by the folder of its logs."""
    try:
        return os.lstat(paths.JobPaths(job.logs, job.job_id).folder).st_mtime > time.time() - NEW
    except OSError:
        return False


def _dependency(own: tp.Any, request: Request) -> str:
    """The dependency on the jobs before those of a request, and on what the user asks for by the name of sbatch."""
    ids = ":".join(dict.fromkeys(job.job_id for job in request.after))
    if not own:
        return f"afterany:{ids}"
    if "?" in str(own):
        raise SubmissionError(
            f"{request.name} has after=..., and dependency={own!r} in slurm_additional_parameters: Slurm can't have "
            "the one and any of the others. Nothing of it was submitted: leave out one of the two"
        )
    return f"{own},afterany:{ids}"


def _cancelled(submission: Submission) -> Path:
    return paths.JobPaths(submission.logs, submission.job_id).folder / CANCELLED


def ending_of(state: JobState, submission: Submission) -> Ending:
    """Say how a job ended, each way of ending as what it is."""
    word = state.state.split()[0] if state.state else UNKNOWN
    if word == UNKNOWN and _cancelled(submission).exists():
        word = "CANCELLED"
    code, number = _code_and_signal(state.exit_code)
    details = [f"reason {state.reason}"] if state.reason else []
    if state.exit_code:
        details.append(
            f"exit code {state.exit_code}" + (f", killed by {_name(number)}" if _name(number) else "")
        )
    memory = f" ({state.memory} were asked for)" if state.memory else ""
    warned = number == getattr(signal, "SIGUSR2", 12) and word not in ("CANCELLED", "TIMEOUT")
    killed = number == 9 and code in (0, 137)
    loss = ""
    if word == "OUT_OF_MEMORY" or "OutOfMemory" in state.reason or _over_memory(submission):
        loss = "out_of_memory"
        hint = f"it needed more memory than it had{memory}: raise mem_gb"
    elif word == "TIMEOUT":
        hint = "it reached its time limit: raise timeout_min"
    elif word == "CANCELLED":
        hint = "it was cancelled"
    elif word in ("NODE_FAIL", "BOOT_FAIL"):
        hint = "its node failed"
    elif word == "PREEMPTED":
        hint = "it was preempted, and not requeued"
    elif number == _CANNOT_OPEN:
        hint = (
            "Slurm could not open a file of the job, most likely a log: check that its nodes can write to "
            f"{paths.fixed_folder(submission.logs)}"
        )
    elif warned:
        hint = "it was ended by the warning of a preemption or of the time limit, before its Python was up"
    elif killed:
        hint = f"it was killed, most often by the system for want of memory{memory}: raise mem_gb, or see who killed it"
    elif word == UNKNOWN:
        hint = "it runs no more, and how it ended is not known"
    else:
        hint = ""
    text = f"Slurm says {state.state}" + (f" ({', '.join(details)})" if details else "")
    number = number if _name(number) else 0
    return Ending(word, f"{text}: {hint}." if hint else f"{text}.", warned, number, loss=loss)


def _over_memory(submission: Submission) -> bool:
    """Whether a job's own log has Slurm say that it ended the job for its memory, whatever state that gave it."""
    if not submission.trusted:
        return False
    return (
        _OVER_MEMORY.search(paths.tail(paths.JobPaths(submission.logs, submission.job_id).stderr)) is not None
    )


def _code_and_signal(exit_code: str) -> tuple[int, int]:
    """Code and signal out of Slurm's ``<code>:<signal>``; a shell tells a signal as 128 and its number."""
    code, _, number = exit_code.partition(":")
    try:
        return int(code), int(number or 0) or max(0, int(code) - 128)
    except ValueError:
        return 0, 0


def _name(number: int) -> str:
    """Name of a signal that ends processes; Slurm uses the real-time ones for its own ends."""
    try:
        return signal.Signals(number).name if 0 < number < 32 else ""
    except ValueError:
        return ""


BACKEND = SlurmBackend()
