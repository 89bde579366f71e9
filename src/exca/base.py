"""Import path of BaseInfra in earlier releases."""

import typing as tp

from ._earlier import earlier_names
from .infra.base import BaseInfra
from .utils import DEFAULT_CHECK_SKIPS

__all__ = ["DEFAULT_CHECK_SKIPS", "BaseInfra"]

if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
