"""From an infra to a request that a backend takes."""

import datetime
import logging
import os
import typing as tp
import uuid
from pathlib import Path

from .. import _files
from ..jobs.backends import Request

if tp.TYPE_CHECKING:
    from ..infra.base import BaseInfra

logger = logging.getLogger("exca")


def request_for(
    infra: "BaseInfra",
    calls: list[tp.Callable[[], tp.Any]],
    *,
    max_workers: int = 256,
    tag: str = "",
    name: str = "",
    workdir: Path | None = None,
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
    name: str
        name that the scheduler shows; empty for the infra's own
    workdir: Path, optional
        the copy of the working directory, if there is one already
    """
    if infra.workdir is not None and workdir is None:
        workdir = infra.workdir.prepare(code_folder(infra))
    logs = str(infra._logs_folder())
    request = Request(calls, infra, logs, name or infra._job_name(), max_workers, workdir, tag)
    request.parameters = infra._launcher_parameters()
    return request


def code_folder(infra: "BaseInfra") -> Path:
    """A new place for a copy of the code that jobs of an infra run on.

    Parameters
    ----------
    infra: BaseInfra
        infra with a folder
    """
    now = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    method_folder = infra._method_folder()
    assert method_folder is not None, "submission needs a folder"
    return method_folder / "code" / f"{now}-{uuid.uuid4().hex[:6]}"


def link_code(folder: Path, workdir: Path | None) -> None:
    """Link the code that computes a result into its folder, as ``code``.

    Parameters
    ----------
    folder: Path
        uid folder
    workdir: Path or None
        working directory of the job
    """
    if workdir is not None:
        _link(folder / "code", workdir)


def link_logs(folder: Path, logs: Path) -> None:
    """Link the logs of the job that computes a task into its folder, as ``submitit``.

    Parameters
    ----------
    folder: Path
        uid folder
    logs: Path
        folder of the job's logs
    """
    _link(folder / "submitit", logs)


def _link(link: Path, target: Path) -> None:
    """Make a link in a uid folder, or replace the one of an earlier job."""
    text = str(target)
    if target.is_relative_to(link.parents[1]):  # below the method's folder, which may be moved
        text = os.path.relpath(target, link.parent)
    try:
        _files.link(text, str(link))
    except OSError as e:  # file systems without links: the job runs all the same
        logger.debug("cannot link %s to %s: %s", link, target, e)
