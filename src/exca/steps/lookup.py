"""Handles on results: what is known of an item, without computing anything."""

import dataclasses
import json
import typing as tp
from pathlib import Path

from .. import _files, _trust
from ..errors import NoResultError
from . import addresses
from .addresses import NO_INPUT, NO_INPUT_KEY
from .batches import composed
from .logs import ITEMS, logs_of
from .pipeline import Pipeline, Stage, pipeline_of
from .running import check_input

if tp.TYPE_CHECKING:
    from ..cachedict import CacheDict
    from ..claims import Holder
    from ..execution.job import Job
    from .base import Step
    from .patterns import Scatter

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
        from ..execution.job import CallJob
        from ..execution.submission import Submission

        holder = self._holder()
        if holder is not None and holder.owner.kind == "job" and holder.alive():
            return CallJob(_submission_of(holder, logs_of(self.stage.store.folder)))
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


def _submission_of(holder: "Holder", logs: str) -> tp.Any:
    from ..execution.submission import Submission

    owner = holder.owner
    where: dict[str, tp.Any] = {
        "cluster": owner.cluster,
        "job_id": holder.job_id or "",
        "logs": owner.folder or logs,
    }
    if owner.cluster == "local" and holder.job_id is not None:
        where["pid"] = int(holder.job_id)
    return Submission.from_json(where, trusted=holder.trusted)


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
        value = super().result()
        return (
            next(composed(self.pipeline.uncached, [self.uid], iter([value])))
            if self.pipeline.uncached
            else value
        )

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
