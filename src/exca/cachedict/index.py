"""Where the line of each key of a folder is: one object per folder and process, shared by all `CacheDict` on it.

It reads the text index of all writers, and the side index that saves reading most of it.

How changes by others are seen: each process that writes or deletes sets the folder's mtime. A key that is not known
makes this process look at that mtime; when it has moved (or 50 ms after the last look in any case) the sizes of all
files are read, and of those that grew the new part. On a network file system a host may see sizes as late as its
attribute cache allows (on NFS: new files after ``acdirmax``; the sizes of known files are asked for by opening them,
which by close-to-open consistency gives what the server has).

A deletion is seen when the line is read, at every access; only where many entries were asked for and all are kept in
memory (`exca.cachedict.preload`), a deletion by another process may be seen 10 ms later.
"""

import array
import contextlib
import itertools
import os
import sys
import threading
import time
import typing as tp
import weakref
from time import monotonic

import orjson
import xxhash

from .. import _files, _trust
from .._files import Handle, on_network
from .._log import logger
from . import sideindex
from .datafiles import DATA_DIR
from .preload import INTERVAL, MAX_BYTES, Preloaded
from .sideindex import FILE_NAME, FileMark, Table, turn
from .textindex import (
    DAMAGED_SUFFIX,
    INFO_SUFFIX,
    MAX_LINE,
    Info,
    LineRef,
    TextFile,
    code_of,
    columns,
    file_of,
    index_files,
    keep_line,
    key_hash,
    key_hashes,
    line_ref,
    line_refs,
    parse_line,
    parse_lines,
    parts_of,
)

if tp.TYPE_CHECKING:
    from .dumpcontext import DumpContext
    from .writer import FolderWriter


Found = tuple[Info, LineRef]  # an entry and its line
WAITING: Found = ({}, -1)  # of a key that this process has set and not yet written
NOT_PRELOADED = object()  # in the place of the value of a key that is not in memory

LOOK_INTERVAL = 0.05  # s: sizes of all files are looked at this often at least, when keys are missed
_SETTLED = 20_000_000  # ns: two changes may have one mtime that is younger than this
_SAVE_LINES = 4096  # lines read that no side index held, from which on a new one is written
_SAVE_TRIES = 5
_ROLL_LINES = 1 << 18  # lines kept in memory by key before they move to a table
_ROLL_WRITTEN = 1 << 20  # the same of this process's own, which take less
_UNPLACED = -1  # in the place of a line that this process wrote
_WORTH = 1 << 20  # bytes of text from which on it is cheaper to take over what another process has indexed
_ASKED = 128  # single look-ups from which on it may pay to read all entries
_SMALL = 10_000  # keys up to which all entries are read when the keys are gone through
_BULK = 1000  # keys from which on numpy answers for all at once, if it is imported already
_BULK_IMPORT = 20_000  # keys for which it is worth importing
_FEW = 32  # keys up to which each is looked up alone
_CHUNK = 2048  # keys looked up together
_NETWORK_GRACE = 60.0  # s: as long, data of another host may still be on its way

_News = tuple[int, TextFile, FileMark]  # a file of another process's table, and how far that goes

_closed: set[str] = set()  # index files that this user may not read, which this process has reported
_reported: set[tuple[str, int]] = set()  # damaged lines that this process has reported

_registry: "weakref.WeakValueDictionary[str, FolderIndex]" = weakref.WeakValueDictionary()
_registry_lock = threading.Lock()


def index_of(folder: str) -> "FolderIndex":
    """The object of this process for a folder."""
    path = os.path.abspath(folder)
    if not _files.is_below_root(path):
        _files.name_root(path)
    with _registry_lock:
        index = _registry.get(path)
        if index is None:
            _registry[path] = index = FolderIndex(path)
    return index


@_files.after_fork
def _after_fork() -> None:
    global _registry_lock  # noqa: PLW0603  # a lock may be held by a thread that the child has not
    _registry_lock = threading.Lock()
    for index in list(_registry.values()):
        halfway = not index.lock.acquire(blocking=False)  # held by a thread that was not forked
        index.lock = threading.RLock()
        if halfway:
            index.reset()


class _TableDamagedError(OSError):
    """The side index was found damaged and was thrown away."""


class _Watch:
    """The folder itself, kept open: asking for its mtime costs half of what it costs by name."""

    __slots__ = ("__weakref__", "_folder", "_handle")

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._handle: Handle | None = None

    def drop_handle(self) -> None:
        """Let it be closed as soon as no thread uses it."""
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


class FolderIndex:
    """Where the line of each key of a folder is, as far as this process has read the folder.

    A line is found by its key in ``_recent``, or by the hash of its key in the table that the side index is made of;
    all further lines of a key, which lost against a newer one, are in ``_others``, or in the table too. ``lock`` is
    held for changes; looking up takes no lock, and counts as failed only if ``_generation`` is what it was before.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock: threading.RLock = threading.RLock()
        self.writer: FolderWriter | None = None  # of this process
        self.trusted: bool = True  # whether all files are
        self.in_memory: Preloaded | None = None  # all entries, once so many were asked for that this pays
        self._files: list[TextFile] = []  # only ever grows, so that a reference keeps its meaning
        self.codes: list[str] = []  # of each file, the digest of the code that computed its entries, or ""
        self._numbers: dict[str, int] = {}
        self._table: Table | None = None
        self._recent: dict[str, LineRef] = {}
        self._fresh: list[sideindex.Written] = []  # where the lines are that are `_UNPLACED` in it
        self._others: dict[str, list[LineRef]] = {}  # of keys in `_recent`
        self._gens: dict[str, int] = {}
        self._bad: set[LineRef] = set()  # lines that are there but must not be used
        self._live = 0
        self._doubles = False  # whether some key has more than one line
        self._dead_rows = False  # whether the table holds lines that were deleted since
        self._unsaved = 0
        self._loaded = False
        self._seen_mtime = -1
        self._next_look = 0.0
        self._watch = _Watch(folder)
        self._resets = 0
        self._read_blank = False  # whether the last look has read lines that were deleted, or replaced
        self._met_blank = False  # whether a line that was known turned out deleted, or replaced
        self._forgot = True  # whether nothing of the folder is known
        self._generation = 0  # raised, with the lock held, after any change that an earlier look has not seen
        self._known_index: tuple[int, int] | None = None  # the side index in the folder, when last looked at
        self._asked = 0  # entries looked up one by one

    # -- looking at the folder

    def changed(self) -> bool:
        """Whether a missed key is worth a look at the folder."""
        return self._watch.mtime() != self._seen_mtime or monotonic() > self._next_look

    def refresh(self, *, frozen: bool = False) -> bool:
        """Read what is new in the folder (when frozen, only if it was not read yet); returns whether anything was."""
        if frozen and not self._forgot:
            return False
        with self.lock:
            news = self._look()
            while self._read_blank:  # its new line may have come after the folder was listed
                news = self._look() or news
            return news

    def _look(self) -> bool:
        self._read_blank = False
        try:
            mtime = self._watch.mtime()
            found = index_files(self.folder)
        except FileNotFoundError:
            mtime, found = -1, {}
        first, self._loaded = not self._loaded, True
        if first:
            self._load_table(found)
            self._generation += 1
        else:
            self._take_over_if_large(found)
        news, resets = first, -1
        while resets != self._resets:  # what is found while reading may mean that all must be read anew
            resets = self._resets
            try:
                news = self._read_news(found) or news
            except _TableDamagedError:
                news = True
        self._forgot = False
        # an mtime as young as this may be shared by a change that is still to come
        self._seen_mtime = mtime if abs(time.time_ns() - mtime) > _SETTLED else -1
        self._next_look = monotonic() + LOOK_INTERVAL
        if self._unsaved > _SAVE_LINES:
            self.save()
        return news

    def read_first(self) -> None:
        """Read the folder, unless it was read before."""
        if not self._files:
            self.refresh()

    def _file(self, name: str) -> TextFile:
        """The object for an index file, made when it is new."""
        number = self._numbers.get(name)
        if number is None:
            self._numbers[name] = number = len(self._files)
            self._files.append(TextFile(self.folder, name, number))
            self.codes.append(code_of(name))
        return self._files[number]

    def _read_news(self, found: dict[str, os.stat_result]) -> bool:
        news = False
        for file in self._files:
            seen = found.get(file.name)
            if file.scanned and (seen is None or seen.st_size < file.scanned or seen.st_ino != file.inode):
                self.reset()
                news = True
                break
        for name in sorted(found):
            seen = found[name]
            file = self._file(name)
            file.size, file.mtime, file.inode = seen.st_size, seen.st_mtime_ns, seen.st_ino
            file.listed_trusted = file.trusted = file.opened_trusted and _trust.is_trusted(seen)
            self.trusted = self.trusted and file.trusted
            if file.size > file.scanned and self._scan(file):
                news = True
                self._generation += 1
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
                    ref = line_ref(file.number, offset, len(line) + 1)
                    self._add(info["#key"], ref, info.get("#gen", 0))
                    if len(self._recent) > 2 * _ROLL_LINES:
                        resets, file.scanned = self._resets, end
                        self._roll_if_large(_ROLL_LINES)
                        if self._resets != resets:
                            return True
                    if self.in_memory is not None:
                        if info["#key"] in self.in_memory:  # which line wins is not known here
                            self.in_memory = None
                        else:
                            self.in_memory.add(info["#key"], line + b"\n")
                    continue
                except (ValueError, KeyError, TypeError, AttributeError):
                    self._report_line(file, offset)
            elif first == b" ":
                file.blanks += 1
                self._read_blank = True
            elif line:
                self._report_line(file, offset)
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

    def _report_line(self, file: TextFile, offset: int) -> None:
        """Report once that a line is no entry."""
        if (file.path, offset) not in _reported:
            _reported.add((file.path, offset))
            logger.warning(
                "Skipped a damaged line at byte %d of %s: its entry counts as missing", offset, file.path
            )

    def reset(self) -> None:
        """Forget everything read: the text index is read anew at the next refresh."""
        with self.lock:
            for file in self._files:
                file.scanned = file.blanks = 0
                file.within = False
                file.drop_handle()
            self._table = None
            self._recent, self._others, self._gens, self._fresh = {}, {}, {}, []
            self._live = self._unsaved = 0
            self._doubles = self._dead_rows = False
            self._seen_mtime = -1
            self._resets += 1
            self.in_memory = None
            self._forgot = True
            self._generation += 1

    # -- the side index

    def _load_table(self, found: dict[str, os.stat_result]) -> None:
        self._known_index = self._index_identity()
        table = Table.load(self.folder)
        if table is None:
            return
        for mark in table.marks:
            file = self._file(mark.name)
            if not self._is_still_true(file, mark, found.get(mark.name)):
                self.reset()
                return
            file.scanned, file.blanks, file.counted_mtime = mark.covered, mark.blanks, mark.mtime
            file.inode = found[mark.name].st_ino if mark.covered else 0
        self._table = table
        self._live = table.keys
        self._doubles = table.entries > table.keys

    def _is_still_true(self, file: TextFile, mark: FileMark, seen: os.stat_result | None) -> bool:
        """Whether a file still starts with what was indexed according to a mark."""
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

    def _take_over_if_large(self, found: dict[str, os.stat_result]) -> None:
        scanned = {file.name: file.scanned for file in self._files}
        unread = sum(max(0, status.st_size - scanned.get(name, 0)) for name, status in found.items())
        if unread > _WORTH:
            self._take_over(found)

    def _take_over(self, found: dict[str, os.stat_result]) -> None:
        """Take over what another process has indexed, so that of many writers each reads only its own lines."""
        identity = self._index_identity()
        if identity == self._known_index:
            return
        self._known_index = identity
        try:
            self._merge(found)
        except OSError:  # the own table is damaged; the text is read instead
            self.reset()

    def _news_of(self, other: Table, found: dict[str, os.stat_result]) -> tp.Iterator[_News]:
        for number, mark in enumerate(other.marks):
            file = self._file(mark.name)
            if mark.covered > file.scanned and self._is_still_true(file, mark, found.get(mark.name)):
                yield number, file, mark

    def _merge(self, found: dict[str, os.stat_result]) -> None:
        """Add rows of the side index in the folder for text that this one has not read, where that is much."""
        other = Table.load(self.folder)
        if other is None:
            return
        news = list(self._news_of(other, found))
        if sum(mark.covered - file.scanned for _, file, mark in news) < _WORTH:
            return
        try:
            rows = sideindex.rows_of_table(other)
        except OSError:
            return
        chosen = sideindex.chosen_rows(
            rows, {number: (file.number, file.scanned) for number, file, _ in news}
        )
        self._roll()
        own = [] if self._table is None else [sideindex.rows_of_table(self._table)]
        clean, doubtful = sideindex.without_doubles(own, chosen)
        for _, file, mark in news:
            seen = found[file.name]
            if file.scanned and file.blanks != mark.blanks:  # lines that were known before were deleted since
                self._dead_rows = True
            file.scanned, file.blanks, file.counted_mtime = mark.covered, mark.blanks, mark.mtime
            file.size, file.mtime, file.inode = max(file.size, mark.covered), seen.st_mtime_ns, seen.st_ino
        self._live += len(clean)
        self.in_memory = None
        self._table = sideindex.build([*own, clean], self._live, self._marks())
        for ref in doubtful:  # another line has the same hash: the text decides
            info = self.read_entry(ref)
            if info is not None:
                self._add(info["#key"], ref, info.get("#gen", 0))
        self._generation += 1

    def _roll(self) -> None:
        """Move what is in ``_recent`` into a table."""
        with self.lock:
            self._drop_dead()
            known = self._table
            if known is not None and not self._recent:
                return
            parts = [] if known is None else [sideindex.rows_of_table(known)]
            written = sum(len(part.keys) for part in self._fresh)
            if written and written == len(self._recent) and not self._others:
                parts.append(sideindex.rows_written(self._fresh))
            else:
                parts.append(sideindex.rows_of_lines(*self._lines_known(known)))
            # the table first: a reader without the lock looks there last
            self._table = sideindex.build(parts, self._live, self._marks())
            self._recent, self._others, self._gens, self._fresh = {}, {}, {}, []

    def _lines_known(self, table: Table | None) -> tuple[list[str], list[LineRef]]:
        """The keys and the lines that are in no table."""
        self._place()
        keys, refs = list(self._recent), list(self._recent.values())
        for key, losers in self._others.items():
            rows = set(map(_ref_of_row, table.find(key_hash(key)))) if table else set()
            further = [ref for ref in losers if ref not in rows]
            keys += [key] * len(further)
            refs += further
        return keys, refs

    def _place(self) -> None:
        """Note where each line is that this process wrote, which waits until it is asked for."""
        if self._fresh:
            with self.lock:
                for written in self._fresh:
                    refs = line_refs(written.file, written.offset, written.lengths)
                    self._recent.update(zip(written.keys, refs, strict=True))
                self._fresh = []

    def _roll_if_large(self, most: int) -> None:
        """Bound the memory of a long writer."""
        if len(self._recent) > most and (self._table is None or len(self._recent) * 4 > self._table.entries):
            try:
                self._roll()
            except OSError:  # the old table is damaged; the next refresh reads the text
                self.reset()

    def save(self) -> None:
        """Write the side index when much was read or written that the one in the folder does not hold."""
        with self.lock:
            entries = 0 if self._table is None else self._table.entries
            if self._unsaved <= max(_SAVE_LINES, entries // 16) or not os.access(self.folder, os.W_OK):
                return
            try:
                self._roll()
                with turn(self.folder):
                    self._save()
            except OSError:  # the table is damaged, or the folder gone: the next refresh reads what is there
                self.reset()

    def _save(self) -> None:
        for _ in range(_SAVE_TRIES):  # another process may have written one meanwhile: none is lost
            self._take_over(index_files(self.folder))
            self._roll()
            table = self._table
            if table is not None and table.save(
                self.folder, lambda: self._index_identity() == self._known_index
            ):
                self._unsaved = 0
                self._known_index = self._index_identity()
                return

    def _marks(self) -> list[FileMark]:
        """How far each file has been read."""
        marks = []
        for file in self._files:
            start = max(0, file.scanned - 65536)
            text = file.read(start, file.scanned - start)
            last = start + text[:-1].rfind(b"\n") + 1
            check = xxhash.xxh3_64_intdigest(text[last - start :])
            marks.append(
                FileMark(file.name, file.scanned, file.blanks, file.inode, file.counted_mtime, last, check)
            )
        return marks

    def _find(self, hash_: int) -> list[tuple[int, int, int]]:
        """Rows of the table for a hash. A damaged table is dropped: after _TableDamagedError, look again."""
        table = self._table
        if table is None:
            return []
        try:
            return table.find(hash_)
        except OSError as e:
            logger.debug("The side index of %s is damaged and is built anew", self.folder)
            self.reset()
            raise _TableDamagedError from e

    # -- all entries in memory

    def preloaded(self, key: str) -> tp.Any:
        """The value of a key, or its line (bytes) where it needs a handler, or NOT_PRELOADED.

        The last also while not all entries are in memory; each call is counted then, until reading all of them pays.
        """
        entries = self.in_memory
        if entries is None:
            self.asked(1)
            return NOT_PRELOADED
        if monotonic() >= entries.until:
            entries = self._fresh_preloaded()
            if entries is None:
                return NOT_PRELOADED
        return entries.get(key, NOT_PRELOADED)

    def preloaded_keys(self) -> list[str] | None:
        """All keys, where they are few, whose values are asked for next as a rule; None where they are many."""
        self.refresh()
        if self._live >= _SMALL:
            return None
        self.expect(self._live)
        with self.lock:
            entries = self._fresh_preloaded()
            if entries is None:
                return None
            return [*entries, *[key for key in self._pending() if key not in entries]]

    def _fresh_preloaded(self) -> Preloaded | None:
        """All entries, where they are in memory and up to date; None otherwise."""
        entries = self.in_memory
        if entries is None or monotonic() < entries.until:
            return entries
        start = monotonic()
        mtime = self._watch.mtime()
        if mtime != entries.mtime:
            with self.lock:
                self.refresh()
                self._find_deleted()
                entries.mtime = self._seen_mtime
        now = monotonic()
        entries.until = now + max(INTERVAL, 10 * (now - start))
        return self.in_memory

    def asked(self, number: int) -> None:
        """Take note that entries were, or will be, looked up one by one: from some number on reading all pays."""
        self._asked += number
        if self._asked > max(_ASKED, self._live // 50) and self.in_memory is None:
            self._asked = 0
            if sum(file.scanned for file in self._files) <= MAX_BYTES:
                self._preload()

    def expect(self, number: int) -> None:
        """Read all entries at once where so many of them are about to be asked for that this costs less."""
        if 10 * number > self._live:
            self.asked(5 * number)

    def _preload(self) -> None:
        with self.lock:
            if self.in_memory is not None:  # another thread was faster
                return
            self.refresh()
            entries = Preloaded(self._seen_mtime)
            doubtful = [key for file in self._files for key in entries.read(file)]
            for ref in self._bad:
                info = parse_line(self.read_line(ref))
                doubtful += [] if info is None else [info["#key"]]
            for key in doubtful:
                found = self.locate(key)
                entries.pop(key, None)
                if found is not None:
                    entries.add(key, self.read_line(found[1]))
            self.in_memory = entries
            self.refresh()  # for what replaced a line that was blank by now

    def doubt(self) -> None:
        """Look at the folder before anything in memory is believed again."""
        if self.in_memory is not None:
            self.in_memory.until = 0.0

    # -- lines

    def _add(self, key: str, ref: LineRef, gen: int) -> None:
        """Take note of a line."""
        self._unsaved += 1
        if self._fresh:
            self._place()
        older = self._recent.get(key)
        if older is None:
            rows = self._find(key_hash(key)) if self._table is not None else []
            losers = [p for p in map(_ref_of_row, rows) if p != ref and self.read_entry(p, key) is not None]
            if not losers:
                self._live += 1
                self._recent[key] = ref
                if gen:
                    self._gens[key] = gen
                return
        else:
            if older == ref:
                return
            losers = [older, *self._others.get(key, ())]
        self._doubles = True
        ranked = sorted([(gen, *self._order(ref)), *map(self._rank, losers)])
        self._gens[key] = ranked[-1][0]
        self._others[key] = [r[-1] for r in ranked[:-1]]
        self._recent[key] = ranked[-1][-1]

    def _order(self, ref: LineRef) -> tuple[str, int, int]:
        return *self.address(ref)[:2], ref

    def _rank(self, ref: LineRef) -> tuple[int, str, int, int]:
        info = self.read_entry(ref)
        return (-1 if info is None else info.get("#gen", 0), *self._order(ref))

    def read_line(self, ref: LineRef) -> bytes:
        """The bytes of a line, with its end."""
        file, offset, length = parts_of(ref)
        return self._files[file].read(offset, length) if length <= MAX_LINE + 1 else b""

    def read_entry(self, ref: LineRef, key: str | None = None) -> Info | None:
        """The entry on a line, or None when that was deleted, is damaged or belongs to another key."""
        try:
            file, offset, length = parts_of(ref)
            if length > MAX_LINE + 1:
                raise IndexError
            line = self._files[file].read(offset, length)
        except IndexError:  # a damaged row of the side index
            self.reset()
            return None
        if line[:1] == b" " or (self._bad and ref in self._bad):
            self._met_blank = True
            return None
        info = parse_line(line)
        if info is None:
            info = self._suspect(ref, line)
            if info is None:
                return None
        if key is None or info["#key"] == key:
            return info
        if key_hash(info["#key"]) != key_hash(key):  # no collision: the side index is wrong
            self.reset()
        return None

    def _suspect(self, ref: LineRef, line: bytes) -> Info | None:
        """A known line does not read as one: damaged, or the file was changed under us, or read in that moment."""
        number, offset, length = parts_of(ref)
        file = self._files[number]
        again = file.read(offset, length)
        if again != line:
            info = parse_line(again)
            if info is not None or again[:1] == b" ":  # seen in the middle of a deletion
                return info
        if again[-1:] != b"\n" or (offset and file.read(offset - 1, 1) != b"\n"):
            self.reset()  # no line starts or ends here any more
            return None
        self._bad.add(ref)
        self._report_line(file, offset)
        return None

    # -- keys

    def search(self, key: str, frozen: bool = False) -> Found | None:
        """The entry of a key and its line; WAITING where this process has set it and not yet written; or None.

        Other threads read, write and forget meanwhile. What this one has not found is missing only if none of them
        has changed anything since before it looked, which is asked with the lock held.

        When ``frozen``, the folder is not looked at again for it.
        """
        if type(key) is not str:
            return None
        while True:
            generation = self._generation
            entries = self.in_memory
            found = None if entries is not None and key not in entries else self.locate(key)
            if found is not None:
                return found
            if self._forgot or (not frozen and self.changed()):
                self.refresh()
            with self.lock:
                if self.writer is not None and key in self.writer.pending:
                    return WAITING
                if self._generation == generation:
                    return None

    def _pending(self) -> tp.Collection[str]:
        """What this process has set and not yet written."""
        return () if self.writer is None else self.writer.pending

    def refs_of(self, key: str) -> list[LineRef]:
        """All lines that may be of this key, the winner first."""
        ref = self._recent.get(key)
        if ref == _UNPLACED:
            self._place()
            ref = self._recent.get(key)
        if ref is not None:
            return [ref, *reversed(self._others.get(key, ()))]
        try:
            rows = self._find(key_hash(key))
        except _TableDamagedError:
            self.refresh()
            return self.refs_of(key)
        if len(rows) < 2:
            return [_ref_of_row(row) for row in rows]
        return [r[-1] for r in sorted(map(self._rank, map(_ref_of_row, rows)), reverse=True)]

    def locate(self, key: str) -> Found | None:
        """The entry of a key and its line, as far as this object has read the folder."""
        for ref in self.refs_of(key):
            info = self.read_entry(ref, key)
            if info is not None:
                return info, ref
        return None

    def address(self, ref: LineRef) -> tuple[str, int, int]:
        """Name of the file of a line, its start in it, and its end."""
        file, offset, length = parts_of(ref)
        return self._files[file].name, offset, offset + length

    def code_of(self, ref: LineRef) -> str:
        """The digest of the code that computed an entry; empty where it is not known."""
        return self.codes[file_of(ref)]

    def trusts(self, ref: LineRef) -> bool:
        """Whether what a line holds may have modules imported."""
        return self._files[file_of(ref)].trusted

    def count(self) -> int:
        """Number of keys."""
        with self.lock:
            self.refresh()
            self._find_deleted()
            return self._live

    def _find_deleted(self) -> None:
        """Take note of deletions by others: files that changed are searched for blank lines."""
        deleted = False
        for file in self._files:
            if file.counted_mtime == file.mtime or not file.scanned:
                continue
            if file.count_blanks() == file.blanks:
                file.counted_mtime = file.mtime
            else:
                deleted = True
        if deleted:
            self._dead_rows = True
            self._drop_dead()
            self.refresh()  # what took the place of a blank line was there before it was blank

    def _drop_dead(self) -> None:
        """Drop lines that were deleted, so that every row of the table is alive."""
        if not self._dead_rows:
            return
        with self.lock:
            self.in_memory = None
            if self._doubles:
                self.reset()
                self.refresh()
                return
            for file in self._files:
                file.counted_mtime, file.blanks = file.mtime, file.count_blanks()
            self._place()
            self._recent = {key: ref for key, ref in self._recent.items() if self.read_line(ref)[:1] == b"{"}
            self._live = len(self._recent)
            if self._table is not None:
                try:
                    rows = sideindex.rows_of_table(self._table)
                except OSError:
                    self.reset()
                    self.refresh()
                    return
                texts = {file.number: file.read(0, file.scanned) for file in self._files if file.blanks}
                rows = rows[sideindex.alive(rows, texts)]
                self._live += len(rows)
                self._table = sideindex.build([rows], len(rows), self._marks())
            self._dead_rows = False

    def entries(self) -> tp.Iterator[tuple[str, Info]]:
        """Yield (key, entry) in the order of the text index, one for each key that is there all the while.

        A key may be replaced meanwhile: its line is found blank, and the new one is behind what is gone through. So
        what was appended since is looked at in the end, until nothing in it has been replaced in turn. Of each key
        that was yielded only a hash is kept.
        """
        with self.lock:
            self.refresh()
            # another thread may forget all meanwhile and read it anew
            parts = [(file, 0, file.scanned) for file in self._files]
        seen = array.array("q")
        note = seen.append
        for entry in self._between(parts):
            if entry is not None:
                note(hash(entry[0]))
                yield entry
        ends = {file.number: end for file, _, end in parts}
        known: set[int] | None = None
        blanks = True
        while blanks:
            blanks = False
            with self.lock:
                self.refresh()
                parts = [(f, min(ends.get(f.number, 0), f.scanned), f.scanned) for f in self._files]
            ends = {file.number: end for file, _, end in parts}
            for entry in self._between([part for part in parts if part[1] < part[2]]):
                blanks = blanks or entry is None
                if entry is None or not entry[1].get("#gen"):  # blank, or a key that is new
                    continue
                known = set(seen) if known is None else known
                if hash(entry[0]) not in known:
                    known.add(hash(entry[0]))
                    yield entry

    def _between(self, parts: list[tuple[TextFile, int, int]]) -> tp.Iterator[tuple[str, Info] | None]:
        """Yield (key, entry) of the lines in parts of files (file, start, end), None for what does not count."""
        for file, start, end in parts:
            for offset, line in file.lines(start, end):
                if line[:1] != b"{":
                    yield None
                    continue
                info = parse_line(line + b"\n")
                if info is None:
                    self._report_line(file, offset)
                    continue
                ref = line_ref(file.number, offset, len(line) + 1)
                if ref in self._bad:
                    continue
                if self._doubles:
                    found = self.locate(info["#key"])
                    if found is None or found[1] != ref:
                        yield None
                        continue
                yield info["#key"], info

    # -- many keys

    def missing(self, keys: tp.Sequence[str], total: int = 0, *, frozen: bool = False) -> list[str]:
        """The keys that have no entry, in the order given, of ``total`` that will be asked for altogether.

        Looks at the folder once for all, or not again when ``frozen``.
        """
        while True:
            self.refresh(frozen=frozen)
            generation = self._generation
            keys = self._absent(keys, total)
            if not keys:
                return []
            with self.lock:
                if self._generation == generation and not self._forgot:
                    if not self._met_blank or frozen:
                        return list(keys)
                    self._met_blank = False
                    self.refresh()  # a line that is blank by now may have been replaced since the last look
                    if self._generation == generation:
                        return list(keys)

    def _absent(self, keys: tp.Sequence[str], total: int) -> list[str]:
        """The keys that have no entry, as far as this object has read the folder."""
        pending = self._pending()
        if not self._live:  # nothing worth keeping in memory, where each line written would be parsed for it
            return [key for key in keys if key not in pending] if pending else list(keys)
        self.expect(max(total, len(keys)))
        entries = self._fresh_preloaded()
        if entries is not None:
            return [key for key in keys if key not in entries and key not in pending]
        if len(keys) > _BULK_IMPORT or (len(keys) > _BULK and "numpy" in sys.modules):
            return self._absent_of_many(keys)
        return [key for key in keys if key not in pending and self.locate(key) is None]

    def _absent_of_many(self, keys: tp.Sequence[str]) -> list[str]:
        with self.lock:
            self._find_deleted()
            self._drop_dead()
            pending, recent = self._pending(), self._recent
            rest = [key for key in keys if key not in pending and key not in recent]
            if self._table is None or not rest:
                return rest
            try:
                found = sideindex.find_many(self._table, key_hashes(rest))
            except OSError:
                self.reset()
                self.refresh()
                return [key for key in rest if self.locate(key) is None]
            if not self._bad and found["length"].all():
                return []
            return [
                key
                for key, length in zip(rest, found["length"].tolist(), strict=True)
                if not length or (self._bad and self.locate(key) is None)
            ]

    def entries_of(
        self, keys: tp.Iterable[str]
    ) -> tp.Iterator[tuple[list[str], list[Info | None], tp.Callable[[int], LineRef]]]:
        """Yield keys in the order given, many at once, with their entries, and what gives the line of the n-th.

        An entry is None where the simple way does not lead to one. Lines that are close together are read at once,
        whatever order was asked for.
        """
        iterator = iter(keys)
        while chunk := list(itertools.islice(iterator, _CHUNK)):
            infos: list[Info | None] = [None] * len(chunk)
            if len(chunk) < _BULK and "numpy" not in sys.modules:
                yield chunk, infos, int
                continue
            rows = self._rows_of(chunk)
            for file, start, stop, numbers, spans in sideindex.runs(rows, len(self._files)):
                text = self._files[file].read(start, stop - start)
                read = parse_lines([text[begin:end] for begin, end in spans])
                for number, info in zip(numbers, read, strict=True):
                    if info is not None and info["#key"] == chunk[number]:
                        infos[number] = info

            def ref_of(number: int, rows: tp.Any = rows) -> LineRef:
                return _ref_of_row(rows[number].tolist()[1:])

            if self._bad:
                infos = [
                    None if info is None or ref_of(number) in self._bad else info
                    for number, info in enumerate(infos)
                ]
            yield chunk, infos, ref_of

    def _rows_of(self, keys: list[str]) -> "sideindex.Rows":
        """Rows of the side index for the newest lines of keys, of length 0 where that is not known."""
        if self._fresh:
            self._place()
        recent, table = self._recent, self._table  # in this order: lines move from one to the other
        try:
            rows = sideindex.find_many(table, key_hashes(keys))
        except OSError:  # damaged: they are found one by one, which builds it anew
            rows = sideindex.find_many(None, key_hashes(keys))
        if recent:
            known = [(number, recent[key]) for number, key in enumerate(keys) if key in recent]
            numbers = [number for number, _ in known]
            rows["file"][numbers], rows["offset"][numbers], rows["length"][numbers] = columns(
                [ref for _, ref in known]
            )
        return rows

    # -- changes by this process

    def perhaps_held(self, keys: tp.Collection[str]) -> list[str]:
        """Those of the keys of which a line may be known."""
        recent = self._recent
        found = [] if recent.keys().isdisjoint(keys) else [key for key in keys if key in recent]
        if self._table is not None:
            if len(keys) >= _FEW and "numpy" in sys.modules:
                with contextlib.suppress(OSError):  # damaged: they are looked up one by one
                    rows = sideindex.find_many(self._table, key_hashes(keys))
                    if not rows["length"].any():
                        return found
            found += [key for key in keys if key not in recent and self.refs_of(key)]
        return found

    def lines_of(self, key: str) -> list[Found]:
        """All entries of a key that are there, with their lines."""
        entries = [(self.read_entry(ref, key), ref) for ref in self.refs_of(key)]
        return [(info, ref) for info, ref in entries if info is not None]

    def added(
        self,
        name: str,
        status: os.stat_result,
        keys: tp.Collection[str],
        lines: list[bytes],
        gens: dict[str, int],
    ) -> None:
        """Take note of the lines of keys that this process appended to its file.

        ``gens`` holds those that replace an older line of their key; the writer has found none for the others.
        """
        with self.lock:
            file = self._file(name)
            lengths = list(map(len, lines))
            offset = status.st_size - sum(lengths)
            if file.scanned != offset:  # the file is to be read anew
                self._seen_mtime = -1
                self._generation += 1
                return
            if file.counted_mtime == file.mtime or offset == 0:
                file.counted_mtime = status.st_mtime_ns
            file.size = file.scanned = status.st_size
            file.inode, file.mtime = status.st_ino, status.st_mtime_ns
            recent, again = self._recent, list[tuple[str, LineRef]]()
            if gens or not recent.keys().isdisjoint(keys):
                refs = line_refs(file.number, offset, lengths)
                known = [
                    (key, ref, key in recent or key in gens) for key, ref in zip(keys, refs, strict=True)
                ]
                again = [(key, ref) for key, ref, before in known if before]
                recent.update((key, ref) for key, ref, before in known if not before)
            else:
                recent.update(dict.fromkeys(keys, _UNPLACED))
                self._fresh.append(
                    sideindex.Written(list(keys), file.number, offset, array.array("I", lengths))
                )
            self._live += len(lines) - len(again)
            self._unsaved += len(lines) - len(again)
            for key, ref in again:
                self._add(key, ref, gens.get(key, 0))
            if self.in_memory is not None:
                for key, line in zip(keys, lines, strict=True):
                    self.in_memory.add(key, line)
            self._generation += 1
            self._roll_if_large(_ROLL_WRITTEN)

    def delete(self, key: str, refs: tp.Iterable[LineRef] | None = None) -> list[Info | None]:
        """Blank all lines of a key (or those of ``refs``) and return their entries. Raises OSError when it may not.

        None is for an entry whose data may not be removed because of what its line holds.
        """
        with self.lock:
            gone: list[Info | None] = []
            data = os.path.join(self.folder, DATA_DIR)
            everything = refs is None
            for ref in self.refs_of(key) if refs is None else refs:
                info = self.read_entry(ref, key)
                number, offset, _ = parts_of(ref)
                file = self._files[number]
                if info is not None and file.blank(offset, self.read_line(ref)):
                    gone.append(info if file.may_remove(data) else None)
                    file.blanks += 1
            if not gone:
                return gone
            self._forget(key, everything)
            return gone

    def _forget(self, key: str, everything: bool) -> None:
        if self._fresh:
            self._place()
        was_in_tail = self._recent.get(key) is not None
        left = [ref for ref in self.refs_of(key) if self.read_entry(ref, key) is not None]
        if everything or not left:
            self._live -= 1
            if self.in_memory is not None:
                self.in_memory.pop(key, None)
            self._recent.pop(key, None)
            self._gens.pop(key, None)
            left = []
        elif was_in_tail:
            self._recent[key] = left[0]
        if len(left) > 1:
            self._others[key] = left[:0:-1]
        else:
            self._others.pop(key, None)
        self._dead_rows = self._dead_rows or not was_in_tail or self._doubles

    def clear(self) -> None:
        """Delete all entries and their data; the folder stays."""
        with self.lock:
            for name in os.listdir(self.folder) if os.path.isdir(self.folder) else ():
                if name.endswith((INFO_SUFFIX, DAMAGED_SUFFIX)) or name.startswith(".exca-"):
                    with contextlib.suppress(FileNotFoundError):
                        _files.remove(f"{self.folder}/{name}")
            data = f"{self.folder}/{DATA_DIR}"
            _files.empty(data)
            with contextlib.suppress(OSError):  # another process writes there again
                os.rmdir(data)
            self.reset()
            self.refresh()

    # -- damaged entries

    def set_aside(self, ctx: "DumpContext", key: str, ref: LineRef, error: Exception) -> None:
        """Take an entry out of the index because its data is damaged.

        Its line goes to ``<index file>.damaged``, files that only it used get the ending ``.damaged``. In a folder
        that cannot be written to (and on a network file system within a minute of the last write) it is only ignored.
        """
        file = self._files[file_of(ref)]
        message = "The entry %r of %s is damaged and counts as missing from now on: %s"
        logger.warning(message, key[:100], self.folder, error)
        with self.lock:
            trusted = file.may_remove(os.path.join(self.folder, DATA_DIR))
            if ref in self._bad:
                return
            info = self.read_entry(ref, key)
            if info is None:  # deleted or replaced meanwhile
                return
            line = self.read_line(ref)
            self._bad.add(ref)
            self.in_memory = None  # the key may have an older value
            with contextlib.suppress(OSError):
                if not trusted:  # another user wrote the line: it is passed over, nothing is removed for it
                    return
                if on_network(self.folder) and time.time() - os.stat(file.path).st_mtime < _NETWORK_GRACE:
                    return
                keep_line(file.path, line)
                self._bad.discard(ref)
                self.delete(key, [ref])
                self._bad.add(ref)
                for relative in ctx.own_files(info):
                    with contextlib.suppress(FileNotFoundError):
                        path = ctx.path(relative)
                        _files.move(path, os.path.basename(path) + DAMAGED_SUFFIX)

    def set_line_aside(
        self, ctx: "DumpContext", name: str, span: tuple[int, int], key: str | None, error: Exception
    ) -> bool:
        """Take a damaged line out of the index; False when it is not there any more, or must be left for now.

        ``span`` is where the line starts in the file of this name, and its length with its end; ``key`` is None when
        it cannot be read.
        """
        offset, length = span
        with self.lock:
            self.refresh()
            for ref in () if key is None else self.refs_of(key):
                if self.address(ref)[:2] == (name, offset):
                    self.set_aside(ctx, tp.cast(str, key), ref, error)
                    return not self.read_line(ref).strip()
            file = self._file(name)
            line = file.read(offset, length)
            if not line.strip() or not line.endswith(b"\n"):
                return False
            keep_line(file.path, line)
            return file.blank(offset, line)


def _ref_of_row(row: tuple[int, int, int]) -> LineRef:
    """The line that a row of the side index (offset, length, file) names."""
    return line_ref(row[2], row[0], row[1])
