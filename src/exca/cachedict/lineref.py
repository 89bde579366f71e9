"""Where a line of the text index is: the number of its file, its offset and its length, in one int.

An int takes a third of the memory of a tuple, sorts by file and offset, and is as fast in a dictionary.
"""

import array
import typing as tp

LineRef: tp.TypeAlias = int

_FILE, _OFFSET = 80, 32  # bits to the right of each
_MAX_OFFSET, _MAX_LENGTH = (1 << _FILE - _OFFSET) - 1, (1 << _OFFSET) - 1


def line_ref(file: int, offset: int, length: int) -> LineRef:
    """The reference to a line: its file's number, where it starts, and its length with its end."""
    return file << _FILE | offset << _OFFSET | length


def parts_of(ref: LineRef) -> tuple[int, int, int]:
    """The number of the file, the offset and the length of a line."""
    return ref >> _FILE, ref >> _OFFSET & _MAX_OFFSET, ref & _MAX_LENGTH


def file_of(ref: LineRef) -> int:
    """The number of the file of a line."""
    return ref >> _FILE


def start_of(ref: LineRef) -> int:
    """File and offset of a line in one number: lines of one file differ by bytes, those of two files by far more."""
    return ref >> _OFFSET


def length_of(ref: LineRef) -> int:
    """The length of a line with its end."""
    return ref & _MAX_LENGTH


def columns(refs: tp.Iterable[LineRef]) -> "tuple[array.array[int], array.array[int], array.array[int]]":
    """The numbers of the files, the offsets and the lengths of many lines."""
    refs = list(refs)
    return (
        array.array("I", [ref >> _FILE for ref in refs]),
        array.array("Q", [ref >> _OFFSET & _MAX_OFFSET for ref in refs]),
        array.array("I", [ref & _MAX_LENGTH for ref in refs]),
    )
