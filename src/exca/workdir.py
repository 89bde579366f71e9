"""The import path of users' code for the copied working directory."""

from .execution.workdir import WorkDir, identify_path

__all__ = ["WorkDir", "identify_path"]
