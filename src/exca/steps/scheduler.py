"""From asked to stored, over all stages of a pipeline: each starts as its inputs arrive.

Stages in this thread run one after the other. Where one of them runs elsewhere and another one waits for its results,
all are looked after at the same time: results are seen as soon as they are stored, by whichever process, and
handed on in shares of the size that the next stage works with.
"""

import contextvars
import dataclasses
import logging
import threading
import time
import typing as tp
from collections.abc import Callable, Sequence

from ..errors import LostInputError, ReadOnlyError
from .pipeline import Pipeline, Stage
from .work import Fetch, StageRun, results_of

logger = logging.getLogger("exca")

_FIRST_POLL, _LAST_POLL = 0.005, 0.25  # seconds between two looks at what has been stored
_MOST_LOSSES = 3  # results of earlier stages found damaged, until it is no accident any more
_INLINE_SLICE = 0.2  # seconds of work in this thread after which the other stages are looked at again


@dataclasses.dataclass
class MissingKeys:
    """A stage and the items it has to compute.

    Parameters
    ----------
    stage: Stage
        the stage
    source: Stage, optional
        the stage before
    keys: list of str
        the items
    """

    stage: Stage
    source: Stage | None
    keys: list[str]


def missing_keys(pipeline: Pipeline, keys: Sequence[str]) -> list[MissingKeys]:
    """Return what has to be computed for some items, found from the end: what comes before a result is not looked at.

    Parameters
    ----------
    pipeline: Pipeline
        the pipeline
    keys: sequence of str
        distinct keys

    Returns
    -------
    list of MissingKeys
        in the order of the stages, those that have nothing to compute left out

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
        wanted = store.absent(wanted)
        if not wanted:
            break
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


def run_stages(pipeline: Pipeline, keys: Sequence[str], fetch: Fetch) -> None:
    """Return when the last stage has a result for every key.

    Parameters
    ----------
    pipeline: Pipeline
        the pipeline, with one stage at least
    keys: sequence of str
        distinct keys
    fetch: callable
        gives the value of a key

    Raises
    ------
    Exception
        the error of an item, cached or of just now; what could be computed all the same is kept
    """
    losses = 0
    while missing := _checked_missing(pipeline, keys):
        try:
            compute(missing, fetch)
        except LostInputError as error:
            losses += 1
            if losses > _MOST_LOSSES:
                raise
            logger.warning("%s", error)


def _checked_missing(pipeline: Pipeline, keys: Sequence[str]) -> list[MissingKeys]:
    missing = missing_keys(pipeline, keys)
    check_allowed(missing)
    return missing


def start_stages(pipeline: Pipeline, keys: Sequence[str], fetch: Fetch) -> "Background | None":
    """Compute what is missing; where only the last stage is, and runs in a pool, start that.

    Parameters: as of ``run_stages``.
    Returns: the computation that goes on, if any.
    """
    missing = _checked_missing(pipeline, keys)
    if not missing:
        return None
    (last,) = missing[-1:]
    if len(missing) == 1 and last.stage.infra.cluster in ("threadpool", "processpool"):
        return Background(last, fetch)
    run_stages(pipeline, keys, fetch)
    return None


def compute(missing: Sequence[MissingKeys], fetch: Fetch) -> None:
    """Compute what is missing of stages, the results of each being the inputs of the next.

    Parameters
    ----------
    missing: sequence of MissingKeys
        neighbouring stages, in order
    fetch: callable
        gives the inputs of the first stage of the pipeline
    """
    from ..execution import once

    if all(part.stage.infra.inline or number == len(missing) - 1 for number, part in enumerate(missing)):
        for part in missing:
            once.compute_once(StageRun(part.stage, input_of(part, fetch), part.source), part.keys)
    else:
        Scheduler(missing, fetch).run()


def input_of(part: MissingKeys, fetch: Fetch) -> Fetch:
    """Return what gives the inputs of a stage.

    Parameters: `part` of the stage; `fetch` gives those of the first stage.
    """
    return fetch if part.source is None else results_of(part.source)


class StageQueue:
    """The items of one stage: those that wait, and those that are being computed."""

    def __init__(self, part: MissingKeys, ready: Sequence[str]) -> None:
        self.part = part
        self.inline = part.stage.infra.inline
        self.waiting = list(ready)  # inputs are there
        self.flying: dict[str, None] = {}  # being computed
        self.left = len(part.keys)  # neither stored nor given up
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        most, fewest = StageRun(part.stage, dict[str, tp.Any]().__getitem__, None).share_bounds(
            part.stage.infra.cluster or ""
        )
        self.size = max(fewest, -(-len(part.keys) // (most or len(part.keys))))

    def landed(self) -> list[str]:
        """Take out what has been stored since the last look."""
        if not self.flying:
            return []
        absent = self.part.stage.store.absent(list(self.flying))
        still = set(absent)
        done = [key for key in self.flying if key not in still]
        for key in done:
            del self.flying[key]
        self.left -= len(done)
        return done

    @property
    def busy(self) -> bool:
        """Whether a thread computes for it."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        return bool(self.threads)


class Scheduler:
    """Runs stages at the same time.

    Parameters
    ----------
    missing: sequence of MissingKeys
        neighbouring stages, in order
    fetch: callable
        gives the inputs of the first stage of the pipeline
    """

    def __init__(self, missing: Sequence[MissingKeys], fetch: Fetch) -> None:
        self.fetch = fetch
        self.queues: list[StageQueue] = []
        before: set[str] = set()
        for part in missing:
            self.queues.append(StageQueue(part, [key for key in part.keys if key not in before]))
            before = set(part.keys)
        self._wake = threading.Event()
        self._slice = 1  # items that a stage in this thread computes before the others are looked at

    def run(self) -> None:
        """Return when all is stored; raise the first error once nothing more can be computed."""
        from ..execution import once

        try:
            self._move()
        except KeyboardInterrupt:
            once.say_jobs_go_on(thread for queue in self.queues for thread in queue.threads)
            raise
        for queue in self.queues:
            for error in queue.errors:
                raise error

    def _move(self) -> None:
        """Hand items from stage to stage until none is computed any more."""
        pause = _FIRST_POLL
        while True:
            moved = self._hand_on()
            started = self._start()
            if not any(queue.waiting or queue.flying or queue.busy for queue in self.queues):
                break
            pause = _FIRST_POLL if moved or started else min(2 * pause, _LAST_POLL)
            if not started:
                self._wake.wait(pause)
                self._wake.clear()

    def _hand_on(self) -> bool:
        """Move what has been stored to the next stage, and give up what has failed."""
        moved = False
        for number, queue in enumerate(self.queues):
            busy = queue.busy  # asked before: what is stored by its end is seen by the look that follows
            done = queue.landed()
            if done and number + 1 < len(self.queues):
                following = self.queues[number + 1]
                wanted = set(following.part.keys)
                following.waiting.extend(key for key in done if key in wanted)
            if queue.flying and not busy:  # not computed any more: they failed
                lost = list(queue.flying)
                queue.flying.clear()
                queue.left -= len(lost)
                self._give_up(number + 1, set(lost))
                moved = True
            moved = moved or bool(done)
        return moved

    def _give_up(self, number: int, lost: set[str]) -> None:
        """Let no later stage wait for items that failed."""
        for queue in self.queues[number:]:
            queue.left -= sum(key in lost for key in queue.part.keys)

    def _start(self) -> bool:
        started = False
        for number, queue in enumerate(self.queues):
            if not queue.waiting or (queue.inline and queue.errors):
                if queue.inline and queue.errors and queue.waiting:
                    self._drop_waiting(number, queue)
                continue
            if queue.inline:
                self._compute_here(queue)
                started = True
            elif len(queue.waiting) >= queue.size or len(queue.waiting) >= queue.left - len(queue.flying):
                self._send(queue)
                started = True
        return started

    def _drop_waiting(self, number: int, queue: StageQueue) -> None:
        """After an error in this thread, no more items are computed by that stage."""
        lost = set(queue.waiting)
        queue.left -= len(lost)
        queue.waiting.clear()
        self._give_up(number + 1, lost)

    def _work(self, queue: StageQueue, size: int | None = None) -> StageRun:
        return StageRun(
            queue.part.stage,
            input_of(queue.part, self.fetch),
            queue.part.source,
            size=size,
            progress=self._progress,
        )

    def _progress(self, count: int) -> None:
        self._wake.set()

    def _compute_here(self, queue: StageQueue) -> None:
        from ..execution import once

        keys, queue.waiting = queue.waiting[: self._slice], queue.waiting[self._slice :]
        queue.flying.update(dict.fromkeys(keys))
        start = time.monotonic()
        try:
            once.compute_once(self._work(queue), keys)
        except Exception as error:
            queue.errors.append(error)
        self._slice = (
            self._slice * 2 if time.monotonic() - start < _INLINE_SLICE else max(1, self._slice // 2)
        )

    def _send(self, queue: StageQueue) -> None:
        """Compute elsewhere what waits, in a thread that looks after it."""
        from ..execution import once

        keys, queue.waiting = queue.waiting, []
        queue.flying.update(dict.fromkeys(keys))
        work = self._work(queue, queue.size)

        def compute_elsewhere() -> None:
            try:
                once.compute_once(work, keys)
            except Exception as error:
                queue.errors.append(error)
            finally:
                self._wake.set()

        queue.threads.append(_start_thread(compute_elsewhere, queue.part.stage))


def _start_thread(target: Callable[[], None], stage: Stage) -> threading.Thread:
    # daemon: an interpreter that ends lets its jobs go on, as one that is killed does
    context = contextvars.copy_context()  # it belongs to the computation that asks
    thread = threading.Thread(target=context.run, args=(target,), name=f"exca-{stage.name}", daemon=True)
    thread.start()
    return thread


class Background:
    """The last stage of a pipeline, being computed in a pool while its results are read.

    Parameters
    ----------
    part: MissingKeys
        what is computed
    fetch: callable
        gives the inputs of the first stage of the pipeline
    """

    def __init__(self, part: MissingKeys, fetch: Fetch) -> None:
        self._part = part
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self._fetch = input_of(part, fetch)
        self._thread = _start_thread(self._compute, part.stage)

    def _compute(self) -> None:
        from ..execution import once

        part = self._part
        try:
            once.compute_once(
                StageRun(part.stage, self._fetch, part.source, progress=lambda count: self._wake.set()),
                part.keys,
            )
        except BaseException as error:  # raised where the results are read
            self._error = error
        finally:
            self._wake.set()

    @property
    def running(self) -> bool:
        """Whether anything is still being computed."""
        return self._thread.is_alive()

    def wait_for(self, key: str) -> None:
        """Return when there is a result for a key.

        Parameters
        ----------
        key: str
            one of those that are computed

        Raises
        ------
        Exception
            the error of the computation, where that left no result
        """
        from ..execution import once

        store = self._part.stage.store
        pause = _FIRST_POLL
        try:
            while not store.has(key):
                if not self._thread.is_alive():
                    if not store.has(key) and self._error is not None:
                        raise self._error
                    return
                self._wake.wait(pause)
                self._wake.clear()
                pause = min(2 * pause, _LAST_POLL)
        except KeyboardInterrupt:
            once.say_jobs_go_on([self._thread])
            raise
