"""Computing variants over the same items in one submission."""

import typing as tp
from collections.abc import Callable, Sequence

from . import addresses, run
from .pipeline import Pipeline, Stage, pipeline_of
from .run import (
    StageRun,
    StageWorker,
    check_allowed,
    cluster_of,
    logs_of,
    missing_keys,
    run_of,
    run_shares,
    run_stages,
)
from .scheduler import MissingKeys

if tp.TYPE_CHECKING:
    from ..claims import Claim
    from .base import Step


class Variant:
    """One step and the items it still has to compute."""

    def __init__(self, step: "Step", values: Sequence[tp.Any]) -> None:
        self.pipeline: Pipeline = pipeline_of(step)  # the variant
        for value in values:
            run.check_input(step, self.pipeline, value)
        keys = [addresses.key_of(step, value) for value in values]
        self.values: dict[str, tp.Any] = dict(zip(keys, values, strict=True))  # the items
        self.keys: list[str] = list(self.values)
        run.prepare(step._exca_state.forced, self.pipeline, self.keys)

    @property
    def last(self) -> Stage:
        """The stage that is asked for."""
        return self.pipeline.stages[-1]

    def shared_part(self) -> MissingKeys | None:
        """What it can compute together with others: its last stage alone, out of this thread."""
        missing = missing_keys(self.pipeline, self.keys)
        check_allowed(missing)
        if len(missing) != 1 or missing[0].stage is not self.last or self.last.infra.cluster is None:
            return None
        return missing[0]

    def finish(self) -> None:
        """Compute what is still missing, and wait for what others compute."""
        run_stages(self.pipeline, self.keys, self.values.__getitem__)


class VariantsWorker:
    """Computes items of several stages; travels to jobs once for all of them."""

    def __init__(self, workers: Sequence[StageWorker]) -> None:
        self.workers: list[StageWorker] = list(workers)  # one per stage

    def compute(
        self, keys: Sequence[str], items: Sequence[tp.Any], progress: Callable[[int], None] | None = None
    ) -> None:
        """Compute items of one stage."""
        self.workers[items[0][0]].compute(keys, [value for _, value in items], progress)


def compute(steps: Sequence["Step"], values: Sequence[tp.Any]) -> None:
    """Compute variants for the same items, and return when all results are there.

    Raises
    ------
    Exception
        the first error, once everything else is computed
    """
    variants = [Variant(step, values) for step in steps]
    together: dict[str, list[tuple[Variant, MissingKeys]]] = {}
    for variant in variants:
        part = variant.shared_part()
        if part is not None:
            together.setdefault(repr(variant.last.infra), []).append((variant, part))
    errors: list[Exception] = []
    for group in together.values():
        try:
            _submit(group)
        except Exception as error:
            errors.append(error)
    for variant in variants:
        try:
            variant.finish()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _submit(group: Sequence[tuple[Variant, MissingKeys]]) -> None:
    """Compute what is missing of variants with the same backend in one submission, leaving out what others compute."""
    from ..claims import Claims

    works = [run_of(part, variant.values.__getitem__) for variant, part in group]
    claims: list[tuple[int, Claim]] = []
    try:
        for number, (work, (_, part)) in enumerate(zip(works, group, strict=True)):
            work.stage.store.open()
            claim, _held = Claims(work.folder).acquire(part.keys)
            if claim is not None:
                claims.append((number, claim))
        if claims:
            _execute(works, claims)
    finally:
        for _, claim in claims:
            claim.release()


def _execute(works: Sequence[StageRun], claims: Sequence[tuple[int, "Claim"]]) -> None:
    stage = works[0].stage
    cluster = cluster_of(stage)
    local = cluster == "threadpool"
    logs = logs_of(stage.store.folder)
    workers = [StageWorker(w.stage, w.source, w.fetch if local else None, logs) for w in works]
    shares: list[tuple[list[str], list[tp.Any]]] = []
    parts: list[Claim] = []
    total = sum(len(works[number].missing(claim.keys)) for number, claim in claims)
    for number, claim in claims:
        work = works[number]
        keys = work.missing(claim.keys)
        send = not local and work.source is None
        split = [list(part) for part in work.stage.split(keys, cluster, of=total)]
        shares += [(part, [(number, work.fetch(key) if send else None) for key in part]) for part in split]
        if cluster not in ("threadpool", "processpool"):
            parts += claim.split(split)
    if shares:
        worker = VariantsWorker(workers)
        run_shares(stage, cluster, worker, shares, parts or None, progress=lambda count: None)
