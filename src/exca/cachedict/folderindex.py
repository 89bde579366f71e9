"""Where each key of a folder stands: one object a folder and process, shared by all `CacheDict` on it.

A deletion is seen when the line is read, at every access; only where many entries were asked for and all are kept in
memory (`exca.cachedict.hot`), one by another process may be seen 10 ms later.
"""

import array
import logging
import os
import threading
import time
import typing as tp
import weakref

from .. import _files
from .datafiles import DATA_DIR
from .folderreader import FolderReader, TableDamagedError
from .hot import INTERVAL, MAX_BYTES, HotEntries
from .textindex import MAX_LINE, TextFile, key_hash, parse_line

if tp.TYPE_CHECKING:
    from .writer import FolderWriter

logger = logging.getLogger("exca")

_registry: "weakref.WeakValueDictionary[str, FolderIndex]" = weakref.WeakValueDictionary()
_registry_lock = threading.Lock()

Entry = dict[str, tp.Any]
_ASKED = 128  # single look-ups from which on it may pay to read all entries


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


def _after_fork() -> None:
    global _registry_lock  # noqa: PLW0603  # a lock may be held by a thread that the child has not
    _registry_lock = threading.Lock()
    for index in list(_registry.values()):
        halfway = not index.lock.acquire(blocking=False)  # held by a thread that was not forked
        index.lock = threading.RLock()
        if halfway:
            index.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class FolderIndex(FolderReader):
    """Where each key of a folder stands."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.writer: FolderWriter | None = None  # of this process
        self._asked = 0  # entries looked up one by one
        self.met_blank = False  # whether a line that was known turned out deleted, or replaced

    # -- all in memory

    def hot_entries(self) -> HotEntries | None:
        """All entries, where they are in memory and up to date; None otherwise."""
        hot = self.hot
        if hot is None or time.monotonic() < hot.until:
            return hot
        start = time.monotonic()
        mtime = self._watch.mtime()
        if mtime != hot.mtime:
            with self.lock:
                self.refresh()
                self.find_deleted()
                hot.mtime = self._seen_mtime
        now = time.monotonic()
        hot.until = now + max(INTERVAL, 10 * (now - start))
        return self.hot

    def asked(self, number: int) -> None:
        """Take note that entries were, or will be, looked up one by one: from some number on reading all pays."""
        self._asked += number
        if self._asked > max(_ASKED, self.live // 50) and self.hot is None:
            self._asked = 0
            if sum(file.scanned for file in self.files) <= MAX_BYTES:
                self._load_hot()

    def _load_hot(self) -> None:
        with self.lock:
            if self.hot is not None:  # another thread was faster
                return
            self.refresh()
            hot = HotEntries(self._seen_mtime)
            doubtful = [key for file in self.files for key in hot.read(file)]
            for place in self.bad:
                info = parse_line(self.read_line(place))
                doubtful += [] if info is None else [info["#key"]]
            for key in doubtful:
                found = self.locate(key)
                hot.pop(key, None)
                if found is not None:
                    hot.add(key, self.read_line(found[1]))
            self.hot = hot
            self.refresh()  # for what replaced a line that was blank by now

    # -- keys

    def add(self, key: str, place: int, gen: int) -> None:
        """Take note of a line."""
        self._unsaved += 1
        older = self.tail.get(key)
        if older is None:
            rows = self.find(key_hash(key)) if self.table is not None else []
            losers = [p for p in map(pack, rows) if p != place and self.read_entry(p, key) is not None]
            if not losers:
                self.live += 1
                self.tail[key] = place
                if gen:
                    self.gens[key] = gen
                return
        else:
            if older == place:
                return
            losers = [older, *self.others.get(key, ())]
        self.doubles = True
        ranked = sorted([(gen, *self._order(place)), *map(self._rank, losers)])
        self.gens[key] = ranked[-1][0]
        self.others[key] = [r[-1] for r in ranked[:-1]]
        self.tail[key] = ranked[-1][-1]

    def add_line(self, place: int) -> None:
        """Take note of the line at a place, which is read for it."""
        info = self.read_entry(place)
        if info is not None:
            self.add(info["#key"], place, info.get("#gen", 0))

    def _order(self, place: int) -> tuple[str, int, int]:
        return self.files[place >> 80].name, place >> 32 & 0xFFFFFFFFFFFF, place

    def _rank(self, place: int) -> tuple[int, str, int, int]:
        info = self.read_entry(place)
        return (-1 if info is None else info.get("#gen", 0), *self._order(place))

    def read_line(self, place: int) -> bytes:
        """The bytes at a place."""
        if place & 0xFFFFFFFF > MAX_LINE + 1:  # a row of the side index that is none
            return b""
        return self.files[place >> 80].read(place >> 32 & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF)

    def read_entry(self, place: int, key: str | None = None) -> Entry | None:
        """The entry at a place, or None when it was deleted, is damaged or belongs to another key."""
        try:
            if place & 0xFFFFFFFF > MAX_LINE + 1:
                raise IndexError
            line = self.files[place >> 80].read(place >> 32 & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF)
        except IndexError:  # a damaged row of the side index
            self.reset()
            return None
        if line[:1] == b" " or (self.bad and place in self.bad):
            self.met_blank = True
            return None
        info = parse_line(line)
        if info is None:
            info = self._suspect(place, line)
            if info is None:
                return None
        if key is None or info["#key"] == key:
            return info
        if key_hash(info["#key"]) != key_hash(key):  # no collision: the side index is wrong
            self.reset()
        return None

    def _suspect(self, place: int, line: bytes) -> Entry | None:
        """A known line does not read as one: damaged, or the file was changed under us, or read in that moment."""
        file = self.files[place >> 80]
        again = file.read(place >> 32 & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF)
        if again != line:
            info = parse_line(again)
            if info is not None or again[:1] == b" ":  # seen in the middle of a deletion
                return info
        offset = place >> 32 & 0xFFFFFFFFFFFF
        if again[-1:] != b"\n" or (offset and file.read(offset - 1, 1) != b"\n"):
            self.reset()  # no line starts or ends here any more
            return None
        self.bad.add(place)
        self.report_line(file, offset)
        return None

    def places(self, key: str) -> list[int]:
        """All places where a line of this key may stand, the winner first."""
        place = self.tail.get(key)
        if place is not None:
            return [place, *reversed(self.others.get(key, ()))]
        try:
            rows = self.find(key_hash(key))
        except TableDamagedError:
            self.refresh()
            return self.places(key)
        if len(rows) < 2:
            return [pack(row) for row in rows]
        return [r[-1] for r in sorted(map(self._rank, map(pack, rows)), reverse=True)]

    def locate(self, key: str) -> tuple[Entry, int] | None:
        """The entry of a key and its place, as far as this object has read the folder."""
        for place in self.places(key):
            info = self.read_entry(place, key)
            if info is not None:
                return info, place
        return None

    def count(self) -> int:
        """Number of keys."""
        with self.lock:
            self.refresh()
            self.find_deleted()
            return self.live

    def find_deleted(self) -> None:
        """Take note of deletions by others: files that changed are searched for blank lines."""
        deleted = False
        for file in self.files:
            if file.counted_mtime == file.mtime or not file.scanned:
                continue
            if file.count_blanks() == file.blanks:
                file.counted_mtime = file.mtime
            else:
                deleted = True
        if deleted:
            self.dead_rows = True
            self.drop_dead()
            self.refresh()  # what took the place of a blank line was there before it was blank

    def drop_dead(self) -> None:
        """Drop lines that were deleted, so that every row of the table is alive."""
        if not self.dead_rows:
            return
        with self.lock:
            self.hot = None
            if self.doubles:
                self.reset()
                self.refresh()
                return
            for file in self.files:
                file.counted_mtime, file.blanks = file.mtime, file.count_blanks()
            self.tail = {key: place for key, place in self.tail.items() if self.read_line(place)[:1] == b"{"}
            self.live = len(self.tail)
            if self.table is not None:
                from . import sidebuild

                try:
                    rows = sidebuild.rows_of_table(self.table)
                except OSError:
                    self.reset()
                    self.refresh()
                    return
                texts = {file.number: file.read(0, file.scanned) for file in self.files if file.blanks}
                rows = rows[sidebuild.alive(rows, texts)]
                self.live += len(rows)
                self.table = sidebuild.build([rows], len(rows), self.marks())
            self.dead_rows = False

    def entries(self) -> tp.Iterator[tuple[str, Entry]]:
        """Yield (key, entry) in the order of the text index, one for each key that is there all the while.

        A key may be replaced meanwhile: its line is found blank, and the new one is behind what is gone through. So
        what was appended since is looked at in the end, until nothing in it has been replaced in turn. Of each key
        that was yielded only a hash is kept.
        """
        with self.lock:
            self.refresh()
            # another thread may forget all meanwhile and read it anew
            parts = [(file, 0, file.scanned) for file in self.files]
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
                parts = [(f, min(ends.get(f.number, 0), f.scanned), f.scanned) for f in self.files]
            ends = {file.number: end for file, _, end in parts}
            for entry in self._between([part for part in parts if part[1] < part[2]]):
                blanks = blanks or entry is None
                if entry is None or not entry[1].get("#gen"):  # blank, or a key that is new
                    continue
                known = set(seen) if known is None else known
                if hash(entry[0]) not in known:
                    known.add(hash(entry[0]))
                    yield entry

    def _between(self, parts: list[tuple[TextFile, int, int]]) -> tp.Iterator[tuple[str, Entry] | None]:
        """Yield (key, entry) of the lines in parts of files (file, start, end), None for what does not count."""
        for file, start, end in parts:
            for offset, line in file.lines(start, end):
                if line[:1] != b"{":
                    yield None
                    continue
                info = parse_line(line + b"\n")
                if info is None:
                    self.report_line(file, offset)
                    continue
                place = file.number << 80 | offset << 32 | len(line) + 1
                if place in self.bad:
                    continue
                if self.doubles:
                    found = self.locate(info["#key"])
                    if found is None or found[1] != place:
                        yield None
                        continue
                yield info["#key"], info

    # -- changes by this process

    def added(
        self, name: str, status: os.stat_result, lines: list[tuple[str, bytes]], gens: dict[str, int]
    ) -> None:
        """Take note of lines (key, line) that this process appended to its file.

        ``gens`` holds those that stand for an older line of their key; the writer has found none for the others.
        """
        with self.lock:
            file = self.file(name)
            offset = status.st_size - sum([len(line) for _, line in lines])
            if file.scanned != offset:  # the file is to be read anew
                self._seen_mtime = -1
                self.generation += 1
                return
            if file.counted_mtime == file.mtime or offset == 0:
                file.counted_mtime = status.st_mtime_ns
            file.size = file.scanned = status.st_size
            file.inode, file.mtime = status.st_ino, status.st_mtime_ns
            tail, base = self.tail, file.number << 80
            for key, line in lines:
                length = len(line)
                place = base | offset << 32 | length
                offset += length
                if key in tail or key in gens:
                    self.add(key, place, gens.get(key, 0))
                    continue
                tail[key] = place
                self.live += 1
                self._unsaved += 1
            if self.hot is not None:
                for key, line in lines:
                    self.hot.add(key, line)
            self.generation += 1
            self.roll_if_large()

    def delete(self, key: str, places: tp.Iterable[int] | None = None) -> list[Entry | None]:
        """Blank all lines of a key (or those at ``places``). Raises OSError when it may not.

        Returns
        -------
        their entries; None in the place of one on whose word nothing may be removed
        """
        with self.lock:
            gone: list[Entry | None] = []
            data = os.path.join(self.folder, DATA_DIR)
            everything = places is None
            for place in self.places(key) if places is None else places:
                info = self.read_entry(place, key)
                file = self.files[place >> 80]
                if info is not None and file.blank(place >> 32 & 0xFFFFFFFFFFFF, self.read_line(place)):
                    gone.append(info if file.may_remove(data) else None)
                    file.blanks += 1
            if not gone:
                return gone
            self._forget(key, everything)
            return gone

    def _forget(self, key: str, everything: bool) -> None:
        was_in_tail = self.tail.get(key) is not None
        left = [place for place in self.places(key) if self.read_entry(place, key) is not None]
        if everything or not left:
            self.live -= 1
            if self.hot is not None:
                self.hot.pop(key, None)
            self.tail.pop(key, None)
            self.gens.pop(key, None)
            left = []
        elif was_in_tail:
            self.tail[key] = left[0]
        if len(left) > 1:
            self.others[key] = left[:0:-1]
        else:
            self.others.pop(key, None)
        self.dead_rows = self.dead_rows or not was_in_tail or self.doubles


def pack(row: tuple[int, int, int]) -> int:
    """The place that a row of the side index (offset, length, file) names."""
    return row[2] << 80 | row[0] << 32 | row[1]
