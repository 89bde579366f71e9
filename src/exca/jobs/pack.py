"""What a job of several calls runs: a process for each of them, some of them at the same time.

Each has its own logs, GPUs, threads and end; how it ended is noted beside its logs by the process that started it.
"""

import contextlib
import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import time
import typing as tp
from pathlib import Path

from .. import _files, _trust
from .._polling import Poller
from . import before_end, entry, paths
from .environment import PART, THREADS, current_job
from .limits import Limits

END_WITHIN = 3.0  # seconds that a part has between being asked to end and being made to
# seconds for which this process has to outlive a part that was killed, before the kill counts as its own: at the end
# of a job all its processes are killed, in any order, and what is requeued then is not to count as killed
ALONE = 2.0
LOOK_EVERY = 1.0  # seconds between looks for parts that were cancelled
EXIT = "exit"  # file with how a part ended, beside its logs


class Exit(tp.NamedTuple):
    """How the process of a part ended."""

    code: int  # negative for a signal
    max_rss_mb: float | None  # peak memory of it, or of the largest process it waited for, in MiB
    word: str = ""  # which limit ended it


def read_exit(folder: Path) -> Exit | None:
    """How a part ended that has its logs in this folder; None where it is not known to have ended."""
    import orjson

    try:
        content = orjson.loads(_trust.read_trusted(folder / EXIT))
        return Exit(int(content["code"]), content.get("max_rss_mb"), str(content.get("word", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def note_exit(folder: Path, ended: Exit) -> None:
    """Note how a part ended."""
    import orjson

    _files.write_atomically(folder / EXIT, orjson.dumps(ended._asdict()), mode=_files.OWN)


def is_cancelled(folder: Path) -> bool:
    """Whether a part is not to begin, or to end now."""
    try:
        return entry.CANCELLED in os.listdir(folder)  # which asks the server of a network file system
    except OSError:
        return False


def how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


# ---------------------------------------------------------------- in the job


@dataclasses.dataclass(repr=False)
class Pack:
    """What a job of several calls runs: each in a process of its own, some of them at the same time."""

    logs: str  # folder of the logs of the job, with ``%j`` for its id
    contents: list[bytes]  # the calls, pickled
    concurrent: int = 1  # how many of them run at once
    cpus: int | None = None  # of each
    gpus: float | None = None  # of each; below 1, some of them share one
    mem_gb: float | None = None  # of each, in GiB
    delay: float = 90.0  # seconds before its end at which the job is warned
    max_requeues: int = 0  # of the job
    # what the calls need of installed packages; None: they are not forked
    modules: tuple[str, ...] | None = None
    minutes: float | None = None  # time limit of the job
    limits: bool = False  # whether nothing else limits the memory of the job

    def __repr__(self) -> str:
        return f"{len(self.contents)} calls in one job"

    def __call__(self) -> None:
        """Run in a job; returns once each part ended, however it did."""
        where, _ = current_job(self.logs)
        packing = _Packing(self, where)
        if where["cluster"] != "slurm":
            packing.run()
            return
        folder = paths.JobPaths(self.logs, where["job_id"]).folder
        with before_end.saving(
            folder,
            delay=self.delay,
            save=None,
            resumable=packing.warn,
            most=self.max_requeues,
            minutes=self.minutes,
        ):
            packing.run()


class _Packing:
    """A pack while it runs."""

    def __init__(self, pack: Pack, where: dict[str, tp.Any]) -> None:
        self.pack = pack
        self.where = where
        self.slots = [_environment_of(pack, slot) for slot in range(pack.concurrent)]
        self.forks = _prepare_forks(pack)
        self.modules = frozenset(sys.modules)
        self.free = list(range(pack.concurrent))
        self.running: list[_Child] = []
        self.killed: list[tuple[float, _Child, Exit]] = []  # when, and how; not noted yet
        self.codes: dict[int, int] = {}

    def run(self) -> None:
        """Run all parts that have not ended before: a job that was requeued goes on where it was."""
        count = len(self.pack.contents)
        waiting = [k for k in range(count) if read_exit(self._paths(k).folder) is None]
        if len(waiting) < count:
            _say(f"{count - len(waiting)} of {count} tasks ended before this job began again")
        waiting.reverse()
        poller = Poller()
        while waiting or self.running or self.killed:
            while waiting and self.free:
                self._start(waiting.pop())
            if self._look(poller.is_time_to("look what is to end", every=LOOK_EVERY)):
                poller.restart()
            else:
                poller.pause()
        bad = {k: code for k, code in sorted(self.codes.items()) if code}
        _say(f"{count} tasks ended" + (f", of which not by themselves: {_listed(bad)}" if bad else ""))

    def warn(self) -> bool:
        """Pass on a warning of the end, and wait a while until all have saved their state; whether to begin again.

        The job does where it would have less to do than this time: some tasks have ended, or saved how far they are.
        """
        warned = [child for child in self.running if child.asked is None and child.listens()]
        marks = [child.folder / before_end.WARNED for child in warned]
        for child, mark in zip(warned, marks, strict=True):
            with contextlib.suppress(OSError):  # what is no mark of ours counts as one that nothing was saved
                mark.unlink()
            child.warn()
        poller = Poller(min(self.pack.delay / 2, 60))
        while (
            any(child.runs() and not mark.exists() for child, mark in zip(warned, marks, strict=True))
            and poller.pause()
        ):
            pass
        return any(map(before_end.has_saved, marks)) or bool(self.codes)

    def _paths(self, number: int) -> paths.JobPaths:
        pattern = paths.logs_of_part(self.pack.logs, number, len(self.pack.contents))
        return paths.JobPaths(pattern, self.where["job_id"])

    def _start(self, number: int) -> None:
        own = self._paths(number)
        _files.make_folders(str(own.folder), _files.OWN_FOLDER)
        if is_cancelled(own.folder):
            self.codes[number] = -signal.SIGTERM
            note_exit(own.folder, Exit(-signal.SIGTERM, None))
            return
        content = self.pack.contents[number]
        _files.write_atomically(own.submitted_pickle, content, mode=_files.PRIVATE)
        slot = self.free.pop(0)
        variables, cpus = self.slots[slot]
        variables = {**variables, **_identity(self.where, own, cpus)}
        arguments = [own.pattern, own.job_id, _files.digest(content), str(os.getpid())]
        start = self._fork if self.forks else _spawn
        pid, process = start(own, variables, arguments)
        # one that takes more than its part is ended in the place of its neighbours
        limit = (self.pack.mem_gb or 0) if self.pack.limits or self.pack.concurrent > 1 else 0
        limits = Limits(0, int(limit * (1 << 30)), own.stderr)
        limits.pids.append(pid)
        self.running.append(_Child(number, slot, pid, process, own.folder, limits))

    def _fork(self, own: paths.JobPaths, variables: dict[str, str], arguments: list[str]) -> tuple[int, None]:
        from . import forking

        pid = forking.fork()
        if pid == 0:
            before_end.forget()
            os.setpgid(0, 0)
            forking.redirect(own)
            os.environ.update(variables)
            sys.argv[1:] = arguments
            forking.forget_the_parent()
            forking.run_to_the_end(lambda: main(arguments), self.modules)
        with contextlib.suppress(OSError):  # it has done so itself
            os.setpgid(pid, pid)
        return pid, None

    def _look(self, for_what_is_to_end: bool) -> bool:
        """Look at all that runs; returns whether something ended."""
        before = len(self.running)
        for child in list(self.running):
            child.limits.look()
            if for_what_is_to_end and is_cancelled(child.folder):
                child.end()
            left = child.reap()
            if left is None:
                continue
            self.running.remove(child)
            self.free.append(child.slot)
            if left.code < 0 and child.asked is None and not left.word:
                self.killed.append((time.monotonic(), child, left))
            else:
                self._note(child, left)
        for one in list(self.killed):
            if time.monotonic() - one[0] > ALONE:
                self.killed.remove(one)
                self._note(*one[1:])
        return len(self.running) < before

    def _note(self, child: "_Child", left: Exit) -> None:
        self.codes[child.number] = left.code
        note_exit(child.folder, left)


@dataclasses.dataclass
class _Child:
    """The process of a part."""

    number: int
    slot: int
    pid: int
    process: "subprocess.Popen[bytes] | None"  # None for one that was forked
    folder: Path  # of its logs
    limits: Limits  # of its memory
    asked: float | None = None  # when it was asked to end

    def warn(self) -> None:
        """Tell it that the end of the job is near."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR2)

    def listens(self) -> bool:
        """Whether it is so far that a warning does not end it: then it has noted itself."""
        noted = entry.noted_process(self.folder / entry.BEGAN)  # or an earlier run of the part has
        return noted is not None and noted.pid == self.pid and noted.alive() is True

    def runs(self) -> bool:
        """Whether it has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def end(self) -> None:
        """Ask it to end, with what it started; if that was long ago, make it."""
        if self.asked is None:
            self.asked = time.monotonic()
            self._signal(signal.SIGTERM)
        elif time.monotonic() - self.asked > END_WITHIN:
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, number)
            elif self.process is not None:
                self.process.terminate()

    def reap(self) -> Exit | None:
        """How it ended; None as long as it runs. What it started, and left in its group, ends with it."""
        if self.process is not None and not hasattr(os, "waitid"):
            polled = self.process.poll()
            return None if polled is None else Exit(polled, None, self.limits.word)
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        self._signal(signal.SIGKILL)  # while its id is still taken
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if self.process is not None:
            self.process.returncode = code
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return Exit(code, round(usage.ru_maxrss / unit, 1), self.limits.word if code else "")


def _spawn(
    own: paths.JobPaths, variables: dict[str, str], arguments: list[str]
) -> "tuple[int, subprocess.Popen[bytes]]":
    with paths.open_log(own.stdout) as out, paths.open_log(own.stderr) as err:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "exca.jobs.pack", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **variables},
            process_group=0 if hasattr(os, "killpg") else None,  # so that what it leaves behind ends with it
        )
    return process.pid, process


def _prepare_forks(pack: Pack) -> bool:
    """Import what the calls need, once for all; returns whether they may be forked then."""
    if pack.modules is None:
        return False
    from . import forking

    if not forking.possible() or threading.active_count() > 1:
        return False
    os.environ.update(_threads_of(pack))  # numerical libraries look when they are imported
    if not forking.prepare(pack.modules):
        return False
    from ..claims.owner import heart

    heart.beat_for_children()
    return True


def _identity(where: dict[str, tp.Any], own: paths.JobPaths, cpus: list[int]) -> dict[str, str]:
    """Variables by which a part knows of which job it is, and which part."""
    import orjson

    here = {**where, "logs": own.pattern}
    return {PART: orjson.dumps({"where": here, "cpus": cpus}).decode(), "SUBMITIT_FOLDER": own.pattern}


def _environment_of(pack: Pack, slot: int) -> tuple[dict[str, str], list[int]]:
    """What differs for a part that runs in this slot: variables, and CPUs where it has some for itself."""
    cpus = cpus_of(pack, slot)
    variables = _threads_of(pack)
    if pack.cpus is not None and "SLURM_CPUS_PER_TASK" in os.environ:
        variables["SLURM_CPUS_PER_TASK"] = str(pack.cpus)
    if pack.gpus is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(_gpus_of(pack.gpus, pack.concurrent, slot))
    return variables, cpus


def _threads_of(pack: Pack) -> dict[str, str]:
    """Variables by which numerical libraries take as many threads as a call has CPUs."""
    count = pack.cpus
    if count is None and pack.concurrent > 1:
        count = max(1, _available() // pack.concurrent)
    if count is None or THREADS[0] in os.environ:  # which the others go by
        return {}
    return {name: str(count) for name in THREADS if name not in os.environ}


def _available() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_of(pack: Pack, slot: int) -> list[int]:
    """CPUs of a slot, where the job has been given just enough of them for all slots; else none in particular."""
    if pack.concurrent == 1 or pack.cpus is None or not hasattr(os, "sched_setaffinity"):
        return []
    mine = sorted(os.sched_getaffinity(0))
    each = len(mine) // pack.concurrent
    if len(mine) >= (os.cpu_count() or 1) or each < pack.cpus or len(mine) % pack.concurrent:
        return []  # they are not the job's alone, and other jobs would choose the same
    return mine[slot * each : (slot + 1) * each]


def _gpus_of(gpus: float, concurrent: int, slot: int) -> list[str]:
    """GPUs of a slot, by the names that CUDA knows."""
    needed = math.ceil(gpus * concurrent - 0.01)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [str(k) for k in range(needed)] if visible == [""] else visible
    if len(names) < needed:
        raise RuntimeError(
            f"{concurrent} task(s) at once with gpus_per_task={gpus:g} need {needed} GPU(s), and this job sees "
            f"{len(names)} (CUDA_VISIBLE_DEVICES={','.join(names)}): ask for more, or lower concurrent_per_job"
        )
    if gpus < 1:
        return [names[slot // round(1 / gpus)]]
    each = round(gpus)
    return names[slot * each : (slot + 1) * each]


def _listed(codes: dict[int, int]) -> str:
    return ", ".join(f"{number} ({how(code)})" for number, code in codes.items())


def _say(text: str) -> None:
    sys.stderr.write(f"exca: {text}\n")
    sys.stderr.flush()


# ---------------------------------------------------------------- in the process of a part


def main(arguments: tp.Sequence[str]) -> int:
    """Run one part of a job."""
    logs, job_id, digest, parent = arguments
    _end_with(int(parent))
    import orjson

    given = orjson.loads(os.environ[PART])
    if given["cpus"]:
        os.sched_setaffinity(0, given["cpus"])
    if given["where"]["cluster"] != "local":
        before_end.listen()
    own = paths.JobPaths(logs, job_id)
    return entry.run(str(own.submitted_pickle), own, digest)


def _end_with(parent: int) -> None:
    """End when the process does that started this one, of which nothing looks after the part any more."""
    if sys.platform == "linux":
        # some Pythons are built without ctypes
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if hasattr(os, "getppid") and os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
