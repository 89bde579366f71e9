"""What a caller that waits is told of a scheduler that does not answer: a warning first, and an error after long."""

import os
import time

from .._log import logger
from ..errors import SchedulerError

SAY_AFTER = 60.0  # seconds without an answer after which that is said, once
PATIENCE = 1800.0  # seconds without an answer after which callers that wait get an error


class Silence:
    """The time for which a scheduler gives no answer.

    Parameters
    ----------
    scheduler: str
        what it is called in messages
    advice: str
        what to do where it stays silent, in place of asking again
    """

    def __init__(self, scheduler: str, advice: str = "") -> None:
        self._scheduler = scheduler
        self._advice = advice
        self._since: float | None = None
        self._why = ""
        self._said = False

    def begin(self, why: str, since: float) -> None:
        """Note that there was no answer, to a question that was asked at a monotonic time."""
        self._why = why
        if self._since is None:
            self._since, self._said = since, False

    def end(self) -> None:
        """Note that there was an answer."""
        since, self._since = self._since, None
        if since is not None and self._said:
            logger.info("%s answers again", self._scheduler)

    def check(self) -> None:
        """Warn once where there has been no answer for a minute, and raise SchedulerError after `patience`."""
        since = self._since
        if since is None:
            return
        lasts = time.monotonic() - since
        if lasts > patience():
            raise SchedulerError(
                f"{self._scheduler} has given no answer for {lasts / 60:.0f} minutes ({self._why}), so what became of "
                f"its jobs is unknown. Nothing was written about them: ask again once it answers{self._advice}. "
                "To wait for longer: EXCA_SCHEDULER_PATIENCE=<seconds>"
            )
        if lasts > SAY_AFTER and not self._said:
            self._said = True
            logger.warning(
                "%s has given no answer for %.0f s (%s). None of its jobs counts as ended for that: callers go on "
                "waiting, for %.0f minutes at most%s",
                *(self._scheduler, lasts, self._why, patience() / 60, self._advice),
            )


def patience() -> float:
    """Seconds without an answer after which callers that wait get an error: ``EXCA_SCHEDULER_PATIENCE``."""
    try:
        return float(os.environ.get("EXCA_SCHEDULER_PATIENCE", PATIENCE))
    except ValueError:
        return PATIENCE
