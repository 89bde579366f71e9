"""Prefect: a task whose result is persisted, with a key of inputs and source."""

import sys

from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE
from prefect.filesystems import LocalFileSystem

import compared


def main() -> None:
    _, folder, text = sys.argv[1:]
    storage = LocalFileSystem(basepath=folder)
    storage.save("results", overwrite=True)
    compute = task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True, result_storage=storage)(
        compared.compute
    )

    def ask() -> object:
        return compute(compared.value(text))

    compared.show(flow(ask))
