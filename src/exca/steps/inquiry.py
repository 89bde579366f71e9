"""What is known of results, and what would be computed, without computing anything: `lookup`, `plan` and `show`."""

import dataclasses
import json
import typing as tp
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .. import _files, _trust
from ..errors import NoResultError
from . import addresses
from .addresses import NO_INPUT, NO_INPUT_KEY
from .pipeline import CACHED, FORCE, RETRY, Pipeline, Stage, composed, pipeline_of
from .run import ITEMS, check_input, logs_of

if tp.TYPE_CHECKING:
    from ..cachedict import CacheDict
    from ..claims import Holder
    from ..engine.reports import Progress
    from ..jobs.job import Job
    from .base import Step
    from .patterns import Scatter

_WORDS = {"success": "cached", "error": "failed", "running": "running", None: "missing"}
Status = tp.Literal["success", "error", "running"]


@dataclasses.dataclass(frozen=True)
class StepPaths:
    """Where a stage keeps what it has.

    Parameters
    ----------
    base_folder: Path
        folder of the infra
    step_uid: str
        address below it
    step_folder: Path
        both together
    """

    base_folder: Path
    step_uid: str
    step_folder: Path

    @property
    def cache_folder(self) -> Path:
        """Folder of the results."""
        return self.step_folder / "cache"

    @property
    def logs_folder(self) -> Path:
        """Folder of the logs, one folder per job."""
        return self.step_folder / "logs"


class StageHandle:
    """What is known of one item at one stage.

    Parameters
    ----------
    stage: Stage
        the stage
    uid: str
        key of the item
    """

    def __init__(self, stage: Stage, uid: str) -> None:
        self.stage = stage
        self.uid = uid

    @property
    def name(self) -> str:
        """The class of the step (or chain) whose results these are."""
        return self.stage.name

    @property
    def cache_dict(self) -> "CacheDict[tp.Any]":
        """The results of the stage, by uid of the item."""
        return self.stage.store.results

    @property
    def paths(self) -> StepPaths:
        """Where the stage keeps what it has: ``step_folder``, ``cache_folder``, ``step_uid``..."""
        store = self.stage.store
        return StepPaths(store.base, self.stage.address, store.folder)

    @property
    def status(self) -> Status | None:
        """``success``, ``error`` or ``running``; None where nothing is known of the item."""
        if self.stage.folder is None:
            return None
        store = self.stage.store
        if not store.absent([self.uid]):
            return "success"
        holder = self._holder()
        if holder is not None and holder.alive():
            return "running"
        return "error" if store.failed([self.uid]) else None

    def cached(self) -> bool:
        """Whether there is a result or an error."""
        return self.stage.folder is not None and not self.stage.store.missing([self.uid])

    def result(self) -> tp.Any:
        """Return the result of the stage.

        Raises
        ------
        Exception
            the cached error
        NoResultError
            if there is none of them
        """
        if self.stage.folder is None:
            raise _no_result(self.stage, self.uid)
        store = self.stage.store
        if self.uid not in self.stage.stale or store.has(self.uid):
            try:
                return store.results[self.uid]
            except KeyError:
                pass
        if store.failed([self.uid]):
            raise store.error(self.uid)
        raise _no_result(self.stage, self.uid)

    def job(self) -> "Job[tp.Any] | None":
        """Return the job that computes or computed the item last, or None where no job did."""
        if self.stage.folder is None:
            return None
        from ..engine.running import submission_of
        from ..jobs.backends import Submission
        from ..jobs.job import CallJob

        holder = self._holder()
        if holder is not None and holder.owner.kind == "job" and holder.alive():
            return CallJob(submission_of(holder, logs_of(self.stage.store.folder)))
        for path in sorted((self.stage.store.folder / "logs").glob(f"*/{ITEMS}"), key=_age):
            try:
                data, status = _files.read_judged(str(path))
                content = json.loads(data)
                if self.uid in content["keys"]:
                    return CallJob(Submission.from_json(content, trusted=_trust.is_trusted(status)))
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
                _trust.skip(path, e)
        return None

    def clear(self) -> None:
        """Remove the result or error of the item."""
        if self.stage.folder is not None:
            self.stage.store.drop([self.uid])

    def _holder(self) -> "Holder | None":
        from ..claims import Claims

        folders = {self.stage.claims_folder, self.stage.store.folder}
        found = (Claims(folder).holders([self.uid]).get(self.uid) for folder in folders if folder.is_dir())
        return next((holder for holder in found if holder is not None), None)


def _age(path: Path) -> float:
    return -path.lstat().st_mtime


def _no_result(stage: Stage, uid: str) -> NoResultError:
    return NoResultError(
        f"{stage.address} has no result for {uid!r} in {stage.folder or 'any folder: its infra has none'}: run it, "
        "or look at its status first"
    )


class LookupHandle(StageHandle):
    """What is known of one item of a step or chain; computes nothing.

    ``status``, ``cached()``, ``paths``, ``cache_dict`` and ``job()`` speak of its last stage, ``stages`` of all.

    Parameters
    ----------
    pipeline: Pipeline
        the resolved form
    uid: str
        key of the item
    """

    def __init__(self, pipeline: Pipeline, uid: str) -> None:
        if pipeline.stages:
            super().__init__(pipeline.stages[-1], uid)
        self.uid = uid
        self.pipeline = pipeline

    @classmethod
    def of(cls, step: "Step", value: tp.Any) -> "LookupHandle":
        """Make the handle on an item.

        Parameters: `step` the step or chain; `value` the item.
        """
        pipeline = pipeline_of(step)
        if value is NO_INPUT and step.needs_input():
            return cls(pipeline, NO_INPUT_KEY)  # there is nothing under it
        check_input(step, pipeline, value)
        return cls(pipeline, addresses.key_of(step, value))

    def __getattr__(self, name: str) -> tp.Any:
        if name == "stage":
            names = " and ".join(type(placed.step).__name__ for placed in self.pipeline.uncached)
            raise NoResultError(
                f"{names} has no infra, so nothing of it is kept: give it (or a chain around it) an infra"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def stages(self) -> list[StageHandle]:
        """Handles on all stages whose results are kept, in order, those inside a chain before the chain."""
        return [StageHandle(stage, self.uid) for stage in self.pipeline.all_stages()]

    @property
    def status(self) -> Status | None:
        """``success``, ``error`` or ``running``; None where nothing is known of the item, or nothing is kept."""
        return super().status if self.pipeline.stages else None

    def cached(self) -> bool:
        """Whether there is a result or an error."""
        return bool(self.pipeline.stages) and super().cached()

    def job(self) -> "Job[tp.Any] | None":
        """Return the job that computes or computed the item last, or None where no job did."""
        return super().job() if self.pipeline.stages else None

    def result(self) -> tp.Any:
        """Return the result, what follows the last stage computed in place.

        Raises
        ------
        Exception
            the cached error
        NoResultError
            if there is neither a result nor an error
        """
        return next(composed(self.pipeline.uncached, [self.uid], iter([super().result()])))

    def clear_cache(self, recursive: bool = True) -> None:
        """Remove the result or error of the item.

        Parameters
        ----------
        recursive: bool
            also those of all stages before, and of the branches of a scatter
        """
        if not recursive:
            if self.pipeline.stages:
                self.clear()
            return
        for handle in self.stages:
            handle.clear()
        _clear_branches(self.pipeline, f"{self.uid}/")


def _clear_branches(pipeline: Pipeline, prefix: str) -> None:
    """Remove the results and errors of all branches of the items whose keys begin with a prefix."""
    parts = [pipeline, *(stage.inner for stage in pipeline.all_stages())]
    for placed in (placed for part in parts for placed in part.uncached if placed.step._exca_placed):
        scatter = tp.cast("Scatter", placed.step)
        body, begin = scatter.branch_pipeline(placed), scatter.branch_prefix(prefix)
        for stage in body.all_stages():
            if stage.folder is not None:
                stage.store.drop([key for key in stage.store.known() if key.startswith(begin)])
        _clear_branches(body, begin)


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
    handles: "tuple[LookupHandle, ...]" = dataclasses.field(default=(), repr=False, compare=False)

    def jobs(self) -> "list[Job[tp.Any]]":
        """Return the jobs that compute the items at any stage now, whichever interpreter submitted them.

        Returns
        -------
        list of Job
            handles, for `exca.wait` and `exca.as_completed`
        """
        from ..engine.running import jobs_of

        found: dict[tuple[str | None, str], Job[tp.Any]] = {}
        for stage, keys in self._kept():
            holders = _living(stage, keys)
            for job in jobs_of(holders.values(), logs_of(stage.store.folder)):
                found.setdefault((job.cluster, job.job_id), job)
        return list(found.values())

    def progress(self) -> "Progress":
        """Return how far the items are now: an item is done when the last stage has a result or error of it.

        Returns
        -------
        Progress
            counts of items; a sentence when printed
        """
        from ..engine.reports import Progress
        from ..engine.running import progress_of

        kept = self._kept()
        if not kept:
            return Progress(self.items)
        holders = {key: holder for stage, keys in kept for key, holder in _living(stage, keys).items()}
        last, keys = kept[-1]
        return progress_of(keys, holders, last.store.missing, failed=len(last.store.failed(keys)))

    def cancel(self) -> None:
        """End the jobs that compute the items now; results that are stored stay."""
        from ..jobs.job import cancel_all

        cancel_all(self.jobs())

    def clear(self) -> None:
        """End the jobs that compute the items now, and remove the results and errors of the items at all stages."""
        self.cancel()
        for handle in self.handles:
            handle.clear_cache()

    def _kept(self) -> list[tuple[Stage, list[str]]]:
        """The stages that keep results, in order, with the keys of the items."""
        keys = [handle.uid for handle in self.handles]
        stages = self.handles[0].pipeline.all_stages() if self.handles else []
        return [(stage, keys) for stage in stages if stage.folder is not None]

    @property
    def compute(self) -> int:
        """Number of results that would be computed and kept."""
        return sum(stage.compute for stage in self.stages if stage.address)

    def __iter__(self) -> Iterator[StagePlan]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        head, *rows = self._rows()
        return _notebook.card(
            f"plan of {self.items:,} item(s): {self.compute:,} result(s) to compute",
            _notebook.table(head, rows, "stages in their order"),
        )

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(str(self), self._repr_html_())

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("stage", "backend", "items", "cached", "failed", "running", "compute", "jobs")
        ]
        for stage in self.stages:
            counts = (stage.items, stage.cached, stage.failed, stage.running, stage.compute, stage.jobs)
            note = "" if stage.allowed or not stage.compute else " (read-only: an error)"
            rows.append((stage.name, stage.backend + note, *map(str, counts)))
        return rows

    def __str__(self) -> str:
        from ..engine.reports import aligned

        return aligned(self._rows())


def plan(step: "Step", values: Iterable[tp.Any] | None) -> Plan:
    """Tell what a call would compute; see ``Step.plan``."""
    pipeline = pipeline_of(step)
    given: list[tp.Any] = [NO_INPUT] if values is None else list(values)
    for value in given[:1]:
        check_input(step, pipeline, value)
    keys = list(dict.fromkeys(addresses.key_of(step, value) for value in given))
    fresh = [key for key in keys if key not in step._exca_state.forced]
    lines, _ = _planned(pipeline, keys, set(fresh))
    return Plan(len(keys), tuple(lines), tuple(LookupHandle(pipeline, key) for key in keys))


def _living(stage: Stage, keys: Sequence[str]) -> "dict[str, Holder]":
    from ..engine.running import holders_in

    return holders_in({stage.claims_folder, stage.store.folder}, keys)


def _planned(pipeline: Pipeline, keys: Sequence[str], fresh: set[str]) -> tuple[list[StagePlan], list[str]]:
    """Return the lines of a pipeline, and the items for which its input is needed."""
    wanted = list(keys)
    count, jobs = len(wanted), min(1, len(wanted))
    names = [type(placed.step).__name__ for placed in reversed(pipeline.uncached)]
    lines = [StagePlan(name, "in place", "", count, 0, 0, 0, count, jobs) for name in names]
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


def draw(step: "Step", value: tp.Any) -> str:
    """Draw a step and the steps in it; see ``Step.show``."""
    words: dict[int, str] = {}
    if value is not NO_INPUT or not step.needs_input():
        uid = addresses.key_of(step, value)
        stages = pipeline_of(step).all_stages()
        words = {id(stage.step): _WORDS[StageHandle(stage, uid).status] for stage in stages}
    return "\n".join(tree_lines(step, "", words))


def tree_lines(step: "Step", name: str, words: dict[int, str]) -> tp.Iterator[str]:
    """Yield the line of a step, then those of the steps in it."""
    parts = list(parts_of(step))
    inside = {field for field, _ in parts}
    yield f"{name}: {title(step, inside, words)}" if name else title(step, inside, words)
    trees: list[Iterable[str]] = []
    for field, content in parts:
        if isinstance(content, list):
            trees.append([field, *_branches([tree_lines(sub, key, words) for key, sub in content])])
        else:
            trees.append(tree_lines(content, field, words))
    yield from _branches(trees)


def _branches(trees: Sequence[Iterable[str]]) -> tp.Iterator[str]:
    """Yield the lines of trees as branches of a line above them."""
    for number, (head, *rest) in enumerate(trees):
        branch, rail = ("└── ", "    ") if number == len(trees) - 1 else ("├── ", "│   ")
        yield branch + head
        yield from (rail + line for line in rest)


def parts_of(step: "Step") -> "tp.Iterator[tuple[str, tp.Any]]":
    """Yield the fields that hold steps: each a step, or a list of (name, step)."""
    root = step._exca_root
    for field, value in step.__dict__.items():
        if isinstance(value, root):
            yield field, value
        elif isinstance(value, list | tuple) and value and all(isinstance(sub, root) for sub in value):
            yield field, [("", sub) for sub in value]
        elif isinstance(value, dict) and value and all(isinstance(sub, root) for sub in value.values()):
            yield field, [(str(name), sub) for name, sub in value.items()]


def title(step: "Step", inside: set[str], words: dict[int, str]) -> str:
    """Return the line of a step: its class, what differs from the defaults, its infra."""
    fields = type(step).__pydantic_fields__
    values = {**step.__dict__, **(step.__pydantic_extra__ or {})}
    texts = [type(step).__name__]
    for name, value in values.items():
        if name != "infra" and name not in inside and (name not in fields or value != fields[name].default):
            text = getattr(value, "__qualname__", None) or repr(value)
            texts.append(f"{name}={text if len(text) <= 60 else text[:57] + '...'}")
    line = texts[0] + ("  " + ", ".join(texts[1:]) if len(texts) > 1 else "")
    infra = step.infra
    if infra is not None:
        facts = [infra.name, *([str(infra.folder)] if infra.folder is not None else ())]
        facts += [infra.mode] if infra.mode != "cached" else []
        line += f"  [{', '.join(facts)}]"
    return f"{line}  {words[id(step)]}" if id(step) in words else line
