"""What would be computed, on which backend and for how many items, before anything is."""

import dataclasses
import typing as tp
from collections.abc import Iterable, Iterator, Sequence

from . import addresses
from .addresses import NO_INPUT
from .pipeline import CACHED, FORCE, RETRY, Pipeline, Stage, pipeline_of
from .running import check_input

if tp.TYPE_CHECKING:
    from .base import Step


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What a call would find and do at one stage.

    Parameters
    ----------
    name: str
        class of the step or chain
    backend: str
        where it runs; "in place" for steps without infra, which are computed each time
    address: str
        folder of its results below that of the infra, "" where none are kept
    items: int
        items that the stage is asked for: those that no later stage has
    cached: int
        of these, items whose results are there
    failed: int
        items whose errors are there, and would be raised
    running: int
        items that are being computed just now
    compute: int
        items that would be computed
    jobs: int
        jobs, processes or threads over which these would be split, at most
    allowed: bool
        whether the mode lets it compute
    """

    name: str
    backend: str
    address: str
    items: int
    cached: int
    failed: int
    running: int
    compute: int
    jobs: int
    allowed: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a call would compute, one line per stage.

    Parameters
    ----------
    items: int
        distinct items of the call
    stages: tuple of StagePlan
        in the order in which they run
    """

    items: int
    stages: tuple[StagePlan, ...]

    @property
    def compute(self) -> int:
        """Number of results that would be computed and kept."""
        return sum(stage.compute for stage in self.stages if stage.address)

    def __iter__(self) -> Iterator[StagePlan]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("stage", "backend", "items", "cached", "failed", "running", "compute", "jobs")
        ]
        for stage in self.stages:
            counts = (stage.items, stage.cached, stage.failed, stage.running, stage.compute, stage.jobs)
            note = "" if stage.allowed or not stage.compute else " (read-only: an error)"
            rows.append((stage.name, stage.backend + note, *map(str, counts)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def plan(step: "Step", values: Iterable[tp.Any] | None) -> Plan:
    """Tell what a call would compute; see ``Step.plan``."""
    pipeline = pipeline_of(step)
    given: list[tp.Any] = [NO_INPUT] if values is None else list(values)
    for value in given[:1]:
        check_input(step, pipeline, value)
    keys = list(dict.fromkeys(addresses.key_of(step, value) for value in given))
    fresh = [key for key in keys if key not in step._exca_state.forced]
    lines, _ = _planned(pipeline, keys, set(fresh))
    return Plan(len(keys), tuple(lines))


def _planned(pipeline: Pipeline, keys: Sequence[str], fresh: set[str]) -> tuple[list[StagePlan], list[str]]:
    """Return the lines of a pipeline, and the items for which its input is needed."""
    lines: list[StagePlan] = []
    wanted = list(keys)
    for placed in reversed(pipeline.uncached):
        count = len(wanted)
        lines.append(
            StagePlan(type(placed.step).__name__, "in place", "", count, 0, 0, 0, count, 1 if count else 0)
        )
    for stage in reversed(pipeline.stages):
        line, absent = _stage_plan(stage, wanted, fresh)
        lines.append(line)
        inner, wanted = _planned(stage.inner, absent, fresh)
        lines += [part for part in reversed(inner) if not (part.address == "" and part.name == stage.name)]
    return lines[::-1], wanted


def _stage_plan(stage: Stage, wanted: list[str], fresh: set[str]) -> tuple[StagePlan, list[str]]:
    again = fresh if stage.level == FORCE else set()
    store = stage.store
    missing = set(store.absent(wanted))
    absent = [key for key in wanted if key in missing or key in again]
    failed = [key for key in store.failed(absent) if key not in again] if stage.level < RETRY else []
    compute = [key for key in absent if key not in set(failed)]
    running = _running(stage, compute) if stage.level == CACHED else 0
    jobs = len(stage.split(compute, stage.infra.cluster or "")) if compute else 0
    line = StagePlan(
        stage.name,
        stage.infra.name,
        stage.address,
        len(wanted),
        len(wanted) - len(absent),
        len(failed),
        running,
        len(compute),
        jobs,
        not stage.read_only,
    )
    return line, compute


def _running(stage: Stage, keys: Sequence[str]) -> int:
    if not keys or not stage.store.folder.is_dir():
        return 0
    from ..claims import Claims

    folder = stage.claims_folder
    return sum(holder.alive() for holder in Claims(folder).holders(keys).values()) if folder.is_dir() else 0
