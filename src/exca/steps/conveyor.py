"""From asked to stored, over all stages of a pipeline: each starts as its inputs arrive.

Stages in this thread run one after the other. Where one of them runs elsewhere and another one needs its results, all
are looked after at the same time: results are seen as soon as they are stored, by whoever computes them, and
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
from .compiled import Pipeline, Stage
from .work import Fetch, StageWork, results_of

logger = logging.getLogger("exca")

_FIRST_POLL, _LAST_POLL = 0.005, 0.25  # seconds between two looks at what has been stored
_MOST_LOSSES = 3  # results of earlier stages found damaged, until it is no accident any more
_INLINE_SLICE = 0.2  # seconds of work in this thread after which the other stages are looked at again


@dataclasses.dataclass
class Need:
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


def needs_of(pipeline: Pipeline, keys: Sequence[str]) -> list[Need]:
    """Tell what has to be computed for some items, found from the end: what comes before a result is not looked at.

    Parameters
    ----------
    pipeline: Pipeline
        the pipeline
    keys: sequence of str
        distinct keys

    Returns
    -------
    list of Need
        in the order of the stages, those that have nothing to compute left out

    Raises
    ------
    Exception
        the cached error of an item
    """
    needs: list[Need] = []
    wanted = list(keys)
    stages = pipeline.stages
    for number in range(len(stages) - 1, -1, -1):
        shelf = stages[number].shelf
        wanted = shelf.absent(wanted)
        if not wanted:
            break
        failed = shelf.failed(wanted)
        if failed:
            raise shelf.error(failed[0])
        needs.append(Need(stages[number], stages[number - 1] if number else None, wanted))
    return needs[::-1]


def check_allowed(needs: Sequence[Need]) -> None:
    """Raise a ReadOnlyError where a stage has to compute and must not."""
    for need in needs:
        if need.stage.read_only:
            raise ReadOnlyError(
                f"{need.stage.address} has no result in {need.stage.folder} for {len(need.keys)} item(s), such as "
                f"{need.keys[0]!r}, and mode='read-only' of {need.stage.name} forbids computing: check the folder and "
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
    while needs := _checked_needs(pipeline, keys):
        try:
            compute(needs, fetch)
        except LostInputError as error:
            losses += 1
            if losses > _MOST_LOSSES:
                raise
            logger.warning("%s", error)


def _checked_needs(pipeline: Pipeline, keys: Sequence[str]) -> list[Need]:
    needs = needs_of(pipeline, keys)
    check_allowed(needs)
    return needs


def start_stages(pipeline: Pipeline, keys: Sequence[str], fetch: Fetch) -> "Background | None":
    """Compute what is missing; where only the last stage is, and runs in a pool, start that.

    Parameters: as of ``run_stages``.
    Returns: the computation that goes on, if any.
    """
    needs = _checked_needs(pipeline, keys)
    if not needs:
        return None
    (last,) = needs[-1:]
    if len(needs) == 1 and last.stage.infra.cluster in ("threadpool", "processpool"):
        return Background(last, fetch)
    run_stages(pipeline, keys, fetch)
    return None


def compute(needs: Sequence[Need], fetch: Fetch) -> None:
    """Compute what stages need, the results of each being the inputs of the next.

    Parameters
    ----------
    needs: sequence of Need
        neighbouring stages, in order
    fetch: callable
        gives the inputs of the first stage of the pipeline
    """
    from ..execution import once

    if all(need.stage.infra.inline or number == len(needs) - 1 for number, need in enumerate(needs)):
        for need in needs:
            once.compute_once(StageWork(need.stage, input_of(need, fetch), need.source), need.keys)
    else:
        Conveyor(needs, fetch).run()


def input_of(need: Need, fetch: Fetch) -> Fetch:
    """Return what gives the inputs of a stage.

    Parameters: `need` of the stage; `fetch` gives those of the first stage.
    """
    return fetch if need.source is None else results_of(need.source)


class _Belt:
    """One stage on the conveyor: what waits for it, and what it has in hand."""

    def __init__(self, need: Need, ready: Sequence[str]) -> None:
        self.need = need
        self.inline = need.stage.infra.inline
        self.waiting = list(ready)  # inputs are there
        self.flying: dict[str, None] = {}  # being computed
        self.left = len(need.keys)  # neither stored nor given up
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        most, fewest = StageWork(need.stage, dict[str, tp.Any]().__getitem__, None).share_bounds(
            need.stage.infra.cluster or ""
        )
        self.size = max(fewest, -(-len(need.keys) // (most or len(need.keys))))

    def landed(self) -> list[str]:
        """Take out what has been stored since the last look."""
        if not self.flying:
            return []
        absent = self.need.stage.shelf.absent(list(self.flying))
        still = set(absent)
        done = [key for key in self.flying if key not in still]
        for key in done:
            del self.flying[key]
        self.left -= len(done)
        return done

    @property
    def busy(self) -> bool:
        """Whether anybody computes for it."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        return bool(self.threads)


class Conveyor:
    """Runs stages at the same time.

    Parameters
    ----------
    needs: sequence of Need
        neighbouring stages, in order
    fetch: callable
        gives the inputs of the first stage of the pipeline
    """

    def __init__(self, needs: Sequence[Need], fetch: Fetch) -> None:
        self.fetch = fetch
        self.belts: list[_Belt] = []
        before: set[str] = set()
        for need in needs:
            self.belts.append(_Belt(need, [key for key in need.keys if key not in before]))
            before = set(need.keys)
        self._wake = threading.Event()
        self._slice = 1  # items that a stage in this thread computes before the others are looked at

    def run(self) -> None:
        """Return when all is stored; raise the first error once nothing more can be computed."""
        from ..execution import once

        try:
            self._move()
        except KeyboardInterrupt:
            once.say_jobs_go_on(thread for belt in self.belts for thread in belt.threads)
            raise
        for belt in self.belts:
            for error in belt.errors:
                raise error

    def _move(self) -> None:
        """Hand items from stage to stage until none is computed any more."""
        pause = _FIRST_POLL
        while True:
            moved = self._hand_on()
            started = self._start()
            if not any(belt.waiting or belt.flying or belt.busy for belt in self.belts):
                break
            pause = _FIRST_POLL if moved or started else min(2 * pause, _LAST_POLL)
            if not started:
                self._wake.wait(pause)
                self._wake.clear()

    def _hand_on(self) -> bool:
        """Move what has been stored to the next stage, and give up what has failed."""
        moved = False
        for number, belt in enumerate(self.belts):
            busy = belt.busy  # asked before: what is stored by its end is seen by the look that follows
            done = belt.landed()
            if done and number + 1 < len(self.belts):
                following = self.belts[number + 1]
                wanted = set(following.need.keys)
                following.waiting.extend(key for key in done if key in wanted)
            if belt.flying and not busy:  # nobody computes these any more: they failed
                lost = list(belt.flying)
                belt.flying.clear()
                belt.left -= len(lost)
                self._give_up(number + 1, set(lost))
                moved = True
            moved = moved or bool(done)
        return moved

    def _give_up(self, number: int, lost: set[str]) -> None:
        """Let no later stage wait for items that failed."""
        for belt in self.belts[number:]:
            belt.left -= sum(key in lost for key in belt.need.keys)

    def _start(self) -> bool:
        started = False
        for number, belt in enumerate(self.belts):
            if not belt.waiting or (belt.inline and belt.errors):
                if belt.inline and belt.errors and belt.waiting:
                    self._drop_waiting(number, belt)
                continue
            if belt.inline:
                self._compute_here(belt)
                started = True
            elif len(belt.waiting) >= belt.size or len(belt.waiting) >= belt.left - len(belt.flying):
                self._send(belt)
                started = True
        return started

    def _drop_waiting(self, number: int, belt: _Belt) -> None:
        """After an error in this thread, no more items are computed by that stage."""
        lost = set(belt.waiting)
        belt.left -= len(lost)
        belt.waiting.clear()
        self._give_up(number + 1, lost)

    def _work(self, belt: _Belt, size: int | None = None) -> StageWork:
        return StageWork(
            belt.need.stage, input_of(belt.need, self.fetch), belt.need.source, size=size, tick=self._tick
        )

    def _tick(self, count: int) -> None:
        self._wake.set()

    def _compute_here(self, belt: _Belt) -> None:
        from ..execution import once

        keys, belt.waiting = belt.waiting[: self._slice], belt.waiting[self._slice :]
        belt.flying.update(dict.fromkeys(keys))
        start = time.monotonic()
        try:
            once.compute_once(self._work(belt), keys)
        except Exception as error:
            belt.errors.append(error)
        self._slice = (
            self._slice * 2 if time.monotonic() - start < _INLINE_SLICE else max(1, self._slice // 2)
        )

    def _send(self, belt: _Belt) -> None:
        """Compute elsewhere what waits, in a thread that looks after it."""
        from ..execution import once

        keys, belt.waiting = belt.waiting, []
        belt.flying.update(dict.fromkeys(keys))
        work = self._work(belt, belt.size)

        def compute_elsewhere() -> None:
            try:
                once.compute_once(work, keys)
            except Exception as error:
                belt.errors.append(error)
            finally:
                self._wake.set()

        belt.threads.append(_start_thread(compute_elsewhere, belt.need.stage))


def _start_thread(target: Callable[[], None], stage: Stage) -> threading.Thread:
    # daemon: an interpreter that is told to end leaves its jobs to themselves, as one that is killed
    context = contextvars.copy_context()  # it belongs to the computation that asks
    thread = threading.Thread(target=context.run, args=(target,), name=f"exca-{stage.name}", daemon=True)
    thread.start()
    return thread


class Background:
    """The last stage of a pipeline, being computed in a pool while its results are read.

    Parameters
    ----------
    need: Need
        what is computed
    fetch: callable
        gives the inputs of the first stage of the pipeline
    """

    def __init__(self, need: Need, fetch: Fetch) -> None:
        self._need = need
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self._fetch = input_of(need, fetch)
        self._thread = _start_thread(self._compute, need.stage)

    def _compute(self) -> None:
        from ..execution import once

        need = self._need
        try:
            once.compute_once(
                StageWork(need.stage, self._fetch, need.source, tick=lambda count: self._wake.set()),
                need.keys,
            )
        except BaseException as error:  # carried to whoever reads the results
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

        shelf = self._need.stage.shelf
        pause = _FIRST_POLL
        try:
            while not shelf.has(key):
                if not self._thread.is_alive():
                    if not shelf.has(key) and self._error is not None:
                        raise self._error
                    return
                self._wake.wait(pause)
                self._wake.clear()
                pause = min(2 * pause, _LAST_POLL)
        except KeyboardInterrupt:
            once.say_jobs_go_on([self._thread])
            raise
