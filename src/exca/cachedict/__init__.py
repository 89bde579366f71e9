"""Storage: values by text key in a plain folder that many processes and hosts share, with no server."""

import importlib
import typing as tp

from .._trust import is_trusted, require_trusted, trust
from . import handlers
from .core import CacheDict, delete_one, dump_one, load_one
from .dumpcontext import DumpContext, DumpOptions

if tp.TYPE_CHECKING:
    from . import contiguous as contiguous

__all__ = [
    "CacheDict",
    "DumpContext",
    "DumpOptions",
    "contiguous",
    "delete_one",
    "dump_one",
    "handlers",
    "is_trusted",
    "load_one",
    "require_trusted",
    "trust",
]


def __getattr__(name: str) -> tp.Any:
    if name == "contiguous":  # imports numpy
        return importlib.import_module(f"{__name__}.contiguous")
    from .. import kept  # names of earlier releases

    return kept.lookup(__name__, name)
