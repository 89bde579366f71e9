"""submitit: the function is submitted."""

import sys

import submitit

import compared


def main() -> None:
    mode, folder, text = sys.argv[1:]
    executor = submitit.AutoExecutor(folder, cluster="slurm" if mode == "slurm" else "local")
    executor.update_parameters(timeout_min=5)
    compared.show(lambda: executor.submit(compared.compute, compared.value(text)).result())
