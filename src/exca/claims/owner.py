"""The owner of a claim, a thread of a process on a host or a scheduler's job, and its heartbeats across hosts.

When the heartbeat process starts. A claimant may be stopped (SIGSTOP, a debugger, a frozen cgroup) at any moment, so
from another host "stopped just after claiming" and "died just after claiming" look the same unless another process on
the claimant's host is there to tell. Therefore it is spawned *before* a process's first claim file appears, and knows
of each claim before its file appears (one write into a pipe, 1 us). Spawning is one posix_spawn (about 1 ms, once per
process); its own start (10 ms) goes on beside the claimant. It ends when its owner ends.

How beats are read. An observer remembers the counter it saw and for how long it has seen it stand still, on its own
monotonic clock, and counts no more than one period per look: an observer that was itself stopped, or whose clock
jumped, learns nothing from the gap. ``MISSED`` periods without a beat mean dead: 40 s by default.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import platform
import select
import signal
import sys
import threading
import time
import typing as tp

from .._clusters import Submission
from .._files import host_name, user_name
from . import heartbeat_process


class Process(tp.NamedTuple):
    """A process, told apart from every other one by host, pid and start time."""

    host: str  # identity of the host: see :func:`host_identity`
    hostname: str  # name for people
    pid: int  # process id on that host
    # start time in the host's own unit (clock ticks since boot on Linux): guards against reused pids
    start: str

    @classmethod
    def current(cls) -> "Process":
        """This process."""
        return _current_process(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process with this id on this host; its start is empty when it is gone already."""
        return cls(host_identity(), host_name(), pid, process_start(pid) or "")

    def alive(self) -> bool | None:
        """Whether it lives (a stopped one does, a zombie does not); None when that cannot be seen from here."""
        if self.host != host_identity():
            return None
        start = process_start(self.pid)
        if start is None and _hidden(self.pid):
            return None
        return bool(start) and start == self.start


class Owner(tp.NamedTuple):
    """The owner of a claim."""

    kind: tp.Literal["process", "job"]  # a thread of a process, or a job
    user: str  # login name
    process: Process | None = None  # the process; of a job: the worker that runs it, once it is known
    # number of the thread within its process, never used twice; None when the claim is bound to no thread
    thread: int | None = None
    # of a job: the name of its cluster, the backend's id ("12" or "12_3"), and where its logs are
    cluster: str | None = None
    job_id: str | None = None
    folder: str | None = None

    @classmethod
    def current(cls, *, thread_bound: bool = True) -> "Owner":
        """This thread of this process; not bound to the thread when it may wait for what others do."""
        return cls("process", user_name(), Process.current(), _thread_number() if thread_bound else None)

    @classmethod
    def for_job(
        cls,
        *,
        cluster: str,
        job_id: str,
        folder: str | None = None,
        process: Process | None = None,
        shared: bool = False,
    ) -> "Owner":
        """A job that was submitted, by itself or `shared` with others.

        The process is the one without which the job ends, where there is such a process; of a "local" job there is,
        and its id is the pid of that where none is given. It tells nothing of one of several that share a job, which
        may end before the job or never begin in it.
        """
        if shared:
            process = None
        elif cluster == "local" and process is None:
            process = Process.of(int(job_id))
        return cls("job", user_name(), process, None, cluster, job_id, folder)

    @property
    def scheduled(self) -> bool:
        """Whether a backend is asked how this owner is; a local job is looked at as its process where that is known."""
        return self.kind == "job" and (
            self.cluster != "local" or (self.process is None and self.folder is not None)
        )

    @property
    def submission(self) -> Submission:
        """The job behind this owner, as backends are asked about it."""
        return Submission(self.cluster, self.job_id or "", self.folder or "")

    def with_worker(self) -> "Owner":
        """This owner with the current thread as the worker behind it."""
        return self._replace(process=Process.current(), thread=_thread_number())

    def is_this_thread(self) -> bool:
        """Whether waiting for this owner would be waiting for ourselves."""
        return self.process == Process.current() and self.thread == _thread_number()

    def to_json(self) -> dict[str, tp.Any]:
        """A dict of JSON values, without what is None."""
        out = {k: v for k, v in self._asdict().items() if v is not None}
        if self.process is not None:
            p = self.process
            out["process"] = {"host": p.host, "hostname": p.hostname, "pid": p.pid, "start": p.start}
        return out

    @classmethod
    def from_json(cls, data: tp.Mapping[str, tp.Any]) -> "Owner":
        """The owner that :meth:`to_json` wrote; raises TypeError, KeyError or ValueError on anything else."""
        fields = {k: v for k, v in data.items() if k in cls._fields}
        if fields.get("process") is not None:
            fields["process"] = _checked_process(Process(**fields["process"]))
        owner = cls(**fields)
        texts = (owner.cluster, owner.job_id, owner.folder)
        if (
            type(owner.user) is not str
            or (owner.thread is not None and type(owner.thread) is not int)
            or not all(text is None or type(text) is str for text in texts)
            or not (owner.kind == "job" or (owner.kind == "process" and owner.process is not None))
            or (owner.scheduled and (owner.cluster is None or owner.job_id is None))
        ):
            raise ValueError(f"{owner} owns nothing")
        return owner

    def describe(self) -> str:
        """For people: who it is."""
        if self.scheduled:
            return f"{(self.cluster or '').capitalize()} job {self.job_id}"
        if self.process is None:
            return f"{self.cluster} job {self.job_id}"
        what = "local job" if self.kind == "job" else "process"
        return f"{what} {self.process.pid} on {self.process.hostname}"


def _checked_process(process: Process) -> Process:
    texts = (process.host, process.hostname, process.start)
    if (
        type(process.pid) is not int
        or not 0 < process.pid < 1 << 31
        or any(type(t) is not str for t in texts)
    ):
        raise ValueError(f"{process} is no process")
    return process


def host_identity() -> str:
    """The identity of this host: 8 hex digits of its name, boot, and pid namespace.

    A pid identifies a process only among those that share all three: containers may share name and
    boot, and a reboot starts pids anew. ``EXCA_HOST_ID`` replaces it, so that one machine can play two.
    """
    given = os.environ.get("EXCA_HOST_ID")
    text = given or _host_text()
    return _short_hash(text)


@functools.lru_cache(maxsize=8)
def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@functools.cache
def _host_text() -> str:
    parts = [host_name()]
    try:
        with open("/proc/sys/kernel/random/boot_id") as f:
            parts.append(f.read().strip())
        # start times in /proc are shifted by the time namespace, pids belong to the pid namespace
        parts += [os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/time")]
    except OSError:
        import uuid

        parts.append(f"{platform.system()}-{uuid.getnode():x}")
    return "|".join(parts)


def process_start(pid: int) -> str | None:
    """When the process started, as text that is the same whenever it is asked for; None when it is dead.

    A zombie is dead: nothing runs in it, and a late reaper may keep it for hours.
    """
    if not _HAS_PROC:
        return _process_start_psutil(pid)
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return None
    fields = text[text.rfind(b")") + 2 :].split(b" ", 20)  # the name in brackets may hold blanks
    return None if fields[0] in b"ZXx" else fields[19].decode()


def _process_start_psutil(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return f"{process.create_time() * 100:.0f}"  # without a dot, at which the token in a file's name ends
    except psutil.NoSuchProcess:
        return None


def _hidden(pid: int) -> bool:
    """Whether the process exists although /proc does not show it (mounted with hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not os.path.exists(f"/proc/{pid}")
    except OSError:
        return False
    return False


_HAS_PROC = os.path.exists("/proc/self/stat")
_thread_numbers = itertools.count(1)
_thread_local = threading.local()


def _thread_number() -> int:
    # threading.get_ident() is used again once a thread has ended
    number: int | None = getattr(_thread_local, "number", None)
    if number is None:
        number = _thread_local.number = next(_thread_numbers)
    return number


@functools.lru_cache(maxsize=2)
def _process_with_host(pid: int, host: str) -> Process:
    return Process(host, host_name(), pid, process_start(pid) or "")


def _current_process(pid: int) -> Process:
    return _process_with_host(pid, host_identity())


MISSED = 8
MAX_REMEMBERED = 100_000
MAX_STARTED = 5  # in a process's life: after so many killed ones, a thread does it
PATIENCE = 2.0  # seconds for a full pipe to be read


def period() -> float:
    """Seconds between two beats of this process's claims (``EXCA_HEARTBEAT``, default 5)."""
    try:
        return max(0.05, float(os.environ.get("EXCA_HEARTBEAT", "5")))
    except ValueError:
        return 5.0


class Heart:
    """Gives the beats for the claims of this process; one per process."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._child_pid: int | None = None
        self._local: heartbeat_process.Beats | None = None
        self._spawned = 0
        self._for_children = False
        self.watched: dict[str, Process] = {}
        # names of the files in `watched`: a folder may be spelled in several ways
        self.held: set[str] = set()
        self.unwanted: set[str] = set()  # files that are given up and could not be removed

    def watch(self, path: str, process: Process, remember: bool = True) -> None:
        """Beat for this claim file, which is about to appear, while the process lives.

        Not to `remember` is for a worker of ours, which soon has a heartbeat process of its own.
        """
        if remember:
            self.watched[path] = process
            self.held.add(os.path.basename(path))
        self._tell(f"+ {process.pid} {process.start} {path}\n")

    def forget(self, path: str) -> None:
        """Stop beating for this claim file."""
        self._drop(path, f"- {path}\n")

    def discard(self, path: str) -> None:
        """Stop beating for this claim file, which could not be removed: the heartbeat process tries again."""
        if len(self.unwanted) < MAX_REMEMBERED:
            self.unwanted.add(path)
        if self._local is not None:
            self._local.unwanted.add(path)
        self._drop(path, f"x {path}\n")

    def _drop(self, path: str, order: str) -> None:
        self.held.discard(os.path.basename(path))
        if self.watched.pop(path, None) is not None and self._pipe is not None:
            # a dead heartbeat process is replaced when it is needed, not here: the garbage collector may be the caller
            with contextlib.suppress(OSError):
                _write(self._pipe, os.fsencode(order))

    def ensure(self) -> None:
        """Replace a heartbeat process that was killed."""
        if self._pipe is not None and self.watched:
            self._tell("\n")

    def _tell(self, line: str) -> None:
        if self._local is not None:
            return
        pipe = self._pipe
        try:
            if pipe is None:
                raise BrokenPipeError
            _write(pipe, os.fsencode(line))  # below PIPE_BUF: lines of several threads never mix
        except OSError:
            self._start(pipe, line)

    def _start(self, broken: int | None, line: str) -> None:
        with self._lock:
            if self._pipe is not None and self._pipe != broken:
                _write(self._pipe, os.fsencode(line))  # another thread was faster
                return
            self._close()
            while self._spawned < MAX_STARTED:
                self._spawned += 1
                pipe = self._spawn()
                if pipe is None:
                    break
                try:
                    _write(pipe, self._all())
                except OSError:
                    os.close(pipe)
                    continue
                self._pipe = pipe  # only now: other threads' lines must not get into the middle
                return
            self._local = heartbeat_process.Beats()
            self._local.unwanted.update(self.unwanted)
            threading.Thread(target=self._beat_here, name="exca-heartbeat", daemon=True).start()

    def _all(self) -> bytes:
        lines = [f"+ {p.pid} {p.start} {path}\n" for path, p in list(self.watched.items())]
        lines += [f"x {path}\n" for path in list(self.unwanted)]
        return os.fsencode("".join(lines))

    def _spawn(self) -> int | None:
        """Start a heartbeat process and return the pipe to it; None where there is no way to."""
        python = "" if getattr(sys, "frozen", False) else sys.executable
        if not python or not os.path.exists("/proc/self/stat") or not hasattr(os, "posix_spawn"):
            return None
        me = Process.current()
        read, write = os.pipe()
        os.set_blocking(write, False)
        args = [python, "-I", "-S", heartbeat_process.__file__, str(period()), str(me.pid), me.start]
        actions: list[tuple[tp.Any, ...]] = [(os.POSIX_SPAWN_DUP2, read, 0)]
        actions += [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        # no LD_PRELOAD: what bends the owner's clock must not bend the heartbeat process's
        env = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH") if k in os.environ}
        try:
            self._child_pid = os.posix_spawn(python, args, env, file_actions=actions, setsid=True)
        except (OSError, NotImplementedError):
            os.close(write)
            return None
        finally:
            os.close(read)
        return write

    def beat_for_children(self) -> None:
        """Have one heartbeat process for this process and all that are forked from it.

        It is forked from this one, which spares it the start of an interpreter: call it while there is no other thread.
        """
        me = Process.current()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.dup2(read, 0)
                for number in (1, 2):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))))
                heartbeat_process.beat_from_stdin(period(), (me.pid, me.start), shared=True)
            finally:
                os._exit(0)
        os.close(read)
        os.set_blocking(write, False)
        with self._lock:
            self._close()
            self._pipe, self._child_pid, self._for_children = write, pid, True

    def _close(self) -> None:
        self._for_children = False
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._child_pid is not None:
            try:
                os.kill(self._child_pid, signal.SIGKILL)  # it is dead already, or stopped and useless
                os.waitpid(self._child_pid, 0)
            except OSError:
                pass
            self._child_pid = None

    def _beat_here(self) -> None:
        """Where no heartbeat process can be spawned, a thread beats: right as long as this process is not stopped."""
        beats = self._local
        assert beats is not None
        while True:
            time.sleep(period())
            beats.count += 1
            digits = beats.digits()
            for path, process in list(self.watched.items()):
                if process.alive() is not False:
                    heartbeat_process.beat_file(path, digits)
            beats.remove()

    def after_fork(self) -> None:
        """In a forked child: the parent's claims are not ours, nor its heartbeat process, unless it is for children."""
        pipe, shared = self._pipe, self._for_children
        self._reset()  # with a new lock: a thread that the child has not got may hold the old one
        if shared:
            self._pipe, self._for_children = pipe, True
        elif pipe is not None:
            os.close(pipe)


def _write(pipe: int, data: bytes) -> None:
    """Write everything; raises BrokenPipeError when the heartbeat process is gone or does not read any more."""
    while data:
        try:
            data = data[os.write(pipe, data) :]
        except BlockingIOError:
            if not select.select([], [pipe], [], PATIENCE)[1]:
                raise BrokenPipeError("the heartbeat process does not read") from None


class Observer:
    """Remembers how long each claim's counter has not changed, by a clock that never goes back."""

    def __init__(self, clock: tp.Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[tp.Hashable, float, float]] = {}

    def still(self, path: str, counter: tp.Hashable, every: float) -> bool:
        """Whether this counter, just read, has been the same for long enough to call its owner dead."""
        now = self._clock()
        before, credit, last = self._seen.get(path, (None, 0.0, now))
        if before != counter:
            credit = 0.0
        else:
            credit += min(now - last, every)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.clear()  # forgetting only delays
        self._seen[path] = (counter, credit, now)
        return credit >= MISSED * every


heart: Heart = Heart()
observer: Observer = Observer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=heart.after_fork)
