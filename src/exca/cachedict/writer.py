"""Writing entries: gathered for a bounded while, data before the line that names it, one file a process and folder.

The window of entries that others cannot see yet, and that a killed process loses, is bounded by number, bytes and
seconds (see `DumpOptions`); an entry that took long to compute does not wait. The window is empty when the last
``write()`` context of a folder is left.
"""

import contextlib
import errno
import os
import threading
import time
import typing as tp
import weakref
from time import monotonic

import orjson

from .. import _files
from .._files import on_network, pread, sync_above, sync_folder, sync_path, write_all, writer_name
from ..errors import CacheWriteError, OddFileError
from .datafiles import DATA_DIR, SharedFile
from .index import FolderIndex
from .textindex import INFO_SUFFIX, Info, LineRef, entry_of, lines_of

if tp.TYPE_CHECKING:
    from .dumpcontext import DumpOptions


_LOOK_EVERY = 0.05  # s between looks of the thread that flushes what waits
_LINGER = 2.0  # s that it stays when there is nothing to do
_AROUND = 80  # bytes of the line of a number beside its key, about


class DataFiles:
    """What one writer has under ``data/`` of a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._shared: dict[str, tuple[SharedFile, str]] = {}
        self._full: list[SharedFile] = []
        self._name = ""
        self._made = False
        self._count = 0
        self.fresh: list[str] = []  # files of their own made since the last flush
        self.recorded: set[str] = set()  # those of them whose size and checksum an entry records

    def make_folder(self) -> None:
        """Create ``data/``, with the rights that the umask and the folder above give it."""
        if not self._made:
            _files.make_folders(os.path.join(self.folder, DATA_DIR))
            self._made = True

    def shared(self, suffix: str) -> tuple[SharedFile, str]:
        """The file with this suffix that values of this writer are appended to, and its path within the folder."""
        found = self._shared.get(suffix)
        if found is not None and found[0].full:
            self._full.append(self._shared.pop(suffix)[0])  # entries that wait may be in it
            self._name, found = "", None
        if found is None:
            try:
                found = self._new_shared(suffix)
            except (FileNotFoundError, OddFileError, PermissionError):
                self._made, self._name = False, ""  # cleared, or something else has this name
                found = self._new_shared(suffix)
            self._shared[suffix] = found
        return found

    def _new_shared(self, suffix: str) -> tuple[SharedFile, str]:
        self.make_folder()
        self._name = self._name or writer_name.fresh()
        relative = f"{DATA_DIR}/{self._name}{suffix}"
        return SharedFile(os.path.join(self.folder, relative)), relative

    def own_path(self, stem: str, suffix: str) -> str:
        """A path within the folder that no other value has or had."""
        self.make_folder()
        self._count += 1
        self._name = self._name or writer_name.fresh()
        token = os.urandom(3).hex()
        relative = f"{DATA_DIR}/{stem}-{self._name.rsplit('-', 1)[-1]}{self._count:x}-{token}{suffix}"
        self.fresh.append(relative)
        return relative

    def _open_files(self) -> list[SharedFile]:
        return [*self._full, *(file for file, _ in self._shared.values())]

    def flush(self, sync: bool) -> None:
        """Hand everything to the operating system, and with ``sync`` to the disk. Raises OSError."""
        for file in self._open_files():
            file.sync() if sync else file.flush()
        if sync and (self.fresh or self._shared):
            for relative in self.fresh:
                sync_path(os.path.join(self.folder, relative))
            sync_path(os.path.join(self.folder, DATA_DIR))
            sync_path(self.folder)
        self.fresh.clear()
        self.recorded.clear()

    def forget(self) -> None:
        """Drop what was not flushed."""
        for file in self._open_files():
            file.forget()
        self.fresh.clear()
        self.recorded.clear()

    def close(self) -> None:
        """Flush and close all files."""
        files = self._open_files()
        self._shared, self._full, self._made = {}, [], False
        if any(file.full for file in files):
            self._name = ""
        for file in files:
            file.close()


class FolderWriter:
    """What this process appends to one folder. All methods are called with ``index.lock`` held."""

    def __init__(self, index: FolderIndex) -> None:
        self.index = index
        self.files: DataFiles = DataFiles(index.folder)
        self.pending: dict[str, bytes | float] = {}  # lines without their ends, and numbers
        self.bare: set[str] = set()  # keys of those that are written without a seal
        self._replaced: dict[str, tuple[int, list[LineRef]]] = {}  # generation, and the older lines
        self.users: int = 0  # write() contexts open
        self._delete_data: tp.Callable[[Info], None]  # of the context entered last
        self._bytes = 0
        self._name = ""
        self._code = ""  # the digest of the code that computes what is put
        self._fd = -1
        self._size = 0
        self._last_put = 0.0
        self._sync = False
        self._group_writable = True
        self._pid = os.getpid()
        _writers.add(self)

    # -- contexts

    def open(
        self, options: "DumpOptions", delete_data: tp.Callable[[Info], None], *, frozen: bool = False
    ) -> None:
        """Enter a write() context, in which data that is replaced is deleted by ``delete_data``."""
        self._sync = on_network(self.index.folder) if options.fsync is None else options.fsync
        self._group_writable = options.group_writable
        self._delete_data = delete_data
        if not self.users and not frozen and self.index.changed():
            self.index.refresh()  # a key that others have set is replaced, not set twice
        self.users += 1
        self._last_put = monotonic()

    def close(self) -> None:
        """Leave a write() context; the last one leaves everything visible to others and closes the files."""
        try:
            self.flush()
        except OSError:
            if self.users == 1:
                self._drop()
            raise
        finally:
            self.users -= 1
            if self.users == 0:
                self.files.close()
                self._close_index()
        if self.users == 0:
            self.index.save()

    def _drop(self) -> None:
        if self.pending:
            self.index.in_memory = None  # it lacks the older values of what waited
        self.pending.clear()
        self._replaced.clear()
        self._bytes = 0
        self.files.forget()

    def _close_index(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def forget_after_fork(self) -> None:
        """In a forked child: what waits belongs to the parent, and so do its files."""
        self._drop()
        self._close_index()
        self._name, self._size = "", 0
        self.files = DataFiles(self.index.folder)
        self._pid = os.getpid()

    # -- entries

    def computed_by(self, code: str) -> None:
        """Note the digest of the code that computes what is put from now on: a file holds the entries of one."""
        if code != self._code:
            self.flush()
            self._close_index()
            self._name, self._code = "", code

    def put(self, key: str, entry: bytes | float, options: "DumpOptions") -> None:
        """Add the entry of a key: its line without its end, whose data is written or waits in ``files``.

        Or a finite number whose line is made along with many others, where the key is plain ASCII.
        """
        pending, index = self.pending, self.index
        if key in pending:  # the line stays until the new one is there: threads look for it
            self._delete_pending(pending[key])
        pending[key] = entry
        if index.in_memory is not None:
            index.in_memory.pop(key, None)
        self._bytes += len(entry) if type(entry) is bytes else len(key) + _AROUND
        now = monotonic()
        if (
            now - self._last_put > options.flush_seconds / 5
            or len(pending) >= options.flush_entries
            or self._bytes >= options.flush_bytes
        ):
            self._last_put = now
            self.flush()
            return
        self._last_put = now
        if len(pending) == 1:
            _flusher.watch(self, now + options.flush_seconds - _LOOK_EVERY)

    def _note_replaced(self, key: str) -> None:
        """Note which lines of a key that waits are blanked once the new one is written."""
        found = self.index.lines_of(key)
        if found:
            gen = max(info.get("#gen", 0) for info, _ in found) + 1
            self._replaced[key] = gen, [ref for _, ref in found]

    def remove(self, key: str, delete_data: tp.Callable[[Info], None]) -> bool:
        """Drop an entry that no other process has seen; returns whether there was one, and it replaced no older one."""
        self._delete_data = delete_data
        old = self.pending.pop(key, None)
        replaced = self._replaced.pop(key, None)
        if old is None:
            return False
        self._delete_pending(old)
        return replaced is None

    def _delete_pending(self, old: bytes | float) -> None:
        if type(old) is not bytes:
            return
        self._bytes -= len(old)
        self.files.flush(sync=False)  # the names of its parts may wait there
        self._delete_data(entry_of(orjson.loads(old + b"}")))

    def flush(self) -> None:
        """Make all entries visible to others. Raises CacheWriteError; what waited still waits then."""
        pending = self.pending
        if not pending:
            return
        for key in self.index.perhaps_held(pending):
            if key not in self._replaced:
                self._note_replaced(key)
        gens = {key: gen for key, (gen, _) in self._replaced.items()}
        lines = lines_of(pending, gens, self.bare)
        try:
            self.files.flush(self._sync)
            self._append(b"".join(lines))
        except OSError as e:
            raise write_error(e, self.index.folder, f"{len(pending)} entries were not stored") from e
        replaced, self._replaced = self._replaced, {}
        status = os.fstat(self._fd)
        try:
            self.index.added(self._name, status, pending, lines, gens)
        finally:  # only now: a thread that does not find a key here looks for it in the index
            self.pending, self._bytes = {}, 0
            self.bare.clear()
        if replaced:
            touch(self.index.folder)  # a reader that finds an older line blank is to look for the new one
        for key, (_, refs) in replaced.items():
            for info in self.index.delete(key, refs):
                if info is not None:
                    self._delete_data(info)
        touch(self.index.folder)

    def _append(self, data: bytes) -> None:
        if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:  # another process has cleared the folder
            self._close_index()
        if self._fd < 0:
            self._open()
        try:
            write_all(self._fd, data)
            if self._sync:
                os.fsync(self._fd)
        except OSError as e:
            try:
                os.ftruncate(self._fd, self._size)  # no torn line
            except OSError:
                self._name = ""  # this file is never appended to again
            if not self._name or (e.errno == errno.EFBIG and self._size):  # it is as large as a file may be
                self._close_index()
                self._name = ""
            raise
        self._size += len(data)

    def _open(self) -> None:
        folder = self.index.folder
        if self._name:  # the file of an earlier context, if it is as it was left
            try:
                self._fd = _files.reopen_to_append(os.path.join(folder, self._name))
                whole = not self._size or pread(self._fd, 1, self._size - 1) == b"\n"
                if whole and os.fstat(self._fd).st_size == self._size:
                    return
            except (FileNotFoundError, OddFileError, PermissionError):  # or something else is in its ref
                pass
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        _files.make_folders(folder)
        self._name = f"{writer_name.fresh()}{self._code and f'.{self._code}'}{INFO_SUFFIX}"
        self._size = 0
        mode = _files.SHARED if self._group_writable else _files.OWN
        self._fd = _files.create_file(os.path.join(folder, self._name), mode, _files.NEW | os.O_APPEND)
        if self._sync:
            sync_folder(folder)
            sync_above(folder)


def writer_of(index: FolderIndex) -> FolderWriter:
    """The writer of this process for a folder."""
    with index.lock:
        if index.writer is None:
            index.writer = FolderWriter(index)
        return index.writer


def touch(folder: str) -> None:
    """Tell other objects and processes that something in a folder has changed."""
    now = time.time_ns()
    try:
        os.utime(folder, ns=(now, now))
    except OSError:
        with contextlib.suppress(OSError):
            os.utime(folder)  # of another owner: its mtime has the coarser clock then


def write_error(error: OSError, folder: str, lost: str) -> CacheWriteError:
    """The error of a failed write, with what to do about it."""
    what = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the quota is used up: free some space",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "this user may not write there: check the rights of the folder",
        errno.EPERM: "this user may not write there: check the rights of the folder",
    }.get(error.errno or 0, str(error))
    code = error.errno or errno.EIO
    return CacheWriteError(
        code, f"Cannot write to the cache: {what}. {lost}; what was there is unharmed", folder
    )


class _Flusher:
    """A thread that flushes what has waited for long while its writer computes the next entry.

    It looks around on its own: waking it for every entry would make two threads take turns at the interpreter.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[FolderWriter, float] = {}
        self._running = False
        self._idle = threading.Event()

    def watch(self, writer: FolderWriter, deadline: float) -> None:
        """Flush ``writer`` at ``deadline`` (s, monotonic), or at the next look."""
        with self._lock:
            self._waiting[writer] = deadline
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="exca-flush", daemon=True).start()

    def _run(self) -> None:
        quiet = 0
        while True:
            self._idle.wait(_LOOK_EVERY)
            now = monotonic()
            with self._lock:
                due = [writer for writer, deadline in self._waiting.items() if deadline <= now]
                for writer in due:
                    del self._waiting[writer]
                quiet = 0 if self._waiting or due else quiet + 1
                if quiet * _LOOK_EVERY > _LINGER:
                    self._running = False
                    return
            for writer in due:
                # what fails, the next flush raises, where the caller can catch it
                with writer.index.lock, contextlib.suppress(OSError):
                    writer.flush()


_writers: "weakref.WeakSet[FolderWriter]" = weakref.WeakSet()
_flusher = _Flusher()


@_files.after_fork
def _after_fork() -> None:
    global _flusher  # noqa: PLW0603  # threads do not live on in a child
    _flusher = _Flusher()
    for writer in list(_writers):
        writer.forget_after_fork()
