"""Which rows are meant: by a path, a hash, a job id, a method, ``-`` for the latest, and by filters."""

import dataclasses
import datetime
import os
import re
from collections.abc import Callable, Iterable, Sequence

from ..errors import FilterError, NoSuchTaskError, UntrustedFileError
from . import scan, sweeps
from .filters import Filter
from .rows import STATES, Row

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_SHORTEST = 4  # characters of a hash


@dataclasses.dataclass
class Selection:
    """What a command line asks for.

    Parameters
    ----------
    names: list of str
        paths, hashes (their first four digits or more), ids of jobs, methods (``Class.method``, or any end of the
        full name, with or without its version), or ``-`` for the latest
    folder: str
        where names that are no paths are looked for
    where, states, since, user, sweep: optional
        conditions: a `Filter`, names of states, an age (``2d``, ``90min``) or date, a user's name, a sweep's name
    acts: bool
        whether something is done to the rows, so that the files of sweeps must be of trusted users
    """

    names: list[str] = dataclasses.field(default_factory=list)
    folder: str = "."
    where: str | None = None
    states: list[str] = dataclasses.field(default_factory=list)
    since: str | None = None
    user: str | None = None
    sweep: str | None = None
    acts: bool = False

    def rows(self) -> list[Row]:
        """All rows that fulfil it, in the order of their addresses.

        Raises
        ------
        NoSuchTaskError
            if a name stands for nothing
        FilterError
            if a condition cannot be read
        NotADirectoryError
            if there is no such folder
        """
        test = self.test()
        return [row for row in self._named() if test(row)]

    def _named(self) -> list[Row]:
        paths = [name for name in self.names if os.path.isdir(name)]
        found: list[Row] = []
        for path in paths:
            found += scan.rows(path)
        others = [name for name in self.names if name not in paths]
        if others or not paths:
            everything = found if paths else scan.rows(self.folder)
            if others:
                found = _once(
                    row for name in others for row in named(name, everything, paths or [self.folder])
                )
            else:
                found = everything
        return found

    def test(self) -> Callable[[Row], bool]:
        """Whether a row fulfils the conditions. Raises as `rows` does."""
        tests: list[Callable[[Row], bool]] = []
        if self.where is not None:
            tests.append(Filter(self.where))
        wanted = {state for states in self.states for state in states.split(",")}
        if wanted - set(STATES):
            raise FilterError(
                f"no state is called {', '.join(sorted(wanted - set(STATES)))}: known are {', '.join(STATES)}"
            )
        if wanted:
            tests.append(lambda row: row.state in wanted)
        if self.since is not None:
            start = moment(self.since)
            tests.append(lambda row: row.when >= start)
        if self.user is not None:
            user = self.user
            tests.append(lambda row: row.facts.get("user") == user)
        if self.sweep is not None:
            points = self.points(self.sweep)
            tests.append(lambda row: row.folder in points)
        if not tests:
            return lambda row: True
        return lambda row: all(test(row) for test in tests)

    def points(self, name: str) -> frozenset[str]:
        """The folders of the points of a sweep, whose file is in one of the folders.

        Raises NoSuchTaskError where there is none, UntrustedFileError for one on whose word nothing is done.
        """
        tops = [scan.named_folder(path) for path in self.names if os.path.isdir(path)] or [
            scan.named_folder(self.folder)
        ]
        found = [(top, sweep) for top in tops if (sweep := sweeps.read(top, name)) is not None]
        if not found:
            raise NoSuchTaskError(
                f"there is no sweep {name!r} in {', '.join(tops)}: it has a file in {sweeps.FOLDER}"
            )
        if self.acts and not all(sweep.trusted for _, sweep in found):
            raise UntrustedFileError(
                f"another user may have written which tasks are points of the sweep {name!r}, so nothing is done to "
                "them. Name the tasks; to trust what that user writes: export EXCA_TRUSTED_USERS=<name>"
            )
        return frozenset(f"{top}/{uid}" for top, sweep in found for uid in sweep.uids)


def one(selection: Selection) -> Row:
    """The one row that is asked for. Raises NoSuchTaskError where there is none, or several."""
    rows = selection.rows()
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise NoSuchTaskError(f"nothing in {selection.folder} fits: `exca ls` shows what there is")
    shown = ", ".join(row.address for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    raise NoSuchTaskError(
        f"several tasks match, and one is needed: {shown}{more}. Give more digits of the hash, or a path"
    )


def named(name: str, rows: Sequence[Row], where: list[str]) -> list[Row]:
    """The rows that a name stands for. Raises NoSuchTaskError where there are none, or a hash is ambiguous."""
    if name == "-":
        latest = max(rows, key=lambda row: row.when, default=None)
        found = [] if latest is None else [latest]
    else:
        found = [row for row in rows if len(name) >= _SHORTEST and row.id.startswith(name)]
        if len({row.address for row in found}) > 1 and not any(row.id == name for row in found):
            few = ", ".join(row.id for row in found[:4])
            raise NoSuchTaskError(
                f"{name!r} is the beginning of several hashes: {few}. Give more of its digits"
            )
        found = found or [row for row in rows if name in (row.uid, row.address)]
        found = found or [row for row in rows if row.method and _is_method(row.method, name)]
        found = found or [row for row in rows if row.facts.get("job_id") == name]
    if not found:
        raise NoSuchTaskError(
            f"{name!r} is no folder, and no hash, job id or method in {', '.join(where)}: `exca ls` shows what there is"
        )
    return found


def _is_method(method: str, name: str) -> bool:
    full, _, version = method.rpartition("/")[2].rpartition(",")
    return any(text == name or text.endswith(f".{name}") for text in (full, f"{full},{version}"))


def _once(rows: Iterable[Row]) -> list[Row]:
    return list({(row.top, row.address): row for row in rows}.values())


def moment(text: str) -> float:
    """The time of an age (``90min``, ``2d``) or a date (``2026-11-24``), in seconds since the epoch."""
    found = _SPAN.fullmatch(text.strip())
    now = datetime.datetime.now().astimezone()
    if found is not None:
        return now.timestamp() - float(found[1]) * _SECONDS[found[2]]
    try:
        return datetime.datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise FilterError(
            f"cannot read the time {text!r}: give an age (90s, 30min, 12h, 2d, 3w) or a date "
            "(2026-11-24, 2026-11-24T18:00)"
        ) from None
