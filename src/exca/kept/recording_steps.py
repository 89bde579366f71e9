"""Steps for the tests of packages that build on steps: they remember what they were called with."""

import random
import typing as tp

import pydantic

from ..steps import NO_INPUT, Chain, Step

__all__ = ["Add", "AddWithTransforms", "Mult", "PureResolver", "RandomGenerator", "RecordingStep"]


class RecordingStep(Step):
    """A step that remembers what it was called with, in this process."""

    _calls: list[tp.Any] = pydantic.PrivateAttr(default_factory=list)
    _on_call: tp.Callable[[tp.Any], None] | None = pydantic.PrivateAttr(None)

    @property
    def calls(self) -> list[tp.Any]:
        """What it was called with so far."""
        return self._calls

    def on_call(self, fn: tp.Callable[[tp.Any], None]) -> tp.Self:
        """Have a function called with each value, and return the step.

        Parameters
        ----------
        fn: callable
            the function
        """
        self._on_call = fn
        return self

    def record(self, value: tp.Any = NO_INPUT) -> None:
        """Remember a call.

        Parameters
        ----------
        value: Any
            what it was called with, if with anything
        """
        self._calls.append(value)
        if self._on_call is not None:
            self._on_call(value)


class Mult(RecordingStep):
    """Multiplies."""

    coeff: float = 2.0

    def _run(self, value: float) -> float:
        self.record(value)
        return value * self.coeff


class Add(RecordingStep):
    """Adds; may fail, or add a random part."""

    value: float = 2.0
    randomize: bool = False
    fail_on: tp.Literal["all"] | set[float] | None = None

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "fail_on"]

    def _run(self, value: float = 0) -> float:
        self.record(value)
        if self.fail_on == "all" or (self.fail_on is not None and value in self.fail_on):
            raise ValueError("Triggered an error")
        return value + (random.random() if self.randomize else self.value)  # noqa: S311  # no secret


class RandomGenerator(RecordingStep):
    """Makes a random number."""

    seed: int | None = None

    def _run(self) -> float:
        self.record()
        return random.Random(self.seed).random()  # noqa: S311  # no secret


class AddWithTransforms(RecordingStep):
    """Adds, and lets further steps follow."""

    value: float = 2.0
    transforms: list[Step] = pydantic.Field(default_factory=list)

    def _run(self, x: float = 0) -> float:
        self.record(x)
        return x + self.value

    def _resolve_step(self) -> Step:
        if not self.transforms:
            return self
        return Chain(steps=[self.clone(transforms=[]), *self.transforms])


class PureResolver(Step):
    """Stands for two steps in a row."""

    step_a: Step = Add(value=1.0)
    step_b: Step = Mult(coeff=2.0)

    def _resolve_step(self) -> Step:
        return Chain(steps=[self.step_a, self.step_b])
