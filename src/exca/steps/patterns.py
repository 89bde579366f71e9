"""Patterns of pipelines: fan an input out into branches, and gather their results."""

import typing as tp
from collections.abc import Iterable, Iterator

import pydantic

from .. import identity
from . import addresses, run
from .addresses import NO_INPUT
from .base import Step
from .pipeline import Lineage, Pipeline, PlacedStep, compiled, composed
from .run import Deferred, run_stages


class BranchResult(tp.NamedTuple):
    """The result of one branch of an item.

    Parameters
    ----------
    branch: Any
        the branch, as ``branches`` named it
    result: Any
        what the body computed for it
    """

    branch: tp.Any
    result: tp.Any


class Scatter(Step):
    """Fans an item out into branches, runs a body on each, and gathers the results.

    Subclasses have one field that holds a step, the body, and write ``branches`` and ``take``. Where the body has an
    infra, each branch is cached by itself, below the address of the scatter, under the keys of item
    and branch. A scatter that is run without a value gets ``exca.steps.NO_INPUT`` as its item.

    Examples
    --------
    >>> class PerChannel(Scatter):
    ...     body: Step
    ...
    ...     def branches(self, item: np.ndarray) -> list[int]:
    ...         return list(range(len(item)))
    ...
    ...     def take(self, item: np.ndarray, branch: int) -> np.ndarray:
    ...         return item[branch]
    """

    _exca_placed = True
    _INPUT: tp.ClassVar[str] = "<input>"
    _UPSTREAM: tp.ClassVar[str] = "<upstream>"

    def branches(self, item: tp.Any) -> Iterable[tp.Any]:
        """Name the branches of an item.

        Parameters
        ----------
        item: Any
            the input

        Returns
        -------
        iterable
            names, such as str or int; each counts once, and there must be one at least

        Raises
        ------
        NotImplementedError
            unless a subclass defines it
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not define the branches of an item: write `def branches(self, item)`"
        )

    def take(self, item: tp.Any, branch: tp.Any) -> tp.Any:
        """Return the input of the body for one branch.

        Parameters
        ----------
        item: Any
            the input
        branch: Any
            one of its branches

        Raises
        ------
        NotImplementedError
            unless a subclass defines it
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not define the input of a branch: write `def take(self, item, branch)`"
        )

    def gather(self, results: list[BranchResult]) -> tp.Any:
        """Make the output of an item from those of its branches; by default a dict.

        Parameters
        ----------
        results: list of BranchResult
            in the order of the branches

        Returns
        -------
        any
            the output of the item

        Raises
        ------
        TypeError
            if branches have names that no dict can hold
        """
        try:
            return {result.branch: result.result for result in results}
        except TypeError:
            raise TypeError(
                f"the branches of {type(self).__name__}, such as {results[0].branch!r}, cannot be the keys of a dict: "
                "write `def gather(self, results)`"
            ) from None

    def _branch_excludes(self) -> Iterable[str]:
        """What does not count for the addresses of branches.

        Names of fields, ``_INPUT`` (the item that is fanned out), ``_UPSTREAM`` (the steps before).
        """
        return []

    def _body(self) -> Step:
        """Return the step that runs on each branch; subclasses may choose another one."""
        bodies = {name: value for name, value in self.__dict__.items() if isinstance(value, Step)}
        if len(bodies) != 1:
            raise ValueError(
                f"{type(self).__name__} must have exactly one field that holds a step, the body, but has "
                f"{list(bodies)}: override the method _body to choose one"
            )
        return next(iter(bodies.values()))

    @pydantic.model_validator(mode="after")
    def _check_body(self) -> "tp.Self":
        if type(self)._body is Scatter._body:  # a body that is chosen may need more than the fields
            self._checked_body()
        return self

    def _checked_body(self) -> Step:
        body = self._body()
        if body._exca_alone:
            raise ValueError(
                f"{type(body).__name__} gives no output and cannot be the body of {type(self).__name__}"
            )
        return body

    def _run(self, value: tp.Any = NO_INPUT) -> tp.Any:
        return self.run(value)

    # ---------------------------------------------------------------- running in place

    def _exca_run_placed(
        self, placed: PlacedStep, keys: Iterable[str], values: Iterator[tp.Any]
    ) -> Iterator[tp.Any]:
        pipeline = self.branch_pipeline(placed)
        items: Iterator[_Item] = (_Item(self, key, value) for value, key in zip(values, keys, strict=False))
        if pipeline.stages and any(stage.infra.cluster is not None for stage in pipeline.stages):
            items = iter(self._computed_together(placed, pipeline, list(items)))
        for item in items:
            yield self.gather(list(item.results(placed, pipeline)))

    def _computed_together(
        self, placed: PlacedStep, pipeline: Pipeline, items: "list[_Item]"
    ) -> "list[_Item]":
        """Send the branches of all items off at once."""
        of_key = {key: item for item in items for key in item.branches}
        run.prepare(placed.forced, pipeline, list(of_key))
        if of_key:
            run_stages(pipeline, list(of_key), _Inputs(of_key))
        return items

    def branch_pipeline(self, placed: PlacedStep) -> Pipeline:
        """Return the resolved form of the body, below the place of the scatter in its pipeline.

        Parameters
        ----------
        placed: PlacedStep
            the place
        """
        if placed.body is None:
            excluded = set(self._branch_excludes())
            fields = excluded & set(type(self).__pydantic_fields__)
            lineage, depth = placed.lineage, placed.depth - 1
            config = identity.export(
                self, uid=True, exclude_defaults=True, exclude=fields, ignore_first_override=True
            )
            full = identity.export(self, uid=True, exclude=fields, ignore_first_override=True)
            upstream = self._UPSTREAM not in excluded
            below = Lineage(
                [*(lineage.configs(depth) if upstream else ()), config],
                [*(lineage.full_configs(depth) if upstream else ()), full],
                lineage,
                range(0 if upstream else depth, depth + 1),
            )
            placed.body = compiled(
                self._checked_body(), lineage=below, folder=placed.folder, level=placed.level
            )
        return placed.body

    def branch_prefix(self, prefix: str) -> str:
        """Return what the keys of all branches of some items begin with.

        Parameters
        ----------
        prefix: str
            what the keys of the items begin with
        """
        return "" if self._INPUT in set(self._branch_excludes()) else prefix


class _Item:
    """One item of a scatter, and its branches by key."""

    def __init__(self, scatter: Scatter, key: str, value: tp.Any) -> None:
        self.scatter = scatter
        self.value = value
        alone = Scatter._INPUT in set(scatter._branch_excludes())
        name = type(scatter).__name__
        self.branches: dict[str, tp.Any] = {}
        for branch in scatter.branches(value):
            text = addresses.value_key(branch, name)
            self.branches.setdefault(text if alone else f"{key}/{text}", branch)
        if not self.branches:
            raise ValueError(
                f"{name}.branches gave no branches for the item {key!r}, so there is nothing to gather: it must give "
                "one at least"
            )

    def take(self, key: str) -> tp.Any:
        """The input of the body for the branch of a key."""
        return self.scatter.take(self.value, self.branches[key])

    def results(self, placed: PlacedStep, pipeline: Pipeline) -> Iterator[BranchResult]:
        """Yield the results of the branches, those that are missing computed first."""
        keys = list(self.branches)
        if pipeline.stages:
            run.prepare(placed.forced, pipeline, keys)
            run_stages(pipeline, keys, _Inputs(dict.fromkeys(keys, self)))
            values = pipeline.stages[-1].store.results.iter_values(keys)
        else:
            values = map(self.take, keys)
        outputs = composed(pipeline.uncached, keys, values)
        for branch, result in zip(self.branches.values(), outputs, strict=True):
            yield BranchResult(branch, result)


class _Inputs:
    """Gives the inputs of branches by their keys."""

    def __init__(self, items: dict[str, _Item]) -> None:
        self._items = items  # by key

    def __call__(self, key: str) -> tp.Any:
        return self._items[key].take(key)

    def deferred(self, key: str) -> Deferred:
        """What a worker makes the input of a branch from: to take it apart may be most of the work."""
        item = self._items[key]
        return Deferred(item.scatter.take, item.value, item.branches[key])
