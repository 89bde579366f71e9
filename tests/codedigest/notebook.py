"""Runs the cells of a notebook, given as JSON, and prints what each wrote."""

import json
import sys
import typing

import nbformat
from nbclient import NotebookClient

cells = [
    {"cell_type": "code", "id": f"cell-{number}", "source": text, "metadata": {}, "outputs": []}
    for number, text in enumerate(json.load(sys.stdin))
]
content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
notebook = nbformat.from_dict(content)  # type: ignore[no-untyped-call]  # it has no annotations
NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
ran: typing.Any = notebook
print(json.dumps(["".join(out.get("text", "") for out in cell.outputs) for cell in ran.cells]))
