"""Finding the folders that hold results, claims or leftovers, under any folder."""

import os
import typing as tp
from pathlib import Path

from .. import _files
from ..cachedict.datafiles import DATA_DIR
from ..cachedict.sideindex import FILE_NAME
from ..cachedict.textindex import INFO_SUFFIX
from ..claims.ledger import SUFFIX as CLAIM_SUFFIX
from ..execution.record import NAME as RECORD
from ..infra.configfiles import UID
from . import leftovers
from .checking import check_folder
from .report import FolderReport, Report

_MARKS = (RECORD, UID, "job.pkl", FILE_NAME)
_CODE = "code"  # copies of users' code: theirs, and large


def verify(folder: str | os.PathLike[str]) -> Report:
    """Check everything under a folder against all sizes and checksums; nothing is changed.

    It may run while others work there. An owner of a claim on another host is judged by its heartbeat, and
    passes for alive until it was watched for as long as a taker-over would.

    Parameters
    ----------
    folder: path
        a cache folder, or any folder in or above one

    Returns
    -------
    Report
        what was found; printed, it is a table

    Raises
    ------
    NotADirectoryError
        if there is no such folder
    """
    root = _files.name_root(os.path.abspath(folder))
    if not os.path.isdir(root):
        raise NotADirectoryError(f"There is no folder {root} to verify: check the path")
    reports = (report_on(root, path, holds_results=whole) for path, whole in places(root))
    return Report(root, [report for report in reports if report is not None])


def places(root: str) -> tp.Iterator[tuple[str, bool]]:
    """Yield each folder under a root in order, and whether it holds results or claims."""
    for folder, subfolders, files in os.walk(root):
        names = {
            *files,
            *(name for name in subfolders if name in _MARKS),
        }  # a folder in the place of a file is damage
        whole = any(mark in names for mark in _MARKS) or any(
            name.endswith((INFO_SUFFIX, CLAIM_SUFFIX)) and name[0] != "." for name in names
        )
        hidden = {_CODE, "__pycache__"} | ({DATA_DIR} if whole else set())
        subfolders[:] = sorted(f for f in set(subfolders) - hidden if not leftovers.is_temporary(f))
        yield folder, whole


def report_on(root: str, folder: str, *, holds_results: bool) -> FolderReport | None:
    """Report on one folder; None where there is nothing to say."""
    report = FolderReport(os.path.relpath(folder, root))
    if holds_results:
        check_folder(Path(folder), report)
    report.leftovers += leftovers.find(folder)
    return report if holds_results or report.leftovers else None
