"""For the tests of code that uses exca: a cache and clusters of their own, and what was computed.

``pytest_plugins = ["exca.testing.plugin"]`` in ``conftest.py`` gives the fixtures ``exca_cache`` and ``exca_computed``.
``exca.testing.backend_tests`` has the tests that every backend has to pass.
"""

import contextlib
import os
import typing as tp
from pathlib import Path

from .. import _clusters
from ..engine import method

if tp.TYPE_CHECKING:
    from ..engine.method import Computed

__all__ = ["MissError", "computed", "hits", "redirect"]


class MissError(AssertionError):
    """Something was computed that was to be found in the cache."""


@contextlib.contextmanager
def redirect(
    folder: str | os.PathLike[str] | None = None, *, in_process: bool = True
) -> tp.Iterator[Path | None]:
    """Context in which infras and backends of steps use another folder and, by default, run in this process.

    It holds for objects that are made in it (or first used in it, of steps); what has no folder gets none. Addresses of
    results are the same as elsewhere.

    Parameters
    ----------
    folder: path, optional
        in the place of every folder; by default each keeps its own
    in_process: bool
        let all clusters and pools be this thread; jobs are then done as soon as they are asked for

    Yields
    ------
    Path or None
        the folder
    """
    place = None if folder is None else Path(folder).absolute()
    before = _clusters.redirection
    _clusters.redirection = _clusters.Redirection(place, in_process)
    try:
        yield place
    finally:
        _clusters.redirection = before


@contextlib.contextmanager
def computed() -> tp.Iterator[list[str]]:
    """Context that lists the uids of what is computed in it, or submitted to be.

    Tasks, maps and stages of pipelines are listed once per computation, calls of which nothing is kept are not.

    Yields
    ------
    list of str
        uids, in their order; it grows
    """
    found: list[str] = []

    def note(what: "Computed") -> None:
        found.append(what.uid)

    method.observers.append(note)
    try:
        yield found
    finally:
        method.observers.remove(note)


@contextlib.contextmanager
def hits() -> tp.Iterator[None]:
    """Context in which every call has to be a hit.

    Raises
    ------
    MissError
        where something is about to be computed or submitted
    """

    def refuse(what: "Computed") -> None:
        place = "which has no cache" if what.folder is None else f"which has no result in {what.folder}"
        raise MissError(
            f"not a hit: {what.uid}, {place}, is about to be computed. exca.why(obj) tells what differs from the "
            "results that are there"
        )

    method.observers.append(refuse)
    try:
        yield
    finally:
        method.observers.remove(refuse)
