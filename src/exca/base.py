"""Import path of BaseInfra in earlier releases."""

from .infra.base import BaseInfra
from .utils import DEFAULT_CHECK_SKIPS

__all__ = ["DEFAULT_CHECK_SKIPS", "BaseInfra"]
