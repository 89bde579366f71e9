"""Jobs in any ``concurrent.futures.Executor``: loky's, mpi4py's, Parsl's, executorlib's, Globus's, or of the library.

An executor lives in the interpreter that made it, so its jobs end with their submitter: that process is noted beside
the logs of each, and in the claims that the jobs are given.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import threading
import typing as tp

import pydantic_core
from pydantic_core import core_schema

from .. import _files
from .._clusters import JobState
from ..claims.owner import Process
from ..errors import SubmissionError
from . import entry, hosted, paths
from .backends import Request, Submission

if tp.TYPE_CHECKING:
    from .hosted import Launch

SUBMITTER = "submitter"  # file with the process that holds the executor


class HeldExecutor:
    """An executor given as an object: copies of a configuration share it, pickles and files are without it."""

    # how pydantic writes it wherever it is
    __pydantic_serializer__: tp.ClassVar[pydantic_core.SchemaSerializer] = pydantic_core.SchemaSerializer(
        core_schema.any_schema(serialization=core_schema.plain_serializer_function_ser_schema(lambda _: None))
    )

    def __init__(self, executor: tp.Any = None) -> None:
        self.executor = executor

    def __deepcopy__(self, memo: object) -> tp.Self:
        return self

    def __reduce__(self) -> tuple[type["HeldExecutor"], tuple[()]]:
        return HeldExecutor, ()

    def __repr__(self) -> str:
        return f"<{'none here' if self.executor is None else type(self.executor).__qualname__}>"


def checked(value: tp.Any) -> tp.Any:
    """The value of a field: "module:callable", or a `HeldExecutor` of an object; else raises ValueError."""
    if value is None or isinstance(value, HeldExecutor):
        return value
    if isinstance(value, str):
        module, colon, name = value.partition(":")
        if not (colon and module and name and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(
                f"futures_executor={value!r} names no callable: write 'module:callable', as in 'my_pools:make'"
            )
        return value
    if not callable(getattr(value, "submit", None)) or isinstance(value, type):
        raise ValueError(  # noqa: TRY004  # which pydantic reports with the field
            f"futures_executor={value!r} is no executor: give an object with a method submit(function, ...) that "
            "returns a future, as concurrent.futures has them, or 'module:callable', which makes one"
        )
    return HeldExecutor(value)


_made: dict[str, tp.Any] = {}
_making = threading.Lock()
# that have no result, by logs and job id
_futures: dict[tuple[str, str], "concurrent.futures.Future[tp.Any]"] = {}


def executor_of(value: "str | HeldExecutor | None") -> tp.Any:
    """The executor that a field names; one that a callable makes is made once per process."""
    if value is None:
        raise SubmissionError(
            "cluster='executor' needs futures_executor=...: an object with a method submit(function, ...), or "
            "'module:callable', which makes one"
        )
    if isinstance(value, HeldExecutor):
        if value.executor is None:
            raise SubmissionError(
                "the executor was given as an object, which does not travel with a configuration that was pickled or "
                "read from a file: set infra.futures_executor again, or give 'module:callable', which makes one"
            )
        return value.executor
    with _making:
        found = _made.get(value)
        if found is None:
            found = _made[value] = _make(value)
    return found


def _make(text: str) -> tp.Any:
    module, _, name = text.partition(":")
    try:
        found: tp.Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        made = found()
    except Exception as e:
        raise SubmissionError(
            f"cannot make the executor of futures_executor={text!r}: {type(e).__name__}: {e}. Nothing was submitted: "
            "check the module and the callable, which is called without arguments"
        ) from e
    if not callable(getattr(made, "submit", None)):
        raise SubmissionError(
            f"futures_executor={text!r} made {made!r}, which has no method submit(function, ...). Nothing was "
            "submitted: let the callable return an executor as concurrent.futures has them"
        )
    return made


class ExecutorBackend(hosted.HostedBackend):
    """Jobs in the workers of an executor of this process."""

    name = "executor"
    outlive_submitter = False

    def submit(self, request: Request) -> list[Submission | None]:
        """Hand the calls to the executor, which decides when they run."""
        executor = executor_of(request.resources.futures_executor)
        me = Process.current()
        launches = self.launches(request)
        before = (_futures.get((job.logs, job.job_id)) for job in request.after)
        others = [future for future in before if future is not None]
        later = _Later(executor, others) if others else None
        out: list[Submission | None] = []
        try:
            for launch in launches:
                entry.note_process(launch.paths().folder / SUBMITTER, me)
                future: concurrent.futures.Future[tp.Any] = (later or executor).submit(launch)
                job = Submission(self.name, launch.job_id, launch.logs, launch.processes, me.pid)
                _futures[job.logs, job.job_id] = future
                future.add_done_callback(functools.partial(_note_end, launch))
                out.append(job)
            if later is not None:
                later.start()
        except Exception as e:  # of an executor of any kind: it is shut down, or cannot pickle the launch
            self.cancel([job for job in out if job is not None])
            raise SubmissionError(
                f"the executor {type(executor).__qualname__} did not take {request.name}: {type(e).__name__}: {e}. "
                "Nothing goes on of what was submitted with it: give one that is not shut down"
            ) from e
        return out

    def waits_for_end_of(self, submission: Submission) -> bool:
        """A thread waits for the jobs of executors of this process."""
        return (submission.logs, submission.job_id) in _futures

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``CANCELLED`` or ``TIMEOUT``.

        A job whose submitter is gone is ``UNKNOWN``, and not alive: should a process of it go on elsewhere, its claim
        tells.
        """
        return [self._state(job) for job in jobs]

    def _state(self, job: Submission) -> JobState:
        ended = hosted.state_by_files(job)
        if ended is not None:
            return ended
        submitter = entry.noted_process(paths.JobPaths(job.logs, job.job_id).folder / SUBMITTER)
        alive = None if submitter is None else submitter.alive()
        if alive is False:
            ended = hosted.state_by_files(job)  # it may have ended between the two looks
            return ended or hosted.gone(
                job, "The process that submitted it, and held its executor, ended before it did"
            )
        return JobState(job.job_id, "RUNNING" if hosted.began(job) else "PENDING", alive=alive)

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """End the processes of jobs, and keep from beginning what has not begun."""
        waiting = [job for job in submissions if self._state(job).alive is not False]
        self.mark_cancelled(waiting)
        for job in waiting:
            future = _futures.get((job.logs, job.job_id))
            if future is not None:
                future.cancel()


class _Later:
    """Hands calls to an executor once others are done, from a thread of its own."""

    def __init__(self, executor: tp.Any, others: "list[concurrent.futures.Future[tp.Any]]") -> None:
        self._inner, self._others = executor, others
        self._waiting: list[tuple[Launch, concurrent.futures.Future[tp.Any]]] = []

    def submit(self, launch: "Launch") -> "concurrent.futures.Future[tp.Any]":
        """The future of a call."""
        future: concurrent.futures.Future[tp.Any] = concurrent.futures.Future()
        self._waiting.append((launch, future))
        return future

    def start(self) -> None:
        """Wait for the others, now that all calls are here."""
        threading.Thread(target=self._run, name="exca-executor", daemon=True).start()

    def _run(self) -> None:
        concurrent.futures.wait(self._others)
        for launch, future in self._waiting:
            if future.set_running_or_notify_cancel():
                self._hand_over(launch, future)

    def _hand_over(self, launch: "Launch", future: "concurrent.futures.Future[tp.Any]") -> None:
        try:
            inner = self._inner.submit(launch)
        except Exception as e:  # of an executor of any kind: it is shut down
            future.set_exception(e)
            return
        inner.add_done_callback(lambda inner: _pass_on(inner, future))


def _pass_on(inner: "concurrent.futures.Future[tp.Any]", future: "concurrent.futures.Future[tp.Any]") -> None:
    error = concurrent.futures.CancelledError() if inner.cancelled() else inner.exception()
    if error is None:
        future.set_result(inner.result())
    else:
        future.set_exception(error)


def _note_end(launch: "Launch", future: "concurrent.futures.Future[tp.Any]") -> None:
    """Note the end of a job that did not note it itself: its worker was lost, or it never began."""
    _futures.pop((launch.logs, launch.job_id), None)
    place = launch.paths()
    with contextlib.suppress(OSError):  # its folder is gone, so no process waits for it
        if place.exit_file.exists():
            return
        error = None if future.cancelled() else future.exception()
        if error is not None:
            with paths.open_log(place.stderr) as err:
                err.write(f"exca: the executor lost the job: {type(error).__name__}: {error}\n".encode())
        # a process that it had ends with its worker
        killed = error is not None and entry.has_begun(place.folder)
        _files.write_atomically(place.exit_file, b"-9" if killed else b"1", mode=_files.OWN)


BACKEND = ExecutorBackend()
