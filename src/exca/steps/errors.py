"""Import path of earlier releases, kept for dependants."""

from .._log import logger
from ..errors import BatchProtocolError
from ..kept.steps import ErrorRegistry

__all__ = ["BatchProtocolError", "ErrorRegistry", "logger"]
