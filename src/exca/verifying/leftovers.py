"""Temporary files whose writer is dead: recognised by name, judged by process id, host and age."""

import os
import re
import time

from .._files import on_network, writer_name

OLD = 86_400.0  # seconds of silence after which a writer that cannot be asked counts as dead
GRACE = 10.0  # seconds that any temporary file is left alone: longer than it takes to write one, where pids mislead

_INDEX = re.compile(r"\.exca-index-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}(-\d+)?\.tmp")
_FILE = re.compile(r"\..+[.-](?P<pid>\d+)-[0-9a-f]{8}\.tmp")
_NAMELESS = re.compile(r"\.exca-index-turn|(save-tmp|deltmp)-[0-9a-f]{8}-.+|\.code\.[0-9a-f]{8}")
_WRITER = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}(-\d+)?(-info\.jsonl|\.[^/]*)?")


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is about to be renamed or removed by its maker."""
    return any(pattern.fullmatch(name) for pattern in (_INDEX, _FILE, _NAMELESS))


def find(folder: str) -> list[str]:
    """Names of the leftovers of dead writers directly in a folder."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if _is_leftover(folder, name)]


def _is_leftover(folder: str, name: str) -> bool:
    match = _INDEX.fullmatch(name) or _FILE.fullmatch(name)
    if match is None and _NAMELESS.fullmatch(name) is None:
        return False
    silent = _silence(os.path.join(folder, name))
    if silent is None or silent < GRACE:
        return False
    if match is None:
        return silent > OLD
    host = match.groupdict().get("host") or (None if on_network(folder) else _this_host())
    return silent > OLD or _is_dead(host, int(match["pid"]))


def writer_is_dead(path: str, old: float) -> bool:
    """Whether the writer of an index or data file, which is named after it, can write no more.

    One that cannot be asked counts as dead after ``old`` seconds of silence.
    """
    silent = _silence(path)
    if silent is None or silent > old:
        return silent is not None
    match = _WRITER.fullmatch(os.path.basename(path))
    return match is not None and _is_dead(match["host"], int(match["pid"]))


def _silence(path: str) -> float | None:
    """Seconds since a file was last changed; None when it is gone."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return None


def _this_host() -> str:
    """This host as writers name it."""
    return writer_name.text.rsplit("-", 2)[0]


def _is_dead(host: str | None, pid: int) -> bool:
    """Whether a process is known to be dead: it was on this host, and no process has its id."""
    if host != _this_host():
        return False
    import psutil

    return not psutil.pid_exists(pid)
