"""Where a step runs and where its results are kept: the values of the field `infra`."""

import abc
import typing as tp
from pathlib import Path

import pydantic

from .. import _clusters, _files
from .._callers import warn
from .._earlier import earlier_names
from ..identity import DiscriminatedModel
from ..jobs import losses
from ..jobs.resources import JOB_FIELDS, JobFields, Resources

Mode = tp.Literal["cached", "force", "read-only", "retry"]


class Backend(DiscriminatedModel, discriminator_key="backend"):
    """Where a step runs and where its results are kept; nothing of it counts for addresses.

    By itself, as for a dict that names no backend, it runs in the thread that asks and keeps the results.

    Parameters
    ----------
    folder: Path, optional
        where results are kept, by default that of the chain around the step
    mode: str
        "cached" (results and errors in the cache are returned), "retry" (cached errors are computed again), "force"
        (all is computed again, once per object), both for this step and all later ones; "read-only" (this step is
        never computed)
    keep_in_ram: bool
        also keep results in memory once loaded or computed
    code: str
        what a cached result means whose code, that of all steps up to this one, is another one today: "warn" (it is
        returned, with a `CodeChangedWarning`), "strict" (it is computed again), "off" (code is neither recorded nor
        compared)
    code_roots: tuple of str
        folders, and names of installed packages, whose code counts; by default all that is not installed
    code_packages: tuple of str
        names of installed packages whose version counts
    """

    _exca_new_fields: tp.ClassVar[tuple[str, ...]] = ("code", "code_roots", "code_packages")
    cluster: tp.ClassVar[str | None] = None  # where steps run; None for the thread that asks
    _exca_runs_things: tp.ClassVar[bool] = True  # not to be taken from another user's file
    folder: Path | None = None
    mode: Mode = "cached"
    keep_in_ram: bool = False
    code: tp.Literal["off", "warn", "strict"] = "warn"
    code_roots: tuple[str, ...] = ()
    code_packages: tuple[str, ...] = ()

    @pydantic.field_validator("folder")
    @classmethod
    def _expand(cls, folder: Path | None) -> Path | None:
        return None if folder is None else Path(_files.expand(str(folder)))

    @pydantic.field_validator("mode", mode="before")
    @classmethod
    def _rename_mode(cls, mode: tp.Any) -> tp.Any:
        # kept for dependants: the name of an early release
        if mode == "force-forward":
            warn(
                'mode="force-forward" is deprecated: write mode="force", which holds for all later steps too',
                DeprecationWarning,
            )
            return "force"
        return mode

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return ["."]

    @property
    def name(self) -> str:
        """The name by which configurations choose the backend."""
        return type(self).__name__

    def shares(self) -> tuple[int | None, int]:
        """Return the most shares of a computation (None for any number), and the fewest items of a share."""
        return 1, 1

    def derive(self, backend: str | None = None, **fields: tp.Any) -> "Backend":
        """Build another backend from the fields that both have.

        Parameters
        ----------
        backend: str, optional
            name of the other, by default the same
        **fields: Any
            fields to set or change

        Returns
        -------
        Backend
            a new object

        Raises
        ------
        pydantic.ValidationError
            if there is no such backend, or it has no such field
        """
        target = type(self) if backend is None else type(ADAPTER.validate_python({"backend": backend}))
        return ADAPTER.validate_python({"backend": target.__name__, **self.given(target), **fields})

    def redirected(self, folder: Path | None, in_process: bool) -> "Backend":
        """Return what a test wants in the place of this backend (`exca.testing.redirect`).

        Parameters
        ----------
        folder: Path, optional
            in the place of the backend's own
        in_process: bool
            run in this process
        """
        found = self.derive("Cached") if in_process else self.derive()
        if folder is not None and found.folder is not None:
            found.folder = folder
        return found

    def given(self, target: "type[Backend]") -> dict[str, tp.Any]:
        """Return the fields that were given to this backend and that another one has, too.

        Parameters
        ----------
        target: type
            the other backend
        """
        values = self.__dict__
        return {
            name: values[name] for name in self.__pydantic_fields_set__ if name in target.__pydantic_fields__
        }

    def resources(self, folder: Path) -> Resources:
        """Return what each job asks for.

        Parameters
        ----------
        folder: Path
            folder of the step
        """
        return Resources(folder=folder)


class Cached(Backend):
    """Runs in the thread that asks, and keeps the results.

    Parameters
    ----------
    capture_logs: bool
        also write what is printed and logged to ``logs/main-process`` in the folder of the step
    """

    capture_logs: bool = False


class _Shared(Backend):
    """Splits a computation into shares.

    Parameters
    ----------
    min_items_per_job: int
        fewest items of a share
    """

    min_items_per_job: pydantic.PositiveInt = 1

    if not tp.TYPE_CHECKING:
        cluster = abc.abstractmethod(lambda self: None)  # classes without one cannot be named

    def shares(self) -> tuple[int | None, int]:
        """Return the most shares of a computation, and the fewest items of a share."""
        most: int | None = self.__dict__["max_jobs"]
        return most, self.min_items_per_job


class _Pool(_Shared):
    """Runs shares on this machine, only as long as the interpreter lives.

    Parameters
    ----------
    max_jobs: int, optional
        most threads or processes of one computation
    """

    # the last of which 0.6 has for jobs only
    _exca_new_fields: tp.ClassVar[tuple[str, ...]] = (*Backend._exca_new_fields, "min_items_per_job")
    max_jobs: pydantic.PositiveInt | None = 128


class ThreadPool(_Pool):
    """Runs items in threads of this process."""

    cluster: tp.ClassVar[str | None] = "threadpool"


class ProcessPool(_Pool):
    """Runs items in processes of this machine, which end with the interpreter that asked."""

    cluster: tp.ClassVar[str | None] = "processpool"


class _Jobs(JobFields, _Shared):  # in this order, the fields of the latter come first
    """Sends jobs.

    Parameters
    ----------
    job_name: str, optional
        name shown by the scheduler, by default that of the step
    timeout_min: int, optional
        time limit of a job, in minutes
    nodes: int, optional
        number of nodes of a job
    tasks_per_node: int, optional
        number of processes on each node, of which the first one computes
    cpus_per_task: int, optional
        CPUs of each process
    gpus_per_node: int, optional
        GPUs of each node
    mem_gb: float, optional
        memory of each node, in GiB
    tasks_per_job, concurrent_per_job, gpus_per_task
        how many shares of a computation are sent as one job, how many of them run at once, and the GPUs of each, as for
        infras
    notify: str or tuple of str, optional
        when Slurm mails, and to whom, as for infras
    retries, retry_on, retry_scale, retry_backoff_s, max_requeues
        which jobs that were lost are submitted again, how often and with what, as for infras
    max_jobs: int
        most jobs of one computation
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(defer_build=False)
    _exca_new_fields: tp.ClassVar[tuple[str, ...]] = (*Backend._exca_new_fields, *JOB_FIELDS)
    _own: tp.ClassVar[tuple[str, ...]] = ()  # fields that `Resources` has under other names
    max_jobs: pydantic.PositiveInt = 128

    @pydantic.model_validator(mode="after")
    def _check_fields(self) -> "tp.Self":
        self.check_packing()
        if self.retry_scale:
            losses.check_against(self.retry_scale, {"mem_gb": self.mem_gb, "timeout_min": self.timeout_min})
        return self

    def resources(self, folder: Path) -> Resources:
        """Return what each job asks for.

        Parameters
        ----------
        folder: Path
            folder of the step
        """
        own = {*_Pool.__pydantic_fields__, *self._own, "cluster"}
        known = Resources.__pydantic_fields__
        values = {
            name: value for name, value in self.__dict__.items() if name not in own and value is not None
        }
        named = {name if name in known else f"slurm_{name}": value for name, value in values.items()}
        resources = Resources(folder=folder, cluster=tp.cast(tp.Any, self.cluster), **named)
        resources.check_resources()
        return resources


class LocalProcess(_Jobs):
    """Sends jobs as processes of this machine, which go on when the interpreter that asked ends."""

    cluster: tp.ClassVar[str | None] = "local"


class SubmititDebug(_Jobs):
    """Runs jobs in this very thread, one after the other, so that a debugger can be used."""

    cluster: tp.ClassVar[str | None] = "debug"


class Slurm(_Jobs):
    """Sends jobs to a Slurm cluster.

    Parameters
    ----------
    constraint, partition, account, qos: str, optional
        as in sbatch
    additional_parameters: dict, optional
        further sbatch options by their name, e.g. ``{"nice": 100}``
    use_srun: bool
        start the processes of a job through srun (needed for several tasks)
    signal_delay_s: int
        seconds before its time limit at which a job is warned: one of several shares then has itself requeued for what
        is left of them
    """

    _exca_new_fields: tp.ClassVar[tuple[str, ...]] = (*_Jobs._exca_new_fields, "signal_delay_s")
    cluster: tp.ClassVar[str | None] = "slurm"

    constraint: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    additional_parameters: dict[str, int | str | float | bool] | None = None
    use_srun: bool = False
    signal_delay_s: pydantic.PositiveInt = 90

    @pydantic.model_validator(mode="after")
    def _check_srun(self) -> "tp.Self":
        if (self.tasks_per_node or 1) > 1 and not self.use_srun:
            raise ValueError(
                f"tasks_per_node={self.tasks_per_node} needs use_srun=True: without srun only one of the tasks "
                "would run"
            )
        return self


class Dask(_Jobs):
    """Sends jobs to a Dask cluster.

    Parameters
    ----------
    address: str, optional
        the address of its scheduler, or the path of a scheduler file
    specification: dict, optional
        instead of an address: the class of a cluster and its arguments, as in
        ``{"class": "dask_jobqueue.PBSCluster", "cores": 4, "memory": "16GB"}``
    """

    cluster: tp.ClassVar[str | None] = "dask"
    _exca_is_new: tp.ClassVar[bool] = True
    _own: tp.ClassVar[tuple[str, ...]] = ("address", "specification")
    address: str | None = None
    specification: dict[str, tp.Any] | None = None

    def resources(self, folder: Path) -> Resources:
        """Return what each job asks for.

        Parameters
        ----------
        folder: Path
            folder of the step
        """
        found = super().resources(folder)
        found.dask_address, found.dask_cluster = self.address, self.specification
        return found


class Executor(_Jobs):
    """Sends jobs to a ``concurrent.futures.Executor``; they end with the interpreter that asked.

    Parameters
    ----------
    executor: object or str
        the executor, or "module:callable", which makes one
    """

    cluster: tp.ClassVar[str | None] = "executor"
    _exca_is_new: tp.ClassVar[bool] = True
    _own: tp.ClassVar[tuple[str, ...]] = ("executor",)
    executor: tp.Any

    @pydantic.field_validator("executor")
    @classmethod
    def _check_executor(cls, value: tp.Any) -> tp.Any:
        from ..jobs.executor import checked

        return checked(value)

    def resources(self, folder: Path) -> Resources:
        """Return what each job asks for.

        Parameters
        ----------
        folder: Path
            folder of the step
        """
        found = super().resources(folder)
        found.futures_executor = self.executor
        return found


class Registered(_Jobs):
    """Sends jobs to a cluster of any name, such as one that another package registers.

    Parameters
    ----------
    engine: str
        its name
    """

    _exca_is_new: tp.ClassVar[bool] = True
    _own: tp.ClassVar[tuple[str, ...]] = ("engine",)
    engine: str

    if not tp.TYPE_CHECKING:

        @property
        def cluster(self) -> str:
            """The name that was given."""
            return self.engine

    @pydantic.field_validator("engine")
    @classmethod
    def _known_cluster(cls, engine: str) -> str:
        if not _clusters.known(engine):
            raise ValueError(_clusters.unknown(engine))
        return engine


class Auto(Slurm):
    """Sends jobs to Slurm where one answers, else runs them as processes of this machine."""

    cluster: tp.ClassVar[str | None] = "auto"


ADAPTER: tp.Final[pydantic.TypeAdapter[Backend]] = pydantic.TypeAdapter(Backend)

if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
