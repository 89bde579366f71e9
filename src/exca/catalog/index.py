"""The derived index of a folder with configurations: their rows, and the status of each folder when it was looked at.

It is a file ``.exca-rows`` in that folder or, where this user may not write there, in the user's own cache directory.
It may be deleted at any moment. What another user wrote is never read.
"""

import array
import contextlib
import hashlib
import os
import sys

from .. import _files, _usercache
from .rows import STATES, Row

FILE = ".exca-rows"
WORTH = 64  # rows from which on it is worth keeping them
_FORMAT = b"exca rows 3\n"


def load(folder: str, method: str) -> dict[str, Row]:
    """The rows that were kept of a folder, by their names; none where the file is damaged or another user's."""
    import xxhash

    for path in (f"{folder}/{FILE}", _elsewhere(folder)):
        try:
            data, status = _files.read_judged(path) if path else (b"", None)
        except (OSError, ValueError):
            continue
        if status is None or not _is_own(status) or not data.startswith(_FORMAT):
            continue
        if data[-8:] != xxhash.xxh3_64_digest(memoryview(data)[:-8]):
            continue
        with contextlib.suppress(ValueError, IndexError, UnicodeError):
            return _parsed(data, len(_FORMAT), method)
    return {}


def _parsed(data: bytes, at: int, method: str) -> dict[str, Row]:
    """The rows by name; what is in them is taken from the text only when it is asked for."""
    count, names_length = (int.from_bytes(data[at + k : at + k + 8], "little") for k in (0, 8))
    numbers, times = array.array("q"), array.array("d")
    at += 16
    for part, width in ((numbers, 32), (times, 8)):
        part.frombytes(data[at : at + width * count])
        at += width * count
        if sys.byteorder == "big":
            part.byteswap()
    names = os.fsdecode(data[at : at + names_length]).split("\0") if count else []
    at += names_length
    rest = iter(numbers)
    found: dict[str, Row] = {}
    for name, when, changed, inode, state, length in zip(names, times, rest, rest, rest, rest, strict=True):
        row = Row(method, name, STATES[state >> 1], when, data[at : at + length], changed, inode)
        if state & 1:
            row.nested = True
        at += length
        found[name] = row
    return found


def save(folder: str, rows: dict[str, Row]) -> None:
    """Keep rows, where this user may write; that they cannot be kept is no error."""
    import xxhash

    numbers, times, texts = array.array("q"), array.array("d"), []
    for row in rows.values():
        texts.append(row.text)
        numbers.extend((row.changed, row.inode, 2 * STATES.index(row.state) + row.nested, len(texts[-1])))
        times.append(row.when)
    names = os.fsencode("\0".join(rows))
    if sys.byteorder == "big":
        numbers.byteswap()
        times.byteswap()
    sizes = len(rows).to_bytes(8, "little") + len(names).to_bytes(8, "little")
    data = b"".join([_FORMAT, sizes, numbers.tobytes(), times.tobytes(), names, *texts])
    data += xxhash.xxh3_64_digest(data)
    for path in (f"{folder}/{FILE}", _elsewhere(folder, make=True)):
        if path and _may_replace(path):
            with contextlib.suppress(OSError):
                _files.write_atomically(path, data, mode=_files.PRIVATE)
                return


def _may_replace(path: str) -> bool:
    try:
        return _is_own(os.lstat(path))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _elsewhere(folder: str, *, make: bool = False) -> str:
    """The file for a folder in the user's own cache directory."""
    place = _usercache.made("rows") if make else _usercache.folder("rows")
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return f"{place}/{name}" if place else ""


def _is_own(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
