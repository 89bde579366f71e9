"""What jobs asked for and what they used: as figures, and in sentences."""

import statistics
from collections.abc import Sequence

from .rows import Row, is_number

_SLACK = 1.25  # of what was used is advised
_LONG = 1.0  # seconds of a task; the CPU time is that of its process, with its imports
_ENOUGH = 0.5  # a share from which on nothing is advised


def figures(rows: Sequence[Row]) -> dict[str, float | None]:
    """Of all tasks: memory asked and used in GiB, time limit and time in minutes, share of the CPUs that was used."""
    peaks = [mb / 1024 for mb in _numbers(rows, "used.max_rss_mb")]
    seconds = _numbers(rows, "seconds") or [0.0]
    counts = _numbers(rows, "resources.cpus_per_task")
    shares = [
        one.facts["used.cpu_seconds"]
        / (one.facts["seconds"] * (_numbers([one], "resources.cpus_per_task") or [1])[0])
        for one in rows
        if max(_numbers([one], "seconds"), default=0.0) >= _LONG and _numbers([one], "used.cpu_seconds")
    ]
    asked, limits = _numbers(rows, "resources.mem_gb"), _numbers(rows, "resources.timeout_min")
    return {
        "tasks": len(rows),
        "mem_asked_gb": max(asked) if asked else None,
        "mem_used_gb": round(max(peaks, default=0.0), 3),
        "time_asked_min": max(limits) if limits else None,
        "time_used_min": round(max(seconds) / 60, 2),
        "cpu_share": round(statistics.median(shares), 3) if shares else None,
        "cpus": max(counts, default=1),
    }


def _numbers(rows: Sequence[Row], name: str) -> list[float]:
    """The values of a fact that are positive numbers: another user may have written others."""
    values = [row.facts.get(name) for row in rows]
    return [value for value in values if is_number(value) and value > 0]


def sentences(of: dict[str, float | None]) -> list[str]:
    """What the figures tell, one sentence per resource, with advice where much less would do."""
    lines = []
    used, asked = of["mem_used_gb"] or 0.0, of["mem_asked_gb"]
    if asked:
        share = used / asked
        advice = (
            f": mem_gb={max(1, round(used * _SLACK + 0.5))} would do" if share < _ENOUGH and asked > 1 else ""
        )
        lines.append(f"memory: used at most {share:.0%} of {asked:g} GiB{advice}")
    else:
        lines.append(f"memory: used at most {used:.2g} GiB; none was asked for (mem_gb)")
    minutes, limit = of["time_used_min"] or 0.0, of["time_asked_min"]
    if limit:
        advice = (
            f": timeout_min={max(1, round(minutes * _SLACK + 0.5))} would do"
            if minutes < _ENOUGH * limit
            else ""
        )
        lines.append(f"time: the longest took {minutes:g} of {limit:g} minutes{advice}")
    else:
        lines.append(f"time: the longest took {minutes:g} minutes; no limit was asked for (timeout_min)")
    if of["cpu_share"] is not None:
        cpus = of["cpus"] or 1
        advice = (
            f": cpus_per_task={max(1, round(of['cpu_share'] * cpus + 0.49))} would do"
            if cpus > 1 and of["cpu_share"] < _ENOUGH
            else ""
        )
        lines.append(f"CPU: {of['cpu_share']:.0%} of {cpus:g} CPU{'s' if cpus > 1 else ''} was used{advice}")
    return lines
