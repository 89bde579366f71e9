"""Files under ``data/``: shared files that values are appended to, and memory maps kept open for reading."""

import collections
import errno
import io
import mmap
import os
import stat
import sys
import threading
import typing as tp
import weakref

from .. import _files
from .._files import (
    Handle,
    drop_when_full,
    limit_of_files,
    open_file,
    with_room,
    write_all,
)
from ..errors import DamagedEntryError, UntrustedFileError

DATA_DIR = "data"
_BUFFER = 1 << 18  # bytes gathered before they are written
_DIRECT = 1 << 15  # bytes from which on a value is written without being copied
MAX_MAPS = 64  # data files kept mapped per process, where the limit of open files allows for so many
# values given out of a map, and bytes, below which one is rather copied than mapped anew
_FEW, _SMALL = 8, 1 << 20


class SharedFile(io.RawIOBase):
    """A file that one writer appends to. A failed write leaves it as it was, so that a later one can succeed."""

    def __init__(self, path: str) -> None:
        self._pid = os.getpid()
        self._fd = _files.open_to_append(path)  # which refuses all but a regular file of this user's
        self._flushed = os.fstat(self._fd).st_size
        self._parts: list[bytes] = []
        self._waiting = 0
        self.unsynced: bool = False
        self.full: bool = False  # as large as a file may be
        self._hasher: tp.Any = None

    def start_sum(self) -> None:
        """Start to checksum what is written."""
        import xxhash

        self._hasher = xxhash.xxh3_64()

    @property
    def summing(self) -> bool:
        """Whether what is written is being checksummed."""
        return self._hasher is not None

    def end_sum(self) -> str:
        """The checksum (XXH3-64, 16 hexadecimal digits) of what was written since `start_sum`."""
        digest: str = self._hasher.hexdigest()
        self._hasher = None
        return digest

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte goes."""
        return self._flushed + self._waiting

    def write(self, data: tp.Any) -> int:
        """Append bytes. Raises OSError when the disk is full; nothing of ``data`` is in the file then."""
        size = len(data) if isinstance(data, bytes) else memoryview(data).nbytes
        if self._hasher is not None:
            self._hasher.update(data)
        if size >= _DIRECT:
            self.flush()
            self._append(memoryview(data).cast("B") if size else b"")
        else:
            self._parts.append(bytes(data))
            self._waiting += size
            if self._waiting > _BUFFER:
                self.flush()
        return size

    def align(self, bytes_: int) -> int:
        """Pad so that the next byte is at a multiple of ``bytes_``; returns where that is."""
        gap = -self.tell() % bytes_
        if gap:
            self.write(bytes(gap))
        return self.tell()

    def flush(self) -> None:
        """Hand what was gathered to the operating system."""
        if self._waiting:
            self._append(b"".join(self._parts))
            self._parts, self._waiting = [], 0

    def _append(self, data: bytes | memoryview) -> None:
        if os.getpid() != self._pid:  # a forked child must not write what its parent will
            return
        try:
            write_all(self._fd, data)
        except OSError as e:
            self.full = self.full or e.errno == errno.EFBIG
            os.ftruncate(self._fd, self._flushed)
            raise
        self._flushed += len(data)
        self.unsynced = True

    def sync(self) -> None:
        """Flush to the disk."""
        self.flush()
        if self.unsynced:
            os.fsync(self._fd)
            self.unsynced = False

    def forget(self) -> None:
        """Drop what was not written yet."""
        self._parts, self._waiting = [], 0

    def close(self) -> None:
        """Flush and close."""
        if not self.closed:
            try:
                self.flush()
            finally:
                self._parts, self._waiting = [], 0
                os.close(self._fd)
                super().close()


# there is no such file, or something else of its name; all other errors may be over in a moment
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENAMETOOLONG)


def is_missing(error: OSError) -> bool:
    """Whether an error means that a data file is not there, rather than that it could not be read just now."""
    return error.errno in _NOT_THERE and not isinstance(error, UntrustedFileError)


def no_range(root: str, path: str, start: tp.Any, length: tp.Any) -> DamagedEntryError:
    """The error of an entry that names a range of bytes that cannot be."""
    return DamagedEntryError(f"An entry of {root} names {length!r} bytes at {start!r} of {path}")


def cut_short(path: str, size: int, needed: int) -> DamagedEntryError:
    """The error of a data file that has fewer bytes than its entries need."""
    return DamagedEntryError(f"The data file {path} has {size} bytes, at least {needed} were written")


def damaged_range(path: str, offset: int, length: int) -> DamagedEntryError:
    """The error of bytes whose checksum is another one."""
    return DamagedEntryError(f"The data file {path} is damaged between bytes {offset} and {offset + length}")


def no_regular_file(path: str) -> DamagedEntryError:
    """The error of a folder, FIFO or alike in the place of a data file."""
    return DamagedEntryError(f"The data file {path} is no regular file")


def open_data(path: str) -> int:
    """Open a data file for reading.

    Raises DamagedEntryError when it is not there, or no regular file, and OSError when it cannot be read just now.
    """
    try:
        fd = with_room(lambda: open_file(path))
    except OSError as e:
        if is_missing(e):
            raise DamagedEntryError(f"The data file {path} is not there: {e}") from e
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise no_regular_file(path)
    return fd


def data_size(path: str) -> int:
    """Size of a data file, bytes. Raises as `open_data` does."""
    try:
        status = os.stat(path)
    except OSError as e:
        if is_missing(e):
            raise DamagedEntryError(f"The data file {path} is not there: {e}") from e
        raise
    if not stat.S_ISREG(status.st_mode):
        raise no_regular_file(path)
    return status.st_size


_maps: "collections.OrderedDict[str, tuple[mmap.mmap, Handle]]" = collections.OrderedDict()
_maps_lock = threading.Lock()


def mapped(path: str, needed: int) -> tuple[mmap.mmap, Handle, int]:
    """A read-only memory map of a file, kept open for the next value in it; the open file, and its mtime in ns.

    Raises DamagedEntryError when the file is gone or has fewer bytes than are needed.
    """
    found = _maps.get(path)
    if found is not None:  # asking the open file costs a third of asking by name
        status = os.fstat(found[1].fd)
        if status.st_nlink and needed <= len(found[0]) <= status.st_size:
            return *found, status.st_mtime_ns
    handle = Handle(open_data(path))
    status = os.fstat(handle.fd)
    if status.st_size < needed:
        raise cut_short(path, status.st_size, needed)
    content = with_room(lambda: mmap.mmap(handle.fd, 0, access=mmap.ACCESS_READ))
    note_map(content)
    with _maps_lock:
        _maps[path] = (content, handle)
        _maps.move_to_end(path)
        while len(_maps) > _most_maps():  # closed when the last array over it is gone
            _maps.popitem(last=False)
    return content, handle, status.st_mtime_ns


class _Private(tp.NamedTuple):
    """A copy-on-write map of a file, and where the values that were given out of it start."""

    source: mmap.mmap
    content: mmap.mmap
    given: set[int]


_private: "collections.OrderedDict[str, _Private]" = collections.OrderedDict()


def mapped_privately(path: str, offset: int, size: int) -> tuple[mmap.mmap | bytearray, int, int]:
    """A writable map of a file, whose bytes belong to one value: what is written reaches neither the file nor others.

    All values of a file share a map until one is asked for again, since each map takes an open file. What was written
    to the first is not to show in the second, so that then a new map is made for all to come.

    Returns the map, where the value starts in it, and the file's mtime in ns. Raises as `mapped` does.
    """
    source, handle, mtime = mapped(path, offset + size)
    with _maps_lock:
        found = _private.get(path)
        if found is None or found.source is not source or offset in found.given:
            if (found is not None and len(found.given) < _FEW and size <= _SMALL) or _are_many():
                return _copy(source, offset, offset + size), 0, mtime  # asked for again and again
            try:
                found = _Private(source, _copy_on_write(handle.fd, len(source)), set())
            except OSError:  # too many open files or maps, or a file larger than the memory
                return _copied(handle.fd, source, offset, size), offset % mmap.ALLOCATIONGRANULARITY, mtime
            note_map(found.content)
            _private[path] = found
            while len(_private) > _most_maps():
                _private.popitem(last=False)
        found.given.add(offset)
    return found.content, offset, mtime


# sets no memory aside for pages that are never written; Python 3.13 has a name for it
_NO_RESERVE = getattr(
    mmap,
    "MAP_NORESERVE",
    0x4000 if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64") else 0,
)


def _copy_on_write(fd: int, length: int, offset: int = 0) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(fd, length, access=mmap.ACCESS_COPY, offset=offset)
    flags, prot = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(fd, length, flags=flags, prot=prot, offset=offset)


def _copied(fd: int, source: mmap.mmap, offset: int, size: int) -> mmap.mmap | bytearray:
    """A map of the pages of one value alone, or a copy of them where there cannot be another map."""
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    try:
        return _copy_on_write(fd, offset + size - start, start)
    except OSError:
        return _copy(source, start, offset + size)


def _copy(source: mmap.mmap, start: int, end: int) -> bytearray:
    with memoryview(source) as view, view[start:end] as part:
        return bytearray(part)


_living: set["weakref.ref[mmap.mmap]"] = set()  # each holds a file open


def note_map(content: mmap.mmap) -> None:
    """Count a map among those that hold a file open, as long as an array over it lives."""
    _living.add(weakref.ref(content, _living.discard))


def may_map(path: str) -> bool:
    """Whether a file may be mapped: not where the maps that live take half of all files that may be open."""
    return path in _maps or not _are_many()


def _are_many() -> bool:
    return len(_living) >= limit_of_files() // 2


def _most_maps() -> int:
    return min(MAX_MAPS, limit_of_files() // 16)


def _unmap_all() -> None:
    with _maps_lock:
        _maps.clear()
        _private.clear()


drop_when_full.append(_unmap_all)


def unmap(path: str) -> None:
    """Forget the map of a file, before it is deleted."""
    with _maps_lock:
        _maps.pop(path, None)
        _private.pop(path, None)


@_files.after_fork
def _after_fork() -> None:
    global _maps_lock  # noqa: PLW0603  # a lock may be held by a thread that the child has not
    _maps_lock = threading.Lock()
