"""Import path of the logger in earlier releases."""

from ._log import logger

__all__ = ["logger"]
