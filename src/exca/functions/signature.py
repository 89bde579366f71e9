"""From the signature of a function to the fields of a configuration, and back to its arguments."""

import copy
import dataclasses
import inspect
import types
import typing as tp

import pydantic
import pydantic_core

from ..helpers import Decorated, adapter_of, field_problem, hints_of, name_of, new_model
from .content import Content, ContentValidator, given, is_data, may_be_content

_ABSENT: tp.Final = inspect.Parameter.empty
_POSITIONAL: tp.Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# what pydantic raises for a type that it cannot check
UNCHECKABLE: tp.Final = (pydantic.PydanticUserError, pydantic_core.SchemaError)
Unannotated = tp.Literal["refuse", "hash"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the decorator says of the parameters of a function: see `cached`."""

    ignore: tuple[str, ...] = ()
    unannotated: Unannotated = "refuse"

    @classmethod
    def of(cls, ignore: tp.Iterable[str], unannotated: Unannotated) -> "Options":
        """Check what was given to a decorator."""
        names = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        if isinstance(ignore, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"ignore={ignore!r} names no parameters: give a list, as ignore=['verbose']")
        if unannotated not in tp.get_args(Unannotated):
            raise ValueError(f"unannotated={unannotated!r} is neither 'refuse' nor 'hash'")
        return cls(names, unannotated)


# ---------------------------------------------------------------- what cannot be decorated


def check_function(func: tp.Any, options: Options, decorator: str, of_items: bool = False) -> None:
    """Raise a TypeError or ValueError for what cannot be decorated; types are looked at when it is first called."""
    problem = _kind_problem(func)
    if problem:
        raise TypeError(f"@{decorator} cannot decorate {_name(func)}: {problem}.")
    try:
        parameters = inspect.signature(func).parameters
    except (ValueError, TypeError):  # of a builtin function that does not tell
        raise ValueError(
            f"@{decorator} cannot decorate {_name(func)}, whose parameters are not known: write a def that calls it."
        ) from None
    problem = _method_problem(func, parameters) or _parameter_problem(func, parameters, options)
    if of_items:
        problem = problem or _item_problem(next(iter(parameters.values()), None), options)
    if problem:
        raise ValueError(f"@{decorator} cannot decorate {_name(func)}: {problem}.")


def _name(func: tp.Any) -> str:
    return name_of(func) if hasattr(func, "__module__") else repr(func)


def _kind_problem(func: tp.Any) -> str | None:
    if isinstance(func, Decorated):
        return "it is decorated already, so decorate the plain function (.func)"
    if isinstance(func, classmethod | property):
        return f"a {type(func).__name__} depends on more than its arguments: {_METHODS}"
    if isinstance(func, type):
        return "it is a class: decorate a function that returns an object, or use exca.helpers.to_config"
    if not callable(func):
        return "it is no function"
    inner = inspect.unwrap(func)
    if inspect.iscoroutinefunction(inner):
        return "an async function returns a coroutine, which cannot be kept: write a plain def, and await .submit(...)"
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        return "a generator cannot be kept: return a list, or decorate a function of one item with @exca.map_cached"
    owner = getattr(func, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return f"it is bound to {owner!r:.80}, which is none of its arguments: {_METHODS}"
    if getattr(func, "__name__", "<lambda>") == "<lambda>" or not hasattr(func, "__qualname__"):
        return "it has no name under which to keep what it returns: write it as a def"
    return None


_METHODS = (
    "for methods, make the class a pydantic model with an infra (exca.TaskInfra) and decorate the method with "
    "@infra.apply, or decorate a function outside of the class that takes all that it depends on"
)


def _method_problem(func: tp.Any, parameters: tp.Mapping[str, inspect.Parameter]) -> str | None:
    owner = func.__qualname__.rpartition(".")[0]
    first = next(iter(parameters), "")
    if owner and not owner.endswith("<locals>") and first in ("self", "cls"):
        return f"it is a method, which depends on its object: {_METHODS}; a static method needs no {first!r}"
    return None


def _parameter_problem(
    func: tp.Any, parameters: tp.Mapping[str, inspect.Parameter], options: Options
) -> str | None:
    closed = dict(_closed_over(func))
    named = {name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    unknown = [name for name in options.ignore if name not in named and name not in closed]
    if unknown:
        known = ", ".join(repr(name) for name in parameters if name in named)
        return f"ignore names {', '.join(map(repr, unknown))}, but its parameters are {known or 'none'}"
    for name, value in closed.items():
        if name not in options.ignore:
            return (
                f"it uses {name!r} of the function around it ({value!r:.60}), which is none of its arguments, so that "
                f"results would be mixed up: make it a parameter, or name it in ignore if it changes no result"
            )
    if options.unannotated == "refuse":
        missing = [n for n, p in parameters.items() if p.annotation is _ABSENT and n not in options.ignore]
        if missing:
            return (
                f"parameter {missing[0]!r} has no type: annotate it, or write unannotated='hash' to have arguments "
                "without a type identified by what they hold"
            )
    return None


def _item_problem(parameter: inspect.Parameter | None, options: Options) -> str | None:
    if parameter is None or parameter.kind not in _POSITIONAL:
        return "its first parameter has to be the item, given by its place"
    if parameter.name in options.ignore:
        return f"ignore names {parameter.name!r}, which is the item that each result belongs to"
    return None


def _closed_over(func: tp.Any) -> tp.Iterator[tuple[str, tp.Any]]:
    """The data that a nested function takes from the function around it."""
    code, closure = getattr(func, "__code__", None), getattr(func, "__closure__", None) or ()
    for name, cell in zip(code.co_freevars if code is not None else (), closure, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not set yet, such as the function itself
            continue
        if not isinstance(value, types.ModuleType | type | Decorated) and not inspect.isroutine(value):
            yield name, value


# ---------------------------------------------------------------- the fields of a function


def _hints(func: tp.Any, options: Options) -> dict[str, tp.Any]:
    """The types of parameters; one that cannot be found is none where that is allowed."""
    try:
        return hints_of(func)
    except ValueError as error:
        found: dict[str, tp.Any] = {}
        for name, annotation in inspect.get_annotations(inspect.unwrap(func)).items():
            alone = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                found |= tp.get_type_hints(alone, getattr(func, "__globals__", {}), include_extras=True)
            except NameError:
                if name != "return" and name not in options.ignore and options.unannotated == "refuse":
                    raise error from None
                found[name] = _ABSENT
        return found


class Signature:
    """The parameters of a function as fields of a model.

    Parameters
    ----------
    func: the function
    options: what the decorator says of them
    of_items: whether the first parameter is no field, but an item
    """

    def __init__(self, func: tp.Callable[..., tp.Any], options: Options, of_items: bool = False) -> None:
        self.func = func
        self.options = options
        self.annotations: dict[str, tp.Any] = {}
        self.namespace: dict[str, tp.Any] = {}
        self._hints = _hints(func, options)
        self._fields: dict[str, str] = {}  # by parameter
        self.parameters: list[inspect.Parameter] = list(inspect.signature(func).parameters.values())
        self.item: tuple[tp.Any, tp.Any, str] | None = None  # its types, and its name for messages
        if of_items:
            item = self.parameters.pop(0)
            self.item = self._hints.get(item.name), self._annotated(item)[0], self.where(item.name)
        self._rest = self._open = ""
        for parameter in self.parameters:
            self._add(parameter)
        self._positional = [self._fields[p.name] for p in self.parameters if p.kind in _POSITIONAL]
        self._by_keyword = {
            p.name: self._fields[p.name]
            for p in self.parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        ignored = tuple(self._fields[name] for name in options.ignore if name in self._fields)
        if ignored:
            self.namespace["_exclude_from_cls_uid"] = ignored
            self.annotations["_exclude_from_cls_uid"] = tp.ClassVar[tp.Any]

    def _add(self, parameter: inspect.Parameter) -> None:
        name = parameter.name
        annotation, validator = self._annotated(parameter)
        if parameter.kind is parameter.VAR_KEYWORD:
            self._open = name
            self.annotations["__pydantic_extra__"] = dict[str, annotation]  # type: ignore[valid-type] # known at run time only
            self.namespace["model_config"] = pydantic.ConfigDict(extra="allow")
            return
        field = self._fields[name] = self._field_name(name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            self._rest = field
            self.annotations[field] = tuple[annotation, ...]  # type: ignore[valid-type] # known at run time only
            self.namespace[field] = pydantic.Field(default=())
            return
        self.annotations[field] = annotation
        if parameter.default is not _ABSENT:
            default = parameter.default
            if validator is not None:
                default = validator.default = validator.keep(default)
            self.namespace[field] = pydantic.Field(default=default)

    def _annotated(self, parameter: inspect.Parameter) -> tuple[tp.Any, ContentValidator | None]:
        """The annotation of a field, and what keeps its values where a configuration may be unable to."""
        name = parameter.name
        annotation = self._hints.get(name, parameter.annotation)
        strict = annotation is _ABSENT
        if strict:
            annotation = tp.Any
        elif parameter.default is None:
            annotation = tp.Optional[annotation]  # noqa: UP045 # the annotation may be a string or anything
        counts = name not in self.options.ignore
        if not may_be_content(annotation):
            return annotation, None
        validator = ContentValidator(self.where(name), strict=strict and counts, counts=counts)
        return tp.Annotated[annotation, pydantic.WrapValidator(validator)], validator

    def _field_name(self, name: str) -> str:
        field = name
        if field_problem(field):
            field = f"{name.strip('_').removeprefix('model_') or 'field'}_"
        while field in self.annotations or field_problem(field):
            field += "_"
        return field

    @property
    def name(self) -> str:
        """The name of the function, below its module."""
        return self.func.__qualname__.rpartition("<locals>.")[2]

    def where(self, name: str) -> str:
        """An argument, for messages."""
        return f"argument {name!r} of {name_of(self.func)}"

    def model(self, name: str, base: type[pydantic.BaseModel], **namespace: tp.Any) -> tp.Any:
        """Make a model with the fields."""
        body = {
            "__module__": self.func.__module__,
            "__qualname__": name,
            "__doc__": self.func.__doc__,
            "__annotations__": {
                **self.annotations,
                "_exca_function": tp.ClassVar[tp.Any],
                "_exca_signature": tp.ClassVar[tp.Any],
            },
            **self.namespace,
            "_exca_function": staticmethod(self.func),
            "_exca_signature": self,
            **namespace,
        }
        try:
            return new_model(base, body)
        except UNCHECKABLE as error:
            raise self._unknown_type() or error from error

    def _unknown_type(self) -> ValueError | None:
        """The error for a type that pydantic cannot check, such as a protocol that is not checked at run time."""
        for name, field in self._fields.items():
            annotation = self.annotations[field]
            try:
                adapter_of(annotation)
            except UNCHECKABLE as error:
                kind = self._hints.get(name, annotation)
                lines = str(error).strip().splitlines()
                reason = lines[-1] if isinstance(error, pydantic_core.SchemaError) else lines[0]
                return ValueError(
                    f"the type of {self.where(name)}, {kind!r}, cannot be checked: {reason.strip()}. Write another "
                    "type, or typing.Any"
                )
        return None

    # ------------------------------------------------------------ from arguments to fields and back

    def by_field(self, args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]) -> dict[str, tp.Any]:
        """Arguments of a call by field; a TypeError where the function could not be called like this."""
        names = self._positional
        fields = dict(zip(names, args, strict=False))
        if len(args) > len(names):
            if not self._rest:
                raise TypeError(
                    f"{name_of(self.func)}() takes {len(names)} positional argument(s), but {len(args)} were given"
                )
            fields[self._rest] = args[len(names) :]
        for name, value in kwargs.items():
            field = self._by_keyword.get(name) or self._extra(name)
            if field in fields:
                raise TypeError(f"{name_of(self.func)}() got two values for argument {name!r}")
            fields[field] = value
        return fields

    def _extra(self, name: str) -> str:
        if not self._open:
            raise TypeError(
                f"{name_of(self.func)}() got an unexpected keyword argument {name!r}: its parameters are "
                f"{', '.join(p.name for p in self.parameters) or 'none'}"
            )
        if name == "infra" or name in self.annotations:
            raise TypeError(
                f"{name_of(self.func)}() cannot take a further argument named {name!r}, which its configuration has "
                "itself: rename it"
            )
        return name

    def arguments(self, obj: pydantic.BaseModel) -> tuple[list[tp.Any], dict[str, tp.Any]]:
        """What the function is called with."""
        args: list[tp.Any] = []
        kwargs: dict[str, tp.Any] = {}
        for parameter in self.parameters:
            name, where = parameter.name, self.where(parameter.name)
            if parameter.kind is parameter.VAR_KEYWORD:
                kwargs.update({k: given(v, where) for k, v in (obj.__pydantic_extra__ or {}).items()})
                continue
            value = obj.__dict__[self._fields[name]]
            if type(value) is Content and self._fields[name] not in obj.__pydantic_fields_set__:
                # the very default, which may be compared by `is`; but nothing that is done to an array may stay
                value = copy.deepcopy(parameter.default) if is_data(parameter.default) else parameter.default
            value = given(value, where)
            if parameter.kind is parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return args, kwargs
