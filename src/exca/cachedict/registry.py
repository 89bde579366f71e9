"""Which handler stores a value, and which one loads what was stored under a name."""

import dataclasses
import enum
import pathlib
import typing as tp

from .._earlier import earlier_names
from .._log import logger
from ..errors import HandlerError, UnknownHandlerError

HANDLERS: dict[str, type] = {}  # by the name under "#type"
TYPE_DEFAULTS: dict[type, type] = {}  # registered by users
_exact: dict[type, str] = {}  # built-in types, for which a subclass is something else
_by_name: dict[str, str] = {}  # "module.Class" of packages that must not be imported for this
_resolved: dict[type, tuple[str, type]] = {}
OWN: set[type] = set()  # users' classes whose values carry ``__dump_info__`` as a method
_reported: set[type] = set()
fallback: type | None = None  # stores what no handler is registered for


def add_builtin(
    handler: type, name: str = "", *, exact: tp.Iterable[type] = (), by_name: tp.Iterable[str] = ()
) -> None:
    """Register a handler of ours, under a name, for exactly the given types and for classes named "module.Class"."""
    name = name or handler.__name__
    HANDLERS[name] = handler
    _exact.update(dict.fromkeys(exact, name))
    _by_name.update(dict.fromkeys(by_name, name))


def add(handler: type, default_for: type | None) -> None:
    """Register a user's handler. Raises HandlerError for what is none, ValueError when the name is taken."""
    if not isinstance(handler, type):
        raise HandlerError(f"@DumpContext.register decorates a class, not {handler!r}")
    for method in ("__dump_info__", "__load_from_info__"):
        if not hasattr(handler, method):
            raise HandlerError(f"@DumpContext.register requires {method} on {handler.__name__}")
    if default_for is not None:
        for method in ("__dump_info__", "__load_from_info__"):
            if not _is_classmethod(handler, method):
                raise HandlerError(
                    f"@DumpContext.register(default_for=...) requires {method} of {handler.__name__} to be a "
                    "classmethod: it is called on the class, with a value of another one"
                )
    name = handler.__name__
    known = HANDLERS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (
        handler.__module__,
        handler.__qualname__,
    ):
        raise ValueError(
            f"Name collision: a handler {name!r} of module {known.__module__} is already registered; rename this class"
        )
    HANDLERS[name] = handler
    if default_for is not None:
        TYPE_DEFAULTS[default_for] = handler
    elif not _is_classmethod(handler, "__dump_info__"):
        OWN.add(handler)
    _resolved.clear()


def _is_classmethod(class_: type, name: str) -> bool:
    for base in class_.__mro__:
        if name in vars(base):
            return isinstance(vars(base)[name], classmethod | staticmethod)
    return False


def for_name(name: str) -> tp.Any:
    """The handler registered under a name. Raises UnknownHandlerError."""
    handler = HANDLERS.get(name)
    if handler is None:
        handler = next(
            (class_ for own in OWN for class_ in _descendants(own) if class_.__name__ == name), None
        )
    if handler is None:
        raise UnknownHandlerError(
            f"No handler {name!r} is registered: import the module that registers it with "
            f"@DumpContext.register (known: {', '.join(sorted(HANDLERS))})"
        )
    return handler


def _descendants(class_: type) -> tp.Iterator[type]:
    yield class_
    children: list[type] = type.__subclasses__(class_)
    for child in children:
        yield from _descendants(child)


def for_type(type_: type) -> tuple[str, type]:
    """Name and class of the handler that stores values of a type, by default."""
    found = _resolved.get(type_)
    if found is None:
        found = _resolved[type_] = _resolve(type_)
    return found


def _resolve(type_: type) -> tuple[str, type]:
    for base in type_.__mro__:
        if base in OWN:
            return type_.__name__, base
        if base in TYPE_DEFAULTS:
            return TYPE_DEFAULTS[base].__name__, TYPE_DEFAULTS[base]
    name = _exact.get(type_) or _name_by_class(type_) or _name_by_kind(type_)
    return (name, HANDLERS[name]) if name else ("Pickle", fallback or HANDLERS["Pickle"])


def _name_by_class(type_: type) -> str | None:
    for base in type_.__mro__:
        name = _by_name.get(f"{base.__module__}.{base.__qualname__}")
        if name is not None:
            # an array's or a frame's subclass may carry more than its data
            return name if base is type_ or not _strict(base) else None
    return None


def _strict(base: type) -> bool:
    return base.__module__.partition(".")[0] in ("numpy", "torch", "pandas")


def _name_by_kind(type_: type) -> str | None:
    if issubclass(type_, enum.Enum):
        return "py.enum"
    if issubclass(type_, pathlib.PurePath):
        return "py.path"
    if any(f"{base.__module__}.{base.__qualname__}" == "numpy.generic" for base in type_.__mro__):
        return "py.numpy_scalar"
    if "<locals>" in type_.__qualname__ or "__reduce__" in vars(type_) or "__reduce_ex__" in vars(type_):
        return None
    if issubclass(type_, tuple):
        return "py.named_tuple" if type_.__mro__[1:] == tuple.__mro__ and hasattr(type_, "_fields") else None
    if dataclasses.is_dataclass(type_):
        return None if type_.__mro__[-2] in (dict, list, set, str, int, float, bytes) else "py.dataclass"
    if hasattr(type_, "__pydantic_fields__") and hasattr(type_, "model_construct"):
        return "py.model"
    return None


def report_pickled(type_: type) -> None:
    """Report once per type that its values are pickled."""
    if type_ not in _reported:
        _reported.add(type_)
        logger.warning(
            "Values of type %s.%s are stored as pickles (no handler is registered for it): they load only while "
            "their code can be imported. Register a handler with @DumpContext.register(default_for=...) for a lasting "
            "format.",
            type_.__module__,
            type_.__qualname__,
        )


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
