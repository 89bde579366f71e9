"""A sweep on a real Slurm: these rows run only when asked for by name (`--only slurm`)."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import exca
from registry import row, seconds
from rows_tasks import Trainer, trainer

TASKS = 300
PACKED, PER_JOB, JOBS_AT_ONCE = 2000, 25, 8
QUERIES = ("squeue", "sacct", "scontrol")


def count_queries(folder: Path) -> Path:
    """Put commands in front of the scheduler's own that write a line to a file and go on to them; return the file."""
    log, commands = folder / "queries.txt", folder / "commands"
    commands.mkdir(parents=True)
    log.touch()
    for name in QUERIES:
        real = shutil.which(name)
        if real is None:
            raise RuntimeError(f"no {name} on the PATH: this row needs Slurm")
        (commands / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nexec {real} "$@"\n')
        (commands / name).chmod(0o755)
    os.environ["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"
    return log


def waiting(folder: Path, seed: int) -> Trainer:
    """Return a task that Slurm does not start within the hour."""
    later = {"begin": "now+3600"}
    return trainer(
        folder, seed, cluster="slurm", slurm_additional_parameters=later, job_name=folder.parent.name
    )


def submit(folder: Path, tasks: int) -> None:
    base = waiting(folder, 0)
    with base.infra.job_array(max_workers=tasks) as array:
        array.extend(base.infra.clone_obj({"data.seed": seed}) for seed in range(1, tasks + 1))


def read_states(folder: Path, tasks: int) -> None:
    states = [waiting(folder, seed).infra.status() for seed in range(1, tasks + 1)]
    assert states == ["running"] * tasks, set(states)


def cancel(folder: Path) -> None:
    subprocess.run(["scancel", f"--name={folder.parent.name}"], check=True)


@row(f"{TASKS:,} Slurm tasks: submit, per task", rounds=1)
def submit_per_task(folder: Path) -> float:
    try:
        return seconds(lambda: submit(folder, TASKS)) / TASKS
    finally:
        cancel(folder)


@row(f"{TASKS:,} Slurm tasks: read all states, per task", rounds=1)
def states_per_task(folder: Path) -> float:
    try:
        submit(folder, TASKS)
        return seconds(lambda: read_states(folder, TASKS)) / TASKS
    finally:
        cancel(folder)


@row(f"{TASKS:,} Slurm tasks: scheduler queries to read all states", unit="", limit=1, rounds=1)
def queries(folder: Path) -> float:
    log = count_queries(folder.with_name("shims"))
    try:
        submit(folder, TASKS)
        log.write_text("")
        read_states(folder, TASKS)
        return len(log.read_text().splitlines())
    finally:
        cancel(folder)


@row(f"{TASKS:,} trivial Slurm tasks: from call to all results", than=("submitit", 1), rounds=1)
def trivial_tasks(folder: Path) -> float:
    base = trainer(folder, 0, cluster="slurm", job_name=folder.parent.name)
    results: list[float] = []

    def submit_and_read() -> None:
        with base.infra.job_array(max_workers=TASKS) as array:
            array.extend(base.infra.clone_obj({"data.seed": seed}) for seed in range(1, TASKS + 1))
        results.extend(task.run() for task in array)

    try:
        took = seconds(submit_and_read)
    finally:
        cancel(folder)
    assert results == [seed + 0.5 for seed in range(1, TASKS + 1)]
    return took


@row(
    f"{PACKED:,} Slurm tasks in packed jobs: queries per 2 s, until all are collected",
    unit="",
    limit=1,
    rounds=1,
)
def queries_of_packed_tasks(folder: Path) -> float:
    log = count_queries(folder.with_name("shims-packed"))
    start = time.monotonic()
    base = trainer(folder, 0, cluster="slurm", tasks_per_job=PER_JOB)
    with base.infra.job_array(max_workers=JOBS_AT_ONCE) as array:
        array.extend(base.infra.clone_obj({"data.seed": seed}) for seed in range(1, PACKED + 1))
    exca.wait([task.infra.job() for task in array])
    for task in array:
        task.run()
    return 2 * len(log.read_text().splitlines()) / (time.monotonic() - start)
