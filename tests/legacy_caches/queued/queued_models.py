"""Configurations whose jobs a release queued before it was replaced (public API only)."""

import sys
import typing as tp

import pydantic

import exca
import exca.steps


class Conv(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["conv"] = "conv"
    layers: int = 12


class Linear(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["linear"] = "linear"


class Task(pydantic.BaseModel):
    x: int = 1
    model: Conv | Linear = pydantic.Field(default=Conv(), discriminator="name")
    more: list[Conv] = []
    infra: exca.TaskInfra = exca.TaskInfra(version="1")

    @infra.apply
    def compute(self) -> int:
        if self.x < 0:
            raise ValueError(f"x={self.x} is too small")
        layers = self.model.layers if isinstance(self.model, Conv) else 0
        return self.x + layers + sum(m.layers for m in self.more)


class Map(pydantic.BaseModel):
    x: int = 1
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield item * self.x


class Calls(pydantic.BaseModel):
    x: int = 1
    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def add(self, y: int, z: int = 0) -> int:
        return self.x + y + z


class Times(exca.steps.Step):
    coeff: int = 2

    def _run(self, value: int) -> int:
        return value * self.coeff


TASKS: list[dict[str, tp.Any]] = [
    {"x": 3, "model": {"name": "linear"}, "more": [{"layers": 2}]},
    {"x": -1},
]


def write() -> None:
    """Submit to a partition that is down, in the current folder, and end."""
    import os
    import threading
    import time

    infra: dict[str, tp.Any] = {"folder": "cache", "cluster": "slurm", "slurm_partition": "down", "timeout_min": 5}
    for kwargs in TASKS:
        Task(**kwargs, infra=infra).infra.job()
    Calls(x=2, infra=infra).infra.submit(3, z=4)
    step = Times(infra={"backend": "Slurm", "folder": "cache", "partition": "down", "timeout_min": 5})
    for wait in (
        lambda: list(Map(x=5, infra={**infra, "max_jobs": 1}).process([1, 2])),
        lambda: step.run(3),
    ):
        threading.Thread(target=wait, daemon=True).start()
    time.sleep(15)
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, sys.path[0])
    write()
