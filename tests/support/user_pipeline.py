"""A pipeline as its users write it: read by the type checkers, and run."""

import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic

from exca import steps
from exca.steps.backends import Backend, Cached, Slurm
from exca.steps.helpers import Func, Parallel
from exca.steps.patterns import BranchResult, Scatter


class Draw(steps.Step):
    size: int = 3

    def _run(self) -> list[float]:
        return [float(k) for k in range(self.size)]


class Shift(steps.Step):
    by: float = 1.0
    infra: Backend | None = Cached(keep_in_ram=True)

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid()]

    def item_uid(self, value: list[float]) -> str:
        return ",".join(map(str, value))

    def _run(self, values: list[float]) -> list[float]:
        return [value + self.by for value in values]


class Sum(steps.Step):
    transforms: list[steps.Step] = []

    def _run_batch(self, values: Iterator[list[float]]) -> Iterator[float]:
        for value in values:
            yield sum(value)

    def _resolve_step(self) -> steps.Step:
        if not self.transforms:
            return self
        return steps.Chain(steps=[*self.transforms, self.model_copy(update={"transforms": []})])


class Each(Scatter):
    body: steps.Step

    def branches(self, item: list[float]) -> list[int]:
        return list(range(len(item)))

    def take(self, item: list[float], branch: int) -> float:
        return item[branch]

    def gather(self, results: tp.Iterable[BranchResult]) -> list[float]:
        return [result.result for result in results]


class Experiment(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    pipeline: steps.Step


def pipelines(folder: Path) -> list[steps.Step]:
    infra: dict[str, tp.Any] = {"backend": "Cached", "folder": folder}
    plain = steps.Chain(steps=[Draw(size=4), Shift(by=2), {"type": "Sum"}], infra=infra)
    named = steps.Chain(steps={"draw": Draw(), "sum": Sum(transforms=[Shift()])}, infra=Cached(folder=folder))
    each = steps.Chain(steps=[Draw(), Each(body=Func(function="math.sqrt"))], infra=infra)
    return [plain, named, each, plain.clone({"steps.0.size": 2})]


def use(folder: Path) -> list[tp.Any]:
    first, *_ = found = pipelines(folder)
    results = [step.run() for step in found]
    handle = first.lookup()
    assert handle.status == "success"
    path: Path = handle.paths.step_folder
    assert path.exists()
    assert first.plan().compute == 0
    text: str = first.show()
    assert "Draw" in text
    Parallel(steps=[Shift(by=1), Shift(by=2)], infra=Cached(folder=folder)).run([1.0])
    assert Slurm(partition="a").derive("Cached", folder=folder).folder == folder
    return results
