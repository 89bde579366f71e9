"""TaskInfra: one computation, cached and run anywhere."""

import contextlib
import dataclasses
import logging
import os
import typing as tp
from pathlib import Path

from . import _files
from .errors import DamagedEntryError, InfraError, ReadOnlyError
from .execution import record
from .execution.record import KEY
from .execution.task_job import EarlierJob, TaskJob
from .execution.task_start import SUBMISSION, find_announced, read_submission, start
from .infra.base import NOTHING_KEPT, Applied, BaseInfra, Exclusion, wrap
from .jobs import backends
from .jobs.job import DoneJob, Job
from .jobs.submission import Submission
from .submit import SubmitInfra

if tp.TYPE_CHECKING:
    from .claims import Holder

F = tp.TypeVar("F", bound=tp.Callable[[tp.Any], tp.Any])
Status = tp.Literal["not submitted", "running", "completed", "failed"]
logger = logging.getLogger("exca")
__all__ = ["SubmitInfra", "TaskInfra"]  # the former had its home here in earlier releases


class TaskInfra(BaseInfra):
    """Runs a method without arguments where its fields say, and keeps the result.

    Parameters
    ----------
    mode: str
        "cached" (a cached result or error is returned), "retry" (a cached error is computed again),
        "force" (computed again, once per object), "read-only" (never computed)
    keep_in_ram: bool
        also keep the result on the object, for instant access
    """

    # narrower than for maps: pools make no sense for a single call
    cluster: tp.Literal["auto", "local", "slurm", "debug"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride] # never set to more through the base
    mode: tp.Literal["cached", "retry", "force", "read-only"] = "cached"
    keep_in_ram: bool = False

    @tp.overload
    def apply(self, method: F, /) -> F: ...
    @tp.overload
    def apply(
        self, method: None = None, /, *, exclude_from_cache_uid: Exclusion = ()
    ) -> tp.Callable[[F], F]: ...
    def apply(self, method: tp.Any = None, /, *, exclude_from_cache_uid: Exclusion = ()) -> tp.Any:
        """Tie the infra to a method; used as a decorator.

        Parameters
        ----------
        method: callable
            a method that takes nothing but ``self``
        exclude_from_cache_uid: iterable of str, callable on the object, or "method:<name>"
            fields that do not count for the cache

        Raises
        ------
        ValueError
            if the method takes arguments
        """
        if method is None:
            return lambda function: self._apply_to(function, exclude_from_cache_uid)
        return self._apply_to(method, exclude_from_cache_uid)

    def _apply_to(self, function: F, exclude: Exclusion) -> F:
        """Tie the infra to a method (what the decorator does).

        Parameters
        ----------
        function: callable
            the method
        exclude: iterable of str, callable or "method:<name>"
            fields that do not count for the cache
        """
        _check_signature(function)
        applied = Applied(function, exclude)
        name = ""  # of the infra, known at the first call

        def call(obj: tp.Any) -> tp.Any:
            nonlocal name
            try:  # straight to a result kept in memory, if it is this method's and this object's
                owner, method, value = obj.__dict__[name]._ram
                if owner is obj and method is applied:
                    return value
            except (KeyError, AttributeError):
                name = self._infra_name
            infra = _infra_of(obj, applied, self)
            if infra is None or infra._applied is not applied:
                return function(obj)  # no infra, or super().method() from a child that applied one of its own
            return infra._result()

        self._register(applied, wrap(function, call))
        return tp.cast(F, applied.wrapper)

    # ---------------------------------------------------------------- the way of a call

    def _result(self) -> tp.Any:
        """The result of the task, from the cache or computed."""
        if self.folder is None:
            value = self._compute_without_cache()
        else:
            value = self._cached_result()
        if self.keep_in_ram:
            self._ram = (*self._bound, value)
        return value

    def _compute_without_cache(self) -> tp.Any:
        if self.mode == "read-only":
            raise ReadOnlyError(
                f"{self.uid()} cannot be read: the infra has no folder; set folder=... or another mode"
            )
        obj, applied = self._bound
        job = self._state.job
        return applied.function(obj) if job is None else job.result()

    def _cached_result(self) -> tp.Any:
        while True:
            found = self._usable_record()
            if found is None:
                job = self.job()
            elif self._state.job is None and found.state == "completed":
                job = None
            else:
                job = self._later_attempt(found)
            if found is not None and job is None:
                if found.state == "failed":
                    return self._job_of_record(found).result()  # raises
                try:
                    return found.value()
                except DamagedEntryError as e:
                    record.set_aside(found.folder, str(e), found.attempt)
                    continue
            if job is not None and (job.cluster is not None or isinstance(job, DoneJob)):
                return job.result()
            self._wait_for_others(found)

    def _wait_for_others(self, old: record.Record | None) -> None:
        """Wait for whoever computes the task in a process: should that one die, it is ours to compute."""
        from .claims import Claims

        folder = self.uid_folder()
        assert folder is not None

        def done() -> bool:
            found = self._usable_record()
            return found is not None and (old is None or found.attempt != old.attempt)

        Claims(folder).wait([KEY], done=done)

    def _later_attempt(self, found: record.Record) -> Job[tp.Any] | None:
        """The attempt that is to replace an outcome, if whoever asks has to wait for it.

        The object that asked for the attempt does; others do where the outcome is a failure.
        """
        job = self._state.job
        mine = isinstance(job, TaskJob) and job.replaces is not None and job.replaces == found.attempt
        if mine and not job.nothing_kept and (job.cluster is not None or not job._ended_without_outcome()):
            return tp.cast(Job[tp.Any], job)
        if found.state == "failed":
            job = self._running_job()
            if isinstance(job, TaskJob) and job.attempt and job.attempt != found.attempt:
                return job
        return None

    def _usable_record(self, mode: str | None = None) -> record.Record | None:
        """The outcome on disk, unless the mode (by default the infra's own) asks to compute again."""
        mode = mode or self.mode
        folder = self.uid_folder()
        assert folder is not None
        found = record.latest(folder)
        if found is None or self._state.forced or mode in ("cached", "read-only"):
            return found
        return None if mode == "force" or found.state == "failed" else found

    def job(self) -> Job[tp.Any]:
        """The job of the task, submitted now if there is neither a job nor a result.

        Returns
        -------
        Job
            handle with ``result()``, ``done()``, ``wait()``, ``exception()``, ``cancel()``, ``stdout()``...

        Raises
        ------
        ReadOnlyError
            in read-only mode, if there is no result
        """
        with self._state.lock:
            if self.folder is None:
                return self._job_without_folder()
            known = self._known_job()
            if known is not None:
                return known
            if self.mode == "read-only":
                self._refuse_to_compute()
            job = start([self], self)[0]
            self._state.job = job
            return job

    def _has_outcome(self, folder: Path) -> bool:
        return any(
            os.path.exists(f"{folder}/{name}") for name in (record.NAME, record.LEGACY_NAME, SUBMISSION)
        )

    def _refuse_to_compute(self) -> tp.NoReturn:
        raise ReadOnlyError(
            f"{self.uid()} has no result in {self.folder} and mode='read-only' forbids computing it: "
            "check the folder and the configuration, or use mode='cached'"
        )

    def _job_without_folder(self) -> Job[tp.Any]:
        if self._state.job is None:
            obj, applied = self._bound
            self._state.job = DoneJob.of(lambda: applied.function(obj))
        return tp.cast(Job[tp.Any], self._state.job)

    def _known_job(self) -> Job[tp.Any] | None:
        """The job of this object, of a record, or of whoever computes the task now."""
        return self._finished_job() or self._running_job()

    def _finished_job(self, mode: str | None = None) -> Job[tp.Any] | None:
        """The job of this object, or the one that left a record."""
        state = self._state
        if state.job is not None and (state.forced or state.job.outcome() is not None):
            if not getattr(state.job, "nothing_kept", False):
                return tp.cast(Job[tp.Any], state.job)
            state.job = None
        found = self._usable_record(mode)
        if found is not None:
            return self._later_attempt(found) or self._job_of_record(found)
        return None

    def _running_job(self, mode: str | None = None) -> Job[tp.Any] | None:
        """The job of whoever computes the task now."""
        from .claims import Claims

        folder = self.uid_folder()
        assert folder is not None
        before = record.latest(folder)  # first: what is there once a claim was seen may be of that claim
        holder = Claims(folder).holders([KEY]).get(KEY)
        if holder is None or (
            not holder.alive() and (holder.owner.kind == "process" or (mode or self.mode) != "cached")
        ):
            return self._queued_before(folder)
        return self._job_of(folder, holder, before)

    def _queued_before(self, folder: Path) -> Job[tp.Any] | None:
        """The job that an earlier release queued for the task and that waits or runs."""
        if not os.access(folder / record.LEGACY_NAME, os.F_OK):
            return None
        from .execution.legacy import queued

        submission = queued(folder)
        return None if submission is None else EarlierJob(folder, submission, hint=self._hint())

    def _job_of(self, folder: Path, holder: "Holder", before: record.Record | None = None) -> TaskJob[tp.Any]:
        """The job behind a claim, which was looked for after the outcome."""
        replaces = None if before is None or before.attempt == holder.token else before.attempt
        submission = Submission(None, "", "")
        if holder.owner.kind == "job":
            submission = read_submission(folder) or submission
            if not holder.trusted:
                submission = dataclasses.replace(submission, trusted=False)
        elif holder.announced is not None:  # its submitter died before it could say which job it had become
            submission = find_announced(holder.announced, str(self._logs_folder())) or submission
        return TaskJob(folder, submission, holder.token, self._hint(), replaces)

    def _job_of_record(self, found: record.Record) -> TaskJob[tp.Any]:
        """The job that left an outcome."""
        try:
            submission = Submission.from_json(found.content, trusted=found.trusted)
        except ValueError:  # another user wrote it, and what it says of the job is of no use
            submission = Submission(None, "", "")
        return TaskJob(found.folder, submission, found.attempt, self._hint())

    def _hint(self) -> str:
        name = self._infra_name
        return (
            f"The error of {self.uid()} is kept. To compute it again: mode='retry' on {name!r}, "
            f"or obj.{name}.clear_job() and call again."
        )

    def status(self) -> Status:
        """What is known of the task, without computing anything.

        Returns
        -------
        str
            "not submitted", "running", "completed" or "failed"
        """
        if self.folder is None:
            job = self._state.job
            return "not submitted" if job is None else ("completed" if job._finished() else "failed")
        folder = self.uid_folder()
        assert folder is not None
        found = record.latest(folder)
        if found is not None and found.state == "completed" and self._state.job is None:
            return "completed"
        running = self._holder_status(folder, found)
        if running is not None:
            return running
        job = self._state.job
        if found is not None and isinstance(job, TaskJob) and job.replaces == found.attempt:
            ended = job.record_death()
            if ended is None and job.nothing_kept:
                return tp.cast(Status, found.state)
            return "running" if ended is None else tp.cast(Status, ended.state)
        if found is None:
            found = record.latest(folder)  # it may have finished between the two looks
        if found is None and self._queued_before(folder) is not None:
            return "running"
        return "not submitted" if found is None else tp.cast(Status, found.state)

    def _holder_status(self, folder: Path, found: record.Record | None) -> Status | None:
        """The state of whoever holds the task, None where its outcome is there."""
        from .claims import Claims

        holder = Claims(folder).holders([KEY]).get(KEY)
        if holder is None or (found is not None and found.attempt == holder.token):
            return None
        if holder.alive():
            return "running"
        if holder.owner.kind == "process":
            return None
        death = self._job_of(folder, holder, found).record_death()
        return None if death is None else tp.cast(Status, death.state)

    def clear_job(self) -> None:
        """Cancel the job if it runs, and remove the outcome; other files in the uid folder stay."""
        if self.folder is None:
            self._state.job, self._ram = None, NOTHING_KEPT
            return
        from .cachedict import delete_one
        from .claims import Claims

        folder = self.uid_folder()
        assert folder is not None
        for holder in Claims(folder).holders([KEY]).values():
            if holder.alive() and holder.owner.kind == "job":
                backends.cancel([self._job_of(folder, holder).submission])
            Claims(folder).revoke(holder.token)
        found = record.read(folder)
        if found is not None and found.state == "completed" and found.trusted:
            delete_one(folder, found.content["result"])
        for name in (record.NAME, SUBMISSION, record.LEGACY_NAME):
            with contextlib.suppress(FileNotFoundError):
                _files.remove(f"{folder}/{name}")
        state = self._state
        state.job, self._ram = None, NOTHING_KEPT
        state.forced.clear()

    @contextlib.contextmanager
    def job_array(
        self, max_workers: int = 256, allow_empty: bool = False, allow_repeated_tasks: bool = False
    ) -> tp.Iterator[list[tp.Any]]:
        """Collect objects and submit, on leaving the context, those without a result as one job array.

        What is computed again is decided by the mode of this infra, not by those of the objects: "cached" sends what
        has neither a result nor an error, "retry" also what failed, "force" everything (each object once); "read-only"
        sends nothing and raises where there is something to send.

        Parameters
        ----------
        max_workers: int
            how many jobs may run at once
        allow_empty: bool
            do not complain when nothing was collected
        allow_repeated_tasks: bool
            do not complain when two objects stand for the same task

        Yields
        ------
        list
            to which objects of the same class are appended

        Raises
        ------
        ValueError
            if a task is repeated
        RuntimeError
            if nothing was collected, or in read-only mode something is to be sent
        """
        objects: list[tp.Any] = []
        yield objects
        if not objects and not allow_empty:
            raise InfraError(
                f"nothing was added to the job array of {self._factory()}: append objects, or pass allow_empty=True"
            )
        infras = [self._sibling(obj) for obj in objects]
        unique = {infra.uid(): infra for infra in infras}
        if len(unique) < len(infras) and not allow_repeated_tasks:
            _complain_of_repetition(infras)
        todo = []
        for infra in unique.values():
            if infra.folder is None:
                infra.job()
            elif (
                infra._finished_job(self.mode) is None
                and infra._queued_before(tp.cast(Path, infra.uid_folder())) is None
            ):
                if "read-only" in (self.mode, infra.mode):
                    infra._refuse_to_compute()
                todo.append(infra)
        for infra, job in zip(todo, start(todo, self, max_workers), strict=True):
            infra._state.job = job

    def _sibling(self, obj: tp.Any) -> "TaskInfra":
        infra = getattr(obj, self._infra_name, None)
        if not isinstance(infra, TaskInfra):
            raise InfraError(
                f"a job array of {type(self._obj).__qualname__}.{self._infra_name} takes objects "
                f"with such an infra, got {obj!r}"
            )
        return infra


def _infra_of(obj: tp.Any, applied: Applied, default: TaskInfra) -> TaskInfra | None:
    """The infra through which a call of the method goes, None where the object has none (``infra=None``)."""
    try:
        return tp.cast(TaskInfra | None, getattr(obj, default._infra_name))
    except AttributeError:
        raise InfraError(
            f"{applied.name!r} was called on {obj!r}, which has no infra {default._infra_name!r}"
        ) from None


def _check_signature(function: tp.Any) -> None:
    import inspect

    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 1:
        raise ValueError(
            f"TaskInfra cannot be applied to {function.__module__}.{function.__qualname__}, which takes {parameters}: "
            "a task takes only 'self': make what it depends on fields of the class, or use SubmitInfra (no cache)"
        )


def _complain_of_repetition(infras: list[TaskInfra]) -> tp.NoReturn:
    seen: dict[str, int] = {}
    for k, infra in enumerate(infras):
        first = seen.setdefault(infra.uid(), k)
        if first != k:
            configs = "\n\n".join(
                f"* number {n}:\n{infras[n].config(uid=True, exclude_defaults=True).to_yaml()}"
                for n in (first, k)
            )
            raise ValueError(
                f"the job array holds {infra.uid()} twice:\n\n{configs}\n"
                "Often a field that was meant to vary does not; where intended: job_array(allow_repeated_tasks=True)"
            )
    raise AssertionError("no repetition")


if not tp.TYPE_CHECKING:

    def __getattr__(name: str) -> tp.Any:  # kept for dependants: names of earlier releases
        if name.startswith("__"):
            raise AttributeError(name)
        from . import kept

        return kept.lookup(__name__, name)
