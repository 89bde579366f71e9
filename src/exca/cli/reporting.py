"""The command report: what is in a folder, as one HTML file."""

import argparse
import os
import sys

from .. import _files
from ..catalog.rows import amount
from ..catalog.select import Selection
from ..errors import MissingPackageError


def report(options: argparse.Namespace) -> int:
    """Write a report of a folder."""
    from ..pages import facts, render

    folder = options.report_folder
    rows = Selection(
        [], folder, options.where, options.state, options.since, options.user, options.sweep
    ).rows()
    title = options.title or os.path.basename(os.path.abspath(folder)) or folder
    try:
        page = render.report(
            facts.gather(title, folder, rows), details=options.details, logs=not options.no_logs
        )
    except MissingPackageError as e:
        raise ValueError(str(e)) from e
    data = page.encode("utf-8", "replace")
    if options.output == "-":
        sys.stdout.buffer.write(data)
        return 0
    _files.write_atomically(options.output, data)
    print(f"{options.output}: {len(rows):,} runs, {amount(len(data))}")
    return 0
