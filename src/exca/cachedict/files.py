"""Small helpers over the operating system: open handles, positioned reads, who is writing, network file systems."""

import collections
import errno
import os
import threading
import typing as tp
import weakref

MAX_OPEN = 128  # index files kept open a process
_recent: "collections.OrderedDict[int, weakref.ref[_DropsHandle]]" = collections.OrderedDict()
_recent_lock = threading.Lock()
_read_lock = threading.Lock()


class _DropsHandle(tp.Protocol):
    def drop_handle(self) -> None: ...


class Handle:
    """An open file, closed when nobody holds this object: a reader in another thread never sees its number reused."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, owner: _DropsHandle, path: str) -> "Handle":
        """Open ``path`` for reading on behalf of ``owner``, which is told to drop its handle when too many are open."""
        handle = cls(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
        with _recent_lock:
            _recent[id(owner)] = weakref.ref(owner)
            _recent.move_to_end(id(owner))
            victim = _recent.popitem(last=False)[1]() if len(_recent) > MAX_OPEN else None
        if victim is not None:
            victim.drop_handle()
        return handle

    def __del__(self) -> None:
        try:
            os.close(self.fd)
        except OSError:  # at the end of the interpreter
            pass


def _seek_and_read(fd: int, length: int, offset: int) -> bytes:
    with _read_lock:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)


pread: tp.Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)


class _WriterName:
    """The name of this process as a writer; a forked child gets its own."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        node = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
        host = "".join(c if c.isalnum() or c in "._" else "_" for c in node) or "host"
        # the random part tells apart containers with one hostname and pid, and a pid used again
        self.text = f"{host[:60]}-{os.getpid()}-{os.urandom(4).hex()}"
        self.count = 0

    def fresh(self) -> str:
        """A name that no other writer has or had."""
        self.count += 1
        return f"{self.text}-{self.count}" if self.count > 1 else self.text


writer_name = _WriterName()


def _after_fork() -> None:
    global _recent_lock, _read_lock
    _recent_lock, _read_lock = threading.Lock(), threading.Lock()
    writer_name.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of ``data``. Raises OSError, for a full disk with part of it written."""
    view = memoryview(data)
    while view:
        done = os.write(fd, view)
        if done == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[done:]


def opened_status(path: str) -> os.stat_result:
    """What `os.stat` says once the file was opened: on NFS, what the server says and not this host's memory."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "beegfs",
    "gpfs",
    "glusterfs",
    "ceph",
    "9p",
    "fuse",
    "afs",
    "wekafs",
)
_network_devices: dict[int, bool] = {}


def on_network(path: str) -> bool:
    """Whether ``path`` lies on a file system that other hosts may share (False where this cannot be told)."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return False
    if device not in _network_devices:
        kind = _file_system(device)
        _network_devices[device] = kind.startswith(_NETWORK)
    return _network_devices[device]


def _file_system(device: int) -> str:
    if not hasattr(os, "major"):
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf8", errors="replace") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                if before.split()[2] == wanted:
                    return after.split()[0]
    except OSError:
        pass
    return ""


def sync_path(path: str) -> None:
    """Flush a file or a folder to the disk; does nothing where a folder cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
