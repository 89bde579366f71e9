"""Import path of BaseInfra in earlier releases."""

import typing as tp

from .infra.base import BaseInfra
from .utils import DEFAULT_CHECK_SKIPS

__all__ = ["DEFAULT_CHECK_SKIPS", "BaseInfra"]

if not tp.TYPE_CHECKING:

    def __getattr__(name: str) -> tp.Any:  # kept for jobs that 0.6 queued, which hold names of its own
        from .infra.queued import answer

        return answer(__name__, name)
