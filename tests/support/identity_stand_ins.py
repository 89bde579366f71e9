"""Models that the tests of identity share."""

import typing as tp

import pydantic


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Part(Strict):
    k: int = 1
    m: int = 2


class Conv(Strict):
    name: tp.Literal["conv"] = "conv"
    layers: int = 12


class Dense(Strict):
    name: tp.Literal["dense"] = "dense"
    width: int = 128


Model = tp.Annotated[Conv | Dense, pydantic.Field(discriminator="name")]


class Placed(Strict):
    """Stands for an infra: everything but the version is left out."""

    folder: str | None = None
    cpus: int = 1
    version: str = "0"
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("folder", "cpus")
