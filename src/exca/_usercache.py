"""The user's own folder for what is derived: ``$EXCA_CACHE_DIR``, or the folder for caches of the platform.

It is made for this user alone; where it belongs to another, or others may write to it, nothing is read from it nor
written. It may be removed at any moment.
"""

import os
import stat
import sys

from . import _files


def folder(name: str) -> str | None:
    """The part of it for one use, if this user has one that is safe."""
    base = _base()
    path = f"{base}/{name}"
    try:
        return path if base is not None and _is_private(os.lstat(path)) else None
    except OSError:
        return None


def made(name: str) -> str | None:
    """The part of it for one use, which is made if there is none."""
    base = _base()
    if base is None:
        return None
    there = folder(name)
    if there is not None:
        return there
    try:
        os.makedirs(os.path.dirname(base), _files.PRIVATE_FOLDER, exist_ok=True)
        for path in (base, f"{base}/{name}"):
            try:
                os.mkdir(path, _files.PRIVATE_FOLDER)
            except FileExistsError:
                continue
    except OSError:
        return None
    return folder(name)


def _base() -> str | None:
    named = os.environ.get("EXCA_CACHE_DIR") or _of_platform()
    return named if named and os.path.isabs(named) else None


def _of_platform() -> str | None:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return f"{base}/exca/cache" if base else None
    base = os.environ.get("XDG_CACHE_HOME")
    if not base or not os.path.isabs(base):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        base = f"{home}/Library/Caches" if sys.platform == "darwin" else f"{home}/.cache"
    return f"{base}/exca"


def _is_private(status: os.stat_result) -> bool:
    if not stat.S_ISDIR(status.st_mode):
        return False
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)
