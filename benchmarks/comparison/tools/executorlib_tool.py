"""executorlib: an executor with a cache folder."""

import os
import sys

import executorlib

import compared


def main() -> None:
    mode, folder, text = sys.argv[1:]
    resources: dict[str, int | str] = {"cores": 1}
    kind = executorlib.SingleNodeExecutor
    if mode == "slurm":
        kind = executorlib.SlurmClusterExecutor
        resources |= {"partition": os.environ.get("PARTITION", "debug"), "run_time_max": 300}
    with kind(cache_directory=folder, resource_dict=resources) as executor:
        compared.show(lambda: executor.submit(compared.compute, compared.value(text)).result())
