"""A file system that shows a folder as an NFS client does that caches attributes for some seconds.

Mounted by FUSE over a folder, once for each host that a test plays: what one mount changes, the other sees late, as
with the default options of NFS (close-to-open consistency):

* attributes, and that a name is not there, are answered from memory for SECONDS after they were asked for;
* opening a file or a folder asks the server: attributes of that file, and names in that folder, are fresh then;
* what a client has changed itself it sees at once;
* what is written reaches the server when the file is flushed, synced or closed.

Runs as ``python late_fs.py FOLDER MOUNTPOINT SECONDS``.
"""

import contextlib
import errno
import os
import sys
import threading
import time
import typing as tp

import mfusepy

_STAT = ("st_atime", "st_ctime", "st_gid", "st_ino", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid")


class LateFolder(mfusepy.Operations):  # type: ignore[misc] # comes without types
    """One client's view of a folder."""

    use_ns = True

    def __init__(self, folder: str, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self._lock = threading.RLock()
        self._known: dict[str, tuple[float, dict[str, int] | None]] = {}
        self._unsent: dict[str, list[tuple[int, int, bytes]]] = {}

    def _real(self, path: str) -> str:
        return self.folder + path

    def _changed(self, *paths: str) -> None:
        with self._lock:
            for path in paths:
                self._known.pop(path, None)
                self._known.pop(os.path.dirname(path), None)

    @contextlib.contextmanager
    def _changing(self, *paths: str) -> tp.Iterator[None]:
        """Ask the server for something; whatever it says about these names is fresh, also when it refuses."""
        try:
            yield
        finally:
            self._changed(*paths)

    def _send(self, path: str) -> None:
        with self._lock:
            unsent = self._unsent.pop(path, ())
            for fd, offset, data in unsent:
                os.pwrite(fd, data, offset)
            if unsent:
                self._changed(path)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        self._send(path)
        with self._lock:
            until, known = self._known.get(path, (0.0, None))
            if time.monotonic() >= until:
                try:
                    status = os.lstat(self._real(path))
                    known = {name: getattr(status, name) for name in _STAT}
                    known |= {f"st_{k}time": getattr(status, f"st_{k}time_ns") for k in "acm"}
                except OSError:
                    known = None
                self._known[path] = (time.monotonic() + self.seconds, known)
        if known is None:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return known

    def opendir(self, path: str) -> int:
        with self._lock:
            self._known.pop(path, None)
            gone = [
                p for p, (_, known) in self._known.items() if known is None and os.path.dirname(p) == path
            ]
            for p in gone:
                del self._known[p]
        return 0

    def readdir(self, path: str, fh: int) -> tp.Any:
        with os.scandir(self._real(path)) as entries:
            found = [(e.name, {"st_mode": 0, "st_ino": e.inode()}, 0) for e in entries]
        here = {"st_mode": 0, "st_ino": 1}  # an entry of inode 0 counts as deleted
        return [(".", here, 0), ("..", here, 0), *found]

    def open(self, path: str, flags: int) -> int:
        self._send(path)
        fd = os.open(self._real(path), flags & ~os.O_APPEND & ~os.O_EXCL)
        with self._lock:
            self._known.pop(path, None)
        return fd

    def create(self, path: str, mode: int, fi: tp.Any = None) -> int:
        with self._changing(path):
            return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._send(path)
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        with self._lock:
            self._unsent.setdefault(path, []).append((fh, offset, bytes(data)))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._send(path)
        with self._changing(path):
            os.truncate(self._real(path), length)
        return 0

    def flush(self, path: str, fh: int) -> int:
        self._send(path)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._send(path)
        os.fsync(fh)
        return 0

    def release(self, path: str, fh: int) -> int:
        self._send(path)
        os.close(fh)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._send(old)
        self._send(new)
        with self._changing(old, new):
            os.rename(self._real(old), self._real(new))
        return 0

    def link(self, target: str, source: str) -> int:
        self._send(source)
        with self._changing(source, target):
            os.link(self._real(source), self._real(target))
        return 0

    def symlink(self, target: str, source: str) -> int:
        with self._changing(target):
            os.symlink(source, self._real(target))
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._real(path))

    def unlink(self, path: str) -> int:
        self._send(path)
        with self._changing(path):
            os.unlink(self._real(path))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        with self._changing(path):
            os.mkdir(self._real(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        with self._changing(path):
            os.rmdir(self._real(path))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        with self._changing(path):
            os.chmod(self._real(path), mode)
        return 0

    def utimens(self, path: str, times: tp.Any = None) -> int:
        with self._changing(path):
            os.utime(self._real(path), ns=times)
        return 0


if __name__ == "__main__":
    # the kernel caches nothing: what is late is decided above
    mfusepy.FUSE(
        LateFolder(os.path.abspath(sys.argv[1]), float(sys.argv[3])),
        sys.argv[2],
        foreground=True,
        use_ino=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )
