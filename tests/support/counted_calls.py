"""Counts what the library passes through in one call of the user's: modules, functions, file system calls.

Run as a script under strace, it makes the calls between marks, which are found again in the recorded system calls. Each
call is made several times, and the fewest count: now and then the heartbeat falls into one.
"""

import functools
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
from exca.infra import base

PACKAGE = os.path.dirname(exca.__file__) + os.sep
MARK = "/exca-mark-"  # no such file: only looked for, so that it stands in what strace records
# those that ask for no file, among the system calls of a process
NO_FILE = frozenset(
    ("getpid", "getrandom", "gettid", "futex", "mmap", "munmap", "mprotect", "brk", "madvise")
)
Counts = tuple[int, int]
TIMES = 3


class Double(pydantic.BaseModel):
    """A task."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 2 * self.x


class CountedStep(steps.Step):
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


def cases(folder: Path, number: int) -> dict[str, Callable[[], tp.Any]]:
    """Return calls to count, by their names in the design; what is imported when first needed has been imported."""

    def task(x: int) -> Double:
        return Double(x=x, infra=exca.TaskInfra(folder=folder))

    def chain(x: int) -> steps.Chain:
        infra: tp.Any = {"backend": "Cached", "folder": folder}
        return steps.Chain(steps=[CountedStep(x=x, infra=infra), CountedStep(x=x, infra=infra)])

    task(0).run()
    chain(0).run(1)
    return {
        "first task": task(number).run,
        "hit through a new object": task(number).run,
        "chain of two": functools.partial(chain(number).run, 1),
    }


def file_calls(recorded: str) -> dict[str, int]:
    """Return the fewest file system calls between marks of a name, from what strace recorded."""
    found: dict[str, list[int]] = {}
    case = ""
    for name, arguments in re.findall(r"^(?:\d+ +)?(\w+)\((.*)", recorded, re.MULTILINE):
        mark = re.search(f'"{MARK}([^"]*)"', arguments)
        if mark is not None:
            case = mark.group(1)
            if case:
                found.setdefault(case, []).append(0)
        elif case and name not in NO_FILE:
            found[case][-1] += 1
    return {case: min(counts) for case, counts in found.items()}


def main() -> None:
    """Make the calls, and print the counts."""
    root = Path(sys.argv[1])
    # on a slow machine, a call can begin later than what is believed of the code holds
    base._DIGEST_SECONDS = 3600.0
    own: dict[str, list[Counts]] = {}
    for turn in range(1, TIMES + 1):
        for case, call in cases(root, turn).items():
            os.access(MARK + case, os.F_OK)
            call()
            os.access(MARK, os.F_OK)
        for case, call in cases(root / "again", turn).items():
            own.setdefault(case, []).append(counted(call))
    print(json.dumps({case: min(counts) for case, counts in own.items()}))


if __name__ == "__main__":
    import counted_calls  # classes of a module, as most are: those of a script have their names written down

    counted_calls.main()
