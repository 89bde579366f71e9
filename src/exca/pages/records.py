"""What the files of a single run tell beyond its row: attempts, traceback, the end of its log, what it logged."""

import contextlib
import os
import typing as tp
from collections.abc import Sequence

from .. import _files
from ..catalog import logs
from ..catalog.rows import Row, is_number, text_of
from ..engine import record
from ..engine.current import METRICS
from ..errors import NoSuchTaskError, OddFileError, UnknownVersionError, UntrustedFileError

_ATTEMPT = ("state", "reason", "host", "job_id", "started", "finished")
_MOST_ATTEMPTS = 30
_MOST_PROCESSES = 4096  # of a job, between which a page lets choose
_MOST_TRACEBACK = 4000  # characters
_MOST_METRICS = 1 << 19  # bytes of one run
_MOST_NAMES = 12  # metrics of one run
Curve: tp.TypeAlias = list[tuple[float, float]]  # steps and values, in order


def _content(row: Row) -> dict[str, tp.Any]:
    """The record of a run, empty where it has none; nothing is set aside."""
    path = f"{row.folder}/{record.NAME}"
    try:
        return record.parse(_files.read_file(path), path) or {}
    except (OSError, OddFileError, UnknownVersionError):
        return {}


def attempts_and_traceback(row: Row) -> tuple[list[list[str]], str]:
    """The attempts before the one that counts (state, reason, host, job, start, end), and the traceback of an error."""
    content = _content(row)
    attempts = [[_text(each.get(name)) for name in _ATTEMPT] for each in earlier(row)[:_MOST_ATTEMPTS]]
    error = content.get("error")
    traceback = error.get("traceback") if isinstance(error, dict) else None
    return attempts, visible(traceback[-_MOST_TRACEBACK:]) if isinstance(traceback, str) else ""


def earlier(row: Row) -> Sequence[dict[str, tp.Any]]:
    """The attempts that were lost before the one that counts, or that runs."""
    try:
        found = logs.logged_by(row)
    except (UnknownVersionError, OSError, ValueError):
        return ()
    return () if found is None else found.earlier


def choices(row: Row) -> tuple[int, list[tuple[int, str]]]:
    """Of which processes and attempts there may be logs: how many processes, and number and text of each attempt."""
    try:
        found = logs.logged_by(row)
    except (UnknownVersionError, OSError, ValueError):
        found = None
    if found is None:
        return 1, []
    attempts = [
        (n, f"{n}: {_text(each.get('state'))}, job {_text(each.get('job_id'))}")
        for n, each in enumerate(found.earlier[:_MOST_ATTEMPTS], start=1)
        if found.job_of(n)
    ]
    return max(1, min(found.processes, _MOST_PROCESSES)), attempts


def _text(value: tp.Any) -> str:
    text = "" if value is None else text_of(value)
    return text if len(text) <= 300 else f"{text[:299]}…"


def visible(text: str) -> str:
    """A text of several lines in which control characters are shown as they are written in Python."""
    return logs.CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def log_tail(row: Row, most: int) -> list[tuple[str, str]]:
    """The ends of what its job printed: "stdout" or "stderr" and a text, for those that hold any."""
    found = []
    for name, err in (("stderr", True), ("stdout", False)):
        try:
            path = logs.log_of(row, err=err)
        except (NoSuchTaskError, UntrustedFileError, UnknownVersionError, OSError, ValueError):
            continue
        text = logs.tail(path, most).strip("\n")
        if text.strip():
            found.append((name, text))
    return found


def has_metrics(row: Row) -> bool:
    """Whether it logged any numbers."""
    return os.path.exists(f"{row.folder}/{METRICS}")


def logged(row: Row) -> int:
    """How many bytes it has logged so far."""
    try:
        return os.lstat(f"{row.folder}/{METRICS}").st_size
    except OSError:
        return 0


def curves(row: Row) -> dict[str, Curve]:
    """The numbers that a run logged, by name; of a step that was logged twice, the later counts."""
    import orjson

    try:
        with _files.open_regular(f"{row.folder}/{METRICS}") as file:
            data = file.read(_MOST_METRICS)
    except (OSError, OddFileError):
        return {}
    found: dict[str, dict[float, float]] = {}
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            content = orjson.loads(line)
            step = content.get("step") if isinstance(content, dict) else None
            if not is_number(step):
                continue
            for name, value in content.items():
                wanted = name not in ("step", "time", "attempt") and is_number(value)
                if wanted and (name in found or len(found) < _MOST_NAMES):
                    found.setdefault(name, {})[step] = value
    return {name: sorted(values.items()) for name, values in found.items()}
