"""Logs of jobs: which file, and following it while it grows."""

import codecs
import os
import sys
import time
import typing as tp
from pathlib import Path

from .. import _files
from ..catalog import scan
from ..catalog.logs import CONTROL
from ..catalog.rows import Row, printable
from ..errors import NoSuchTaskError

_PAUSE = 0.2  # seconds between two looks at a log
_BLOCK = 1 << 16


def print_log(row: Row, path: Path, *, follow: bool, lines: int | None) -> int:
    """Print a log, and go on while its job runs."""
    try:
        file = _files.open_regular(str(path))
    except FileNotFoundError:
        raise NoSuchTaskError(f"there is no log {path}: its job has not begun, or it was removed") from None
    with file:
        foreign = hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid != os.geteuid()
        quoted = foreign and sys.stdout.isatty()  # a stranger's log moves no cursor
        if lines is not None:
            _go_to_last(file, lines)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            # asked before the rest is read: what a job prints at its end is printed here too
            ended = not follow or _has_ended(row)
            while data := file.read(_BLOCK):
                text = decoder.decode(data)
                sys.stdout.write(CONTROL.sub(lambda m: printable(m[0]), text) if quoted else text)
            sys.stdout.flush()
            if ended:
                return 0
            time.sleep(_PAUSE)


def _has_ended(row: Row) -> bool:
    now = scan.look_again(row)
    return now is None or now.state != "running"


def _go_to_last(file: tp.BinaryIO, lines: int) -> None:
    """Go to the beginning of the last lines of a file."""
    end = at = file.seek(0, os.SEEK_END)
    tail = b""
    while at and tail.count(b"\n") <= lines:
        at = max(0, at - _BLOCK)
        file.seek(at)
        tail = file.read(end - at)
    rest = b"".join(tail.splitlines(keepends=True)[-lines:]) if lines > 0 else b""
    file.seek(end - len(rest))
