"""Pipelines: steps whose results are cached and that run anywhere, in chains that are plain configurations."""

import typing as tp

from . import backends as backends
from .addresses import NO_INPUT as NO_INPUT
from .base import Chain as Chain
from .base import Step as Step

# behind the two, since they derive from Step; known here so that configurations can name their classes
from . import helpers as helpers  # isort: skip
from . import patterns as patterns  # isort: skip

if tp.TYPE_CHECKING:
    from . import conftest as conftest

__all__ = ["NO_INPUT", "Chain", "Step", "backends", "helpers", "patterns"]


def __getattr__(name: str) -> tp.Any:
    if name == "conftest":  # steps for tests, which need no place among the known ones otherwise
        import importlib

        return importlib.import_module(f"{__name__}.conftest")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
