"""What takes the place of a decorated function, whichever way its results are kept."""

import functools
import typing as tp

from .. import _foreign
from .._log import logger
from ..helpers import Decorated, name_of, plain, reachable
from ..infra.base import BaseInfra
from .signature import Options

# attributes of what joblib.Memory.cache returns, and what to write here
OF_JOBLIB = {
    "call": "f.func(...) computes without the cache, f.using(mode='force')(...) computes again and keeps the result",
    "func_id": "the folder of the results is f.infra_of(...).uid_folder()",
    "func_code_info": "exca.why(f.infra_of(...)) tells by which code a result was computed",
    "store_backend": "the folder of the results is f.infra_of(...).uid_folder()",
    "mmap_mode": "large arrays are memory-mapped when they are read",
}


class Function(Decorated):
    """A decorated function: it has the name, docstring and signature of the plain one, and pickles like it.

    Parameters
    ----------
    func: callable
        the plain function
    infra: dict
        fields of its infra
    options: Options
        what the decorator says of its parameters
    """

    _of_joblib: tp.ClassVar[tp.Mapping[str, str]] = OF_JOBLIB

    _made: tp.Any = None  # what was made of it in this process
    _kept: tp.Any = None  # configurations that this process keeps

    def __init__(self, func: tp.Callable[..., tp.Any], infra: dict[str, tp.Any], options: Options) -> None:
        self.func = func
        self.infra = infra
        self.options = options
        functools.update_wrapper(tp.cast(tp.Any, self), func, updated=())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {name_of(self.func)} with {self.infra!r}>"

    if not tp.TYPE_CHECKING:  # type checkers refuse unknown attributes

        def __getattr__(self, name: str) -> tp.Any:
            return _foreign.attribute(self, name, "joblib", self._of_joblib)

    def __getstate__(self) -> dict[str, tp.Any]:
        func = reachable(self.func)
        return {**self.__dict__, "func": func, "__wrapped__": func, "_made": None, "_kept": None}

    def __setstate__(self, state: dict[str, tp.Any]) -> None:
        func = plain(state["func"])
        self.__dict__.update(state, func=func, __wrapped__=func)


# what users of joblib may write, and what it is here
_OPTIONS_OF_JOBLIB = {
    "location": "write folder",
    "verbose": "leave it out, and set the level of the 'exca' logger",
    "mmap_mode": "leave it out: large arrays are memory-mapped when they are read",
    "compress": "leave it out: results are kept as they are",
    "backend": "leave it out",
    "backend_options": "leave it out",
    "bytes_limit": "leave it out, and remove results by iter_cached()",
    "cache_validation_callback": "raise version to compute anew, or call infra_of(...).clear_job()",
}


def checked_fields(
    decorator: str, folder: tp.Any, fields: dict[str, tp.Any], kind: type[BaseInfra]
) -> dict[str, tp.Any]:
    """The fields of an infra as they were given to a decorator, checked by making one."""
    if callable(folder):
        raise TypeError(
            f"@exca.{decorator} needs a folder to keep results in: write @exca.{decorator}(folder=...)"
        )
    for name, value in fields.items():
        if name in _OPTIONS_OF_JOBLIB:
            raise TypeError(f"{name}={value!r} is an option of joblib.Memory: {_OPTIONS_OF_JOBLIB[name]}")
    if folder is not None:
        fields = {**fields, "folder": folder}
    infra: tp.Any = kind(**fields)
    if infra.folder is None and infra.cluster is None and not infra.keep_in_ram:
        logger.warning(
            "exca.%s changes nothing: without a folder nothing is kept, and with cluster=None nothing runs elsewhere",
            decorator,
        )
    return fields
