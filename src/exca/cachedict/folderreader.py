"""Reading a folder: the text index of all writers, and the side index that saves reading most of it.

How changes of others are seen: whoever writes or deletes sets the folder's mtime. A key that is not known makes
this process look at that mtime; when it has moved (or 50 ms after the last look in any case) the sizes of all
files are read, and of those that grew the new part. On a network file system a host may see sizes as late as its
attribute cache allows (on NFS: new files after ``acdirmax``; the sizes of known files are asked for by opening them,
which by close-to-open consistency gives what the server has).
"""

import errno
import logging
import os
import stat
import threading
import time
import typing as tp

import orjson
import xxhash

from .. import _files, _trust
from .._files import Handle, on_network, opened_status
from ..errors import OddFileError, UntrustedFileError
from .adoption import WORTH, adopt
from .hot import HotEntries
from .sideindex import FILE_NAME, FileMark, Table, turn
from .textindex import INFO_SUFFIX, TextFile, key_hash

logger = logging.getLogger("exca")

LOOK_INTERVAL = 0.05  # s: sizes of all files are looked at this often at least, when keys are missed
_SETTLED = 20_000_000  # ns: an mtime younger than this may stand for two changes
_SAVE_LINES = 4096  # lines read that no side index held, from which on a new one is written
_SAVE_TRIES = 5
_ROLL_LINES = 1 << 18  # lines kept in memory by key before they move to a table


_closed: set[str] = set()  # index files that this user may not read, of which this process has spoken
_reported: set[tuple[str, int]] = set()  # damaged lines that this process has spoken of


def _status_of(entry: "os.DirEntry[str]", network: bool) -> os.stat_result:
    """The status of an index file; a link is followed only if it may be."""
    if network or entry.is_symlink():
        return opened_status(entry.path)
    return entry.stat(follow_symlinks=False)


class TableDamagedError(OSError):
    """The side index was found damaged and was thrown away."""


class _Watch:
    """The folder itself, kept open: asking for its mtime costs half of what it costs by name."""

    __slots__ = ("__weakref__", "_folder", "_handle")

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._handle: Handle | None = None

    def drop_handle(self) -> None:
        """Close it when nobody asks any more."""
        self._handle = None

    def mtime(self) -> int:
        """In ns; -1 when there is no folder."""
        handle = self._handle
        if handle is not None:
            status = os.fstat(handle.fd)
            if status.st_nlink:
                return status.st_mtime_ns
            self._handle = None  # deleted, and perhaps made again
        try:
            if os.name == "posix":
                self._handle = Handle.open(self, self._folder)
            return os.stat(self._folder).st_mtime_ns
        except OSError:
            return -1


class FolderReader:
    """What has been read of a folder. A place of a line is packed: ``file << 80 | offset << 32 | length``."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.files: list[TextFile] = []  # only ever grows, so that a place keeps its meaning
        self._numbers: dict[str, int] = {}
        self.table: Table | None = None
        self.tail: dict[str, int] = {}
        self.others: dict[str, list[int]] = {}  # further lines of keys in the tail, which lost
        self.gens: dict[str, int] = {}
        self.bad: set[int] = set()  # lines that stand but must not be used
        self.live = 0
        self.doubles = False  # whether some key has more than one line
        self.dead_rows = False  # whether the table holds lines that were deleted since
        self._unsaved = 0
        self._loaded = False
        self._seen_mtime = -1
        self._next_look = 0.0
        self._watch = _Watch(folder)
        self._resets = 0
        self._read_blank = False  # whether the last look has read lines that were deleted, or replaced
        self.forgot = True  # whether nothing of the folder is known
        self.generation = 0  # raised, with the lock held, after any change that an earlier look has not seen
        self.trusted = True  # whether all files are
        self._known_index: tuple[int, int] | None = None  # the side index in the folder, when last looked at
        self.hot: HotEntries | None = None  # all entries, once so many were asked for that this pays

    # -- looking at the folder

    def changed(self) -> bool:
        """Whether a missed key is worth a look at the folder."""
        return self._watch.mtime() != self._seen_mtime or time.monotonic() > self._next_look

    def refresh(self) -> bool:
        """Read what is new in the folder; returns whether anything was."""
        with self.lock:
            news = self._look()
            while self._read_blank:  # its new line may have come after the folder was listed
                news = self._look() or news
            return news

    def _look(self) -> bool:
        self._read_blank = False
        try:
            mtime = self._watch.mtime()
            found = self.list_files()
        except FileNotFoundError:
            mtime, found = -1, {}
        first, self._loaded = not self._loaded, True
        if first:
            self._load_table(found)
            self.generation += 1
        else:
            self._adopt_if_large(found)
        news, resets = first, -1
        while resets != self._resets:  # what is found while reading may mean that all must be read anew
            resets = self._resets
            try:
                news = self._read_news(found) or news
            except TableDamagedError:
                news = True
        self.forgot = False
        # an mtime as young as this may be shared by a change that is still to come
        self._seen_mtime = mtime if abs(time.time_ns() - mtime) > _SETTLED else -1
        self._next_look = time.monotonic() + LOOK_INTERVAL
        if self._unsaved > _SAVE_LINES:
            self.save()
        return news

    def list_files(self) -> dict[str, os.stat_result]:
        """The index files in the folder. Raises FileNotFoundError."""
        found = {}
        entries = self._scan_folder()
        network = on_network(self.folder)
        with entries:
            for entry in entries:
                if entry.name.endswith(INFO_SUFFIX) and not entry.name.startswith("."):
                    try:
                        status = _status_of(entry, network)
                    except (UntrustedFileError, OddFileError) as e:
                        _trust.skip(entry.path, e)
                        continue
                    except (FileNotFoundError, PermissionError):
                        continue
                    if not stat.S_ISREG(status.st_mode):
                        _trust.skip(entry.path, "it is not a regular file")
                    elif _files.everybody_may_write(status):
                        _trust.skip(
                            entry.path, "everybody may write to it; if you know what is in it: chmod o-w"
                        )
                    else:
                        found[entry.name] = status
        return found

    def _scan_folder(self) -> "os._ScandirIterator[str]":
        try:
            return os.scandir(self.folder)
        except OSError as e:
            if e.errno in (errno.ENOTDIR, errno.ELOOP):
                raise OddFileError(e.errno, "not a folder; exca.repair sets it aside", self.folder) from e
            if e.errno != errno.ENOENT:
                raise
            parent = os.path.dirname(self.folder)
            # a network file system may remember that the folder was not there: listing its parent asks the server
            if not on_network(parent) or os.path.basename(self.folder) not in os.listdir(parent):
                raise
            return os.scandir(self.folder)

    def file(self, name: str) -> TextFile:
        """The object for an index file, made when it is new."""
        number = self._numbers.get(name)
        if number is None:
            self._numbers[name] = number = len(self.files)
            self.files.append(TextFile(self.folder, name, number))
        return self.files[number]

    def _read_news(self, found: dict[str, os.stat_result]) -> bool:
        news = False
        for file in self.files:
            seen = found.get(file.name)
            if file.scanned and (seen is None or seen.st_size < file.scanned or seen.st_ino != file.inode):
                self.reset()
                news = True
                break
        for name in sorted(found):
            seen = found[name]
            file = self.file(name)
            file.size, file.mtime, file.inode = seen.st_size, seen.st_mtime_ns, seen.st_ino
            file.listed_trusted = file.trusted = file.opened_trusted and _trust.is_trusted(seen)
            self.trusted = self.trusted and file.trusted
            if file.size > file.scanned and self._scan(file):
                news = True
                self.generation += 1
        return news

    def _scan(self, file: TextFile) -> bool:
        start = file.scanned
        if start == 0:
            file.counted_mtime = file.mtime
        end = start
        for offset, line in self._lines_of(file, start):
            end = offset + len(line) + 1
            first = line[:1]
            if first == b"{":
                try:
                    info = orjson.loads(line)
                    if type(info["#key"]) is not str:
                        raise TypeError
                    place = file.number << 80 | offset << 32 | len(line) + 1
                    self.add(info["#key"], place, info.get("#gen", 0))
                    if len(self.tail) > 2 * _ROLL_LINES:
                        resets, file.scanned = self._resets, end
                        self.roll_if_large()
                        if self._resets != resets:
                            return True
                    if self.hot is not None:
                        if info["#key"] in self.hot:  # which line wins is not known here
                            self.hot = None
                        else:
                            self.hot.add(info["#key"], line + b"\n")
                    continue
                except (ValueError, KeyError, TypeError, AttributeError):
                    self.report_line(file, offset)
            elif first == b" ":
                file.blanks += 1
                self._read_blank = True
            elif line:
                self.report_line(file, offset)
        file.scanned = file.reached
        return file.scanned > start

    def _lines_of(self, file: TextFile, start: int) -> tp.Iterator[tuple[int, bytes]]:
        blanks = file.blanks
        try:
            yield from file.lines(start, file.size, scan=True)
        except PermissionError:
            file.reached, file.blanks = start, blanks
            if file.path not in _closed:
                _closed.add(file.path)
                logger.warning("The entries in %s count as missing: this user may not read it", file.path)
        except OSError:
            file.blanks = blanks  # it is read again
            raise

    def report_line(self, file: TextFile, offset: int) -> None:
        """Say once that a line is no entry."""
        if (file.path, offset) not in _reported:
            _reported.add((file.path, offset))
            logger.warning(
                "Skipped a damaged line at byte %d of %s: its entry counts as missing", offset, file.path
            )

    def reset(self) -> None:
        """Forget everything read: the text index is read anew at the next refresh."""
        with self.lock:
            for file in self.files:
                file.scanned = file.blanks = 0
                file.within = False
                file.drop_handle()
            self.table = None
            self.tail, self.others, self.gens = {}, {}, {}
            self.live = self._unsaved = 0
            self.doubles = self.dead_rows = False
            self._seen_mtime = -1
            self._resets += 1
            self.hot = None
            self.forgot = True
            self.generation += 1

    # -- the side index

    def _load_table(self, found: dict[str, os.stat_result]) -> None:
        self._known_index = self._index_identity()
        table = Table.load(self.folder)
        if table is None:
            return
        for mark in table.marks:
            file = self.file(mark.name)
            if not self.still_true(file, mark, found.get(mark.name)):
                self.reset()
                return
            file.scanned, file.blanks, file.counted_mtime = mark.covered, mark.blanks, mark.mtime
            file.inode = found[mark.name].st_ino if mark.covered else 0
        self.table = table
        self.live = table.keys
        self.doubles = table.entries > table.keys

    def still_true(self, file: TextFile, mark: FileMark, seen: os.stat_result | None) -> bool:
        """Whether a file still starts with what a mark says was indexed."""
        if mark.covered == 0:
            return True
        if seen is None or seen.st_size < mark.covered:
            return False
        if (seen.st_ino, seen.st_mtime_ns) == (mark.inode, mark.mtime):
            return True
        last = file.read(mark.last, mark.covered - mark.last)
        return last[-1:] == b"\n" and (last.isspace() or xxhash.xxh3_64_intdigest(last) == mark.last_sum)

    def _index_identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(os.path.join(self.folder, FILE_NAME))
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _adopt_if_large(self, found: dict[str, os.stat_result]) -> None:
        scanned = {file.name: file.scanned for file in self.files}
        unread = sum(max(0, status.st_size - scanned.get(name, 0)) for name, status in found.items())
        if unread > WORTH:
            self._adopt(found)

    def _adopt(self, found: dict[str, os.stat_result]) -> None:
        """Take over what another process has indexed since this one has looked."""
        identity = self._index_identity()
        if identity == self._known_index:
            return
        self._known_index = identity
        try:
            adopt(self, found)
        except OSError:  # the own table is damaged; the text is read instead
            self.reset()

    def roll(self) -> None:
        """Move the tail into a table."""
        from . import sidebuild

        with self.lock:
            self.drop_dead()
            known = self.table
            if known is not None and not self.tail:
                return
            places = list(self.tail.items())
            for key, losers in self.others.items():
                rows = {n << 80 | o << 32 | s for o, s, n in known.find(key_hash(key))} if known else set()
                places += [(key, place) for place in losers if place not in rows]
            in_table = [] if known is None else [sidebuild.rows_of_table(known)]
            parts = [*in_table, sidebuild.rows_of_places(places)]
            # the table first: a reader without the lock looks at the tail before the table
            self.table = sidebuild.build(parts, self.live, self.marks())
            self.tail, self.others, self.gens = {}, {}, {}

    def roll_if_large(self) -> None:
        """Bound the memory of a long writer."""
        if len(self.tail) > _ROLL_LINES and (self.table is None or len(self.tail) * 4 > self.table.entries):
            try:
                self.roll()
            except OSError:  # the old table is damaged; the next refresh reads the text
                self.reset()

    def save(self) -> None:
        """Write the side index when much was read or written that the one in the folder does not hold."""
        with self.lock:
            entries = 0 if self.table is None else self.table.entries
            if self._unsaved <= max(_SAVE_LINES, entries // 16) or not os.access(self.folder, os.W_OK):
                return
            try:
                self.roll()
                with turn(self.folder):
                    self._save()
            except (
                OSError
            ):  # the old table is damaged, or the folder gone; the next refresh reads what is there
                self.reset()

    def _save(self) -> None:
        for _ in range(_SAVE_TRIES):  # another process may have written one meanwhile: none is lost
            self._adopt(self.list_files())
            self.roll()
            table = self.table
            if table is not None and table.save(self.folder, self._index_is_known):
                self._unsaved = 0
                self._known_index = self._index_identity()
                return

    def _index_is_known(self) -> bool:
        return self._index_identity() == self._known_index

    def marks(self) -> list[FileMark]:
        """How far each file has been read."""
        marks = []
        for file in self.files:
            start = max(0, file.scanned - 65536)
            text = file.read(start, file.scanned - start)
            last = start + text[:-1].rfind(b"\n") + 1
            check = xxhash.xxh3_64_intdigest(text[last - start :])
            marks.append(
                FileMark(file.name, file.scanned, file.blanks, file.inode, file.counted_mtime, last, check)
            )
        return marks

    def find(self, hash_: int) -> list[tuple[int, int, int]]:
        """Rows of the table for a hash. A damaged table is thrown away: TableDamagedError says to look again."""
        table = self.table
        if table is None:
            return []
        try:
            return table.find(hash_)
        except OSError as e:
            logger.debug("The side index of %s is damaged and is built anew", self.folder)
            self.reset()
            raise TableDamagedError from e

    # -- what stands on this

    def add(self, key: str, place: int, gen: int) -> None:
        """Take note of a line."""
        raise NotImplementedError

    def add_line(self, place: int) -> None:
        """Take note of the line at a place, which is read for it."""
        raise NotImplementedError

    def drop_dead(self) -> None:
        """Drop lines that were deleted."""
        raise NotImplementedError
