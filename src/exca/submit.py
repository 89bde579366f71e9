"""SubmitInfra: remote execution without a cache."""

import contextlib
import dataclasses
import threading
import typing as tp
from pathlib import Path

import pydantic

from ._log import logger
from ._polling import Poller
from .engine.links import link_code
from .engine.method import Method, running
from .errors import InfraError, JobError, SubmissionError
from .identity import check_secrets
from .infra.attribute import has_infra
from .infra.base import Applied, BaseInfra, wrap
from .jobs import arrays, backends, losses
from .jobs.backends import Submission
from .jobs.job import CallJob, DoneJob, Job
from .jobs.remote_errors import RemoteError

F = tp.TypeVar("F", bound=tp.Callable[..., tp.Any])
_ROOM_EVERY = 5.0  # seconds between two attempts to send calls that there was no room for


class SubmitInfra(BaseInfra):
    """Runs a method with any arguments where its fields tell to; nothing is cached."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(defer_build=False)
    _pools: tp.ClassVar[bool] = False  # for maps: they make no sense for a single call

    def apply(self, method: F, /) -> F:
        """Tie the infra to a method; used as a decorator.

        Parameters
        ----------
        method: callable
            a method or static method with any arguments

        Returns
        -------
        callable
            the method, which runs where the infra tells
        """
        function: tp.Any = method.__func__ if isinstance(method, staticmethod) else method
        applied = Applied(function, static=isinstance(method, staticmethod))

        def call(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            obj, name = args[0] if args else None, self._infra_name
            bound = has_infra(obj, name)  # else it is a static method called on the class
            infra = applied.infra_of(obj, name) if bound and hasattr(obj, name) else None
            if infra is None:
                bound = bound and applied.static
                return function(*(args[1:] if bound else args), **kwargs)
            return infra._call(*args[1:], **kwargs)

        self._register(applied, wrap(function, call))
        return tp.cast(F, applied.wrapper)

    def _check_bound(self) -> None:
        super()._check_bound()
        obj, applied = self._bound
        static = next((vars(c)[applied.name] for c in type(obj).__mro__ if applied.name in vars(c)), None)
        if isinstance(static, staticmethod) and static.__func__ is applied.wrapper:
            raise InfraError(
                f"{type(obj).__qualname__}.{applied.name} is a static method around the infra, which so never sees "
                f"its object: write @{self._infra_name}.apply above @staticmethod, not below"
            )

    def _call(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        """Run and wait."""
        if self.cluster is None:
            return RemoteCall(self._method, args, kwargs).run()
        job = self._submit(args, kwargs)
        try:
            return job.result()
        except KeyboardInterrupt:
            if isinstance(job, PendingJob) and job.rest is not None:
                job.cancel()  # else it would wait for room without a caller
            raise

    def submit(self, *args: tp.Any, **kwargs: tp.Any) -> Job[tp.Any]:
        """Run the method in a job.

        Parameters
        ----------
        *args, **kwargs
            arguments of the method

        Returns
        -------
        Job
            handle with ``result()``, ``done()``, ``wait()``, ``exception()``, ``cancel()``, ``stdout()``...

        Raises
        ------
        SubmissionError
            if the arguments or the object cannot be pickled, or the backend refuses the job
        """
        self._require_own_method("submit")
        return self._submit(args, kwargs)

    def _submit(self, args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]) -> Job[tp.Any]:
        call = RemoteCall(self._method, args, kwargs)
        if self.cluster is None:
            return DoneJob.of(call.run)
        pending = PendingJob()
        if self._state.batch is not None:
            self._state.batch.append((pending, call))
        else:
            self._send([(pending, call)], 1)
        return pending

    @contextlib.contextmanager
    def batch(self, max_workers: int = 256) -> tp.Iterator[None]:
        """Context whose submissions are sent as one job array, on leaving it.

        Parameters
        ----------
        max_workers: int
            how many jobs may run at once

        Raises
        ------
        InfraError
            inside another batch of the infra
        """
        if self._state.batch is not None:
            raise InfraError(
                f"batch() of {self._factory()} is already open: submit inside it, or close it first"
            )
        batch: list[tuple[PendingJob, RemoteCall]] = []
        self._state.batch = batch
        try:
            yield
        except BaseException as e:
            for job, _ in batch:
                job.unsent = (
                    f"its batch was left by an error, {e!r}, and nothing of it was sent: submit again"
                )
            raise
        finally:
            self._state.batch = None
        if batch:
            self._send(batch, max_workers)

    def _job_name(self) -> str:
        """Name of a job in the scheduler: calls with different arguments have the same configuration."""
        return self.job_name or self._title(self._factory())

    def _link_code(self, workdir: Path) -> None:
        """Make the uid folder of the object as it is now, with a link to the code that its jobs run."""
        try:
            link_code(self._folder_now(), workdir)
        except (ValueError, TypeError, RuntimeError, OSError) as e:  # without a cache, a call needs no uid
            logger.debug("No folder with a link to %s was made for %s: %s", workdir, self._factory(), e)

    def _send(self, pending: "list[tuple[PendingJob, RemoteCall]]", max_workers: int) -> None:
        cluster = self.resolved_cluster()
        assert cluster is not None
        request = self._method.request([call for _, call in pending], max_workers=max_workers)
        if request.workdir is not None:
            self._link_code(request.workdir)
        rest = Rest(cluster, request, [job for job, _ in pending])
        try:
            rest.send()
        except BaseException as e:
            for job, _ in pending:
                job.unsent = f"it could not be submitted: {e}"
            raise
        sent = [job.submission if job.submission.job_id else None for job, _ in pending]
        arrays.report(sent, self._factory(), cluster)


@dataclasses.dataclass(eq=False)
class Rest:
    """Calls of one batch that are not sent yet, since there was no room for them."""

    cluster: str
    request: "backends.Request"
    jobs: "list[PendingJob]"  # one per call
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def send(self) -> None:
        """Send what there is room for."""
        with self.lock:
            if not self.jobs:
                return
            sent = [s for s in backends.submit(self.cluster, self.request) if s is not None]
            for job, call, submission in zip(self.jobs, self.request.calls, sent, strict=False):
                job.submission, job.rest = submission, None
                # that of the first attempt: the resources that are scaled are those that were set
                job.request = job.request or dataclasses.replace(self.request, calls=[call])
                if job.lost:
                    losses.note_beside(job.paths.folder, job.lost)
            self.jobs = self.jobs[len(sent) :]
            for job in self.jobs:
                job.rest = self
            self.request = arrays.rest_of(self.request, len(sent))

    def send_later(self) -> None:
        """Send what there is room for; where the backend does not answer now, it is left for later."""
        try:
            self.send()
        except SubmissionError as e:
            # of a job that may have come through all the same, another one would be the second
            if not e.passing or isinstance(e, arrays.UnsureError):
                raise
            logger.warning("%s. It is tried again in a while", e)

    def take_out(self, job: "PendingJob") -> bool:
        """Take a call out, so that it is never sent; False where it was sent meanwhile."""
        with self.lock:
            if job not in self.jobs:
                return False
            number = self.jobs.index(job)
            calls = [call for k, call in enumerate(self.request.calls) if k != number]
            self.jobs = [other for other in self.jobs if other is not job]
            self.request = dataclasses.replace(self.request, calls=calls)
            job.cancelled, job.rest = True, None
            return True


@dataclasses.dataclass(repr=False)
class RemoteCall:
    """A call of a method on its object, to be run elsewhere."""

    method: Method
    args: tuple[tp.Any, ...]
    kwargs: dict[str, tp.Any]
    not_before: float = 0.0  # when it may start, in seconds since the epoch: the job before it was lost

    def __post_init__(self) -> None:
        check_secrets(self.method.obj)

    def __repr__(self) -> str:
        return f"a call of {self.method.name}"

    def run(self) -> tp.Any:
        """Call the method."""
        outer = running.set((self.method, "", "call"))
        try:
            return self.method.call(*self.args, **self.kwargs)
        finally:
            running.reset(outer)

    def __call__(self) -> tp.Any:
        """Run in a job: an error is carried to the caller as a value."""
        losses.wait_until(self.not_before)
        try:
            return self.run()
        except Exception as e:
            logger.exception("%r failed", self)
            return RemoteError(e)


class PendingJob(CallJob[tp.Any]):
    """A call that is, or will be, submitted."""

    def __init__(self) -> None:
        super().__init__(Submission(None, "", ""))
        self.unsent = "its batch is not sent yet: leave the `with infra.batch():` block first"
        self.rest: Rest | None = None  # it waits for room, with others
        self.cancelled = False  # before there was room for it
        self.request: backends.Request | None = None  # of this call alone, to submit it again
        self.lost: list[losses.Attempt] = []

    def _require_sent(self, timeout: float | None = None) -> bool:
        """Complain if it was never sent; wait for room if that is what it waits for."""
        poller = Poller(timeout)
        try:
            while (rest := self.rest) is not None:
                rest.send_later()
                if self.rest is not None and not poller.pause(at_least=_ROOM_EVERY):
                    return False
        except KeyboardInterrupt:
            logger.warning(
                "Interrupted while waiting for room in the queue: this call was not submitted. To wait on, ask for "
                "its result again"
            )
            raise
        if self.cancelled:
            raise JobError("this job was cancelled before there was room for it in the queue: submit again")
        if not self.submission.job_id:
            raise SubmissionError(f"this job has no result, since {self.unsent}")
        return True

    def _finished(self) -> bool | None:
        if self.cancelled:
            return False
        return super()._finished() if self.submission.job_id else None

    def send_others(self) -> None:
        """Send this call, and what waits for room with it."""
        if not self.cancelled:
            self._require_sent(0)

    def sent_with(self) -> tp.Hashable:
        """What was in the same batch is sent together; what was never sent complains by itself."""
        return self.rest or self

    def is_listed(self) -> bool:
        """Whether it waits for room."""
        return self.rest is not None

    @property
    def state(self) -> str:
        """The scheduler's word for the state of the job, ``UNSUBMITTED`` as long as it is not sent."""
        if self.cancelled:
            return "CANCELLED"
        return super().state if self.submission.job_id else "UNSUBMITTED"

    def done(self) -> bool:
        """Whether there is an outcome, be it a result or an error."""
        return self.cancelled or (bool(self.submission.job_id) and super().done())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is done, at most ``timeout`` seconds; what was lost is submitted again."""
        poller = Poller(timeout)
        while not self.cancelled:
            if not (self._require_sent(poller.left) and super().wait(poller.left)):
                return False
            if not self.go_on():
                return True
        return True

    def go_on(self) -> bool:
        """Submit the call again where its job was lost, and there are attempts left; whether it was so."""
        from .engine.runner import attempts_lost

        request, cluster = self.request, self.cluster
        if self.cancelled or request is None or cluster is None:
            return False
        lost = attempts_lost(self, "", losses.Policy.of(request.resources), self.lost)
        if not lost:
            return False
        self.lost += lost
        again, not_before = arrays.next_request(request, self.lost, cluster)
        again.calls = [dataclasses.replace(tp.cast(RemoteCall, request.calls[0]), not_before=not_before)]
        self.rest = Rest(cluster, again, [self])
        self.rest.send_later()
        return True

    def cancel(self) -> None:
        """End the job now, or keep it from being sent; one that is done stays as it is."""
        rest = self.rest
        if self.cancelled or (rest is not None and rest.take_out(self)):
            return
        self._require_sent()
        super().cancel()

    def was_cancelled(self) -> None:
        """Keep what was cancelled from being submitted again, should its backend not tell why it ended."""
        self.request = None

    def result(self) -> tp.Any:
        """Wait for the call and return what it returned."""
        self.wait()
        self._require_sent()
        return super().result()
