"""Jobs in workers that belong to another engine: what travels through that engine, and what a worker of it runs.

A `Launch` travels: where the pickled call is, beside the logs, and its digest. Called in a worker, it starts processes
of its own for the call, in the environment of the submitter, with logs and a time limit, as a local job has them, and
waits. They end with the worker that waits for them, however that ends, since each holds a pipe from it: so an engine
that runs the launch again, since it lost a worker, does not run it twice.

``python -m exca.jobs.hosted <logs> <job id> <rank> <digest> <descriptor>`` is what such a process runs.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import typing as tp
import uuid
from pathlib import Path

from .. import _files
from .._clusters import UNKNOWN, JobState
from .._polling import Poller
from . import entry, local, paths
from .backends import Backend, Ending, Request, Submission, pickled
from .environment import CLUSTER, cleaned, import_path, python_of, submitit_variables
from .limits import Limits
from .workdir_copy import CODE, require_ours

_CANCELLED_EVERY = 0.5  # seconds between two looks whether a job is cancelled


@dataclasses.dataclass(frozen=True)
class Launch:
    """A call that is to run in a worker of an engine, which imports nothing but this module for it."""

    cluster: str
    logs: str  # folder of the job's logs, with ``%j`` for its id
    job_id: str
    digest: str  # of the pickled call
    processes: int = 1
    seconds: float = 0.0  # time limit; 0 for none
    memory: int = 0  # bytes that its processes may hold in RAM together; 0 for no limit
    python: str = ""  # by default that of the worker
    workdir: str = ""  # by default that of the worker
    environment: dict[str, str] = dataclasses.field(default_factory=dict)  # set over that of the worker

    def __call__(self) -> int:
        """Run the call and wait for it; returns its exit code, and keeps it beside the logs."""
        place = self.paths()
        place.exit_file.unlink(missing_ok=True)  # of a run in a worker that was lost
        limits = Limits(self.seconds, self.memory, place.stderr)
        code = 1
        try:
            code = self._run(limits)
        except Exception as e:
            with paths.open_log(place.stderr) as err:
                err.write(f"exca: the job could not be started: {e!r}\n".encode())
            raise
        finally:
            noted = f"{code} {limits.word if code else ''}".strip()
            _files.write_atomically(place.exit_file, noted.encode(), mode=_files.OWN)
        return code

    def paths(self, rank: int = 0) -> paths.JobPaths:
        """Files of one of its processes."""
        return paths.JobPaths(self.logs, self.job_id, rank)

    def _run(self, limits: Limits) -> int:
        cancelled = self.paths().folder / entry.CANCELLED
        if cancelled.exists():
            return 1
        if self.workdir:
            require_ours(self.workdir)
        read, write = os.pipe()  # open for as long as this process lives
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(self.processes):
                started.append(self._start(rank, read))
                limits.pids.append(started[-1].pid)
            return _wait_for(started, limits, cancelled)
        finally:
            os.close(read)
            os.close(write)  # ends what still runs
            for process in started:
                with contextlib.suppress(OSError):  # what it started and left behind
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start(self, rank: int, descriptor: int) -> "subprocess.Popen[bytes]":
        own = self.paths(rank)
        command = [self.python or sys.executable, "-m", "exca.jobs.hosted", self.logs, self.job_id]
        command += [str(rank), self.digest, str(descriptor)]
        environment = {
            **{name: value for name, value in cleaned(os.environ).items() if name != CODE},
            **self.environment,
            **submitit_variables(own, rank, self.processes),
            CLUSTER: self.cluster,
        }
        with paths.open_log(own.stdout) as out, paths.open_log(own.stderr) as err:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=self.workdir or None,
                start_new_session=True,
                pass_fds=(descriptor,),
            )


def _wait_for(processes: "list[subprocess.Popen[bytes]]", limits: Limits, cancelled: Path) -> int:
    """Wait for the processes of a job; where one fails, or the job is cancelled, the others end with it."""
    poller = Poller()
    code: int | None = None  # which counts
    while True:
        codes = [process.poll() for process in processes]
        failed = next((each for each in codes if each), None)
        if None not in codes:
            return code or failed or 0
        look = poller.is_time_to("look whether it is cancelled", every=_CANCELLED_EVERY)
        if code is None and (failed is not None or (look and cancelled.exists())):
            code = failed or -signal.SIGTERM
            limits.end()
        limits.look()
        poller.pause()


def main(arguments: tp.Sequence[str]) -> int:
    """Run one process of a job."""
    logs, job_id, rank, digest, descriptor = arguments
    watch = int(descriptor)
    os.set_inheritable(watch, False)  # what the call starts ends with this process's group
    threading.Thread(target=_end_with_it, args=(watch,), name="exca-worker", daemon=True).start()
    place = paths.JobPaths(logs, job_id, int(rank))
    return entry.run(str(place.submitted_pickle), place, digest)


def _end_with_it(descriptor: int) -> None:
    """End this process and its children when the worker of the engine ends, which holds the other end of a pipe."""
    with contextlib.suppress(OSError):
        os.read(descriptor, 1)
    os.write(2, b"exca: the worker that this job ran in is gone, so the job ends\n")
    os.killpg(os.getpid(), signal.SIGKILL)


class HostedBackend(Backend):
    """What backends share whose jobs run in workers of another engine: ids, files, and what these tell."""

    limits_memory = True
    name: tp.ClassVar[str]  # of its cluster

    def launches(self, request: Request) -> list[Launch]:
        """Pickle the calls of a request beside their logs, and say how each is run."""
        resources = request.resources
        base, many = local.base_of(request.tag or uuid.uuid4().hex), len(request.calls) > 1
        environment = {"PYTHONPATH": import_path(request.workdir)}
        if request.workdir is not None:
            require_ours(request.workdir)
            environment[CODE] = str(request.workdir)
        minutes = request.parameters.get("timeout_min", resources.timeout_min) or 0
        memory = request.parameters.get("mem_gb", resources.mem_gb) or 0
        # all of them before anything is written
        data = [pickled(call, resources.max_pickle_size_gb) for call in request.calls]
        out = []
        for k, content in enumerate(data):
            launch = Launch(
                cluster=self.name,
                logs=request.logs,
                job_id=f"{base}_{k}" if many else base,
                digest=_files.digest(content),
                processes=resources.nodes * resources.tasks_per_node,
                seconds=60.0 * minutes,
                memory=int(memory * 2**30),
                python="" if resources.conda_env is None else str(python_of(resources.conda_env)),
                workdir="" if request.workdir is None else str(request.workdir),
                environment=environment,
            )
            out.append(launch)
        with paths.written(
            request.logs, {one.job_id: content for one, content in zip(out, data, strict=True)}
        ):
            return out

    def ending(self, submission: Submission) -> Ending:
        """How the processes of the job ended, as the files beside its logs tell."""
        (state,) = self.states([submission])
        noted = local.noted_exit(submission)
        if noted is None and state.state not in ("CANCELLED", "TIMEOUT"):
            # its engine lost it, or tells that it was ended with the worker that it ran in
            loss = "" if not began(submission) else "node_fail" if state.state == UNKNOWN else "killed"
            return Ending(state.state, f"{state.reason or 'It is gone'}.", loss=loss)
        code = noted[0] if noted else None
        return Ending(state.state, local.in_words(state.state, code), signal=max(0, -(code or 0)))

    def tagged(self, tag: str, task: int | None, logs: str, *, not_before: float = 0.0) -> Submission | None:
        """The job that was submitted with a tag, from which its id was made."""
        base = local.base_of(tag)
        job = Submission(self.name, base if task is None else f"{base}_{task}", logs)
        return job if paths.JobPaths(logs, job.job_id).submitted_pickle.exists() else None

    def mark_cancelled(self, submissions: tp.Sequence[Submission]) -> None:
        """Keep jobs from beginning, and have the workers end what they run of them."""
        for job in submissions:
            with contextlib.suppress(OSError):  # its folder is gone: so is what it would run
                place = paths.JobPaths(job.logs, job.job_id).folder / entry.CANCELLED
                _files.write_atomically(place, b"", mode=_files.OWN)


def state_by_files(job: Submission) -> JobState | None:
    """The state of a job that ended, or was cancelled before it began, as its files tell; None where they do not."""
    folder = paths.JobPaths(job.logs, job.job_id).folder
    noted = local.noted_exit(job)
    if noted is not None:
        return JobState(job.job_id, local.word_of_end(folder, noted), alive=False)
    if (folder / entry.CANCELLED).exists() and not began(job):
        return JobState(job.job_id, "CANCELLED", alive=False)
    return None


def began(job: Submission) -> bool:
    """Whether a process has begun to run a job."""
    return entry.has_begun(paths.JobPaths(job.logs, job.job_id).folder)


def gone(job: Submission, why: str) -> JobState:
    """The state of a job that its engine knows no more and that left no word: its processes may run on elsewhere."""
    return JobState(job.job_id, UNKNOWN, why, alive=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
