"""`cached`: a function whose calls run, and are kept, as tasks."""

import collections.abc
import copy
import functools
import typing as tp
from pathlib import Path

from .. import _foreign
from ..engine.array import ArrayHandle
from ..errors import InfraError
from ..helpers import FuncConfig, name_of, plain, reachable, to_config_model
from ..task import TaskInfra
from .content import CALLED
from .decorated import OF_JOBLIB, Function, checked_fields
from .fields import TaskFields
from .signature import UNCHECKABLE, Options, Signature, Unannotated, check_function

if tp.TYPE_CHECKING:
    from ..explaining import Why
    from ..jobs.job import Job

P = tp.ParamSpec("P")
X = tp.TypeVar("X")
X_co = tp.TypeVar("X_co", covariant=True)

# ---------------------------------------------------------------- the configuration of a call


class Call(FuncConfig[X_co]):
    """The arguments of one call of a `cached` function, which has the address that `with_infra` gives it."""

    _exca_signature: tp.ClassVar[Signature]

    def _arguments(self) -> tuple[list[tp.Any], dict[str, tp.Any]]:
        return self._exca_signature.arguments(self)

    def __reduce__(self) -> tuple[tp.Any, ...]:
        signature = self._exca_signature
        return _blank, (reachable(signature.func), signature.options), self.__getstate__()


class FunctionInfra(TaskInfra):
    """The infra of a function that `with_infra` does not take: its address is the name of the function."""

    def _factory(self) -> str:
        cls = type(self._bound[0])
        return f"{cls.__module__}.{cls.__qualname__},{self.version}"


class NamedCall(Call[X_co]):
    """The same for a function that `with_infra` does not take, such as one with parameters without a type."""

    infra: FunctionInfra = FunctionInfra(version="1")  # pyright: ignore[reportIncompatibleVariableOverride] # never set to another through the base

    @infra.apply
    def build(self) -> X_co:
        """Call the function with the arguments, or return what it returned earlier."""
        args, kwargs = self._arguments()
        return tp.cast(X_co, self._exca_function(*args, **kwargs))


def _blank(function: tp.Any, options: Options) -> Call[tp.Any]:
    model = _model_of(plain(function), options)
    return model.__new__(model)


@functools.lru_cache(maxsize=1024)
def _model_of(func: tp.Callable[..., tp.Any], options: Options) -> type[Call[tp.Any]]:
    signature = Signature(func, options)
    base: type[Call[tp.Any]] = Call
    try:
        name = to_config_model(func).__qualname__
    except (ValueError, *UNCHECKABLE):
        base, name = NamedCall, signature.name
    return tp.cast(type[Call[tp.Any]], signature.model(name, base))


# ---------------------------------------------------------------- the function


class CachedFunction(Function, tp.Generic[P, X]):
    """A function whose calls run, and are kept, as its infra says; made by :class:`cached`.

    Parameters
    ----------
    func: callable
        the function
    infra: dict
        fields of its TaskInfra
    options: Options
        what the decorator says of its parameters

    Attributes
    ----------
    func: callable
        the plain function: neither cached nor checked
    """

    _of_joblib: tp.ClassVar[tp.Mapping[str, str]] = {
        **OF_JOBLIB,
        "check_call_in_cache": "write bool(f.why(...)), which is true where a result is cached",
        "call_and_shelve": "write f.submit(...), whose result() returns the result",
        "clear": "write f.infra_of(...).clear() for one call, and this loop for all: "
        "for call in f.iter_cached(): call.infra.clear()",
    }

    def __init__(self, func: tp.Callable[P, X], infra: dict[str, tp.Any], options: Options) -> None:
        super().__init__(func, infra, options)
        self.func: tp.Callable[P, X] = func
        self._made: tuple[type[Call[X]], Signature, TaskInfra] | None = None
        self._kept: dict[str, Call[X]] | None = None  # by uid, where results are kept in memory

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> X:
        """Run the function through its infra, or return what it returned for these arguments earlier."""
        call = self.config(*args, **kwargs)
        if self._kept is None:
            return call.build()
        uid = call.infra.uid()
        call = self._kept.setdefault(uid, call)
        try:
            return call.build()
        except BaseException:
            self._kept.pop(uid, None)
            raise

    def config(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[X]:
        """Make the configuration of a call: its arguments, validated, and the infra.

        Parameters
        ----------
        *args, **kwargs
            arguments of the function

        Returns
        -------
        FuncConfig
            configuration whose ``build()`` runs the call

        Raises
        ------
        TypeError
            where the function could not be called like this, or (ContentError) nothing identifies an argument
        pydantic.ValidationError
            where an argument is missing, or of another type
        """
        model, signature, infra = self._made or self._make()
        fields = signature.by_field(args, kwargs)
        fields["infra"] = copy.copy(infra)
        return model.model_validate(fields, context=CALLED)

    def infra_of(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskInfra:
        """The infra of a call: ``status()``, ``uid_folder()``, ``job()``, ``clear_job()``... Nothing is computed.

        Parameters
        ----------
        *args, **kwargs
            arguments of the function

        Returns
        -------
        TaskInfra
            infra bound to the configuration of the call
        """
        return self.config(*args, **kwargs).infra

    def why(self, /, *args: P.args, **kwargs: P.kwargs) -> "Why":
        """Tell whether a call would be answered from the cache, and why: `exca.why`. Nothing is computed.

        Parameters
        ----------
        *args, **kwargs
            arguments of the function

        Returns
        -------
        Why
            true if it is a hit
        """
        from ..explaining import why

        return why(self.infra_of(*args, **kwargs))

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> "Job[X]":
        """Submit a call, if it neither has a result nor runs, and return at once.

        Parameters
        ----------
        *args, **kwargs
            arguments of the function

        Returns
        -------
        Job
            handle with ``result()``, ``done()``, ``wait()``, ``exception()``, ``cancel()``, ``stdout()``...
        """
        return self.infra_of(*args, **kwargs).job()

    @_foreign.only_in_with
    def job_array(
        self, max_workers: int = 256, allow_empty: bool = False, allow_repeated_tasks: bool = False
    ) -> tp.Iterator["Calls[P, X]"]:
        """Collect calls and submit, on leaving the context, those without a result as one job array.

        Parameters
        ----------
        max_workers: int
            how many jobs may run at once
        allow_empty: bool
            do not complain when nothing was collected
        allow_repeated_tasks: bool
            do not complain when two calls have the same arguments

        Yields
        ------
        Calls
            to which calls are added: ``calls.append(*args, **kwargs)``; then a handle on them: ``status()``,
            ``table()``, ``progress()``, ``wait()``, ``cancel()``, ``throttle()``, ``retry()``, ``summary()``

        Raises
        ------
        InfraError
            if nothing was added, unless that is allowed
        """
        calls = Calls(self)
        yield calls
        if not calls and not allow_empty:
            raise InfraError(
                f"nothing was added to the job array of {name_of(self.func)}: call append(...), or pass "
                "allow_empty=True"
            )
        if calls:
            with calls[0].infra.job_array(max_workers, allow_empty, allow_repeated_tasks) as objects:
                objects.extend(calls)
            calls.follow(objects)

    def iter_cached(self) -> tp.Iterator[Call[X]]:
        """Go through the configurations of all calls that have an outcome in the cache of this function.

        An argument of which the cache has only a digest (an array, say) shows as that: ``build()`` of such a
        configuration returns its result, and cannot compute it anew.

        Returns
        -------
        iterator of FuncConfig
            configurations whose ``build()`` returns what was kept
        """
        model, _, infra = self._made or self._make()
        return model.model_construct(infra=copy.copy(infra)).infra.iter_cached()

    def using(
        self, *, folder: Path | str | None = None, **fields: tp.Unpack[TaskFields]
    ) -> "CachedFunction[P, X]":
        """The same function with other fields of the infra: ``train.using(cluster="slurm", mem_gb=32)(3)``.

        Parameters
        ----------
        folder: Path or str, optional
            another folder
        **fields
            other fields of the TaskInfra

        Returns
        -------
        CachedFunction
            a function that finds the same results, unless folder or version differ
        """
        infra = checked_fields("cached", folder, {**self.infra, **fields}, TaskInfra)
        return CachedFunction(self.func, infra, self.options)

    def _make(self) -> tuple[type[Call[X]], Signature, TaskInfra]:
        """Make the model at the first call, when the types that annotations name are all defined."""
        model = tp.cast(type[Call[X]], _model_of(self.func, self.options))
        infra = tp.cast(TaskInfra, tp.cast(tp.Any, model.model_fields["infra"].annotation)(**self.infra))
        if infra.keep_in_ram:
            self._kept = {}
        self._made = model, model._exca_signature, infra
        return self._made


class Calls(collections.abc.Sequence[Call[X]], ArrayHandle, tp.Generic[P, X]):
    """Calls of one function that are submitted together, and then a handle on them; see `CachedFunction.job_array`."""

    def __init__(self, function: CachedFunction[P, X]) -> None:
        self._function = function
        self._calls: list[Call[X]] = []

    def append(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add a call.

        Parameters
        ----------
        *args, **kwargs
            arguments of the function
        """
        self._calls.append(self._function.config(*args, **kwargs))

    def jobs(self) -> list["Job[X]"]:
        """The jobs of all calls, in order.

        Returns
        -------
        list of Job
            handles, once the calls are submitted
        """
        return [call.infra.job() for call in self._calls]

    def results(self) -> list[X]:
        """Wait for all calls.

        Returns
        -------
        list
            what they returned, in order; the first error is raised
        """
        return [call.build() for call in self._calls]

    @tp.overload
    def __getitem__(self, index: int) -> Call[X]: ...
    @tp.overload
    def __getitem__(self, index: slice) -> list[Call[X]]: ...
    def __getitem__(self, index: int | slice) -> Call[X] | list[Call[X]]:
        return self._calls[index]

    def __len__(self) -> int:
        return len(self._calls)


# ---------------------------------------------------------------- the decorator


# attributes of joblib.Memory, and what to write here
_OF_MEMORY = {
    "clear": "each function has its own results: for call in f.iter_cached(): call.infra.clear()",
    "eval": "write cache(f)(...)",
    "reduce_size": "write exca gc -C FOLDER --unread 90d on the command line",
    "location": "write .infra['folder']",
    "store_backend": "write .infra['folder']",
}


class cached:  # noqa: N801 # a decorator
    """Decorate a function so that what it returns is kept by its arguments, and computed where the infra says.

    Parameters
    ----------
    folder: Path or str, optional
        where results are kept
    ignore: iterable of str
        parameters that do not count: calls that differ only in them share a result
    unannotated: str
        "refuse" (each parameter that counts needs a type), or "hash" (arguments of parameters without one are
        identified by what they hold)
    **fields
        fields of the TaskInfra (``version``, ``cluster``, ``timeout_min``...). ``version`` is "1" unless given.

    Raises
    ------
    pydantic.ValidationError
        if a field is unknown or mistyped
    TypeError, ValueError
        when a function is decorated that cannot be: a method, an async function, a generator...

    Example
    -------
    >>> @exca.cached(folder="cache", cluster="slurm")
    ... def train(layers: int, rate: float = 1e-3) -> float: ...
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        ignore: tp.Iterable[str] = (),
        unannotated: Unannotated = "refuse",
        **fields: tp.Unpack[TaskFields],
    ) -> None:
        self.infra: dict[str, tp.Any] = checked_fields("cached", folder, dict(fields), TaskInfra)
        self.options: Options = Options.of(ignore, unannotated)

    def __call__(self, func: tp.Callable[P, X], /) -> CachedFunction[P, X]:
        """Decorate a function."""
        if isinstance(func, staticmethod):
            func = func.__func__
        check_function(func, self.options, "exca.cached")
        return CachedFunction(func, dict(self.infra), self.options)

    @tp.overload
    def cache(self, func: tp.Callable[P, X], /) -> CachedFunction[P, X]: ...
    @tp.overload
    def cache(
        self,
        func: None = None,
        /,
        *,
        folder: Path | str | None = None,
        ignore: tp.Iterable[str] = (),
        unannotated: Unannotated | None = None,
        **fields: tp.Unpack[TaskFields],
    ) -> "cached": ...
    def cache(
        self,
        func: tp.Any = None,
        /,
        *,
        folder: Path | str | None = None,
        ignore: tp.Iterable[str] = (),
        unannotated: Unannotated | None = None,
        **fields: tp.Any,
    ) -> tp.Any:
        """Decorate a function, or make a decorator with some options changed; as ``joblib.Memory.cache``.

        Parameters
        ----------
        func: callable, optional
            the function
        folder, ignore, unannotated, **fields
            as for :class:`cached`

        Returns
        -------
        CachedFunction or cached
            the decorated function, or a decorator
        """
        infra: dict[str, tp.Any] = {**self.infra, **fields}
        if folder is not None:
            infra["folder"] = folder
        options = self.options
        changed = cached(
            **infra, ignore=ignore or options.ignore, unannotated=unannotated or options.unannotated
        )
        return changed if func is None else changed(func)

    if not tp.TYPE_CHECKING:  # type checkers refuse unknown attributes

        def __getattr__(self, name: str) -> tp.Any:
            return _foreign.attribute(self, name, "joblib", _OF_MEMORY)

    def __repr__(self) -> str:
        return f"cached(**{self.infra!r})"
