"""What a process knows of one folder: the text index of all writers, seen through the side index.

One object a folder and process, shared by all `CacheDict` on it. What has been read since the side index was
written is kept in memory (`tail`); it moves to a new side index when it has grown.

How changes of others are seen: whoever writes or deletes sets the folder's mtime. A key that is not known makes
this object look at that mtime; when it has moved (or 50 ms after the last look in any case) the sizes of all
files are read, and of those that grew the new part. A deletion is seen when the line is read, at every access.
On a network file system a host may see sizes as late as its attribute cache allows (on NFS `acregmax`, `acdirmax`).
"""

import logging
import os
import threading
import time
import typing as tp
import weakref

import orjson
import xxhash

from .sideindex import FileMark, Table
from .textindex import INFO_SUFFIX, TextFile, key_hash, parse_line

if tp.TYPE_CHECKING:
    from .writer import FolderWriter

logger = logging.getLogger("exca")

LOOK_INTERVAL = 0.05  # s: sizes of all files are looked at this often at least, when keys are missed
_SETTLED = 20_000_000  # ns: an mtime younger than this may stand for two changes
_SAVE_LINES = 4096  # lines read that no side index held, from which on a new one is written
_ROLL_LINES = 65536  # lines kept in memory by key before they move to a table
_registry: "weakref.WeakValueDictionary[str, FolderIndex]" = weakref.WeakValueDictionary()
_registry_lock = threading.Lock()

Entry = dict[str, tp.Any]


def index_of(folder: str) -> "FolderIndex":
    """The object of this process for a folder."""
    path = os.path.abspath(folder)
    with _registry_lock:
        index = _registry.get(path)
        if index is None:
            _registry[path] = index = FolderIndex(path)
    return index


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for index in list(_registry.values()):
        index.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class FolderIndex:
    """Where each key of a folder stands. A place is packed: ``file << 80 | offset << 32 | length``."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.files: list[TextFile] = []  # only ever grows, so that a place keeps its meaning
        self._numbers: dict[str, int] = {}
        self.table: Table | None = None
        self.tail: dict[str, int] = {}
        self.others: dict[str, list[int]] = {}  # further lines of keys in the tail, which lost
        self._gens: dict[str, int] = {}
        self.bad: set[int] = set()  # lines that stand but must not be used
        self._live = 0
        self._doubles = False  # whether some key has more than one line
        self._dead_rows = False  # whether the table holds lines that were deleted since
        self._unsaved = 0
        self._loaded = False
        self._seen_mtime = -1
        self._next_look = 0.0
        self._reported: set[tuple[str, int]] = set()
        self.writer: "FolderWriter | None" = None  # of this process

    # -- looking at the folder

    def changed(self) -> bool:
        """Whether a missed key is worth a look at the folder."""
        try:
            mtime = os.stat(self.folder).st_mtime_ns
        except OSError:
            return bool(self.files) or not self._loaded
        return mtime != self._seen_mtime or time.monotonic() > self._next_look

    def refresh(self) -> bool:
        """Read what is new in the folder; returns whether anything was."""
        with self.lock:
            try:
                mtime = os.stat(self.folder).st_mtime_ns
                found = self._list()
            except FileNotFoundError:
                mtime, found = -1, {}
            if not self._loaded:
                self._loaded = True
                self._load_table(found)
            news = self._read_news(found)
            # an mtime as young as this may be shared by a change that is still to come
            self._seen_mtime = mtime if abs(time.time_ns() - mtime) > _SETTLED else -1
            self._next_look = time.monotonic() + LOOK_INTERVAL
            if self._unsaved > _SAVE_LINES:
                self.save()
            return news

    def _list(self) -> dict[str, os.stat_result]:
        found = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(INFO_SUFFIX) and not entry.name.startswith("."):
                    try:
                        found[entry.name] = entry.stat()
                    except FileNotFoundError:
                        continue
        return found

    def _file(self, name: str) -> TextFile:
        number = self._numbers.get(name)
        if number is None:
            self._numbers[name] = number = len(self.files)
            self.files.append(TextFile(self.folder, name, number))
        return self.files[number]

    def _read_news(self, found: dict[str, os.stat_result]) -> bool:
        news = False
        for file in self.files:
            stat = found.get(file.name)
            if file.scanned and (stat is None or stat.st_size < file.scanned or stat.st_ino != file.inode):
                self.reset()
                news = True
                break
        for name in sorted(found):
            stat = found[name]
            file = self._file(name)
            file.size, file.mtime, file.inode = stat.st_size, stat.st_mtime_ns, stat.st_ino
            if file.size > file.scanned:
                news = self._scan(file) or news
        return news

    def _scan(self, file: TextFile) -> bool:
        start = file.scanned
        if start == 0:
            file.counted_mtime = file.mtime
        end = start
        for offset, line in file.lines(start, file.size):
            end = offset + len(line) + 1
            first = line[:1]
            if first == b"{":
                try:
                    info = orjson.loads(line)
                    key = info["#key"]
                    self._add(key, file.number << 80 | offset << 32 | len(line) + 1, info.get("#gen", 0))
                    continue
                except (ValueError, KeyError, TypeError, AttributeError):
                    self.report_line(file, offset)
            elif first == b" ":
                file.blanks += 1
            elif line:
                self.report_line(file, offset)
        file.scanned = end
        return end > start

    def report_line(self, file: TextFile, offset: int) -> None:
        """Say once that a line is no entry."""
        if (file.name, offset) not in self._reported:
            self._reported.add((file.name, offset))
            logger.warning(
                "Skipped a damaged line at byte %d of %s: its entry counts as missing", offset, file.path
            )

    def reset(self) -> None:
        """Forget everything read: the text index is read anew at the next refresh."""
        with self.lock:
            for file in self.files:
                file.scanned = file.blanks = 0
                file.drop_handle()
            self.table = None
            self.tail, self.others, self._gens = {}, {}, {}
            self._live = self._unsaved = 0
            self._doubles = self._dead_rows = False
            self._seen_mtime = -1

    # -- the side index

    def _load_table(self, found: dict[str, os.stat_result]) -> None:
        table = Table.load(self.folder)
        if table is None:
            return
        for mark in table.marks:
            file = self._file(mark.name)
            if not self._still_true(file, mark, found.get(mark.name)):
                self.reset()
                return
            file.scanned, file.blanks, file.counted_mtime = mark.covered, mark.blanks, mark.mtime
            file.inode = found[mark.name].st_ino if mark.covered else 0
        self.table = table
        self._live = table.keys
        self._doubles = table.entries > table.keys

    def _still_true(self, file: TextFile, mark: FileMark, stat: os.stat_result | None) -> bool:
        if mark.covered == 0:
            return True
        if stat is None or stat.st_size < mark.covered:
            return False
        if (stat.st_ino, stat.st_mtime_ns) == (mark.inode, mark.mtime):
            return True
        last = file.read(mark.last, mark.covered - mark.last)
        return last[-1:] == b"\n" and (last.isspace() or xxhash.xxh3_64_intdigest(last) == mark.last_sum)

    def roll(self) -> None:
        """Move the tail into a table."""
        from . import sidebuild

        with self.lock:
            self.drop_dead()
            known = self.table
            places = list(self.tail.items())
            for key, losers in self.others.items():
                rows = {n << 80 | o << 32 | s for o, s, n in known.find(key_hash(key))} if known else set()
                places += [(key, place) for place in losers if place not in rows]
            in_table = [] if known is None else [sidebuild.rows_of_table(known)]
            parts = [*in_table, sidebuild.rows_of_places(places, len(places))]
            # the table first: a reader without the lock looks at the tail before the table
            self.table = sidebuild.build(parts, self._live, self._marks())
            self.tail, self.others, self._gens = {}, {}, {}

    def roll_if_large(self) -> None:
        """Bound the memory of a long writer."""
        if len(self.tail) > _ROLL_LINES and (self.table is None or len(self.tail) * 4 > self.table.entries):
            self.roll()

    def save(self) -> None:
        """Write the side index when much was read or written that the one in the folder does not hold."""
        with self.lock:
            entries = 0 if self.table is None else self.table.entries
            if self._unsaved <= max(_SAVE_LINES, entries // 16) or not os.access(self.folder, os.W_OK):
                return
            try:
                self.roll()
            except OSError:  # the old table is damaged; the next refresh reads the text
                self.reset()
                return
            if self.table is not None and self.table.save(self.folder):
                self._unsaved = 0

    def _marks(self) -> list[FileMark]:
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
        """Rows of the table for a hash; a damaged table is thrown away and the text read instead."""
        table = self.table
        if table is None:
            return []
        try:
            return table.find(hash_)
        except OSError:
            logger.info("The side index of %s is damaged and is built anew", self.folder)
            self.reset()
            self.refresh()
            return [] if self.table is None else self.table.find(hash_)

    # -- keys

    def _add(self, key: str, place: int, gen: int) -> None:
        self._unsaved += 1
        older = self.tail.get(key)
        if older is None:
            rows = self.find(key_hash(key)) if self.table is not None else []
            losers = [p for p in map(_pack, rows) if p != place and self.read_entry(p, key) is not None]
            if not losers:
                self._live += 1
                self.tail[key] = place
                if gen:
                    self._gens[key] = gen
                return
        else:
            if older == place:
                return
            losers = [older, *self.others.get(key, ())]
        self._doubles = True
        ranked = sorted([(gen, *self._order(place)), *map(self._rank, losers)])
        self._gens[key] = ranked[-1][0]
        self.others[key] = [r[-1] for r in ranked[:-1]]
        self.tail[key] = ranked[-1][-1]

    def _order(self, place: int) -> tuple[str, int, int]:
        return self.files[place >> 80].name, place >> 32 & 0xFFFFFFFFFFFF, place

    def _rank(self, place: int) -> tuple[int, str, int, int]:
        info = self.read_entry(place)
        return (-1 if info is None else info.get("#gen", 0), *self._order(place))

    def read_line(self, place: int) -> bytes:
        """The bytes at a place."""
        return self.files[place >> 80].read(place >> 32 & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF)

    def read_entry(self, place: int, key: str | None = None) -> Entry | None:
        """The entry at a place, or None when it was deleted, is damaged or belongs to another key."""
        line = self.files[place >> 80].read(place >> 32 & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF)
        if line[:1] != b"{" or (self.bad and place in self.bad):
            if line[:1] != b" " and place not in self.bad:
                self._suspect(place, line)
            return None
        info = parse_line(line)
        if info is None:
            self._suspect(place, line)
            return None
        return info if key is None or info["#key"] == key else None

    def _suspect(self, place: int, line: bytes) -> None:
        """A known line does not read as one: damaged, or the file was changed under us."""
        file = self.files[place >> 80]
        again = file.read(place >> 32 & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF)
        if again != line and (again[:1] == b" " or parse_line(again) is not None):
            return  # seen in the middle of a deletion
        self.bad.add(place)
        self.report_line(file, place >> 32 & 0xFFFFFFFFFFFF)

    def places(self, key: str) -> list[int]:
        """All places where a line of this key may stand, the winner first."""
        place = self.tail.get(key)
        if place is not None:
            return [place, *reversed(self.others.get(key, ()))]
        rows = self.find(key_hash(key))
        if len(rows) < 2:
            return [_pack(row) for row in rows]
        return [r[-1] for r in sorted(map(self._rank, map(_pack, rows)), reverse=True)]

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
            return self._live

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
            self._dead_rows = True
            self.drop_dead()

    def drop_dead(self) -> None:
        """Drop lines that were deleted, so that every row of the table is alive."""
        if not self._dead_rows:
            return
        with self.lock:
            if self._doubles:
                self.reset()
                self.refresh()
                return
            for file in self.files:
                file.counted_mtime, file.blanks = file.mtime, file.count_blanks()
            self.tail = {key: place for key, place in self.tail.items() if self.read_line(place)[:1] == b"{"}
            self._live = len(self.tail)
            if self.table is not None:
                from . import sidebuild

                rows = sidebuild.rows_of_table(self.table)
                texts = {file.number: file.read(0, file.scanned) for file in self.files if file.blanks}
                rows = rows[sidebuild.alive(rows, texts)]
                self._live += len(rows)
                self.table = sidebuild.build([rows], len(rows), self._marks())
            self._dead_rows = False

    def entries(self) -> tp.Iterator[tuple[str, Entry]]:
        """Yield (key, entry) in the order of the text index, one for each key."""
        self.refresh()
        for file in list(self.files):
            for offset, line in file.lines(0, file.scanned):
                if line[:1] != b"{":
                    continue
                info = parse_line(line + b"\n")
                if info is None:
                    self.report_line(file, offset)
                    continue
                place = file.number << 80 | offset << 32 | len(line) + 1
                if place in self.bad:
                    continue
                if self._doubles:
                    found = self.locate(info["#key"])
                    if found is None or found[1] != place:
                        continue
                yield info["#key"], info

    # -- changes by this process

    def added(self, name: str, inode: int, mtime: int, lines: list[tuple[str, int, int]], size: int) -> None:
        """Take note of lines (key, length, gen) that this process appended to its file, which now has ``size`` bytes."""
        with self.lock:
            file = self._file(name)
            offset = size - sum(length for _, length, _ in lines)
            if file.scanned != offset:  # never seen to happen, but the text is the truth
                return
            if file.counted_mtime == file.mtime or offset == 0:
                file.counted_mtime = mtime
            file.size = file.scanned = size
            file.inode, file.mtime = inode, mtime
            for key, length, gen in lines:
                self._add(key, file.number << 80 | offset << 32 | length, gen)
                offset += length
            self.roll_if_large()

    def delete(self, key: str, places: tp.Iterable[int] | None = None) -> list[Entry]:
        """Blank all lines of a key (or those at ``places``); returns their entries. Raises OSError in a read-only folder."""
        with self.lock:
            gone = []
            everything = places is None
            for place in self.places(key) if places is None else places:
                info = self.read_entry(place, key)
                file = self.files[place >> 80]
                if info is not None and file.blank(place >> 32 & 0xFFFFFFFFFFFF, self.read_line(place)):
                    gone.append(info)
                    file.blanks += 1
            if not gone:
                return gone
            self._forget(key, everything)
            return gone

    def _forget(self, key: str, everything: bool) -> None:
        was_in_tail = self.tail.get(key) is not None
        left = [place for place in self.places(key) if self.read_entry(place, key) is not None]
        if everything or not left:
            self._live -= 1
            self.tail.pop(key, None)
            self._gens.pop(key, None)
            left = []
        elif was_in_tail:
            self.tail[key] = left[0]
        if len(left) > 1:
            self.others[key] = left[:0:-1]
        else:
            self.others.pop(key, None)
        self._dead_rows = self._dead_rows or not was_in_tail or self._doubles


def _pack(row: tuple[int, int, int]) -> int:
    return row[2] << 80 | row[0] << 32 | row[1]
