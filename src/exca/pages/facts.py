"""What the pages show, as plain data: gathered from the rows of a folder, with no HTML in it.

Every text in it is one that people read: of bounded length, and without control characters. Whoever writes it into a
page still escapes it.
"""

import collections
import contextlib
import dataclasses
import datetime
import re
import typing as tp
from collections.abc import Iterable, Sequence

from ..catalog import efficiency, sweeps
from ..catalog.rows import STATES, Row, differing, is_number, text_of
from ..catalog.scan import seconds_of, walk_files
from ..errors import SweepError
from .records import attempts_and_traceback

MOST_GROUPS = 40  # methods with a section of their own
_WIDEST = 60  # characters of a cell
_LONGEST = 1000  # characters of a value that is shown alone
_KINDS = 16  # values of a field that names the kind of a model
_REPRESENTATIVES = 64  # configurations that are read for the defaults of a method
_METHOD = re.compile(r"(?:.*/)?(?P<name>[^/]*?)(?:,(?P<version>[^/,]*))?")
_VARYING = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{8,}|\d+(?:\.\d+)?(?:e[-+]?\d+)?|'[^']*'|\"[^\"]*\"")
_TITLES = {"value": "result", "when": "finished"}


@dataclasses.dataclass(slots=True)
class Column:
    """One column of the table of runs.

    Parameters
    ----------
    name: str
        of the field, or of what else is known
    role: str
        ``parameter``, ``result`` or ``fact``
    values: list
        one per run, as JSON types; None where a run has none
    texts: list of str
        the same for people
    defaults: list of bool
        which of them are the default of the field
    """

    name: str
    role: str
    values: list[tp.Any]
    texts: list[str]
    defaults: list[bool] = dataclasses.field(default_factory=list)
    title: str = dataclasses.field(init=False)  # its name for people
    numeric: bool = dataclasses.field(init=False)  # whether all values are numbers
    distinct: int = dataclasses.field(init=False)  # how many differ

    def __post_init__(self) -> None:
        self.title = field_name(_TITLES.get(self.name, self.name.removeprefix("value.")))
        there = [value for value in self.values if value is not None]
        self.numeric = bool(there) and all(map(is_number, there))
        self.distinct = len(set(self.texts))

    def numbers(self) -> list[float | None]:
        """The values that are finite numbers, None elsewhere."""
        return [float(value) if is_number(value) else None for value in self.values]


@dataclasses.dataclass(slots=True)
class Run:
    """One run (or cache of items) as the pages list it.

    Parameters
    ----------
    key: str
        by which the page names it; it tells nothing of paths
    id, address, state: str
        as the command line names it
    row: Row
        all that is known
    """

    key: str
    id: str
    address: str
    state: str
    row: Row


@dataclasses.dataclass(slots=True)
class Group:
    """The runs of one method.

    Parameters
    ----------
    key: str
        by which the page names it
    name, version: str
        of the method
    runs: list of Run
        the latest first
    counts: dict
        how many there are in each state
    shared: dict
        what all configurations set, by name
    columns: list of Column
        what differs, results, and what else is known
    used: list of str
        what jobs asked for and used, in sentences
    """

    key: str
    name: str
    version: str
    runs: list[Run]
    counts: dict[str, int]
    shared: dict[str, str]
    columns: list[Column]
    used: list[str]
    defaults: "Defaults"

    def of_role(self, *roles: str) -> list[Column]:
        """Its columns of some roles."""
        return [column for column in self.columns if column.role in roles]


@dataclasses.dataclass(slots=True)
class SweepFacts:
    """A sweep: how many of its points are in which state; ``missing`` are those that the folder does not have."""

    name: str
    target: str
    source: str
    written: str
    points: int
    counts: dict[str, int]
    problem: str = ""


@dataclasses.dataclass(slots=True)
class ErrorGroup:
    """Runs whose errors read alike, but for numbers and quoted names."""

    text: str
    runs: list[Run]


@dataclasses.dataclass(slots=True)
class Stored:
    """How much one method has stored."""

    name: str
    version: str
    nbytes: int
    files: int
    runs: int


@dataclasses.dataclass(slots=True)
class Facts:
    """All that a report shows.

    Parameters
    ----------
    title: str
        name of the folder
    made: str
        when it was looked at
    counts: dict
        runs by state
    groups, sweeps, errors, storage: list
        see there
    """

    title: str
    made: str
    counts: dict[str, int]
    groups: list[Group]
    sweeps: list[SweepFacts]
    errors: list[ErrorGroup]
    storage: list[Stored]

    @property
    def total(self) -> int:
        """How many runs there are."""
        return sum(self.counts.values())


# ---------------------------------------------------------------- values


def shortened(value: tp.Any, most: int = _WIDEST) -> str:
    """A value in one line of so many characters at most."""
    if isinstance(value, str) and len(value) > 4 * most:
        value = value[: 4 * most]  # the whole of it is not looked at
    text = text_of(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def field_name(name: str) -> str:
    """A name in one line; something where there is nothing to see."""
    text = shortened(name)
    return text if text.strip() else "(no name)"


def whole(value: tp.Any) -> str:
    """A value that is shown alone, and how long it is if not all of it is."""
    length = len(value) if isinstance(value, str) else 0
    text = shortened(value, _LONGEST)
    return f"{text} ({length:,} characters)" if length > _LONGEST else text


def moment(seconds: float) -> str:
    """A time for people, in the zone of this machine."""
    if not 0 < seconds < 1e11:
        return "-"
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counts_of(states: Iterable[str]) -> dict[str, int]:
    """How many there are of each state, in the order of the states."""
    counted = collections.Counter(states)
    return {
        state: counted[state] for state in (*STATES, *sorted(counted.keys() - set(STATES))) if counted[state]
    }


# ---------------------------------------------------------------- runs by method


class Defaults:
    """The defaults of a method's fields, as a few of its configurations show them.

    A field that a configuration leaves out is at its default, which depends on which kinds of models it names. So one
    configuration is read per combination of these.
    """

    def __init__(self, rows: Sequence[Row], names: Sequence[str]) -> None:
        parts = collections.Counter(name.rpartition(".")[0] for name in names)
        self._kinds: list[str] = [
            name
            for name in names
            if "." in name and parts[name.rpartition(".")[0]] > 1 and _is_kind(name, rows)
        ]
        self._known: dict[tuple[tp.Any, ...], dict[str, tp.Any]] = {}
        self._looked_for: set[tuple[tp.Any, ...]] = set()

    def get(self, row: Row, name: str) -> tp.Any:
        """The default of a field that a configuration leaves out, None where it is not known."""
        kind = tuple(row.config.get(each) for each in self._kinds)
        known = self._known.setdefault(kind, {})
        if name not in known and (*kind, name) not in self._looked_for:
            self._looked_for.add((*kind, name))
            if name not in row.config and len(self._looked_for) <= _REPRESENTATIVES:
                known.update((other, v) for other, v in row.full.items() if other not in row.config)
        return known.get(name)

    def of(self, row: Row) -> dict[str, tp.Any]:
        """What is known of the defaults of a configuration's kind."""
        return self._known.get(tuple(row.config.get(each) for each in self._kinds), {})


def _is_kind(name: str, rows: Sequence[Row]) -> bool:
    """Whether a field may tell which kind of model is meant: few texts."""
    values = {value if isinstance(value := row.config.get(name, ""), str) else None for row in rows}
    return None not in values and len(values) <= _KINDS


def named(method: str) -> tuple[str, str]:
    """The name and the version of a method, for people, from its folder."""
    match = _METHOD.fullmatch(method)
    name, version = (match["name"], match["version"]) if match is not None else (method, None)
    return shortened(name or "tasks", 120), shortened(version or "", 20)


def run_of(row: Row, key: str = "") -> Run:
    """A row as the pages list it."""
    return Run(key, shortened(row.id), shortened(row.address, 300), row.state, row)


def group(key: str, method: str, rows: Sequence[Row]) -> Group:
    """The runs of one method, the latest first."""
    rows = sorted(rows, key=lambda row: (row.state not in ("running", "interrupted"), -row.when))
    shared, names = differing(rows)
    name, version = named(method)
    defaults = Defaults(rows, names)
    columns = [_parameter(each, rows, defaults) for each in names]
    columns += _known(rows)
    used: list[str] = []
    timed = [row for row in rows if is_number(row.facts.get("used.max_rss_mb"))]
    if timed:
        with contextlib.suppress(TypeError, ValueError, ArithmeticError, KeyError):  # another user's record
            used = efficiency.sentences(efficiency.figures(timed))
    return Group(
        key,
        name,
        version,
        [run_of(row, f"{key}-{k}") for k, row in enumerate(rows)],
        counts_of(row.state for row in rows),
        {field_name(name): shortened(value, 120) for name, value in shared.items()},
        columns,
        used,
        defaults,
    )


def _parameter(name: str, rows: Sequence[Row], defaults: Defaults) -> Column:
    at_default = [name not in row.config for row in rows]
    values = [
        defaults.get(row, name) if default else row.config[name]
        for row, default in zip(rows, at_default, strict=True)
    ]
    texts = [
        "" if value is None and default else shortened(value)
        for value, default in zip(values, at_default, strict=True)
    ]
    return Column(name, "parameter", values, texts, at_default)


def _known(rows: Sequence[Row]) -> list[Column]:
    """The columns of results, and of what else is known where there is any."""
    names = dict.fromkeys(name for row in rows for name in row.facts)
    results = [name for name in names if name == "value" or name.startswith("value.")]
    found = [_fact(name, "result", rows) for name in results]
    found += [_fact(name, "fact", rows) for name in ("seconds", "items", "attempts") if name in names]
    for name in ("user", "host"):
        column = _fact(name, "fact", rows)
        if column.distinct > 1:
            found.append(column)
    times = [row.when for row in rows]
    found.append(Column("when", "fact", times, [moment(when) for when in times]))
    if "error" in names:
        found.append(_fact("error", "fact", rows))  # the widest
    titles = {name.removeprefix("value.") for name in results}
    for column in found:
        if column.role == "fact" and column.title in titles:
            column.title = f"_{column.name}"  # as conditions name it
    return [column for column in found if column.name != "attempts" or column.distinct > 1]


def _fact(name: str, role: str, rows: Sequence[Row]) -> Column:
    values = [row.facts.get(name) for row in rows]
    return Column(name, role, values, ["" if value is None else shortened(value) for value in values])


def groups_of(rows: Iterable[Row]) -> list[Group]:
    """All runs by method; of very many methods, those with the fewest runs are put together."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    largest = sorted(by_method, key=lambda method: -len(by_method[method]))
    apart = set(largest[MOST_GROUPS:])
    found = [group(f"g{k}", method, by_method[method]) for k, method in enumerate(largest[:MOST_GROUPS])]
    called = collections.Counter((each.name, each.version) for each in found)
    for each, method in zip(found, largest, strict=False):
        if called[each.name, each.version] > 1:  # the same step in several pipelines
            each.name = shortened(method, 200)
    if apart:
        rest = [row for method in by_method if method in apart for row in by_method[method]]
        together = group("rest", f"{len(apart)} further methods", rest)
        together.columns.insert(
            0,
            Column(
                "method",
                "fact",
                [r.row.method for r in together.runs],
                [shortened(r.row.method) for r in together.runs],
            ),
        )
        found.append(together)
    return found


# ---------------------------------------------------------------- one run


@dataclasses.dataclass(slots=True)
class RunFacts:
    """All that is known of one run.

    Parameters
    ----------
    run: Run
        which
    config: list
        name, value and default ("" where that is not known) of each field that was set
    defaults: list
        name and value of each other field
    known: dict
        what else is known, by what it is about: name and value
    attempts: list
        of each attempt before: what became of it, why, where, and when
    traceback: str
        of an error
    other: Run, optional
        the completed run that differs least from it
    differs: list
        name, value here, value there
    """

    run: Run
    config: list[tuple[str, str, str]]
    defaults: list[tuple[str, str]]
    known: dict[str, list[tuple[str, str]]]
    attempts: list[list[str]]
    traceback: str
    other: Run | None = None
    differs: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)


_ABOUT = {
    "resources": "Asked",
    "used": "Used",
    "git": "Code",
    "code": "Code",
    **dict.fromkeys(
        ("started", "finished", "submitted", "host", "user", "pid", "cluster", "job_id", "python", "exca"),
        "Where and when",
    ),
}
_TIMES = frozenset(("started", "finished", "submitted"))
_SAID_ELSEWHERE = frozenset(("error", "attempt", "kind"))


def run_facts(run: Run, of: Group, *, full: bool = False) -> RunFacts:
    """All that is known of one run; with ``full``, also the fields that are at their defaults."""
    row = run.row
    defaults = of.defaults.of(row)
    config = [
        (field_name(name), whole(value), shortened(defaults[name]) if name in defaults else "")
        for name, value in row.config.items()
    ]
    rest = [
        (field_name(name), shortened(value))
        for name, value in (row.full if full else defaults).items()
        if name not in row.config
    ]
    known: dict[str, list[tuple[str, str]]] = {"Outcome": []}
    if row.facts.get("error") is not None:
        known["Outcome"].append(("error", whole(row.facts["error"])))
    for name, value in row.facts.items():
        if name not in _SAID_ELSEWHERE and value is not None:
            about, _, rest_of = name.partition(".")
            title = _ABOUT.get(about, "Outcome") if rest_of else _ABOUT.get(name, "Outcome")
            said = name if title in ("Outcome", "Where and when") else rest_of
            if title == "Outcome":
                said = (
                    f"_{name}"
                    if f"value.{name}" in row.facts
                    else _TITLES.get(name, name.removeprefix("value."))
                )
            shown = moment(seconds_of(value)) if name in _TIMES else whole(value)
            known.setdefault(title, []).append((field_name(said), shown))
    known = {title: pairs for title, pairs in known.items() if pairs}
    return RunFacts(run, config, rest, known, *attempts_and_traceback(row))


class Nearest:
    """Finds the completed run that differs in the fewest parameters."""

    _MOST = 2000  # runs among which it is looked for

    def __init__(self, of: Group) -> None:
        import numpy as np

        self._of = of
        self._columns = of.of_role("parameter")
        codes = []
        for column in self._columns:
            known: dict[str, int] = {}
            codes.append([known.setdefault(text, len(known)) for text in column.texts])
        self._codes = np.array(codes, dtype=np.int32).reshape(len(codes), len(of.runs))
        done = [k for k, run in enumerate(of.runs) if run.state == "completed"][: self._MOST]
        self._done = np.array(done, dtype=np.int64)

    def complete(self, facts: RunFacts) -> RunFacts:
        """Add what differs from that run, where there is one."""
        if not len(self._done) or not self._columns:
            return facts
        at = int(facts.run.key.rpartition("-")[2])
        distance = (self._codes[:, self._done] != self._codes[:, at : at + 1]).sum(axis=0)
        distance[self._done == at] = len(self._columns) + 1
        best = int(self._done[int(distance.argmin())])
        if best == at:
            return facts
        facts.other = self._of.runs[best]
        facts.differs = [
            (column.title, column.texts[at], column.texts[best])
            for column in self._columns
            if column.texts[at] != column.texts[best]
        ]
        return facts


# ---------------------------------------------------------------- the whole folder


def errors_of(runs: Iterable[Run]) -> list[ErrorGroup]:
    """Errors by their message, whatever the numbers and quoted names in it; the most frequent first."""
    found: dict[str, ErrorGroup] = {}
    for run in runs:
        error = run.row.facts.get("error")
        if error is not None:
            text = str(error)
            like = _VARYING.sub("#", text)
            found.setdefault(like, ErrorGroup(shortened(text, 300), [])).runs.append(run)
    return sorted(found.values(), key=lambda one: -len(one.runs))


def sweeps_of(folder: str, rows: Sequence[Row]) -> list[SweepFacts]:
    """The sweeps of a folder, the latest first."""
    states = {row.address: row.state for row in rows}
    found = []
    for name in sweeps.names(folder):
        try:
            sweep = sweeps.read(folder, name)
        except (SweepError, OSError) as e:
            found.append((0.0, SweepFacts(shortened(name), "", "", "-", 0, {}, shortened(str(e), 300))))
            continue
        if sweep is not None:
            counts = counts_of(states.get(uid, "missing") for uid in sweep.uids)
            source = sweep.source.replace("\\", "/").rpartition("/")[2]
            facts = SweepFacts(
                shortened(name),
                shortened(sweep.target),
                shortened(source),
                moment(sweep.written),
                len(sweep.uids),
                counts,
            )
            found.append((sweep.written, facts))
    return [facts for _, facts in sorted(found, key=lambda pair: -pair[0])]


def storage_of(groups: Iterable[Group]) -> list[Stored]:
    """How much each method has stored, the largest first."""
    found = []
    for each in groups:
        sizes = [status.st_size for run in each.runs for _, status in walk_files(run.row.folder)]
        found.append(Stored(each.name, each.version, sum(sizes), len(sizes), len(each.runs)))
    return sorted(found, key=lambda one: -one.nbytes)


def gather(title: str, folder: str, rows: Sequence[Row]) -> Facts:
    """All that a report shows of some rows of a folder."""
    groups = groups_of(rows)
    now = datetime.datetime.now().astimezone()
    return Facts(
        shortened(title, 120),
        now.strftime("%Y-%m-%d %H:%M"),
        counts_of(row.state for row in rows),
        groups,
        sweeps_of(folder, rows),
        errors_of(run for each in groups for run in each.runs),
        storage_of(groups),
    )
