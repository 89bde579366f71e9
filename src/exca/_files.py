"""Files and folders, for all rooms: how they are read, written, named and made durable.

Whole or not at all
    A file that others read is written under a temporary name and renamed; one that is *durable* is on the disk
    before the rename, and so are, after it, the folder and each folder above it that was made for it.
Rights
    ``SHARED`` follows the umask, as data must that a team writes together. ``OWN`` is never writable to a group,
    whatever the umask: records, claims, submissions and pickles decide what is run, signalled or removed.
    ``PRIVATE`` is for what is submitted.
Links
    A link is followed only if it belongs to this user or to root (``open_to_read``). What is opened can't block: a
    FIFO is refused.
"""

import collections
import contextlib
import errno
import functools
import logging
import os
import platform
import re
import stat
import threading
import typing as tp
import weakref

from .errors import UntrustedFileError

SHARED, OWN, PRIVATE = 0o666, 0o644, 0o600  # rights of a new file, before the umask

_BINARY = getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
READ = os.O_RDONLY | _BINARY | _NOFOLLOW | _NONBLOCK
UPDATE = os.O_RDWR | _BINARY | _NOFOLLOW | _NONBLOCK
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY  # O_EXCL follows no link either
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)  # what a file that is no longer there gives

_PATH = getattr(os, "O_PATH", None)
_MAX_LINKS = 16
_BLOCK = 1 << 16  # bytes, more than nearly every file of ours has
MAX_OPEN = 128  # index files kept open per process


# ------------------------------------------------------------------------------------------------- reading


def read_file(path: str) -> bytes:
    """Read a regular file whole.

    Parameters
    ----------
    path: str
        the file

    Raises
    ------
    UntrustedFileError
        it is a link that belongs to another user
    OSError
        it can't be read, or is no regular file
    """
    fd = open_to_read(path)  # open() takes three times as long
    try:
        return read_all(fd)
    finally:
        os.close(fd)


def open_to_read(path: str) -> int:
    """Open a file for reading; a link is followed only if it belongs to this user or to root.

    Parameters
    ----------
    path: str
        the file

    Returns
    -------
    int
        a descriptor, also of a folder or a FIFO: what reads from it must expect so (`require_regular`)

    Raises
    ------
    UntrustedFileError
        it is a link that belongs to another user
    """
    for _ in range(_MAX_LINKS):
        try:
            return os.open(path, READ)
        except OSError as e:
            if e.errno not in (errno.ELOOP, errno.EMLINK):  # EMLINK on BSD
                raise
        path = os.path.join(os.path.dirname(path), _own_target(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _own_target(path: str) -> str:
    """Where a link leads that belongs to this user or to root, asked of one and the same link."""
    if _PATH is None:
        status, target = os.lstat(path), os.readlink(path)
    else:
        fd = os.open(path, _PATH | _NOFOLLOW)
        try:
            status, target = os.fstat(fd), os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedFileError(
            errno.ELOOP,
            f"Not following a link that belongs to user {status.st_uid}: replace it by a link of yours, or by a copy",
            path,
        )
    return target


def read_all(fd: int) -> bytes:
    """Read what is left of an open file.

    Parameters
    ----------
    fd: int
        descriptor of a regular file
    """
    data = os.read(fd, _BLOCK)
    if len(data) < _BLOCK:
        if not data:
            require_regular(fd)  # a FIFO that nothing writes to is empty, too
        return data
    require_regular(fd)
    blocks = [data]
    while data := os.read(fd, 1 << 20):
        blocks.append(data)
    return b"".join(blocks)


def require_regular(fd: int) -> os.stat_result:
    """Return the status of an open file; raises OSError when it is no regular file (a folder, a FIFO, a device)."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return status


class _DropsHandle(tp.Protocol):
    def drop_handle(self) -> None: ...


class Handle:
    """An open file, closed when nothing holds this object: a reader in another thread never sees its number reused."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, owner: _DropsHandle, path: str) -> "Handle":
        """Open ``path`` for reading on behalf of ``owner``, whose handle is dropped when too many are open."""
        handle = cls(os.open(path, os.O_RDONLY | _BINARY))
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


_recent: "collections.OrderedDict[int, weakref.ref[_DropsHandle]]" = collections.OrderedDict()
_recent_lock = threading.Lock()
_read_lock = threading.Lock()


def _seek_and_read(fd: int, length: int, offset: int) -> bytes:
    with _read_lock:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)


pread: tp.Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)


def opened_status(path: str) -> os.stat_result:
    """What `os.stat` says once the file was opened: on NFS, what the server says and not this host's memory."""
    fd = os.open(path, os.O_RDONLY | _NONBLOCK)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------------------- writing


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of ``data``. Raises OSError, for a full disk with part of it written."""
    view = memoryview(data)
    while view:
        done = os.write(fd, view)
        if done == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[done:]


def write_new(path: str, data: bytes, *, mode: int = SHARED, sync: bool = False) -> None:
    """Write a file that must not be there yet.

    Parameters
    ----------
    path: str
        the file
    data: bytes
        its content
    mode: int
        its rights before the umask: ``SHARED``, ``OWN`` or ``PRIVATE``
    sync: bool
        put the content on the disk

    Raises
    ------
    FileExistsError
        there is something of this name
    OSError
        it can't be written; part of it may be there
    """
    fd = os.open(path, NEW, mode)  # open() takes half as long again
    try:
        write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(
    path: str | os.PathLike[str], data: bytes, *, mode: int = SHARED, durable: bool = False
) -> None:
    """Write a file so that readers see all of it or nothing.

    Parameters
    ----------
    path: str or path
        the file; its folder must exist
    data: bytes
        its content
    mode: int
        its rights before the umask: ``SHARED``, ``OWN`` or ``PRIVATE``
    durable: bool
        also survive a power failure right after the call, if its folder does (`sync_above`)
    """
    folder, name = os.path.split(path)
    draft = f"{folder}/{temporary_name(name)}" if folder else temporary_name(name)
    try:
        write_new(draft, data, mode=mode, sync=durable)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    if durable:
        sync_folder(folder or ".")


def temporary_name(name: str) -> str:
    """A name of a file or folder that is about to get another: hidden, with the writer's process id.

    Parameters
    ----------
    name: str
        what it will be called
    """
    return f".{name.lstrip('.')}-{os.getpid()}-{os.urandom(4).hex()}.tmp"


# ---------------------------------------------------------------------------------------------- durability


def sync_path(path: str) -> None:
    """Put a file on the disk, or what a folder says of its files; nothing where it is gone or can't be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | _NONBLOCK)
    except OSError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: str) -> None:
    """Put on the disk which files a folder holds; nothing where a folder can't be opened (Windows) or synced."""
    try:
        fd = os.open(path, FOLDER)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(fd)


def sync_above(path: str) -> None:
    """Put on the disk that a folder is where it is: in its parent, which is in its own, up to the root.

    What this process has put there before is not done again, nor what is above it.

    Parameters
    ----------
    path: str
        the folder
    """
    path = os.path.abspath(path)
    while (parent := os.path.dirname(path)) != path:
        try:
            status = os.stat(path)
        except OSError:  # removed meanwhile
            return
        place = (path, status.st_dev, status.st_ino)
        if place in _synced:
            return
        sync_folder(parent)
        if len(_synced) >= _MAX_SYNCED:
            _synced.clear()
        _synced.add(place)
        path = parent


_MAX_SYNCED = 10_000
_synced: set[tuple[str, int, int]] = set()


# ------------------------------------------------------------------------------------------ where, and who


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
    """Whether ``path`` is on a file system that other hosts may share (False where this can't be told)."""
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


_VARIABLE = re.compile(r"\$(\w+|\{)")
_literal: set[str] = set()  # folders that were reported as named after "~" or a variable


def expand(folder: str, field: str = "folder") -> str:
    """Expand ``~`` and ``~name`` at the start of a folder that a user named.

    Earlier releases took both ``~`` and ``$NAME`` for names of folders. What they made so is still found, and
    reported once.

    Parameters
    ----------
    folder: str
        as the user wrote it
    field: str
        where it was written, for the error

    Raises
    ------
    ValueError
        for an unknown user, and for an environment variable: it may be another one where a job runs
    """
    if folder[:1] == "~":
        expanded = os.path.expanduser(folder)
        if os.path.isdir(folder) and not os.path.isdir(expanded):
            return _as_written(folder, f"move it to {expanded}")
        if expanded == folder:
            raise ValueError(f"{field}={folder!r} names a user that this machine does not know")
        folder = expanded
    if "$" in folder and (found := list(_VARIABLE.finditer(folder))):
        end = folder.find("/", found[-1].end())
        if os.path.isdir(folder if end < 0 else folder[:end]):
            return _as_written(folder, "rename it")
        raise ValueError(
            f"{field}={folder!r} holds an environment variable, which is not expanded: write the folder itself, or in "
            f"Python os.path.expandvars({folder!r})"
        )
    return folder


def _as_written(folder: str, advice: str) -> str:
    path = os.path.abspath(folder)
    if path not in _literal:
        _literal.add(path)
        logging.getLogger("exca").warning(
            "The folder that is literally called %s is used, as earlier releases made it: %s", path, advice
        )
    return path


@functools.lru_cache(maxsize=1)
def user_name() -> str:
    """Login name of the user, or the number where it has none (as in some containers)."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


@functools.lru_cache(maxsize=1)
def host_name() -> str:
    """Name of this host, for people."""
    return platform.node()


class _WriterName:
    """The name of this process as a writer; a forked child gets its own."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        host = "".join(c if c.isalnum() or c in "._" else "_" for c in host_name()) or "host"
        # the random part tells apart containers with one hostname and pid, and a pid used again
        self.text = f"{host[:60]}-{os.getpid()}-{os.urandom(4).hex()}"
        self.count = 0

    def fresh(self) -> str:
        """A name that no other writer has or had."""
        self.count += 1
        return f"{self.text}-{self.count}" if self.count > 1 else self.text


writer_name = _WriterName()


def _after_fork() -> None:
    global _recent_lock, _read_lock  # a lock may be held by a thread that the child has not
    _recent_lock, _read_lock = threading.Lock(), threading.Lock()
    writer_name.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
