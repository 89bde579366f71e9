"""The results of many values, as `run_many` returns them."""

import typing as tp
from collections.abc import Iterable, Iterator, Sequence

from ..errors import BatchProtocolError  # kept for dependants: where the published release has it
from . import addresses, run
from .pipeline import pipeline_of

if tp.TYPE_CHECKING:
    from .base import Step
    from .scheduler import Background

__all__ = ["BatchProtocolError", "StepItems"]


class _Source:
    """The values of a caller, each taken once; an error on the way is raised again, not taken for the end."""

    def __init__(self, values: Iterator[tp.Any]) -> None:
        self._values = values
        self._error: Exception | None = None

    def next(self) -> tp.Any:
        if self._error is not None:
            raise self._error
        try:
            return next(self._values)
        except StopIteration:
            raise
        except Exception as error:
            self._error = error
            raise


class _Link:
    """A place between two values, which holds the later one once that was taken.

    Several may go along the same links; values that all of them have passed are let go.
    """

    __slots__ = ("following", "value")

    def __init__(self) -> None:
        self.value: tp.Any = None
        self.following: _Link | None = None

    @staticmethod
    def walk(link: "_Link", source: _Source) -> Iterator[tp.Any]:
        """Yield the values behind a link, taken from the source where they have not been taken yet."""
        while True:
            following = link.following
            if following is None:
                try:
                    link.value = source.next()
                except StopIteration:
                    return
                following = link.following = _Link()
            yield link.value
            link = following


class StepItems(Iterable[tp.Any]):
    """The results of a step for many values, in their order; made by `run_many`.

    It can be gone through any number of times. With an infra, results are read from the cache one at a time. Without
    any, each is computed when it is asked for, and again each time.

    Parameters
    ----------
    step: Step
        the step or chain
    values: iterable
        the values; of an iterator, no more are taken than are asked for, and none is kept longer than this object

    Examples
    --------
    >>> results = Mul(coeff=3).run_many([1, 2, 1])
    >>> len(results), list(results), list(results)
    (3, [3, 6, 3], [3, 6, 3])
    """

    def __init__(self, step: "Step", values: Iterable[tp.Any]) -> None:
        self._step = step
        self._pipeline = pipeline_of(step)
        self._pipeline.judge_again()
        self._keys: list[str] | None = None
        self._kept: list[tp.Any] | None = None  # the values, where results are
        self._background: Background | None = None
        if self._pipeline.stages:
            self._kept = list(values)
            self._keys = addresses.keys_of(step, self._kept)
            self._background = run.compute(step, self._pipeline, self._keys, self._kept)
        else:
            given = iter(list(values) if isinstance(values, list) else values)
            self._source = _Source(given)
            self._first = _Link()

    def __iter__(self) -> Iterator[tp.Any]:
        if self._keys is not None and self._kept is not None:
            return run.results(self._pipeline, self._keys, self._kept, self._background)
        return run.without_cache(self._step, self._pipeline, self._from_start())

    def __len__(self) -> int:
        return len(self._values())

    @property
    def uids(self) -> list[str]:
        """The key of each value, under which `lookup` and the cache know its result."""
        if self._keys is None:
            return addresses.keys_of(self._step, self._values())
        return list(self._keys)

    def select(self, uids: Iterable[str]) -> "StepItems":
        """Return the results of some of the values.

        Parameters
        ----------
        uids: iterable of str
            keys of the values, in the order that is wanted

        Raises
        ------
        KeyError
            if there is no value with such a key
        """
        values = dict(zip(self.uids, self._values(), strict=True))
        return StepItems(self._step, [values[uid] for uid in uids])

    def read(self, uids: Iterable[str]) -> Iterator[tp.Any]:
        """Return an iterator over the results of some of the values.

        Parameters
        ----------
        uids: iterable of str
            keys of the values, in the order that is wanted
        """
        return iter(self.select(uids))

    def _from_start(self) -> Iterator[tp.Any]:
        return _Link.walk(self._first, self._source)

    def _values(self) -> Sequence[tp.Any]:
        return list(self._from_start()) if self._kept is None else self._kept

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return StepItems, (self._step, list(self._values()))


def run_many(step: "Step", values: Iterable[tp.Any]) -> StepItems:
    """Return the results for many values; see ``Step.run_many``."""
    if not run.first_of(pipeline_of(step)).takes_input():
        raise TypeError(
            f"{type(step).__name__} takes no input, so there are no values to run it on: call run()"
        )
    return StepItems(step, values)
