"""What a handle on many tasks or jobs shows: their states, a table, how far they are, and what they have used."""

import collections
import dataclasses
import datetime
import math
import statistics
import typing as tp

from .method import Status

Content = tp.Mapping[str, tp.Any]  # of a record
_MISSING: tp.Final = object()
_CELL = 60  # characters of a cell of a table
_ROOM = 1.25  # how much more than was used is advised
_MUCH = 0.5  # a smaller part of what was asked for than this is worth a word
_ALMOST = 0.9  # a larger part is one, too


class Statuses(list[Status]):
    """The status of each task of an array, in order."""

    @property
    def counts(self) -> dict[str, int]:
        """How many tasks have each status."""
        return dict(collections.Counter(self))

    def __str__(self) -> str:
        return ", ".join(f"{count} {status}" for status, count in self.counts.items()) or "no tasks"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far many tasks, or items, are.

    Parameters
    ----------
    total: int
        how many there are
    completed: int
        with a result
    failed: int
        with an error, or lost
    running: int
        being computed
    waiting: int
        in the queue, or still to be sent
    rate: float, optional
        how many are done per second, where that is known
    """

    total: int
    completed: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    rate: float | None = None

    @property
    def done(self) -> int:
        """How many need nothing any more."""
        return self.completed + self.failed

    @property
    def seconds_left(self) -> float | None:
        """The time until all are done at this rate, where that is known."""
        left = self.running + self.waiting
        return 0.0 if not left else None if not self.rate else left / self.rate

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        return _notebook.meter(self.done, self.total, self)

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(str(self), self._repr_html_())

    def __str__(self) -> str:
        parts = [f"{self.done} of {self.total} done" + (f" ({self.failed} failed)" if self.failed else "")]
        parts += [f"{self.running} running"] if self.running else []
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        missing = self.total - self.done - self.running - self.waiting
        parts += [f"{missing} not submitted"] if missing else []
        if self.seconds_left:
            parts.append(f"{_rate(self.rate or 0)}, about {duration(self.seconds_left)} left")
        return ", ".join(parts)


def _rate(per_second: float) -> str:
    for unit, seconds in (("s", 1), ("min", 60)):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.1f} per {unit}"
    return f"{per_second * 3600:.1f} per h"


@dataclasses.dataclass(frozen=True)
class Row:
    """One task of a table.

    Parameters
    ----------
    parameters: dict
        its parameters that differ within the array
    state: str
        the scheduler's word, or what became of it: ``PENDING``, ``RUNNING``, ``COMPLETED``, ``TIMEOUT``...
    reason: str
        why it waits, or why it failed
    node: str
        where it runs or ran
    seconds: float, optional
        how long it has run
    log: str
        last line of its stderr, where it failed
    """

    parameters: dict[str, tp.Any]
    state: str
    reason: str = ""
    node: str = ""
    seconds: float | None = None
    log: str = ""


class Table(list[Row]):
    """A row per task; readable when printed, and a table of Rich on its console."""

    def columns(self) -> tuple[list[str], list[list[str]]]:
        """Return the header, and the cells of each row."""
        names = list(dict.fromkeys(name for row in self for name in row.parameters))
        rows = [
            [
                *(str(row.parameters.get(name, "")) for name in names),
                *(row.state, row.reason, row.node),
                "" if row.seconds is None else duration(row.seconds),
                row.log,
            ]
            for row in self
        ]
        return [*names, "state", "reason", "node", "time", "end of stderr"], [
            [_short(cell) for cell in row] for row in rows
        ]

    def __str__(self) -> str:
        header, rows = self.columns()
        return aligned([header, *rows])

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        return _notebook.table(*self.columns(), f"{len(self):,} tasks")

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(str(self), self._repr_html_())

    def __rich__(self) -> tp.Any:
        import rich.table
        import rich.text

        header, rows = self.columns()
        table = rich.table.Table(*header)
        for row in rows:
            table.add_row(*map(rich.text.Text, row))  # as text: what a job printed is no markup
        return table


def aligned(rows: tp.Sequence[tp.Sequence[str]]) -> str:
    """Rows of cells as lines of text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _short(text: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in text.strip().partition("\n")[0])
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"


def differing(configs: tp.Sequence[Content], objects: tp.Sequence[tp.Any]) -> list[dict[str, tp.Any]]:
    """Return of each object the values, by dotted name, that are not the same in all configurations.

    A configuration leaves out what equals its default, which is then looked for in the object.
    """
    flat = [dict(_flattened(config)) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    varying = [n for n in names if any(one.get(n, _MISSING) != flat[0].get(n, _MISSING) for one in flat)]
    found: list[dict[str, tp.Any]] = []
    for one, obj in zip(flat, objects, strict=True):
        values = {n: one[n] if n in one else _value_at(obj, n) for n in varying}
        found.append({n: value for n, value in values.items() if value is not _MISSING})
    return found


def _value_at(obj: tp.Any, name: str) -> tp.Any:
    for part in name.split("."):
        obj = obj.get(part, _MISSING) if isinstance(obj, dict) else getattr(obj, part, _MISSING)
    return obj


def _flattened(config: Content, prefix: str = "") -> tp.Iterator[tuple[str, tp.Any]]:
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------- what was used


class Summary(str):
    """What tasks have used and how often they were attempted, in sentences."""

    __slots__ = ()


def summary(statuses: Statuses, records: tp.Sequence[Content]) -> Summary:
    """Say what tasks have used, by their records."""
    lines = [f"{len(statuses)} tasks: {statuses}." if len(statuses) != 1 else f"1 task: {statuses}."]
    for part in (_failures, _attempts, _times, _waits, _memory, _cpus, _limits, _gpus):
        lines += part(records)
    return Summary("\n".join(lines))


def _failures(records: tp.Sequence[Content]) -> list[str]:
    failed = [r for r in records if r["state"] == "failed"]
    words = collections.Counter(str(r.get("ended") or r["error"].get("type") or "unknown") for r in failed)
    return [f"Failed: {_counted(words)}."] if words else []


def _counted(words: tp.Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word.rpartition('.')[2]}" for word, count in words.items())


def _attempts(records: tp.Sequence[Content]) -> list[str]:
    lost = [[a for a in r.get("attempts") or () if isinstance(a, dict)] for r in records]
    words = collections.Counter(str(a.get("state", "unknown")) for each in lost for a in each)
    if not words:
        return []
    count, most = sum(words.values()), max(map(len, lost)) + 1
    were = "1 attempt was" if count == 1 else f"{count} attempts were"
    return [
        f"{were} lost ({_counted(words)}), of {sum(map(bool, lost))} task(s); {most} attempts at most for one."
    ]


def _times(records: tp.Sequence[Content]) -> list[str]:
    seconds = [r["seconds"] for r in _timed(records)]
    if not seconds:
        return []
    line = f"Computed for {duration(sum(seconds))} in all, {duration(max(seconds))} at most."
    gpus = sum(r["seconds"] * _asked(r, "nodes", 1) * _asked(r, "gpus_per_node", 0) for r in _timed(records))
    return [f"{line} GPUs were allocated for {gpus / 3600:.2g} GPU hours." if gpus else line]


def _timed(records: tp.Sequence[Content]) -> list[Content]:
    return [r for r in records if _is_number(r.get("seconds"))]


def _waits(records: tp.Sequence[Content]) -> list[str]:
    waits = [wait for r in records if (wait := waited(r)) is not None]
    if not waits or max(waits) < 1:
        return []
    return [f"Waited for {duration(statistics.median(waits))} in the median, {duration(max(waits))} at most."]


def waited(content: Content) -> float | None:
    """The seconds between submission and start of a task, where a record tells."""
    try:
        start, sent = (datetime.datetime.fromisoformat(content[name]) for name in ("started", "submitted"))
        return max(0.0, (start - sent).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


def _memory(records: tp.Sequence[Content]) -> list[str]:
    lines = []
    for asked, some in _by(records, "mem_gb").items():
        used = [_used(r, "max_rss_mb") / 1024 for r in some if _used(r, "max_rss_mb")]
        if not used:
            continue
        if asked is None:
            lines.append(f"Memory: {max(used):.2g} GB used at most.")
            continue
        part, enough = max(used) / asked, _rounded(max(used) * _ROOM)
        line = f"Memory: used {100 * part:.0f} % of {asked:g} GB"
        if part < _MUCH and enough < asked:
            line += f": mem_gb={enough:g} would do"
        elif part > _ALMOST:
            line += f": close to the limit, mem_gb={enough:g} would be safer"
        lines.append(f"{line}.")
    return lines


def _rounded(gb: float) -> float:
    return math.ceil(gb) if gb > 1 else math.ceil(10 * gb) / 10


def _cpus(records: tp.Sequence[Content]) -> list[str]:
    lines = []
    for asked, some in _by(_timed(records), "cpus_per_task").items():
        timed = [r for r in some if _used(r, "cpu_seconds") and r["seconds"] >= 1]
        if asked is None or not timed:
            continue
        busy = sum(_used(r, "cpu_seconds") for r in timed) / sum(r["seconds"] for r in timed)
        most = max(_used(r, "cpu_seconds") / r["seconds"] for r in timed)
        enough = max(1, math.ceil(most - 0.1))
        advice = f": cpus_per_task={enough} would do" if most < _MUCH * asked and enough < asked else ""
        lines.append(f"CPUs: {busy:.2g} of {asked} busy on average, {most:.2g} at most{advice}.")
    return lines


def _limits(records: tp.Sequence[Content]) -> list[str]:
    lines = []
    for asked, some in _by(_timed(records), "timeout_min").items():
        most = max(r["seconds"] for r in some) / 60
        enough = math.ceil(most * _ROOM)
        if asked is not None and most < _MUCH * asked and enough < asked:
            lines.append(
                f"Time: {duration(60 * most)} of {asked} min at most: timeout_min={enough} would do, and shorter jobs "
                "start sooner."
            )
    return lines


def _gpus(records: tp.Sequence[Content]) -> list[str]:
    used = [_used(r, "gpu_max_memory_mb") / 1024 for r in records if _used(r, "gpu_max_memory_mb")]
    return [f"GPU memory: {max(used):.2g} GB used at most."] if used else []


def _by(records: tp.Sequence[Content], name: str) -> dict[tp.Any, list[Content]]:
    """Records by what they asked for."""
    groups: dict[tp.Any, list[Content]] = {}
    for r in records:
        asked = _asked(r, name, 0)
        groups.setdefault(asked or None, []).append(r)
    return groups


def _asked(content: Content, name: str, default: float) -> float:
    resources = content.get("resources")
    value = resources.get(name) if isinstance(resources, dict) else None
    return tp.cast(float, value) if _is_number(value) else default


def _used(content: Content, name: str) -> float:
    used = content.get("used")
    value = used.get(name) if isinstance(used, dict) else None
    return tp.cast(float, value) if _is_number(value) else 0.0


def _is_number(value: tp.Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
