"""Waiting for what other processes do."""

import time
import typing as tp


def wait_for(condition: tp.Callable[[], tp.Any], what: str, seconds: float = 60) -> tp.Any:
    """Return what a condition said once that was true; fail after some seconds, naming what did not come."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return value
