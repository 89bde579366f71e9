"""pydra: the function is a Python task with a cache folder."""

import sys

from pydra.compose import python

import compared


def main() -> None:
    mode, folder, text = sys.argv[1:]
    task = python.define(compared.compute)
    worker = "slurm" if mode == "slurm" else "debug"
    compared.show(lambda: task(x=compared.value(text))(cache_root=folder, worker=worker).out)
