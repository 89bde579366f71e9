"""What becomes of the messages of the ``exca`` logger: the application's business, where it has set up logging.

Where neither the ``exca`` logger nor the root logger has a handler, they go to stderr from INFO on, or from the level
that ``EXCA_LOG`` names. Decided anew for each message, since an application may set up logging after its imports.
"""

import logging
import os
import sys

_BY_DEFAULT = logging.INFO - 1  # no level of others, so that one that the application sets is told apart

logger: logging.Logger = logging.getLogger("exca")


class _Stderr(logging.Handler):
    """Writes to what is stderr at the moment, unless the application has a handler of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.root.handlers or any(handler is not self for handler in logger.handlers):
            return
        try:
            if sys.stderr is not None:
                sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def _wanted(record: logging.LogRecord) -> bool:
    """Whether a message is to be passed on: by the application's level, where it has handlers and set none on us."""
    if logger.level != _BY_DEFAULT or not logging.root.handlers:
        return True
    return record.levelno >= logging.root.level


def _level() -> int:
    named = logging.getLevelName(os.environ.get("EXCA_LOG", "").upper())
    return named if isinstance(named, int) else _BY_DEFAULT


if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
    _handler = _Stderr()
    _handler.setFormatter(logging.Formatter("exca %(levelname)s: %(message)s"))
    logger.addHandler(_handler)
    logger.addFilter(_wanted)
    if logger.level == logging.NOTSET:
        logger.setLevel(_level())
