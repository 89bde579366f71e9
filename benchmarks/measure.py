"""Run one function of a row's module on a folder, in this process, and print the number it returns.

    python measure.py MODULE FUNCTION FOLDER
"""

import importlib
import json
import logging
import sys
from pathlib import Path


def main() -> None:
    """Call the function and print its value as the last line."""
    module, function, folder = sys.argv[1:]
    logging.disable(logging.INFO)  # what is measured is the work, not the terminal
    print(json.dumps(getattr(importlib.import_module(module), function)(Path(folder))))


if __name__ == "__main__":
    main()
