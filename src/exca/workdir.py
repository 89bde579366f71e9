"""The import path of users' code for the copied working directory."""

import typing as tp

from .jobs.workdir import WorkDir, identify_path

__all__ = ["WorkDir", "identify_path"]


if not tp.TYPE_CHECKING:

    def __getattr__(name: str) -> tp.Any:  # kept for dependants: names of earlier releases
        if name.startswith("__"):
            raise AttributeError(name)
        from . import kept

        return kept.lookup(__name__, name)
