"""Where a computation runs and with what: the fields that every infra shares."""

import functools
import logging
import typing as tp
from pathlib import Path

import pydantic

from .. import _files

logger: logging.Logger = logging.getLogger("exca")


@functools.cache
def warn_of_no_folder() -> None:
    """Tell, once, that results are not kept: an empty ``folder:`` in YAML is null."""
    logger.warning(
        "An infra was given folder=None: its results are not kept. Leave out 'folder' if that is meant."
    )


def require_one_line(value: tp.Any, field: str) -> None:
    """Refuse what would end its line in the batch script: a value, or a dict of them, with control characters."""
    parts = [*value, *value.values()] if isinstance(value, dict) else [value]
    for part in parts:
        if isinstance(part, str) and not part.isprintable():
            raise ValueError(
                f"{field} holds a control character, in {part!r}: Slurm's fields are single lines of printable text, "
                "so leave out line breaks, tabs and the like"
            )


class Resources(pydantic.BaseModel):
    """What a computation asks of the machine it runs on.

    Parameters
    ----------
    folder: Path or str, optional
        where results, logs and job records are kept; without it nothing is cached and all runs in this thread
    cluster: str, optional
        where to run: None (this thread), "debug" (this thread, through submitit), "local" (a process of its own),
        "slurm", or "auto" (Slurm where there is one, else local)
    logs: Path or str
        folder of a job's logs; ``{folder}`` is the folder of the method, ``{user}`` the login name, ``%j`` the job id
    job_name: str, optional
        name shown by the scheduler (default: the name of the method)
    timeout_min: int, optional
        time limit of a job, in minutes
    nodes: int
        number of nodes of a job
    tasks_per_node: int
        number of processes on each node; more than one needs ``slurm_use_srun``
    cpus_per_task: int, optional
        CPUs of each process
    gpus_per_node: int, optional
        GPUs of each node
    mem_gb: float, optional
        memory of each node, in GiB
    max_pickle_size_gb: float, optional
        refuse to submit objects whose pickle is larger than this, in GB
    slurm_constraint, slurm_partition, slurm_account, slurm_qos: str, optional
        as in sbatch
    slurm_use_srun: bool
        start the processes of a job through srun (needed for several tasks; such a job cannot do so in turn)
    slurm_additional_parameters: dict, optional
        further sbatch options by their name, e.g. ``{"nice": 100}``
    slurm_setup: list of str, optional
        shell commands that run in the job before Python starts
    conda_env: Path or str, optional
        environment (folder or conda name) whose Python runs the job
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        extra="forbid", validate_assignment=True
    )

    folder: Path | str | None = None
    cluster: tp.Literal["auto", "local", "slurm", "debug", "threadpool", "processpool"] | None = None
    logs: Path | str = "{folder}/logs/{user}/%j"
    job_name: str | None = None
    timeout_min: pydantic.PositiveInt | None = None
    nodes: pydantic.PositiveInt = 1
    tasks_per_node: pydantic.PositiveInt = 1
    cpus_per_task: pydantic.PositiveInt | None = None
    gpus_per_node: pydantic.NonNegativeInt | None = None
    mem_gb: pydantic.PositiveFloat | None = None
    max_pickle_size_gb: pydantic.PositiveFloat | None = None
    slurm_constraint: str | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_qos: str | None = None
    slurm_use_srun: bool = False
    slurm_additional_parameters: dict[str, int | str | float | bool] | None = None
    slurm_setup: list[str] | None = None
    conda_env: Path | str | None = None

    @pydantic.field_validator("folder", "logs")
    @classmethod
    def _expand(cls, folder: Path | str | None, info: pydantic.ValidationInfo) -> Path | str | None:
        if folder is None:
            warn_of_no_folder()
            return None
        text = str(folder)
        expanded = _files.expand(text, tp.cast(str, info.field_name))
        return folder if expanded is text else type(folder)(expanded)

    @pydantic.field_validator(
        "job_name",
        "slurm_constraint",
        "slurm_partition",
        "slurm_account",
        "slurm_qos",
        "slurm_additional_parameters",
    )
    @classmethod
    def _one_line(cls, value: tp.Any, info: pydantic.ValidationInfo) -> tp.Any:
        require_one_line(value, tp.cast(str, info.field_name))
        return value

    def check_resources(self) -> None:
        """Check what no single field can tell.

        Raises
        ------
        ValueError
            if the fields do not fit together, or the environment does not exist
        """
        if (
            self.cluster is not None
            and self.folder is None
            and self.cluster not in ("threadpool", "processpool")
        ):
            raise ValueError(
                f"cluster={self.cluster!r} needs a folder for results and logs: set folder=..., "
                "or cluster=None to run here without one"
            )
        if self.tasks_per_node > 1 and not self.slurm_use_srun and self.cluster in ("slurm", "auto"):
            raise ValueError(
                f"tasks_per_node={self.tasks_per_node} needs slurm_use_srun=True: "
                "without srun only one of the tasks would run"
            )
        if self.conda_env is not None:
            from .environment import python_of

            python_of(self.conda_env)

    def resolved_cluster(self) -> str | None:
        """The cluster to use, with "auto" decided: Slurm where one answers, else local.

        Returns
        -------
        str or None
            None, "debug", "local", "slurm", or what a subclass adds
        """
        if self.cluster != "auto":
            return self.cluster
        from ..claims import scheduler

        return "slurm" if scheduler.answers() else "local"

    def _run_method(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        # kept for jobs that 0.6 queued, which call exca.slurm.SubmititMixin._run_method
        return self._run_queued(args, kwargs)

    def _run_queued(self, args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]) -> tp.Any:
        """Run what an earlier release queued for the method of an infra."""
        raise NotImplementedError
