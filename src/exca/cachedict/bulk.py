"""Reading the entries of many keys: lines that stand close together are read at once, whatever order was asked for."""

import itertools
import typing as tp

from .folderindex import Entry, FolderIndex, pack
from .folderreader import TableDamagedError
from .textindex import key_hash, parse_line

_CHUNK = 2048  # keys looked up together
_GAP = 4096  # bytes between lines that are read rather than skipped
_MOST = 1 << 20  # bytes read at once

Found = tuple[str, Entry | None, int]


def entries_of(index: FolderIndex, keys: tp.Iterable[str]) -> tp.Iterator[Found]:
    """Yield (key, entry, place) in the order given; the entry is None where the simple way does not lead to one."""
    iterator = iter(keys)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield from _chunk(index, chunk)


def _chunk(index: FolderIndex, keys: list[str]) -> list[Found]:
    found: list[Found] = [(key, None, 0) for key in keys]
    placed = sorted(_places(index, keys))
    for run in _runs(placed):
        first = run[0][0]
        start = first >> 32 & 0xFFFFFFFFFFFF
        stop = (run[-1][0] >> 32 & 0xFFFFFFFFFFFF) + (run[-1][0] & 0xFFFFFFFF)
        text = index.files[first >> 80].read(start, stop - start)
        for place, number in run:
            offset = (place >> 32 & 0xFFFFFFFFFFFF) - start
            info = parse_line(text[offset : offset + (place & 0xFFFFFFFF)])
            key = keys[number]
            if info is not None and info["#key"] == key and place not in index.bad:
                found[number] = (key, info, place)
    return found


def _places(index: FolderIndex, keys: list[str]) -> tp.Iterator[tuple[int, int]]:
    tail, find, files = index.tail, index.find, len(index.files)
    try:
        for number, key in enumerate(keys):
            place = tail.get(key)
            if place is None:
                rows = find(key_hash(key))
                if len(rows) != 1 or rows[0][2] >= files:
                    continue
                place = pack(rows[0])
            yield place, number
    except TableDamagedError:  # the rest is found one by one
        return


def _runs(placed: list[tuple[int, int]]) -> tp.Iterator[list[tuple[int, int]]]:
    run: list[tuple[int, int]] = []
    start = stop = 0
    for item in placed:
        place = item[0]
        position = place >> 32  # file and offset together: another file is far away
        if run and (position - stop > _GAP or position - start > _MOST):
            yield run
            run = []
        if not run:
            start = position
        stop = position + (place & 0xFFFFFFFF)
        run.append(item)
    if run:
        yield run
