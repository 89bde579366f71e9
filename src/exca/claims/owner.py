"""The owner of a claim: a thread of a process on a host, or a scheduler's job."""

import dataclasses
import functools
import hashlib
import itertools
import os
import platform
import threading
import typing as tp

from .._files import host_name, user_name


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
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


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a claim."""

    kind: tp.Literal["process", "job"]  # a thread of a process, or a job
    user: str  # login name
    process: Process | None = None  # the process; of a job: the worker that runs it, once it is known
    # number of the thread within its process, never used twice; None when the claim is bound to no thread
    thread: int | None = None
    # of a job: "slurm" or "local", the scheduler's id ("12" or "12_3"), and where its logs lie
    cluster: str | None = None
    job_id: str | None = None
    folder: str | None = None

    @classmethod
    def current(cls, *, thread_bound: bool = True) -> "Owner":
        """This thread of this process; not bound to the thread when it may wait for what others do."""
        return cls("process", user_name(), Process.current(), _thread_number() if thread_bound else None)

    @classmethod
    def for_job(cls, *, cluster: str, job_id: str, folder: str | None = None) -> "Owner":
        """A job that was submitted; the id of a "local" one is the pid of its worker."""
        process = Process.of(int(job_id)) if cluster == "local" else None
        return cls("job", user_name(), process, None, cluster, job_id, folder)

    @property
    def scheduled(self) -> bool:
        """Whether a scheduler knows how this owner is."""
        return self.kind == "job" and self.cluster != "local"

    def with_worker(self) -> "Owner":
        """This owner with the current thread as the worker behind it."""
        return dataclasses.replace(self, process=Process.current(), thread=_thread_number())

    def is_this_thread(self) -> bool:
        """Whether waiting for this owner would be waiting for ourselves."""
        return self.process == Process.current() and self.thread == _thread_number()

    def to_json(self) -> dict[str, tp.Any]:
        """A dict of JSON values, without what is None."""
        out = {k: getattr(self, k) for k in _FIELDS if getattr(self, k) is not None}
        if self.process is not None:
            p = self.process
            out["process"] = {"host": p.host, "hostname": p.hostname, "pid": p.pid, "start": p.start}
        return out

    @classmethod
    def from_json(cls, data: tp.Mapping[str, tp.Any]) -> "Owner":
        """The owner that :meth:`to_json` wrote; raises TypeError, KeyError or ValueError on anything else."""
        fields = {k: v for k, v in data.items() if k in _FIELDS}
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


_FIELDS = tuple(f.name for f in dataclasses.fields(Owner))


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
        return f"{process.create_time():.2f}"
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
