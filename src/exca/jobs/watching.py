"""Many jobs looked at together: one question to the scheduler for all of them, and few looks at files.

A job's outcome is a file, and its state is what its backend answers. To look for the files of thousands of jobs several
times a second would keep a network file system busy, so only some are looked for at a time, of running jobs first; the
backend is asked about all of them every two seconds, and the files of a job that ended are looked for at once.
"""

import contextlib
import heapq
import os
import threading
import time
import typing as tp

from .._log import logger
from .._polling import Poller
from ..claims import chain
from . import backends

if tp.TYPE_CHECKING:
    from .job import Job

ASK_EVERY = 2.0  # seconds between two questions about all jobs
SEND_EVERY = 5.0  # seconds between two attempts to send what there was no room for
MOST_LOOKS = 64  # jobs whose outcome is looked for at a time
AnyJob: tp.TypeAlias = "Job[tp.Any]"
Tell = tp.Callable[["BaseException | None"], None]


class Ended(tp.NamedTuple):
    """A job that is done; with an error, where it is unknown whether it is."""

    job: AnyJob
    error: Exception | None


class Watch:
    """Jobs of which it is looked, again and again, which are done.

    Parameters
    ----------
    jobs: iterable of Job
        the jobs
    """

    def __init__(self, jobs: tp.Iterable[AnyJob] = ()) -> None:
        self._new: dict[int, AnyJob] = {id(job): job for job in jobs}  # not looked at yet
        self._left: dict[int, AnyJob] = {}
        self._looked: dict[int, tuple[bool, float]] = {}  # whether it waits in the queue, and the last look
        self._ask_at = self._send_at = 0.0  # monotonic times

    def add(self, job: AnyJob) -> None:
        """Watch one more job."""
        self._new[id(job)] = job

    def drop(self) -> list[AnyJob]:
        """Watch none of them any more; returns those that were not done."""
        dropped = self.left
        self._new, self._left, self._looked = {}, {}, {}
        return dropped

    @property
    def left(self) -> list[AnyJob]:
        """The jobs that were not done at the last look."""
        return [*self._left.values(), *self._new.values()]

    def look(self) -> list[Ended]:
        """Look once; returns the jobs that are done, each of them once."""
        now = time.monotonic()
        new, self._new = self._new, {}
        self._left.update(new)
        self._looked.update(dict.fromkeys(new, (False, now)))
        done = self._finished(new) + self._send(now)
        if now >= self._ask_at:
            self._ask_at = now + ASK_EVERY
            return done + self._ask()
        if new:
            return done
        return done + self._finished(heapq.nsmallest(MOST_LOOKS, self._left, key=self._looked.__getitem__))

    def _finished(self, keys: tp.Iterable[int]) -> list[Ended]:
        """Those of the jobs whose outcome is there."""
        now = time.monotonic()
        for key in keys:
            self._looked[key] = self._looked[key][0], now
        return self._pick(keys, lambda job: job.succeeded() is not None)

    def _ask(self) -> list[Ended]:
        """Ask the backends about all jobs, and look at those that ended, or of which the backend can't tell."""
        places: dict[str | None, list[int]] = {}
        for key, job in self._left.items():
            if not job.is_listed():
                places.setdefault(job.cluster, []).append(key)
        ended: list[int] = []
        for keys in places.values():
            backend = backends.of_job(self._left[keys[0]].submission)
            states = backend.states([self._left[key].submission for key in keys])
            unknown = [key for key, state in zip(keys, states, strict=True) if state.alive is None]
            # of a scheduler that does not answer, one job asks whether that has lasted for too long
            ended += unknown[:1] if backend.decides else unknown
            ended += [key for key, state in zip(keys, states, strict=True) if state.alive is False]
            for key, state in zip(keys, states, strict=True):
                self._looked[key] = state.state == "PENDING", self._looked[key][1]
        return self._pick(ended, lambda job: job.done())

    def _pick(self, keys: tp.Iterable[int], is_done: tp.Callable[[AnyJob], bool]) -> list[Ended]:
        found: list[Ended] = []
        for key in list(keys):
            job, error = self._left[key], None
            try:
                if not is_done(job) or job.go_on():
                    continue
            except Exception as e:  # of whatever reads the outcome: the caller decides
                error = e
            del self._left[key]
            found.append(Ended(job, error))
        return found

    def _send(self, now: float) -> list[Ended]:
        """Send what waits for room, once for all jobs that are sent together; returns those that can't be sent."""
        if now < self._send_at:
            return []
        self._send_at = now + SEND_EVERY
        together: dict[tp.Hashable, list[int]] = {}
        for key, job in self._left.items():
            together.setdefault(job.sent_with(), []).append(key)
        refused: list[Ended] = []
        for keys in together.values():
            try:
                self._left[keys[0]].send_others()
            except Exception as e:  # of a refusal of any kind: the caller decides
                refused += [Ended(self._left.pop(key), e) for key in keys]
        return refused


# ---------------------------------------------------------------- one thread that tells all callers


class _Thread:
    """The thread of this process that tells callers when their jobs are done; there is none while there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._tell: dict[int, tuple[AnyJob, list[Tell]]] = {}
        self._added: list[AnyJob] = []
        self._running = False

    def add(self, job: AnyJob, tell: Tell) -> None:
        """Have something called, in the thread, when a job is done."""
        with self._lock:
            known = self._tell.setdefault(id(job), (job, []))
            known[1].append(tell)
            if len(known[1]) == 1:
                self._added.append(job)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="exca-watch", daemon=True).start()
        self._wake.set()

    def _run(self) -> None:
        watch, poller = Watch(), Poller(wake=self._wake)
        while True:
            with self._lock:
                added, self._added = self._added, []
                if not self._tell:
                    self._running = False
                    return
            if added:
                poller.restart()
            for job in added:
                watch.add(job)
            for job, error in self._look(watch):
                with self._lock:
                    _, tells = self._tell.pop(id(job))
                for tell in tells:
                    try:
                        tell(error)
                    except Exception:
                        logger.exception("What was to be called when %r is done failed", job)
            poller.pause()

    def _look(self, watch: Watch) -> list[Ended]:
        try:
            return watch.look()
        except Exception as e:  # of the file system or a scheduler: all callers get it
            return [Ended(job, e) for job in watch.drop()]


_thread = _Thread()


def _forget_thread() -> None:
    global _thread  # noqa: PLW0603 # a forked process has no thread, and no callers of its own yet
    _thread = _Thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_thread)


def when_done(job: AnyJob, tell: Tell) -> None:
    """Have something called once a job is done, with None, or the error for which that is unknown.

    It is called in the one thread of this process that watches jobs, so it should be quick.
    """
    _thread.add(job, tell)


async def result_of(job: "Job[tp.Any]") -> tp.Any:
    """Wait for a job in an event loop, without a thread of its own, and return its result or raise its error."""
    import asyncio

    # within a computation, the thread that waits has to be found in circles
    if job.succeeded() is None and not chain.is_computing():
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if future.done():  # the task that awaited was cancelled
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        def tell(error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing awaits any more
                loop.call_soon_threadsafe(settle, error)

        when_done(job, tell)
        await future
    return await asyncio.to_thread(job.result)
