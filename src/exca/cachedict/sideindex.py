"""The binary side index: where the line of a key stands, found with one read. Derived: safe to delete at any time.

Layout (little endian): a header of 64 bytes, a JSON text that says up to which byte each text file has been
indexed, and a hash table of rows of 24 bytes ``(hash, offset, length, file)``. Rows are sorted by hash; the home of a
row is ``hash * slots >> 64`` and rows that collide follow it, so a search stops at an empty row or a greater hash.
A row only says where to look: the line found there must hold the key asked for.
"""

import contextlib
import os
import struct
import time
import typing as tp

import orjson
import xxhash

from .. import _files
from .._files import Handle, pread, writer_name

FILE_NAME = ".exca-index"
TURN_NAME = ".exca-index-turn"
_TURN_LOOKS, _TURN_PAUSE = 200, 0.005  # how often a saver looks whether another one is done, and s between
_MAGIC = b"EXCAIDX1"
_HEADER = struct.Struct(
    "<8sQQQQQQQ"
)  # magic, slots, rows, entries, keys, meta length, body checksum, header checksum
ROW = struct.Struct("<QQII")
_WINDOW = 8 * ROW.size  # bytes read for one search: nearly always enough
_IN_MEMORY = 64 << 20  # a table up to this many bytes is read whole once it is asked often
_OFTEN = 64
_NOTHING: list[tuple[int, int, int]] = []


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
        with contextlib.suppress(OSError):  # also that of somebody who died in the middle
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


class Table:
    """A table in memory or in a file; ``files`` are its own file numbers' names."""

    __slots__ = (
        "_base",
        "_data",
        "_handle",
        "_searches",
        "_sum",
        "_verified",
        "entries",
        "keys",
        "marks",
        "rows",
        "slots",
    )

    def __init__(self, slots: int, rows: int, entries: int, keys: int, marks: list[FileMark]) -> None:
        self.slots, self.rows, self.entries, self.keys, self.marks = slots, rows, entries, keys, marks
        self._data: bytes = b""
        self._handle: Handle | None = None
        self._base = 0
        self._searches = 0
        self._sum = 0
        self._verified = True

    def drop_handle(self) -> None:
        """Tables keep their handle: there is one a folder."""

    @classmethod
    def of_bytes(cls, data: bytes, slots: int, entries: int, keys: int, marks: list[FileMark]) -> "Table":
        """A table over rows built in memory."""
        self = cls(slots, len(data) // ROW.size, entries, keys, marks)
        self._data = data
        return self

    @classmethod
    def load(cls, folder: str) -> "Table | None":
        """Open the side index of a folder; None when there is none or it is damaged."""
        try:
            handle = Handle(_files.open_to_read(os.path.join(folder, FILE_NAME)))
            header = pread(handle.fd, _HEADER.size, 0)
            if len(header) != _HEADER.size or header[:8] != _MAGIC:
                return None
            _, slots, rows, entries, keys, length, body_sum, header_sum = _HEADER.unpack(header)
            base = _HEADER.size + length
            if (
                os.fstat(handle.fd).st_size != base + rows * ROW.size
            ):  # also before so many bytes are asked for
                return None
            meta = pread(handle.fd, length, _HEADER.size)
            if xxhash.xxh3_64_intdigest(header[:-8] + meta) != header_sum:
                return None
            self = cls(slots, rows, entries, keys, [FileMark(*mark) for mark in orjson.loads(meta)])
        except (OSError, ValueError, TypeError):
            return None
        self._handle, self._base, self._sum, self._verified = handle, base, body_sum, False
        return self

    def find(self, hash_: int) -> list[tuple[int, int, int]]:
        """(offset, length, file number) of all lines whose key has this hash. Raises OSError if the file is broken."""
        start = (hash_ * self.slots >> 64) * ROW.size
        data = self._data
        if data:
            unpack = ROW.unpack_from
            row = unpack(data, start)
            if row[0] > hash_ or not row[2]:
                return _NOTHING
            found = []
            while row[2] and row[0] <= hash_:
                if row[0] == hash_:
                    found.append(row[1:])
                start += 24
                row = unpack(data, start)
            return found
        return self._find_in_file(hash_, start)

    def _find_in_file(self, hash_: int, start: int) -> list[tuple[int, int, int]]:
        assert self._handle is not None
        self._searches += 1
        if self._searches > _OFTEN and self.rows * ROW.size <= _IN_MEMORY:
            self.read_all()
            return self.find(hash_)
        found: list[tuple[int, int, int]] = []
        while True:
            window = pread(self._handle.fd, _WINDOW, self._base + start)
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
        if self._verified or self._handle is None:
            return
        hasher, position, stop = xxhash.xxh3_64(), self._base, self._base + self.rows * ROW.size
        while position < stop:
            chunk = pread(self._handle.fd, min(1 << 20, stop - position), position)
            if not chunk:
                break
            hasher.update(chunk)
            position += len(chunk)
        if hasher.intdigest() != self._sum:
            raise OSError("the side index is damaged")
        self._verified = True

    def read_all(self) -> bytes:
        """All rows, kept in memory from now on when they are few. Raises OSError when the table is damaged."""
        if self._data or self._handle is None:
            return self._data
        size = self.rows * ROW.size
        data = pread(self._handle.fd, size, self._base)
        while len(data) < size:  # one read returns at most 2 GiB
            more = pread(self._handle.fd, size - len(data), self._base + len(data))
            if not more:
                break
            data += more
        if len(data) != size or xxhash.xxh3_64_intdigest(data) != self._sum:
            raise OSError("the side index is damaged")
        self._verified = True
        if size <= _IN_MEMORY:
            self._data = data
        return data

    def save(self, folder: str, wanted: tp.Callable[[], bool] = lambda: True) -> bool:
        """Write the table beside the text index in one atomic step; returns whether it was written.

        ``wanted`` is asked at the last moment whether it still should be.
        """
        data = self.read_all()
        meta = orjson.dumps(list(map(tuple, self.marks)))
        head = _HEADER.pack(
            _MAGIC,
            self.slots,
            self.rows,
            self.entries,
            self.keys,
            len(meta),
            xxhash.xxh3_64_intdigest(data),
            0,
        )[:-8]
        header = head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head + meta))
        temporary = os.path.join(folder, f"{FILE_NAME}-{writer_name.fresh()}.tmp")
        try:
            with open(_files.create_file(temporary), "wb") as file:
                file.write(header + meta)
                file.write(data)
            if wanted():
                os.replace(temporary, os.path.join(folder, FILE_NAME))
                return True
        except OSError:
            pass
        try:
            os.unlink(temporary)
        except OSError:
            pass
        return False
