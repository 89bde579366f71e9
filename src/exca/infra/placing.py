"""What is refused when a class with infras is made."""

import collections.abc
import functools
import inspect
import typing as tp

from .. import settings
from ..errors import InfraError
from ..identity.fields import MAPPING_ORIGINS, SEQUENCE_ORIGINS, members

_CONTAINERS: tp.Final = SEQUENCE_ORIGINS | MAPPING_ORIGINS


def refuse_coroutine(infra: object, function: tp.Any) -> None:
    """Refuse an ``async def``."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        settings.complain(
            "async-method",
            InfraError(
                f"{type(infra).__name__} cannot be applied to {_named(function)}, which is an async def: what it "
                "returns is a coroutine, not a result. Make it a plain method, which may call "
                "asyncio.run(...) on what it awaits."
            ),
            _class_of(function),
        )


def refuse_descriptor(kind: str, method: tp.Any) -> None:
    """Refuse to apply an infra to what another decorator made of a method: a property, or a class method."""
    if isinstance(method, classmethod):
        function: tp.Any = method.__func__
        remedy = "a class method has no object whose fields identify its results: make it a method"
    elif isinstance(method, (property, functools.cached_property)):
        function = method.fget if isinstance(method, property) else method.func
        remedy = "write @property above @infra.apply, not below, or make it a method"
        if isinstance(method, functools.cached_property):
            remedy = (
                "leave @functools.cached_property out: keep_in_ram=True of the infra keeps results in memory"
            )
    else:
        return
    raise TypeError(
        f"{kind} cannot be applied to {function.__module__}.{function.__qualname__}, which is a "
        f"{type(method).__name__}: {remedy}"
    )


def refuse_generator(function: tp.Any) -> None:
    """Refuse a method that yields, for a task."""
    if inspect.isgeneratorfunction(function):
        settings.complain(
            "generator-method",
            InfraError(
                f"TaskInfra cannot be applied to {_named(function)}, which yields: what it returns is a generator, "
                "which can be gone through once and cannot be kept. Return a list, or use MapInfra for one result "
                "per item."
            ),
            _class_of(function),
        )


def refuse_other_kind(owner: tp.Any, name: str, infra: object, kind: type) -> None:
    """Refuse a default that is no infra of the class that its field or attribute is annotated with."""
    if name in owner.__pydantic_fields__:
        annotation = owner.__pydantic_fields__[name].annotation
    else:
        try:
            annotation = tp.get_type_hints(owner).get(name)
        except Exception:  # names that are not defined (yet): the annotation says nothing
            return
    kinds = tuple(m for m in members(annotation) if isinstance(m, type) and issubclass(m, kind))
    if kinds and not isinstance(infra, kinds):
        expected = " | ".join(k.__name__ for k in kinds)
        settings.complain(
            "infra-kind",
            InfraError(
                f"{name!r} of {owner.__module__}.{owner.__qualname__} is annotated with {expected}, and its default "
                f"is a {type(infra).__name__}: write `{name}: {type(infra).__name__}`, or give it another default."
            ),
            owner,
        )


def refuse_containers(owner: tp.Any, kind: type) -> None:
    """Refuse fields with infras in a list, tuple, set or dict."""
    for name, field in owner.__pydantic_fields__.items():
        if _has_inside(field.annotation, kind) or _is_container_of(field.default, kind):
            settings.complain(
                "infra-in-container",
                InfraError(
                    f"{name!r} of {owner.__module__}.{owner.__qualname__} holds infras in a list, tuple, set or dict, "
                    "where they belong to no object and no method: make each an attribute of its own, such as "
                    f"`{name}_0: {kind.__name__} = ...`."
                ),
                owner,
            )


def _has_inside(annotation: tp.Any, kind: type) -> bool:
    containers = [member for member in members(annotation) if tp.get_origin(member) in _CONTAINERS]
    inside = [inner for member in containers for arg in tp.get_args(member) for inner in members(arg)]
    return any((isinstance(m, type) and issubclass(m, kind)) or _has_inside(m, kind) for m in inside)


def _is_container_of(value: tp.Any, kind: type) -> bool:
    if isinstance(value, collections.abc.Mapping):
        value = list(value.values())
    if not isinstance(value, (list, tuple, set, frozenset)):
        return False
    return any(isinstance(item, kind) or _is_container_of(item, kind) for item in value)


def _named(function: tp.Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _class_of(function: tp.Any) -> str:
    """Name of the class that is being made, from that of a method in its body."""
    return _named(function).rpartition(".")[0]
