"""What the tests of searches search, with fields of all kinds that have bounds or choices."""

import enum
import time
import typing as tp
from pathlib import Path

import pydantic

import exca


class Colour(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Tree(pydantic.BaseModel):
    """One variant."""

    model_config = pydantic.ConfigDict(extra="forbid")
    kind: tp.Literal["tree"] = "tree"
    depth: int = pydantic.Field(default=3, ge=1, le=6)


class Net(pydantic.BaseModel):
    """Another one, with a field of the same name, and other bounds."""

    model_config = pydantic.ConfigDict(extra="forbid")
    kind: tp.Literal["net"] = "net"
    depth: int = pydantic.Field(8, ge=8, le=64, multiple_of=8)
    dropout: float = pydantic.Field(0.0, ge=0, lt=1)
    label: str = ""


class Optimizer(exca.helpers.DiscriminatedModel, discriminator_key="name"):
    """A hierarchy."""


class Sgd(Optimizer):
    """One of it."""

    momentum: float = pydantic.Field(default=0.9, ge=0, le=1)


class Adam(Optimizer):
    """One of it."""

    beta: float = pydantic.Field(0.9, ge=0.5, le=1)


class Task(pydantic.BaseModel):
    """What is searched."""

    rate: float = pydantic.Field(0.1, gt=0, le=10)
    width: tp.Annotated[int, pydantic.Field(ge=1, le=8)] | None = None
    colour: Colour = Colour.RED
    fast: bool = False
    size: tp.Literal["s", "m", "l"] | None = "s"
    free: float = 0.0
    title: str = ""
    model: Tree | Net = pydantic.Field(Tree(), discriminator="kind")
    optimizer: Optimizer = Sgd()
    file: Path | None = None
    gate: Path | None = None
    infra: exca.TaskInfra = exca.TaskInfra()

    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("file", "gate")

    @infra.apply
    def run(self) -> dict[str, tp.Any]:
        """A bowl around 2; what is computed is noted in a file, and may wait until another one is there."""
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(f"{self.rate:.9g}\n")
        while self.gate is not None and not self.gate.exists():
            time.sleep(0.01)
        if self.rate > 8:
            raise ValueError("diverged")
        return {"loss": {"test": (self.rate - 2) ** 2}, "nan": float("nan"), "text": "x"}


class Curve(pydantic.BaseModel):
    """A training that logs what it has reached."""

    level: int = pydantic.Field(0, ge=0, le=7)
    infra: exca.TaskInfra = exca.TaskInfra(cluster="local")

    @infra.apply
    def run(self) -> float:
        """Bad ones would go on for long."""
        for step in range(3):
            exca.log_metrics(step, loss=float(self.level))
        if self.level >= 4:
            time.sleep(100)
        return float(self.level)
