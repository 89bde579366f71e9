"""Make a page of what `run.py --json` wrote: the machine, the table, and a plot per group of rows.

python benchmarks/page.py build/bench/measurements.json     # writes measurements.md and *.svg beside it
"""

import json
import re
import sys
import typing as tp
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl

import registry
import table

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "exca"  # the same numbers make the same file
COLUMNS = {"reference": "exca 0.6.0", "ours": "this"}


def rows_of(recorded: tp.Any) -> list[registry.Row]:
    """Return the rows as they were measured, without what measures them."""
    return [
        registry.Row(
            **{**row, "than": tuple(row["than"]) if row["than"] else None}, measure=lambda folder: 0.0
        )
        for row in recorded["rows"]
    ]


def samples_of(recorded: tp.Any) -> dict[tuple[str, str], list[float]]:
    return {(each["column"], each["row"]): each["samples"] for each in recorded["samples"]}


def machine_lines(machine: tp.Any) -> list[str]:
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    return [
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in machine.items() if name != "versions"),
        f"| versions | {versions} |",
    ]


def plot(group: str, rows: list[registry.Row], found: dict[tuple[str, str], list[float]], path: Path) -> bool:
    """Draw the rows of a group that are times: a dot per tool, a line from the least to the largest sample."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.unit == "s" and ("ours", row.title) in found]
    if not shown:
        return False
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(shown)), layout="constrained")
    axes = figure.subplots()
    columns = sorted({column for column, title in found if title in {row.title for row in shown}})
    columns.sort(key=lambda column: (column not in COLUMNS, column))
    for number, column in enumerate(columns):
        points = [
            (index, found[column, row.title])
            for index, row in enumerate(shown)
            if found.get((column, row.title))
        ]
        middles = [table.medians({(column, ""): values})[column, ""] for _, values in points]
        axes.errorbar(
            middles,
            [index for index, _ in points],
            xerr=[
                [middle - min(values) for middle, (_, values) in zip(middles, points, strict=True)],
                [max(values) - middle for middle, (_, values) in zip(middles, points, strict=True)],
            ],
            fmt="osD^v<>pX*"[number % 10],
            label=COLUMNS.get(column, column),
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds (the median, and the least and largest sample); less is better")
    axes.set_yticks(range(len(shown)), [row.title for row in shown])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.45 / len(shown) - 0.08), ncols=4)
    figure.savefig(path, metadata={"Date": None})
    return True


def page(recorded: tp.Any, folder: Path) -> str:
    """Return the page, and write its plots."""
    rows, found = rows_of(recorded), samples_of(recorded)
    groups: dict[str, list[registry.Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    tools = sorted({column for column, _ in found} - COLUMNS.keys())
    text = [
        "# Measurements",
        "",
        "Made by `make bench`. Every number is the median of processes of their own.",
        "",
    ]
    text += [*machine_lines(recorded["machine"]), ""]
    for group, every in groups.items():
        text += [f"## {group.replace('_', ' ').capitalize()}", ""]
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', group)}.svg"
        if plot(group, every, found, path):
            text += [f"![The rows of {group}, as dots on a logarithmic axis]({path.name})", ""]
        used = [tool for tool in tools if any((tool, row.title) in found for row in every)]
        text += [table.markdown(table.lines(every, found, used)), ""]
    if recorded["failed"]:
        text += ["## Failed", ""]
        text += [f"* {each['row']}, {each['column']}: {each['error']}" for each in recorded["failed"]]
        text += [""]
    return "\n".join(text)


def main() -> None:
    """Read the command line, write the page."""
    source = Path(sys.argv[1])
    recorded = json.loads(source.read_text(encoding="utf-8"))
    path = source.with_suffix(".md")
    path.write_text(page(recorded, source.parent), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
