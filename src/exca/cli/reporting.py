"""The commands report and plot: what is in a folder, to look at."""

import argparse
import os
import sys

from .. import _files
from ..catalog.rows import amount
from ..catalog.select import Selection
from .tasks import selection


def report(options: argparse.Namespace) -> int:
    """Write a report of a folder."""
    from ..pages import facts, render

    folder = options.report_folder
    rows = Selection(
        [], folder, options.where, options.state, options.since, options.user, options.sweep
    ).rows()
    title = options.title or os.path.basename(os.path.abspath(folder)) or folder
    page = render.report(facts.gather(title, folder, rows), details=options.details, logs=not options.no_logs)
    data = page.encode("utf-8", "replace")
    if options.output == "-":
        sys.stdout.buffer.write(data)
        return 0
    _files.write_atomically(options.output, data)
    print(f"{options.output}: {len(rows):,} runs, {amount(len(data))}")
    return 0


def plot(options: argparse.Namespace) -> int:
    """Draw results against parameters."""
    from ..pages import plots

    rows = selection(options).rows()
    figure = plots.plot_rows(rows, _names(options.result), _names(options.against))
    plots.save(figure, options.output)
    print(f"{options.output}: {len(rows):,} runs")
    return 0


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
