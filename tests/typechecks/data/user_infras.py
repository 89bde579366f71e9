"""A user's configurations, as type checkers see them.

Behind a line stands what the checkers must say of it: ``# R: type`` of a revealed type, ``# E: mypy's code,
pyright's rule`` of an error. What is not marked must pass.
"""

import typing as tp

import pydantic

import exca


class Train(pydantic.BaseModel):
    """Two tasks on one class, the second with options."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(version="1")
    report_infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def compute(self) -> int:
        """Twice x."""
        return 2 * self.x

    @report_infra.apply(exclude_from_cache_uid=("x",))
    def report(self) -> list[str]:
        return [str(self.compute())]


class Child(Train):
    """Overrides a task with an infra of its own."""

    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def compute(self) -> int:
        return super().compute() + 1


class Halve(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: tp.Iterable[int]) -> tp.Iterator[float]:
        for item in items:
            yield item / 2


class Remote(pydantic.BaseModel):
    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def add(self, a: int, *, b: float = 1.0) -> float:
        return a + b


class Static(pydantic.BaseModel):
    _infra: exca.SubmitInfra = exca.SubmitInfra()

    @_infra.apply
    @staticmethod
    def text(a: int) -> str:
        return str(a)


# A task keeps its type, on the class and on the object
train = Train(x=1, infra=exca.TaskInfra(folder="cache", cluster="local", cpus_per_task=2))
reveal_type(train.compute)  # R: () -> int
reveal_type(train.compute())  # R: int
reveal_type(Train.compute)  # R: (self: Train) -> int
reveal_type(train.report())  # R: list[str]
reveal_type(Child().compute())  # R: int
train.compute(3)  # E: call-arg, reportCallIssue
train.compute(x=3)  # E: call-arg, reportCallIssue
train.compute().upper()  # E: attr-defined, reportAttributeAccessIssue
text: str = train.compute()  # E: assignment, reportAssignmentType

# So does a map
reveal_type(Halve().process)  # R: (items: Iterable[int]) -> Iterator[float]
reveal_type(Halve().process([1, 2]))  # R: Iterator[float]
Halve().process(["a"])  # E: list-item, reportArgumentType
Halve().process(3)  # E: arg-type, reportArgumentType
Halve().process()  # E: call-arg, reportCallIssue

# And a method with arguments, also a static one
reveal_type(Remote().add)  # R: (a: int, *, b: float = ...) -> float
Remote().add(1, b=2.5)
Remote().add("a")  # E: arg-type, reportArgumentType
Remote().add(1, c=2)  # E: call-arg, reportCallIssue
reveal_type(Static().text(3))  # R: str
Static().text("a")  # E: arg-type, reportArgumentType

# What the infras hand out
reveal_type(train.infra.status())  # R: Literal['not submitted', 'running', 'completed', 'failed']
reveal_type(train.infra.uid())  # R: str
reveal_type(train.infra.uid_folder())  # R: Path | None
reveal_type(train.infra.job())  # R: Job[Any]
reveal_type(train.infra.job().done())  # R: bool
reveal_type(Remote().infra.submit(3, b=2.0))  # R: Job[Any]
train.infra.unknown()  # E: attr-defined, reportAttributeAccessIssue

# Fields are checked too. A dict becomes an infra at run time, and is an error in typed code:
# write exca.TaskInfra(...), or let pydantic take the whole configuration
exca.TaskInfra(cluster="of another package")
exca.TaskInfra(cluster=3)  # E: arg-type, reportArgumentType
exca.MapInfra(cluster="threadpool", max_jobs=None)
exca.TaskInfra(cpus=4)  # E: call-arg, reportCallIssue
Train(x=1, infra={"folder": "cache"})  # E: arg-type, reportArgumentType
Train.model_validate({"x": 1, "infra": {"folder": "cache"}})


class Wrong(pydantic.BaseModel):
    """A task takes nothing but self."""

    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply  # E: type-var, reportArgumentType
    def compute(self, x: int) -> int:
        return x
