"""The process that looks after local jobs: it starts them, keeps to their number and limits, and notes how they ended.

Where it can, it imports once and forks a process per task (`forking`), and has another process stay for what is
submitted next (`warm`); otherwise each task gets an interpreter of its own.
"""

import contextlib
import os
import select
import subprocess
import sys
import typing as tp

from .. import _files
from .._polling import LAST_PAUSE, Poller
from . import entry, paths
from .environment import submitit_variables
from .limits import OUT_OF_MEMORY, TIMEOUT, Limits
from .order import OUT_OF_MEMORY_CODE, TIMED_OUT, Order, spawn_arguments
from .workdir_copy import CODE, require_ours


class ForkedTask(tp.NamedTuple):
    """What a forked process is to run."""

    own: paths.JobPaths
    digest: str
    processes: int


def main(order: Order) -> int:
    """Look after jobs; returns 0 where every job left an outcome. A forked process runs its task, and ends here."""
    from . import forking

    forks = order.forks and forking.possible() and forking.prepare(order.modules)
    if forks:
        from ..claims.owner import heart

        heart.beat_for_children()
        if order.address:
            from . import warm

            later = warm.stay(order.address, order.stays)
            if later is not None:  # in a process that was forked for a later submission
                order, forks = later, forking.prepare(later.modules)
    if order.after:
        try:
            _wait_for_others(order)
        except OSError as e:  # the list of them was exchanged
            return _give_up(order, str(e))
    inherited = frozenset(sys.modules)
    done = keep(order, forks)
    if isinstance(done, ForkedTask):
        own, digest = done.own, done.digest
        forking.become(own, done.processes, spawn_arguments(own, digest))
        forking.run_to_the_end(lambda: entry.run(str(own.submitted_pickle), own, digest), inherited)
    return done


def _wait_for_others(order: Order) -> None:
    """Wait until the jobs before these have ended, or all of these were cancelled."""
    from . import backends

    left = order.others()
    folders = [paths.JobPaths(order.logs, job_id).folder for job_id, _ in order.jobs()]
    poller = Poller()
    while left and not all((folder / entry.CANCELLED).exists() for folder in folders):
        left = [job for job in left if backends.alive(job) is not False]
        poller.pause()


def _give_up(order: Order, why: str) -> int:
    """End all jobs before they begin, and say why in their logs; returns the exit code."""
    for job in (_Job(order, *one) for one in order.jobs()):
        job.give_up(why)
        job.note_exit()
    return 1


def keep(order: Order, forks: bool) -> int | ForkedTask:
    """Start the jobs, as many at once as are allowed, and wait for them. In a forked process, return its task."""
    todo = order.jobs()[::-1]
    running: list[_Job] = []
    worst = 0
    while todo or running:
        while todo and len(running) < order.workers:
            job = _Job(order, *todo.pop())
            try:
                task = job.start(forks)
            except OSError as e:  # no room for another process
                job.give_up(f"cannot start a process for this job: {e}")
                task = None
            if task is not None:
                for other in (*running, job):
                    other.forget()
                return task
            running.append(job)
        _wait_for_any(running)
        for job in [job for job in running if job.has_ended()]:
            running.remove(job)
            worst = max(worst, job.note_exit(), key=abs)
    return worst


class _Process:
    """One process of a job."""

    def __init__(self, pid: int, popen: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid: int = pid
        self.popen = popen
        self.code: int | None = None  # negative for a signal
        self.handle: int | None = None  # can be waited for with others
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # an old kernel, or no more descriptors
                self.handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        if self.code is None:
            if self.popen is not None:
                self.code = self.popen.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if pid else None
            if self.code is not None:
                self.close()
        return self.code

    def close(self) -> None:
        """Give the handle back."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


class _Job:
    """One job, of one or several processes."""

    def __init__(self, order: Order, job_id: str, digest: str) -> None:
        self.order = order
        self.paths = paths.JobPaths(order.logs, job_id)
        self.digest = digest
        self.processes: list[_Process] = []
        self.limits = Limits(order.seconds, order.memory, self.paths.stderr)
        self._code: int | None = None  # which counts
        self._noted = True

    def start(self, forks: bool) -> ForkedTask | None:
        """Start its processes, unless it is not to run; in a forked one, return what that is to run."""
        if (self.paths.folder / entry.CANCELLED).exists():
            self._code, self._noted = 1, False
            return None
        if CODE in os.environ:
            try:
                require_ours(os.environ[CODE])
            except OSError as e:  # it was exchanged while this job waited for its turn
                self.give_up(str(e))
                return None
        for rank in range(self.order.processes):
            own = self.paths._replace(rank=rank)
            if forks:
                from .forking import fork

                pid = fork()
                if pid == 0:
                    return ForkedTask(own, self.digest, self.order.processes)
                self.processes.append(_Process(pid))
            else:
                self.processes.append(self._spawn(own))
            self.limits.pids.append(self.processes[-1].pid)
        return None

    def give_up(self, why: str) -> None:
        """End what runs of it, and say why in its log."""
        with paths.open_log(self.paths.stderr) as err:
            err.write(f"exca: {why}\n".encode())
        self._code = 1
        if self.processes:
            self.limits.end()

    def _spawn(self, own: paths.JobPaths) -> _Process:
        command = [sys.executable, "-m", "exca.jobs.worker", *spawn_arguments(own, self.digest)]
        env = {**os.environ, **submitit_variables(own, own.rank, self.order.processes)}
        with paths.open_log(own.stdout) as out, paths.open_log(own.stderr) as err:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True
            )
        return _Process(popen.pid, popen)

    def has_ended(self) -> bool:
        """Whether no process of it runs any more; enforces its limits, and ends what is left where a process failed."""
        codes = [process.poll() for process in self.processes]
        failed = next((code for code in codes if code), None)
        if failed is not None and self._code is None:
            self._code = failed
            if None in codes:
                self.limits.end()
        if None not in codes:
            return True
        self.limits.look()
        return False

    def note_exit(self) -> int:
        """Note how it ended, since others of the array may go on for long; returns the exit code."""
        code = self._code or 0
        word = self.limits.word if code else ""
        if self._noted:
            text = f"{code} {word}".strip().encode()
            _files.write_atomically(self.paths.exit_file, text, mode=_files.OWN)
        if word:
            sys.stderr.write(f"exca: {self.paths.job_id}: {self.limits.said}\n")
        return {TIMEOUT: TIMED_OUT, OUT_OF_MEMORY: OUT_OF_MEMORY_CODE}.get(word, code)

    def forget(self) -> None:
        """In a forked process, which has nothing to do with it: give back what it opened."""
        for process in self.processes:
            process.close()


def _wait_for_any(jobs: "tp.Sequence[_Job]") -> None:
    """Wait until a process ends, or a limit is to be looked at."""
    processes = [process for job in jobs for process in job.processes if process.code is None]
    times = [due for job in jobs if (due := job.limits.due()) is not None]
    if not processes:
        return
    if any(process.handle is None for process in processes):
        Poller().pause(at_least=min([LAST_PAUSE / 4, *times]))
        return
    poll = select.poll()
    for process in processes:
        poll.register(tp.cast(int, process.handle), select.POLLIN)
    poll.poll(1000 * min(times) if times else None)
