"""Tasks: identity, cached calls, arrays, one task in a process of its own."""

import os
import statistics
import subprocess
import sys
import time
import typing as tp
from collections.abc import Sequence
from pathlib import Path

import pydantic

import exca
from registry import aside, peak_memory, row, seconds, seconds_per_call

TASKS = 200
SWEEP = "sweep of 20 tasks, in process, first time"
MANY = 8_000


class Data(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = "digits"
    seed: int = 0


class Conv(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["conv"] = "conv"
    layers: int = 12
    kernel: int = 5


class Transformer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: tp.Literal["transformer"] = "transformer"
    layers: int = 12
    embeddings: int = 128


class Trainer(pydantic.BaseModel):
    """Two nested models, one of them in a discriminated union, a list and a dict."""

    data: Data = Data()
    model: Conv | Transformer = pydantic.Field(default=Conv(), discriminator="name")
    sizes: list[int] = [1, 2, 3]
    options: dict[str, float] = {}
    optimizer: str = "Adam"
    epochs: int = 10
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> float:
        return self.data.seed + 0.5


def trainer(folder: Path, seed: int, **infra: tp.Any) -> Trainer:
    """Return an object that differs from its defaults in every kind of field."""
    return Trainer.model_validate(
        {
            "data": {"seed": seed},
            "model": {"name": "transformer", "embeddings": 256},
            "sizes": [4, 5, 6],
            "options": {"rate": 0.1, "decay": 0.01},
            "optimizer": "SGD",
            "infra": {"folder": folder, **infra},
        }
    )


def cached_tasks(folder: Path) -> None:
    for seed in range(TASKS):
        assert trainer(folder, seed).run() == seed + 0.5


def import_seconds(statement: str) -> float:
    """Return the time of a statement in a new interpreter that has imported pydantic."""
    code = f"import time, pydantic; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    times = [float(subprocess.check_output(command, text=True)) for _ in range(8)]
    return statistics.median(times[1:])  # the first one may compile


@row("import exca (beyond import pydantic)", bar=8)
def import_exca(folder: Path) -> float:
    return import_seconds("import exca")


@row("import exca and touch TaskInfra (beyond import pydantic)")
def import_task_infra(folder: Path) -> float:
    return import_seconds("import exca; exca.TaskInfra")


@row("uid of a new object", bar=50)
def uid_of_new_object(folder: Path) -> float:
    objects = [trainer(folder, seed) for seed in range(TASKS + 1)]
    warm_up = objects.pop().infra.uid()
    uids: list[str] = []
    took = seconds(lambda: uids.extend(obj.infra.uid() for obj in objects))
    assert len({*uids, warm_up}) == TASKS + 1
    return took / TASKS


@row("cached call through a new object", bar=50, stage=cached_tasks)
def cached_call_new_object(folder: Path) -> float:
    """What a script does when it is run again: build the object, ask for its result."""
    assert trainer(folder, 0).run() == 0.5
    results: list[float] = []
    took = seconds(lambda: results.extend(trainer(folder, seed).run() for seed in range(1, TASKS)))
    assert results == [seed + 0.5 for seed in range(1, TASKS)]
    return took / (TASKS - 1)


@row("cached call, same object, from disk", bar=2.5, stage=cached_tasks)
def cached_call_same_object(folder: Path) -> float:
    obj = trainer(folder, 7, keep_in_ram=False)
    assert obj.run() == 7.5
    return seconds_per_call(obj.run, 2000)


@row("cached call, same object, keep_in_ram", bar=1, stage=cached_tasks)
def cached_call_in_ram(folder: Path) -> float:
    obj = trainer(folder, 7, keep_in_ram=True)
    assert obj.run() == 7.5
    return seconds_per_call(obj.run, 200_000)


@row("clone_obj of one field", bar=2.5)
def clone_one_field(folder: Path) -> float:
    obj = trainer(folder, 0)
    assert obj.infra.clone_obj({"data.seed": 3}).data.seed == 3
    return seconds_per_call(lambda: obj.infra.clone_obj({"data.seed": 3}), 500)


@row("status()", bar=2, stage=cached_tasks)
def status(folder: Path) -> float:
    obj = trainer(folder, 9)
    assert obj.infra.status() == "completed"
    return seconds_per_call(obj.infra.status, 2000)


@row("job_array of 1,000 tasks, in process, first time", bar=8)
def job_array(folder: Path) -> float:
    base = trainer(folder, 0, cluster=None)
    assert base.run() == 0.5
    clones = [base.infra.clone_obj({"data.seed": seed}) for seed in range(1, 1001)]
    results: list[float] = []

    def submit_and_read() -> None:
        with base.infra.job_array() as array:
            array.extend(clones)
        results.extend(clone.run() for clone in clones)

    took = seconds(submit_and_read)
    assert results == [seed + 0.5 for seed in range(1, 1001)]
    return took


@row(SWEEP)
def sweep(folder: Path) -> float:
    base = trainer(folder, 0)
    assert base.run() == 0.5
    results: list[float] = []

    def submit_and_read() -> None:
        with base.infra.job_array() as array:
            array.extend(base.infra.clone_obj({"data.seed": seed}) for seed in range(1, 21))
        results.extend(task.run() for task in array)

    took = seconds(submit_and_read)
    assert results == [seed + 0.5 for seed in range(1, 21)]
    return took


@row('one task through cluster="local"', bar=3)
def local_task(folder: Path) -> float:
    assert trainer(folder, 0, cluster="local").run() == 0.5
    return statistics.median(seconds(trainer(folder, seed, cluster="local").run) for seed in range(1, 4))


def many_cached_tasks(folder: Path) -> None:
    for seed in range(MANY):
        assert trainer(folder, seed).run() == seed + 0.5


@row("job_array of 8,000 cached tasks, per task", limit=120e-6, stage=many_cached_tasks, rounds=3)
def cached_job_array(folder: Path) -> float:
    base = trainer(folder, 0)
    assert base.run() == 0.5
    clones = [trainer(folder, seed) for seed in range(1, MANY)]

    def submit() -> None:
        with base.infra.job_array() as array:
            array.extend(clones)

    took = seconds(submit)
    assert clones[77].run() == 78.5
    return took / MANY


@row(
    "job_array of 8,000 cached tasks: memory per task",
    unit="B",
    limit=2000,
    stage=many_cached_tasks,
    rounds=1,
)
def cached_job_array_memory(folder: Path) -> float:
    """Beyond the objects, of which the caller has made the uids."""
    base = trainer(folder, 0)
    assert base.run() == 0.5
    clones = [trainer(folder, seed) for seed in range(1, MANY)]
    for clone in clones:
        clone.infra.uid()

    def submit() -> None:
        with base.infra.job_array() as array:
            array.extend(clones)

    return peak_memory(submit) / MANY


@row("iter_cached of 8,000 tasks, per entry", limit=300e-6, stage=many_cached_tasks, rounds=3)
def iterate(folder: Path) -> float:
    base = trainer(folder, 0)
    assert base.run() == 0.5
    seen: list[int] = []
    took = seconds(lambda: seen.append(sum(1 for _ in base.infra.iter_cached())))
    assert seen == [MANY]
    return took / MANY


def hundred_thousand_tasks(folder: Path) -> None:
    for seed in range(100_000):
        trainer(folder, seed).run()


@row(
    "iter_cached, first object among 100,000",
    limit=0.050,
    stage=hundred_thousand_tasks,
    rounds=3,
    beside=False,
)
def first_of_many(folder: Path) -> float:
    assert len(list(trainer(aside(folder), 0).infra.iter_cached())) == 0
    base = trainer(folder, 0)
    assert base.run() == 0.5
    return seconds(lambda: next(iter(base.infra.iter_cached())))


PLAIN = """
import time, pydantic
start = time.perf_counter()
class Plain(pydantic.BaseModel):
    x: int = 1
    def run(self) -> int:
        return self.x
Plain(x=3).run()
print(time.perf_counter() - start)
"""
TASK = """
import time, pydantic
start = time.perf_counter()
import exca
class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()
    @infra.apply
    def run(self) -> int:
        return self.x
made = time.perf_counter()
Task(x=3, infra={infra}).run()
now = time.perf_counter()
print(now - {since})
"""


def statement_seconds(code: str) -> float:
    """Return what a program prints, in a new interpreter: the median of several."""
    command = [sys.executable, "-c", code]
    times = [float(subprocess.check_output(command, text=True)) for _ in range(8)]
    return statistics.median(times[1:])  # the first one may compile


@row("first use of a class with an infra, no folder, new process, beyond plain pydantic", limit=0.035)
def first_use(folder: Path) -> float:
    ours = statement_seconds(TASK.format(infra={}, since="start"))
    return ours - statement_seconds(PLAIN)


MODULE = """
import pydantic
import exca
class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(folder={folder!r})
    @infra.apply
    def run(self) -> int:
        return self.x
"""
IN_MODULE = """
import time, sys
sys.path.insert(0, {folder!r})
import study
start = time.perf_counter()
study.Task(x={x}, infra={infra}).run()
print(time.perf_counter() - start)
"""


def module_seconds(folder: Path, numbers: Sequence[int], **infra: tp.Any) -> list[float]:
    """Return what a call takes through a class of a module, in a new interpreter for each number."""
    code = IN_MODULE.format(folder=str(folder), infra=infra, x="{x}")
    commands = [[sys.executable, "-c", code.replace("{x}", str(x))] for x in numbers]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return [float(subprocess.check_output(command, text=True, env=env)) for command in commands]


def module_in(folder: Path) -> Path:
    """Write the module, and wait until files of its age are believed to be what is imported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.py").write_text(MODULE.format(folder=str(folder / "cache")))
    time.sleep(2.5)
    module_seconds(folder, [0])  # byte code is written, and the digest of the code found
    return folder


@row("first call with a folder, new process", limit=0.028)
def first_call(folder: Path) -> float:
    return statistics.median(module_seconds(module_in(aside(folder)), range(10, 17)))


@row("cached call in a new process, what comparing code adds", limit=0.001, beside=False)
def code_compared(folder: Path) -> float:
    place = module_in(aside(folder))
    with_code, without = [], []
    for _ in range(15):
        with_code += module_seconds(place, [0])
        without += module_seconds(place, [0], code="off")
    return statistics.median(with_code) - statistics.median(without)
