"""A little study that the tests of the command line run, and the folder that it leaves."""

import typing as tp
from pathlib import Path

import pydantic

import exca


class Network(pydantic.BaseModel):
    """One kind of model."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["network"] = "network"
    layers: int = 2


class Linear(pydantic.BaseModel):
    """The other kind."""

    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["linear"] = "linear"


class Train(pydantic.BaseModel):
    """A training."""

    rate: float = 0.5
    title: str = ""
    model: Network | Linear = pydantic.Field(Network(), discriminator="name")
    infra: exca.TaskInfra = exca.TaskInfra(version="1")

    @infra.apply
    def loss(self) -> float:
        """Diverge for large rates."""
        if self.rate > 5:
            raise ValueError("diverged")
        return self.rate / getattr(self.model, "layers", 1)


class Squares(pydantic.BaseModel):
    """A map."""

    shift: int = 0
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def of(self, numbers: tp.Iterable[int]) -> tp.Iterator[int]:
        """Return the squares of numbers."""
        for number in numbers:
            yield number**2 + self.shift


def train(folder: Path, **fields: tp.Any) -> Train:
    """Return a training with results in a folder."""
    return Train.model_validate({**fields, "infra": {"folder": folder, **fields.pop("infra", {})}})


def make(folder: Path) -> None:
    """Fill a folder: six trainings, of which two fail, and three squares."""
    folder.mkdir(exist_ok=True)
    for rate in (0.5, 1.0, 9.0):
        for layers in (4, 8):
            try:
                train(folder, rate=rate, model={"name": "network", "layers": layers}).loss()
            except ValueError:
                continue
    list(Squares.model_validate({"shift": 1, "infra": {"folder": folder}}).of([1, 2, 3]))
