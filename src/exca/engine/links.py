"""Links in the folder of a result to the code and the logs of the job that computes it."""

import os
from pathlib import Path

from .. import _files
from .._log import logger


def link_code(folder: Path, workdir: Path | None) -> None:
    """Link the copy of the code that computes a result, if there is one, into its uid folder, as ``code``."""
    if workdir is not None:
        _link(folder / "code", workdir)


def link_logs(folder: Path, logs: Path) -> None:
    """Link the folder of the logs of the job that computes a task into its uid folder, as ``submitit``."""
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
