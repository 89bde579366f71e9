"""Warnings that name the line of the user's code that led to them, not one of exca's."""

import contextlib
import os
import sys
import warnings

import pydantic

_INNER = (
    *(os.path.dirname(file) + os.sep for file in (__file__, str(pydantic.__file__))),
    contextlib.__file__,  # which leaves `with` blocks
    "<frozen ",
)


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line of a user's file; at the caller's where there is none."""
    level, frame = 2, sys._getframe(1)
    while frame.f_code.co_filename.startswith(_INNER):
        if frame.f_back is None:  # a thread of exca's, or its command line
            level = 2
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
