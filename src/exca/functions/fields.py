"""The fields of infras, as keyword arguments of the decorators: for type checkers."""

import collections.abc
import typing as tp
from pathlib import Path

from ..jobs.workdir import WorkDir


class SubmitFields(tp.TypedDict, total=False):
    """Fields of a `SubmitInfra` but the folder."""

    cluster: str | None
    logs: Path | str
    job_name: str | None
    timeout_min: int | None
    nodes: int
    tasks_per_node: int
    cpus_per_task: int | None
    gpus_per_node: int | None
    mem_gb: float | None
    tasks_per_job: int | None
    concurrent_per_job: int | None
    gpus_per_task: float | None
    retries: int
    retry_on: tuple[str, ...] | list[str]
    retry_scale: dict[str, float | tuple[float, float]] | None
    retry_backoff_s: float
    max_requeues: int
    slurm_signal_delay_s: int
    notify: str | tuple[str, ...] | list[str] | None
    max_pickle_size_gb: float | None
    slurm_constraint: str | None
    slurm_partition: str | None
    slurm_account: str | None
    slurm_qos: str | None
    slurm_use_srun: bool
    slurm_additional_parameters: dict[str, int | str | float | bool] | None
    slurm_setup: list[str] | None
    conda_env: Path | str | None
    futures_executor: tp.Any
    dask_address: str | None
    dask_cluster: dict[str, tp.Any] | None
    workdir: WorkDir | dict[str, tp.Any] | None
    version: str
    code: tp.Literal["off", "warn", "strict"]
    code_roots: tuple[str, ...]
    code_packages: tuple[str, ...]


class _Fields(SubmitFields, total=False):
    keep_in_ram: bool


class TaskFields(_Fields, total=False):
    """Fields of a `TaskInfra` but the folder."""

    after: collections.abc.Sequence[tp.Any] | None
    mode: tp.Literal["cached", "retry", "force", "read-only"]


class MapFields(_Fields, total=False):
    """Fields of a `MapInfra` but the folder."""

    mode: tp.Literal["cached", "force", "read-only"]
    max_jobs: int | None
    min_samples_per_job: int
    forbid_single_item_computation: bool
