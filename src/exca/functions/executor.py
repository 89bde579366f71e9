"""`Executor`: any cluster, as an executor of `concurrent.futures`."""

import concurrent.futures
import dataclasses
import functools
import itertools
import pickle
import threading
import time
import typing as tp
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydantic

from .. import _foreign
from ..jobs.backends import pickled
from ..jobs.job import Job, cancel_all, say_they_go_on
from ..jobs.watching import when_done
from ..submit import SubmitInfra
from .fields import SubmitFields

P = tp.ParamSpec("P")
X = tp.TypeVar("X")
TOGETHER = 0.05  # seconds: calls that come this soon after each other go out as one array
LONGEST = 1.0  # seconds after which an array goes out though further calls come


class Calls(pydantic.BaseModel):
    """The configuration behind the calls of an executor, whose infra runs them."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")
    infra: SubmitInfra = SubmitInfra()

    @infra.apply
    def call(self, content: bytes) -> tp.Any:
        """Call what was pickled when it was submitted."""
        return pickle.loads(content)()


@dataclasses.dataclass(repr=False)
class _Call:
    """A function and its arguments."""

    function: Callable[..., tp.Any]
    args: tuple[tp.Any, ...]
    kwargs: dict[str, tp.Any]

    def __call__(self) -> tp.Any:
        return self.function(*self.args, **self.kwargs)

    def __repr__(self) -> str:
        return f"a call of {self.function!r}"


class JobFuture(concurrent.futures.Future[X]):
    """The result of a call that an `Executor` was given.

    Attributes
    ----------
    job: Job or None
        the job that runs the call, once it is submitted: ``stdout()``, ``stderr()``, ``state``...
    """

    def __init__(self) -> None:
        super().__init__()
        self.job: Job[tp.Any] | None = None
        self._lock = threading.RLock()

    def cancel(self) -> bool:
        """Cancel the call if it has not begun: its job is ended before it does.

        Returns
        -------
        bool
            whether it is cancelled; what runs goes on, unless ``job.cancel()`` ends it
        """
        with self._lock:
            if self.cancelled():
                return True
            job = self.job
            if job is not None:
                if self.done() or job.began() or job.done():
                    return False
                job.cancel()
            return self.withdraw()

    def withdraw(self) -> bool:
        """Cancel the call, which is not to be run any more, and return whether it was not done."""
        with self._lock:
            return super().cancel() and not self.set_running_or_notify_cancel()

    if not tp.TYPE_CHECKING:  # type checkers refuse unknown attributes

        def __getattr__(self, name: str) -> tp.Any:
            return _foreign.attribute(self, name, "submitit", _OF_JOBS)

    def running(self) -> bool:
        """Whether the call has begun and is not done."""
        return not self.done() and self.job is not None and self.job.began()

    def attach(self, job: Job[tp.Any]) -> None:
        """Take the outcome from a job when that is done; one that was submitted while it was cancelled is ended.

        Parameters
        ----------
        job: Job
            the job of the call
        """
        with self._lock:
            self.job = job
            cancelled = self.cancelled()
        if cancelled:
            job.cancel()
        else:
            when_done(job, self.settle)

    def settle(self, error: BaseException | None) -> None:
        """Take the outcome from the job, which is done, or the error why that is not known.

        Parameters
        ----------
        error: Exception, optional
            why the outcome of the job is not known
        """
        job, result = self.job, None
        try:
            if job is not None and error is None:
                result = job.result()
        except Exception as e:  # of the call, whatever it is: raised again where the result is asked for
            error = e
        with self._lock:
            if self.cancelled() or self.done():
                return
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(tp.cast(X, result))


# attributes of submitit's executors, and what to write here
_OF_SUBMITIT = {
    "update_parameters": "give the parameters to exca.Executor(folder, timeout_min=10, ...)",
    "parameters": "the parameters are those given to exca.Executor(folder, timeout_min=10, ...)",
    "batch": "leave the with block out: calls submitted within a moment go out as one array",
    "map_array": "write executor.map(f, xs), which returns the results, or [executor.submit(f, x) for x in xs]",
    "submit_array": "write [executor.submit(f, x) for x in xs]: calls submitted within a moment go out as one array",
}
_OF_JOBS = {
    "state": "write future.job.state, once the job is submitted",
    "job_id": "write future.job.job_id, once the job is submitted",
    "paths": "write future.job.paths, once the job is submitted",
    "stdout": "write future.job.stdout(), once the job is submitted",
    "stderr": "write future.job.stderr(), once the job is submitted",
    "results": "write future.result(), or future.job.results() for all processes of a job",
    "wait": "write concurrent.futures.wait([future])",
    "awaitable": "write await asyncio.wrap_future(future)",
    "task": "write future.job.results()[rank] for the result of one process",
    "num_tasks": "write len(future.job.results())",
}


class Executor(concurrent.futures.Executor):
    """Runs calls of functions in jobs of any cluster; an executor as those of `concurrent.futures`.

    Functions and classes of ``__main__`` and of notebooks travel by value. Calls that are submitted within a moment of
    each other go out as one job array. Results are not kept: see `exca.cached` for that. Jobs go on when the
    interpreter ends, and their results are lost then.

    Parameters
    ----------
    folder: Path or str, optional
        where what is submitted, what comes back, and logs are kept
    max_workers: int
        how many jobs of an array may run at once
    **fields
        fields of a `SubmitInfra` (``cluster``, ``timeout_min``, ``mem_gb``, ``slurm_partition``...); with
        ``cluster=None`` calls run in the thread that submits them

    Raises
    ------
    pydantic.ValidationError
        if a field is unknown or mistyped

    Example
    -------
    >>> with exca.Executor("jobs", cluster="slurm", timeout_min=10) as executor:
    ...     squares = list(executor.map(square, range(300)))
    """

    def __init__(
        self, folder: Path | str | None = None, *, max_workers: int = 256, **fields: tp.Unpack[SubmitFields]
    ) -> None:
        given: dict[str, tp.Any] = {"job_name": "exca.Executor", **fields}
        if folder is not None:
            given["folder"] = folder
        self.max_workers: int = max_workers
        self._infra: SubmitInfra = Calls(infra=tp.cast(tp.Any, given)).infra
        self._lock = threading.Lock()
        self._queue: list[tuple[JobFuture[tp.Any], bytes]] = []  # not submitted yet
        self._unfinished: set[JobFuture[tp.Any]] = set()
        self._sends = False  # whether there is a thread that does
        self._is_shut = False

    def submit(self, fn: Callable[P, X], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[X]:
        """Have a function called in a job, with these arguments as they are now.

        Parameters
        ----------
        fn: callable
            the function
        *args, **kwargs
            its arguments

        Returns
        -------
        JobFuture
            future of the result, with the job as ``job`` once it is submitted

        Raises
        ------
        SubmissionError
            if the function or an argument can't be pickled
        RuntimeError
            after `shutdown`
        """
        content = pickled(_Call(fn, args, kwargs), self._infra.max_pickle_size_gb)
        future: JobFuture[X] = JobFuture()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("this executor is shut down and takes no calls any more: make another one")
            if self._infra.cluster is not None:
                self._unfinished.add(future)
                future.add_done_callback(self._forget)
                self._queue.append((future, content))
                if not self._sends:
                    self._sends = True
                    # no daemon: an interpreter that ends still submits what it was given
                    threading.Thread(target=self._send_queue, name="exca-executor").start()
                return future
        future.job = self._infra.submit(content)
        future.settle(None)
        return future

    def map(
        self,
        fn: Callable[..., X],
        *iterables: Iterable[tp.Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[X]:
        """Call a function with items of iterables, as ``map`` does, in jobs of one array.

        Parameters
        ----------
        fn: callable
            the function
        *iterables: iterable
            its arguments, gone through at once
        timeout: float, optional
            how long to wait for each result at most from now on, in seconds
        chunksize: int
            calls of one job

        Returns
        -------
        iterator
            the results, in order; an error of a call is raised where its result would be

        Raises
        ------
        TimeoutError
            when the time is over
        ValueError
            if ``chunksize`` is below 1
        """
        if chunksize < 1:
            raise ValueError(f"chunksize={chunksize} is no number of calls: give 1 or more")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        results = super().map(functools.partial(_call_each, fn), chunks, timeout=timeout)
        return itertools.chain.from_iterable(results)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Parameters
        ----------
        wait: bool
            return when all calls are done
        cancel_futures: bool
            cancel the calls that have not begun
        """
        with self._lock:
            self._is_shut = True
            unfinished = set(self._unfinished)
        if cancel_futures:
            _cancel(unfinished)
        if wait:
            try:
                concurrent.futures.wait(unfinished)
            except KeyboardInterrupt:
                say_they_go_on([f.job for f in unfinished if f.job is not None and not f.done()])
                raise

    if not tp.TYPE_CHECKING:  # type checkers refuse unknown attributes

        def __getattr__(self, name: str) -> tp.Any:
            return _foreign.attribute(self, name, "submitit", _OF_SUBMITIT)

    def _forget(self, future: tp.Any) -> None:
        with self._lock:
            self._unfinished.discard(future)

    def _send_queue(self) -> None:
        """Submit what comes, until nothing does for a moment."""
        while True:
            end, count = time.monotonic() + LONGEST, -1
            while len(self._queue) != count and time.monotonic() < end:
                count = len(self._queue)
                time.sleep(TOGETHER)
            with self._lock:
                batch, self._queue = self._queue, []
                if not batch:
                    self._sends = False
                    return
            self._send([(future, content) for future, content in batch if not future.cancelled()])

    def _send(self, batch: list[tuple[JobFuture[tp.Any], bytes]]) -> None:
        try:
            with self._infra.batch(self.max_workers):
                jobs = [self._infra.submit(content) for _, content in batch]
        except Exception as e:  # of a refusal of any kind: each future gets it
            for future, _ in batch:
                future.settle(e)
            return
        for (future, _), job in zip(batch, jobs, strict=True):
            future.attach(job)


def _cancel(futures: Iterable[JobFuture[tp.Any]]) -> None:
    """Cancel calls that have not begun, those of a cluster by one command."""
    waiting = [f for f in futures if not f.done() and (f.job is None or not f.job.began())]
    cancel_all(f.job for f in waiting if f.job is not None)
    for future in waiting:
        if future.job is None or future.job.succeeded() is None:
            future.withdraw()


def _call_each(function: Callable[..., X], chunk: list[tuple[tp.Any, ...]]) -> list[X]:
    return [function(*args) for args in chunk]
