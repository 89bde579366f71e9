"""A real Dask cluster of two workers, each looked after by a nanny, for the tests of a session."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import typing as tp
from pathlib import Path

import psutil

from waiting import wait_for


class DaskCluster:
    """A scheduler and workers, as processes of their own.

    Parameters:
        folder: of the scheduler file and the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.scheduler_file = folder / "scheduler.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def _start(self, module: str, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        self._started += 1
        with (self.folder / f"{self._started}-{module}.log").open("w") as log:
            command = [sys.executable, "-m", f"distributed.cli.{module}", "--no-dashboard", *arguments]
            command += ["--scheduler-file", str(self.scheduler_file)]
            self._processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **environment}
                )
            )
        return self._processes[-1]

    def start_scheduler(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a scheduler, and wait until it is there."""
        self.scheduler_file.unlink(missing_ok=True)
        arguments = ["--host", "127.0.0.1", *(options or ("--port", "0"))]
        process = self._start("dask_scheduler", *arguments, **environment)
        wait_for(self.scheduler_file.exists)
        return process

    def start_worker(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start a worker of one thread and its nanny; returns the nanny."""
        return self._start("dask_worker", "--nworkers", "1", "--nthreads", "1", *options)

    @property
    def pids(self) -> set[int]:
        """Of the scheduler and the nannies."""
        return {process.pid for process in self._processes}

    @property
    def address(self) -> str:
        """The address of the scheduler."""
        return str(json.loads(self.scheduler_file.read_text())["address"])

    def stop(self) -> None:
        """End all of it."""
        for process in reversed(self._processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                found = psutil.Process(process.pid)
                for child in [found, *found.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.send_signal(signal.SIGKILL)
            process.wait()

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
