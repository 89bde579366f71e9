"""What `exca doctor --strict` looks for: tasks that a strict setting would refuse, or compute again."""

import collections
import contextlib
import os
import warnings
from collections.abc import Iterator

from .. import settings
from ..catalog import scan
from ..catalog.rows import Row
from ..errors import RefusalWarning
from ..explaining import why
from .again import object_of, target_of

_MOST = 100  # tasks of each method that are looked at, the latest


def strictness(folder: str) -> Iterator[tuple[bool | None, str]]:
    """Yield what would be refused (False), what is allowed or would be computed again (None), or that all is well.

    The modules that the folders of tasks name are imported, where this user or a trusted one wrote the folders.
    """
    by_method = collections.defaultdict(list)
    for row in scan.rows(folder):
        if row.facts.get("kind") == "task":
            by_method[row.method].append(row)
    for method, rows in by_method.items():
        latest = sorted(rows, key=lambda row: -row.when)[:_MOST]
        changed, reason, error = 0, "", None
        with _everything_allowed() as refused:
            try:
                changed, reason = _changed(latest)
            except Exception as e:  # of the user's module
                error = f"{method}: not looked at: {' '.join(str(e).split())}"
        for code, text in refused.items():
            allowed = settings.is_allowed(code)
            yield (None if allowed else False), f"{method}: {text}{f' [allowed: {code}]' if allowed else ''}"
        if error is not None:
            yield None, error
        elif changed:
            yield None, f"{method}: code='strict' would compute {changed} of {len(latest)} again: {reason}"
        elif not refused:
            yield True, f"{method}: nothing of {len(latest)} would be refused or computed again"


def _changed(rows: list[Row]) -> tuple[int, str]:
    """How many outcomes do not count with ``code="strict"``, and why the first of them does not."""
    what = target_of(rows[0], None)
    reasons = []
    for row in rows:
        found = why(what.infra_of(object_of(row, what, ["code=strict"])))
        if not found.hit:
            reasons.append(found.reason)
    return len(reasons), reasons[0] if reasons else ""


@contextlib.contextmanager
def _everything_allowed() -> Iterator[dict[str, str]]:
    """Let refusals be warnings, and gather them by their codes."""
    before = os.environ.get(settings.VARIABLE)
    refused: dict[str, str] = {}
    os.environ[settings.VARIABLE] = settings.EVERYTHING
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield refused
    finally:
        if before is None:
            del os.environ[settings.VARIABLE]
        else:
            os.environ[settings.VARIABLE] = before
    for warning in caught:
        if isinstance(warning.message, RefusalWarning) and warning.message.code:
            text = str(warning.message).partition(f" [{warning.message.code}: ")[0]
            refused.setdefault(warning.message.code, f"{' '.join(text.split())} [{warning.message.code}]")
