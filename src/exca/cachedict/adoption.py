"""Taking over what another process has indexed meanwhile, so that of many writers each reads only its own lines."""

import os
import typing as tp

from .sideindex import FileMark, Table
from .textindex import TextFile

if tp.TYPE_CHECKING:
    from .folderreader import FolderReader

WORTH = 1 << 20  # bytes of text from which on this is cheaper than reading it


def adopt(reader: "FolderReader", found: dict[str, os.stat_result]) -> bool:
    """Take over rows of the side index in the folder for text that this reader has not read; returns whether any.

    Parameters
    ----------
    reader: what this process knows; its lock is held
    found: the index files of the folder

    Raises
    ------
    OSError: the reader's own table is damaged
    """
    from . import sidebuild

    other = Table.load(reader.folder)
    if other is None:
        return False
    news = list(_news(reader, other, found))
    if sum(mark.covered - file.scanned for _, file, mark in news) < WORTH:
        return False
    try:
        rows = sidebuild.rows_of_table(other)
    except OSError:
        return False
    chosen = sidebuild.chosen_rows(rows, {number: (file.number, file.scanned) for number, file, _ in news})
    reader.roll()
    own = [] if reader.table is None else [sidebuild.rows_of_table(reader.table)]
    clean, doubtful = sidebuild.without_doubles(own, chosen)
    for _, file, mark in news:
        seen = found[file.name]
        if file.scanned and file.blanks != mark.blanks:  # lines that were known before were deleted since
            reader.dead_rows = True
        file.scanned, file.blanks, file.counted_mtime = mark.covered, mark.blanks, mark.mtime
        file.size, file.mtime, file.inode = max(file.size, mark.covered), seen.st_mtime_ns, seen.st_ino
    reader.live += len(clean)
    reader.hot = None
    reader.table = sidebuild.build([*own, clean], reader.live, reader.marks())
    for place in doubtful:  # of one hash with another line: the text tells
        reader.add_line(place)
    reader.generation += 1
    return True


def _news(
    reader: "FolderReader", other: Table, found: dict[str, os.stat_result]
) -> tp.Iterator[tuple[int, TextFile, FileMark]]:
    for number, mark in enumerate(other.marks):
        file = reader.file(mark.name)
        if mark.covered > file.scanned and reader.still_true(file, mark, found.get(mark.name)):
            yield number, file, mark
