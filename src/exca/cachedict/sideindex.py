"""The binary side index: where the line of a key is, found with one read. Derived: safe to delete at any time.

Layout (little endian): a header of 64 bytes, a JSON text that holds up to which byte each text file has been
indexed, and a hash table of rows of 24 bytes ``(hash, offset, length, file)``. Rows are sorted by hash; the home of a
row is ``hash * slots >> 64`` and rows that collide follow it, so a search stops at an empty row or a greater hash.
A row is only where to look: the line found there must hold the key asked for.
"""

import array
import contextlib
import itertools
import os
import struct
import sys
import time
import typing as tp

import orjson
import xxhash

from .. import _files
from .._files import Handle, pread, writer_name
from .textindex import LineRef, columns, key_hashes, line_ref

if tp.TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[tp.Any]

FILE_NAME = ".exca-index"
TURN_NAME = ".exca-index-turn"
_TURN_LOOKS, _TURN_PAUSE = 200, 0.005  # how often a saver looks whether another one is done, and s between
_MAGIC = b"EXCAIDX1"
# magic, slots, rows, entries, keys, meta length, body checksum, header checksum
_HEADER = struct.Struct("<8sQQQQQQQ")
ROW = struct.Struct("<QQII")
_WINDOW = 8 * ROW.size  # bytes read for one search: nearly always enough
_IN_MEMORY = 64 << 20  # a table up to this many bytes is read whole once it is asked often
_OFTEN = 64
_MAX_META = 64 << 20  # bytes of JSON; of a hundred thousand index files it is a quarter of that
_LOAD = 0.7  # rows over slots: at this filling a search reads two rows on average
_WORTH = 64  # rows of a table that are worth reading for each key that it was asked for
_GAP = 4096  # bytes between lines that are read rather than skipped
_MOST = 1 << 20  # bytes read at once
SEVERAL = (1 << 32) - 1  # in the place of the number of a file


@contextlib.contextmanager
def turn(folder: str) -> tp.Iterator[None]:
    """Context in which others of the folder wait, for a second at most, before they write the side index.

    It saves work only: of many that start at once, all but one would write a table that is old when it is done.
    """
    path = os.path.join(folder, TURN_NAME)
    for _ in range(_TURN_LOOKS):
        try:
            os.close(_files.create_file(path))
            break
        except FileExistsError:
            time.sleep(_TURN_PAUSE)
        except OSError:
            break
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # also that of a process that died in the middle
            _files.remove(path)


class FileMark(tp.NamedTuple):
    """How far a text file is indexed, and how to tell that it is still the same file."""

    name: str
    covered: int  # bytes
    blanks: int  # deleted lines in them
    inode: int
    mtime: int  # ns
    last: int  # offset of the last line covered
    last_sum: int  # its checksum


def _is_mark(mark: FileMark) -> bool:
    if type(mark.name) is not str or "/" in mark.name:
        return False
    if not all(type(n) is int and n >= -1 for n in mark[1:]):
        return False
    return mark.last >= 0 and 0 <= mark.covered - mark.last <= 1 << 16


def _identity(fd: int) -> tuple[int, int, int]:
    status = _files.require_regular(fd)
    return status.st_ino, status.st_size, status.st_mtime_ns


class Table:
    """A table in memory or in a file; ``files`` are its own file numbers' names."""

    def __init__(self, slots: int, rows: int, entries: int, keys: int, marks: list[FileMark]) -> None:
        self.slots: int = slots
        self.rows: int = rows
        self.entries: int = entries
        self.keys: int = keys
        self.marks: list[FileMark] = marks
        self.asked: int = 0  # for how many keys at once
        self._data: bytes | memoryview = b""
        self._handle: Handle | None = None
        self._path = ""  # of the file; empty for a table in memory
        self._known = (0, 0, 0)
        self._base = 0
        self._searches = 0
        self._sum = 0
        self._verified = True

    @property
    def in_file(self) -> bool:
        """Whether it was read from a file."""
        return bool(self._path)

    def drop_handle(self) -> None:
        """Close the file; it is opened again when it is asked, if it is still the same."""
        self._handle = None

    def _open(self) -> Handle:
        """The open file; hold the returned object while using its ``fd``. Raises OSError when it is another by now."""
        handle = self._handle
        if handle is None:
            handle = Handle.open(self, self._path)
            if _identity(handle.fd) != self._known:
                raise OSError("the side index was replaced")
            self._handle = handle
        return handle

    @classmethod
    def of_bytes(
        cls, data: bytes | memoryview, slots: int, entries: int, keys: int, marks: list[FileMark]
    ) -> "Table":
        """A table over rows built in memory."""
        self = cls(slots, len(data) // ROW.size, entries, keys, marks)
        self._data = data
        return self

    @classmethod
    def load(cls, folder: str) -> "Table | None":
        """Open the side index of a folder; None when there is none or it is damaged."""
        try:
            self = cls(0, 0, 0, 0, [])
            self._path = os.path.join(folder, FILE_NAME)
            handle = Handle.open(self, self._path)
            known = _identity(handle.fd)
            header = pread(handle.fd, _HEADER.size, 0)
            if len(header) != _HEADER.size or header[:8] != _MAGIC:
                return None
            _, slots, rows, entries, keys, length, body_sum, header_sum = _HEADER.unpack(header)
            base = _HEADER.size + length
            # also before so many bytes are asked for
            if known[1] != base + rows * ROW.size or slots > rows or length > _MAX_META:
                return None
            meta = pread(handle.fd, length, _HEADER.size)
            if xxhash.xxh3_64_intdigest(header[:-8] + meta) != header_sum:
                return None
            self.marks = [FileMark(*mark) for mark in orjson.loads(meta)]
            if not all(map(_is_mark, self.marks)):
                return None
        except (OSError, ValueError, TypeError):
            return None
        self.slots, self.rows, self.entries, self.keys = slots, rows, entries, keys
        self._handle, self._known, self._base, self._sum = handle, known, base, body_sum
        self._verified = False
        return self

    def find(self, hash_: int) -> list[tuple[int, int, int]]:
        """(offset, length, file number) of all lines whose key has this hash. Raises OSError if the file is broken."""
        start = (hash_ * self.slots >> 64) * ROW.size
        data = self._data
        if data:
            unpack = ROW.unpack_from
            try:
                row = unpack(data, start)
                found = []
                while row[2] and row[0] <= hash_:
                    if row[0] == hash_:
                        found.append(row[1:])
                    start += 24
                    row = unpack(data, start)
            except struct.error:
                raise OSError("the side index has no end") from None
            return found
        return self._find_in_file(hash_, start)

    def _find_in_file(self, hash_: int, start: int) -> list[tuple[int, int, int]]:
        self._searches += 1
        if self._searches > _OFTEN and self.rows * ROW.size <= _IN_MEMORY:
            self.read_all()
            return self.find(hash_)
        found: list[tuple[int, int, int]] = []
        handle = self._open()
        while True:
            window = pread(handle.fd, _WINDOW, self._base + start)
            if len(window) < ROW.size:
                raise OSError("the side index is cut short")
            for row in ROW.iter_unpack(window[: len(window) // ROW.size * ROW.size]):
                if not row[2] or row[0] > hash_:
                    if not found:
                        self.verify()  # before it is believed that a key is not there
                    return found
                if row[0] == hash_:
                    found.append(row[1:])
            start += _WINDOW

    def verify(self) -> None:
        """Check the whole table once against its checksum. Raises OSError when it is damaged."""
        if self._verified or not self._path:
            return
        handle = self._open()
        hasher, position, stop = xxhash.xxh3_64(), self._base, self._base + self.rows * ROW.size
        while chunk := pread(handle.fd, min(1 << 20, stop - position), position):
            hasher.update(chunk)
            position += len(chunk)
        if hasher.intdigest() != self._sum:
            raise OSError("the side index is damaged")
        self._verified = True

    def read_all(self, keep: int = _IN_MEMORY) -> bytes | memoryview:
        """All rows, kept in memory from now on up to so many bytes. Raises OSError when the table is damaged."""
        if self._data or not self._path:
            return self._data
        handle = self._open()
        size = self.rows * ROW.size
        data = pread(handle.fd, size, self._base)
        # one read returns at most 2 GiB
        while len(data) < size and (more := pread(handle.fd, size - len(data), self._base + len(data))):
            data += more
        if len(data) != size or xxhash.xxh3_64_intdigest(data) != self._sum:
            raise OSError("the side index is damaged")
        self._verified = True
        if size <= keep:
            self._data = data
        return data

    def save(self, folder: str, wanted: tp.Callable[[], bool] = lambda: True) -> bool:
        """Write the table beside the text index in one atomic step; returns whether it was written.

        ``wanted`` is asked at the last moment whether it still should be.
        """
        data = self.read_all()
        meta = orjson.dumps(list(map(tuple, self.marks)))
        numbers = (self.slots, self.rows, self.entries, self.keys, len(meta), xxhash.xxh3_64_intdigest(data))
        head = _HEADER.pack(_MAGIC, *numbers, 0)[:-8]
        header = head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head + meta))
        temporary = os.path.join(folder, f"{FILE_NAME}-{writer_name.fresh()}.tmp")
        try:
            with open(_files.create_file(temporary), "wb") as file:
                file.write(header + meta)
                file.write(data)
            if wanted() and not is_of_later_release(folder):
                os.replace(temporary, os.path.join(folder, FILE_NAME))
                return True
        except OSError:
            pass
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        return False


def is_of_later_release(folder: str) -> bool:
    """Whether the side index in a folder has the format of a later release, which goes on using it."""
    try:
        fd = _files.open_file(os.path.join(folder, FILE_NAME))
    except OSError:
        return False
    try:
        data = pread(fd, len(_MAGIC), 0)
    except OSError:
        return False
    finally:
        os.close(fd)
    return data[:-1] == _MAGIC[:-1] and data > _MAGIC


# -- building and merging tables, and many keys at once: what needs numpy


def _dtype() -> "np.dtype[tp.Any]":
    import numpy as np

    return np.dtype([("hash", "<u8"), ("offset", "<u8"), ("length", "<u4"), ("file", "<u4")])


def rows_of_table(table: Table) -> "Rows":
    """All rows of a table, sorted by hash. Raises OSError when the table is damaged."""
    import numpy as np

    rows = np.frombuffer(table.read_all(), dtype=_dtype())
    rows = rows[rows["length"] > 0]
    if table.in_file and len(rows) and int(rows["file"].max()) >= len(table.marks):
        raise OSError("the side index names files that it does not know")
    return rows


def rows_of_lines(keys: tp.Sequence[str], refs: tp.Sequence[LineRef]) -> "Rows":
    """Rows for the lines of keys."""
    import numpy as np

    rows = np.empty(len(keys), dtype=_dtype())
    rows["hash"] = key_hashes(keys)
    rows["file"], rows["offset"], rows["length"] = columns(refs)
    return rows


class Written(tp.NamedTuple):
    """Lines that follow each other in a file."""

    keys: list[str]
    file: int
    offset: int
    lengths: "array.array[int]"


def rows_written(parts: tp.Sequence[Written]) -> "Rows":
    """Rows for lines that were written together."""
    import numpy as np

    counts = [len(part.keys) for part in parts]
    rows = np.empty(sum(counts), dtype=_dtype())
    rows["hash"] = key_hashes(itertools.chain.from_iterable([part.keys for part in parts]))
    rows["length"] = lengths = np.concatenate(
        [np.frombuffer(part.lengths, dtype=np.uint32) for part in parts]
    )
    rows["file"] = np.repeat(np.array([part.file for part in parts], dtype=np.uint32), counts)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    firsts = np.cumsum([0, *counts[:-1]])
    shifts = np.array([part.offset for part in parts], dtype=np.int64) - starts[firsts]
    rows["offset"] = starts + np.repeat(shifts, counts)
    return rows


def chosen_rows(rows: "Rows", files: tp.Mapping[int, tuple[int, int]]) -> "Rows":
    """Rows of certain files from an offset on: ``files`` maps a file's number to its new one and that offset."""
    import numpy as np

    numbers = 1 + max([int(rows["file"].max(initial=0)), *files])
    starts, new = np.full(numbers, np.iinfo(np.uint64).max), np.zeros(numbers, dtype=np.uint32)
    for number, place in files.items():
        new[number], starts[number] = place
    chosen: Rows = rows[rows["offset"] >= starts[rows["file"]]]
    chosen["file"] = new[chosen["file"]]
    return chosen


def without_doubles(known: "tp.Sequence[Rows]", rows: "Rows") -> "tuple[Rows, list[LineRef]]":
    """The rows whose hash no other row has, and the lines of the others."""
    import numpy as np

    hashes = rows["hash"]
    order = np.argsort(hashes, kind="stable")  # of rows that are sorted already, this takes no time
    ordered = hashes[order]
    double = np.zeros(len(rows), dtype=bool)
    again = ordered[1:] == ordered[:-1]
    double[order[1:][again]] = double[order[:-1][again]] = True
    for part in known:  # sorted
        place = np.searchsorted(part["hash"], hashes)
        place[place == len(part)] = 0
        double |= part["hash"][place] == hashes if len(part) else False
    lines = [line_ref(*row) for row in rows[double][["file", "offset", "length"]].tolist()]
    return rows[~double], lines


def build(parts: "tp.Sequence[Rows]", keys: int, marks: list[FileMark]) -> Table:
    """A table of all rows in ``parts``; ``keys`` is the number of distinct keys that have a live line."""
    import numpy as np

    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    # rows of a table are sorted already, which the stable way makes use of
    rows = rows[np.argsort(rows["hash"].copy(), kind=None if len(parts) == 1 else "stable")]
    slots = max(int(len(rows) / _LOAD), 8)
    order = np.arange(len(rows), dtype=np.int64)
    # linear probing for all rows at once: each goes to its home or behind the row before it
    places = np.maximum.accumulate(_homes(rows["hash"], slots) - order) + order
    table = np.zeros(max(slots, int(places[-1]) + 1 if len(rows) else 0) + 1, dtype=_dtype())
    table[places] = rows
    assert table.itemsize == ROW.size
    return Table.of_bytes(table.view(np.uint8).data, slots, len(rows), keys, marks)


def _homes(hashes: "Rows", slots: int) -> "Rows":
    """``hash * slots >> 64`` without 128-bit integers: in two halves, exactly as Python computes it."""
    import numpy as np

    high, low = hashes >> np.uint64(32), hashes & np.uint64(0xFFFFFFFF)
    if slots >= 1 << 32:
        raise ValueError("a side index holds at most 2**32 slots")
    factor = np.uint64(slots)
    homes = (high * factor + (low * factor >> np.uint64(32))) >> np.uint64(32)
    return homes.astype(np.int64)


def find_many(table: Table | None, hashes: "array.array[int]") -> "Rows":
    """For each hash the row that has it: of length 0 where there is none, and of file ``SEVERAL`` where there are more.

    Once it was asked for enough of its rows, a table is kept in memory, whatever its size. Raises OSError when it is
    damaged.
    """
    import numpy as np

    wanted = np.frombuffer(hashes, dtype=np.uint64)
    found = np.zeros(len(wanted), dtype=_dtype())
    if table is None or not table.rows:
        return found
    table.asked += len(wanted)
    if table.rows * ROW.size > _IN_MEMORY and table.asked * _WORTH < table.rows:
        for number, hash_ in enumerate(hashes):
            rows = table.find(hash_)
            if rows:
                found[number] = (hash_, *rows[0][:2], rows[0][2] if len(rows) == 1 else SEVERAL)
        return found
    slots = np.frombuffer(table.read_all(keep=sys.maxsize), dtype=_dtype())
    places, open_ = _homes(wanted, table.slots), np.arange(len(wanted))
    while len(open_):  # all at once look at the next slot
        if int(places.max()) >= len(slots):
            raise OSError("the side index has no end")
        row = slots[places]
        here = (row["hash"] == wanted[open_]) & (row["length"] > 0)
        again = here & (found["length"][open_] > 0)
        found[open_[here]] = row[here]
        found["file"][open_[again]] = SEVERAL
        further = (row["length"] > 0) & (row["hash"] <= wanted[open_])
        places, open_ = places[further] + 1, open_[further]
    return found


def runs(
    rows: "Rows", files: int
) -> "tp.Iterator[tuple[int, int, int, list[int], tp.Iterator[tuple[int, int]]]]":
    """Lines that are close together, of rows as `find_many` gives them; ``files`` is the number of files.

    Yields the file, where to read from and to, and of each line the number of its row and its place in what is read,
    without its line end.
    """
    import numpy as np

    chosen = np.flatnonzero((rows["length"] > 0) & (rows["file"] < files))
    chosen = chosen[np.lexsort((rows["offset"][chosen], rows["file"][chosen]))]
    numbers, start = rows["file"][chosen].astype(np.int64), rows["offset"][chosen].astype(np.int64)
    stop = start + rows["length"][chosen]
    apart = (numbers[1:] != numbers[:-1]) | (start[1:] - stop[:-1] > _GAP)
    apart |= start[1:] // _MOST != start[:-1] // _MOST
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(chosen)]
    for first, last in itertools.pairwise(bounds if len(chosen) else ()):
        begin, end = int(start[first]), int(stop[first:last].max())
        spans = zip(
            (start[first:last] - begin).tolist(), (stop[first:last] - begin - 1).tolist(), strict=True
        )
        yield int(numbers[first]), begin, end, chosen[first:last].tolist(), spans


def alive(rows: "Rows", texts: "tp.Mapping[int, bytes]") -> "Rows":
    """Whether the line of each row is still there; ``texts`` are the index files whose lines may have been deleted."""
    import numpy as np

    result = np.ones(len(rows), dtype=bool)
    for number, text in texts.items():
        mine = np.flatnonzero(rows["file"] == number)
        content = np.frombuffer(text, dtype=np.uint8)
        offsets = rows["offset"][mine].astype(np.int64)
        inside = offsets < len(content)
        result[mine[~inside]] = False
        result[mine[inside]] = content[offsets[inside]] == ord("{")
    return result
