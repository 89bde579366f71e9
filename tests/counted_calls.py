"""Counts what the library passes through in one call of the user's: modules, functions, file system calls.

Run as a script under strace, it makes the calls between marks, which are found again in the recorded system calls.
"""

import json
import os
import re
import sys
import typing as tp
from collections.abc import Callable
from pathlib import Path

import pydantic

import exca
from exca import steps

PACKAGE = os.path.dirname(exca.__file__) + os.sep
MARK = "/exca-mark-"  # no such file: only looked for, so that it stands in what strace records
# those that ask for no file, among the system calls of a process
NO_FILE = frozenset(
    ("getpid", "getrandom", "gettid", "futex", "mmap", "munmap", "mprotect", "brk", "madvise")
)
Counts = tuple[int, int]


class Double(pydantic.BaseModel):
    """A task."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 2 * self.x


class Plus(steps.Step):
    """A stage of a chain."""

    x: int = 1

    def _run(self, value: int) -> int:
        return value + self.x


def counted(call: Callable[[], tp.Any]) -> Counts:
    """Return how many modules of the package a call passes, and how many of its functions it calls."""
    modules: set[str] = set()
    calls = importing = 0

    def look(frame: tp.Any, event: str, argument: tp.Any) -> None:
        nonlocal calls, importing
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            importing += {"call": 1, "return": -1}.get(event, 0)
        elif event == "call" and not importing and name.startswith(PACKAGE):
            calls += 1
            modules.add(name)

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return len(modules), calls


def cases(folder: Path) -> dict[str, Callable[[], tp.Any]]:
    """Return calls to count, by their names in the design; what is imported when first needed has been imported."""

    def task(x: int) -> Double:
        return Double(x=x, infra=exca.TaskInfra(folder=folder))

    def chain(x: int) -> steps.Chain:
        infra: tp.Any = {"backend": "Cached", "folder": folder}
        return steps.Chain(steps=[Plus(x=x, infra=infra), Plus(x=x, infra=infra)])

    task(1).run()
    chain(1).run(1)
    return {
        "first task": task(2).run,
        "hit through a new object": task(2).run,
        "chain of two": lambda: chain(2).run(1),
    }


def file_calls(recorded: str) -> dict[str, int]:
    """Return the number of file system calls between marks, from what strace recorded."""
    found: dict[str, int] = {}
    case = ""
    for name, arguments in re.findall(r"^(?:\d+ +)?(\w+)\((.*)", recorded, re.MULTILINE):
        mark = re.search(f'"{MARK}([^"]*)"', arguments)
        if mark is not None:
            case = mark.group(1)
        elif case and name not in NO_FILE:
            found[case] = found.get(case, 0) + 1
    return found


if __name__ == "__main__":
    for case, call in cases(Path(sys.argv[1])).items():
        os.access(MARK + case, os.F_OK)
        call()
        os.access(MARK, os.F_OK)
    again = cases(Path(sys.argv[1]) / "again")
    print(json.dumps({case: counted(call) for case, call in again.items()}))
