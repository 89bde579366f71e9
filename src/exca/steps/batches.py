"""Running the steps of a pipeline over a batch of values, one result per value."""

import typing as tp
from collections.abc import Callable, Iterator, Sequence

from ..errors import BatchProtocolError

if tp.TYPE_CHECKING:
    from ..claims.chain import Batch
    from .pipeline import PlacedStep

_END: tp.Final = object()
_NOTE: tp.Final = "Raised by "


class _Taken(Iterator[tp.Any]):
    """Values on their way into a step, counted."""

    def __init__(self, values: Iterator[tp.Any]) -> None:
        self.values = values
        self.count = 0

    def __next__(self) -> tp.Any:
        value = next(self.values)
        self.count += 1
        return value


class Keyed(Iterator[tp.Any]):
    """Values on their way into a pipeline, with the keys that error messages name.

    Parameters
    ----------
    batch: Batch
        the keys
    fetch: callable
        gives the value of a key
    """

    def __init__(self, batch: "Batch", fetch: Callable[[str], tp.Any]) -> None:
        self._batch = batch
        self._numbers = batch.hand_out()
        self._fetch = fetch
        self.keys: list[str] = []  # those handed out, one per value
        self.broken = False  # whether a value could not be had: no fault of the steps that wanted it

    def __next__(self) -> tp.Any:
        key = self._batch.keys[next(self._numbers)]
        try:
            value = self._fetch(key)
        except Exception:
            self.broken = True
            raise
        self.keys.append(key)
        return value


def composed(
    placed_steps: "Sequence[PlacedStep]", keys: Sequence[str], values: Iterator[tp.Any]
) -> Iterator[tp.Any]:
    """Run steps one after the other, each item going through all of them where they do not collect batches.

    Parameters
    ----------
    placed_steps: sequence of PlacedStep
        the steps
    keys: sequence of str
        keys of the items; each is there once its value is
    values: iterator
        the items

    Returns
    -------
    iterator
        one result per value, computed when it is asked for

    Raises
    ------
    BatchProtocolError
        if a step yields too few or too many results
    """
    for placed in placed_steps:
        values = _batch(placed, keys, values)
    return values


def _batch(placed: "PlacedStep", keys: Sequence[str], values: Iterator[tp.Any]) -> Iterator[tp.Any]:
    step = placed.step
    taken = _Taken(values)
    done = 0
    try:
        for result in step._exca_run_placed(placed, keys, taken):
            if done >= taken.count:
                raise BatchProtocolError(
                    f"the batch of {describe(step)} yielded more results than it took values ({taken.count}): it must "
                    "yield exactly one result per value, in order"
                )
            yield result
            done += 1
        if done < taken.count or next(taken, _END) is not _END:
            raise BatchProtocolError(
                f"the batch of {describe(step)} yielded {done} result(s) and took at least {taken.count} value(s): "
                "it must yield exactly one result per value, in order"
            )
    except Exception as error:
        if not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{_NOTE}{describe(step)}.")
        raise


def describe(step: tp.Any) -> str:
    """Return a step as code, with the fields that differ from the defaults."""
    fields = type(step).__pydantic_fields__
    given = {k: v for k, v in step.__dict__.items() if k not in fields or v != fields[k].default}
    given.pop("infra", None)
    text = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"{type(step).__name__}({text if len(text) < 200 else text[:200] + '...'})"
