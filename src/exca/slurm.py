"""Import path of the submission mixin in earlier releases."""

from .execution.resources import Resources as SubmititMixin

__all__ = ["SubmititMixin"]
