"""Kept for dependants: where the published release has it."""

from .addresses import NoInput as NoValue

__all__ = ["NoValue"]
