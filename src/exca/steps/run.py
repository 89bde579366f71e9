"""The way of a call: from a value, or many, to results that are kept.

From the bottom: a worker computes items of a stage and stores them, here or in a job. The run of a stage tells which
items are missing, and hands them to workers on the backend of the infra. Stages run one after the other, or at the same
time (`scheduler`), until the last one has all its results; these are read, and uncached steps follow in place.
"""

import contextlib
import functools
import itertools
import json
import logging
import os
import sys
import typing as tp
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .. import _files, _reloads, errors, identity
from .._log import logger
from ..engine.method import observers, running
from ..engine.once import Advance
from ..errors import BatchProtocolError, ChangedConfigError, LostInputError, ReadOnlyError
from . import addresses
from .addresses import NO_INPUT
from .pipeline import CACHED, FORCE, Keyed, Pipeline, Stage, composed, describe, pipeline_of
from .scheduler import Background, MissingKeys, Scheduler

if tp.TYPE_CHECKING:
    from ..claims import Claim, chain
    from .base import Step


# what is wrong with how a computation was asked for, or where it runs: no outcome of an item, so it is not kept as one
_NO_OUTCOMES: tp.Final = (
    ChangedConfigError,
    errors.ClaimLostError,
    errors.FolderNotWritableError,
    errors.InfraError,
    errors.JobError,
    LostInputError,
    errors.ModeError,
    ReadOnlyError,
    errors.ReentrantClaimError,
    errors.ResolutionError,
    errors.SubmissionError,
    errors.UntrustedFileError,
)

Fetch = Callable[[str], tp.Any]
_LOOKUP = 8192  # items looked up together
_MOST_LOSSES = 3  # results of earlier stages found damaged, until it is no accident any more


class Deferred(functools.partial[tp.Any]):
    """The input of an item that is made where the item is computed, in place of being made here and sent."""


class StageComputed:
    """What `exca.current` tells of a stage that is being computed."""

    def __init__(self, stage: Stage) -> None:
        self.obj: Step = stage.step
        self.stage: Stage = stage

    @property
    def uid(self) -> str:
        """The address of its results."""
        return self.stage.address

    @property
    def folder(self) -> Path:
        """Folder of its results."""
        return tp.cast(Path, None) if self.stage.folder is None else Path(self.stage.store.folder)

    def full_config(self) -> dict[str, tp.Any]:
        """All of the step, without what comes before it."""
        return identity.export(self.obj)


class StageWorker:
    """Computes items of a stage and stores their results; travels to jobs."""

    def __init__(
        self, stage: Stage, source: Stage | None, fetch: Fetch | None = None, logs: str | None = None
    ) -> None:
        self.stage = stage
        self.source = source  # the stage before, from whose results the inputs are read
        self.fetch = fetch  # gives the input of a key, in this process
        # folder of the job's logs, with ``%j`` for its id, where that is not below the folder of the stage
        self.logs = logs

    def __getstate__(self) -> dict[str, tp.Any]:
        return {**self.__dict__, "fetch": None}

    def __repr__(self) -> str:
        return f"the computation of {self.stage.address}"

    def compute(self, keys: Sequence[str], items: Sequence[tp.Any], progress: Advance | None = None) -> None:
        """Compute items, and store each result as soon as it is there; errors are stored as well."""
        from ..claims import chain

        store = self.stage.store
        store.open()
        note_items(store.folder, keys, self.logs)
        fetch = self._fetch_from(keys, items)
        if self.fetch is None:  # a job that was preempted and requeued goes on where it stopped
            keys = store.missing(keys)
            if not keys:
                return
        logger.debug("Computing %d item(s) of %s", len(keys), self.stage.address)
        outer = running.set((functools.partial(StageComputed, self.stage), "", "items"))
        try:
            with captured(self.stage), chain.computing(keys) as batch:
                if self.stage.inner.stages:
                    self._compute_inner(keys, fetch)
                    if self.stage.shares_address:
                        if progress is not None:
                            progress(len(keys))
                        return
                    fetch = results_of(self.stage.inner.stages[-1])
                self._compute_uncached(batch, fetch, progress)
        finally:
            running.reset(outer)

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
            return item() if isinstance(item, Deferred) else item

        return fetch

    def _compute_inner(self, keys: Sequence[str], fetch: Fetch) -> None:
        """Run the stages inside a chain; their errors become those of the chain."""
        try:
            run_stages(self.stage.inner, keys, fetch)
        except _NO_OUTCOMES:
            raise
        except Exception as error:
            if not self.stage.shares_address:
                failed = [key for inner in self.stage.inner.stages for key in inner.store.failed(keys)]
                self.stage.store.put_errors(failed, error)
            raise

    def _compute_uncached(self, batch: "chain.Batch", fetch: Fetch, progress: Advance | None) -> None:
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
            unfinished = [] if given.broken else [key for key in batch.taken if key not in batch.given]
            if unfinished:
                store.put_errors(unfinished, error)
                error.add_note(
                    f"Items of {describe(self.stage.step)} that were taken and not yet yielded: {_some(unfinished)}. "
                    f"The {len(stored)} result(s) before them are kept."
                )
            raise


def _some(keys: Sequence[str]) -> str:
    text = ", ".join(map(repr, keys[:10]))
    return text if len(keys) <= 10 else f"{text} and {len(keys) - 10} more"


def results_of(stage: Stage) -> Fetch:
    """Return what gives the results of a stage to the next one."""
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
    """Missing items of a stage and how to compute them (a ``once.Work``)."""

    def __init__(
        self,
        stage: Stage,
        fetch: Fetch,
        source: Stage | None,
        *,
        size: int | None = None,
        progress: Advance | None = None,
    ) -> None:
        self.stage = stage
        self.fetch = fetch  # gives the input of a key
        self.source = source  # the stage before, where the inputs are its results
        self.size = size  # items of a share, by default as many as the backend asks for
        self.progress: Advance = progress or (lambda count: None)  # called for items done, in this process

    @property
    def folder(self) -> Path:
        """Folder of the claims."""
        return self.stage.claims_folder

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys that have neither a result nor an error."""
        return self.stage.store.missing(keys)

    def execute(self, claim: "Claim", keys: Sequence[str]) -> None:
        """Compute claimed keys on the backend of the infra."""
        for observe in observers:
            observe(StageComputed(self.stage))
        infra = self.stage.infra
        for placed in self.stage.inner.uncached:
            identity.check_secrets(placed.step)
        if infra.cluster is None:
            StageWorker(self.stage, self.source, self.fetch).compute(keys, (), self.progress)
            return
        cluster = cluster_of(self.stage)
        local = cluster == "threadpool"
        send = not local and self.source is None
        given = getattr(self.fetch, "deferred", self.fetch)  # to be made where it is needed
        shares = [
            (list(part), [given(k) if send else None for k in part])
            for part in self.stage.split(keys, cluster, size=self.size)
        ]
        worker = StageWorker(self.stage, self.source, self.fetch if local else None)
        run_shares(self.stage, cluster, worker, shares, claim, progress=self.progress)


def cluster_of(stage: Stage) -> str:
    """Return where a stage that does not run in this thread is computed just now."""
    cluster = stage.infra.resources(stage.store.folder).resolved_cluster() or stage.infra.cluster
    assert cluster is not None, "only backends that are not inline run elsewhere"
    return cluster


def run_shares(
    stage: Stage,
    cluster: str,
    worker: tp.Any,
    shares: Sequence[tuple[list[str], list[tp.Any]]],
    claim: "Claim | Sequence[Claim] | None",
    *,
    progress: Advance,
) -> None:
    """Have shares of items computed in threads, processes or jobs, and return when that is done."""
    from ..engine import runner
    from ..jobs.backends import Request

    def request(calls: list[Callable[[], tp.Any]], tag: str) -> Request:
        folder = stage.store.folder
        most, _ = stage.infra.shares()
        name = getattr(stage.infra, "job_name", None) or stage.name
        resources = stage.infra.resources(folder)
        return Request(calls, resources, logs_of(folder), name, most or len(calls), None, tag)

    runner.run_shares(cluster, worker, shares, claim, request=request, progress=progress)


def run_of(
    part: MissingKeys, fetch: Fetch, progress: Advance | None = None, size: int | None = None
) -> StageRun:
    """Return the work on missing keys of a stage."""
    inputs = fetch if part.source is None else results_of(part.source)
    return StageRun(part.stage, inputs, part.source, size=size, progress=progress)


def missing_keys(pipeline: Pipeline, keys: Sequence[str], *, absent: bool = False) -> list[MissingKeys]:
    """Return what has to be computed for some items, found from the end: what comes before a result is not looked at.

    Raises
    ------
    Exception
        the cached error of an item
    """
    missing: list[MissingKeys] = []
    wanted = list(keys)
    stages = pipeline.stages
    for number in range(len(stages) - 1, -1, -1):
        store = stages[number].store
        if not absent:
            wanted = store.absent(wanted)
        if not wanted:
            break
        absent = False
        failed = store.failed(wanted)
        if failed:
            raise store.error(failed[0])
        missing.append(MissingKeys(stages[number], stages[number - 1] if number else None, wanted))
    return missing[::-1]


def check_allowed(missing: Sequence[MissingKeys]) -> None:
    """Raise a ReadOnlyError where a stage has to compute and must not."""
    for part in missing:
        if part.stage.read_only:
            raise ReadOnlyError(
                f"{part.stage.address} has no result in {part.stage.folder} for {len(part.keys)} item(s), such as "
                f"{part.keys[0]!r}, and mode='read-only' of {part.stage.name} forbids computing: check the folder and "
                "the configuration, or use mode='cached'"
            )


def run_stages(
    pipeline: Pipeline, keys: Sequence[str], fetch: Fetch, missing: Sequence[MissingKeys] | None = None
) -> None:
    """Return when the last stage has a result for every key.

    Raises
    ------
    Exception
        the error of an item, cached or of just now; what could be computed all the same is kept
    """
    losses = 0
    if missing is None:
        missing = _checked_missing(pipeline, keys)
    while missing:
        try:
            compute_missing(missing, fetch)
        except LostInputError as error:
            losses += 1
            if losses > _MOST_LOSSES:
                raise
            logger.warning("%s", error)
        missing = _checked_missing(pipeline, keys)


def _checked_missing(pipeline: Pipeline, keys: Sequence[str], *, absent: bool = False) -> list[MissingKeys]:
    missing = missing_keys(pipeline, keys, absent=absent)
    check_allowed(missing)
    return missing


def start_stages(pipeline: Pipeline, keys: Sequence[str], fetch: Fetch) -> Background | None:
    """Compute what is missing; where only the last stage is, and runs in a pool, start that."""
    missing = _checked_missing(pipeline, keys, absent=True)
    (last,) = missing[-1:]
    if len(missing) == 1 and last.stage.infra.cluster in ("threadpool", "processpool"):
        return Background(last, lambda part, progress, size: run_of(part, fetch, progress, size))
    run_stages(pipeline, keys, fetch, missing)
    return None


def compute_missing(missing: Sequence[MissingKeys], fetch: Fetch) -> None:
    """Compute what is missing of stages, the results of each being the inputs of the next."""
    from ..engine import once

    if all(
        part.stage.infra.cluster is None or number == len(missing) - 1 for number, part in enumerate(missing)
    ):
        for part in missing:
            once.compute_once(run_of(part, fetch), part.keys)
    else:
        Scheduler(missing, lambda part, progress, size: run_of(part, fetch, progress, size)).run()


def run_one(step: "Step", value: tp.Any) -> tp.Any:
    """Return the result for one value; see ``Step.run``."""
    pipeline = step._exca_state.pipeline
    if pipeline is None:
        pipeline = pipeline_of(step)
    pipeline.judge_again()
    check_input(step, pipeline, value)
    if not pipeline.stages:
        return next(without_cache(step, pipeline, [value]))
    key = addresses.key_of(step, value)
    last = pipeline.stages[-1]
    if last.level == CACHED:
        get = last.store.results.__getitem__
        if not pipeline.uncached and not pipeline.typed:
            state = step._exca_state
            state.hit, state.namer, state.compared = get, step._exca_namer(), _reloads.believed()
        try:
            result = get(key)
        except KeyError:
            pass
        else:
            return (
                result if not pipeline.uncached else next(composed(pipeline.uncached, [key], iter([result])))
            )
    background = compute(step, pipeline, [key], [value])
    return next(results(pipeline, [key], [value], background))


def first_of(pipeline: Pipeline) -> "Step":
    """Return the first step that computes."""
    return pipeline.lineage.steps[0]


def check_input(step: "Step", pipeline: Pipeline, value: tp.Any) -> None:
    """Raise a TypeError where a value is missing or too much."""
    first = first_of(pipeline)
    if value is NO_INPUT:
        if first.needs_input():
            raise TypeError(
                f"{type(step).__name__} needs a value: call run(value); its first step is {type(first).__name__}"
            )
    elif not first.takes_input():
        raise TypeError(
            f"{type(step).__name__} takes no input, but was given {value!r}: call run(); its first step is "
            f"{type(first).__name__}"
        )


def without_cache(step: "Step", pipeline: Pipeline, values: Iterable[tp.Any]) -> Iterator[tp.Any]:
    """Compute each result when it is asked for."""
    asking = sum(placed.step._exca_placed for placed in pipeline.uncached)
    if not asking:
        return composed(pipeline.uncached, (), iter(values))
    given, *named = itertools.tee(values, 1 + asking)  # go on at the same pace
    return composed(pipeline.uncached, _Keys(step, named), given)


class _Keys(Iterable[str]):
    """The keys of values, made when a step asks for them: most never do."""

    def __init__(self, step: "Step", values: list[Iterator[tp.Any]]) -> None:
        self._step = step  # the step or chain
        self._values = values  # the values, once for each step that asks for keys

    def __iter__(self) -> Iterator[str]:
        return (addresses.key_of(self._step, value) for value in self._values.pop())


def compute(
    step: "Step", pipeline: Pipeline, keys: Sequence[str], values: Sequence[tp.Any]
) -> Background | None:
    """Compute what is missing of the results of the last stage."""
    prepare(step._exca_state.forced, pipeline, keys)
    last = pipeline.stages[-1].store
    wanted: dict[str, tp.Any] = {}
    for start in range(0, len(keys), _LOOKUP):
        part = keys[start : start + _LOOKUP]
        given = values[start : start + _LOOKUP]
        if len(set(part)) < len(part) or not wanted.keys().isdisjoint(part):
            from ..engine import same_items

            same_items.check(part, given, wanted, type(step).__name__)
        absent = set(last.absent(part))
        if absent:
            wanted.update((key, value) for key, value in zip(part, given, strict=True) if key in absent)
    if wanted and (namer := step._exca_namer()) is not None:
        from ..engine import same_items

        same_items.check_texts(namer, wanted, type(step).__name__, type(step))
    return start_stages(pipeline, list(wanted), wanted.__getitem__) if wanted else None


def results(
    pipeline: Pipeline,
    keys: Sequence[str],
    values: Sequence[tp.Any],
    background: Background | None,
) -> Iterator[tp.Any]:
    """Return an iterator over results, what follows the last stage computed in place."""
    stored = _read(pipeline, keys, values, background)
    return composed(pipeline.uncached, keys, stored) if pipeline.uncached else stored


def prepare(forced: set[str], pipeline: Pipeline, keys: Sequence[str]) -> None:
    """Remove errors that are to be computed again, and remember which results are, and in ``forced`` of which items."""
    fresh: list[str] | None = None
    for stage in pipeline.all_stages():
        if stage.level == CACHED:
            continue
        if fresh is None:
            fresh = [key for key in dict.fromkeys(keys) if key not in forced]
        if stage.level == FORCE:
            stage.store.mark_stale(fresh)
        else:
            stage.store.clear_errors(fresh)
    if fresh:
        forced.update(fresh)


def _read(
    pipeline: Pipeline,
    keys: Sequence[str],
    values: Sequence[tp.Any],
    background: Background | None,
) -> Iterator[tp.Any]:
    """Yield results one at a time; those found damaged only now are computed again."""
    stored = pipeline.stages[-1].store.results
    start = 0
    while background is not None and background.running and start < len(keys):
        background.wait_for(keys[start])
        try:
            result = stored[keys[start]]
        except KeyError:
            break  # damaged or removed since
        start += 1
        yield result
    while start < len(keys):
        try:
            for result in stored.iter_values(itertools.islice(keys, start, None)):
                start += 1
                yield result
        except KeyError:
            if background is not None:
                background.wait_for(keys[start])  # raises its error where that left no result
            run_stages(pipeline, [keys[start]], lambda _: values[start])  # noqa: B023  # called right here


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
    if rank > 0 or where["cluster"] == "debug" or not JobPaths(logs, where["job_id"]).folder.is_dir():
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

    def __init__(self, file: tp.Any, stderr: tp.Any) -> None:
        super().__init__(file)
        self.setFormatter(
            logging.Formatter("%(asctime)s - %(levelname)s - %(name)s:%(lineno)s - %(message)s")
        )
        self._last_resort = None if logging.getLogger().handlers else stderr

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self._last_resort is not None and record.levelno >= logging.WARNING:
            print(record.getMessage(), file=self._last_resort)


@contextlib.contextmanager
def printing_to(folder: Path) -> Iterator[tp.TextIO]:
    """Context in which what is printed also goes to files in a folder; gives the one of errors."""
    folder.mkdir(parents=True, exist_ok=True)
    with _files.append_text(folder / "log.stdout") as out, _files.append_text(folder / "log.stderr") as err:
        streams: tuple[tp.Any, tp.Any] = (Tee(sys.stdout, out), Tee(sys.stderr, err))
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            yield err


@contextlib.contextmanager
def captured(stage: Stage) -> Iterator[None]:
    """Context in which what is printed and logged also goes to the logs of a stage, where its infra asks for it."""
    if not getattr(stage.infra, "capture_logs", False):
        yield
        return
    stderr = sys.stderr
    with printing_to(stage.store.folder / "logs" / "main-process") as err:
        records = _LogFile(err, stderr)
        logging.getLogger().addHandler(records)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(records)
