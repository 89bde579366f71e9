"""Files and folders, for all rooms: how they are found, read, written, named and made durable.

Whole or not at all
    A file that others read is written under a temporary name and renamed; one that is *durable* is on the disk
    before the rename, and so are, after it, the folder and each folder above it that was made for it.
Rights
    ``SHARED`` follows the umask, as data must that a team writes together, and is never writable to everybody.
    ``OWN`` is never writable to a group either: records, claims, submissions and pickles decide what is run, signalled
    or removed. ``PRIVATE`` is for what is submitted.
Links
    The folder that a user named (`name_root`) may be a link or lead through links, and is resolved once. Below it
    another user may put a link in the place of any folder, at any moment; a link is followed only if it belongs to
    this user or to root, and none in the place of a file that is to be changed. So nothing is judged by its path:
    a file is opened, and then asked where it is (one ``readlink`` in ``/proc``; not where only this user can have put
    anything into the folders above). If it is not where its name leads,
    it is opened again step by step, each relative to the folder before. A name that is random needs no more: where the
    folder was exchanged meanwhile, it is not there. What has a name that others know is renamed and removed relative to
    an open folder (`open_folder`).
Waiting
    What is opened can't block: a FIFO is refused.
"""

import collections
import contextlib
import errno
import functools
import os
import platform
import re
import stat
import threading
import typing as tp
import weakref

from ._log import logger
from .errors import OddFileError, UntrustedFileError

_T = tp.TypeVar("_T")
SHARED, OWN, PRIVATE = 0o664, 0o644, 0o600  # rights of a new file, before the umask
SHARED_FOLDER, OWN_FOLDER, PRIVATE_FOLDER = 0o775, 0o755, 0o700

_BINARY = getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
READ = os.O_RDONLY | _BINARY | _NOFOLLOW | _NONBLOCK
UPDATE = os.O_RDWR | _BINARY | _NOFOLLOW | _NONBLOCK
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY  # O_EXCL follows no link either
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
FOLDER = os.O_RDONLY | _DIRECTORY
IS_LINK = (errno.ELOOP, errno.EMLINK)  # what O_NOFOLLOW gives for a link (EMLINK on BSD)
GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)  # what a file that is no longer there gives

_PATH = getattr(os, "O_PATH", None)
_MAX_LINKS = 16
_MOVABLE = "what may be moved of such, exca.repair sets aside"
NOT_REGULAR = f"not a regular file; {_MOVABLE}"
IS_A_LINK = "a link to a file, through which nothing is changed; put the file itself in its place"
MAX_FILE = 1 << 30  # bytes; files that are read whole are small, so a larger one is none of ours
_BLOCK = 1 << 16  # bytes, more than nearly every file of ours has
MAX_OPEN = 128  # index files kept open per process, where the limit of open files allows for so many


# ------------------------------------------------------------------------------------------------- finding

_roots: dict[str, str] = {}  # the folders that users named, and where they are
_HAS_PROC = os.path.exists("/proc/self/fd")
_CAN_STEP = os.open in os.supports_dir_fd and bool(_NOFOLLOW)


def name_root(folder: str) -> str:
    """Take note of a folder (an absolute path, perhaps still to be made) that a user named, and return it.

    Links on the way to it are followed, and resolved now.
    """
    if folder not in _roots:
        _roots[folder] = os.path.realpath(folder)
        _split.cache_clear()
    return folder


def is_below_root(folder: str) -> bool:
    """Whether a folder is one that a user named, or is below one."""
    return _split(folder) is not None


@functools.lru_cache(maxsize=4096)
def _split(path: str) -> tuple[str, str, str] | None:
    """Where a path is when no link is below the root it belongs to, the root, and the rest; None without a root."""
    above = path
    while True:
        real = _roots.get(above)
        if real is not None:
            rest = path[len(above) :]
            return real.rstrip("/") + rest, real, rest
        parent = os.path.dirname(above)
        if parent == above:
            return None
        above = parent


def _is_at(fd: int, folder: str, name: str) -> bool:
    """Whether an open file is where its path leads, so that no link was followed below the root."""
    if _ours_alone.get(folder) or is_ours_alone(folder):
        return True
    place = _split(folder)
    if place is None or not _CAN_STEP:
        return True
    try:
        return _HAS_PROC and os.readlink(f"/proc/self/fd/{fd}") == f"{place[0]}/{name}"
    except OSError:
        return False


_ours_alone: dict[str, bool] = {}
_closed_up: dict[str, bool] = {}


def is_ours_alone(folder: str) -> bool:
    """Whether only this user and root can put another folder, or a link, in the place of this one.

    It is asked once in a process: only the owner of a folder could change that.
    """
    known = _ours_alone.get(folder)
    if known is None:
        above = os.path.dirname(folder)
        known = _closed_up.get(above)  # of the folders in one folder, one answer holds for all
        if known is None:
            try:
                known = not hasattr(os, "geteuid") or _is_closed_up(os.path.realpath(above))
            except OSError:  # not there yet
                return False
            if len(_closed_up) >= _MAX_SYNCED:
                _closed_up.clear()
            _closed_up[above] = known
        if len(_ours_alone) >= _MAX_SYNCED:
            _ours_alone.clear()
        _ours_alone[folder] = known
    return known


def _is_closed_up(folder: str) -> bool:
    """Whether only this user and root may write to a folder, and exchange any folder above it."""
    status = os.lstat(folder)
    if status.st_mode & 0o022:
        return False
    while status.st_uid in (0, os.geteuid()):
        above = os.path.dirname(folder)
        if above == folder:
            return True
        folder, status = above, os.lstat(above)
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:  # as /tmp: each keeps what is theirs
            return False
    return False


def open_file(path: str, flags: int = READ) -> int:
    """Open a file that is there, to ``READ`` or ``UPDATE``; below a root, no link of another user's is followed.

    It may be a folder or a FIFO: what reads from it must expect so (`require_regular`).

    Raises UntrustedFileError for a link of another user's on the way; OddFileError for a socket, for links in a
    circle, and for a link in the place of what is to be changed: an unpacked archive may have put it there.
    """
    folder, _, name = path.rpartition("/")
    if not _NOFOLLOW and flags & os.O_RDWR and os.path.islink(path):  # Windows
        raise OddFileError(errno.ELOOP, IS_A_LINK, path)
    try:
        fd = os.open(path, flags)
    except OSError as e:
        is_link = e.errno in IS_LINK or (e.errno == errno.ENOTDIR and flags & _DIRECTORY)
        if e.errno in (errno.ENXIO, errno.EISDIR):  # a socket, or a folder that was to be changed
            raise OddFileError(e.errno, NOT_REGULAR, path) from e
        if not is_link:
            raise
    else:
        if _is_at(fd, folder, name):
            return fd
        os.close(fd)
    return _by_steps(path, flags)


def create_file(path: str, mode: int = SHARED, flags: int = NEW) -> int:
    """Open a file for writing that must not be there yet; ``mode`` are its rights before the umask.

    Raises FileExistsError, and UntrustedFileError for a link of another user's on the way.
    """
    folder, _, name = path.rpartition("/")
    if _HAS_PROC or _split(folder) is None:
        fd = os.open(path, flags, mode)
        if _is_at(fd, folder, name):
            return fd
        with contextlib.suppress(OSError):
            os.unlink(os.readlink(f"/proc/self/fd/{fd}"))  # it is new, and not where it was meant to be
        os.close(fd)
    return _by_steps(path, flags, mode)


def open_to_append(path: str) -> int:
    """Open a file of this process for appending, new or not; nothing is appended to what another user put there."""
    try:
        return create_file(path, SHARED, NEW | os.O_APPEND)
    except FileExistsError:
        return reopen_to_append(path)


def append_text(path: str | os.PathLike[str]) -> tp.TextIO:
    """Open a text log for appending, new or not, also one of another user's.

    Raises OddFileError where it is no regular file, or has a second name.
    """
    path = os.fspath(path)
    try:
        return open(create_file(path, SHARED, NEW | os.O_APPEND), "a")
    except FileExistsError:
        fd = open_file(path, UPDATE | os.O_APPEND)
    try:
        if require_regular(fd, path).st_nlink > 1:
            raise OddFileError(errno.EMLINK, "a file with a second name", path)
        return open(fd, "a")
    except BaseException:
        os.close(fd)
        raise


def reopen_to_append(path: str) -> int:
    """Open a file of this user's that is there for appending, and for reading.

    Raises PermissionError where it is another user's, or has a second name.
    """
    fd = open_file(path, UPDATE | os.O_APPEND)
    try:
        require_ours(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_folder(path: str) -> int:
    """Open a folder, so that what is in it can be named relative to it, whatever becomes of its path.

    Raises UntrustedFileError for a link of another user's on the way, below the folder that the user named.
    """
    if path in _roots:
        return os.open(_roots[path], FOLDER)
    return open_file(path, FOLDER | _NOFOLLOW)


def _by_steps(path: str, flags: int, mode: int = SHARED) -> int:
    """Open a path below its root, each part relative to the folder before."""
    place = _split(path)
    if place is None:  # of no user's folder: only its last part may be a link that is not to be followed
        folder, name = os.path.split(path)
        root, rest = folder or ".", name
    else:
        _, root, rest = place
    parts = [part for part in rest.split("/") if part]
    fd = os.open(root, FOLDER)
    links, outside = 0, False
    try:
        while parts:
            name = parts.pop(0)
            try:
                new = os.open(name, (FOLDER if parts else flags) | _NOFOLLOW, mode, dir_fd=fd)
            except OSError as e:
                if e.errno not in (*IS_LINK, errno.ENOTDIR):
                    raise
                links += 1
                if links > _MAX_LINKS:
                    raise OddFileError(errno.ELOOP, os.strerror(errno.ELOOP), path) from e
                target = _target(name, fd, path, outside)
                _refuse(e, path, target, bool(not parts and flags & os.O_RDWR))
                target = name if target is None else target  # no link by now: once more
                if target.startswith("/"):
                    outside = True
                    new = os.open("/", FOLDER)
                    os.close(fd)
                    fd = new
                parts[:0] = [part for part in target.split("/") if part not in ("", ".")]
                continue
            os.close(fd)
            fd = new
        found, fd = fd, -1
        return found
    finally:
        if fd >= 0:
            os.close(fd)


def _refuse(error: OSError, path: str, target: str | None, changes: bool) -> None:
    """Raise for what is neither a folder nor a link, and for a link through which a file would be changed."""
    if target is None and error.errno == errno.ENOTDIR:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
    if target is not None and changes:
        raise OddFileError(errno.ELOOP, IS_A_LINK, path) from error


def _target(name: str, folder: int, path: str, outside: bool) -> str | None:
    """Where a link leads that may be followed, asked of one and the same link; None for what is none.

    On the way of a link of ours that leads elsewhere, also one that others can't have put there is followed.
    """
    if _PATH is None:
        status = os.lstat(name, dir_fd=folder)
        target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else ""
    else:
        link = os.open(name, _PATH | _NOFOLLOW, dir_fd=folder)
        try:
            status = os.fstat(link)
            target = os.readlink("", dir_fd=link) if stat.S_ISLNK(status.st_mode) else ""
        finally:
            os.close(link)
    if not stat.S_ISLNK(status.st_mode):
        return None
    around = os.fstat(folder)
    only_ours = outside and around.st_uid in (0, os.geteuid()) and not around.st_mode & 0o022
    if status.st_uid not in (0, os.geteuid()) and not only_ours:
        raise UntrustedFileError(
            errno.ELOOP,
            f"Not following the link {name!r}, which belongs to user {status.st_uid}: replace it with its target, "
            "or with a link that you own",
            path,
        )
    return target


@contextlib.contextmanager
def _within(path: str) -> tp.Iterator[tuple[str, int | None]]:
    """The name of a file in its folder, and that folder, open; its whole path, and None, where nothing can be so named.

    Raises UntrustedFileError for a link of another user's on the way.
    """
    if not _CAN_STEP:
        yield path, None
        return
    folder, name = os.path.split(path)
    fd = open_folder(folder)
    try:
        yield name, fd
    finally:
        os.close(fd)


def make_folders(path: str, mode: int = SHARED_FOLDER) -> None:
    """Make a folder with those above it that are missing; no link of another user's is followed.

    Raises OddFileError where there is something else of this name.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(path) or "."
    for _ in range(_MAX_TRIES):
        make_folders(above, mode)
        try:
            if not is_below_root(above):
                os.mkdir(path, mode)
                return
            with _within(path) as (name, folder):
                os.mkdir(name, mode, dir_fd=folder)
            return
        except FileExistsError as e:
            if os.path.isdir(path):
                return
            raise OddFileError(e.errno, f"not a folder; {_MOVABLE}", path) from e
        except FileNotFoundError:  # removed by another process meanwhile
            continue
    raise FileNotFoundError(
        errno.ENOENT, "cannot be made: the folder is removed again and again, or takes no folders", path
    )


_MAX_TRIES = 100


def remove(path: str) -> None:
    """Remove a file; no link of another user's is followed on the way.

    Raises FileNotFoundError, and OddFileError for a folder.
    """
    with _within(path) as (name, folder):
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError as e:
            raise OddFileError(e.errno, NOT_REGULAR, path) from e


def read_link(path: str) -> str | None:
    """Where a link leads, None for what is none; raises UntrustedFileError for a link of another user's."""
    with _within(path) as (name, folder):
        return None if folder is None else _target(name, folder, path, outside=False)


def remove_tree(path: str) -> None:
    """Remove a folder, if it is there, and all in it as far as possible; no link in it is followed."""
    import shutil

    with contextlib.suppress(FileNotFoundError), _within(path) as (name, folder):
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def empty(path: str) -> None:
    """Remove all in a folder, as far as possible; no link in it is followed."""
    import shutil

    with contextlib.suppress(FileNotFoundError), _within(os.path.join(path, "all")) as (_, folder):
        for name in os.listdir(path if folder is None else folder):
            place = os.path.join(path, name) if folder is None else name
            try:
                os.unlink(place, dir_fd=folder)
            except OSError:  # a folder, which stays where another process writes there again
                shutil.rmtree(place, ignore_errors=True, dir_fd=folder)


def move(path: str, name: str) -> None:
    """Give a file another name in its folder, in the place of what has that name; links are as in `remove`."""
    with _within(path) as (old, folder):
        os.replace(old, _beside(old, name), src_dir_fd=folder, dst_dir_fd=folder)


def move_to(path: str, target: str) -> None:
    """Move a file or a folder to another folder, which must be there; links are as in `remove`.

    Raises FileExistsError where there is something at ``target``, be it a link that leads nowhere.
    """
    with _within(path) as (old, source), _within(target) as (new, place):
        with contextlib.suppress(FileNotFoundError):
            os.stat(new, dir_fd=place, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=place)


def status_of(path: str) -> os.stat_result:
    """What `os.lstat` says; links on the way are as in `remove`."""
    with _within(path) as (name, folder):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)


def list_folder(path: str) -> list[str]:
    """The sorted names in a folder; a link in its place, or on the way, is as in `remove`."""
    if not _CAN_STEP:
        return sorted(os.listdir(path))
    fd = open_folder(path)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def remove_empty(path: str) -> bool:
    """Remove a folder if it is empty, and those in it that are; whether it is gone. No link is followed."""
    try:
        names = list_folder(path)
        gone = [is_folder(f"{path}/{name}") and remove_empty(f"{path}/{name}") for name in names]
        if all(gone):
            with _within(path) as (name, folder):
                os.rmdir(name, dir_fd=folder)
            return True
    except OSError:
        pass
    return False


def is_folder(path: str) -> bool:
    """Whether a path is of a folder, not of a link to one."""
    return stat.S_ISDIR(status_of(path).st_mode)


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(path), name)


def link(target: str, path: str) -> None:
    """Put a link to ``target`` at ``path``, in the place of what is there; other links are as in `remove`."""
    with _within(path) as (name, folder):
        draft = _beside(name, temporary_name(os.path.basename(name)))
        os.symlink(target, draft, target_is_directory=True, dir_fd=folder)
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)


# ------------------------------------------------------------------------------------------------- reading


def read_file(path: str) -> bytes:
    """Read a regular file whole.

    Raises UntrustedFileError for a link of another user's on the way, OddFileError for what is no regular file, or too
    large to be one of ours, and OSError.
    """
    fd = open_file(path)  # open() takes three times as long
    try:
        return read_all(fd, path)
    finally:
        os.close(fd)


def read_judged(path: str) -> tuple[bytes, os.stat_result]:
    """Read a regular file whole, as `read_file` does, and tell whose it is: the very one that was read."""
    fd = open_file(path)
    try:
        status = require_regular(fd, path)
        data = os.read(fd, _BLOCK)
        return data if len(data) < _BLOCK else _with_rest(fd, data, path), status
    finally:
        os.close(fd)


def everybody_may_write(status: os.stat_result) -> bool:
    """Whether a file can be written by everybody, on a file system that keeps such rights."""
    if not status.st_mode & stat.S_IWOTH or not hasattr(os, "geteuid"):
        return False
    return _file_system(status.st_dev) not in _WITHOUT_RIGHTS


_WITHOUT_RIGHTS = (
    "vfat",
    "msdos",
    "exfat",
    "ntfs",
    "ntfs3",
    "fuseblk",
    "9p",
    "drvfs",
    "cifs",
    "smb3",
    "vboxsf",
)


def require_ours(fd: int) -> None:
    """Raise OSError unless an open file is a regular one of this user's under one name, so that it may be changed."""
    status = require_regular(fd)
    if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_nlink > 1):
        raise PermissionError(errno.EPERM, "it was put there by another user")


def digest(data: bytes) -> str:
    """What tells content from every other, also from one that was made to look alike (SHA-256, in hexadecimal)."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def read_all(fd: int, path: str | None = None) -> bytes:
    """Read what is left of an open regular file."""
    try:
        data = os.read(fd, _BLOCK)
    except IsADirectoryError:
        data = b""
    if len(data) < _BLOCK:
        if not data:
            require_regular(fd, path)  # a FIFO that nothing writes to is empty, too
        return data
    return _with_rest(fd, data, path)


def _with_rest(fd: int, data: bytes, path: str | None) -> bytes:
    """What was read of an open file, and what is left of it."""
    size = require_regular(fd, path).st_size
    if size > MAX_FILE:
        raise OddFileError(errno.EFBIG, f"a file of more than {MAX_FILE >> 20} MiB", path)
    blocks = [data]
    while data := os.read(fd, max(1 << 20, size)):
        blocks.append(data)
        size -= len(data)
    return b"".join(blocks)


def open_regular(path: str) -> tp.BinaryIO:
    """Open a regular file for reading, as `open_file` does; raises OddFileError for anything else."""
    fd = open_file(path)
    try:
        require_regular(fd, path)
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def require_regular(fd: int, path: str | None = None) -> os.stat_result:
    """The status of an open file; raises OddFileError where it is none (a folder, a FIFO, a device)."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OddFileError(errno.EINVAL, NOT_REGULAR, path)
    return status


class _DropsHandle(tp.Protocol):
    def drop_handle(self) -> None: ...


class Handle:
    """An open file, closed when nothing holds this object: a reader in another thread never sees its number reused."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd: int = fd

    @classmethod
    def open(cls, owner: _DropsHandle, path: str) -> "Handle":
        """Open ``path`` for reading on behalf of ``owner``, whose handle is dropped when too many are open."""
        handle = cls(with_room(lambda: open_file(path)))
        most = min(MAX_OPEN, limit_of_files() // 8)
        with _recent_lock:
            _recent[id(owner)] = weakref.ref(owner)
            _recent.move_to_end(id(owner))
            victim = _recent.popitem(last=False)[1]() if len(_recent) > most else None
        if victim is not None:
            victim.drop_handle()
        return handle

    def __del__(self) -> None:
        try:
            os.close(self.fd)
        except OSError:  # at the end of the interpreter
            pass


def limit_of_files() -> int:
    """How many files this process may have open."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 1 << 13
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def with_room(opening: tp.Callable[[], _T]) -> _T:
    """What ``opening`` returns; where too many files are open, those that are only kept open are closed before."""
    try:
        return opening()
    except OSError as e:
        if e.errno != errno.EMFILE:
            raise
    with _recent_lock:
        victims = [victim for owner in _recent.values() if (victim := owner()) is not None]
        _recent.clear()
    for victim in victims:
        victim.drop_handle()
    for drop in drop_when_full:
        drop()
    return opening()


# called when too many files are open: to close what need not be open
drop_when_full: list[tp.Callable[[], None]] = []
_recent: "collections.OrderedDict[int, weakref.ref[_DropsHandle]]" = collections.OrderedDict()
_recent_lock = threading.Lock()
_read_lock = threading.Lock()


def _seek_and_read(fd: int, length: int, offset: int) -> bytes:
    with _read_lock:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)


pread: tp.Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)


def opened_status(path: str) -> os.stat_result:
    """What `os.stat` says once the file was opened: on NFS, what the server has and not what this host remembers."""
    fd = open_file(path)
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
    """Write a file that must not be there yet. Raises FileExistsError, and OSError with part of it written."""
    fd = create_file(path, mode)  # open() takes half as long again
    try:
        write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(
    path: str | os.PathLike[str], data: bytes, *, mode: int = SHARED, durable: bool = False
) -> None:
    """Write a file, whose folder must exist, so that readers see all of it or nothing.

    If ``durable``, it also survives a power failure right after the call, if its folder does (`sync_above`).
    """
    folder, name = os.path.split(path)
    draft = f"{folder}/{temporary_name(name)}" if folder else temporary_name(name)
    try:
        write_new(draft, data, mode=mode, sync=durable)
        os.replace(draft, path)
    except BaseException as e:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        if isinstance(e, IsADirectoryError):
            raise OddFileError(e.errno, NOT_REGULAR, os.fspath(path)) from e
        raise
    if durable:
        sync_folder(folder or ".")


def temporary_name(name: str) -> str:
    """A name of a file or folder that is about to get another: hidden, with the writer's process id."""
    return f".{name.lstrip('.')}-{os.getpid()}-{os.urandom(4).hex()}.tmp"


# ---------------------------------------------------------------------------------------------- durability


def sync_path(path: str) -> None:
    """Put a file on the disk, or the list of a folder's files; nothing where it is gone or can't be opened."""
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


@functools.lru_cache(maxsize=64)
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
    """Expand ``~`` and ``~name`` at the start of a folder that a user named in ``field``.

    Earlier releases took both ``~`` and ``$NAME`` for names of folders. What they made so is still found, and
    reported once.

    Raises ValueError for an unknown user, and for an environment variable: it may be another one where a job runs.
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
        logger.warning(
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


def after_fork(renew: tp.Callable[[], None]) -> tp.Callable[[], None]:
    """Have a function called in each forked child, where locks may be held by threads that are not there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return renew


@after_fork
def _after_fork() -> None:
    global _recent_lock, _read_lock
    _recent_lock, _read_lock = threading.Lock(), threading.Lock()
    writer_name.renew()
