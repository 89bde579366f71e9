"""Kept for dependants: where the published release has it."""

from ..errors import BatchProtocolError

__all__ = ["BatchProtocolError"]
