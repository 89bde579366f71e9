"""Ready-made steps: a function as a step, and variants computed side by side."""

import functools
import inspect
import typing as tp
from collections.abc import Callable, Iterable, Sequence

import pydantic

from . import conversions, parallel
from .addresses import NO_INPUT
from .backends import Backend
from .base import Step

_FIXED_KINDS: tp.Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Func(Step):
    """A function as a step.

    Parameters
    ----------
    function: callable or str
        the function, or its ``module.name``; its name counts for addresses, its code is recorded with the results
    input_param: str, optional
        the parameter that gets the input, by default the only one that is required
    **fixed: Any
        values for other parameters, checked against the annotations of the function

    Examples
    --------
    >>> Func(function="textwrap.shorten", input_param="text", width=8).run("some text")
    '[...]'
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="allow")

    function: pydantic.ImportString[Callable[..., tp.Any]]
    input_param: str | None = None

    if tp.TYPE_CHECKING:

        def __init__(
            self,
            *,
            function: Callable[..., tp.Any] | str,
            input_param: str | None = None,
            infra: tp.Any = None,
            **fixed: tp.Any,
        ) -> None: ...

    @pydantic.field_serializer("function")
    def _name_of_function(self, function: Callable[..., tp.Any]) -> str:
        return f"{function.__module__}.{function.__qualname__}"

    @pydantic.model_validator(mode="after")
    def _check_signature(self) -> "tp.Self":
        name = _function_name(self.function)
        parameters = _parameters(self.function)
        fixed = self.__pydantic_extra__ or {}
        taken = sorted(parameters.keys() & type(self).__pydantic_fields__)
        if taken:
            raise ValueError(
                f"{name} has the parameter(s) {', '.join(taken)}, which no value can be given to: these are names of "
                "fields of Func. Rename them"
            )
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        known = [p.name for p in parameters.values() if p.kind not in _FIXED_KINDS]
        for key in fixed:
            if key not in known and not open_ended:
                raise ValueError(
                    f"{name} has no parameter {key!r}: its parameters are {', '.join(known) or '(none)'}"
                )
        if self.input_param is not None and self.input_param not in known:
            raise ValueError(
                f"{name} has no parameter {self.input_param!r} to be input_param: its parameters are "
                f"{', '.join(known) or '(none)'}"
            )
        if self.input_param in fixed:
            raise ValueError(
                f"{self.input_param!r} of {name} is input_param, so that it cannot have a fixed value as well"
            )
        asked = [p.name for p in self._free() if p.default is p.empty and p.name != self.input_param]
        if len(asked) > (self.input_param is None):
            raise ValueError(
                f"{name} requires {', '.join(asked)}, but a step has one input: give the others values, and name "
                "the one that gets the input with input_param=..."
            )
        for key, value in fixed.items():
            if key in parameters and parameters[key].annotation is not inspect.Parameter.empty:
                fixed[key] = _checked(name, parameters[key], value)
        return self

    def _exclude_from_cls_uid(self) -> list[str]:  # type: ignore[override] # depends on the function
        """Leave out `input_param` where it goes without saying: 0.6 never had it in addresses."""
        free = self._free()
        expected = next((p for p in free if p.default is p.empty), free[0] if free else None)
        needed = self.input_param is not None and (expected is None or expected.name != self.input_param)
        return [*super()._exclude_from_cls_uid(), *([] if needed else ["input_param"])]

    def _free(self) -> list[inspect.Parameter]:
        """The parameters that have no fixed value."""
        fixed = self.__pydantic_extra__ or {}
        parameters = _parameters(self.function).values()
        return [p for p in parameters if p.kind not in _FIXED_KINDS and p.name not in fixed]

    def _exca_input(self) -> inspect.Parameter | None:
        """The parameter that gets the input; None where nothing is required."""
        if self.input_param is not None:
            return _parameters(self.function)[self.input_param]
        return next((p for p in self._free() if p.default is p.empty), None)

    def _exca_code(self) -> list[tp.Any]:
        return [*super()._exca_code(), self.function]

    def needs_input(self) -> bool:
        """Whether the parameter that gets the input is required."""
        target = self._exca_input()
        return target is not None and target.default is target.empty

    def takes_input(self) -> bool:
        """Whether there is a parameter that gets the input."""
        return self._exca_input() is not None

    def _run(self, *value: tp.Any) -> tp.Any:
        arguments = dict(self.__pydantic_extra__ or {})
        target = self._exca_input()
        if value:
            assert target is not None, "checked before anything runs"
            arguments[target.name] = value[0]
        positional = []
        for p in _parameters(self.function).values():
            if p.kind is not p.POSITIONAL_ONLY or p.name not in arguments:
                break
            positional.append(arguments.pop(p.name))
        return self.function(*positional, **arguments)

    def _exca_check_known(self) -> None:
        if "<lambda>" in self.function.__qualname__:
            raise ValueError(
                f"{_function_name(self.function)} has no name by which its results could be known: define it with def, "
                "or use it without any infra around"
            )


def _function_name(function: tp.Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


@functools.lru_cache(maxsize=256)
def _parameters(function: tp.Any) -> dict[str, inspect.Parameter]:
    if not hasattr(function, "__qualname__"):
        raise ValueError(
            f"{function!r} has no name by which it could be found again: define a function with def"
        )
    try:
        return dict(inspect.signature(function, eval_str=True).parameters)
    except NameError:  # annotations that only type checkers can read
        return dict(inspect.signature(function).parameters)


def _checked(name: str, parameter: inspect.Parameter, value: tp.Any) -> tp.Any:
    try:
        adapter: pydantic.TypeAdapter[tp.Any] = pydantic.TypeAdapter(
            parameter.annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True)
        )
    except (pydantic.PydanticUserError, NameError, TypeError):
        return value  # an annotation that pydantic cannot read
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        problems = "; ".join(detail["msg"] for detail in error.errors())
        raise ValueError(f"{parameter.name}={value!r} does not fit {name}: {problems}") from None


def _common_infra(steps: Iterable[Step]) -> Backend | None:
    """Return the infra of all steps that have one, whether with a folder or without; None where they differ."""
    infras = [step.infra for step in steps if step.infra is not None]
    folder = next((infra.folder for infra in infras if infra.folder is not None), None)
    whole = [infra.model_copy(update={"folder": infra.folder or folder}) for infra in infras]
    return whole[0] if whole and all(infra == whole[0] for infra in whole) else None


class Parallel(Step):
    """Variants over one shared set of items, sent off in one submission.

    Each variant keeps its results under its own address; the whole gives no output, and cannot be part of a chain.

    Parameters
    ----------
    steps: sequence of Step
        the variants
    infra: Backend, optional
        where the variants run that have no infra of their own; by default as those that have one, if they agree

    Examples
    --------
    >>> sweep = Parallel(
    ...     steps=[Mul(coeff=k) for k in range(3)], infra={"backend": "Cached", "folder": folder}
    ... )
    >>> sweep.run(12)
    >>> sweep.steps[2].lookup(12).result()
    24
    """

    _exca_alone = True

    if tp.TYPE_CHECKING:
        steps: tp.Any
    else:
        steps: Sequence[Step]

    @pydantic.field_validator("steps", mode="before")
    @classmethod
    def _read_steps(cls, value: tp.Any) -> tp.Any:
        return conversions.read_steps(Step, value)

    @pydantic.model_validator(mode="after")
    def _share_infra(self) -> "tp.Self":
        infra = self.infra
        if infra is None:
            infra = vars(self)["infra"] = _common_infra(self.steps)
        shared = []
        for number, step in enumerate(self.steps):
            if step._exca_alone:
                raise ValueError(
                    f"variant {number} is a {type(step).__name__}, which gives no output of its own"
                )
            if step.infra is None:
                if infra is None:
                    raise ValueError(
                        f"variant {number}, {type(step).__name__}, has no infra, so its results would be lost, and "
                        "the others do not have one in common: give the Parallel an infra, or each variant one of its "
                        "own"
                    )
                step = step.model_copy(update={"infra": infra.model_copy()})
            elif step.infra.folder is None and infra is not None and infra.folder is not None:
                step = step.model_copy(
                    update={"infra": step.infra.model_copy(update={"folder": infra.folder})}
                )
            conversions.hand_folder(step)
            shared.append(step)
        vars(self)["steps"] = shared
        return self

    def _run(self, *value: tp.Any) -> tp.Any:
        return self.run(*value)

    def needs_input(self) -> bool:
        """Whether a variant cannot run without a value."""
        return any(step.needs_input() for step in self.steps)

    def run(self, value: tp.Any = NO_INPUT) -> None:
        """Compute all variants for one value (or for none, where they need none).

        Parameters
        ----------
        value: Any
            the item
        """
        parallel.compute(self.steps, [value])

    def run_many(self, values: Iterable[tp.Any]) -> list[None]:  # type: ignore[override] # there are no results
        """Compute all variants for many values.

        Parameters
        ----------
        values: iterable
            the items

        Returns
        -------
        list
            None for each value
        """
        values = list(values)
        parallel.compute(self.steps, values)
        return [None] * len(values)

    def lookup(self, value: tp.Any = NO_INPUT) -> tp.NoReturn:
        """Refuse to look: the variants have results, the whole has none.

        Parameters
        ----------
        value: any
            ignored

        Raises
        ------
        TypeError
            always
        """
        raise TypeError(
            "a Parallel keeps no results itself: look a variant up, such as parallel.steps[0].lookup(value)"
        )
