"""Import path of the submission mixin in earlier releases."""

import typing as tp

from ._earlier import earlier_names
from .infra.edge import SubmititMixin

__all__ = ["SubmititMixin"]

if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
