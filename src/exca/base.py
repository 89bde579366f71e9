"""Import path of BaseInfra in earlier releases."""

from .infra.base import BaseInfra as BaseInfra
from .utils import DEFAULT_CHECK_SKIPS as DEFAULT_CHECK_SKIPS
