"""How exca waits for what others do: it looks again and again, soon at first and seldom at last."""

import threading
import time

FIRST_PAUSE, LAST_PAUSE = 0.002, 0.25  # seconds
GROWTH = 1.3  # how much longer a pause is than the one before


class Poller:
    """The pauses between looks at something that another thread, process or host does.

    Parameters
    ----------
    timeout
        seconds after which :meth:`pause` tells that the time is over
    wake
        ends a pause early
    """

    def __init__(self, timeout: float | None = None, wake: threading.Event | None = None) -> None:
        self._start = time.monotonic()
        self._timeout = timeout
        self._wake = wake
        self._pause = FIRST_PAUSE
        self._done_at: dict[str, float] = {}

    @property
    def waited(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float | None:
        """Seconds until the time is over, not below 0."""
        return None if self._timeout is None else max(0.0, self._timeout - self.waited)

    def pause(self, at_least: float = 0.0) -> bool:
        """Sleep a little longer than the last time; False, without sleeping, where the time is over."""
        seconds, left = max(self._pause, at_least), self.left
        if left is not None:
            if not left:
                return False
            seconds = min(seconds, left)
        if self._wake is None:
            time.sleep(seconds)
        else:
            self._wake.wait(seconds)
            self._wake.clear()
        self._pause = min(GROWTH * self._pause, LAST_PAUSE)
        return True

    def restart(self) -> None:
        """Look soon again, since something has moved."""
        self._pause = FIRST_PAUSE

    def is_time_to(self, what: str, *, every: float) -> bool:
        """Whether something is to be done again; sooner than that as long as the pauses are short."""
        waited = self.waited
        if waited - self._done_at.get(what, 0.0) <= min(every, 10 * self._pause):
            return False
        self._done_at[what] = waited
        return True

    def is_time_once(self, what: str, *, after: float) -> bool:
        """Whether so many seconds have passed, and this was not asked since."""
        if what in self._done_at or self.waited <= after:
            return False
        self._done_at[what] = self.waited
        return True
