"""Import path of BaseInfra in earlier releases."""

import typing as tp

from .infra.base import BaseInfra
from .utils import DEFAULT_CHECK_SKIPS

__all__ = ["DEFAULT_CHECK_SKIPS", "BaseInfra"]


if not tp.TYPE_CHECKING:

    def __getattr__(name: str) -> tp.Any:  # kept for dependants: names of earlier releases
        if name.startswith("__"):
            raise AttributeError(name)
        from . import kept

        return kept.lookup(__name__, name)
