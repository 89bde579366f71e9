"""Attributes that users expect and that are not there, such as those of joblib and submitit: what to write instead."""

import contextlib
import functools
import types
import typing as tp
from collections.abc import Callable, Iterator

P = tp.ParamSpec("P")
T = tp.TypeVar("T")


def attribute(obj: object, name: str, library: str, known: tp.Mapping[str, str]) -> tp.Any:
    """Raise the error for an attribute that an object does not have, with the remedy for a name of another library.

    Parameters
    ----------
    obj: object
        what was asked
    name: str
        the attribute
    library: str
        the library whose names are known
    known: mapping
        from each name of that library to what to write here

    Raises
    ------
    AttributeError
        in any case; that of a property where the object has one of this name
    """
    try:
        return object.__getattribute__(obj, name)  # a property that failed does so again, with its own error
    except AttributeError as e:
        if name not in known or hasattr(type(obj), name):
            raise
        text = f"{e}, which is a name of {library}: {known[name]}"
        raise AttributeError(text, name=name, obj=obj) from None


class _OnlyInWith(contextlib.AbstractContextManager[T]):
    """The context of a function whose object is there inside `with` alone."""

    def __init__(self, name: str, context: contextlib.AbstractContextManager[T]) -> None:
        self._name = name
        self._context = context

    def __enter__(self) -> T:
        return self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: types.TracebackType | None
    ) -> bool | None:
        return self._context.__exit__(kind, error, where)

    if not tp.TYPE_CHECKING:

        def __getattr__(self, name: str) -> tp.Any:
            raise AttributeError(
                f"{self._name}() submits at the end of a `with` block, and has no {name!r} outside of one: write "
                f"`with x.{self._name}() as array:`, and use {name!r} of array",
                name=name,
                obj=self,
            )


def only_in_with(
    function: Callable[P, Iterator[T]],
) -> Callable[P, contextlib.AbstractContextManager[T]]:
    """Make a context manager of a generator, as contextlib does, whose errors tell to use it by `with`."""
    made = contextlib.contextmanager(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> contextlib.AbstractContextManager[T]:
        return _OnlyInWith(function.__name__, made(*args, **kwargs))

    return call
