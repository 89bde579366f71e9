"""The import path of users' code for the copied working directory."""

import typing as tp

from ._earlier import earlier_names
from .jobs.workdir import WorkDir, identify_path

__all__ = ["WorkDir", "identify_path"]

if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
