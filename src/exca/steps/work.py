"""Computing a stage: what it computes, and where."""

import abc
import contextlib
import json
import logging
import os
import sys
import typing as tp
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .. import _files, identity
from ..errors import (
    BatchProtocolError,
    ChangedConfigError,
    ClaimLostError,
    FolderNotWritableError,
    InfraError,
    JobError,
    LostInputError,
    ModeError,
    ReadOnlyError,
    ReentrantClaimError,
    ResolutionError,
    SubmissionError,
    UntrustedFileError,
)
from .batches import Keyed, composed, describe
from .pipeline import Stage

if tp.TYPE_CHECKING:
    from ..claims import Claim, chain
    from ..execution.backends import Request

logger = logging.getLogger("exca")

# what is wrong with how a computation was asked for, or where it runs: no outcome of an item, so it is not kept as one
_NO_OUTCOMES: tp.Final = (
    ChangedConfigError,
    ClaimLostError,
    FolderNotWritableError,
    InfraError,
    JobError,
    LostInputError,
    ModeError,
    ReadOnlyError,
    ReentrantClaimError,
    ResolutionError,
    SubmissionError,
    UntrustedFileError,
)

Fetch = Callable[[str], tp.Any]
Progress = Callable[[int], None]
ITEMS = "items.json"  # beside the logs of a job: the keys it was given


class Deferred(abc.ABC):
    """The input of an item that is made where the item is computed, in place of being made here and sent."""

    @abc.abstractmethod
    def value(self) -> tp.Any:
        """Make the input."""


class StageWorker:
    """Computes items of a stage and stores their results; travels to jobs.

    Parameters
    ----------
    stage: Stage
        the stage
    source: Stage, optional
        the stage before, from whose results the inputs are read
    fetch: callable, optional
        gives the input of a key, in this process
    logs: str, optional
        folder of the job's logs, with ``%j`` for its id, where that is not below the folder of the stage
    """

    def __init__(
        self, stage: Stage, source: Stage | None, fetch: Fetch | None = None, logs: str | None = None
    ) -> None:
        self.stage = stage
        self.source = source
        self.fetch = fetch
        self.logs = logs

    def __getstate__(self) -> dict[str, tp.Any]:
        return {**self.__dict__, "fetch": None}

    def __repr__(self) -> str:
        return f"the computation of {self.stage.address}"

    def compute(self, keys: Sequence[str], items: Sequence[tp.Any], progress: Progress | None = None) -> None:
        """Compute items, and store each result as soon as it is there; errors are stored as well.

        Parameters
        ----------
        keys: sequence of str
            keys of the items
        items: sequence
            their inputs, where they are not read from the stage before
        progress: callable, optional
            called for each item done
        """
        from ..claims import chain

        store = self.stage.store
        store.open()
        _note_items(store.folder, keys, self.logs)
        fetch = self._fetch_from(keys, items)
        if self.fetch is None:  # a job that was preempted and requeued goes on where it stopped
            keys = store.missing(keys)
            if not keys:
                return
        logger.debug("Computing %d item(s) of %s", len(keys), self.stage.address)
        with _captured(self.stage), chain.computing(keys) as batch:
            if self.stage.inner.stages:
                self._compute_inner(keys, fetch)
                if self.stage.shares_address:
                    if progress is not None:
                        progress(len(keys))
                    return
                fetch = results_of(self.stage.inner.stages[-1])
            self._compute_uncached(batch, fetch, progress)

    def _require_unchanged(self) -> None:
        for placed in self.stage.inner.uncached:
            placed.lineage.require_unchanged(placed)

    def _fetch_from(self, keys: Sequence[str], items: Sequence[tp.Any]) -> Fetch:
        if self.fetch is not None:
            return self.fetch
        if self.source is not None:
            return results_of(self.source)
        given = dict(zip(keys, items, strict=True))

        def fetch(key: str) -> tp.Any:
            item = given[key]
            return item.value() if isinstance(item, Deferred) else item

        return fetch

    def _compute_inner(self, keys: Sequence[str], fetch: Fetch) -> None:
        """Run the stages inside a chain; their errors become those of the chain."""
        from .scheduler import run_stages

        try:
            run_stages(self.stage.inner, keys, fetch)
        except _NO_OUTCOMES:
            raise
        except Exception as error:
            if not self.stage.shares_address:
                failed = [key for inner in self.stage.inner.stages for key in inner.store.failed(keys)]
                self.stage.store.put_errors(failed, error)
            raise

    def _compute_uncached(self, batch: "chain.Batch", fetch: Fetch, progress: Progress | None) -> None:
        store = self.stage.store
        given = Keyed(batch, fetch)
        stored: list[str] = []
        self._require_unchanged()
        try:
            with store.results.write():
                for value in composed(self.stage.inner.uncached, given.keys, given):
                    key = batch.taken.popleft() if batch.taken else ""
                    if key not in batch.given:  # else a call inside of this computation had it computed
                        store.put(key, value)
                        stored.append(key)
                    if progress is not None:
                        progress(1)
            self._require_unchanged()
        except ChangedConfigError:
            store.drop(stored)  # they are not the results of what their address was made from
            raise
        except BatchProtocolError as error:
            store.drop(stored)  # the results cannot be matched to items
            error.add_note(f"The {len(stored)} result(s) of this batch were dropped from {store.folder}.")
            raise
        except _NO_OUTCOMES:
            raise
        except Exception as error:
            flying = [] if given.broken else [key for key in batch.taken if key not in batch.given]
            if flying:
                store.put_errors(flying, error)
                error.add_note(
                    f"Items of {describe(self.stage.step)} that were taken and not yet yielded: {_some(flying)}. "
                    f"The {len(stored)} result(s) before them are kept."
                )
            raise


def _some(keys: Sequence[str]) -> str:
    text = ", ".join(map(repr, keys[:10]))
    return text if len(keys) <= 10 else f"{text} and {len(keys) - 10} more"


def results_of(stage: Stage) -> Fetch:
    """Return what gives the results of a stage to the next one.

    Parameters: `stage` the stage.
    """
    get = stage.store.results.__getitem__

    def fetch(key: str) -> tp.Any:
        try:
            return get(key)
        except KeyError:
            raise LostInputError(
                f"{stage.address} had a result for {key!r} in {stage.folder}, and has none any more: it was damaged "
                "(and set aside) or removed. Run again to compute it again"
            ) from None

    return fetch


class StageRun:
    """Missing items of a stage and how to compute them (a ``once.Work``).

    Parameters
    ----------
    stage: Stage
        the stage
    fetch: callable
        gives the input of a key
    source: Stage, optional
        the stage before, where the inputs are its results
    size: int, optional
        items of a share, by default as many as the backend asks for
    progress: callable, optional
        called for items done, in this process
    """

    def __init__(
        self,
        stage: Stage,
        fetch: Fetch,
        source: Stage | None,
        *,
        size: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.stage = stage
        self.fetch = fetch
        self.source = source
        self.size = size
        self.progress = progress or (lambda count: None)

    @property
    def folder(self) -> Path:
        """Folder of the claims: a chain around a stage with the same results has one of its own."""
        folder, depth = self.stage.store.folder, self.stage.group_depth
        return folder / "chains" / str(depth) if depth else folder

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys that have neither a result nor an error."""
        return self.stage.store.missing(keys)

    def execute(self, claim: "Claim", keys: Sequence[str]) -> None:
        """Compute claimed keys on the backend of the infra."""
        from ..execution import once, pools

        infra = self.stage.infra
        for placed in self.stage.inner.uncached:
            identity.check_secrets(placed.step)
        if infra.inline:
            StageWorker(self.stage, self.source, self.fetch).compute(keys, (), self.progress)
            return
        cluster = infra.resources(self.stage.store.folder).resolved_cluster() or infra.cluster
        assert cluster is not None, "only backends that are not inline run elsewhere"
        local = cluster == "threadpool"
        send = not local and self.source is None
        given = getattr(
            self.fetch, "deferred", self.fetch
        )  # made where it is needed, rather than here and sent
        shares = [
            (list(part), [given(k) if send else None for k in part]) for part in self.split(keys, cluster)
        ]
        computer = StageWorker(self.stage, self.source, self.fetch if local else None)
        if local:
            pools.run_in_threads(computer, shares, self.progress)
        elif cluster == "processpool":
            pools.run_in_processes(computer, shares, None, self.progress, claim=claim)
        else:
            once.run_in_jobs(
                claim, shares, computer, cluster=cluster, request=self._request, progress=self.progress
            )

    def split(self, keys: Sequence[str], cluster: str, *, of: int | None = None) -> list[Sequence[str]]:
        """Cut items into shares.

        Parameters
        ----------
        keys: sequence of str
            the items
        cluster: str
            where they are computed
        of: int, optional
            number of all items that the most shares of the backend are for, where these are only a part
        """
        from ..utils import even_chunks

        most, fewest = self.share_bounds(cluster)
        if self.size is not None:
            most = -(-len(keys) // self.size)
        elif of is not None and most is not None:
            most = max(1, most * len(keys) // max(1, of))
        return even_chunks(keys, max_chunks=most, min_items=fewest)

    def share_bounds(self, cluster: str) -> tuple[int | None, int]:
        """Return the most shares of a computation, and the fewest items of a share.

        Parameters
        ----------
        cluster: str
            where it runs
        """
        from ..execution import pools

        most, fewest = self.stage.infra.shares()
        if cluster in ("threadpool", "processpool"):
            most = pools.worker_count(cluster, most)
        return most, fewest

    def _request(self, calls: list[Callable[[], tp.Any]], tag: str) -> "Request":
        return job_request(self.stage, calls, tag)


def job_request(stage: Stage, calls: list[Callable[[], tp.Any]], tag: str) -> "Request":
    """Make the request for jobs of a stage.

    Parameters
    ----------
    stage: Stage
        with the infra that they are configured by
    calls: list of callable
        one per job
    tag: str
        text by which the jobs are found again in the scheduler
    """
    from ..execution.backends import Request

    folder = stage.store.folder
    most, _ = stage.infra.shares()
    name = getattr(stage.infra, "job_name", None) or stage.name
    resources = stage.infra.resources(folder)
    return Request(calls, resources, logs_of(folder), name, most or len(calls), None, tag)


def logs_of(folder: Path) -> str:
    """Return the pattern of the folders of a stage's jobs.

    Parameters: `folder` of the stage.
    """
    return str((folder / "logs" / "%j").absolute())


def _note_items(folder: Path, keys: Sequence[str], logs: str | None) -> None:
    """In a job, note beside its logs what it computes, so that the job of an item can be found."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    from ..execution.current import current_job
    from ..execution.paths import JobPaths

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


class _Tee:
    """Prints to a stream, and to a file until that is closed."""

    def __init__(self, stream: tp.Any, file: tp.Any) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        if not self._file.closed:  # a logging handler made meanwhile keeps the stream it found
            self._file.write(text)
        return int(self._stream.write(text))

    def flush(self) -> None:
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
def _captured(stage: Stage) -> Iterator[None]:
    """Context in which what is printed and logged also goes to the logs of a stage, where its infra asks for it."""
    if not getattr(stage.infra, "capture_logs", False):
        yield
        return
    folder = stage.store.folder / "logs" / "main-process"
    folder.mkdir(parents=True, exist_ok=True)
    with _files.append_text(folder / "log.stdout") as out, _files.append_text(folder / "log.stderr") as err:
        records = _LogFile(err)
        streams: tuple[tp.Any, tp.Any] = (_Tee(sys.stdout, out), _Tee(sys.stderr, err))
        logging.getLogger().addHandler(records)
        try:
            with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
                yield
        finally:
            logging.getLogger().removeHandler(records)
