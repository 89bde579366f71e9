"""The environment of a job: its Python, where it looks for modules, its variables, and what they tell of the job."""

import contextlib
import os
import re
import sys
import threading
import typing as tp
from pathlib import Path

from .paths import JobPaths

# What Slurm and submitit tell a running job about itself; found in the environment of a submission, it would
# become part of the new job (sbatch reads some of it as options, MPI and submitit all of it as facts).
_OF_A_JOB = re.compile(
    r"(SLURM|SLURMD|SRUN|SUBMITIT|PMI|PMIX)_.*|EXCA_PART"
    # srun's bindings, which Slurm writes into jobs; other SBATCH_ variables are defaults that the user chose
    r"|SBATCH_(CPU|MEM)_BIND.*"
    r"|EXCA_CLUSTER"
)
# How a site or a user reaches the scheduler: as true in a job as outside
_KEPT = frozenset(("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_TIME_FORMAT"))
PART = "EXCA_PART"  # of a process that runs one of several calls of a job: JSON with which job and part it is
_INSIDE_A_JOB = ("SLURM_JOB_ID", "SLURM_JOBID", "SUBMITIT_EXECUTOR", PART)
# how many threads numerical libraries use: OpenMP, and those with a variable of their own
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
CLUSTER = "EXCA_CLUSTER"  # of a job that runs in a worker of another engine: the name of its backend
_WINDOWS = os.name == "nt"


def python_of(conda_env: str | Path) -> Path:
    """Find the Python of an environment (of conda, venv or alike), given as its folder, its Python or conda's name.

    Links are not followed: a virtual environment is known by the place of its link.
    """
    given = Path(conda_env).expanduser().absolute()
    if given.is_file() and os.access(given, os.X_OK):
        return given
    places = [given]
    if str(conda_env) == Path(conda_env).name:  # a name, not a path
        places += _conda_places(str(conda_env))
    for place in places:
        for python in _pythons_in(place):
            if python.is_file() and os.access(python, os.X_OK):
                return python
    shown = "".join(f"\n  {python}" for place in places for python in _pythons_in(place))
    raise ValueError(
        f"No environment is called conda_env={str(conda_env)!r}: none of these is a Python that can be run:{shown}\n"
        "Give the folder of an environment, or the name of a conda environment (see 'conda env list')."
    )


def _pythons_in(place: Path) -> list[Path]:
    if _WINDOWS:
        return [place / "python.exe", place / "Scripts" / "python.exe"]
    return [place / "bin" / "python", place / "bin" / "python3"]


def _conda_places(name: str) -> list[Path]:
    """Where conda and its kin keep an environment of this name, those in use first."""
    roots, folders = _conda_roots(), []
    if name in ("base", "root"):
        folders += roots
    for variable in ("CONDA_ENVS_PATH", "CONDA_ENVS_DIRS"):
        folders += [Path(entry) / name for entry in os.environ.get(variable, "").split(os.pathsep) if entry]
    folders += [root / "envs" / name for root in roots]
    home = Path.home() / ".conda"
    folders.append(home / "envs" / name)
    with contextlib.suppress(OSError, UnicodeDecodeError):  # the file is conda's; it may be absent or foreign
        lines = (home / "environments.txt").read_text("utf8").splitlines()
        folders += [Path(line.strip()) for line in lines if Path(line.strip()).name == name]
    return list(dict.fromkeys(folders))


def _conda_roots() -> list[Path]:
    roots = []
    if executable := os.environ.get("CONDA_EXE"):  # <root>/bin/conda, or <root>/Scripts/conda.exe
        roots.append(Path(executable).parent.parent)
    if prefix := os.environ.get("CONDA_PREFIX"):
        inside = Path(prefix)
        roots.append(inside.parent.parent if inside.parent.name == "envs" else inside)
    if mamba := os.environ.get("MAMBA_ROOT_PREFIX"):
        roots.append(Path(mamba))
    return list(dict.fromkeys(roots))


def cleaned(environment: tp.Mapping[str, str]) -> dict[str, str]:
    """Leave out what describes the surrounding job, so that a job can submit jobs.

    Outside a job nothing is left out: there ``SLURM_`` variables are options that the user set. In a job, what tells
    how the scheduler is reached stays (``SLURM_CONF``, ``SLURM_CLUSTERS``...), and so do the user's defaults for
    submissions (``SBATCH_ACCOUNT``, ``SBATCH_PARTITION``...), which Slurm hands on to jobs but never writes itself.
    """
    if not any(name in environment for name in _INSIDE_A_JOB):
        return dict(environment)
    return {
        name: value for name, value in environment.items() if name in _KEPT or not _OF_A_JOB.fullmatch(name)
    }


class _Cleaning:
    """What :func:`clean_environment` took away, and for how many threads at the moment."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.taken: dict[str, str] = {}


_cleaning = _Cleaning()


@contextlib.contextmanager
def clean_environment() -> tp.Iterator[None]:
    """Take the variables of the surrounding job out of ``os.environ`` for the time of a submission.

    The environment belongs to the whole process: where several threads submit at once, the first to enter takes the
    variables away and the last to leave puts them back. See :func:`cleaned` for what goes and what stays.
    """
    with _cleaning.lock:
        if _cleaning.depth == 0:
            kept = cleaned(os.environ)
            _cleaning.taken = {name: value for name, value in os.environ.items() if name not in kept}
            for name in _cleaning.taken:
                del os.environ[name]
        _cleaning.depth += 1
    try:
        yield
    finally:
        with _cleaning.lock:
            _cleaning.depth -= 1
            if _cleaning.depth == 0:
                for name, value in _cleaning.taken.items():
                    os.environ.setdefault(name, value)  # what was set meanwhile was set on purpose
                _cleaning.taken = {}


def import_path(workdir: Path | None) -> str:
    """Value of PYTHONPATH for a job.

    The folder of a script is on ``sys.path`` of its interpreter only: a job that unpickles a class of
    a module beside the script would not find it. So what a job gets is, in this order: its working directory, the
    PYTHONPATH in force, and what else ``sys.path`` holds outside of Python's own folders.
    """
    own = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    given = [os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    found = [os.path.abspath(p) for p in sys.path if os.path.isdir(p or ".")]
    extra = [p for p in found if not any(_inside(p, folder) for folder in own)]
    folders = ([str(workdir)] if workdir is not None else []) + given + extra
    return os.pathsep.join(dict.fromkeys(folders))


def _inside(path: str, folder: str) -> bool:
    path = os.path.realpath(path)
    packages = "site-packages" in path or "dist-packages" in path
    return packages or path.startswith(os.path.join(folder, "lib"))


def current_job(logs: str) -> tuple[dict[str, tp.Any], int]:
    """What the environment tells of the job of this process, as records have it, and the rank of the process."""
    env = os.environ
    if PART in env:
        import orjson

        return orjson.loads(env[PART])["where"], 0
    if env.get("SUBMITIT_EXECUTOR") == "local" and "SUBMITIT_LOCAL_JOB_ID" in env:
        rank = int(env.get("SUBMITIT_LOCAL_GLOBALID", "0"))
        where = {"cluster": env.get(CLUSTER, "local"), "job_id": env["SUBMITIT_LOCAL_JOB_ID"], "logs": logs}
        return {**where, "processes": int(env.get("SUBMITIT_LOCAL_NTASKS", "1"))}, rank
    if "SLURM_JOB_ID" in env and env.get("SUBMITIT_EXECUTOR") == "slurm":
        job_id = env["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in env:
            job_id = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
        where = {"cluster": "slurm", "job_id": job_id, "logs": logs}
        return {**where, "processes": int(env.get("SLURM_NTASKS", "1"))}, int(env.get("SLURM_PROCID", "0"))
    return {"cluster": "debug", "job_id": env.get("SUBMITIT_DEBUG_JOB_ID", ""), "logs": logs}, 0


def submitit_variables(job_paths: JobPaths, rank: int, processes: int) -> dict[str, str]:
    """Environment by which ``submitit.JobEnvironment`` knows where it is."""
    return {
        "SUBMITIT_EXECUTOR": "local",
        "SUBMITIT_FOLDER": job_paths.pattern,
        "SUBMITIT_LOCAL_JOB_ID": job_paths.job_id,
        "SUBMITIT_LOCAL_NTASKS": str(processes),
        "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
        "SUBMITIT_LOCAL_NODEID": "0",
        "SUBMITIT_LOCAL_GLOBALID": str(rank),
        "SUBMITIT_LOCAL_LOCALID": str(rank),
    }
