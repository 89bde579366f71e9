"""The user's own folder of digests that were found by earlier processes, where their files have not changed since.

An entry is a short text: the digest, and the status of each file that was read to find it. It counts while they are as
they were, if they are older than this process: then they are what it imported (`unchanged_since_start`).
"""

import contextlib
import functools
import os
import stat
import sys
import time
import typing as tp
from collections.abc import Iterable

from .. import _files, _usercache

PART: tp.Final = "code"  # of the user's own cache directory
_FORMAT: tp.Final = "exca code 2"
_END: tp.Final = "end"
_MOST: tp.Final = 4096  # files
_SETTLED: tp.Final = 2_000_000_000  # ns: what changed later may change again without getting another time

_Files = tuple[tuple[str, str], ...]  # paths, and what their status was


def look_up(key: str) -> tuple[str, str, _Files, list[str]] | None:
    """What an earlier process found, if nothing has changed since: digest, method, files and modules that it read."""
    text = content_of(key)
    if text is None:
        return None
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    if len(lines) < 4 or lines[0] != _FORMAT or lines[-1] != _END:
        return None
    files: list[tuple[str, str]] = []
    modules: list[str] = []
    try:
        for line in lines[3:-1]:
            kind, _, rest = line.partition(" ")
            if kind == "module":
                name, _, path = rest.partition(" ")
                loaded = sys.modules.get(name)
                if loaded is not None and not _is_at(loaded, path):
                    return None
                modules.append(name)
                continue
            noted, _, path = rest.partition(" ")
            status = os.stat(path)
            if noted != noted_status(status) or (kind == "file" and not unchanged_since_start(status)):
                return None
            files.append((path, noted))
    except (OSError, ValueError):
        return None
    return lines[1], lines[2], tuple(files), modules


def _is_at(module: tp.Any, path: str) -> bool:
    file = getattr(module, "__file__", None)
    return file == path or (isinstance(file, str) and os.path.abspath(file) == path)


def are_unchanged(files: Iterable[tuple[str, str]]) -> bool:
    """Whether files are as they were when their status was noted."""
    try:
        return all(noted_status(os.stat(path)) == noted for path, noted in files)
    except (OSError, ValueError):
        return False


def noted_status(status: os.stat_result) -> str:
    """What tells a file from one that was changed, as text."""
    return f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_size}:{status.st_dev}:{status.st_ino}"


def _read(path: str) -> bytes | None:
    """Read a file of this user's that no other may write to, in a folder of which that is known; follow no link."""
    try:
        fd = os.open(path, _files.READ)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        foreign = hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o022)
        return None if foreign or not stat.S_ISREG(status.st_mode) else _files.read_all(fd, path)
    except OSError:
        return None
    finally:
        os.close(fd)


def keep(
    key: str,
    found: tuple[str, str],
    content: bytes,
    *,
    files: Iterable[tuple[str, os.stat_result]],
    loaded: Iterable[tuple[str, str]],
    folders: Iterable[str],
) -> None:
    """Keep a digest for later processes, unless a file has changed just now or the folder is not safe."""
    lines = [_FORMAT, *found]
    now = time.time_ns()
    for path, status in files:
        if max(status.st_mtime_ns, status.st_ctime_ns) > now - _SETTLED:
            return
        lines.append(f"file {noted_status(status)} {path}")
    try:
        lines += [f"module {name} {path}" for name, path in loaded]
        lines += [f"folder {noted_status(os.stat(path))} {path}" for path in folders]
        text = "\n".join([*lines, _END])
        if text.count("\n") != len(lines) or (place := _usercache.made(PART)) is None:
            return
        _prune(place)
        _files.write_atomically(f"{place}/{found[0]}", content, mode=_files.PRIVATE)
        data = text.encode("utf-8", "surrogateescape")
        _files.write_atomically(f"{place}/{key}", data, mode=_files.PRIVATE)
    except OSError:
        return


def keep_text(name: str, data: bytes) -> None:
    """Keep something else for later processes, if the folder is safe."""
    with contextlib.suppress(OSError):
        if (place := _usercache.made(PART)) is not None:
            _files.write_atomically(f"{place}/{name}", data, mode=_files.PRIVATE)


def content_of(name: str) -> bytes | None:
    """What is kept under a name: a key, a digest, or one given to `keep_text`."""
    place = _usercache.folder(PART)
    return None if place is None else _read(f"{place}/{name}")


def _prune(place: str) -> None:
    """Remove the older half of the files where there are too many."""
    names = os.listdir(place)
    if len(names) < _MOST:
        return
    aged = []
    for name in names:
        with contextlib.suppress(OSError):
            aged.append((os.lstat(f"{place}/{name}").st_mtime_ns, name))
    for _, name in sorted(aged)[: _MOST // 2]:
        with contextlib.suppress(OSError):
            os.unlink(f"{place}/{name}")


# ------------------------------------------------------------------------------------------ since this process began

_FORKED = 0x40  # PF_FORKNOEXEC: it goes on with what its parent imported
_MARGIN = 1_000_000_000  # ns: the clock of a file system may be late


def unchanged_since_start(status: os.stat_result) -> bool:
    """Whether a file is as it was when this process began. Its ``ctime`` can't be set back, unlike its ``mtime``."""
    return max(status.st_ctime_ns, status.st_mtime_ns) < began() - _MARGIN


@functools.lru_cache(maxsize=1)
def began() -> int:
    """When this process began, in nanoseconds since 1970; for a forked one, when the process that it goes on from did.

    0 where this can't be known.
    """
    pid = os.getpid()
    try:
        for _ in range(64):
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[6]) & _FORKED:
                pid = int(fields[1])
                continue
            now, running = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            return now - running + int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    return _elsewhere()


def _elsewhere() -> int:
    import psutil

    if os.path.exists("/proc/self/stat"):  # Linux, whose /proc hides others: whether it forked is unknown
        return 0
    try:
        return int(psutil.Process().create_time() * 1e9)
    except psutil.Error:
        return 0
