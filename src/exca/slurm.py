"""Import path of the submission mixin in earlier releases."""

import typing as tp

from .infra.edge import SubmititMixin

__all__ = ["SubmititMixin"]

if not tp.TYPE_CHECKING:

    def __getattr__(name: str) -> tp.Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from . import kept

        return kept.lookup(__name__, name)
