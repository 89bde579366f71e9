"""What the published releases held about folders, their permissions, and pools."""

import concurrent.futures
import contextlib
import dataclasses
import errno
import fnmatch
import os
import stat
import typing as tp
import warnings
from pathlib import Path

from ..jobs.workdir import inside as chdir

__all__ = [
    "Ignore",
    "best_effort_utime",
    "chdir",
    "make_pool_executor",
    "setup_shared_folder",
    "widen_to_umask",
]


@dataclasses.dataclass
class Ignore:
    """Says which names of a folder to leave out of a copy, for ``shutil.copytree``.

    Parameters
    ----------
    includes: sequence of str
        patterns of the names of files to copy; all are where there is none
    excludes: sequence of str
        patterns of names to leave out
    """

    includes: tp.Sequence[str] = ()
    excludes: tp.Sequence[str] = ()

    def __call__(self, path: str | Path, names: list[str]) -> set[str]:
        """Return the names to leave out."""
        ignored = {name for name in names if any(fnmatch.fnmatch(name, p) for p in self.excludes)}
        if self.includes:
            ignored |= {
                name
                for name in names
                if not (Path(path) / name).is_dir()
                and not any(fnmatch.fnmatch(name, p) for p in self.includes)
            }
        return ignored


def best_effort_utime(path: Path, *, keep_mtime: bool = False) -> None:
    """Mark a file as used now; where that is not allowed, do nothing.

    Parameters
    ----------
    path: Path
        the file
    keep_mtime: bool
        leave the time of its last change as it is
    """
    import time

    with contextlib.suppress(OSError):
        now = time.time_ns()
        os.utime(path, ns=(now, os.stat(path).st_mtime_ns if keep_mtime else now))


def make_pool_executor(pool: str, max_workers: int) -> concurrent.futures.Executor:
    """Make a pool: of processes for "processpool", else of threads.

    Parameters
    ----------
    pool: str
        "threadpool" or "processpool"
    max_workers: int
        how many calls run at once
    """
    if pool == "processpool":
        return concurrent.futures.ProcessPoolExecutor(max_workers=max_workers)
    return concurrent.futures.ThreadPoolExecutor(max_workers=max_workers)


def setup_shared_folder(folder: Path | str, group: str | int | None = None) -> None:
    """Let a group write to a folder, to all that is in it, and to what will be.

    Others get no more than the umask gives them. Links are not followed.

    Parameters
    ----------
    folder: Path or str
        the folder, made where it is missing
    group: str or int, optional
        the group; by default that of the folder
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    others = 0o007 & ~_umask()
    number = -1
    if group is not None:
        import grp

        number = group if isinstance(group, int) else grp.getgrnam(group).gr_gid
    failed = _widen_all(folder, 0o660 | (others & 0o004), 0o2770 | (others & 0o005), number)
    if failed:
        warnings.warn(
            f"{failed} of the files under {folder} belong to other users, who have to share them",
            stacklevel=2,
        )
    if _umask() & 0o020:
        warnings.warn(
            f"Files that come later under {folder} may not be writable for the group: run 'umask 002' first",
            stacklevel=2,
        )


def widen_to_umask(folder: Path | str) -> None:
    """Give what is in a folder the permissions that the umask gives to new files. Links are not followed.

    Parameters
    ----------
    folder: Path or str
        the folder
    """
    allowed = ~_umask()
    _widen_all(Path(folder), 0o664 & allowed, 0o775 & allowed, -1)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _widen_all(folder: Path, file_mode: int, folder_mode: int, group: int) -> int:
    """Add permissions to a folder and all in it; returns for how many that was not allowed."""
    failed = 0
    for _, _, names, directory in os.fwalk(folder, follow_symlinks=False):
        failed += not _widen(directory, file_mode, folder_mode, group)
        for name in names:
            try:  # what is opened is what is changed, whatever is put in its place meanwhile
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            except OSError as e:
                failed += e.errno != errno.ELOOP  # a link is left alone
                continue
            try:
                failed += not _widen(handle, file_mode, folder_mode, group)
            finally:
                os.close(handle)
    return failed


def _widen(handle: int, file_mode: int, folder_mode: int, group: int) -> bool:
    """Add permissions to an open file or folder; returns whether that was allowed."""
    try:
        mode = os.fstat(handle).st_mode
        if group >= 0:
            os.fchown(handle, -1, group)
        if stat.S_ISDIR(mode):
            wanted = folder_mode
        elif stat.S_ISREG(mode):
            wanted = file_mode | ((file_mode & 0o444) >> 2 if mode & stat.S_IXUSR else 0)
        else:
            return True
        if stat.S_IMODE(mode) | wanted != stat.S_IMODE(mode):
            os.fchmod(handle, stat.S_IMODE(mode) | wanted)
    except OSError:
        return False
    return True
