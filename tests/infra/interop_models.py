"""Configurations whose folders this release writes and the published release reads, importable by both."""

import typing as tp

import pydantic

import exca
from exca import steps


class InteropLoad(steps.Step):
    """A step with a backend of its own."""

    x: int = 1

    def _run(self) -> int:
        return self.x


class Part(pydantic.BaseModel):
    """A part with an infra of its own."""

    y: int = 1
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield self.y * item


class Whole(pydantic.BaseModel):
    """A task that holds all kinds of infras."""

    x: int = 1
    part: Part = Part()
    load: InteropLoad
    more: list[InteropLoad] = []
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return self.x
