"""The way of a call: from a value, or many, to results."""

import itertools
import typing as tp
from collections.abc import Iterable, Iterator, Sequence

from . import addresses, work
from .addresses import NO_INPUT
from .batches import composed
from .pipeline import CACHED, FORCE, Pipeline, pipeline_of

if tp.TYPE_CHECKING:
    from .base import Step
    from .scheduler import Background

_LOOKUP = 8192  # items looked up together


def run(step: "Step", value: tp.Any) -> tp.Any:
    """Return the result for one value; see ``Step.run``."""
    pipeline = step._exca_state.pipeline
    if pipeline is None:
        pipeline = pipeline_of(step)
    check_input(step, pipeline, value)
    if not pipeline.stages:
        return next(without_cache(step, pipeline, [value]))
    key = addresses.key_of(step, value)
    last = pipeline.stages[-1]
    if last.level == CACHED:
        get = last.store.results.__getitem__
        if not pipeline.uncached:
            step._exca_state.hit, step._exca_state.namer = get, step._exca_namer()
        try:
            result = get(key)
        except KeyError:
            pass
        else:
            return (
                result if not pipeline.uncached else next(composed(pipeline.uncached, [key], iter([result])))
            )
    background = compute(step, pipeline, [key], [value])
    return next(results(pipeline, [key], [value], background))


def first_of(pipeline: Pipeline) -> "Step":
    """Return the first step that computes."""
    return pipeline.lineage.steps[0]


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


def without_cache(step: "Step", pipeline: Pipeline, values: Iterable[tp.Any]) -> Iterator[tp.Any]:
    """Compute each result when it is asked for.

    Parameters: `step` with its `pipeline`, which has no stage; `values` the items.
    """
    if not any(placed.step._exca_placed for placed in pipeline.uncached):
        return composed(pipeline.uncached, (), iter(values))
    given, named = itertools.tee(values)  # goes on at the same pace for both
    return composed(pipeline.uncached, _Keys(step, named), iter(given))


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


def compute(
    step: "Step", pipeline: Pipeline, keys: Sequence[str], values: Sequence[tp.Any]
) -> "Background | None":
    """Compute what is missing of the results of the last stage.

    Parameters
    ----------
    step: Step
        the step or chain
    pipeline: Pipeline
        its resolved form, with one stage at least
    keys: sequence of str
        keys of the items
    values: sequence
        the items

    Returns
    -------
    Background, optional
        the computation that goes on, if any
    """
    prepare(step._exca_state, pipeline, keys)
    last = pipeline.stages[-1].store
    wanted: dict[str, tp.Any] = {}
    for start in range(0, len(keys), _LOOKUP):
        part = keys[start : start + _LOOKUP]
        given = values[start : start + _LOOKUP]
        if len(set(part)) < len(part) or not wanted.keys().isdisjoint(part):
            from ..execution import same_items

            same_items.check(part, given, wanted, type(step).__name__)
        absent = set(last.absent(part))
        if absent:
            wanted.update((key, value) for key, value in zip(part, given, strict=True) if key in absent)
    return work.start_stages(pipeline, list(wanted), wanted.__getitem__) if wanted else None


def results(
    pipeline: Pipeline,
    keys: Sequence[str],
    values: Sequence[tp.Any],
    background: "Background | None",
) -> Iterator[tp.Any]:
    """Return an iterator over results, what follows the last stage computed in place.

    Parameters: as of ``compute``; `background` what it returned.
    """
    stored = _read(pipeline, keys, values, background)
    return composed(pipeline.uncached, keys, stored) if pipeline.uncached else stored


class Remembers(tp.Protocol):
    """What knows which items were forced or retried already."""

    forced: set[str]


def prepare(memory: Remembers, pipeline: Pipeline, keys: Sequence[str]) -> None:
    """Remove errors that are to be computed again, and remember which results are.

    Parameters
    ----------
    memory: StepState or PlacedStep
        remembers what was forced or retried already: an object does so once for each item
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
            stage.store.mark_stale(fresh)
        else:
            stage.store.clear_errors(fresh)
    if fresh:
        forced.update(fresh)


def _read(
    pipeline: Pipeline,
    keys: Sequence[str],
    values: Sequence[tp.Any],
    background: "Background | None",
) -> Iterator[tp.Any]:
    """Yield results one at a time; those found damaged only now are computed again."""
    stored = pipeline.stages[-1].store.results
    start = 0
    while background is not None and background.running and start < len(keys):
        background.wait_for(keys[start])
        try:
            result = stored[keys[start]]
        except KeyError:
            break  # damaged or removed since
        start += 1
        yield result
    while start < len(keys):
        try:
            for result in stored.iter_values(itertools.islice(keys, start, None)):
                start += 1
                yield result
        except KeyError:
            if background is not None:
                background.wait_for(keys[start])  # raises its error where that left no result
            work.run_stages(pipeline, [keys[start]], lambda _: values[start])  # noqa: B023  # called right here
