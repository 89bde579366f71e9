"""Looking at all that is in a cache folder: which entries are whole, and what belongs to none.

Nothing is changed here; `exca.verify` and its repair are built on these functions. What is read of a data file is
bounded, whatever the lines name: the same bytes are compared once, and crafted ranges that overlap only so often.
"""

import dataclasses
import errno
import os
import stat
import time
import typing as tp

from .. import _files
from ..errors import DamagedEntryError, OddFileError
from .datafiles import DATA_DIR
from .dumpcontext import DumpContext, Info
from .handlers.base import verify_range
from .handlers.structured import content_of, place_of, text_size
from .parts import iter_parts, reserved_of
from .sideindex import FILE_NAME
from .textindex import DAMAGED_SUFFIX, INFO_SUFFIX, TextFile, index_files, parse_line

OUT_OF_REACH = (OSError, ImportError)  # nothing is known of what raises these
_READINGS = (
    6  # how often the bytes of a data file are read at most; an entry in a container is looked at twice
)
_FREE = 64 << 20  # bytes of each data file that are read in any case


class Checking(DumpContext):
    """A context that reads data files to compare them, and no byte again and again.

    Parameters
    ----------
    root: a cache folder
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self._compared: dict[tuple[int, int, int, int, int, int], str] = {}
        self._read: dict[str, int] = {}

    def sum_of(self, fd: int, path: str, start: int, length: int) -> str:
        """The checksum of a range, which is read only once as long as the file stays the same."""
        status = os.fstat(fd)
        place = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, start, length)
        if place not in self._compared:
            self.before_reading(path, status.st_size, length)
            self._compared[place] = super().sum_of(fd, path, start, length)
        return self._compared[place]

    def before_reading(self, path: str, size: int, length: int) -> None:
        """Raises OddFileError when more of a file was asked for than entries of it can name."""
        read = self._read.get(path, 0) + length
        if read > _READINGS * size + _FREE:
            raise OddFileError(errno.EFBIG, "entries name the same bytes again and again: not compared", path)
        self._read[path] = read


@dataclasses.dataclass
class Checked:
    """One line of the text index.

    Parameters
    ----------
    file: name of the index file
    offset: where the line starts, bytes
    length: its length with its end, bytes
    key: its key; None when it cannot be read
    info: the entry; None when it cannot be read
    nbytes: bytes of data that it names
    error: what is wrong with it; None when it is whole
    out_of_reach: whether it could not be checked, so that nothing is known of it
    """

    file: str
    offset: int
    length: int
    key: str | None = None
    info: Info | None = None
    nbytes: int = 0
    error: str | None = None
    out_of_reach: bool = False


@dataclasses.dataclass
class Report:
    """What `verify_entries` found.

    Parameters
    ----------
    entries: number of whole entries
    nbytes: bytes of index and data that they take
    damaged: lines whose entry is not whole
    torn: index files that end within a line, with the number of bytes of it
    orphans: data files that no line names
    set_aside: files that were renamed since they are damaged
    leftovers: temporary files of writers
    deleted: number of lines that were deleted
    """

    entries: int = 0
    nbytes: int = 0
    damaged: list[Checked] = dataclasses.field(default_factory=list)
    torn: dict[str, int] = dataclasses.field(default_factory=dict)
    orphans: list[str] = dataclasses.field(default_factory=list)
    set_aside: list[str] = dataclasses.field(default_factory=list)
    leftovers: list[str] = dataclasses.field(default_factory=list)
    deleted: int = 0


def iter_checked(folder: str | os.PathLike[str], ctx: Checking | None = None) -> tp.Iterator[Checked]:
    """Yield every line of the text index that is no deleted one, with its data compared with all checksums.

    Parameters
    ----------
    folder: a cache folder
    ctx: what reads its data
    """
    ctx = ctx or Checking(folder)
    for file in _index_files(ctx.root):
        for offset, line in file.lines(0, file.size):
            if not line.strip():
                continue
            checked = Checked(file.name, offset, len(line) + 1)
            checked.info = parse_line(line + b"\n")
            if checked.info is None:
                checked.error = "the line is damaged"
            else:
                checked.key = checked.info["#key"]
                try:
                    checked.nbytes = check_entry(ctx, checked.info)
                except Exception as e:  # of whatever reads it
                    checked.error = str(e) or type(e).__name__
                    checked.out_of_reach = isinstance(e, OUT_OF_REACH)
            yield checked


def verify_entries(folder: str | os.PathLike[str], ctx: Checking | None = None) -> Report:
    """Check all entries of a folder and find what belongs to none.

    Parameters
    ----------
    folder: a cache folder; while others write to it, data whose line is still to come is reported as orphaned
    ctx: what reads its data
    """
    root = os.fspath(folder)
    ctx = ctx or Checking(root)
    report = Report()
    before = set(_data_files(root))  # listed first: what is written meanwhile must not look orphaned
    named: set[str] = set()
    for checked in iter_checked(root, ctx):
        if checked.info is not None:
            named.update(named_files(ctx, checked.info))
        if checked.error is not None:
            report.damaged.append(checked)
            continue
        report.entries += 1
        report.nbytes += checked.length + checked.nbytes
    for path in sorted(before - named):
        (report.set_aside if path.endswith(DAMAGED_SUFFIX) else report.orphans).append(path)
    for file in _index_files(root):
        report.deleted += _deleted(file)
        if file.size > file.scanned and not _is_growing(file):
            report.torn[file.name] = file.size - file.scanned
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else ():
        if name.endswith(INFO_SUFFIX + DAMAGED_SUFFIX):
            report.set_aside.append(name)
        elif name.startswith(FILE_NAME + "-"):
            report.leftovers.append(name)
    return report


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
    for part in _parts(ctx, info):
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
    verify_range(ctx, place["filename"], place["offset"], length, info.get("#sum"))
    return int(length)


def _array_bytes(info: Info) -> int:
    if info["#type"] == "TorchTensor":
        import torch

        width = int(getattr(torch, info["dtype"]).itemsize)
    else:
        from .handlers.arrays import dtype_of

        width = int(dtype_of(info["dtype"]).itemsize)
    for length in info["shape"]:
        width *= length
    return int(width)


def _parts(ctx: DumpContext, info: Info) -> tp.Iterator[Info]:
    if info["#type"] == "Json":
        return
    place = place_of(info)
    if place is not None and str(place["filename"]).endswith(".jsonl"):
        yield from iter_parts(*content_of(ctx, info))
        return
    content = {key: value for key, value in info.items() if key[:1] != "#"}
    yield from iter_parts(content, reserved_of(info))


def named_files(ctx: DumpContext, info: Info) -> set[str]:
    """Data files that an entry and its parts name, as paths within the folder."""
    found = set(ctx.own_files(info))
    ranges = info.get("#ranges")
    if isinstance(ranges, list):
        found.update(
            part[0] for part in ranges if isinstance(part, list) and part and isinstance(part[0], str)
        )
    place = place_of(info)
    if place is not None and isinstance(place["filename"], str):
        found.add(place["filename"])
        if info["#type"] == "MneRawBrainVision":
            stem = info["filename"].removesuffix(".vhdr")
            found.update(stem + ending for ending in (".vmrk", ".eeg"))
    try:
        parts = list(_parts(ctx, info))
    except (DamagedEntryError, OSError):
        parts = []
    return found.union(*(named_files(ctx, part) for part in parts))


def _index_files(root: str) -> list[TextFile]:
    try:
        found = index_files(root)
    except FileNotFoundError:
        return []
    files: list[TextFile] = []
    for name in sorted(found):
        file = TextFile(root, name, len(files))
        file.size = found[name].st_size
        files.append(file)
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


def _deleted(file: TextFile) -> int:
    for _ in file.lines(0, file.size, scan=True):
        pass
    file.scanned = file.reached
    return file.count_blanks()


def _data_files(root: str) -> tp.Iterator[str]:
    """Paths within the folder of all in its data folder; no link is followed that another user has put there."""
    top = f"{root}/{DATA_DIR}"
    if not is_folder(top):
        return
    for folder, _, names in os.walk(top):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            yield f"{inside}/{name}"


def is_folder(path: str) -> bool:
    """Whether there is a folder of this name that may be entered: not a stranger's link to one.

    Parameters
    ----------
    path: any path
    """
    try:
        fd = _files.open_folder(path)
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
