"""Waiting for what other processes do."""

import time
import typing as tp

What = str | tp.Callable[[], str]


def wait_for(condition: tp.Callable[[], tp.Any], what: What = "this", seconds: float = 60) -> tp.Any:
    """Return what a condition said once that was true.

    Parameters
    ----------
    condition
        asked again and again
    what
        did not come, if it fails after so many seconds; a function is asked only then
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {seconds} s for {said}")
        time.sleep(0.01)
    return value
