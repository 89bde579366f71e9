"""The Python that runs a job, and an environment from which a job can be submitted."""

import contextlib
import os
import re
import threading
import typing as tp
from pathlib import Path

# What Slurm and submitit tell a running job about itself; found in the environment of a submission, it would
# become part of the new job (sbatch reads some of it as options, MPI and submitit all of it as facts).
_OF_A_JOB = re.compile(
    r"(SLURM|SLURMD|SRUN|SUBMITIT|PMI|PMIX)_.*"
    # srun's bindings, which Slurm writes into jobs; other SBATCH_ variables are defaults that the user chose
    r"|SBATCH_(CPU|MEM)_BIND.*"
)
# How a site or a user reaches the scheduler: as true in a job as outside
_KEPT = frozenset(("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_TIME_FORMAT"))
_INSIDE_A_JOB = ("SLURM_JOB_ID", "SLURM_JOBID", "SUBMITIT_EXECUTOR")
_WINDOWS = os.name == "nt"


def python_of(conda_env: str | Path) -> Path:
    """Find the Python of an environment.

    Parameters
    ----------
    conda_env: str or Path
        the folder of an environment (of conda, venv or another tool with that layout), its Python itself, or the
        name of a conda environment.

    Returns
    -------
    Path
        the absolute path of the environment's Python, links not followed (a virtual environment is told by the
        place of its link).

    Raises
    ------
    ValueError
        there is no such environment; the message says where it was looked for.
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

    Outside a job nothing is left out: there ``SLURM_`` variables are options that the user set. In a job, what says
    how the scheduler is reached stays (``SLURM_CONF``, ``SLURM_CLUSTERS``...), and so do the user's defaults for
    submissions (``SBATCH_ACCOUNT``, ``SBATCH_PARTITION``...), which Slurm hands on to jobs but never writes itself.

    Parameters
    ----------
    environment: mapping of str to str
        environment variables, such as ``os.environ``.

    Returns
    -------
    dict of str to str
        the variables for the submission.
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
