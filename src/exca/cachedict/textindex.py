"""The text index: one JSON object per line, one file per writer. This is the truth; all else is derived from it.

A line holds what a handler needs to load a value, and reserved fields: ``#type`` (the handler), ``#key``,
``#gen`` (only on a line that replaced an older one: the highest wins) and ``#xxh`` (XXH3-64 of all bytes of the
line before this field; absent in files of older releases). A deleted entry's line is overwritten by spaces.

Release 0.6 hands every field of an entry to its handler, so a checksum among them makes it fail. Only the handlers of
containers and JSON ignore fields that they do not know. Hence:

- the reserved fields (``#sum``, ``#files``...) of the parts of a container are in its own field ``#parts``: a list
  with one item (an object, or null) per part, in the order of the parts in the content;
- the entry of another handler is written as the only part of a container:
  ``{"content":{"filename":...,"#type":"MemmapArray"},"#type":"Auto","#parts":[{"#sum":...}],"#key":...}``.

- where release 0.6 makes something else of a value (a list of a tuple), the entry is what it would read, and ``#as`` is
  the handler that makes the value of it here.

In memory, an entry has its reserved fields; those of the parts below it are in its ``#parts``.
"""

import array
import errno
import itertools
import operator
import os
import re
import stat
import typing as tp

import orjson
import xxhash

from .. import _files, _trust
from .._files import Handle, on_network, opened_status, pread, write_all
from ..errors import OddFileError, UnknownVersionError, UntrustedFileError

Info = dict[str, tp.Any]  # an entry
Reserved = tp.Sequence[Info | None]
SCALARS: tp.Final = frozenset((int, float, str, bool, type(None)))
_IGNORING = frozenset(("Json", "Auto"))  # handlers of every release that ignore further fields

# Where a line is: the number of its file, its offset and its length, in one int. That takes a third of the memory of a
# tuple, sorts by file and offset, and is as fast in a dictionary.
LineRef: tp.TypeAlias = int
_FILE, _OFFSET = 80, 32  # bits to the right of each
_MAX_OFFSET, _MAX_LENGTH = (1 << _FILE - _OFFSET) - 1, (1 << _OFFSET) - 1

INFO_SUFFIX = "-info.jsonl"
# a later version of the format, which 0.6 could not read either, has names of its own
_LATER_RELEASE = r".*-info\.v\d+"
# in front of it in the name of a file: the digest of the code that computed its entries, where that is known
_CODE = r"\.((?:[a-z0-9_]+-)?[0-9a-f]{16})-info\.jsonl$"
DAMAGED_SUFFIX = ".damaged"  # of what was set aside
_SEAL = b',"#xxh":"'
SEAL_LENGTH = len(_SEAL) + 16 + len(b'"}\n')  # bytes, with the line end
_DIGEST = slice(-19, -3)
_MARK = slice(-SEAL_LENGTH, -19)
MAX_LINE = 32 << 20  # bytes; no entry is as long
_SHOWN = 64  # bytes of a longer line that are looked at: enough to see that it is none
_CHUNK = 4 << 20  # bytes read at once when a file is scanned


def parse_line(line: bytes) -> Info | None:
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


def parse_lines(lines: list[bytes]) -> list[Info | None]:
    """The entries on lines, given without their ends; None for those that are damaged."""
    try:
        infos: list[Info] = orjson.loads(b"[%b]" % b",".join(lines))
        sums = [info["#xxh"] for info in infos if type(info["#key"]) is type(info["#type"]) is str]
        if sums == list(map(xxhash.xxh3_64_hexdigest, [line[: 1 - SEAL_LENGTH] for line in lines])):
            return [info if info["#type"] == "Json" else entry_of(info) for info in infos]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    return [parse_line(line + b"\n") for line in lines]  # damaged, or of a release that wrote no sums


def _is_broken_mark(mark: bytes) -> bool:
    """Whether this is the mark of a seal but for a byte or two: a line of an earlier release, with no seal, is not."""
    return bool(sum(map(operator.eq, mark, _SEAL)) >= len(_SEAL) - 2)


def lines_of(
    entries: tp.Mapping[str, bytes | float], gens: tp.Mapping[str, int], bare: set[str]
) -> list[bytes]:
    """Whole lines of entries: of lines without their ends, and of finite numbers under keys that are ASCII.

    ``gens`` are those of entries that replace older ones; the lines of ``bare`` keys have no checksum.
    """
    if bytes in set(map(type, entries.values())):
        bodies = [
            entry.decode() if isinstance(entry, bytes) else _bodies({key: entry})[0]
            for key, entry in entries.items()
        ]
    else:
        bodies = _bodies(entries)
    if gens:
        bodies = [
            f'{body},"#gen":{gens[key]}' if key in gens else body
            for key, body in zip(entries, bodies, strict=True)
        ]
    sums = map(xxhash.xxh3_64_hexdigest, map(str.encode, bodies))
    lines = [f'{body},"#xxh":"{sum_}"}}\n'.encode() for body, sum_ in zip(bodies, sums, strict=True)]
    if bare:
        lines = [
            f"{body}}}\n".encode() if key in bare else line
            for key, body, line in zip(entries, bodies, lines, strict=True)
        ]
    return lines


def _bodies(numbers: tp.Mapping[str, tp.Any]) -> list[str]:
    contents = orjson.dumps(list(numbers.values()))[1:-1].decode().split(",")
    text = orjson.dumps(list(numbers))[2:-2].decode()
    keys = text.split('","') if "\\" not in text else [orjson.dumps(key)[1:-1].decode() for key in numbers]
    pairs = zip(contents, keys, strict=True)
    return [f'{{"content":{content},"#type":"Json","#key":"{key}"' for content, key in pairs]


def key_hash(key: str) -> int:
    """64-bit hash of a key, as it is in the side index. Raises ValueError for lone surrogates."""
    try:
        return xxhash.xxh3_64_intdigest(key.encode())
    except UnicodeEncodeError:
        raise ValueError(
            f"The key {key[:50]!r} holds lone surrogates, which a UTF-8 file cannot hold; "
            "use key.encode('utf8', 'backslashreplace').decode() instead."
        ) from None


def key_hashes(keys: tp.Iterable[str]) -> "array.array[int]":
    """`key_hash` of many keys."""
    try:
        return array.array("Q", map(xxhash.xxh3_64_intdigest, map(str.encode, keys)))
    except UnicodeEncodeError:
        return array.array("Q", map(key_hash, keys))  # an error that explains


# -- the fields of an entry and of its parts


def take_reserved(info: Info) -> Info | None:
    """Take the reserved fields out of the entry of a part (but for its type) and return them."""
    return {name: info.pop(name) for name in list(info) if name[0:1] == "#" and name != "#type"} or None


def take_from_parts(content: tp.Any, taken: list[Info | None]) -> tp.Any:
    """A copy of ``content`` in which no part has reserved fields; they are added to ``taken``."""
    if isinstance(content, dict):
        if "#type" in content:
            part = dict(content)
            taken.append(take_reserved(part))
            return part
        return {name: take_from_parts(item, taken) for name, item in content.items()}
    if isinstance(content, list | tuple):
        return [take_from_parts(item, taken) for item in content]
    return content


def with_reserved(part: Info, reserved: tp.Iterator[Info | None]) -> Info:
    """The entry of a part with its reserved fields, the next ones."""
    found = next(reserved, None)
    return {**part, **found} if isinstance(found, dict) else part


def restored(content: tp.Any, reserved: tp.Iterator[Info | None]) -> tp.Any:
    """A copy of ``content`` in which each part has its reserved fields again."""
    if isinstance(content, dict):
        if "#type" in content:
            return with_reserved(content, reserved)
        return {name: restored(item, reserved) for name, item in content.items()}
    if isinstance(content, list):
        return [restored(item, reserved) for item in content]
    return content


def iter_parts(content: tp.Any, reserved: tp.Iterator[Info | None]) -> tp.Iterator[Info]:
    """Yield the entries of all parts in ``content``, with their reserved fields."""
    if isinstance(content, dict):
        if "#type" in content:
            yield with_reserved(content, reserved)
            return
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from iter_parts(item, reserved)


def reserved_of(info: Info) -> tp.Iterator[Info | None]:
    """The reserved fields of the parts of an entry, in their order."""
    found = info.get("#parts")
    return iter(found if isinstance(found, list) else ())


def line_of(key: str, info: Info, *, bare: bool = False) -> bytes:
    """The line of an entry, without its closing brace; a bare one has no reserved fields but its type and key."""
    type_ = info["#type"]
    if bare:
        take_reserved(info)
    elif type_ not in _IGNORING and type_[:3] != "py.":  # of the latter, no earlier release knows any
        reserved = take_reserved(info)
        info = {"content": info, "#type": "Auto"}
        if reserved is not None:
            info["#parts"] = [reserved]
    info["#key"] = key
    return orjson.dumps(info)[:-1]


def entry_of(line: Info) -> Info:
    """The entry that a line holds."""
    content = line.get("content")
    if type(content) is not dict or line["#type"] != "Auto":
        return line
    type_ = content.get("#type")
    if type(type_) is not str or type_ == "Json":  # the content of a large container is in a file
        return line
    parts = line.get("#parts")
    if type(parts) is list and parts and type(parts[0]) is dict:
        content.update(parts[0])
        content["#type"] = type_
    content["#key"] = line["#key"]
    if "#gen" in line:
        content["#gen"] = line["#gen"]
    return content


# -- where a line is


def line_ref(file: int, offset: int, length: int) -> LineRef:
    """The reference to a line: its file's number, where it starts, and its length with its end."""
    return file << _FILE | offset << _OFFSET | length


def line_refs(file: int, offset: int, lengths: tp.Sequence[int]) -> list[LineRef]:
    """The references to lines that follow each other."""
    steps = [length << _OFFSET for length in lengths]
    return list(map(operator.or_, itertools.accumulate(steps, initial=line_ref(file, offset, 0)), lengths))


def parts_of(ref: LineRef) -> tuple[int, int, int]:
    """The number of the file, the offset and the length of a line."""
    return ref >> _FILE, ref >> _OFFSET & _MAX_OFFSET, ref & _MAX_LENGTH


def file_of(ref: LineRef) -> int:
    """The number of the file of a line."""
    return ref >> _FILE


def columns(refs: tp.Sequence[LineRef]) -> "tuple[array.array[int], array.array[int], array.array[int]]":
    """The numbers of the files, the offsets and the lengths of many lines."""
    return (
        array.array("I", [ref >> _FILE for ref in refs]),
        array.array("Q", [ref >> _OFFSET & _MAX_OFFSET for ref in refs]),
        array.array("I", [ref & _MAX_LENGTH for ref in refs]),
    )


# -- files


class TextFile:
    """One file of the text index, and how far it has been read."""

    def __init__(self, folder: str, name: str, number: int) -> None:
        self.name: str = name
        self.path: str = os.path.join(folder, name)
        self.number: int = number
        self.scanned: int = 0  # bytes, up to a line end
        self.size: int = 0
        self.trusted: bool = True  # whether what it holds may have a module imported
        self.listed_trusted: bool = False  # whether the one in the folder was, when last looked at
        self.opened_trusted: bool = True  # whether the open one is: it may be another than was listed
        self.mtime: int = 0  # as last seen, ns
        self.inode: int = 0
        self.blanks: int = 0  # deleted lines before `scanned`
        self.counted_mtime: int = -1  # the mtime at which `blanks` was true
        self.within: bool = False  # whether `scanned` is in the middle of a line longer than any entry
        self.reached: int = 0  # where the last `lines` that was gone through has ended
        self._handle: Handle | None = None

    def handle(self) -> Handle:
        """The open file. Hold the returned object while using its ``fd``.

        Raises FileNotFoundError, and OddFileError where it is no regular file, or another user's in the place of the
        trusted one that was listed.
        """
        handle = self._handle
        if handle is None:
            handle = Handle.open(self, self.path)
            trusted = _trust.is_trusted(_files.require_regular(handle.fd))
            if self.listed_trusted and not trusted:
                raise OddFileError(errno.ESTALE, "another user's file in the place of this one", self.path)
            self.opened_trusted = trusted
            self._handle = handle
        return handle

    def may_remove(self, folder: str) -> bool:
        """Whether files in a folder may be removed, or set aside, because a line of this file names them."""
        try:
            status = os.fstat(self.handle().fd)
            return _trust.may_remove(status, os.lstat(folder))
        except OSError:
            return False

    def drop_handle(self) -> None:
        """Let it be closed as soon as no thread uses it."""
        self._handle = None
        self.opened_trusted = True

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, fewer at its end; empty when the file is gone."""
        try:
            handle = self._handle or self.handle()
            return pread(handle.fd, length, offset)
        except OddFileError as e:  # it was put in the place of the file that was listed
            _trust.skip(self.path, e)
            return b""
        except OSError as e:
            self._handle = None
            if e.errno == errno.ENOENT:
                return b""
            if e.errno != errno.ESTALE:
                raise
        try:  # on NFS, a file that was replaced: the name may lead to the new one
            return pread(self.handle().fd, length, offset)
        except FileNotFoundError:
            return b""

    def lines(self, start: int, stop: int, *, scan: bool = False) -> tp.Iterator[tuple[int, bytes]]:
        """Yield (offset, line without its line end) for every whole line in a range of bytes.

        Of a line longer than any entry only its first bytes are yielded, once that is known; ``within`` is true then
        for those of its bytes that follow. Only a ``scan`` notes how far it came, since others read without the lock.
        """
        rest = b""
        offset = position = start
        within = self.within and start == self.scanned
        while position < stop:
            chunk = self.read(position, min(_CHUNK, stop - position))
            if not chunk:
                break
            position += len(chunk)
            if within:
                end = chunk.find(b"\n")
                if end < 0:
                    offset = position = self._behind_hole(position, stop)
                    continue
                offset = position - len(chunk) + end + 1
                within, chunk = False, chunk[end + 1 :]
            pieces = (rest + chunk).split(b"\n")
            rest = pieces.pop()
            for piece in pieces:
                yield offset, piece
                offset += len(piece) + 1
            if len(rest) > MAX_LINE:
                yield offset, rest[:_SHOWN]
                offset = position = self._behind_hole(position, stop)
                rest, within = b"", True
        if scan:
            self.within, self.reached = within, offset

    def _behind_hole(self, position: int, stop: int) -> int:
        """Where the file goes on that has a hole at a position, in which there is no line end."""
        if not hasattr(os, "SEEK_DATA"):
            return position
        try:
            return min(os.lseek(self.handle().fd, position, os.SEEK_DATA), stop)
        except OSError as e:
            return stop if e.errno == errno.ENXIO else position  # of nothing but a hole

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
            if previous == b"\0":
                position = self._behind_hole(position, self.scanned)
        return count

    def blank(self, offset: int, expected: bytes) -> bool:
        """Overwrite the line ``expected`` at ``offset`` by spaces, if it is still there; returns whether it did."""
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


def code_of(name: str) -> str:
    """The digest of the code that computed the entries of an index file, by its name; empty where it is not known."""
    found = re.search(_CODE, name)
    return "" if found is None else found[1]


def index_files(folder: str) -> dict[str, os.stat_result]:
    """The index files in the folder. Raises FileNotFoundError, and UnknownVersionError for one of a later release."""
    found = {}
    entries = _scan_folder(folder)
    network = on_network(folder)
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
                    _trust.skip(entry.path, "everybody may write to it; if you know what is in it: chmod o-w")
                else:
                    found[entry.name] = status
            elif re.fullmatch(_LATER_RELEASE, entry.name):
                raise UnknownVersionError(
                    f"{entry.path} is an index of a version that this release of exca does not know: a later release "
                    "wrote it. It is left alone, and nothing is computed in its place: update exca to read it, or use "
                    "another folder or version"
                )
    return found


def _scan_folder(folder: str) -> "os._ScandirIterator[str]":
    try:
        return os.scandir(folder)
    except OSError as e:
        if e.errno in (errno.ENOTDIR, errno.ELOOP):
            raise OddFileError(e.errno, "not a folder; exca.repair sets it aside", folder) from e
        if e.errno != errno.ENOENT:
            raise
        parent = os.path.dirname(folder)
        # a network file system may remember that the folder was not there: listing its parent asks the server
        if not on_network(parent) or os.path.basename(folder) not in os.listdir(parent):
            raise
        return os.scandir(folder)


def _status_of(entry: "os.DirEntry[str]", network: bool) -> os.stat_result:
    """The status of an index file; a link is followed only if it may be."""
    if network or entry.is_symlink():
        return opened_status(entry.path)
    return entry.stat(follow_symlinks=False)


def keep_line(path: str, line: bytes) -> None:
    """Append a damaged line to ``<path>.damaged``. Raises OSError."""
    fd = _files.open_to_append(path + DAMAGED_SUFFIX)
    try:
        write_all(fd, line)
    finally:
        os.close(fd)
