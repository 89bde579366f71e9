"""What a row of the benchmark is, and the few tools with which rows measure."""

import dataclasses
import gc
import math
import statistics
import tempfile
import time
import typing as tp
from collections.abc import Callable, Mapping
from pathlib import Path

Stage = Callable[[Path], None]
Measure = Callable[[Path], float]
M = tp.TypeVar("M", bound=Measure)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Parameters
    ----------
    group, title: where it belongs, and what is measured
    measure: takes a folder and returns one number; runs in a process of its own, so nothing is warm that
        it did not warm itself
    unit: "s" (seconds; shown as ns, us, ms or s), "MB/s", "MB", "B" (bytes), "x" (a factor) or "" (a count)
    bar: how many times better than the published release it must be at least, or None
    limit: what the number itself must not be worse than (in `unit`), or None
    than: a tool among the peers, and how many times better than it the number must be at least, or None
    higher_is_better: whether a larger number is better
    stage: prepares the folder once a run, in another process; the measurement only reads it.
        Without one, every measurement gets an empty folder.
    rounds: how often it is measured at most, for those that take long
    beside: whether the published release is measured too (it takes minutes for some rows)
    """

    group: str
    title: str
    measure: Measure
    unit: str = "s"
    bar: float | None = None
    limit: float | None = None
    than: tuple[str, float] | None = None
    higher_is_better: bool = False
    stage: Stage | None = None
    rounds: int | None = None
    beside: bool = True

    def better(self, reference: float, ours: float) -> float:
        """Return how many times better `ours` is than `reference`."""
        more, less = (ours, reference) if self.higher_is_better else (reference, ours)
        return more / less if less else math.inf  # memory of what was there already is none

    def met(self, others: Mapping[str, float], ours: float) -> bool | None:
        """Return whether all that is asked is met, None where nothing is, or there is nothing to compare with.

        `others` are the numbers of the published release ("reference") and of other tools.
        """
        asked: list[bool] = []
        if self.limit is not None:
            asked.append(ours >= self.limit if self.higher_is_better else ours <= self.limit)
        if self.bar is not None and "reference" in others:
            asked.append(self.better(others["reference"], ours) >= self.bar)
        if self.than is not None and self.than[0] in others:
            asked.append(self.better(others[self.than[0]], ours) >= self.than[1])
        return all(asked) if asked else None


ROWS: list[Row] = []
PEERS: dict[tuple[str, str], Row] = {}  # (name of another tool, title of the row) -> how it does there


def row(title: str, **options: tp.Any) -> Callable[[M], M]:
    """Add the decorated function to the table; the options are those of `Row`, the group is the module's name."""

    def add(measure: M) -> M:
        ROWS.append(Row(measure.__module__.removeprefix("rows_"), title, measure, **options))
        return measure

    return add


def peer(tool: str, title: str, module: str = "peers", **options: tp.Any) -> Callable[[M], M]:
    """Add the decorated function as another tool's number in the row of this title; `module` is where that is done."""

    def add(measure: M) -> M:
        PEERS[tool, title] = Row(module, title, measure, **options)
        return measure

    return add


def aside(folder: Path) -> Path:
    """Return a folder beside another one that nobody has used, to load there what a first call loads."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=folder.parent)) / "cache"


def seconds(function: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def seconds_per_call(function: Callable[[], object], calls: int, repeats: int = 5) -> float:
    """Return the seconds per call: the median over `repeats` loops of `calls` calls, after one that is not counted."""

    def loop() -> None:
        for _ in range(calls):
            function()

    loop()
    return statistics.median(seconds(loop) for _ in range(repeats)) / calls


def peak_memory(function: Callable[[], object]) -> int:
    """Return by how many bytes the process grew at most while the function ran (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: memory rows need Linux")
