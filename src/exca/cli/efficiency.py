"""The command eff: what jobs asked for and what they used, in sentences."""

import argparse
import json
import statistics
from collections.abc import Sequence

from ..catalog.rows import Row
from .output import Output
from .tasks import selection

_SLACK = 1.25  # of what was used is advised
_ENOUGH = 0.5  # a share from which on nothing is advised


def eff(options: argparse.Namespace) -> int:
    """Show what tasks asked for and used."""
    rows = [row for row in selection(options).rows() if "used.max_rss_mb" in row.facts]
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    found = {method: _figures(group) for method, group in by_method.items()}
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    lines: list[str] = []
    for method, figures in found.items():
        lines += [
            f"{method}   {figures['tasks']} tasks in jobs",
            *(f"  {line}" for line in _sentences(figures)),
            "",
        ]
    Output().write(lines[:-1] or ["no task here was computed by a job that told what it used"])
    return 0


def _figures(rows: Sequence[Row]) -> dict[str, float | None]:
    """Of all tasks: memory asked and used in GiB, time limit and time in minutes, share of the CPUs that was used."""
    peaks = [row.facts["used.max_rss_mb"] / 1024 for row in rows]
    seconds = [row.facts.get("seconds") or 0.0 for row in rows]
    cpus = [
        row.facts["used.cpu_seconds"] / (row.facts["seconds"] * row.facts.get("resources.cpus_per_task", 1))
        for row in rows
        if row.facts.get("seconds") and "used.cpu_seconds" in row.facts
    ]
    asked = [row.facts["resources.mem_gb"] for row in rows if "resources.mem_gb" in row.facts]
    limits = [row.facts["resources.timeout_min"] for row in rows if "resources.timeout_min" in row.facts]
    return {
        "tasks": len(rows),
        "mem_asked_gb": max(asked) if asked else None,
        "mem_used_gb": round(max(peaks), 3),
        "time_asked_min": max(limits) if limits else None,
        "time_used_min": round(max(seconds) / 60, 2),
        "cpu_share": round(statistics.median(cpus), 3) if cpus else None,
        "cpus": max(row.facts.get("resources.cpus_per_task", 1) for row in rows),
    }


def _sentences(figures: dict[str, float | None]) -> list[str]:
    lines = []
    used, asked = figures["mem_used_gb"] or 0.0, figures["mem_asked_gb"]
    if asked:
        share = used / asked
        advice = (
            f": mem_gb={max(1, round(used * _SLACK + 0.5))} would do" if share < _ENOUGH and asked > 1 else ""
        )
        lines.append(f"memory: used at most {share:.0%} of {asked:g} GiB{advice}")
    else:
        lines.append(f"memory: used at most {used:.2g} GiB; none was asked for (mem_gb)")
    minutes, limit = figures["time_used_min"] or 0.0, figures["time_asked_min"]
    if limit:
        advice = (
            f": timeout_min={max(1, round(minutes * _SLACK + 0.5))} would do"
            if minutes < _ENOUGH * limit
            else ""
        )
        lines.append(f"time: the longest took {minutes:g} of {limit:g} minutes{advice}")
    else:
        lines.append(f"time: the longest took {minutes:g} minutes; no limit was asked for (timeout_min)")
    if figures["cpu_share"] is not None:
        cpus = figures["cpus"] or 1
        advice = (
            f": cpus_per_task={max(1, round(figures['cpu_share'] * cpus + 0.49))} would do"
            if cpus > 1 and figures["cpu_share"] < _ENOUGH
            else ""
        )
        lines.append(
            f"CPU: {figures['cpu_share']:.0%} of {cpus:g} CPU{'s' if cpus > 1 else ''} was used{advice}"
        )
    return lines
