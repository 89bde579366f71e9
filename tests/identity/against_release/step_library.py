"""Steps of which pipelines are searched (public interface only, for both releases)."""

import collections
import typing as tp
from pathlib import Path

import pydantic

from exca import steps

OrderedDict = collections.OrderedDict


class Load(steps.Step):
    size: int = 3
    workers: int = 1

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "workers"]

    def _run(self) -> list[int]:
        return list(range(self.size))


class Plus(steps.Step):
    value: float = 1.0

    def _run(self, x: tp.Any) -> tp.Any:
        return str(x)[:20]


class Text(steps.Step):
    text: str = "a"
    where: Path = Path("data")
    values: list[tp.Any] = []

    def _run(self, x: tp.Any) -> tp.Any:
        return str(x)[:20]


class Optional(steps.Step):
    """Takes a value where it is given one."""

    options: dict[str, tp.Any] = {}

    def _run(self, x: tp.Any = 0) -> tp.Any:
        return str(x)[:20]


class Required(steps.Step):
    count: int
    ordered: collections.OrderedDict[str, int] = collections.OrderedDict()

    def _run(self, x: tp.Any) -> tp.Any:
        return self.count


class Inner(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    a: int = 1
    b: str = "b"


class Holder(steps.Step):
    inner: Inner = Inner()
    step: steps.Step | None = None
    more: list[steps.Step] = []

    def _run(self, x: tp.Any) -> tp.Any:
        return str(x)[:20]


class Study(steps.Step):
    """Stands for itself and its transforms."""

    size: int = 2
    transforms: list[steps.Step] = []

    def _run(self) -> list[int]:
        return list(range(self.size))

    def _resolve_step(self) -> steps.Step:
        if not self.transforms:
            return self
        return steps.Chain(steps=[self.model_copy(update={"transforms": []}), *self.transforms])


class Keyed(steps.Step):
    """Names its items."""

    prefix: str = "key"

    def item_uid(self, value: tp.Any) -> str:
        return f"{self.prefix}-{value}"

    def _run(self, x: tp.Any) -> tp.Any:
        return str(x)[:20]


class AStepWithARatherLongNameThatFillsAddresses(steps.Step):
    value: int = 0
    name_of_the_thing: str = "thing"

    def _run(self, x: tp.Any) -> tp.Any:
        return str(x)[:20]


class Base(steps.Step, discriminator_key="name"):
    scale: float = 1.0

    def _run(self, x: tp.Any) -> tp.Any:
        return str(x)[:20]


class Special(Base):
    extra: int = 0


class BaseChain(steps.Chain, Base):
    """The chain of the second hierarchy."""


class Outer(steps.Step):
    part: Base = Special()

    def _run(self, x: tp.Any) -> tp.Any:
        return str(x)[:20]


def shortened(text: tp.Any, width: int = 8, name: str = "x") -> str:
    return str(text)[:width]


def made(width: int = 8) -> int:
    return width


__all__ = [
    "AStepWithARatherLongNameThatFillsAddresses",
    "Base",
    "BaseChain",
    "Holder",
    "Inner",
    "Keyed",
    "Load",
    "Optional",
    "OrderedDict",
    "Outer",
    "Path",
    "Plus",
    "Required",
    "Special",
    "Study",
    "Text",
    "made",
    "shortened",
    "steps",
]
