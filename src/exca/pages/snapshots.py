"""What is in a folder just now, looked at once for all tabs that show it."""

import asyncio
import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Sequence

from ..catalog import scan
from ..catalog.rows import Row

_PAUSE = 1.0  # seconds from one look to the next, at least
_SHARE = 4  # a look that takes long is followed by a pause of so many times that


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The rows of a folder at one moment.

    Parameters
    ----------
    version: int
        counts the looks that found something else than the one before
    rows: sequence of Row
        in the order of their addresses
    """

    version: int = 0
    rows: Sequence[Row] = ()
    by_id: dict[str, Row] = dataclasses.field(default_factory=dict)


class Watched:
    """A folder that tabs show.

    Parameters
    ----------
    folder: str
        the cache folder
    pause: float
        seconds from one look to the next, at least
    """

    def __init__(self, folder: str, pause: float = _PAUSE) -> None:
        self.folder = folder
        self.looks: int = 0
        self._pause = pause
        self._due = 0.0
        self._now = Snapshot()
        self._print = 0
        self._lock = asyncio.Lock()

    async def now(self) -> Snapshot:
        """What is there, as of the last look; that was no longer ago than a pause."""
        async with self._lock:  # those who ask meanwhile get what the one look finds
            if time.monotonic() >= self._due:
                await self._look()
        return self._now

    async def _look(self) -> None:
        start = time.monotonic()
        with contextlib.suppress(NotADirectoryError):  # removed meanwhile, or not there yet
            rows = await asyncio.to_thread(scan.rows, self.folder)
            seen = hash(tuple((row.address, row.state, row.when, row.text) for row in rows))
            if seen != self._print or not self._now.version:
                self._print = seen
                self._now = Snapshot(self._now.version + 1, rows, {id_of(row): row for row in rows})
        self.looks += 1
        end = time.monotonic()
        self._due = max(start + self._pause, end + _SHARE * (end - start))


def id_of(row: Row) -> str:
    """By which a page asks for a row: it tells nothing of the path, and is the same in each run."""
    name = f"{row.top}\0{row.address}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=10).hexdigest()
