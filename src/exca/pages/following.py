"""A log while it grows: what is new in it, as text that can be shown anywhere."""

import codecs
import contextlib
import os
import typing as tp

from .. import _files
from ..catalog.logs import log_of, plain
from ..catalog.rows import Row
from ..errors import NoSuchTaskError, OddFileError, UnknownVersionError, UntrustedFileError
from .facts import shortened

_BLOCK = 1 << 16
_NO_LOG = (NoSuchTaskError, UntrustedFileError, UnknownVersionError, OddFileError, OSError, ValueError)
_FAR_BEHIND = 1 << 20  # bytes: more than a reader keeps up with


class Follower:
    """A log, from some place on.

    It is opened once, and no link of another user's is followed; what a name leads to later does not matter.

    Parameters
    ----------
    path: str
        the file, as `catalog.logs.log_of` names it
    at: int, optional
        from which byte on (default: the beginning of the last lines)

    Raises
    ------
    OSError
        if it is not there, or no regular file
    UntrustedFileError
        if there is a link of another user's on the way
    """

    def __init__(self, path: str, at: int | None = None) -> None:
        self._file: tp.BinaryIO = _files.open_regular(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.at: int = 0
        status = os.fstat(self._file.fileno())
        self.file_id: tuple[int, int] = (status.st_dev, status.st_ino)
        size = status.st_size
        if at is None or not 0 <= at <= size or size - at > _FAR_BEHIND:
            self._go_to_last(size)
        else:
            self.at = at

    def more(self) -> str:
        """Return what was printed since, or a part of it; "" where there is nothing new."""
        size = os.fstat(self._file.fileno()).st_size
        said = ""
        if size < self.at:  # begun anew
            self.at = 0
            said = "[the log begins anew]\n"
        elif size - self.at > _FAR_BEHIND:
            before = self.at
            self._go_to_last(size)
            said = f"[{self.at - before} bytes left out]\n"
        self._file.seek(self.at)
        data = self._file.read(_BLOCK)
        self.at += len(data)
        text = self._decoder.decode(data).replace("\r\n", "\n")
        return said + plain(text.replace("\r", "\n"))

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _go_to_last(self, size: int) -> None:
        self._decoder.reset()
        self.at = max(0, size - _BLOCK)
        if self.at:
            self._file.seek(self.at)
            head = self._file.read(_BLOCK)
            self.at += head.find(b"\n") + 1


def follower(row: Row, *, at: int | None, **which: tp.Any) -> Follower | None:
    """The log of a run's job; None where there is none, or none that may be shown."""
    try:
        return Follower(str(log_of(row, **which)), at)
    except _NO_LOG:
        return None


def end_of_log(row: Row, **which: tp.Any) -> tuple[str, int, str]:
    """The end of a log, where that ends, and why there is nothing to see."""
    try:
        found = Follower(str(log_of(row, **which)))
    except (UntrustedFileError, UnknownVersionError) as e:
        return "", 0, shortened(str(e), 400)
    except _NO_LOG:
        return "", 0, "No job of it has printed anything that is kept."
    try:
        text = found.more()
    finally:
        found.close()
    nothing = "Nothing so far." if row.state == "running" else "Nothing."
    return text, found.at, "" if text else nothing
