"""Stages of a pipeline computed at the same time: each starts as its inputs arrive.

Where one stage runs elsewhere and another one waits for its results, both are looked after at the same time: results
are seen as soon as they are stored, by whichever process, and handed on in shares of the size that the next stage
works with.
"""

import contextvars
import dataclasses
import threading
import time
import typing as tp
from collections.abc import Callable, Sequence

from .._polling import Poller
from ..engine.once import Advance
from .pipeline import Stage

if tp.TYPE_CHECKING:
    from ..engine.once import Work


_INLINE_SLICE = 0.2  # seconds of work in this thread after which the other stages are looked at again


@dataclasses.dataclass
class MissingKeys:
    """A stage and the items it has to compute."""

    stage: Stage
    source: Stage | None  # the stage before
    keys: list[str]  # the items


WorkOf = Callable[[MissingKeys, Advance, int | None], "Work"]
"""Makes the work on missing keys, from what to call for items done and the size of a share."""


class StageQueue:
    """The items of one stage: those that wait for a computation, and those that are being computed."""

    def __init__(self, part: MissingKeys, ready: Sequence[str]) -> None:
        self.part = part
        self.inline: bool = part.stage.infra.cluster is None
        self.waiting: list[str] = list(ready)  # inputs are there
        self.running: dict[str, None] = {}  # being computed
        self.left: int = len(part.keys)  # neither stored nor given up
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        most, fewest = part.stage.share_bounds(part.stage.infra.cluster or "")
        self.size: int = max(fewest, -(-len(part.keys) // (most or len(part.keys))))

    def take_stored(self) -> list[str]:
        """Take out what has been stored since the last look."""
        if not self.running:
            return []
        absent = self.part.stage.store.absent(list(self.running))
        still = set(absent)
        done = [key for key in self.running if key not in still]
        for key in done:
            del self.running[key]
        self.left -= len(done)
        return done

    @property
    def busy(self) -> bool:
        """Whether a thread computes for it."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        return bool(self.threads)


class Scheduler:
    """Runs stages at the same time."""

    def __init__(self, missing: Sequence[MissingKeys], work_of: WorkOf) -> None:
        self.work_of = work_of
        self.queues: list[StageQueue] = []
        before: set[str] = set()
        for part in missing:
            self.queues.append(StageQueue(part, [key for key in part.keys if key not in before]))
            before = set(part.keys)
        self._wake = threading.Event()
        self._slice = 1  # items that a stage in this thread computes before the others are looked at

    def run(self) -> None:
        """Return when all is stored; raise the first error once nothing more can be computed."""
        from ..engine import runner

        try:
            self._loop()
        except KeyboardInterrupt:
            runner.say_jobs_go_on(thread for queue in self.queues for thread in queue.threads)
            raise
        for queue in self.queues:
            for error in queue.errors:
                raise error

    def _loop(self) -> None:
        """Hand items from stage to stage until none is computed any more."""
        poller = Poller(wake=self._wake)
        while True:
            moved = self._hand_on()
            started = self._start()
            if not any(queue.waiting or queue.running or queue.busy for queue in self.queues):
                break
            if moved or started:
                poller.restart()
            if not started:
                poller.pause()

    def _hand_on(self) -> bool:
        """Move what has been stored to the next stage, and give up what has failed."""
        moved = False
        for number, queue in enumerate(self.queues):
            busy = queue.busy  # asked before: what is stored by its end is seen by the look that follows
            done = queue.take_stored()
            if done and number + 1 < len(self.queues):
                following = self.queues[number + 1]
                wanted = set(following.part.keys)
                following.waiting.extend(key for key in done if key in wanted)
            if queue.running and not busy:  # not computed any more: they failed
                lost = list(queue.running)
                queue.running.clear()
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
            elif len(queue.waiting) >= queue.size or len(queue.waiting) >= queue.left - len(queue.running):
                self._send(queue)
                started = True
        return started

    def _drop_waiting(self, number: int, queue: StageQueue) -> None:
        """After an error in this thread, no more items are computed by that stage."""
        lost = set(queue.waiting)
        queue.left -= len(lost)
        queue.waiting.clear()
        self._give_up(number + 1, lost)

    def _progress(self, count: int) -> None:
        self._wake.set()

    def _compute_here(self, queue: StageQueue) -> None:
        from ..engine import once

        keys, queue.waiting = queue.waiting[: self._slice], queue.waiting[self._slice :]
        queue.running.update(dict.fromkeys(keys))
        start = time.monotonic()
        try:
            once.compute_once(self.work_of(queue.part, self._progress, None), keys)
        except Exception as error:
            queue.errors.append(error)
        self._slice = (
            self._slice * 2 if time.monotonic() - start < _INLINE_SLICE else max(1, self._slice // 2)
        )

    def _send(self, queue: StageQueue) -> None:
        """Compute elsewhere what waits, in a thread that looks after it."""
        from ..engine import once

        keys, queue.waiting = queue.waiting, []
        queue.running.update(dict.fromkeys(keys))
        work = self.work_of(queue.part, self._progress, queue.size)

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
    """The last stage of a pipeline, being computed in a pool while its results are read."""

    def __init__(self, part: MissingKeys, work_of: WorkOf) -> None:
        self._part = part  # what is computed
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self._work = work_of(part, lambda count: self._wake.set(), None)
        self._thread = _start_thread(self._compute, part.stage)

    def _compute(self) -> None:
        from ..engine import once

        try:
            once.compute_once(self._work, self._part.keys)
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

        Raises
        ------
        Exception
            the error of the computation, where that left no result
        """
        from ..engine import runner

        store = self._part.stage.store
        poller = Poller(wake=self._wake)
        try:
            while not store.has(key):
                if not self._thread.is_alive():
                    if not store.has(key) and self._error is not None:
                        raise self._error
                    return
                poller.pause()
        except KeyboardInterrupt:
            runner.say_jobs_go_on([self._thread])
            raise
