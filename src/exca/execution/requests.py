"""From an infra to a request that a backend takes."""

import datetime
import logging
import os
import typing as tp
import uuid
from pathlib import Path

from .backends import Request

if tp.TYPE_CHECKING:
    from ..infra.base import BaseInfra

logger = logging.getLogger("exca")


def request_for(
    infra: "BaseInfra", calls: list[tp.Callable[[], tp.Any]], *, max_workers: int = 256, tag: str = ""
) -> Request:
    """Make the request for jobs of an infra, copying the working directory if there is one.

    Parameters
    ----------
    infra: BaseInfra
        infra whose resources the jobs get
    calls: list of callable
        one a job
    max_workers: int
        how many jobs may run at once
    tag: str
        text by which the jobs are found again in the scheduler
    """
    workdir = None
    if infra.workdir is not None:
        now = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        method_folder = infra._method_folder()
        assert method_folder is not None, "submission needs a folder"
        workdir = infra.workdir.prepare(method_folder / "code" / f"{now}-{uuid.uuid4().hex[:6]}")
    name = infra.job_name or infra._factory()
    return Request(calls, infra, str(infra._logs_folder()), name, max_workers, workdir, tag)


def link_code(folder: Path, workdir: Path | None) -> None:
    """Link the code that computes a result into its folder, as ``code``.

    Parameters
    ----------
    folder: Path
        uid folder
    workdir: Path or None
        working directory of the job
    """
    if workdir is None:
        return
    tmp = folder / f".code.{uuid.uuid4().hex[:8]}"
    try:
        tmp.symlink_to(os.path.relpath(workdir, folder), target_is_directory=True)
        os.replace(tmp, folder / "code")
    except OSError as e:  # file systems without links: the job runs all the same
        tmp.unlink(missing_ok=True)
        logger.debug("cannot link %s to %s: %s", folder / "code", workdir, e)
