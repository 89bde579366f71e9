"""Parsl: a python_app with memoization, and a checkpoint after each task."""

import sys

import parsl
from parsl.config import Config
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import SlurmProvider
from parsl.utils import get_all_checkpoints

import compared


def main() -> None:
    mode, folder, text = sys.argv[1:]
    if mode == "slurm":
        provider = SlurmProvider(
            walltime="00:05:00", init_blocks=1, max_blocks=1, exclusive=False, mem_per_node=1
        )
        executor = HighThroughputExecutor(address="127.0.0.1", provider=provider, max_workers_per_node=1)
    else:
        executor = ThreadPoolExecutor()
    config = Config(
        executors=[executor],
        run_dir=folder,
        memoizer=BasicMemoizer(checkpoint_mode="task_exit", checkpoint_files=get_all_checkpoints(folder)),
    )
    with parsl.load(config):
        app = parsl.python_app(compared.compute, cache=True)
        compared.show(lambda: app(compared.value(text)).result())
