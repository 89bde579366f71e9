"""What is worked out once a class, kept on the class itself so that it dies with it."""

import typing as tp

import pydantic

from ..errors import BareModelError

_ATTRIBUTE: tp.Final = "_exca_plans"


class _Plans(dict[str, tp.Any]):
    """Stays behind, empty, when its class is pickled by value: every process works out its own."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _Plans, ()


class HasClass(tp.Protocol):
    """What can be kept: it knows its class, and the serializer that the class had."""

    cls: type[pydantic.BaseModel]
    serializer: tp.Any


def kept(obj: pydantic.BaseModel, name: str) -> tp.Any:
    """Returns what is kept under a name for the class of an object; None if the class was rebuilt since."""
    try:
        # asked of the object, since attributes of model classes are slow; it may answer with those of a parent
        plan = obj._exca_plans[name]  # type: ignore[attr-defined] # set below, on the class
    except (AttributeError, KeyError, TypeError):  # the last where a user's __getattr__ answers to any name
        return None
    return plan if plan.cls is type(obj) and plan.serializer is obj.__pydantic_serializer__ else None


def refuse_bare(obj: pydantic.BaseModel) -> None:
    """Raises a BareModelError for an object of ``pydantic.BaseModel`` itself, which lacks what its children have."""
    if type(obj) is pydantic.BaseModel:
        error = BareModelError(
            "A plain pydantic.BaseModel has no fields, so what it was given is lost. Annotate the field that holds it "
            "with the class that is meant, or with a discriminated union of several."
        )
        error.culprit = obj
        raise error


def keep(plan: HasClass, name: str) -> None:
    """Keeps something under a name for its class."""
    plans = plan.cls.__dict__.get(_ATTRIBUTE)
    if plans is None:
        plans = _Plans()
        type.__setattr__(plan.cls, _ATTRIBUTE, plans)
    plans[name] = plan
