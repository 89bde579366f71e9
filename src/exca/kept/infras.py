"""What the published releases held about infras beside the infras themselves."""

import dataclasses
import typing as tp

import pydantic

from .._log import logger
from .typing import ExcludeCallable, X

if tp.TYPE_CHECKING:
    from ..infra.base import Applied, BaseInfra


class Sentinel:
    """Stands for a value that was not given."""


@dataclasses.dataclass
class BaseInfraMethod:
    """The method an infra is applied to.

    Parameters
    ----------
    method: callable
        the undecorated function
    exclude_from_cache_uid: str, iterable of str, or callable
        fields of the object left out of the uid, for the cache only
    version: str, optional
        version of the method
    infra_name: str, optional
        attribute name of the infra
    """

    method: tp.Callable[..., tp.Any]
    exclude_from_cache_uid: str | tp.Iterable[str] | ExcludeCallable = ()
    version: str | None = None
    infra_name: str | None = None


@dataclasses.dataclass
class InfraMethod(BaseInfraMethod):
    """The method a task or submit infra is applied to; made by `infra._infra_method`."""

    default_infra: "BaseInfra | None" = None

    def check_method_signature(self) -> None:
        """Do nothing: the signature was checked when the infra was applied."""


@dataclasses.dataclass
class MapInfraMethod(InfraMethod):
    """The method a map infra is applied to; made by `infra._infra_method`."""

    item_uid: tp.Any = dataclasses.field(default_factory=Sentinel)
    cache_type: str | None = None
    params: tuple[str, ...] = ()


def described(applied: "Applied", infra_name: str) -> InfraMethod:
    """Describe the method of an infra."""
    exclude = applied.exclude
    if not callable(exclude) and not isinstance(exclude, str):
        exclude = tuple(exclude)
    common: dict[str, tp.Any] = {
        "method": applied.function,
        "exclude_from_cache_uid": exclude,
        "infra_name": infra_name,
    }
    if "item_uid" not in applied.options:
        return InfraMethod(**common)
    return MapInfraMethod(
        **common,
        item_uid=applied.options["item_uid"],
        cache_type=applied.options["cache_type"],
        params=(applied.options["parameter"],),
    )


class CachedMethod:
    """A call of the method of an infra, through its cache.

    Parameters
    ----------
    infra: BaseInfra
        an infra of an object
    """

    def __init__(self, infra: "BaseInfra") -> None:
        self.infra = infra

    def __call__(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        """Call the method."""
        from ..infra.edge import call_method

        return call_method(self.infra, *args, **kwargs)


class LocalJob:
    """A computation in this thread, in the form of a job: it is over when the object is made.

    Parameters
    ----------
    func: callable
        what to call
    *args, **kwargs
        its arguments
    """

    job_id: str = "#local#"

    def __init__(self, func: tp.Callable[..., tp.Any], *args: tp.Any, **kwargs: tp.Any) -> None:
        self._result: tp.Any = None
        self._error: Exception | None = None
        try:
            self._result = func(*args, **kwargs)
        except Exception as e:
            logger.warning("%s failed: %r", getattr(func, "__name__", func), e)
            self._error = e

    def result(self) -> tp.Any:
        """Return what the call returned, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result

    def results(self) -> tuple[tp.Any, ...]:
        """Return the result as a tuple of one."""
        return (self.result(),)

    def exception(self) -> Exception | None:
        """Return the error of the call, if there was one."""
        return self._error

    def done(self) -> bool:
        """Return True: the call is over."""
        return True

    def wait(self) -> None:
        """Return at once: the call is over."""

    def cancel(self) -> None:
        """Do nothing: the call is over."""


def _unchanged(value: X) -> X:
    return value


# infras prepare the classes they are placed on by themselves
model_with_infra_validator_after: tp.Any = pydantic.model_validator(mode="after")(_unchanged)
model_with_infra_validator_before: tp.Any = pydantic.model_validator(mode="before")(_unchanged)
