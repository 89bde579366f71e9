"""One row per configuration: what its files tell of it."""

import json
import math
import re
import time
import typing as tp
from collections.abc import Sequence

STATES = ("completed", "failed", "running", "interrupted", "stored", "damaged", "unknown", "empty", "pruned")
_ODD = b" "  # begins texts with values that orjson does not know: NaN, large integers
_DEEPEST = 30  # containers in one another
_MOST = 200_000  # values in a container, with those of the containers in it: a YAML may multiply them by references
HASH = re.compile(r"(?:^|-)([0-9a-f]{8,32})$")


class Row:
    """What is known of one configuration of a method.

    Parameters
    ----------
    method: str
        folder of the method, within the folder that was listed: ``train.Train.loss,1``
    uid: str
        its own folder in that one
    state: str
        ``completed`` or ``failed`` (a task's outcome), ``pruned`` (a search ended its job), ``running``,
        ``interrupted`` (what computed it has died), ``stored`` (items of a map or of a step, or the outcome of a task
        of an earlier release, which only a pickle tells), ``damaged``, ``unknown`` (of a later release), or ``empty``
    when: float
        when that was written, in seconds since the epoch
    config: dict
        what its uid was computed from, by dotted name
    facts: dict
        what else is known: ``seconds``, ``started``, ``finished``, ``host``, ``user``, ``job_id``, ``cluster``,
        ``value`` (a result that is one number or text), ``error``, ``items`` (how many a map has)...
    """

    __slots__ = (
        "_full",
        "_parts",
        "_text",
        "changed",
        "inode",
        "method",
        "nested",
        "state",
        "top",
        "uid",
        "when",
    )

    def __init__(  # noqa: PLR0917 # a hundred thousand are made at once, for which names take long
        self,
        method: str,
        uid: str,
        state: str = "empty",
        when: float = 0.0,
        text: bytes = b"",
        changed: int = 0,
        inode: int = 0,
    ) -> None:
        self.method: str = method
        self.uid: str = uid
        self.state: str = state
        self.when: float = when
        self._full: dict[str, tp.Any] | None = None
        self.top: str = ""  # the folder that was listed
        self.nested: bool = False  # whether stages of a pipeline are below it
        self.changed: int = changed  # time of its folder in ns when it was looked at, and its inode
        self.inode: int = inode
        self._text = text  # of its parts, which are parsed when first asked for
        self._parts: tuple[dict[str, tp.Any], dict[str, tp.Any]] | None = None if text else ({}, {})

    def _parsed(self) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
        if self._parts is None:
            import orjson

            load = json.loads if self._text[:1] == _ODD else orjson.loads
            config, facts = load(self._text)
            self._parts = config, facts
        return self._parts

    @property
    def config(self) -> dict[str, tp.Any]:
        """What its uid was computed from, by dotted name."""
        return self._parsed()[0]

    @property
    def facts(self) -> dict[str, tp.Any]:
        """What else is known of it, by name."""
        return self._parsed()[1]

    @property
    def full(self) -> dict[str, tp.Any]:
        """The configuration with its defaults, as ``full-uid.yaml`` has it; read when first asked for."""
        if self._full is None:
            from pathlib import Path

            from ..identity import configfolder

            try:
                config, _ = configfolder.load(Path(self.folder) / configfolder.FULL)
                self._full = {**flat(config), **self.config}
            except Exception:  # of whatever reads YAML that may be anything
                self._full = self.config
        return self._full

    @property
    def text(self) -> bytes:
        """Configuration and facts as JSON."""
        if not self._text:
            self._text = _dumped(self._parts)
        return self._text

    @property
    def address(self) -> str:
        """Its folder, within the one that was listed."""
        return f"{self.method}/{self.uid}" if self.method else self.uid

    @property
    def folder(self) -> str:
        """Its folder, with the path of the one that was listed."""
        return f"{self.top}/{self.address}" if self.top else self.address

    @property
    def id(self) -> str:
        """The hash at the end of its uid, by which it can be named; its whole uid where there is none."""
        found = HASH.search(self.uid)
        return found[1] if found else self.uid

    def value(self, name: str) -> tp.Any:
        """What a name stands for: a field of the configuration, be it at its default, or with ``_`` what else is known.

        Raises KeyError where there is none.
        """
        if name in self.config:
            return self.config[name]
        if name == "_state":
            return self.state
        if name == "_id":
            return self.id
        if name == "_method":
            return self.method
        if name == "_uid":
            return self.uid
        if name.startswith("_") and name[1:] in self.facts:
            return self.facts[name[1:]]
        return self.full[name]

    def to_json(self) -> dict[str, tp.Any]:
        """All of it, as JSON types."""
        return {
            "id": self.id,
            "method": self.method,
            "uid": self.uid,
            "state": self.state,
            "config": self.config,
            **self.facts,
        }


def flat(config: tp.Any) -> dict[str, tp.Any]:
    """A configuration by dotted names; lists and empty dicts are values, and what is nested without end is cut.

    The configuration of a stage of a pipeline is the list of all steps up to it: of these it is the last. The folders
    above it, its method here, name those before.
    """
    if isinstance(config, list) and config:
        config = config[-1]
    found: dict[str, tp.Any] = {}
    if isinstance(config, dict):
        _flatten(config, "", found, _Plain(), 0)
    return found


_LEAVES = frozenset((str, int, float, bool, type(None)))


def _flatten(
    config: dict[str, tp.Any], prefix: str, found: dict[str, tp.Any], plain: "_Plain", depth: int
) -> None:
    for name, value in config.items():
        if type(value) in _LEAVES:
            found[f"{prefix}{name}"] = value
        elif isinstance(value, dict) and value and depth < _DEEPEST and plain.count < _MOST:
            plain.count += len(value)
            _flatten(value, f"{prefix}{name}.", found, plain, depth + 1)
        else:
            found[f"{prefix}{name}"] = plain(value, depth)


class _Plain:
    """Makes JSON types of what a YAML may hold, as many as can be shown."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, value: tp.Any, depth: int = 0) -> tp.Any:
        if not isinstance(value, (dict, list, tuple, set)):
            return value if value is None or isinstance(value, (str, int, float)) else str(value)
        self.count += len(value)
        if depth > _DEEPEST or self.count > _MOST:
            return "..."
        if isinstance(value, dict):
            return {str(k): self(v, depth + 1) for k, v in value.items()}
        return [self(v, depth + 1) for v in value]


def _dumped(parts: tp.Any) -> bytes:
    import orjson

    try:
        text = orjson.dumps(parts)
        if b"null" not in text or not _is_odd(parts):
            return text
    except TypeError:  # an integer of more than 64 bits, or a surrogate
        pass
    return _ODD + json.dumps(parts).encode("ascii")


def _is_odd(value: tp.Any) -> bool:
    """Whether there is a number in it that orjson makes null."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        value = value.values()
    return isinstance(value, (list, tuple, type({}.values()))) and any(map(_is_odd, value))


def text_of(value: tp.Any) -> str:
    """A value in one line, for people: nothing in it moves a terminal's cursor."""
    if isinstance(value, float):
        text = f"{value:.4g}"
    elif isinstance(value, str):
        text = value
    elif value is None:
        text = "-"
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return printable(text)


def printable(text: str) -> str:
    """A text in which what no font shows (control characters, marks of direction, surrogates) is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def differing(rows: Sequence[Row]) -> tuple[dict[str, tp.Any], list[str]]:
    """What all configurations share, and the names of what differs, in the order in which they come."""
    shared = dict(rows[0].config) if rows else {}
    names: dict[str, None] = dict.fromkeys(shared)
    for row in rows:
        config = row.config
        for name in [n for n, value in shared.items() if n not in config or config[n] != value]:
            del shared[name]
        names.update(dict.fromkeys(config))
    return shared, [name for name in names if name not in shared]


def ago(when: float) -> str:
    """A time as an age, for people."""
    seconds = max(0.0, time.time() - when)
    for size, unit in ((86400 * 365.25, "y"), (86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def amount(nbytes: float) -> str:
    """A number of bytes, for people."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    power = min(int(math.log(nbytes, 1000)), 4)
    return f"{nbytes / 1000**power:.1f} {'KMGT'[power - 1]}B"


def is_number(value: object) -> tp.TypeGuard[int | float]:
    """Whether a value is a number that can be summed up and drawn: neither a bool, nor beyond what a float holds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
