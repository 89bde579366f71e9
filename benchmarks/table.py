"""The numbers as one table."""

import statistics
from collections.abc import Mapping, Sequence

from registry import Row

Samples = Mapping[tuple[str, str], Sequence[float]]  # (column, title of the row) -> what was measured

SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def text(value: float | None, unit: str) -> str:
    """Return a number of a unit with three digits that count, for the reader."""
    if value is None:
        return ""
    if unit == "s":
        scale, unit = next((pair for pair in SCALES if value >= pair[0]), SCALES[-1])
        value /= scale
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def verdict(met: bool | None) -> str:
    return {True: "yes", False: "NO", None: ""}[met]


def medians(samples: Samples) -> dict[tuple[str, str], float]:
    return {key: statistics.median(values) for key, values in samples.items() if values}


def lines(rows: Sequence[Row], samples: Samples, tools: Sequence[str]) -> list[list[str]]:
    """Return the header and one line a row: title, reference, ours, ratio, bar, met, the other tools."""
    found = medians(samples)
    result = [["what", "exca 0.6.0", "this", "times better", "bar", "met", *tools]]
    for row in rows:
        reference, ours = found.get(("reference", row.title)), found.get(("ours", row.title))
        ratio = met = ""
        if ours is not None:
            ratio = f"{row.better(reference, ours):.3g}" if reference is not None else ""
            met = verdict(
                row.met({tool: n for (tool, title), n in found.items() if title == row.title}, ours)
            )
        bars = [] if row.bar is None else [f"{row.bar:g}"]
        if row.limit is not None:
            bars.append(f"{'>=' if row.higher_is_better else '<='} {text(row.limit, row.unit)}")
        if row.than is not None:
            bars.append(f"{row.than[1]:g} of {row.than[0]}")
        bar = ", ".join(bars)
        others = [text(found.get((tool, row.title)), row.unit) for tool in tools]
        result.append([row.title, text(reference, row.unit), text(ours, row.unit), ratio, bar, met, *others])
    return result


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Return the cells as a Markdown table whose columns also line up as plain text."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        first, *others = texts
        aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        return f"| {' | '.join([first.ljust(widths[0]), *aligned])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])
