"""What users write around their configurations, as type checkers see it: marked as `user_infras.py` is."""

import typing as tp
from pathlib import Path

import numpy as np
import pydantic

import exca
from exca import steps
from exca.cachedict import CacheDict


class Train(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(version="1")

    @infra.apply
    def compute(self) -> int:
        exca.log_metrics(3, loss=0.5)
        exca.log_metrics("three", loss=0.5)  # E: arg-type, reportArgumentType
        reveal_type(exca.current())  # R: Current
        return 2 * self.x


class Halve(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: tp.Iterable[int]) -> tp.Iterator[float]:
        for item in items:
            yield item / 2


train = Train()

# Many tasks, and their jobs. What is copied is known to checkers no more: no infra knows the class that it is on
reveal_type(train.infra.clone_obj({"x": 3}))  # R: Any
reveal_type(train.infra.clone_obj(x=3))  # R: Any
with train.infra.job_array(max_workers=4) as array:
    reveal_type(array)  # R: JobArray
    array.append(train.infra.clone_obj(x=3))
reveal_type([each.compute() for each in array])  # R: list[Any]
reveal_type(array.jobs())  # R: list[Job[Any]]
reveal_type(array.status())  # R: Statuses
reveal_type(array.retry(only="lost"))  # R: list[Job[Any]]
array.retry(only="all")  # E: arg-type, reportArgumentType
with train.infra.job_array(max_worker=4) as array:  # E: call-arg, reportCallIssue
    pass
reveal_type(train.infra.iter_cached())  # R: Iterator[Any]
reveal_type(list(exca.as_completed([train.infra.job()])))  # R: list[Job[Any]]
done, waiting = exca.wait([train.infra.job()], timeout=3)
reveal_type(done)  # R: list[Job[Any]]
exca.wait(train)  # E: type-var, reportArgumentType
train.infra.clone_obj(3)  # E: arg-type, reportArgumentType

# Executors
with exca.Executor("cache", cluster="slurm", mem_gb=4) as executor:
    reveal_type(executor.submit(len, "abc"))  # R: JobFuture[int]
    reveal_type(executor.submit(len, "abc").result())  # R: int
    reveal_type(list(executor.map(len, ["abc"])))  # R: list[int]
    executor.submit(len, 3)  # E: arg-type, reportArgumentType
exca.Executor("cache", clutser="slurm")  # E: call-arg, reportCallIssue

# Caches of one's own
cache: CacheDict[np.ndarray] = CacheDict(folder="cache", keep_in_ram=True)
reveal_type(cache["a"])  # R: ndarray[tuple[Any, ...], dtype[Any]]
reveal_type(cache.get("a"))  # R: ndarray[tuple[Any, ...], dtype[Any]] | None
reveal_type(list(cache.items()))  # R: list[tuple[str, ndarray[tuple[Any, ...], dtype[Any]]]]
with cache.writer() as writer:
    writer["a"] = np.zeros(3)
    writer[3] = np.zeros(3)  # E: index, reportArgumentType
cache["a"] = "text"  # E: assignment, reportArgumentType
cache[3]  # E: index, reportArgumentType
CacheDict(folder=3)  # E: arg-type, reportArgumentType

# Looking, asking, tidying
reveal_type(exca.verify("cache"))  # R: Report
reveal_type(exca.repair(Path("cache"), orphans=True))  # R: Repairs
reveal_type(exca.why(train))  # R: Why
reveal_type(exca.accept(train, why="a rename"))  # R: list[Acceptance]
exca.accept(train)  # E: call-arg, reportCallIssue
reveal_type(exca.table("cache"))  # R: DataFrame
exca.verify(3)  # E: arg-type, reportArgumentType
exca.settings.allow("look-alike", Train)
exca.settings.allow(3)  # E: arg-type, reportArgumentType
reveal_type(exca.ConfDict({"a.b": 3}))  # R: ConfDict
reveal_type(exca.ConfDict({"a": 3}).to_uid())  # R: str
exca.ConfDict(3)  # E: arg-type, reportArgumentType
reveal_type(exca.__version__)  # R: str


# Pipelines
class Scale(steps.Step):
    factor: float = 2.0

    def _run(self, value: float) -> float:
        return value * self.factor


chain = steps.Chain(steps=[Scale(), Scale(factor=3)])
reveal_type(chain.run(1.0))  # R: Any
reveal_type(chain.run_many([1.0]))  # R: StepItems
reveal_type(chain.plan([1.0]))  # R: Plan
reveal_type(Scale(factor=2).run(3.0))  # R: Any
Scale(factor="much")  # E: arg-type, reportArgumentType
Scale(fcator=2.0)  # E: call-arg, reportCallIssue
