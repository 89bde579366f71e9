"""Checking all folders of a cache: entries, data, records, configuration files, claims and derived files.

Nothing is changed here. What is read of a data file is bounded, whatever the lines name: the same bytes are compared
once, and crafted ranges that overlap only so often.
"""

import contextlib
import errno
import os
import stat
import time
import typing as tp
from pathlib import Path

from .. import _files
from ..cachedict.datafiles import DATA_DIR
from ..cachedict.dumpcontext import DumpContext
from ..cachedict.handlers.structured import named_files, parts_of_entry, place_of, text_size
from ..cachedict.sideindex import FILE_NAME, Table, is_of_later_release
from ..cachedict.textindex import DAMAGED_SUFFIX, INFO_SUFFIX, Info, TextFile, index_files, parse_line
from ..claims import protocol
from ..claims.claimfile import SUFFIX as CLAIM_SUFFIX
from ..claims.claimfile import ClaimEntry, ClaimFolder
from ..claims.protocol import alive
from ..engine import record
from ..errors import OddFileError, UnknownVersionError
from ..identity.classnames import FILE as CLASSES
from ..identity.configfolder import CONFIG, FULL, NEW_FIELDS, NO_CONFIGURATION, SIDECAR, UID
from . import leftovers
from .report import Damaged, FolderReport, Report

ORPHANED = ".orphaned"  # ending of data files that were moved aside
_MARKS = (record.NAME, UID, "job.pkl", FILE_NAME)  # of a folder that holds results
_CODE = "code"  # copies of users' code: theirs, and large
_FOLDERS = ("cache", "errors", "logs")  # what is made in the folder of a configuration
_MAX_CONFIG = 1 << 24  # bytes; to parse more of them takes minutes
_OUT_OF_REACH = (OSError, ImportError)  # nothing is known of what raises these
# how often the bytes of a data file are read at most; an entry in a container is looked at twice
_READINGS = 6
_FREE = 64 << 20  # bytes of each data file that are read in any case


def verify(folder: str | os.PathLike[str]) -> Report:
    """Check everything under a folder against all sizes and checksums; nothing is changed.

    It may run while others work there. An owner of a claim on another host is judged by its heartbeat, and
    passes for alive until it was watched for as long as a taker-over would.

    Parameters
    ----------
    folder: path
        a cache folder, or any folder in or above one

    Returns
    -------
    Report
        what was found; printed, it is a table

    Raises
    ------
    NotADirectoryError
        if there is no such folder
    """
    root = _files.name_root(os.path.abspath(folder))
    if not os.path.isdir(root):
        raise NotADirectoryError(f"There is no folder {root} to verify: check the path")
    reports = (report_on(root, path, holds_results=whole) for path, whole in folders_below(root))
    return Report(root, [report for report in reports if report is not None])


def folders_below(root: str) -> tp.Iterator[tuple[str, bool]]:
    """Yield each folder under a root in order, and whether it holds results or claims."""
    for folder, subfolders, files in os.walk(root):
        # a folder in the place of a file is damage
        names = {*files, *(name for name in subfolders if name in _MARKS)}
        whole = any(mark in names for mark in _MARKS) or any(
            name.endswith((INFO_SUFFIX, CLAIM_SUFFIX)) and name[0] != "." for name in names
        )
        hidden = {_CODE, "__pycache__"} | ({DATA_DIR} if whole else set())
        subfolders[:] = sorted(f for f in set(subfolders) - hidden if not leftovers.is_temporary(f))
        yield folder, whole


def report_on(root: str, folder: str, *, holds_results: bool) -> FolderReport | None:
    """What is found in one folder; None where there is nothing to report."""
    report = FolderReport(os.path.relpath(folder, root))
    if holds_results:
        _check_folder(Path(folder), report)
    report.leftovers += leftovers.find(folder)
    return report if holds_results or report.leftovers else None


def _check_folder(folder: Path, report: FolderReport) -> None:
    _check_claims(folder, report)  # first: a process that starts later cannot make it look abandoned
    _check_kinds(folder, report)
    ctx = Checking(folder)
    _check_index(folder, report, ctx)
    kept = _check_record(folder, report, ctx)
    report.orphans = [path for path in report.orphans if path not in kept]
    _check_legacy(folder, report)
    _check_configs(folder, report)
    _check_derived(folder, report)


# ---------------------------------------------------------------- entries


class Checking(DumpContext):
    """A context that reads data files to compare them, and no byte again and again."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self._compared: dict[tuple[int, int, int, int, int, int], str] = {}
        self._read: dict[str, int] = {}

    def sum_of(self, fd: int, path: str, start: int, length: int) -> str:
        """The checksum of a range, which is read only once as long as the file stays the same."""
        status = os.fstat(fd)
        span = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, start, length)
        if span not in self._compared:
            self.before_reading(path, status.st_size, length)
            self._compared[span] = super().sum_of(fd, path, start, length)
        return self._compared[span]

    def before_reading(self, path: str, size: int, length: int) -> None:
        """Raises OddFileError when more of a file was asked for than entries of it can name."""
        read = self._read.get(path, 0) + length
        if read > _READINGS * size + _FREE:
            raise OddFileError(errno.EFBIG, "entries name the same bytes again and again: not compared", path)
        self._read[path] = read


def _check_index(folder: Path, report: FolderReport, ctx: Checking) -> None:
    """Check all lines of the text index, and find the data files that none of them names."""
    before = set(_data_files(folder))  # listed first: what is written meanwhile must not look orphaned
    named: set[str] = set()
    torn = []
    for file in _index_files(folder, report):
        try:
            for offset, line in file.lines(0, file.size, scan=True):
                if line.strip():  # not deleted
                    named |= _check_line(file, offset, line + b"\n", report, ctx)
        except PermissionError:  # reported with the kinds of files; what its lines name is not known
            before = set()
            continue
        if file.size > file.reached and not _is_growing(file):
            text = "it ends within a line: its writer was interrupted, or is at it"
            torn.append(Damaged(file.name, text, offset=file.reached))
    report.damaged += torn
    aside = (DAMAGED_SUFFIX, ORPHANED)
    for path in sorted(before - named):
        (report.set_aside if path.endswith(aside) else report.orphans).append(path)
    names = sorted(os.listdir(folder))
    report.set_aside += [name for name in names if name.endswith(INFO_SUFFIX + DAMAGED_SUFFIX)]
    report.set_aside += [name for name in names if ".damaged-" in name]


def _check_line(file: TextFile, offset: int, line: bytes, report: FolderReport, ctx: Checking) -> set[str]:
    """Check the entry on a line; returns the data files that it names."""
    info = parse_line(line)
    named = set() if info is None else named_files(ctx, info)
    error, faults = "the line is damaged", report.damaged
    if info is not None:
        try:
            report.nbytes += len(line) + check_entry(ctx, info)
            report.entries += 1
            return named
        except Exception as e:  # of whatever reads it
            error = str(e) or type(e).__name__
            faults = report.unreadable if isinstance(e, _OUT_OF_REACH) else report.damaged
    if _is_still_there(file, offset, len(line), info):
        faults.append(Damaged(file.name, error, None if info is None else info["#key"], offset, len(line)))
    return named


def _is_still_there(file: TextFile, offset: int, length: int, info: Info | None) -> bool:
    """Whether a line that was found damaged was not deleted or replaced while it was looked at."""
    try:
        with _files.open_regular(file.path) as f:
            f.seek(offset)
            line = f.read(length)
    except OSError:
        return False
    return bool(line.strip()) and (info is None or parse_line(line) == info)


def check_entry(ctx: DumpContext, info: Info) -> int:
    """Compare the data of an entry, and of its parts, with all sizes and checksums; returns its bytes.

    Raises
    ------
    DamagedEntryError: something is missing or not what was written
    """
    ctx.check(info, everything=True)
    nbytes = sum(int(size) for size, _ in info.get("#files", {}).values())
    nbytes += sum(int(part[2]) for part in info.get("#ranges", ()))
    place = place_of(info)
    if place is not None and not info.get("#files"):
        nbytes += _check_data(ctx, info, place)
    for part in parts_of_entry(ctx, info):
        nbytes += check_entry(ctx, part)
    return nbytes


def _check_data(ctx: DumpContext, info: Info, place: Info) -> int:
    if "offset" not in place:  # a file of its own, of an earlier release: nothing was recorded about it
        fd = ctx.open(place["filename"])
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)
    length = text_size(info, place) if "length" in place else _array_bytes(info)
    ctx.check_range(place["filename"], place["offset"], length, info.get("#sum"))
    return int(length)


def _array_bytes(info: Info) -> int:
    if info["#type"] == "TorchTensor":
        import torch

        width = int(getattr(torch, info["dtype"]).itemsize)
    else:
        from ..cachedict.handlers.arrays import dtype_of

        width = int(dtype_of(info["dtype"]).itemsize)
    for length in info["shape"]:
        width *= length
    return int(width)


def is_whole(folder: Path, info: Info) -> bool:
    """Whether nothing is wrong with an entry."""
    try:
        check_entry(Checking(folder), info)
    except Exception:  # of whatever reads it
        return False
    return True


def _index_files(folder: Path, report: FolderReport) -> list[TextFile]:
    try:
        found = index_files(str(folder))
    except FileNotFoundError:
        return []
    except UnknownVersionError as e:
        report.unreadable.append(Damaged(f"*{INFO_SUFFIX}", str(e)))
        return []
    files = [TextFile(str(folder), name, number) for number, name in enumerate(sorted(found))]
    for file in files:
        file.size = found[file.name].st_size
    return files


def _is_growing(file: TextFile) -> bool:
    """Whether a file that ended within a line was seen in the middle of a write."""
    for _ in range(5):
        try:
            if os.fstat(file.handle().fd).st_size != file.size:
                return True
        except OSError:  # removed, or another file by now
            return True
        time.sleep(0.002)
    return False


def _data_files(root: Path) -> tp.Iterator[str]:
    """Paths within the folder of all in its data folder; no link is followed that another user has put there."""
    top = f"{root}/{DATA_DIR}"
    if not _is_folder(top):
        return
    for folder, _, names in os.walk(top):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            yield f"{inside}/{name}"


def _is_folder(path: str) -> bool:
    """Whether there is a folder of this name that may be entered: not a stranger's link to one."""
    try:
        fd = _files.open_folder(path)
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


# ---------------------------------------------------------------- files


def _check_kinds(folder: Path, report: FolderReport) -> None:
    """Report what is in the place of a folder, where nothing can be written, or of an index file."""
    names = os.listdir(folder)
    for name in (DATA_DIR, *(_FOLDERS if UID in names else ())):
        if name in names and not _is_folder(f"{folder}/{name}"):
            report.damaged.append(Damaged(name, "it is no folder"))
    for name in sorted(names):
        if name.endswith(INFO_SUFFIX) and name[0] != ".":
            with _judged(folder, name, report, "this user may not read it"):
                _files.open_regular(f"{folder}/{name}").close()


@contextlib.contextmanager
def _judged(folder: Path, name: str, report: FolderReport, unreadable: str = "") -> tp.Iterator[None]:
    """Context in which a file that cannot be read is reported: damaged, or unreadable (of which nothing is known)."""
    try:
        yield
    except FileNotFoundError:
        if os.path.islink(folder / name):
            report.damaged.append(Damaged(name, "it is a link that leads nowhere"))
    except OddFileError as e:
        report.damaged.append(Damaged(name, str(e.strerror)))
    except OSError as e:
        report.unreadable.append(Damaged(name, unreadable or str(e)))


def _read(folder: Path, name: str, report: FolderReport) -> bytes | None:
    """What is in a file; None, and reported, where it is none."""
    with _judged(folder, name, report):
        return _files.read_file(f"{folder}/{name}")
    return None


def _check_record(folder: Path, report: FolderReport, ctx: Checking) -> set[str]:
    """Check the record of a task; returns the data files that it names."""
    data = _read(folder, record.NAME, report)
    if data is None:
        return set()
    try:
        content = record.parse(data, f"{folder}/{record.NAME}")
    except UnknownVersionError as e:
        report.unreadable.append(Damaged(record.NAME, str(e)))
        return set()
    if content is None:
        report.damaged.append(Damaged(record.NAME, "the record is damaged"))
        return set()
    report.nbytes += len(data)
    info = content.get("result")
    if info is None:
        report.entries += 1
        return set()
    try:
        report.nbytes += check_entry(ctx, info)
        report.entries += 1
    except Exception as e:  # of whatever reads it
        faults = report.unreadable if isinstance(e, _OUT_OF_REACH) else report.damaged
        faults.append(Damaged(record.NAME, str(e) or type(e).__name__))
    return named_files(ctx, info)


def _check_legacy(folder: Path, report: FolderReport) -> None:
    """Walk through the pickled job of an earlier release without running anything in it."""
    from ..cachedict.handlers.pickled import protocols_in

    name = record.LEGACY_NAME
    try:
        with _judged(folder, name, report), _files.open_regular(f"{folder}/{name}") as f:
            size = os.fstat(f.fileno()).st_size
            protocols_in(f)
            report.entries += 1
            report.nbytes += size
    except (ValueError, IndexError, MemoryError, OverflowError) as e:
        report.damaged.append(Damaged(name, f"it is no whole pickle: {e}"))


def _check_configs(folder: Path, report: FolderReport) -> None:
    import yaml

    from ..identity.configfolder import from_text

    for name in (UID, FULL, CONFIG, NEW_FIELDS, CLASSES):
        text = _read(folder, name, report)
        if text is None:
            continue
        try:
            if len(text) > _MAX_CONFIG:
                raise ValueError(f"it is larger than {_MAX_CONFIG >> 20} MiB")
            if not isinstance(from_text(text), (dict, list)):
                raise TypeError("it holds no configuration")
        except (yaml.YAMLError, *NO_CONFIGURATION) as e:
            report.damaged.append(Damaged(name, " ".join(str(e).split())))


def _check_derived(folder: Path, report: FolderReport) -> None:
    import orjson

    if os.path.lexists(folder / FILE_NAME) and not is_of_later_release(str(folder)):
        try:
            table = Table.load(str(folder))
            if table is None:
                raise OSError
            table.verify()
        except OSError:
            report.derived.append(FILE_NAME)
    try:
        if os.path.lexists(folder / SIDECAR):
            orjson.loads(_files.read_file(f"{folder}/{SIDECAR}"))
    except (OSError, ValueError):
        report.derived.append(SIDECAR)


def _check_claims(folder: Path, report: FolderReport) -> None:
    files = ClaimFolder(folder)
    names, drafts = files.listing()
    try:
        entries = protocol.look(files, names)
    except UnknownVersionError as e:
        report.unreadable.append(Damaged(f"*{CLAIM_SUFFIX}", str(e)))
        return
    dead = {entry.name for entry in entries if not alive(files, entry)}
    report.live_claims += len(entries) - len(dead)
    report.stale_claims += sorted(dead)
    unowned = [ClaimEntry(draft, None, 0.0, 5.0, owned=False) for draft in sorted(drafts)]
    report.leftovers += [entry.name for entry in unowned if not alive(files, entry)]
