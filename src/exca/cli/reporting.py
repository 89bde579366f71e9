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

    if options.output != "-":
        _require_writable(options.output)
    folder = options.report_folder
    rows = Selection(
        [], folder, options.where, options.state, options.since, options.user, options.sweep
    ).rows()
    title = options.title or os.path.basename(os.path.abspath(folder)) or folder
    page = render.report(
        facts.gather(title, folder, rows), details=max(0, options.details), logs=not options.no_logs
    )
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

    _require_writable(options.output)
    rows = selection(options).rows()
    figure = plots.plot_rows(rows, _names(options.result), _names(options.against))
    plots.save(figure, options.output)
    print(f"{options.output}: {len(rows):,} runs")
    return 0


def _require_writable(path: str) -> None:
    """Refuse a place where no file can be, before anything is looked at."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder: give the name of a file with -o")
    if not os.path.isdir(folder):
        raise NotADirectoryError(
            f"cannot write {path}: there is no folder {folder}; make it first, or give another -o"
        )


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
