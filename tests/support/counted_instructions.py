"""Counts the instructions of the hot paths, each as a ratio to a loop of plain Python that is counted in the same run.

Run as a script under callgrind, which is asked by `callgrind_marks.c` (LIBRARY) to begin once all is imported, since it
makes a process fifty times slower, and to write down what each case took.
"""

import ctypes
import gc
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import exca
from counted_calls import Double
from exca.cachedict import CacheDict
from exca.infra import base

REFERENCE = "reference loop"
CALLS = {REFERENCE: 20, "cached call, same object": 20, "cached call, new object": 5, "CacheDict get": 50}
WARM = 3  # calls before those that are counted: what is made at the first one, and what Python specialises


def reference() -> int:
    """Do what a Python program does most: a hundred turns of a loop with a call, a dict, a string and an addition."""
    entries = {str(number): number for number in range(10)}
    total = 0
    for number in range(100):
        total += entries.get(str(number % 10), 0)
    return total


def cases(folder: Path) -> dict[str, Callable[[], object]]:
    def task() -> Double:
        return Double(x=3, infra=exca.TaskInfra(folder=folder / "tasks", keep_in_ram=False))

    cache: CacheDict[float] = CacheDict(folder / "floats")
    with cache.write():
        for key in range(100):
            cache[str(key)] = key / 2
    stored: CacheDict[float] = CacheDict(folder / "floats", keep_in_ram=False)
    obj = task()
    return {
        REFERENCE: reference,
        "cached call, same object": obj.run,
        "cached call, new object": lambda: task().run(),
        "CacheDict get": lambda: stored["77"],
    }


def repeated(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def ratios(folder: Path) -> dict[str, float]:
    """Return the instructions of one call per instruction of the reference, from the files that callgrind wrote."""
    found: dict[str, int] = {}
    for path in folder.glob("callgrind.out.*"):
        text = path.read_text(encoding="utf-8")
        name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
        if name is not None and total is not None:
            found[name[1]] = int(total[1]) // CALLS[name[1]]
    return {name: count / found[REFERENCE] for name, count in found.items() if name != REFERENCE}


def main() -> None:
    """Make the calls."""
    folder, library = Path(sys.argv[1]), ctypes.CDLL(sys.argv[2])
    # where a process is slow, a call can begin later than what is believed of the code holds
    base._DIGEST_SECONDS = 3600.0
    calls = cases(folder)
    for call in calls.values():
        repeated(call, WARM)
    gc.collect()
    gc.disable()  # else what earlier calls left is counted in the case in which it is collected
    library.begin()
    for name, call in calls.items():
        repeated(call, 1)
        library.count_from_here()
        repeated(call, CALLS[name])
        library.counted(name.encode())
    os._exit(0)  # what a process does as it ends is slow here, and counted by none of them


if __name__ == "__main__":
    import counted_instructions  # classes of a module, as most are

    counted_instructions.main()
