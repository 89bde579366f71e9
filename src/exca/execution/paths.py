"""Places of a job's files, laid out as submitit lays them out."""

import contextlib
import dataclasses
import functools
import getpass
import os
from pathlib import Path


@functools.lru_cache(maxsize=1)
def user_name() -> str:
    """Login name of the user, or the user id where it has no name (as in some containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "user"


@dataclasses.dataclass(frozen=True)
class JobPaths:
    """Files of one job.

    Parameters
    ----------
    pattern: str
        folder of the job, with ``%j`` for the job's id and ``%A`` for the id of its array
    job_id: str
        id of the job, e.g. ``12`` or ``12_3``
    rank: int
        which of the job's processes
    """

    pattern: str
    job_id: str
    rank: int = 0

    @property
    def folder(self) -> Path:
        """Folder of the job."""
        array, _, index = self.job_id.partition("_")
        text = self.pattern.replace("%j", self.job_id).replace("%A", array).replace("%t", str(self.rank))
        return Path(text.replace("%a", index))

    @property
    def stdout(self) -> Path:
        """What the process printed."""
        return self.folder / f"{self.job_id}_{self.rank}_log.out"

    @property
    def stderr(self) -> Path:
        """What the process printed to stderr."""
        return self.folder / f"{self.job_id}_{self.rank}_log.err"

    @property
    def submitted_pickle(self) -> Path:
        """What was submitted."""
        return self.folder / f"{self.job_id}_submitted.pkl"

    @property
    def result_pickle(self) -> Path:
        """What the process returned, where it is not kept in a cache."""
        return self.folder / f"{self.job_id}_{self.rank}_result.pkl"

    @property
    def exit_file(self) -> Path:
        """Exit code of a job of a local array, negative for a signal."""
        return self.folder / "exit"

    @property
    def submission_file(self) -> Path:
        """The batch script, for Slurm."""
        return self.folder / f"{self.job_id.partition('_')[0]}_submission.sh"


def write_atomically(path: Path | str, data: bytes, *, durable: bool = False) -> None:
    """Write a file so that readers see all of it or nothing.

    Parameters
    ----------
    path: Path or str
        the file; its folder must exist
    data: bytes
        its content
    durable: bool
        also survive a power failure right after the call (fsync)
    """
    folder, name = os.path.split(path)
    tmp = f"{folder}/.{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        handle = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(tmp, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp)
        raise


def tail(path: Path, lines: int = 20) -> str:
    """Last lines of a text file, or an empty text where there is no such file.

    Parameters
    ----------
    path: Path
        the file
    lines: int
        how many lines at most
    """
    try:
        with open(path, "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - 200 * lines))
            return "\n".join(f.read().decode("utf8", "replace").splitlines()[-lines:])
    except OSError:
        return ""
