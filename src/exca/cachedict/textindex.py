"""The text index: one JSON object a line, one file a writer. This is the truth; all else is derived from it.

A line holds what a handler needs to load a value, and reserved fields: ``#type`` (the handler), ``#key``,
``#gen`` (only on a line that replaced an older one: the highest wins) and ``#xxh`` (XXH3-64 of all bytes of the
line before this field; absent in files of older releases). Which fields stand where, so that older releases read
them: `exca.cachedict.parts`. A deleted entry's line is overwritten by spaces.
"""

import errno
import operator
import os
import typing as tp

import orjson
import xxhash

from .. import _files, _trust
from .._files import Handle, pread
from .parts import entry_of

INFO_SUFFIX = "-info.jsonl"
_SEAL = b',"#xxh":"'
SEAL_LENGTH = len(_SEAL) + 16 + len(b'"}\n')  # bytes, with the line end
_DIGEST = slice(-19, -3)
_MARK = slice(-SEAL_LENGTH, -19)
SEALED = (
    b'%b,"#xxh":"%016x"}\n'  # a whole line: a JSON object without its closing brace, and the XXH3-64 of that
)
_CHUNK = 4 << 20  # bytes read at once when a file is scanned


def parse_line(line: bytes) -> dict[str, tp.Any] | None:
    """The entry on a whole line (with its line end), or None when the line is damaged or no entry."""
    mark = line[_MARK]
    if mark == _SEAL:
        if xxhash.xxh3_64_hexdigest(line[:-SEAL_LENGTH]).encode() != line[_DIGEST]:
            return None
    elif _is_broken_mark(mark):
        return None
    try:
        info = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if isinstance(info, dict) and isinstance(info.get("#key"), str) and isinstance(info.get("#type"), str):
        return entry_of(info)
    return None


def _is_broken_mark(mark: bytes) -> bool:
    """Whether this is the mark of a seal but for a byte or two: a line of an earlier release, with no seal, is not."""
    return bool(sum(map(operator.eq, mark, _SEAL)) >= len(_SEAL) - 2)


def key_hash(key: str) -> int:
    """64-bit hash of a key, as it stands in the side index. Raises ValueError for lone surrogates."""
    try:
        return xxhash.xxh3_64_intdigest(key.encode())
    except UnicodeEncodeError:
        raise ValueError(
            f"The key {key[:50]!r} holds lone surrogates, which a UTF-8 file cannot hold; "
            "use key.encode('utf8', 'backslashreplace').decode() instead."
        ) from None


class TextFile:
    """One file of the text index, and how far it has been read."""

    __slots__ = (
        "__weakref__",
        "blanks",
        "counted_mtime",
        "inode",
        "mtime",
        "name",
        "number",
        "path",
        "scanned",
        "size",
        "trusted",
        "_handle",
    )

    def __init__(self, folder: str, name: str, number: int) -> None:
        self.name = name
        self.path = os.path.join(folder, name)
        self.number = number
        self.scanned = 0  # bytes, up to a line end
        self.size = 0
        self.trusted = True  # whether what it says may have a module imported
        self.mtime = 0  # as last seen, ns
        self.inode = 0
        self.blanks = 0  # deleted lines before `scanned`
        self.counted_mtime = -1  # the mtime at which `blanks` was true
        self._handle: Handle | None = None

    def handle(self) -> Handle:
        """The open file. Hold the returned object while using its ``fd``. Raises FileNotFoundError."""
        handle = self._handle
        if handle is None:
            self._handle = handle = Handle.open(self, self.path)
        return handle

    def may_remove(self, folder: str) -> bool:
        """Whether files in a folder may be removed, or set aside, because a line of this file says so."""
        try:
            status = os.fstat(self.handle().fd)
            return _trust.may_remove(status, os.lstat(folder))
        except OSError:
            return False

    def drop_handle(self) -> None:
        """Close it when nobody reads any more."""
        self._handle = None

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, fewer at its end; empty when the file is gone."""
        try:
            handle = self._handle or self.handle()
            return pread(handle.fd, length, offset)
        except OSError as e:
            self._handle = None
            if e.errno in (errno.ENOENT, errno.ESTALE, errno.EACCES):
                return b""
            raise

    def lines(self, start: int, stop: int) -> tp.Iterator[tuple[int, bytes]]:
        """Yield (offset, line without its line end) for every whole line in a range of bytes."""
        rest = b""
        offset = position = start
        while position < stop:
            chunk = self.read(position, min(_CHUNK, stop - position))
            if not chunk:
                return
            position += len(chunk)
            pieces = (rest + chunk).split(b"\n")
            rest = pieces.pop()
            for piece in pieces:
                yield offset, piece
                offset += len(piece) + 1

    def count_blanks(self) -> int:
        """Number of deleted lines before ``scanned``: those that start with a space."""
        count, position, previous = 0, 0, b"\n"
        while position < self.scanned:
            chunk = self.read(position, min(_CHUNK, self.scanned - position))
            if not chunk:
                break
            position += len(chunk)
            count += chunk.count(b"\n ") + (previous == b"\n" and chunk[:1] == b" ")
            previous = chunk[-1:]
        return count

    def blank(self, offset: int, expected: bytes) -> bool:
        """Overwrite the line ``expected`` at ``offset`` by spaces, if it still stands there; returns whether it did."""
        # never through the appending descriptor: with O_APPEND, Linux appends whatever the offset
        fd = _files.open_file(self.path, _files.UPDATE)
        try:
            if pread(fd, len(expected), offset) != expected:
                return False
            os.lseek(fd, offset, os.SEEK_SET)
            os.write(fd, b" " * (len(expected) - 1))
        finally:
            os.close(fd)
        return True
