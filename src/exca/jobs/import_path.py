"""Where a job looks for modules: where the submitting interpreter found them."""

import os
import sys
from pathlib import Path


def import_path(workdir: Path | None) -> str:
    """Value of PYTHONPATH for a job.

    The folder of a script stands on ``sys.path`` of its interpreter only: a job that unpickles a class of
    a module beside the script would not find it. So what a job gets is, in this order: its working directory, the
    PYTHONPATH in force, and what else ``sys.path`` holds outside of Python's own folders.

    Parameters
    ----------
    workdir: Path, optional
        working directory of the job, which comes first

    Returns
    -------
    str
        folders, joined as the platform does
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
