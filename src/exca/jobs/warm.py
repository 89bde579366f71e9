"""Supervisors of local jobs that stay for a while, so that what is submitted next finds everything imported.

When a supervisor has imported what its tasks need, it forks a process that stays until half a minute after the last
task. Each later submission is handed to it over a socket, and it forks a supervisor for that, which is like any other.

The socket is in a folder that no other user can enter, outside of the cache; each side asks the kernel for the user at
the other end. Its name is a digest of all that a new interpreter would start with: environment, import path, working
directory, limits and the like. So a submission from another environment finds none, and one from after a change of a
file that was imported is refused. The submitter says the last word: unless it has heard of the new supervisor and
answered, nothing is run, and it starts an interpreter of its own.
"""

import contextlib
import json
import os
import select
import socket
import stat
import struct
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

from .. import _files
from ..claims.owner import heart, process_start
from . import forking, paths
from .order import Order

LONGEST = 30.0  # seconds that a supervisor stays after its last task
PATIENCE = 2.0  # seconds for an answer
LOOK_EVERY = 5.0  # seconds between looks whether the socket is still the one that others find
MAX_ORDER = 1 << 20  # bytes
_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed"),
)
_FILES_OF_PROCESS = ("limits", "cgroup", "oom_score_adj")
_FileState = tuple[int, int, int]


def seconds() -> float:
    """How long a supervisor stays after its last task: ``EXCA_LOCAL_WARM``, at most 30 s."""
    try:
        return min(LONGEST, max(0.0, float(os.environ.get("EXCA_LOCAL_WARM", LONGEST))))
    except ValueError:
        return LONGEST


def address(python: str, env: tp.Mapping[str, str]) -> str:
    """A digest of all that an interpreter would start with that this process started now; empty if it can't be told."""
    try:
        here = os.stat(".")
        found: list[object] = [python, _state(python), str(Path(__file__)), sorted(env.items())]
        found += [os.getcwd(), here.st_dev, here.st_ino, os.getpriority(os.PRIO_PROCESS, 0)]
        found += [line for line in _read("status").splitlines() if line.partition(":")[0] in _STATUS]
        found += [_read(name) for name in _FILES_OF_PROCESS]
        found += [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))]
        found += [
            [place, _state(place)] for place in sys.path if "-packages" in place and os.path.isdir(place)
        ]
    except OSError:
        return ""
    return _files.digest(repr(found).encode("utf-8", "surrogateescape"))[:32]


def _read(name: str) -> str:
    return Path(f"/proc/thread-self/{name}").read_text()


def _state(path: str) -> _FileState:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


# ---------------------------------------------------------------- the submitter


def ask(name: str, order: "Order") -> int | None:
    """Hand an order to a supervisor that stayed; returns the id of the process that does it, None if there is none."""
    folder = _open_folder(make=False)
    if folder is None:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.settimeout(PATIENCE)
            other.connect(f"/proc/self/fd/{folder}/{name}")
            if not _is_ours(other):
                return None
            other.sendall(order.text().encode() + b"\n")
            answer = json.loads(_line(other))
            pid, start = int(answer["pid"]), str(answer["start"])
            if process_start(pid) != start:
                return None
            other.sendall(b"go\n")
            return pid
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        os.close(folder)


def _open_folder(*, make: bool) -> int | None:
    """The folder of the sockets, if no other user can have anything to do with it."""
    place = os.environ.get("XDG_RUNTIME_DIR", "")
    if not (os.path.isabs(place) and os.path.isdir(place)):
        place = tempfile.gettempdir()
    path = os.path.join(place, f"exca-{os.geteuid()}")
    if make:
        with contextlib.suppress(OSError):
            os.mkdir(path, 0o700)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(folder)
        return None
    return folder


def _is_ours(other: socket.socket) -> bool:
    """Whether the process at the other end, as the kernel knows it, is of this user."""
    data = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", data)[1] == os.geteuid())


def _line(other: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = other.recv(1 << 16)
        if not part or len(data) > MAX_ORDER:
            raise ValueError("the other side has hung up, or does not stop talking")
        data += part
    return data


# ---------------------------------------------------------------- the supervisor


def stay(name: str, lasting: float) -> "Order | None":
    """Fork a process that stays; returns None here, and an order in each process that is forked from that one later."""
    files = _imported(_started())
    if files is None:
        return None
    supervisor = os.pidfd_open(os.getpid())
    if forking.fork():
        os.close(supervisor)
        return None
    try:
        os.setsid()
        for number in (0, 1, 2):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            os.close(null)
        order = _Resident(name, lasting, files, supervisor).serve()
    except BaseException:
        os._exit(1)
    if order is None:
        os._exit(0)
    return order


def _started() -> int:
    """When this process started, in nanoseconds since the epoch."""
    ticks = int(process_start(os.getpid()) or 0)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time_ns() - int(age * 1e9)


def _imported(since: int) -> dict[str, _FileState] | None:
    """Files of what is imported, and their state; None if one has changed since that time, or is gone."""
    found: dict[str, _FileState] = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.isabs(file) and file not in found:
            try:
                found[file] = _state(file)
            except OSError:
                return None
            if found[file][0] >= since:
                return None
    return found


class _Resident:
    """The process that stays."""

    def __init__(self, name: str, lasting: float, files: dict[str, _FileState], supervisor: int) -> None:
        self.name = name
        self.lasting = lasting
        self.files = files
        # processes at work, by a handle that can be waited for with others, with their id; 0 where it is no child
        self.working: dict[int, int] = {supervisor: 0}
        self.welcome = True  # whether it takes orders
        self.beats = False
        self.inode = 0

    def serve(self) -> "Order | None":
        """Take orders; returns None when it has stayed long enough, and an order in the process that is to do it."""
        folder = _open_folder(make=True)
        if folder is None:
            return None
        listener = self._listen(folder)
        until = 0.0
        while self.working or (self.welcome and time.monotonic() < until):
            poll = select.poll()
            for handle in (listener.fileno(), *self.working):
                poll.register(handle, select.POLLIN)
            left = LOOK_EVERY if self.working else min(LOOK_EVERY, until - time.monotonic())
            ready = {handle for handle, _ in poll.poll(max(0, 1000 * left))}
            for handle in ready & self.working.keys():
                self._forget(handle)
                until = time.monotonic() + self.lasting
            if listener.fileno() in ready:
                order = self._answer(listener)
                if order is not None:
                    listener.close()
                    os.close(folder)
                    for handle in self.working:
                        os.close(handle)
                    return order
            self._look(folder)
        if self._is_found(folder):
            with contextlib.suppress(OSError):
                os.unlink(self.name, dir_fd=folder)
        return None

    def _listen(self, folder: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        draft = f".{self.name}-{os.getpid()}"
        listener.bind(f"/proc/self/fd/{folder}/{draft}")
        os.chmod(draft, 0o600, dir_fd=folder)
        listener.listen()
        self.inode = os.stat(draft, dir_fd=folder).st_ino
        os.replace(draft, self.name, src_dir_fd=folder, dst_dir_fd=folder)
        _sweep(folder)
        return listener

    def _is_found(self, folder: int) -> bool:
        try:
            return os.stat(self.name, dir_fd=folder).st_ino == self.inode
        except OSError:
            return False

    def _look(self, folder: int) -> None:
        """Take no more orders if another process has taken the place."""
        self.welcome = self.welcome and self._is_found(folder)

    def _forget(self, handle: int) -> None:
        os.close(handle)
        pid = self.working.pop(handle)
        if pid:
            os.waitpid(pid, 0)

    def _answer(self, listener: socket.socket) -> "Order | None":
        """Take one order; returns it in the process that is to do it."""
        with listener.accept()[0] as other:
            try:
                other.settimeout(PATIENCE)
                if not _is_ours(other) or not self.welcome:
                    return None
                order = Order.parse(_line(other).decode())
                if not self._is_current():
                    self.welcome = False
                    return None
                if not self.beats:
                    heart.beat_for_children()
                    self.beats = True
                pid = forking.fork()
                if pid == 0:
                    _begin(other, order)
                    return order
            except (OSError, ValueError, TypeError):
                return None
        self.working[os.pidfd_open(pid)] = pid
        self._learn(order)
        return None

    def _is_current(self) -> bool:
        """Whether what is imported is what a new interpreter would import."""
        try:
            return all(_state(file) == state for file, state in self.files.items())
        except OSError:
            return False

    def _learn(self, order: "Order") -> None:
        """Import what the order needs, for the next one."""
        if all(name in sys.modules for name in order.modules):
            return
        now = time.time_ns()
        before = frozenset(self.files)
        self.welcome = forking.prepare(order.modules)
        files = _imported(now) if self.welcome else None
        if files is None:
            self.welcome = False
        else:
            self.files.update((file, state) for file, state in files.items() if file not in before)


def _begin(other: socket.socket, order: "Order") -> None:
    """In the process that is to do an order: tell the submitter which it is, and wait for the word to begin."""
    try:
        me = os.getpid()
        os.setsid()
        other.sendall(json.dumps({"pid": me, "start": process_start(me)}).encode() + b"\n")
        if _line(other) != b"go\n":
            os._exit(1)
        folder = order.first().folder
        for number, name in ((1, "array.out"), (2, "array.err")):
            with paths.open_log(folder / name) as log:
                os.dup2(log.fileno(), number)
    except BaseException:
        os._exit(1)


def _sweep(folder: int) -> None:
    """Remove the sockets of processes that were killed."""
    for name in os.listdir(folder):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.setblocking(False)
            try:
                other.connect(f"/proc/self/fd/{folder}/{name}")
            except ConnectionRefusedError:
                if not name.startswith("."):  # else it is about to be listened to
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=folder)
            except OSError:
                continue
