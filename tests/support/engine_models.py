"""Executors by name, and a submitter that ends, for the tests of engines."""

import concurrent.futures
import sys
import typing as tp

from exca.testing.backend_models import Task


def make() -> concurrent.futures.Executor:
    """Make an executor."""
    return concurrent.futures.ThreadPoolExecutor(1)


def make_nothing() -> None:
    """Make what is no executor."""


def make_wrongly() -> tp.NoReturn:
    """Fail."""
    raise OSError("there are no threads today")


def submit_and_wait(folder: str, cache: str, retries: str = "2") -> None:
    """Submit a task that waits to an executor of this process."""
    infra: dict[str, tp.Any] = {
        "folder": cache,
        "cluster": "executor",
        "futures_executor": "engine_models:make",
    }
    infra["retries"] = int(retries)
    task = Task.model_validate({"how": "wait", "folder": folder, "infra": infra})
    task.infra.job().wait()


if __name__ == "__main__":
    submit_and_wait(*sys.argv[1:])
