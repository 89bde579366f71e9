"""All entries of a folder in memory: what a process that asks for many of them reads once instead of line by line.

Small values are kept as they are, other entries as their line. What others append is added when it is seen; a
deletion by another process is seen when the folder's mtime is looked at, every 10 ms of use.
"""

import time
import typing as tp

from .textindex import SCALARS, TextFile, parse_line, parse_lines

MAX_BYTES = 32 << 20  # bytes of text index up to which all entries are kept
INTERVAL = 0.01  # s between looks at the folder's mtime
_BLOCK = 512  # lines parsed at once


class Preloaded(dict[str, tp.Any]):
    """Values and lines by key; complete as of the last look at the folder."""

    __slots__ = ("mtime", "until")

    def __init__(self, mtime: int) -> None:
        super().__init__()
        self.mtime: int = mtime  # of the folder, when these were read
        self.until: float = time.monotonic() + INTERVAL

    def add(self, key: str, line: bytes) -> None:
        """Take note of a new line; a damaged one is left out."""
        info = parse_line(line)
        if info is not None:
            self[key] = _kept(info, line)
        else:
            self.pop(key, None)

    def read(self, file: TextFile) -> list[str]:
        """Add all entries of a file; returns the keys that were here before."""
        twice = []
        text = file.read(0, file.scanned)
        lines = [line for line in text.split(b"\n") if line[:1] == b"{"]
        for start in range(0, len(lines), _BLOCK):
            block = lines[start : start + _BLOCK]
            for info, line in zip(parse_lines(block), block, strict=True):
                if info is None:
                    continue
                key = info["#key"]
                if key in self:
                    twice.append(key)
                content = info.get("content", info)
                self[key] = content if type(content) in SCALARS and info["#type"] == "Json" else line
        return twice


def _kept(info: dict[str, tp.Any], line: bytes) -> tp.Any:
    if info["#type"] == "Json" and "content" in info:
        content = info["content"]
        if type(content) in SCALARS:  # a container could be changed by the caller that gets it
            return content
    return line
