"""Execution and caching: typed configurations whose computations run anywhere and are computed once.

The names are loaded when first touched, so that ``import exca`` is instant.
"""

import importlib
import typing as tp

__version__ = "1.0.0rc1"

if tp.TYPE_CHECKING:
    from . import cachedict as cachedict
    from . import functions as functions
    from . import helpers as helpers
    from . import settings as settings
    from . import steps as steps
    from . import testing as testing
    from . import utils as utils
    from . import workdir as workdir
    from .catalog.frames import table as table
    from .confdict import ConfDict as ConfDict
    from .engine.current import current as current
    from .engine.current import log_metrics as log_metrics
    from .explaining import accept as accept
    from .explaining import accepted as accepted
    from .explaining import why as why
    from .functions.executor import Executor as Executor
    from .functions.items import map_cached as map_cached
    from .functions.tasks import cached as cached
    from .jobs.waiting import as_completed as as_completed
    from .jobs.waiting import wait as wait
    from .map import MapInfra as MapInfra
    from .pages.plots import plot as plot
    from .submit import SubmitInfra as SubmitInfra
    from .task import TaskInfra as TaskInfra
    from .verifying.check import verify as verify
    from .verifying.repair import repair as repair

__all__ = [
    "ConfDict",
    "Executor",
    "MapInfra",
    "SubmitInfra",
    "TaskInfra",
    "__version__",
    "accept",
    "accepted",
    "as_completed",
    "cached",
    "current",
    "helpers",
    "log_metrics",
    "map_cached",
    "plot",
    "repair",
    "settings",
    "table",
    "verify",
    "why",
]

_HOMES = {
    "ConfDict": "confdict",
    "Executor": "functions.executor",
    "MapInfra": "map",
    "SubmitInfra": "submit",
    "TaskInfra": "task",
    "accept": "explaining",
    "accepted": "explaining",
    "as_completed": "jobs.waiting",
    "cached": "functions.tasks",
    "current": "engine.current",
    "log_metrics": "engine.current",
    "map_cached": "functions.items",
    "plot": "pages.plots",
    "repair": "verifying.repair",
    "table": "catalog.frames",
    "verify": "verifying.check",
    "wait": "jobs.waiting",
    "why": "explaining",
}
_SUBMODULES = frozenset(
    (
        "base",
        "cachedict",
        "confdict",
        "errors",
        "functions",
        "helpers",
        "logconf",
        "map",
        "settings",
        "slurm",
        "steps",
        "task",
        "testing",
        "utils",
        "workdir",
    )
)


def __getattr__(name: str) -> tp.Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBMODULES})
