"""What becomes of a damaged entry: it is kept under a name that says so, reported once, and counts as missing."""

import contextlib
import logging
import os
import time

from .. import _files
from .._files import on_network, write_all
from .datafiles import DATA_DIR
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
        trusted = file.may_remove(os.path.join(index.folder, DATA_DIR))
        if place in index.bad:
            return
        info = index.read_entry(place, key)
        if info is None:  # deleted or replaced meanwhile
            return
        line = index.read_line(place)
        index.bad.add(place)
        index.hot = None  # an older value of the key may stand
        with contextlib.suppress(OSError):
            if not trusted:  # another user wrote the line: it is passed over, and nothing is done on its word
                return
            if on_network(index.folder) and time.time() - os.stat(file.path).st_mtime < _NETWORK_GRACE:
                return
            keep_line(file.path, line)
            index.bad.discard(place)
            index.delete(key, [place])
            index.bad.add(place)
            for relative in ctx.own_files(info):
                with contextlib.suppress(FileNotFoundError):
                    path = ctx.path(relative)
                    _files.move(path, os.path.basename(path) + SUFFIX)


def keep_line(path: str, line: bytes) -> None:
    """Append a damaged line to ``<path>.damaged``. Raises OSError."""
    fd = _files.open_to_append(path + SUFFIX)
    try:
        write_all(fd, line)
    finally:
        os.close(fd)
