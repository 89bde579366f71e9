"""The list of tasks that the scheduler had no room for, in one file beside the logs.

It holds all that is needed to submit them, so that it need not be the interpreter that made the list. It is changed
under a claim only, and believed only if it is this user's.
"""

import base64
import contextlib
import os
import pickle
import time
import typing as tp
import uuid
from pathlib import Path

import orjson

from .. import _files, _trust
from .._log import logger
from ..errors import OddFileError, UntrustedFileError
from .method import Method

NAME = "unsent.json"
EVERY = 5.0  # seconds between two attempts
REMEMBER = 1.0  # seconds for which the list is good where it need not be the very last one
_KEY = "unsent"
_tried: dict[str, float] = {}
_listed: dict[str, tuple[float, frozenset[str]]] = {}  # tasks on a list, and when it was read
_unread: set[str] = set()  # pickles that could not be read here, of which this process has spoken
Batch = dict[str, tp.Any]
Submit = tp.Callable[[list[Method], Method, int], list[Path]]
_submit: list[Submit] = []  # set by `tasks`, which uses this list


def add(logs: Path, methods: tp.Sequence[Method], through: Method, max_workers: int) -> None:
    """Put tasks on the list, to be submitted through an infra, at most some of them at once."""
    from ..jobs.pickling import dumps

    batch: Batch = {
        "id": uuid.uuid4().hex,
        "max_workers": max_workers,
        "tasks": [str(method.folder) for method in methods],
        "pickle": base64.b64encode(dumps((through, list(methods)))).decode(),
    }
    with _changing(logs, wait=True):
        batches = _read(logs)
        if not {folder for b in batches for folder in b["tasks"]}.issuperset(batch["tasks"]):
            _write(logs, [*batches, batch])


def submit_by(submit: Submit) -> None:
    """Set what submits tasks of the list: a callable (methods, through, max_workers).

    It returns the uid folders of those that there is still no room for.
    """
    _submit[:] = [submit]


def send(logs: Path) -> None:
    """Submit the tasks on the list that there is room for now; at most every few seconds."""
    path = f"{logs}/{NAME}"
    now = time.monotonic()
    if not _submit or not os.access(path, os.F_OK) or now - _tried.get(path, -EVERY) < EVERY:
        return
    _tried[path] = now
    with _changing(logs, wait=False) as mine:
        if mine:  # else another process is at it
            batches = [{**batch, "tasks": _send_batch(batch)} for batch in _read(logs)]
            _write(logs, batches)


def forget(logs: Path, folder: Path) -> None:
    """Take a task off the list."""
    if not os.access(f"{logs}/{NAME}", os.F_OK):
        return
    with _changing(logs, wait=True):
        batches = _read(logs)
        for batch in batches:
            batch["tasks"] = [f for f in batch["tasks"] if f != str(folder)]
        _write(logs, batches)


def holds(logs: Path, folder: Path, *, recently: bool = False) -> bool:
    """Whether a task is on the list, or was so a moment ago."""
    path, now = f"{logs}/{NAME}", time.monotonic()
    at, listed = _listed.get(path, (-REMEMBER, frozenset()))
    if not recently or now - at >= REMEMBER:
        listed = frozenset(task for batch in _read(logs) for task in batch["tasks"])
        _listed[path] = now, listed
    return str(folder) in listed


def _send_batch(batch: Batch) -> list[str]:
    """Submit what there is room for, and return the folders of the others."""
    waiting: list[str] = batch["tasks"]
    try:
        through, methods = pickle.loads(base64.b64decode(batch["pickle"]))
        methods = [method for method in methods if str(method.folder) in waiting]
    except Exception as e:  # of what it calls: it may need code that is not at hand here, and is elsewhere
        if batch["pickle"] not in _unread:
            _unread.add(batch["pickle"])
            logger.warning(
                "%d task(s) that wait for room can't be read here, and wait on: %r", len(waiting), e
            )
        return waiting
    try:
        return [str(folder) for folder in _submit[0](methods, through, batch["max_workers"])]
    except Exception as e:  # refused for good: a caller who asks for one of them submits it, and sees why
        logger.warning("%d task(s) that waited for room can't be submitted any more: %s", len(waiting), e)
        return []


@contextlib.contextmanager
def _changing(logs: Path, *, wait: bool) -> tp.Iterator[bool]:
    """Context in which this thread alone changes the list; gives False where another one does and it is not to wait."""
    from ..claims import Claims

    logs.mkdir(parents=True, exist_ok=True)
    claims = Claims(logs)
    claim, _ = claims.acquire([_KEY])
    while claim is None and wait:
        claims.wait([_KEY], done=lambda: False)
        claim, _ = claims.acquire([_KEY])
    try:
        yield claim is not None
    finally:
        if claim is not None:
            claim.release()


def _read(logs: Path) -> list[Batch]:
    path = logs / NAME
    try:
        content = orjson.loads(_trust.read_trusted(path))
        return [b for b in content["batches"] if _is_batch(b)]
    except FileNotFoundError:
        return []
    except (UntrustedFileError, OddFileError) as e:
        _trust.skip(path, e)
        return []
    except (ValueError, KeyError, TypeError) as e:
        logger.warning("The list of tasks that wait for room, %s, is damaged and left alone: %s", path, e)
        return []


def _is_batch(batch: tp.Any) -> bool:
    tasks = batch["tasks"]
    return (
        isinstance(tasks, list)
        and all(isinstance(task, str) for task in tasks)
        and isinstance(batch["pickle"], str)
        and type(batch["max_workers"]) is int
    )


def _write(logs: Path, batches: list[Batch]) -> None:
    path = logs / NAME
    batches = [batch for batch in batches if batch["tasks"]]
    if batches:
        content = orjson.dumps({"version": 1, "batches": batches})
        _files.write_atomically(path, content, mode=_files.PRIVATE, durable=True)
    else:
        path.unlink(missing_ok=True)
