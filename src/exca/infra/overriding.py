"""What becomes of a method with an infra that a child class overrides without one."""

import typing as tp
import weakref

from .._callers import warn
from .._log import logger
from ..errors import InfraError, UncachedOverrideWarning
from ..identity.alike import own_names

if tp.TYPE_CHECKING:
    from .attribute import InfraAttribute
    from .base import Applied

_lent: "weakref.WeakKeyDictionary[type, dict[str, bool]]" = weakref.WeakKeyDictionary()


def overriding_class(cls: type, applied: "Applied", attributes: "dict[str, InfraAttribute]") -> type | None:
    """The class that overrides the method of an infra by one without, for objects of a class; None where none does."""
    for base in cls.__mro__:
        method = vars(base).get(applied.name)
        if method is None:
            continue
        function = method.__func__ if isinstance(method, staticmethod) else method
        if function is applied.wrapper:
            return None
        others = (attribute.default._applied for attribute in attributes.values())
        return None if any(other is not None and other.wrapper is function for other in others) else base
    return None


def warn_of_plain(cls: type, attributes: "dict[str, InfraAttribute]") -> None:
    """Warn of all methods with an infra that a class, or a parent of it, overrides without: once per class."""
    for name, attribute in attributes.items():
        applied = attribute.default._applied
        by = None if applied is None else overriding_class(cls, applied, attributes)
        if applied is not None and by is not None:
            warn(
                f"{_named(cls)} overrides {_described(by, name, attribute, applied)} without an infra: it is called as "
                f"a plain method, never cached and always here. {_advice(name, attribute, applied)}",
                UncachedOverrideWarning,
            )


def of_another_method(asked: str, by: type, name: str, attribute: "InfraAttribute") -> InfraError:
    """The error for a question to an infra about a method that overrides the one that the infra is applied to."""
    applied = tp.cast("Applied", attribute.default._applied)
    does = (
        "remove the result of another method" if asked == "clear_job" else "speak of another method's result"
    )
    return InfraError(
        f"{name}.{asked}() is about {attribute.owner.__qualname__}.{applied.name}, and {_named(by)} overrides that "
        f"without an infra, so that it would {does}. {_advice(name, attribute, applied)}"
    )


def _named(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _described(by: type, name: str, attribute: "InfraAttribute", applied: "Applied") -> str:
    own = f"{attribute.owner.__qualname__}.{applied.name}"
    return f"{own} (by {by.__qualname__}.{applied.name})"


def _advice(name: str, attribute: "InfraAttribute", applied: "Applied") -> str:
    kind = type(attribute.default).__name__
    decorator = f"@{name}.apply" + ("(item_uid=...)" if kind == "MapInfra" else "")
    return (
        f"To cache it, write `{name}: {kind} = {kind}(...)` into the class and `{decorator}` above {applied.name!r}; "
        "or override a method that the cached one calls."
    )


def is_lent(cls: type, owner: type, applied: "Applied") -> bool:
    """Whether what the overridden method of a parent returns for objects of a class is the parent's result.

    It is unless the class overrides something that the method uses.
    """
    known = _lent.setdefault(cls, {})
    if applied.token not in known:
        known[applied.token] = _is_lent(cls, owner, applied)
        if not known[applied.token]:
            logger.warning(
                "%s overrides what %s.%s uses, so that what super().%s() returns for its objects is computed each time "
                "and not kept: it would be another result under the address of the parent's. Give the class an infra "
                "of its own",
                *(_named(cls), owner.__qualname__, applied.name, applied.name),
            )
    return known[applied.token]


def _is_lent(cls: type, owner: type, applied: "Applied") -> bool:
    overridden = {
        name
        for base in cls.__mro__
        if base not in owner.__mro__
        for name in own_names(base)
        if name != applied.name and (name.startswith(("model_", "__")) or _has(owner, name))
    }
    validators = any(_adds_validators(base) for base in cls.__mro__ if base not in owner.__mro__)
    if not overridden and not validators:
        return True
    from ..codedigest import digest_of

    try:
        one, other = digest_of(owner, applied.function), digest_of(cls, applied.function)
        # what is found only when it runs may be among what is overridden
        return one.digest == other.digest and one.content.is_told() and other.content.is_told()
    except Exception as error:  # whatever goes wrong there, the result is not known to be the parent's
        logger.debug("What %s.%s uses cannot be told: %r", _named(owner), applied.name, error)
        return False


def _has(cls: type, name: str) -> bool:
    return any(name in vars(base) for base in cls.__mro__) or name in getattr(
        cls, "__private_attributes__", ()
    )


def _adds_validators(cls: type) -> bool:
    decorators = vars(cls).get("__pydantic_decorators__")
    if decorators is None:
        return False
    names = {*decorators.field_validators, *decorators.model_validators, *decorators.validators}
    return any(name in vars(cls) and not name.startswith("_exca_") for name in names)
