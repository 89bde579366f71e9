"""Prepare or measure one row on a folder, in this process, and print the number as the last line.

    python measure.py {stage,measure} MODULE TOOL TITLE FOLDER

TOOL is exca, or the name of another tool that has a number in the row.
"""

import importlib
import json
import logging
import sys
from pathlib import Path

from registry import PEERS, ROWS, Row


def find(tool: str, title: str) -> Row:
    """Return the row of this title, or what another tool does in it."""
    if tool == "exca":
        return next(row for row in ROWS if row.title == title)
    return PEERS[tool, title]


def main() -> None:
    """Do what the command line says."""
    what, module, tool, title, folder = sys.argv[1:]
    logging.disable(logging.INFO)  # what is measured is the work, not the terminal
    importlib.import_module(module)
    row = find(tool, title)
    if what == "stage":
        assert row.stage is not None
        row.stage(Path(folder))
    else:
        print(json.dumps(row.measure(Path(folder))))


if __name__ == "__main__":
    main()
