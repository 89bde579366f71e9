"""The way of a call: from a value, or many, to results."""

import itertools
import typing as tp
from collections.abc import Iterable, Iterator, Sequence

from . import addresses, conveyor
from .addresses import NO_INPUT
from .batches import composed
from .compiled import CACHED, FORCE, Pipeline, pipeline_of

if tp.TYPE_CHECKING:
    from .base import Step

_LOOKUP = 8192  # items looked up together


def run(step: "Step", value: tp.Any) -> tp.Any:
    """Return the result for one value; see ``Step.run``."""
    pipeline = step._exca_state.pipeline
    if pipeline is None:
        pipeline = pipeline_of(step)
    check_input(step, pipeline, value)
    if not pipeline.stages:
        return next(_without_cache(step, pipeline, [value]))
    key = addresses.key_of(step, value)
    last = pipeline.stages[-1]
    if last.level == CACHED:
        get = last.shelf.results.__getitem__
        if not pipeline.tail:
            step._exca_state.hot, step._exca_state.namer = get, step._exca_namer()
        try:
            result = get(key)
        except KeyError:
            pass
        else:
            return result if not pipeline.tail else next(composed(pipeline.tail, [key], iter([result])))
    return next(_with_cache(step, pipeline, [key], [value]))


def run_many(step: "Step", values: Iterable[tp.Any]) -> Iterator[tp.Any]:
    """Return the results for many values; see ``Step.run_many``."""
    pipeline = pipeline_of(step)
    if not first_of(pipeline).takes_input():
        raise TypeError(
            f"{type(step).__name__} takes no input, so there are no values to run it on: call run()"
        )
    if not pipeline.stages:
        return _without_cache(step, pipeline, values)
    values = list(values)
    return _with_cache(step, pipeline, addresses.keys_of(step, values), values)


def first_of(pipeline: Pipeline) -> "Step":
    """Return the first step that computes."""
    return pipeline.path.steps[0]


def check_input(step: "Step", pipeline: Pipeline, value: tp.Any) -> None:
    """Raise a TypeError where a value is missing or too much."""
    first = first_of(pipeline)
    if value is NO_INPUT:
        if first.needs_input():
            raise TypeError(
                f"{type(step).__name__} needs a value: call run(value); its first step is {type(first).__name__}"
            )
    elif not first.takes_input():
        raise TypeError(
            f"{type(step).__name__} takes no input, but was given {value!r}: call run(); its first step is "
            f"{type(first).__name__}"
        )


def _without_cache(step: "Step", pipeline: Pipeline, values: Iterable[tp.Any]) -> Iterator[tp.Any]:
    """Compute each result when it is asked for."""
    if not any(leaf.step._exca_placed for leaf in pipeline.tail):
        return composed(pipeline.tail, (), iter(values))
    given, named = itertools.tee(values)  # goes on at the same pace for both
    return composed(pipeline.tail, _Keys(step, named), iter(given))


class _Keys(Sequence[str]):
    """The keys of values, made when a step asks for them: most never do."""

    def __init__(self, step: "Step", values: Iterator[tp.Any]) -> None:
        self._step = step
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return (addresses.key_of(self._step, value) for value in self._values)

    def __len__(self) -> int:
        raise TypeError("the number of values is not known before they are run")

    def __getitem__(self, index: tp.Any) -> tp.Any:
        raise TypeError("keys of values that are not kept are only gone through")


def _with_cache(step: "Step", pipeline: Pipeline, keys: list[str], values: list[tp.Any]) -> Iterator[tp.Any]:
    """Compute what is missing, and return an iterator over the results."""
    prepare(step._exca_state, pipeline, keys)
    last = pipeline.stages[-1].shelf
    wanted: dict[str, tp.Any] = {}
    for start in range(0, len(keys), _LOOKUP):
        part = keys[start : start + _LOOKUP]
        absent = set(last.results.missing(part))
        if absent:
            chunk = zip(part, values[start : start + _LOOKUP], strict=True)
            wanted.update((key, value) for key, value in chunk if key in absent)
    background = None
    if wanted:
        background = conveyor.start_stages(pipeline, list(wanted), wanted.__getitem__)
    results = _read(pipeline, keys, values, background)
    return composed(pipeline.tail, keys, results) if pipeline.tail else results


class Remembers(tp.Protocol):
    """What knows which items were forced already."""

    forced: set[str]


def prepare(memory: Remembers, pipeline: Pipeline, keys: Sequence[str]) -> None:
    """Remove what is to be computed again.

    Parameters
    ----------
    memory: StepState or Leaf
        remembers what was forced already: an object does so once
    pipeline: Pipeline
        the resolved form
    keys: sequence of str
        the items
    """
    forced = memory.forced
    fresh: list[str] | None = None
    for stage in pipeline.all_stages():
        if stage.level == CACHED:
            continue
        if fresh is None:
            fresh = [key for key in dict.fromkeys(keys) if key not in forced]
        if stage.level == FORCE:
            stage.shelf.drop_for_force(fresh)
        else:
            stage.shelf.forgive(keys)
    if fresh:
        forced.update(fresh)


def _read(
    pipeline: Pipeline, keys: list[str], values: list[tp.Any], background: "conveyor.Background | None"
) -> Iterator[tp.Any]:
    """Yield results one at a time; those found damaged only now are computed again."""
    results = pipeline.stages[-1].shelf.results
    if background is not None:
        for key in keys:
            background.wait_for(key)
            yield results[key]
        return
    start = 0
    while start < len(keys):
        try:
            for result in results.iter_values(itertools.islice(keys, start, None)):
                start += 1
                yield result
        except KeyError:
            conveyor.run_stages(pipeline, [keys[start]], lambda _: values[start])  # noqa: B023  # called right here
