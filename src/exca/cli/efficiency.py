"""The command eff: what jobs asked for and what they used, in sentences."""

import argparse

from ..catalog.efficiency import figures, sentences
from ..catalog.rows import Row, is_number
from .output import Output, as_text
from .tasks import selection


def eff(options: argparse.Namespace) -> int:
    """Show what tasks asked for and used."""
    rows = [row for row in selection(options).rows() if is_number(row.facts.get("used.max_rss_mb"))]
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    found = {method: figures(group) for method, group in by_method.items()}
    if options.format is not None:
        print(as_text(options.format, [{"method": m, **each} for m, each in found.items()], found))
        return 0
    lines: list[str] = []
    for method, each in found.items():
        lines += [
            f"{method}   {each['tasks']} task{'' if each['tasks'] == 1 else 's'} in jobs",
            *(f"  {line}" for line in sentences(each)),
            "",
        ]
    Output().write(lines[:-1] or ["no task here was computed by a job that told what it used"])
    return 0
