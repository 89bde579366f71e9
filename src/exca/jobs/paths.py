"""Places of a job's files, laid out as submitit lays them out."""

import contextlib
import itertools
import os
import re
import typing as tp
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import _files
from ..errors import SubmissionError, UntrustedFileError

SUBMITTED = "submitted.pkl"  # in the folder of each job of an array, whose id is not known when it is written
SCRIPT = "submission.sh"  # above those folders
DIGESTS = "digests"  # what each task of an array runs, one line each
_PART = r"(?as)(.+)/task-(\d+)-of-(\d+)"


class JobPaths(tp.NamedTuple):
    """Files of one job."""

    pattern: str  # folder of the job, with ``%j`` for the job's id and ``%A`` for the id of its array
    job_id: str  # id of the job, e.g. ``12`` or ``12_3``
    rank: int = 0  # which of the job's processes

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


class Part(tp.NamedTuple):
    """Which part of a job it is."""

    logs: str  # folder of the logs of the job, with ``%j`` for its id
    number: int
    of: int  # how many parts the job has


def logs_of_part(logs: str, number: int, count: int) -> str:
    """The folder of the logs of a part, as a pattern."""
    return f"{logs}/task-{number}-of-{count}"


def part_of(logs: str) -> Part | None:
    """Which part of a job has its logs there; None where it is a job by itself."""
    found = re.fullmatch(_PART, logs)
    return None if found is None else Part(found[1], int(found[2]), int(found[3]))


def fixed_folder(pattern: str) -> Path:
    """The innermost folder of a pattern that is the same for all jobs."""
    return Path(*itertools.takewhile(lambda part: "%" not in part, Path(pattern).parts))


def make_log_folder(pattern: str, folder: Path) -> None:
    """Make a folder for the files of a job, in which no other user can exchange any.

    Raises UntrustedFileError if it, or the folder of all jobs of this user, belongs to another user.
    """
    fixed = fixed_folder(pattern)
    if fixed.name == _files.user_name():
        _files.make_folders(str(fixed.parent))
        _files.make_folders(str(fixed), _files.OWN_FOLDER)
        _require_ours(str(fixed))
    else:
        _files.make_folders(str(fixed))
    _files.make_folders(str(folder), _files.OWN_FOLDER)
    _require_ours(str(folder))


def _require_ours(folder: str) -> None:
    fd = _files.open_folder(folder)
    try:
        owner = os.fstat(fd).st_uid
    finally:
        os.close(fd)
    if hasattr(os, "geteuid") and owner not in (0, os.geteuid()):
        raise UntrustedFileError(
            f"The log folder {folder} belongs to user {owner}, who could exchange what jobs run and write: set "
            "'logs' of the infra to a folder of your own"
        )


@contextlib.contextmanager
def written(pattern: str, contents: Mapping[str, bytes]) -> Iterator[None]:
    """Write what jobs run, by their ids, beside their logs; where the submission fails, it is removed again.

    Raises SubmissionError if something cannot be written.
    """
    made: list[JobPaths] = []
    folder = fixed_folder(pattern)
    try:
        for job_id, content in contents.items():
            place = JobPaths(pattern, job_id)
            folder = place.folder
            make_log_folder(pattern, folder)
            made.append(place)
            _files.write_atomically(place.submitted_pickle, content, mode=_files.PRIVATE)
        yield
    except Exception as e:
        remove_written(made)
        if isinstance(e, OSError):
            raise SubmissionError(f"cannot write the job to {folder}: {e}. Nothing was submitted") from e
        raise


def remove_written(places: tp.Iterable[JobPaths]) -> None:
    """Remove what jobs would have run: a full disk is not to be fuller than before."""
    for place in places:
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                _files.remove(str(place.submitted_pickle))
            place.folder.rmdir()  # where nothing else is in it


def write_digests(folder: Path, contents: tp.Sequence[bytes]) -> str:
    """Write the digests of what the tasks of an array run; returns the one of them all, for the command line."""
    text = "".join(f"{_files.digest(content)}\n" for content in contents).encode()
    _files.write_atomically(folder / DIGESTS, text, mode=_files.OWN)
    return _files.digest(text)


def digest_of(folder: str | Path, task: int, expected: str) -> str:
    """The digest of what a task of an array runs; raises UntrustedFileError if the list is not the expected one."""
    path = f"{folder}/{DIGESTS}"
    data = _files.read_file(path)
    if _files.digest(data) != expected:
        raise UntrustedFileError(f"{path} is not what was submitted: it was exchanged, so nothing is run")
    return data.decode().splitlines()[task]


def link_logs(own: str | Path, job_paths: JobPaths) -> None:
    """Let the folder that is named after a job lead to the one that was made for it before it had an id.

    Called by the submitter and by the job itself, whichever is first: the submitter may end in between.
    """
    folder = job_paths.folder
    _files.make_folders(str(folder.parent))
    _link(folder, os.path.relpath(own, folder.parent))
    # what was written before the id was known, under the names that go with it
    _link(job_paths.submitted_pickle, SUBMITTED)
    _link(job_paths.submission_file, os.path.join("..", SCRIPT))


def _link(link: Path, target: str) -> None:
    try:
        os.symlink(target, link)
    except FileExistsError:
        if link.is_symlink() and os.readlink(link) == target:
            return
        # Slurm counts anew after a reinstallation: an old job had the same id
        os.rename(link, f"{link}.before-{os.urandom(3).hex()}")
        os.symlink(target, link)


def open_log(path: Path) -> tp.BinaryIO:
    """Open a text log for appending; nothing is written through what another user put in its place."""
    return open(_files.open_to_append(str(path)), "ab")


def tail(path: Path, lines: int = 20) -> str:
    """Last lines of a text file, or an empty text where there is no such file."""
    try:
        with _files.open_regular(str(path)) as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - 200 * lines))
            return "\n".join(f.read().decode("utf8", "replace").splitlines()[-lines:])
    except OSError:
        return ""
