"""What becomes of a damaged entry: it is kept under a name that says so, reported once, and counts as missing."""

import contextlib
import logging
import os
import time

from .._files import on_network, write_all
from .dumpcontext import DumpContext
from .folderindex import FolderIndex

logger = logging.getLogger("exca")

SUFFIX = ".damaged"
_NETWORK_GRACE = 60.0  # s: as long, data of another host may still be on its way


def set_aside(index: FolderIndex, ctx: DumpContext, key: str, place: int, error: Exception) -> None:
    """Take an entry out of the index because its data is damaged.

    Its line goes to ``<index file>.damaged``, files that only it used get the ending ``.damaged``. In a folder that
    cannot be written to (and on a network file system within a minute of the last write) it is only ignored.
    """
    file = index.files[place >> 80]
    logger.warning(
        "The entry %r of %s is damaged and counts as missing from now on: %s", key[:100], index.folder, error
    )
    with index.lock:
        if place in index.bad:
            return
        info = index.read_entry(place, key)
        if info is None:  # deleted or replaced meanwhile
            return
        line = index.read_line(place)
        index.bad.add(place)
        index.hot = None  # an older value of the key may stand
        with contextlib.suppress(OSError):
            if on_network(index.folder) and time.time() - os.stat(file.path).st_mtime < _NETWORK_GRACE:
                return
            keep_line(file.path, line)
            index.bad.discard(place)
            index.delete(key, [place])
            index.bad.add(place)
            for relative in info.get("#files", ()):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(ctx.path(relative), ctx.path(relative) + SUFFIX)


def keep_line(path: str, line: bytes) -> None:
    """Append a damaged line to ``<path>.damaged``. Raises OSError."""
    fd = os.open(path + SUFFIX, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        write_all(fd, line)
    finally:
        os.close(fd)
