"""A log while it grows: what is new in it, as text that can be shown anywhere."""

import codecs
import contextlib
import os
import typing as tp

from .. import _files
from ..catalog.logs import plain

_BLOCK = 1 << 16
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
