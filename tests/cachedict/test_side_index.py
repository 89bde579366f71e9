"""What the side index refuses to believe of itself: each such error makes its reader build it anew."""

import pathlib
import typing as tp

import numpy as np
import pytest

from exca.cachedict import sideindex
from exca.cachedict.sideindex import FILE_NAME, ROW, FileMark, Table

MARK = FileMark("x-info.jsonl", 100, 0, 1, 1, 50, 1)
FULL = [(n, 10 * n, 5, 0) for n in range(1, 9)]  # without the empty row that ends every table


def table_of(rows: list[tuple[int, int, int, int]], marks: tuple[FileMark, ...] = (MARK,)) -> Table:
    return Table.of_bytes(
        b"".join(ROW.pack(*row) for row in rows), len(rows), len(rows), len(rows), list(marks)
    )


def saved(folder: pathlib.Path, table: Table) -> Table:
    assert table.save(str(folder))
    found = Table.load(str(folder))
    assert found is not None
    return found


LAST = (1 << 64) - 1


def find_in_memory(folder: pathlib.Path) -> object:
    return table_of(FULL).find(LAST)


def find_many(folder: pathlib.Path) -> object:
    return sideindex.find_many(table_of(FULL), tp.cast(tp.Any, np.array([LAST], dtype=np.uint64)))


def find_in_file(folder: pathlib.Path) -> object:
    return saved(folder, table_of(FULL)).find(LAST)


def find_where_another_was_written(folder: pathlib.Path) -> object:
    table = saved(folder, table_of(FULL))
    table.drop_handle()
    saved(folder, table_of(FULL[:3]))
    return table.find(1)


def rows_of_unknown_files(folder: pathlib.Path) -> object:
    return sideindex.rows_of_table(saved(folder, table_of([(1, 0, 5, 7)])))


def find_in_damaged(folder: pathlib.Path) -> object:
    saved(folder, table_of([*FULL, (0, 0, 0, 0)]))
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes()[: -2 * ROW.size] + bytes(2 * ROW.size))
    table = Table.load(str(folder))
    assert table is not None
    return table.find(LAST)


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (find_in_memory, "the side index has no end"),
        (find_many, "the side index has no end"),
        (find_in_file, "the side index is cut short"),
        (find_where_another_was_written, "the side index was replaced"),
        (rows_of_unknown_files, "the side index names files that it does not know"),
        (find_in_damaged, "the side index is damaged"),
    ],
)
def test_a_side_index_that_cannot_be_believed(
    tmp_path: pathlib.Path, look: tp.Callable[[pathlib.Path], object], words: str
) -> None:
    with pytest.raises(OSError, match=words):
        look(tmp_path)


def test_a_side_index_has_a_largest_size() -> None:
    with pytest.raises(ValueError, match=r"a side index holds at most 2\*\*32 slots"):
        sideindex._homes(np.zeros(1, dtype=np.uint64), 1 << 32)
