"""Helpers around infras: configurations from functions, jobs from their ids, models picked by a name."""

import collections.abc
import functools
import inspect
import sys
import types
import typing as tp
import warnings

import pydantic

from ._earlier import earlier_names
from ._log import logger
from .errors import InfraError
from .identity import DiscriminatedModel
from .identity.fields import members
from .infra.find_job import InfraSlurmJob, find_slurm_job
from .task import TaskInfra

if tp.TYPE_CHECKING:
    from .kept.earlier_uids import update_uids

__all__ = [
    "DiscriminatedModel",
    "FuncConfig",
    "FuncConfigProtocol",
    "FunctionWithInfra",
    "InfraSlurmJob",
    "find_slurm_job",
    "to_config",
    "to_config_model",
    "update_uids",
    "validate_kwargs",
    "with_infra",
]
P = tp.ParamSpec("P")
X = tp.TypeVar("X")
X_co = tp.TypeVar("X_co", covariant=True)
_ABSENT = inspect.Parameter.empty
# compared as they are: a configuration that holds "1" where a number is meant is a mistake worth telling
_PLAIN = (str, int, float, bool)


class FuncConfig(pydantic.BaseModel, tp.Generic[X_co]):
    """The arguments of a function as a configuration; made by :func:`to_config_model`.

    Parameters
    ----------
    infra: TaskInfra
        where the function runs, and where what it returns is kept
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )
    infra: TaskInfra = TaskInfra(version="1")
    _exca_function: tp.ClassVar[tp.Callable[..., tp.Any]]

    if tp.TYPE_CHECKING:  # the fields are those of the function: type checkers cannot know them

        def __init__(self, **kwargs: tp.Any) -> None: ...

    @infra.apply
    def build(self) -> X_co:
        """Call the function with the configured arguments.

        Returns
        -------
        Any
            what the function returns, or what it returned earlier where the infra has a folder
        """
        args, kwargs = self._arguments()
        return tp.cast(X_co, self._exca_function(*args, **kwargs))

    def _arguments(self) -> tuple[list[tp.Any], dict[str, tp.Any]]:
        """What the function is called with."""
        args: list[tp.Any] = []
        kwargs: dict[str, tp.Any] = {}
        for parameter in inspect.signature(self._exca_function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                kwargs.update(self.__pydantic_extra__ or {})
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(self.__dict__[parameter.name])
            else:
                kwargs[parameter.name] = self.__dict__[parameter.name]
        return args, kwargs

    @pydantic.model_validator(mode="after")
    def _check_function(self) -> tp.Self:
        owner = getattr(self._exca_function, "__self__", None)
        if owner is None or isinstance(owner, (type, types.ModuleType)) or self.infra.folder is None:
            return self
        raise ValueError(
            f"{name_of(self._exca_function)} is bound to {owner!r}, which is no part of the configuration, "
            "so that what it returns cannot be cached: remove infra.folder, or make it a function of all it depends on"
        )

    def __reduce__(self) -> tuple[tp.Any, ...]:
        # the class is in no module: it is made again from the function where the pickle is loaded
        return _blank, (reachable(self._exca_function),), self.__getstate__()


FuncConfigProtocol = FuncConfig  # its name in earlier releases


def _blank(function: tp.Any) -> FuncConfig[tp.Any]:
    model = to_config_model(plain(function))
    return model.__new__(model)


def plain(function: tp.Any) -> tp.Any:
    """The function that was decorated, where it was."""
    return function.func if isinstance(function, Decorated) else function


def reachable(function: tp.Any) -> tp.Any:
    """The function, or what took its place in its module, which is what a pickle can name."""
    found: tp.Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    is_there = isinstance(found, Decorated) and found.func is function
    return found if is_there and function.__module__ != "__main__" else function


def to_config_model(func: tp.Callable[..., X], /) -> type[FuncConfig[X]]:
    """Make a pydantic model whose fields are the parameters of a function.

    Parameters
    ----------
    func: callable
        a function, class, class method or static method whose parameters all have types. ``**kwargs: T`` allows
        further fields of type ``T``.

    Returns
    -------
    type of FuncConfig
        a model with these fields and ``infra`` (a TaskInfra); ``build()`` of its instances calls the function. The same
        for the same function.

    Raises
    ------
    ValueError
        if no configuration can be made from the signature
    """
    try:
        hash(func)
    except TypeError:  # a method of an object that has no hash
        return _make_model(func)
    return _cached_model(func)


@functools.lru_cache(maxsize=1024)
def _cached_model(func: tp.Callable[..., tp.Any]) -> type[FuncConfig[tp.Any]]:
    # a model that came here in a pickle, by value, is already the model of the function that came with it
    for model in FuncConfig.__subclasses__():
        if model.__dict__.get("_exca_function") is func:
            return model
    return _make_model(func)


def _make_model(func: tp.Callable[..., tp.Any]) -> type[FuncConfig[tp.Any]]:
    parameters = _parameters_of(func)
    name = f"{func.__name__}_FuncConfig"
    owner = func.__qualname__.rpartition(".")[0]
    if owner and not owner.endswith("<locals>"):  # methods of one name in two classes are different functions
        name = f"{owner.rpartition('<locals>.')[2]}.{name}"
    namespace: dict[str, tp.Any] = {"__module__": func.__module__, "__qualname__": name}
    annotations: dict[str, tp.Any] = {"_exca_function": tp.ClassVar[tp.Any]}
    for parameter in parameters:
        _add_field(parameter, namespace, annotations)
    namespace |= {"__annotations__": annotations, "_exca_function": staticmethod(func)}
    return tp.cast(type[FuncConfig[tp.Any]], new_model(FuncConfig, namespace))


def new_model(base: type[pydantic.BaseModel], namespace: dict[str, tp.Any]) -> type:
    """Make a model class, whose name is that in its namespace."""
    name = namespace["__qualname__"].rpartition(".")[2]
    with warnings.catch_warnings():
        # parameters may be called as deprecated methods of pydantic are: copy, json, schema...
        warnings.filterwarnings("ignore", r"Field name .* shadows an attribute", UserWarning)
        return types.new_class(name, (base,), {}, lambda body: body.update(namespace))


def _add_field(
    parameter: inspect.Parameter, namespace: dict[str, tp.Any], annotations: dict[str, tp.Any]
) -> None:
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        annotations["__pydantic_extra__"] = dict[str, parameter.annotation]  # type: ignore[name-defined] # known at run time only
        namespace["model_config"] = pydantic.ConfigDict(extra="allow")
        return
    annotation = parameter.annotation
    if any(tp.get_origin(member) is collections.abc.Iterable for member in members(annotation)):
        annotation = tp.Annotated[annotation, pydantic.WrapValidator(_validated)]
    annotations[parameter.name] = annotation
    if parameter.default is not _ABSENT:
        namespace[parameter.name] = pydantic.Field(default=parameter.default)


def _validated(value: tp.Any, handler: tp.Callable[[tp.Any], tp.Any]) -> tp.Any:
    return gone_through(handler(value), value)


def gone_through(value: tp.Any, given: tp.Any) -> tp.Any:
    """What was validated, as a list where pydantic would only validate it item by item (``Iterable[int]``)."""
    is_lazy = isinstance(value, collections.abc.Iterator) and not isinstance(given, collections.abc.Iterator)
    return list(value) if is_lazy else value


@tp.overload
def to_config(
    func: tp.Callable[..., X], /, *args: tp.Any, infra: TaskInfra | dict[str, tp.Any], **kwargs: tp.Any
) -> FuncConfig[X]: ...
@tp.overload
def to_config(func: tp.Callable[P, X], /, *args: P.args, **kwargs: P.kwargs) -> FuncConfig[X]: ...
def to_config(func: tp.Callable[..., tp.Any], /, *args: tp.Any, **kwargs: tp.Any) -> FuncConfig[tp.Any]:
    """Make a validated configuration of a call of a function.

    Parameters
    ----------
    func: callable
        as for :func:`to_config_model`
    *args, **kwargs
        arguments of the function, and ``infra``

    Returns
    -------
    FuncConfig
        configuration whose ``build()`` calls the function

    Raises
    ------
    ValueError
        if no configuration can be made from the signature, or (pydantic.ValidationError) an argument does not fit
    """
    return to_config_model(func)(**_by_name(func, args, kwargs))


def _by_name(
    func: tp.Callable[..., tp.Any], args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]
) -> dict[str, tp.Any]:
    if not args:
        return kwargs
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(func).parameters.values() if p.kind in positional]
    if len(args) > len(names):
        raise TypeError(f"{name_of(func)} takes {len(names)} positional argument(s), got {len(args)}")
    twice = [name for name, _ in zip(names, args, strict=False) if name in kwargs]
    if twice:
        raise TypeError(f"{name_of(func)} got two values for {', '.join(map(repr, twice))}")
    return {**dict(zip(names, args, strict=False)), **kwargs}


class Decorated:
    """What takes the place of a function, which is its ``func``; it pickles by its name where that leads to it."""

    func: tp.Callable[..., tp.Any]

    def __reduce_ex__(self, protocol: tp.SupportsIndex) -> str | tuple[tp.Any, ...]:
        if reachable(self.func) is self:
            return str(self.func.__qualname__)
        # not through the constructor: the function may refer to us, and is then not whole yet
        return super().__reduce_ex__(protocol)


class FunctionWithInfra(Decorated, tp.Generic[P, X]):
    """A function that runs through an infra; made by :class:`with_infra`.

    Parameters
    ----------
    func: callable
        the function
    infra: TaskInfra or dict
        its infra
    """

    def __init__(self, func: tp.Callable[P, X], infra: TaskInfra | dict[str, tp.Any]) -> None:
        _check_parameters(func)
        self.func: tp.Callable[P, X] = func
        self.infra = infra
        functools.update_wrapper(self, func, updated=())

    def config(self, *args: P.args, **kwargs: P.kwargs) -> FuncConfig[X]:
        """Make the configuration of a call, with the infra: to look at its uid, its job, or to run arrays.

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
        InfraError
            if there is no infra
        """
        if "infra" in kwargs:
            raise InfraError(
                f"{name_of(self.func)} has its infra from with_infra: use exca.helpers.to_config for another one"
            )
        infra = self.infra if isinstance(self.infra, TaskInfra) else dict(self.infra)
        return to_config(self.func, infra=infra, **_by_name(self.func, args, kwargs))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> X:
        """Run the function through the infra, or return what it returned for these arguments earlier."""
        return self.config(*args, **kwargs).build()

    def __repr__(self) -> str:
        return f"with_infra({self.infra!r})({self.func!r})"


class with_infra:  # noqa: N801 # a decorator
    """Decorate a function so that it runs, and is cached, through an infra.

    Parameters
    ----------
    **kwargs
        fields of the TaskInfra (``folder``, ``cluster``, ``timeout_min``...). Its ``version`` is "1" unless given.

    Raises
    ------
    pydantic.ValidationError
        if a field is unknown or mistyped
    ValueError
        if no configuration can be made from the signature of the function

    Example
    -------
    >>> @with_infra(folder="cache", cluster="slurm")
    ... def train(layers: int, rate: float = 1e-3) -> float: ...
    """

    def __init__(self, **kwargs: tp.Any) -> None:
        infra = TaskInfra(**kwargs)
        if infra.folder is None and infra.cluster is None:
            logger.warning(
                "with_infra changes nothing: without a folder nothing is cached, "
                "and with cluster=None nothing runs elsewhere"
            )
        self.infra = kwargs

    def __call__(self, func: tp.Callable[P, X], /) -> FunctionWithInfra[P, X]:
        """Decorate the function."""
        return FunctionWithInfra(func, self.infra)

    def __repr__(self) -> str:
        return f"with_infra({self.infra!r})"


# ---------------------------------------------------------------- signatures


def name_of(func: tp.Callable[..., tp.Any]) -> str:
    """Module and name of a function, for messages."""
    return f"{func.__module__}.{getattr(func, '__qualname__', repr(func))}"


def _parameters_of(func: tp.Callable[..., tp.Any]) -> list[inspect.Parameter]:
    """The parameters from which a configuration can be made, in order; raises a ValueError where it cannot."""
    _check_parameters(func)
    hints = hints_of(func)
    found = []
    for parameter in inspect.signature(func).parameters.values():
        annotation = hints.get(parameter.name, parameter.annotation)
        if parameter.default is None:
            annotation = tp.Optional[annotation]  # noqa: UP045 # the annotation may be a string or anything
        found.append(parameter.replace(annotation=annotation))
    return found


def _check_parameters(func: tp.Callable[..., tp.Any]) -> None:
    """Raise a ValueError for names and kinds of parameters that cannot be configured; types are not looked at."""
    name = getattr(func, "__name__", "<lambda>")
    if name == "<lambda>":
        raise ValueError(f"Cannot make a configuration for {func!r}, which has no name: write it as a def.")
    for parameter in inspect.signature(func).parameters.values():
        problem = _problem(parameter)
        if problem:
            raise ValueError(f"Cannot make a configuration for {name_of(func)}: {problem}.")


def _problem(parameter: inspect.Parameter) -> str | None:
    name = parameter.name
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return f"*{name} has no names to configure: take a list instead"
    if parameter.annotation is _ABSENT:
        return f"parameter {name!r} is missing a precise type: annotate it"
    return field_problem(name)


def field_problem(name: str) -> str | None:
    """Why a parameter of a function can't be a field of its configuration under its own name, if it can't."""
    if name in ("infra", "build"):
        return f"the configuration has {name!r} itself: rename the parameter"
    if name.startswith(("_", "model_")) and (name.startswith("_") or hasattr(pydantic.BaseModel, name)):
        return f"pydantic does not allow a field named {name!r}: rename the parameter"
    return None


def hints_of(func: tp.Callable[..., tp.Any]) -> dict[str, tp.Any]:
    """The types of the parameters of a function or class; a ValueError where one cannot be found."""
    source: tp.Any = func
    if isinstance(func, type):
        source = inspect.getattr_static(func, "__init__")
        if source is object.__init__:
            source = func.__new__
    try:
        return tp.get_type_hints(source, include_extras=True)
    except NameError as error:
        raise ValueError(
            f"Cannot make a configuration for {name_of(func)}: its type {error.name!r} cannot be found; "
            "define or import it at the top of the module."
        ) from error
    except TypeError:  # a callable that carries no annotations of its own, such as a pydantic model
        return {}


def validate_kwargs(func: tp.Callable[..., tp.Any], kwargs: tp.Mapping[str, tp.Any]) -> None:
    """Check arguments against a signature, without calling the function.

    Parameters
    ----------
    func: callable
        a function or a class; what has no type is not checked
    kwargs: mapping of str to Any
        the arguments, by name; None stands for any value but a number, a truth value or a text

    Raises
    ------
    ValueError
        if an argument is missing, or one is given that the function does not have
    TypeError
        if an argument is of another type
    """
    parameters = inspect.signature(func).parameters
    by_name = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    missing = [n for n, p in by_name.items() if p.default is _ABSENT and n not in kwargs]
    if missing:
        raise ValueError(f"Missing parameter(s) for {name_of(func)}: {', '.join(map(repr, missing))}.")
    others = [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    extra = [n for n in kwargs if n not in by_name]
    if extra and not others:
        raise ValueError(
            f"Extra parameter(s) for {name_of(func)}: {', '.join(map(repr, extra))} "
            f"(available: {', '.join(map(repr, by_name)) or 'none'})."
        )
    hints = hints_of(func)
    for name, value in kwargs.items():
        parameter = by_name[name] if name in by_name else others[0]
        if parameter.default is not _ABSENT and value is parameter.default:
            continue
        if value is None and hints.get(parameter.name) not in _PLAIN:
            continue  # stands for what is only known at the call, such as the parameters of an optimizer
        if parameter.name in hints and not _fits(value, hints[parameter.name]):
            raise TypeError(
                f"Wrong type {type(value).__qualname__} for {name!r} of {name_of(func)}: "
                f"expected {_shown(hints[parameter.name])}, got {value!r}."
            )


def _fits(value: tp.Any, annotation: tp.Any) -> bool:
    if annotation in _PLAIN:
        return isinstance(value, annotation) or (annotation is float and type(value) is int)
    if type(value) is annotation:
        return True
    try:
        adapter_of(annotation).validate_python(value)
    except pydantic.ValidationError:
        return False
    except pydantic.PydanticUserError:  # a type that pydantic cannot check, such as a forward reference
        return True
    return True


def adapter_of(annotation: tp.Any) -> pydantic.TypeAdapter[tp.Any]:
    """What validates values of any type that a function's parameter may have."""
    try:
        return pydantic.TypeAdapter(annotation)
    except pydantic.PydanticSchemaGenerationError:  # others bring a configuration of their own
        return pydantic.TypeAdapter(annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True))


def _shown(annotation: tp.Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
