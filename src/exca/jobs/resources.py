"""Where a computation runs and with what: the fields that every infra shares."""

import functools
import typing as tp
from pathlib import Path

import pydantic

from .. import _clusters, _files
from .._log import logger
from . import losses

# each a line of the batch script
_SLURM_LINES = ("constraint", "partition", "account", "qos", "additional_parameters")


@functools.cache
def warn_of_no_folder() -> None:
    """Tell, once, that results are not kept: an empty ``folder:`` in YAML is null."""
    logger.warning(
        "An infra was given folder=None: its results are not kept. Leave out 'folder' if that is meant."
    )


# fields that release 0.6 does not know
JOB_FIELDS: tp.Final = ("tasks_per_job", "concurrent_per_job", "gpus_per_task", "notify", *losses.NEW_FIELDS)
_MAIL_TYPES: tp.Final = (  # of sbatch
    *("BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT"),
    *("TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS"),
)


class Placed(pydantic.BaseModel):
    """Where a computation runs, and where it keeps what comes of it: see `Resources`."""

    # of what is only derived from, no schema is ever needed, and making one takes milliseconds
    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(defer_build=True)

    folder: Path | str | None = None
    cluster: str | None = None
    logs: Path | str = "{folder}/logs/{user}/%j"
    futures_executor: tp.Any = None
    dask_address: str | None = None
    dask_cluster: dict[str, tp.Any] | None = None
    _pools: tp.ClassVar[bool] = True  # whether threads and processes of this interpreter are a cluster, too

    @pydantic.field_validator("futures_executor")
    @classmethod
    def _check_executor(cls, value: tp.Any) -> tp.Any:
        from .executor import checked

        return checked(value)

    @pydantic.field_validator("cluster")
    @classmethod
    def _known_cluster(cls, cluster: str | None) -> str | None:
        if cluster is None or cluster == "auto" or _clusters.known(cluster):
            return cluster
        if cluster not in _clusters.POOLS:
            pools = _clusters.POOLS if cls._pools else ()
            raise ValueError(_clusters.unknown(cluster, also=("auto", *pools)))
        if not cls._pools:
            raise ValueError(
                f"cluster={cluster!r} makes no sense for single calls: it is for a MapInfra, which splits its items "
                "over a pool. Take cluster='local' for a process of its own, or None for this thread"
            )
        return cluster


class JobFields(pydantic.BaseModel):
    """What each job asks for, of an infra or of a step: see `Resources`."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(defer_build=True)

    job_name: str | None = None
    timeout_min: pydantic.PositiveInt | None = None
    nodes: pydantic.PositiveInt | None = None
    tasks_per_node: pydantic.PositiveInt | None = None
    cpus_per_task: pydantic.PositiveInt | None = None
    gpus_per_node: pydantic.NonNegativeInt | None = None
    mem_gb: pydantic.PositiveFloat | None = None
    tasks_per_job: pydantic.PositiveInt | None = None
    concurrent_per_job: pydantic.PositiveInt | None = None
    gpus_per_task: pydantic.PositiveFloat | None = None
    notify: tuple[str, ...] | None = None

    @pydantic.field_validator("notify", mode="before")
    @classmethod
    def _as_words(cls, value: tp.Any) -> tp.Any:
        return (value,) if isinstance(value, str) else value

    @pydantic.field_validator("notify")
    @classmethod
    def _mail_words(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Refuse what Slurm would refuse at submission, or take for no mail at all."""
        addresses = [word for word in value or () if word not in _MAIL_TYPES]
        for address in addresses:
            if "@" not in address or not address.isprintable() or any(c in address for c in " ,"):
                raise ValueError(
                    f"notify holds {address!r}, which is neither an address nor an event of Slurm's: take some of "
                    f"{', '.join(_MAIL_TYPES)}, and at most one address"
                )
        if len(addresses) > 1:
            raise ValueError(
                f"notify holds the addresses {' and '.join(addresses)}: Slurm writes to one, such as that of a list"
            )
        return value

    def mail_options(self) -> dict[str, str]:
        """The options of sbatch by which Slurm mails.

        Returns
        -------
        dict
            names of options and their values; empty where there is to be no mail
        """
        words = self.notify or ()
        types = [word for word in words if word in _MAIL_TYPES] or ["END", "FAIL"]
        options = {"mail_type": ",".join(types)} if words else {}
        for address in set(words) - set(_MAIL_TYPES):
            options["mail_user"] = address
        return options

    retries: pydantic.NonNegativeInt = 2
    retry_on: tuple[str, ...] = losses.RETRY_ON
    retry_scale: dict[str, float | tuple[float, float]] | None = None
    retry_backoff_s: tp.Annotated[float, pydantic.Field(ge=0, le=losses.MAX_BACKOFF)] = 5.0
    max_requeues: pydantic.NonNegativeInt = 20

    @pydantic.field_validator("retry_on", mode="before")
    @classmethod
    def _list_of_words(cls, value: tp.Any) -> tp.Any:
        """Refuse a single word, of which the letters would be the words."""
        if isinstance(value, str):
            raise ValueError(f"retry_on={value!r} is no list: write retry_on=[{value!r}]")  # noqa: TRY004 # as pydantic
        return value

    @pydantic.field_validator("retry_on")
    @classmethod
    def _known_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        losses.check_words(value)
        return value

    @pydantic.field_validator("retry_scale")
    @classmethod
    def _possible_scale(cls, value: losses.Scale | None) -> losses.Scale | None:
        losses.check_scale(value or {})
        return value

    @pydantic.field_validator(
        "job_name", *_SLURM_LINES, *(f"slurm_{name}" for name in _SLURM_LINES), check_fields=False
    )
    @classmethod
    def _one_line(cls, value: tp.Any, info: pydantic.ValidationInfo) -> tp.Any:
        """Refuse what would end its line in the batch script: a value, or a dict of them, with control characters."""
        for part in [*value, *value.values()] if isinstance(value, dict) else [value]:
            if isinstance(part, str) and not part.isprintable():
                raise ValueError(
                    f"{info.field_name} holds a control character, in {part!r}: Slurm's fields are single lines of "
                    "printable text, so leave out line breaks, tabs and the like"
                )
        return value

    def check_packing(self) -> None:
        """Check what tells how tasks share a job.

        Raises
        ------
        ValueError
            if the fields do not fit together
        """
        tasks, at_once, gpus = self.tasks_per_job or 1, self.concurrent_per_job or 1, self.gpus_per_task
        if at_once > tasks:
            raise ValueError(
                f"concurrent_per_job={at_once} is more than tasks_per_job={tasks}: a job that holds {tasks} task(s) "
                f"runs no more than {tasks} at once, so raise tasks_per_job or lower concurrent_per_job"
            )
        for name in ("nodes", "tasks_per_node"):
            if tasks > 1 and (getattr(self, name) or 1) > 1:
                raise ValueError(
                    f"tasks_per_job={tasks} with {name}={getattr(self, name)}: tasks that share a job have one process "
                    f"each, on one node, so leave out one of the two"
                )
        if gpus is None:
            return
        share = 1 / gpus if gpus < 1 else gpus
        if abs(share - round(share)) > 0.05:
            raise ValueError(
                f"gpus_per_task={gpus:g} divides no GPU: take a whole number, or 1/2, 1/3, 1/4... (0.5, 0.33, 0.25) to "
                "let 2, 3, 4... tasks share one"
            )
        needed = at_once * gpus
        if abs(needed - round(needed)) > 0.05:
            raise ValueError(
                f"gpus_per_task={gpus:g} with concurrent_per_job={at_once} takes {needed:g} GPU(s) per job, which is "
                f"no whole number: run a multiple of {round(share)} tasks at once, or leave out gpus_per_task"
            )
        if self.gpus_per_node is not None and self.gpus_per_node != round(needed):
            raise ValueError(
                f"gpus_per_node={self.gpus_per_node} does not divide: {at_once} task(s) at once with "
                f"gpus_per_task={gpus:g} take {round(needed)}. Leave out gpus_per_node, which is reckoned then"
            )


class Resources(JobFields, Placed):  # in this order, the fields of the latter come first
    """What a computation asks of the machine it runs on.

    Parameters
    ----------
    folder: Path or str, optional
        where results, logs and job records are kept; without it nothing is cached and all runs in this thread
    cluster: str, optional
        where to run: None (this thread), "debug" (this thread, through submitit), "local" (a process of its own),
        "slurm", "dask", "executor", "auto" (Slurm where there is one, else local), or a backend that another package
        registers
    logs: Path or str
        folder of a job's logs; ``{folder}`` is the folder of the method, ``{user}`` the login name, ``%j`` the job id
    job_name: str, optional
        name shown by the scheduler (default: the name of the method)
    timeout_min: int, optional
        time limit of a job, in minutes, beyond which it is ended with all its processes
    nodes: int
        number of nodes of a job
    tasks_per_node: int
        number of processes on each node; more than one needs ``slurm_use_srun``
    cpus_per_task: int, optional
        CPUs of each process; locally, how many threads OpenMP and BLAS use, unless their variables are set
    gpus_per_node: int, optional
        GPUs of each node
    mem_gb: float, optional
        memory of each node, in GiB; a local job is ended when its processes hold more in RAM together
    tasks_per_job: int, optional
        how many tasks, or shares of a map, are sent as one job, in which each has a process, logs and an outcome of its
        own. What is asked for by the fields above is for each task; only ``timeout_min`` is the limit of the job
    concurrent_per_job: int, optional
        how many tasks of a job run at the same time (default: 1); the job asks for as many times what one of them needs
    gpus_per_task: float, optional
        GPUs of each task, in place of ``gpus_per_node``; below 1, tasks that run at the same time share one: with 0.5,
        two of them. They are told apart by ``CUDA_VISIBLE_DEVICES`` alone
    notify: str or tuple of str, optional
        when Slurm mails, by the names of sbatch ("BEGIN", "END", "FAIL", "TIME_LIMIT_80"...), and the address to which:
        ``["FAIL", "me@example.org"]``. An address alone stands for "END" and "FAIL"; without one, the mail goes where
        Slurm sends that of the user. A mail is about a job, or an array, unless "ARRAY_TASKS" is among the names
    retries: int
        how often what a job ran is submitted again after it was lost
    retry_on: tuple of str
        after which losses: "preempted", "node_fail", "launch_failure" (it never began), "killed", "out_of_memory",
        "timeout", "cancelled", "exited" (without an outcome), "unknown", and names of exceptions of the computation
        (``"ConnectionError"``, ``"my_package.MyError"``; those derived from them, too)
    retry_scale: dict, optional
        factors by which a later attempt gets more: ``mem_gb`` after losses that are "out_of_memory" or "killed",
        ``timeout_min`` after a "timeout"; each a factor, or a factor and the most that is asked for:
        ``{"mem_gb": (2, 256), "timeout_min": 1.5}``
    retry_backoff_s: float
        seconds between the first loss and the start of the next attempt, doubled with each further loss up to 600
    max_requeues: int
        how often the scheduler may requeue a job that was preempted, or whose node failed
    max_pickle_size_gb: float, optional
        refuse to submit objects whose pickle is larger than this, in GB
    slurm_constraint, slurm_partition, slurm_account, slurm_qos: str, optional
        as in sbatch
    slurm_use_srun: bool
        start the processes of a job through srun (needed for several tasks; such a job cannot do so in turn)
    slurm_signal_delay_s: int
        seconds before the time limit at which ``checkpoint()`` of the configuration is called, where it has one, to
        save the state of the computation below ``infra.uid_folder()``; it is called on a preemption, too. The job is
        then requeued, and goes on from there. So it is for each task of a job that holds several. It is not called for
        items of maps and steps, each of which is kept once it is computed, nor on other clusters than Slurm
    slurm_additional_parameters: dict, optional
        further sbatch options by their name, e.g. ``{"nice": 100}``
    slurm_setup: list of str, optional
        shell commands that run in the job before Python starts
    conda_env: Path or str, optional
        environment (folder or conda name) whose Python runs the job
    futures_executor: object or str, optional
        of cluster="executor": any object as of ``concurrent.futures.Executor``, or "module:callable", which makes one
    dask_address: str, optional
        of cluster="dask": the address of a scheduler, or the path of its scheduler file
    dask_cluster: dict, optional
        of cluster="dask", instead of an address: the class of a cluster and its arguments, as in
        ``{"class": "dask_jobqueue.PBSCluster", "cores": 4, "memory": "16GB"}``
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        extra="forbid", validate_assignment=True
    )

    # an infra always has a number, a step leaves it out of what it asks for
    nodes: pydantic.PositiveInt = 1  # pyright: ignore[reportIncompatibleVariableOverride] # never None through the base
    tasks_per_node: pydantic.PositiveInt = 1  # pyright: ignore[reportIncompatibleVariableOverride] # never None through the base
    max_pickle_size_gb: pydantic.PositiveFloat | None = None
    slurm_constraint: str | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_qos: str | None = None
    slurm_use_srun: bool = False
    slurm_signal_delay_s: pydantic.PositiveInt = 90
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

    def check_resources(self) -> None:
        """Check what no single field can tell.

        Raises
        ------
        ValueError
            if the fields do not fit together, or the environment does not exist
        """
        if self.cluster is not None and self.folder is None and self.cluster not in _clusters.POOLS:
            raise ValueError(
                f"cluster={self.cluster!r} needs a folder for results and logs: set folder=..., "
                "or cluster=None to run here without one"
            )
        if self.tasks_per_node > 1 and not self.slurm_use_srun and self.cluster in ("slurm", "auto"):
            raise ValueError(
                f"tasks_per_node={self.tasks_per_node} needs slurm_use_srun=True: "
                "without srun only one of the tasks would run"
            )
        self.check_packing()
        if self.retry_scale:
            losses.check_against(self.retry_scale, {"mem_gb": self.mem_gb, "timeout_min": self.timeout_min})
        if self.conda_env is not None:
            from .environment import python_of

            python_of(self.conda_env)

    def asked(self) -> dict[str, tp.Any]:
        """What is asked for otherwise than by default, by name.

        Returns
        -------
        dict
            JSON values of the fields about jobs, in their units
        """
        default = Resources.__pydantic_fields__
        values = {name: self.__dict__.get(name) for name in default if name not in Placed.__pydantic_fields__}
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in values.items()
            if value != default[name].default
        }

    def resolved_cluster(self) -> str | None:
        """The cluster to use, with "auto" decided: Slurm where one answers, else local.

        Returns
        -------
        str or None
            None, a pool, or the name of a backend, which is loaded

        Raises
        ------
        SubmissionError
            if the backend cannot be loaded
        """
        if self.cluster is None or self.cluster in _clusters.POOLS:
            return self.cluster
        if self.cluster == "auto":
            from . import slurm_queue

            return "slurm" if slurm_queue.answers() else "local"
        _clusters.get(self.cluster)
        return self.cluster

    def _run_method(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        # kept for jobs that 0.6 queued, which call exca.slurm.SubmititMixin._run_method
        return self._run_queued(args, kwargs)

    def _run_queued(self, args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]) -> tp.Any:
        """Run what an earlier release queued for the method of an infra."""
        raise NotImplementedError
