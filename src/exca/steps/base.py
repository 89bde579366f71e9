"""Step and Chain: pipelines as configurations."""

import dataclasses
import inspect
import typing as tp
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pydantic

from .. import _reloads, identity
from .._earlier import earlier_names
from ..identity import DiscriminatedModel
from . import addresses, conversions
from .addresses import NO_INPUT
from .backends import ADAPTER, Backend
from .run import run_one

if tp.TYPE_CHECKING:
    from .inquiry import LookupHandle, Plan
    from .items import StepItems
    from .pipeline import Pipeline, PlacedStep


_WAYS = ("_run", "_run_batch", "_run_items", "_resolve_step")


@dataclasses.dataclass(frozen=True)
class Traits:
    """What is known of a step class before there is an object.

    Parameters
    ----------
    runnable: bool
        whether there is anything to run
    needs_input: bool
        whether it cannot run without a value
    takes_input: bool
        whether it can take a value at all
    resolves: bool
        whether another step may run in its place
    """

    runnable: bool = False
    needs_input: bool = True
    takes_input: bool = True
    resolves: bool = False


def _traits_of(cls: type, root: type) -> Traits:
    """Read the traits of a class; methods of the root count as not written."""
    own = {name: getattr(cls, name) is not getattr(root, name) for name in _WAYS}
    needs, takes = _signature_traits(cls._run) if own["_run"] else (True, True)  # type: ignore[attr-defined] # of a Step
    return Traits(
        runnable=any(own.values()),
        needs_input=needs,
        takes_input=takes,
        resolves=own["_resolve_step"],
    )


def _signature_traits(function: tp.Any) -> tuple[bool, bool]:
    """Tell whether a method needs a value, and whether it takes one; raises a TypeError where it needs more."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise TypeError(
            f"{function.__qualname__} takes {', '.join(p.name for p in required)}, but a step computes from one value: "
            "make the others fields of the step, or give them defaults"
        )
    takes = bool(positional) or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return bool(required), takes


class StepState:
    """Run-time state of a step; never pickled, and a copy starts anew but for the caches in memory."""

    __slots__ = ("caches", "compared", "forced", "hit", "namer", "pipeline")

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None
        # where a hit is all there is to do: gives the result of a key, and what may name items
        self.hit: Callable[[str], tp.Any] | None = None
        self.compared: object = None  # when the code was, as `_reloads.now`
        self.namer: addresses.Namer | None = None
        self.forced: set[str] = set()  # what this object has computed again, or retried, already
        self.caches: dict[tp.Any, tp.Any] = {}  # those that keep values in memory, by folder

    def successor(self) -> "StepState":
        """State for a copy of the step."""
        new = StepState()
        new.caches = self.caches
        return new

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return StepState, ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepState)  # steps are compared by their fields

    def __hash__(self) -> int:
        return object.__hash__(self)


class Step(DiscriminatedModel):
    """One stage of a pipeline: a configuration with a ``_run`` method whose results are cached.

    Parameters
    ----------
    infra: Backend, optional
        where the step runs and where its results are kept; without it the step runs in place and nothing is kept. Its
        folder is also that of all steps in fields of this one that have an infra and no folder

    Examples
    --------
    >>> class Mul(Step):
    ...     coeff: float = 2.0
    ...
    ...     def _run(self, x: float) -> float:
    ...         return x * self.coeff
    >>> Mul(coeff=3).run(4)
    12.0
    """

    CACHE_TYPE: tp.ClassVar[str | None] = None
    _exca_placed: tp.ClassVar[bool] = False  # whether it has results of its own, kept by its place
    _exca_alone: tp.ClassVar[bool] = False  # whether it gives no output for a next step
    _exca_traits: tp.ClassVar[Traits] = Traits()
    _exca_is_chain: tp.ClassVar[bool] = False  # whether it consists of steps in `steps`
    _exca_chain_class: tp.ClassVar["type[Chain]"]
    _exca_root: tp.ClassVar["type[Step]"]  # this class itself, for modules that it imports

    if tp.TYPE_CHECKING:
        infra: tp.Any = None  # takes what is converted to a Backend: a dict, a name
    else:
        infra: Backend | None = None

    _exca_state: StepState = pydantic.PrivateAttr(default_factory=StepState)

    # ------------------------------------------------------------------ what subclasses write

    def _run(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        """Compute the result of one item; written by subclasses, with one parameter or none."""
        raise NotImplementedError

    def _run_batch(self, values: Iterator[tp.Any]) -> Iterator[tp.Any]:
        """Compute the results of several items, one per item and in order; may be written by subclasses."""
        run = self._run
        for value in values:
            yield run() if value is NO_INPUT else run(value)

    def _run_items(self, values: Iterator[tp.Any]) -> Iterator[tp.Any]:
        """Compute the results of several items, as ``_run_batch`` does by default."""
        return self._run_batch(values)

    def _resolve_step(self) -> "Step":
        """Return the step that runs in place of this one; may be written by subclasses."""
        return self

    def item_uid(self, value: tp.Any) -> str | None:
        """Return the text by which an item's result is found again, or None for one made from the value.

        Parameters
        ----------
        value: Any
            what ``run`` is called with, ``exca.steps.NO_INPUT`` where that is nothing; only the first step of a
            pipeline is asked
        """
        return None

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        """Names of the fields that do not count for addresses."""
        return ["infra"]

    # ------------------------------------------------------------------ running

    def run(self, value: tp.Any = NO_INPUT) -> tp.Any:
        """Return the result for a value, from the cache or computed on the backend of the infra.

        Parameters
        ----------
        value: Any
            the item; left out for what needs none

        Raises
        ------
        Exception
            the error of the computation, which is kept and raised again until it is retried
        ReadOnlyError
            in read-only mode, if there is no result
        """
        private = self.__pydantic_private__
        assert private is not None, "every step has state"
        state: StepState = private["_exca_state"]
        hit = state.hit
        if hit is not None and state.compared is _reloads.now:
            try:
                return hit(addresses.named_key(state.namer, value, self))
            except KeyError:
                pass
        return run_one(self, value)

    def run_many(self, values: Iterable[tp.Any]) -> "StepItems":
        """Return the results for many values, in their order.

        Without any infra, each is computed when it is asked for. Else all that is missing is computed now, each
        distinct item once, and the results are read one at a time; those of a pool while others still run.
        They can be gone through again.

        Parameters
        ----------
        values: iterable
            the items

        Returns
        -------
        StepItems
            one result for each value; it has a length, and the keys of the values as ``uids``
        """
        from . import items

        return items.run_many(self, values)

    def plan(self, values: Iterable[tp.Any] | None = None) -> "Plan":
        """Tell what a call of ``run_many`` (without values: of ``run``) would compute, and where; computes nothing.

        Parameters
        ----------
        values: iterable, optional
            the items

        Returns
        -------
        Plan
            one line per stage: its backend, and how many items are cached, failed, running, and to be computed
        """
        from . import inquiry

        return inquiry.plan(self, values)

    def lookup(self, value: tp.Any = NO_INPUT) -> "LookupHandle":
        """Return a handle on the result for a value, which computes nothing.

        Parameters
        ----------
        value: Any
            the item; left out for what needs none
        """
        from . import inquiry

        return inquiry.LookupHandle.of(self, value)

    def show(self, value: tp.Any = NO_INPUT) -> str:
        """Draw the tree of steps with what differs from the defaults, their backends and folders.

        Parameters
        ----------
        value: Any
            an item: the tree then tells which stages are cached, running, failed or missing for it (so it does
            without, for what needs none)

        Returns
        -------
        str
            the drawing
        """
        from . import inquiry

        return inquiry.draw(self, value)

    def clone(self, *args: dict[str, tp.Any], **kwargs: tp.Any) -> "tp.Self":
        """Make a new, unfrozen step with some fields changed, validated as any other.

        Parameters
        ----------
        *args: dict
            changes by (dotted) field name, e.g. ``{"steps.0.coeff": 3}``
        **kwargs: Any
            changes by field name

        Returns
        -------
        Step
            the new step
        """
        return type(self)(**identity.as_patched(self, (*args, kwargs), conversions.as_fields))

    def forward(self, value: tp.Any = NO_INPUT) -> tp.Any:
        """Return the result for a value; the name of ``run`` in earlier releases.

        Parameters
        ----------
        value: any
            what to run on; nothing for a step that takes none
        """
        warnings.warn("Step.forward() was renamed: use run()", DeprecationWarning, stacklevel=2)
        return self.run(value)

    def clear_cache(self) -> None:
        """Remove the result of what needs no input, as in earlier releases."""
        warnings.warn("use step.lookup().clear_cache() instead", DeprecationWarning, stacklevel=2)
        self.lookup().clear_cache()

    # ------------------------------------------------------------------ what is known of a step

    def needs_input(self) -> bool:
        """Whether it cannot run without a value."""
        return self._exca_traits.needs_input

    def takes_input(self) -> bool:
        """Whether it can take a value at all."""
        return self._exca_traits.takes_input

    def _exca_run_placed(
        self, placed: "PlacedStep", keys: Iterable[str], values: Iterator[tp.Any]
    ) -> Iterator[tp.Any]:
        """Compute a batch, knowing the place in the pipeline and the keys; for steps that keep results of their own."""
        return self._run_items(values)

    def _exca_namer(self) -> addresses.Namer | None:
        """What may name items; None where no class defines an ``item_uid``."""
        return None if type(self).item_uid is Step.item_uid else self.item_uid

    def _exca_code(self) -> list[tp.Any]:
        """The functions whose code tells whether results are those of today."""
        cls = type(self)
        return [getattr(cls, name) for name in _WAYS if getattr(cls, name) is not getattr(Step, name)]

    def _exca_check_known(self) -> None:
        """Raise where the configuration does not tell what the step computes, before it becomes an address."""

    def _exca_cache_type(self) -> str | None:
        """Name of the handler that stores the results, by default chosen by their type."""
        return self.CACHE_TYPE

    # ------------------------------------------------------------------ class definition and validation

    def __init_subclass__(cls, **kwargs: tp.Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._exca_traits = _traits_of(cls, Step)

    @classmethod
    def _exca_coerce(cls, value: tp.Any) -> tp.Any:
        return conversions.coerce(cls, value)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _check_runnable(cls, data: tp.Any) -> tp.Any:
        if not cls._exca_traits.runnable or inspect.isabstract(cls):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__} has nothing to run: write `def _run(self, value)` on it, "
                "or `_run_batch`, or `_resolve_step`"
            )
        return data

    @pydantic.field_validator("infra", mode="before")
    @classmethod
    def _seed_infra(cls, value: tp.Any) -> tp.Any:
        default = cls.__pydantic_fields__["infra"].default
        if value is not None and isinstance(default, Backend):
            return seeded(value, default)
        return value.model_copy() if isinstance(value, Backend) else value  # one object for each step

    @pydantic.model_validator(mode="after")
    def _hand_folder(self) -> "tp.Self":
        conversions.hand_folder(self)
        return self

    def _exca_uid_dict_override(self) -> dict[str, tp.Any]:
        """The part of a step in the uid of what holds it: a pipeline is the list of its steps."""
        from .pipeline import pipeline_of

        configs = pipeline_of(self).lineage.configs()
        return {"steps": configs} if len(configs) > 1 or isinstance(self, Chain) else configs[0]

    # ------------------------------------------------------------------ copies

    def __copy__(self) -> "tp.Self":
        new = super().__copy__()
        new._exca_state = self._exca_state.successor()
        return new

    def __deepcopy__(self, memo: dict[int, tp.Any] | None = None) -> "tp.Self":
        new = super().__deepcopy__(memo)
        new._exca_state = self._exca_state.successor()
        return new


Step._exca_root = Step


def seeded(value: tp.Any, default: Backend) -> tp.Any:
    """Fill an infra with the fields that the default on the class has and it was not given.

    Parameters: `value` as it was given to a step; `default` of the class.
    """
    if isinstance(value, str):
        value = {"backend": value}
    if isinstance(value, Mapping):
        fields = {"backend": type(default).__name__, **value}
        target: type[Backend] = type(ADAPTER.validate_python({"backend": fields["backend"]}))
    elif isinstance(value, Backend):
        target = type(value)
        fields = {"backend": target.__name__, **value.given(target)}
    else:
        return value
    return {**default.given(target), **fields}


class Chain(Step):
    """Steps of which each gets what the one before it gives.

    A chain with an infra is one unit of work, whose results are kept where those of its last step are.

    Parameters
    ----------
    steps: sequence or dict
        the steps, or what is converted to them: names, dicts with ``type``, lists (chains in the chain); a dict
        names them
    infra: Backend, optional
        where the chain runs and where its results are kept
    """

    _exca_is_chain = True
    _exca_step_base: tp.ClassVar[type[Step]] = Step

    if tp.TYPE_CHECKING:
        steps: tp.Any  # takes what is converted to steps, too
    else:
        steps: Sequence[Step] | OrderedDict[str, Step]

    def __init_subclass__(cls, **kwargs: tp.Any) -> None:
        super().__init_subclass__(**kwargs)
        base = next(c for c in cls.__mro__ if issubclass(c, Step) and not issubclass(c, Chain))
        cls._exca_step_base = base
        base._exca_chain_class = cls

    @pydantic.field_validator("steps", mode="wrap")
    @classmethod
    def _read_steps(cls, value: tp.Any, handler: tp.Any) -> tp.Any:
        return conversions.read_steps(cls._exca_step_base, value)

    @pydantic.model_validator(mode="after")
    def _check_order(self) -> "tp.Self":
        conversions.check_chain(self)
        return self

    @property
    def step_list(self) -> list[Step]:
        """The steps in order, without their names."""
        steps = self.__dict__["steps"]
        return list(steps.values() if isinstance(steps, dict) else steps)

    def _exca_namer(self) -> addresses.Namer | None:
        return self.step_list[0]._exca_namer() if type(self).item_uid is Chain.item_uid else self.item_uid

    def item_uid(self, value: tp.Any) -> str | None:
        """Return the text of the first step.

        Parameters
        ----------
        value: any
            the item
        """
        return self.step_list[0].item_uid(value)

    def needs_input(self) -> bool:
        """Whether the first step cannot run without a value."""
        return self.step_list[0].needs_input()

    def takes_input(self) -> bool:
        """Whether the first step can take a value."""
        return self.step_list[0].takes_input()

    def _run(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        return self.run(*args, **kwargs)

    def _exca_cache_type(self) -> str | None:
        return self.step_list[-1]._exca_cache_type() if self.CACHE_TYPE is None else self.CACHE_TYPE

    def _step_sequence(self) -> tuple[Step, ...]:
        """The steps in order (kept for dependants, under this name)."""
        return tuple(self.step_list)

    def __len__(self) -> int:
        return len(self.__dict__["steps"])

    def __bool__(self) -> bool:
        return True

    @tp.overload
    def __getitem__(self, index: int | str) -> Step: ...
    @tp.overload
    def __getitem__(self, index: slice) -> "tp.Self": ...
    def __getitem__(self, index: int | str | slice) -> "Step | tp.Self":
        """Return a step by position or name, or a chain of several by a slice.

        Raises
        ------
        LookupError
            if there is none
        """
        steps = self.__dict__["steps"]
        if isinstance(index, str):
            if not isinstance(steps, dict) or index not in steps:
                known = "none: they were given as a list"
                if isinstance(steps, dict):
                    known = ", ".join(map(repr, steps))
                raise KeyError(f"no step is named {index!r}; names of the {len(steps)} steps: {known}")
            return tp.cast(Step, steps[index])
        if isinstance(index, slice):
            part: tp.Any = self.step_list[index]
            if isinstance(steps, dict):
                part = OrderedDict(list(steps.items())[index])
            fields = {name: self.__dict__[name] for name in self.__pydantic_fields_set__}
            return type(self)(**{**fields, "steps": part})
        return self.step_list[index]


Step._exca_chain_class = Chain

if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
