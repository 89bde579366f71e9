"""What the people of the tests compute."""

import os
import typing as tp
from pathlib import Path

import numpy as np
import pydantic

import exca


class Evil:
    """Appends to a file of whoever unpickles it."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return exec, ("import os; open(os.path.expanduser('~/.bashrc'), 'a').write('evil')",)


class Plain:
    """Something that only a pickle holds."""

    def __init__(self, x: int) -> None:
        self.x = x


class Task(pydantic.BaseModel):
    """A task in the folder that is shared."""

    x: int = 1
    kind: str = "float"
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> tp.Any:
        match self.kind:
            case "float":
                return 2.0 * self.x
            case "array":
                return np.full(1000, self.x)
            case "pickle":
                return Plain(self.x)
            case _:
                raise ValueError(f"no {self.kind}")


def task(x: int = 1, kind: str = "float", **infra: tp.Any) -> Task:
    """A task in ``$SHARED``."""
    return Task.model_validate({"x": x, "kind": kind, "infra": {"folder": shared() / "cache", **infra}})


def shared() -> Path:
    """The folder that is shared."""
    return Path(os.environ["SHARED"])


def uid_folder(x: int = 1, kind: str = "float") -> Path:
    """Where the result of a task is."""
    folder = task(x, kind).infra.uid_folder()
    assert folder is not None
    return folder
