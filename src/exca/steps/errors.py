"""Import path of earlier releases, kept for dependants."""

import logging

from ..errors import BatchProtocolError
from ..kept.steps import ErrorRegistry

__all__ = ["BatchProtocolError", "ErrorRegistry", "logger"]

logger: logging.Logger = logging.getLogger(__name__)
