"""TaskInfra: one computation, cached and run anywhere."""

import collections
import collections.abc
import os
import typing as tp
from pathlib import Path

import pydantic

from . import _foreign, _reloads
from ._earlier import earlier_names
from .engine.method import Status, observers, running
from .errors import InfraError, ReadOnlyError
from .infra.base import NOTHING_KEPT, Applied, BaseInfra, Exclusion, wrap

if tp.TYPE_CHECKING:
    from .engine.array import JobArray
    from .engine.earlier import Earlier
    from .engine.reports import Progress
    from .engine.tasks import Task
    from .jobs.job import Job
    from .submit import SubmitInfra

F = tp.TypeVar("F", bound=tp.Callable[[tp.Any], tp.Any])
__all__ = ["SubmitInfra", "TaskInfra"]  # the former had its home here in earlier releases


class TaskInfra(BaseInfra):
    """Runs a method without arguments where its fields tell to, and keeps the result.

    Parameters
    ----------
    mode: str
        "cached" (a cached result or error is returned), "retry" (a cached error is computed again),
        "force" (computed again, once per object), "read-only" (never computed)
    keep_in_ram: bool
        also keep the result on the object, for instant access
    after: list, optional
        what has to be done before this task begins: objects with a task, such infras, their jobs, and uids (as
        `uid()` gives them), addresses of methods (``module.Class.method,version``: all of its tasks that have a job or
        an outcome) or paths of uid folders. Those given as objects are submitted with this one if need be. Where one of
        them fails, this one fails with an `EarlierTaskError`, until that one is computed again
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(defer_build=False)
    _exca_new_fields: tp.ClassVar[tuple[str, ...]] = (*BaseInfra._exca_new_fields, "after")

    _pools: tp.ClassVar[bool] = False  # for maps: they make no sense for a single call
    mode: tp.Literal["cached", "retry", "force", "read-only"] = "cached"
    keep_in_ram: bool = False
    after: tp.Annotated[
        collections.abc.Sequence[tp.Any] | None,
        pydantic.PlainSerializer(lambda after: None if after is None else [str(one) for one in after]),
    ] = None

    @pydantic.field_validator("after", mode="before")
    @classmethod
    def _as_earlier(cls, after: tp.Any) -> tp.Any:
        if after is None:
            return None
        if isinstance(after, str) or not isinstance(after, collections.abc.Sequence):
            raise ValueError(f"after={after!r} is no list: write after=[...]")  # noqa: TRY004 # as pydantic
        return tuple(_earlier(one) for one in after)

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

        Returns
        -------
        callable
            the method, or a decorator for one

        Raises
        ------
        ValueError
            if the method takes arguments
        """
        if method is None:
            return lambda function: self._apply_to(function, exclude_from_cache_uid)
        return self._apply_to(method, exclude_from_cache_uid)

    def _apply_to(self, function: F, exclude: Exclusion) -> F:
        _check_signature(function)
        applied = Applied(function, exclude)
        name = ""  # of the infra, known at the first call

        def call(obj: tp.Any) -> tp.Any:
            nonlocal name
            try:  # straight to a result kept in memory, if it is this method's and this object's
                owner, method, value, then, _ = obj.__dict__[name]._ram
                if owner is obj and method is applied and then is _reloads.now:
                    return value
            except (KeyError, AttributeError):
                name = self._infra_name
            try:
                infra = applied.infra_of(obj, name)
            except AttributeError:
                raise InfraError(
                    f"{applied.name!r} was called on {obj!r}, which has no infra {name!r}"
                ) from None
            return function(obj) if infra is None else infra._result()

        self._register(applied, wrap(function, call))
        return tp.cast(F, applied.wrapper)

    # ---------------------------------------------------------------- the way of a call

    def _result(self) -> tp.Any:
        """The result of the task, from the cache or computed."""
        if self.keep_in_ram:
            # first: what changes while it is computed has it compared again
            then, digest = _reloads.believed(), self._method.digest
            owner, method, value, _, known = self._ram
            if not (owner is self._obj and method is self._applied and digest == known):
                value = self._found_or_computed()
            self._ram = (*self._bound, value, then, digest)
            return value
        return self._found_or_computed()

    def _found_or_computed(self) -> tp.Any:
        if self.folder is None:
            return self._compute_without_cache()
        applied = tp.cast(Applied, self._applied)
        own = getattr(type(self._obj), applied.name, None) is applied.wrapper
        return self._task.result() if own or self._is_kept() else self._compute_unkept()

    def _compute_without_cache(self) -> tp.Any:
        if self.mode == "read-only":
            raise ReadOnlyError(
                f"{self.uid()} cannot be read: the infra has no folder; set folder=... or another mode"
            )
        job = self._state.job
        if job is not None:
            return job.result()
        self._require_strict()
        return self._call_here()

    def _compute_unkept(self) -> tp.Any:
        """Compute what super() of a child's method asks for, where the result would not be that of the parent."""
        if self.mode == "read-only":
            raise ReadOnlyError(
                f"{self._factory()} has no result for a {type(self._obj).__qualname__}, which overrides the method and "
                "what it uses, and mode='read-only' forbids computing it"
            )
        return self._call_here()

    def _call_here(self) -> tp.Any:
        """Call the method, whose result is not kept."""
        method = self._method
        for observe in observers:
            observe(method)
        outer = running.set((method, "", "call"))
        try:
            return method.call()
        finally:
            running.reset(outer)

    @property
    def _task(self) -> "Task":
        state = self._state
        if state.task is None:
            with state.lock:  # all threads share what it remembers
                if state.task is None:
                    from .engine.tasks import Task

                    state.task = Task(self._method, state.lock)
        return tp.cast("Task", state.task)

    def job(self, *, after: collections.abc.Sequence[tp.Any] = ()) -> "Job[tp.Any]":
        """The job of the task, submitted now if there is neither a job nor a result.

        Parameters
        ----------
        after: list
            what has to be done before it begins, beside what the field `after` holds

        Returns
        -------
        Job
            handle with ``result()``, ``done()``, ``wait()``, ``exception()``, ``cancel()``, ``stdout()``...

        Raises
        ------
        ReadOnlyError
            in read-only mode, if there is no result
        InfraError
            if there is no such task as `after` names, it has neither a job nor a result, or comes after this one
        ValueError
            if `after` holds what is no task
        """
        self._require_own_method("job")
        self._come_after(after)
        return self._start()

    def _come_after(self, after: collections.abc.Sequence[tp.Any]) -> None:
        """Have more tasks done before; unlike a configuration, this may change once the uid is in use."""
        known = self.after or ()
        new = [one for one in type(self)._as_earlier(after) or () if one not in known]
        if new:
            vars(self)["after"] = (*known, *new)

    def _start(self) -> "Job[tp.Any]":
        if self.folder is not None:
            return self._task.start()
        from .jobs.job import DoneJob

        with self._state.lock:
            if self._state.job is None:
                self._require_strict()
                self._state.job = DoneJob.of(self._method.call)
            return tp.cast("Job[tp.Any]", self._state.job)

    def _has_outcome(self, folder: Path) -> bool:
        from .engine.record import OUTCOMES

        return any(os.path.exists(f"{folder}/{name}") for name in OUTCOMES)

    def status(self) -> Status:
        """What is known of the task, without computing anything.

        Returns
        -------
        str
            "not submitted", "running", "completed" or "failed"
        """
        self._require_own_method("status")
        if self.folder is not None:
            return self._task.status()
        job = self._state.job
        return "not submitted" if job is None else "completed" if job.error is None else "failed"

    def _known_of_results(self) -> list[tuple[str, str]]:
        try:
            return [("status", self.status())]
        except Exception as e:  # as a scheduler that does not answer: a display shows what there is
            return [("status", f"not known: {e}")]

    def clear_job(self) -> None:
        """Cancel the job if it runs, and remove the outcome; other files in the uid folder stay."""
        self._require_own_method("clear_job")
        if self.folder is not None:
            self._task.clear()
        self._state.job, self._ram = None, NOTHING_KEPT

    def jobs(self) -> "list[Job[tp.Any]]":
        """The job of the task, if it has one: nothing is submitted.

        Returns
        -------
        list of Job
            with one job, or none
        """
        self._require_own_method("jobs")
        job = self._state.job if self.folder is None else self._task.known_job("cached")
        return [] if job is None else [job]

    def progress(self) -> "Progress":
        """How far the task is.

        Returns
        -------
        Progress
            counts; a sentence when printed
        """
        from .engine.reports import Progress

        status = self.status()
        waits = status == "running" and any(job.state == "PENDING" for job in self.jobs())
        runs = status == "running" and not waits
        return Progress(1, int(status == "completed"), int(status == "failed"), int(runs), int(waits))

    def cancel(self) -> None:
        """End the job of the task, if it is not done."""
        for job in self.jobs():
            job.cancel()

    def clear(self) -> None:
        """Cancel the job if it runs, and remove the outcome: another name of `clear_job`."""
        self.clear_job()

    @_foreign.only_in_with
    def job_array(
        self,
        max_workers: int = 256,
        allow_empty: bool = False,
        allow_repeated_tasks: bool = False,
        *,
        after: collections.abc.Sequence[tp.Any] = (),
    ) -> tp.Iterator["JobArray"]:
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
            do not complain when two objects are of the same task
        after: list
            what has to be done before any of them begins, beside what their fields `after` hold

        Yields
        ------
        JobArray
            list to which objects of the same class are appended, and then a handle on their tasks: ``status()``,
            ``table()``, ``progress()``, ``jobs()``, ``wait()``, ``cancel()``, ``throttle()``, ``retry()``,
            ``summary()``

        Raises
        ------
        ValueError
            if a task is repeated, or `after` holds what is no task
        InfraError
            if nothing was collected, unless that is allowed; where a task is to come after one that does not exist, has
            neither a job nor a result, or comes after it
        ReadOnlyError
            in read-only mode, if something is to be sent
        """
        from .engine.array import JobArray, Member
        from .engine.tasks import start

        objects = JobArray()
        yield objects
        if not objects and not allow_empty:
            raise InfraError(
                f"nothing was added to the job array of {self._factory()}: append objects, or pass allow_empty=True"
            )
        infras = [self._sibling(obj) for obj in objects]
        unique = {infra.uid(): infra for infra in infras}
        if len(unique) < len(infras) and not allow_repeated_tasks:
            _complain_of_repetition(infras)
        before = type(self)._as_earlier(after) or ()
        for infra in unique.values():
            infra._come_after(before)
        todo: list[Task] = []
        members: list[Member] = []
        for infra in unique.values():
            if infra.folder is None:
                members.append(Member(None, infra._start()))
                continue
            task = infra._task
            members.append(Member(task))
            if task.known_job(self.mode, running=False) is None and task.queued_before() is None:
                if "read-only" in (self.mode, infra.mode):
                    task.refuse_to_compute()
                todo.append(task)
        for task, job in zip(todo, start(todo, self._method, max_workers), strict=True):
            task.job = job
        objects.attach(members, self._method, max_workers)

    def _is_bound(self) -> bool:
        return self._obj is not None

    def _earlier_task(self) -> "Task":
        """The task, for one that comes after it."""
        self._require_own_method("job")
        if self.folder is None:
            raise InfraError(
                f"after holds a {self._factory()} without a folder: nothing of it is kept, so that no other process "
                "can see whether it is done. Set infra.folder"
            )
        return self._task

    def _sibling(self, obj: tp.Any) -> "TaskInfra":
        infra = getattr(obj, self._infra_name, None)
        if not isinstance(infra, TaskInfra):
            raise InfraError(
                f"a job array of {type(self._obj).__qualname__}.{self._infra_name} takes objects "
                f"with such an infra, got {obj!r}"
            )
        return infra._for_array()

    def _for_array(self) -> "TaskInfra":
        self._require_own_method("job_array")
        return self


def _earlier(value: tp.Any) -> "Earlier":
    """What has to be done before a task, as it was given in ``after``."""
    from .engine.earlier import Earlier

    if isinstance(value, Earlier):
        return value
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if not isinstance(text, str) or not text.strip() or ".." in text.split("/") or not text.isprintable():
            raise ValueError(
                f"after holds {value!r}, which is no address of a task: give its uid as infra.uid() tells it, or the "
                "path of its uid folder"
            )
        return Earlier(text)
    if isinstance(value, TaskInfra):
        infras = [value] if value._is_bound() else []
    else:
        from .infra.attribute import infra_attributes

        names = infra_attributes(type(value)) if isinstance(value, pydantic.BaseModel) else ()
        infras = [infra for name in names if isinstance(infra := getattr(value, name), TaskInfra)]
    if len(infras) == 1:
        return Earlier("", infras[0]._earlier_task)
    folder = _folder_of_job(value)
    if folder is not None:
        return Earlier(folder)
    if infras:
        raise ValueError(
            f"after holds a {type(value).__qualname__}, which has {len(infras)} tasks: give the infra of the one that "
            "is meant"
        )
    raise ValueError(
        f"after holds {value!r}, which is no task: give an object with a TaskInfra, its job, or its uid. A MapInfra, a "
        "step or a job of SubmitInfra can't be waited for: call it in the method"
    )


def _folder_of_job(value: tp.Any) -> str | None:
    """The uid folder of the job of a task."""
    from .jobs.job import Job

    folder = getattr(value, "folder", None) if isinstance(value, Job) and hasattr(value, "outcome") else None
    return None if folder is None else str(folder)


def _check_signature(function: tp.Any) -> None:
    import inspect

    from .infra.placing import refuse_descriptor, refuse_generator

    refuse_descriptor("TaskInfra", function)
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 1:
        raise ValueError(
            f"TaskInfra cannot be applied to {function.__module__}.{function.__qualname__}, which takes {parameters}: "
            "a task takes only 'self': make what it depends on fields of the class, or use SubmitInfra (no cache)"
        )
    refuse_generator(function)


def _complain_of_repetition(infras: list[TaskInfra]) -> tp.NoReturn:
    uids = [infra.uid() for infra in infras]
    [(repeated, _)] = collections.Counter(uids).most_common(1)
    configs = "\n\n".join(
        f"* number {n}:\n{infras[n].config(uid=True, exclude_defaults=True).to_yaml()}"
        for n in [n for n, uid in enumerate(uids) if uid == repeated][:2]
    )
    raise ValueError(
        f"the job array holds {repeated} twice:\n\n{configs}\n"
        "Often a field that was meant to vary does not; where intended: job_array(allow_repeated_tasks=True)"
    )


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
