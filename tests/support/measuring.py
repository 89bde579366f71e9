"""Measures which lines and branches of exca the tests reach, where ``make test`` asks for it.

Only processes that run tests are measured, not those that tests start: to measure these too takes half as long again,
and most of what a job runs is also called by a test in its own process.
"""

import os
import typing as tp


def _started() -> tp.Any:
    """Start to measure this process, if that is asked for."""
    if os.environ.get("EXCA_COVERAGE", "") in ("", "0"):
        return None
    import coverage

    measured = coverage.Coverage()
    measured.start()
    return measured


_MEASURED = _started()  # before exca is imported


def pytest_unconfigure() -> None:
    """Write what was measured."""
    if _MEASURED is not None:
        _MEASURED.stop()
        _MEASURED.save()
