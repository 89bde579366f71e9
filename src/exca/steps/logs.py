"""The logs of a stage: where they are, what a job notes beside them, and what is printed in this process."""

import contextlib
import json
import logging
import os
import sys
import typing as tp
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import _files

if tp.TYPE_CHECKING:
    from .pipeline import Stage

ITEMS = "items.json"  # beside the logs of a job: the keys it was given


def logs_of(folder: Path) -> str:
    """Return the pattern of the folders of a stage's jobs."""
    return str((folder / "logs" / "%j").absolute())


def note_items(folder: Path, keys: Sequence[str], logs: str | None) -> None:
    """In a job, note beside its logs what it computes, so that the job of an item can be found."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    from ..jobs.environment import current_job
    from ..jobs.paths import JobPaths

    logs = logs or logs_of(folder)
    where, rank = current_job(logs)
    if (
        rank > 0
        or where["cluster"] not in ("local", "slurm")
        or not JobPaths(logs, where["job_id"]).folder.is_dir()
    ):
        return  # another job's process, which happens to compute this
    place = JobPaths(logs_of(folder), where["job_id"]).folder
    place.mkdir(parents=True, exist_ok=True)
    _files.write_atomically(
        place / ITEMS, json.dumps({**where, "pid": os.getpid(), "keys": list(keys)}).encode()
    )


class Tee:
    """Prints to a stream, and to a file until that is closed."""

    def __init__(self, stream: tp.Any, file: tp.Any) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        """Write a text to both."""
        if not self._file.closed:  # a logging handler made meanwhile keeps the stream it found
            self._file.write(text)
        return int(self._stream.write(text))

    def flush(self) -> None:
        """Flush both."""
        if not self._file.closed:
            self._file.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> tp.Any:
        return getattr(self._stream, name)


class _LogFile(logging.StreamHandler[tp.Any]):
    """Writes the records of all loggers to a file.

    Where the root logger has no handler, the one of last resort would be silent now: it is asked, too.
    """

    def __init__(self, file: tp.Any) -> None:
        super().__init__(file)
        self.setFormatter(
            logging.Formatter("%(asctime)s - %(levelname)s - %(name)s:%(lineno)s - %(message)s")
        )
        self._last_resort = None if logging.getLogger().handlers else sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self._last_resort is not None and record.levelno >= logging.WARNING:
            print(record.getMessage(), file=self._last_resort)


@contextlib.contextmanager
def captured(stage: "Stage") -> Iterator[None]:
    """Context in which what is printed and logged also goes to the logs of a stage, where its infra asks for it."""
    if not getattr(stage.infra, "capture_logs", False):
        yield
        return
    folder = stage.store.folder / "logs" / "main-process"
    folder.mkdir(parents=True, exist_ok=True)
    with _files.append_text(folder / "log.stdout") as out, _files.append_text(folder / "log.stderr") as err:
        records = _LogFile(err)
        streams: tuple[tp.Any, tp.Any] = (Tee(sys.stdout, out), Tee(sys.stderr, err))
        logging.getLogger().addHandler(records)
        try:
            with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
                yield
        finally:
            logging.getLogger().removeHandler(records)
