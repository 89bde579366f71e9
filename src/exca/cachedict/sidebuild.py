"""Building and merging tables of the side index, and bulk questions to them. The only part of it that needs numpy."""

import array
import typing as tp

import xxhash

from .lineref import LineRef, columns, line_ref
from .sideindex import ROW, FileMark, Table

if tp.TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[tp.Any]

_LOAD = 0.7  # rows over slots: at this filling a search reads two rows on average


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


def rows_of_lines(lines: tp.Sequence[tuple[str, LineRef]]) -> "Rows":
    """Rows for lines (key, reference)."""
    import numpy as np

    hash_of = xxhash.xxh3_64_intdigest
    rows = np.empty(len(lines), dtype=_dtype())
    rows["hash"] = array.array("Q", [hash_of(key.encode()) for key, _ in lines])
    rows["file"], rows["offset"], rows["length"] = columns([ref for _, ref in lines])
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

    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows["hash"], kind="stable")]
    slots = max(int(len(rows) / _LOAD), 8)
    order = np.arange(len(rows), dtype=np.int64)
    # linear probing for all rows at once: each goes to its home or behind the row before it
    places = np.maximum.accumulate(_homes(rows["hash"], slots) - order) + order
    table = np.zeros(max(slots, int(places[-1]) + 1 if len(rows) else 0) + 1, dtype=_dtype())
    table[places] = rows
    assert table.itemsize == ROW.size
    return Table.of_bytes(table.tobytes(), slots, len(rows), keys, marks)


def _homes(hashes: "Rows", slots: int) -> "Rows":
    """``hash * slots >> 64`` without 128-bit integers: in two halves, exactly as Python computes it."""
    import numpy as np

    high, low = hashes >> np.uint64(32), hashes & np.uint64(0xFFFFFFFF)
    if slots >= 1 << 32:
        raise ValueError("a side index holds at most 2**32 slots")
    factor = np.uint64(slots)
    homes = (high * factor + (low * factor >> np.uint64(32))) >> np.uint64(32)
    return homes.astype(np.int64)


def locate_many(rows: "Rows", hashes: "array.array[int]") -> "Rows":
    """For each hash the number of a row that has it, or -1."""
    import numpy as np

    wanted = np.frombuffer(hashes, dtype=np.uint64)
    if not len(rows):
        return np.full(len(wanted), -1, dtype=np.int64)
    numbers = np.searchsorted(rows["hash"], wanted)
    numbers[numbers == len(rows)] = 0
    return np.where(rows["hash"][numbers] == wanted, numbers, -1)


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
