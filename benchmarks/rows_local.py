"""Tasks in processes of this machine: arrays, and one after another."""

import statistics
import sys
import time
import typing as tp
from pathlib import Path

import pydantic

import exca
from registry import row, seconds
from rows_tasks import trainer

TASKS = 100
FEW = 20


@row('array of 100 trivial tasks, cluster="local"', limit=3, bar=8, rounds=1)
def array(folder: Path) -> float:
    base = trainer(folder, 0, cluster="local")
    clones = [base.infra.clone_obj({"data.seed": seed}) for seed in range(TASKS)]
    results: list[float] = []

    def submit_and_read() -> None:
        with base.infra.job_array() as jobs:
            jobs.extend(clones)
        results.extend(clone.run() for clone in clones)

    took = seconds(submit_and_read)
    assert results == [seed + 0.5 for seed in range(TASKS)]
    return took


@row('one trivial task, cluster="local", after another one', limit=0.12, bar=3)
def next_task(folder: Path) -> float:
    """What it takes beyond its computation, which is nothing."""
    assert trainer(folder, 0, cluster="local").run() == 0.5
    time.sleep(1)
    return statistics.median(seconds(trainer(folder, seed, cluster="local").run) for seed in range(1, 8))


class Program(pydantic.BaseModel):
    """Returns what its process was started with."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> str:
        return Path("/proc/self/cmdline").read_text()


@row("interpreters that an array of 20 local tasks starts", unit="", limit=1, rounds=1)
def interpreters(folder: Path) -> float:
    base = Program(infra=tp.cast(tp.Any, {"folder": folder, "cluster": "local"}))
    with base.infra.job_array() as tasks:
        tasks.extend(base.infra.clone_obj({"x": x}) for x in range(FEW))
    return len({task.run() for task in tasks})


WITH_TORCH = """
import torch
import pydantic
import exca
class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()
    @infra.apply
    def run(self) -> float:
        return float(torch.ones(self.x).sum())
"""


@row("array of 20 local tasks whose module imports torch, per task", limit=0.15, rounds=1)
def array_with_torch(folder: Path) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "with_torch.py").write_text(WITH_TORCH)
    sys.path.insert(0, str(folder))
    import with_torch  # type: ignore[import-not-found] # written just now

    base = with_torch.Task(infra={"folder": folder / "cache", "cluster": "local"})
    clones = [base.infra.clone_obj({"x": x}) for x in range(1, FEW + 1)]

    def submit_and_read() -> None:
        with base.infra.job_array() as tasks:
            tasks.extend(clones)
        assert [clone.run() for clone in clones] == list(range(1, FEW + 1))

    return seconds(submit_and_read) / FEW
