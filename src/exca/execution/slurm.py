"""Jobs on Slurm, through submitit."""

import contextlib
import math
import shlex
import signal
import subprocess
import sys
import typing as tp
from pathlib import Path

from ..errors import SubmissionError
from .backends import Backend, Request, pickled
from .import_path import import_path
from .submission import Submission

if tp.TYPE_CHECKING:
    from ..claims import JobState
    from .resources import Resources


_IMPORT_PATH = "export PYTHONPATH="


def make_executor(
    resources: "Resources",
    logs: Path | str,
    *,
    name: str,
    max_workers: int = 256,
    workdir: Path | None = None,
    tag: str = "",
) -> tp.Any:
    """A submitit executor with the given resources.

    Parameters
    ----------
    resources: Resources
        what each job asks for
    logs: Path or str
        folder of a job's logs, with ``%j`` for its id
    name: str
        name shown by the scheduler
    max_workers: int
        how many jobs of an array may run at once
    workdir: Path, optional
        folder in which the jobs run
    tag: str
        comment by which the jobs can be found again

    Returns
    -------
    submitit.AutoExecutor
    """
    import submitit

    cluster = resources.resolved_cluster()
    kwargs: dict[str, tp.Any] = {}
    if cluster == "slurm":
        kwargs["slurm_python"] = _python_command(resources)
    if resources.max_pickle_size_gb is not None and cluster in ("local", "slurm"):
        kwargs[f"{cluster}_max_pickle_size_gb"] = resources.max_pickle_size_gb
    executor = submitit.AutoExecutor(folder=logs, cluster=cluster, **kwargs)
    params: dict[str, tp.Any] = {"name": name}
    for field in ("timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"):
        value = getattr(resources, field)
        if value is not None:
            params[field] = value
    if cluster == "slurm":
        params.update(_slurm_parameters(resources, max_workers, workdir, tag))
    executor.update_parameters(**params)
    return executor


def _python_command(resources: "Resources") -> str:
    python = Path(sys.executable)
    if resources.conda_env is not None:
        from .python_env import python_of

        python = python_of(resources.conda_env)
    # in place of the batch script's shell: where Slurm tracks processes by their parents, a Python that
    # outlives its shell (submitit's lets SIGTERM pass) would escape the end of its job
    return shlex.quote(str(python)) if resources.slurm_use_srun else f"exec {shlex.quote(str(python))}"


def _slurm_parameters(
    resources: "Resources", max_workers: int, workdir: Path | None, tag: str
) -> dict[str, tp.Any]:
    params: dict[str, tp.Any] = {
        "slurm_use_srun": resources.slurm_use_srun,
        "slurm_array_parallelism": max_workers,
    }
    for field in ("slurm_constraint", "slurm_partition", "slurm_account", "slurm_qos"):
        if getattr(resources, field) is not None:
            params[field] = getattr(resources, field)
    additional = dict(resources.slurm_additional_parameters or {})
    if resources.timeout_min is None and "time" not in additional:
        params["slurm_time"] = None  # the partition's default; submitit's own would be 5 minutes
    if tag and "comment" not in additional:
        additional["comment"] = tag
    setup = [f"{_IMPORT_PATH}{shlex.quote(import_path(workdir))}", *(resources.slurm_setup or [])]
    if workdir is not None:
        additional.setdefault("chdir", str(workdir))
    if additional:
        params["slurm_additional_parameters"] = additional
    params["slurm_setup"] = setup
    return params


def _set_parameters(executor: tp.Any, parameters: dict[str, tp.Any]) -> None:
    """Set parameters of a launcher, and keep what the jobs cannot do without: the import path and the tag."""
    executor = executor._executor
    known = {name: value for name, value in parameters.items() if name in executor._valid_parameters()}
    ours = executor.parameters
    if "setup" in known:
        own = [line for line in known["setup"] or () if not line.startswith(_IMPORT_PATH)]
        known["setup"] = [line for line in ours["setup"] if line.startswith(_IMPORT_PATH)] + own
    if "additional_parameters" in known:
        known["additional_parameters"] = {
            **ours.get("additional_parameters", {}),
            **(known["additional_parameters"] or {}),
        }
    executor.update_parameters(**known)


class SlurmBackend(Backend):
    """Jobs and job arrays on a Slurm cluster."""

    def submit(self, request: Request) -> list[Submission]:
        """Submit one job, or one array for several."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from .python_env import clean_environment

        resources = request.resources
        for call in request.calls:
            pickled(call, resources.max_pickle_size_gb)  # speaks up before anything is submitted
        executor = make_executor(
            resources,
            request.logs,
            name=request.name,
            max_workers=request.max_workers,
            workdir=request.workdir,
            tag=request.tag,
        )
        # submitit's own limit is for all pickles of an array together; each was measured above
        executor._executor.max_pickle_size_gb = math.inf
        _set_parameters(executor, request.parameters)
        try:
            with clean_environment():
                if len(request.calls) == 1:
                    jobs = [executor.submit(request.calls[0])]
                else:
                    with executor.batch():
                        jobs = [executor.submit(call) for call in request.calls]
        except (
            FailedJobError,
            FailedSubmissionError,
            OSError,
            subprocess.SubprocessError,
        ) as e:
            raise SubmissionError(
                f"Slurm refused {request.name}: {e}. "
                "Check partition, account, time and resources against `sinfo` and `scontrol show partition`"
            ) from e
        processes = resources.nodes * resources.tasks_per_node
        return [Submission("slurm", str(job.job_id), request.logs, processes) for job in jobs]

    def alive(self, submission: Submission) -> bool | None:
        """Whether Slurm holds or runs the job; None where Slurm does not answer."""
        return _state(submission).alive

    def state(self, submission: Submission) -> str:
        """The state in Slurm's words."""
        return _state(submission).state

    def verdict(self, submission: Submission) -> str:
        """What Slurm says of the end of the job."""
        state = _state(submission)
        details = [
            d
            for d in (
                state.reason and f"reason {state.reason}",
                state.exit_code and _ending(state.exit_code),
            )
            if d
        ]
        text = f"Slurm says {state.state}" + (f" ({', '.join(details)})" if details else "")
        hint = {
            "TIMEOUT": "raise timeout_min",
            "OUT_OF_MEMORY": "raise mem_gb",
            "CANCELLED": "it was cancelled",
            "NODE_FAIL": "its node failed",
        }.get(state.state.split()[0] if state.state else "")
        return f"{text}: {hint}." if hint else f"{text}."

    def cancel(self, submission: Submission) -> None:
        """Cancel the job, or the one task of an array."""
        subprocess.run(["scancel", submission.job_id], check=False, capture_output=True, timeout=60)


def _ending(exit_code: str) -> str:
    """Say how a job ended, from Slurm's ``<code>:<signal>``; a shell tells a signal as 128 and its number."""
    code, _, number = exit_code.partition(":")
    with contextlib.suppress(ValueError):
        killed_by = int(number or 0) or max(0, int(code) - 128)
        if killed_by:
            return f"exit code {exit_code}, killed by {signal.Signals(killed_by).name}"
    return f"exit code {exit_code}"


def _state(submission: Submission) -> "JobState":
    from ..claims import job_states

    return job_states([submission.job_id])[submission.job_id]


BACKEND = SlurmBackend()
