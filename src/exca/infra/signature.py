"""What the signature of a function says about the configuration it can be called from."""

import inspect
import typing as tp

import pydantic

_NO_ANNOTATION = inspect.Parameter.empty
# compared as they are: a configuration that holds "1" where a number is meant is a mistake worth telling
_PLAIN = (str, int, float, bool)


class Parameter(tp.NamedTuple):
    """A parameter of a function: its name, its type, and its default (``...`` without one)."""

    name: str
    annotation: tp.Any
    default: tp.Any
    kind: tp.Any


def name_of(func: tp.Callable[..., tp.Any]) -> str:
    """Name of a function for people, with its module."""
    return f"{func.__module__}.{getattr(func, '__qualname__', repr(func))}"


def parameters_of(func: tp.Callable[..., tp.Any]) -> list[Parameter]:
    """Read the parameters from which a configuration can be made.

    Parameters
    ----------
    func: callable
        a function or a class; each parameter must have a type

    Returns
    -------
    list of Parameter
        in the order of the signature; ``**kwargs`` comes last, of kind ``VAR_KEYWORD``

    Raises
    ------
    ValueError
        if no configuration can be made from the signature: a parameter without type, ``*args``, a parameter whose
        name is taken, a type that cannot be resolved, a function without a name
    """
    check_parameters(func)
    hints = _hints(func)
    found = []
    for parameter in inspect.signature(func).parameters.values():
        default = ... if parameter.default is _NO_ANNOTATION else parameter.default
        annotation = hints.get(parameter.name, parameter.annotation)
        if default is None:
            annotation = tp.Optional[annotation]  # noqa: UP045 # the annotation may be a string or anything
        found.append(Parameter(parameter.name, annotation, default, parameter.kind))
    return found


def check_parameters(func: tp.Callable[..., tp.Any]) -> None:
    """Check the names and kinds of the parameters, without looking at their types.

    Raises
    ------
    ValueError
        as :func:`parameters_of`, but for types that cannot be resolved
    """
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
    if parameter.annotation is _NO_ANNOTATION:
        return f"parameter {name!r} is missing a precise type: annotate it"
    if name in ("infra", "build"):
        return f"the configuration has {name!r} itself: rename the parameter"
    if name.startswith(("_", "model_")) and (name.startswith("_") or hasattr(pydantic.BaseModel, name)):
        return f"pydantic does not allow a field named {name!r}: rename the parameter"
    return None


def _hints(func: tp.Callable[..., tp.Any]) -> dict[str, tp.Any]:
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
    missing = [n for n, p in by_name.items() if p.default is _NO_ANNOTATION and n not in kwargs]
    if missing:
        raise ValueError(f"Missing parameter(s) for {name_of(func)}: {', '.join(map(repr, missing))}.")
    others = [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    extra = [n for n in kwargs if n not in by_name]
    if extra and not others:
        raise ValueError(
            f"Extra parameter(s) for {name_of(func)}: {', '.join(map(repr, extra))} "
            f"(available: {', '.join(map(repr, by_name)) or 'none'})."
        )
    hints = _hints(func)
    for name, value in kwargs.items():
        parameter = by_name[name] if name in by_name else others[0]
        if parameter.default is not _NO_ANNOTATION and value is parameter.default:
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
        adapter = pydantic.TypeAdapter(annotation, config=_config_for(annotation))
    except pydantic.PydanticUserError:  # a type that pydantic cannot check, such as a forward reference
        return True
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _config_for(annotation: tp.Any) -> pydantic.ConfigDict | None:
    # models, dataclasses and typed dicts bring their own
    try:
        pydantic.TypeAdapter(annotation)
    except pydantic.PydanticSchemaGenerationError:
        return pydantic.ConfigDict(arbitrary_types_allowed=True)
    except pydantic.PydanticUserError:
        return None
    return None


def _shown(annotation: tp.Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
