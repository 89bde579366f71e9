"""Import path of the logger in earlier releases."""

import logging

__all__ = ["logger"]

logger: logging.Logger = logging.getLogger("exca")
