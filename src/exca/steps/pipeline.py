"""The resolved form of a step: what is computed, in which order, and where each stage keeps its results.

A pipeline is a row of stages, and the uncached steps behind the last of them, which are computed again each time.
A stage ends with a step (or a chain) that has an infra: its results are kept. It holds a pipeline of its own: for a
step, the steps without infra in front of it and the step; for a chain, also the stages inside the chain.
Each stage keeps them in a store of its own. A pipeline is made once per object, which is frozen from then on: a hit at
the end costs one look-up at any length.
"""

import contextlib
import os
import sys
import time
import typing as tp
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pydantic

from .. import _clusters, _files, identity
from .._log import logger
from ..errors import BatchProtocolError, ChangedConfigError, InfraError, ModeError, ResolutionError
from . import addresses

if tp.TYPE_CHECKING:
    from ..cachedict import CacheDict
    from ..claims.chain import Batch
    from ..codedigest import CodeDigest
    from ..engine.code import Code
    from .backends import Backend
    from .base import Chain, Step


Config = dict[str, tp.Any]
CACHED, RETRY, FORCE = 0, 1, 2  # each computes again what the one before does, and more
_LEVELS = {"cached": CACHED, "read-only": CACHED, "retry": RETRY, "force": FORCE}
_JUDGED_SECONDS: tp.Final = 0.05  # how long code is believed to be what it was
_END: tp.Final = object()
_NOTE: tp.Final = "Raised by "


class Lineage:
    """All steps of a pipeline in order, chains taken apart: what its addresses are made of."""

    def __init__(
        self,
        upstream: Sequence[Config] = (),
        full: Sequence[Config] = (),
        around: "Lineage | None" = None,
        steps_around: Sequence[int] = (),
    ) -> None:
        self.steps: list[Step] = []
        self._folders: list[Path | None] = []
        # uid configurations of the steps before, where the pipeline is part of a step
        self._upstream = list(upstream)
        self._full_upstream = list(full)  # the same, with the defaults
        self._around, self._steps_around = around, steps_around  # the pipeline, and which steps of it
        self._codes: dict[int, CodeDigest | None] = {}  # digests of the code of steps
        self._configs: list[Config] = []
        self._full: list[Config] = []
        self._whole: list[Config] = []
        self._new_fields: list[Config] = []
        self._segments: list[str] = []
        self._names: list[dict[str, list[str]]] = []

    def append(self, step: "Step", folder: Path | None) -> None:
        """Add a step, and the folder that its infra has or is handed down."""
        self.steps.append(step)
        self._folders.append(folder)

    def configs(self, depth: int | None = None) -> list[Config]:
        """Return what the uids of the first steps are made of; of all where no number is given."""
        return [*self._upstream, *self._exported(self._configs, depth, uid=True, exclude_defaults=True)]

    def full_configs(self, depth: int | None = None) -> list[Config]:
        """Return the same, with the defaults."""
        return [*self._full_upstream, *self._exported(self._full, depth, uid=True)]

    def everything(self, depth: int | None = None) -> list[Config]:
        """Return the whole configurations of the first steps, with the folders that chains hand down to them.

        Fields that release 0.6 would refuse are left out.
        """
        self._export_whole(depth)
        return [*self._full_upstream, *map(_with_folder, self._whole[:depth], self._folders)]

    def new_fields(self, depth: int | None = None) -> Config:
        """Return those fields, where they are set, by their dotted path."""
        self._export_whole(depth)
        first = len(self._full_upstream)
        return {
            f"{first + k}.{path}": value
            for k, new in enumerate(self._new_fields[:depth])
            for path, value in new.items()
        }

    def _export_whole(self, depth: int | None) -> None:
        for step in self.steps[len(self._whole) : depth]:
            step._exca_check_known()
            config, new_fields = identity.export_readable(step, ignore_first_override=True)
            self._whole.append(config)
            self._new_fields.append(new_fields)

    def _exported(self, known: list[Config], depth: int | None, **mode: tp.Any) -> list[Config]:
        depth = len(self.steps) if depth is None else depth
        for step in self.steps[len(known) : depth]:
            step._exca_check_known()
            known.append(identity.export(step, ignore_first_override=True, **mode))
        return known[:depth]

    def address(self, depth: int) -> str:
        """Return the folder of the results of the first steps, below the folder of the infra."""
        configs = self.configs(depth)
        depth = len(configs)
        while len(self._segments) < depth:
            self._segments.append(identity.uid_text(configs[len(self._segments)]))
        return addresses.address(self._segments[:depth])

    def class_names(self, depth: int) -> dict[str, list[str]]:
        """Return the whole names of the classes of the first steps, of which addresses have the bare names."""
        from ..identity import classnames

        for step in self.steps[len(self._names) : depth]:
            self._names.append(identity.class_names(step, ignore_first_override=True))
        return classnames.united(self._names[:depth])

    def address_of(self, configs: list[Config], depth: int) -> str:
        """Return the folder of the results of the first steps where some of them are configured otherwise."""
        self.address(depth)
        segments = [
            segment if config is own else identity.uid_text(config)
            for config, own, segment in zip(configs, self.configs(depth), self._segments, strict=False)
        ]
        return addresses.address(segments)

    def codes(
        self, depth: int, infra: "Backend", present: Iterable["PlacedStep"] = ()
    ) -> "list[CodeDigest | None]":
        """Return the digests of the code of the first steps, and of those around them.

        In a job, the steps that are ``present`` are asked again: what runs there may be another version of the code.
        """
        for number, step in enumerate(self.steps[:depth]):
            if step is not None:
                self._codes[number] = _digest_of_step(step, infra)
        for placed in present:
            number = placed.depth - 1
            if self.steps[number] is None:
                self._codes[number] = _digest_in_job(placed.step, infra, self._codes.get(number))
        around = [] if self._around is None else self._around.codes(max(self._steps_around) + 1, infra)
        return [*(around[k] for k in self._steps_around), *(self._codes[k] for k in range(depth))]

    def require_unchanged(self, placed: "PlacedStep") -> None:
        """Check that a step still is what its address was made from: a list in it can be changed.

        Raises
        ------
        ChangedConfigError
            if it is not
        """
        step = placed.step
        if not identity.holds_containers(step):
            return
        now = identity.export(step, ignore_first_override=True, uid=True, exclude_defaults=True)
        then = self.configs(placed.depth)[-1]
        if identity.uid_text(now) != identity.uid_text(then):
            raise ChangedConfigError(
                f"{type(step).__name__} was changed after its uid was in use: a list or dict in it holds "
                f"something else than when its address was made, so nothing was stored. It was {then} and is {now}. "
                "Make a new step, such as step.clone(...), in place of changing one"
            )

    def __getstate__(self) -> dict[str, tp.Any]:
        """Travels as configurations: the steps that are not part of what is sent stay at home."""
        self.configs()
        self.full_configs()
        self.everything()
        self.class_names(len(self.steps))
        return {**self.__dict__, "steps": [None] * len(self.steps)}


def _with_folder(config: Config, folder: Path | None) -> Config:
    infra = config.get("infra")
    if not isinstance(infra, dict) or infra.get("folder") is not None or folder is None:
        return config
    return {**config, "infra": {**infra, "folder": str(folder)}}


class PlacedStep:
    """A step that computes, in its place."""

    __slots__ = ("body", "depth", "folder", "forced", "level", "lineage", "step")

    def __init__(self, step: "Step", lineage: Lineage, depth: int, folder: Path | None, level: int) -> None:
        self.step: Step = step
        self.lineage: Lineage = lineage  # the pipeline it is part of
        self.depth: int = depth  # number of steps up to it
        self.folder: Path | None = folder  # the folder handed down by the chain around it
        self.level: int = level  # how much is computed again
        self.forced: set[str] = set()  # branches that were computed again already
        self.body: Pipeline | None = None  # of a step that runs others: their resolved form


class Stage:
    """A part of a pipeline whose results are kept."""

    def __init__(
        self, step: "Step", infra: "Backend", folder: Path | None, inner: "Pipeline", depth: int
    ) -> None:
        self.step = step  # the step or chain with the infra
        self.infra = infra  # where it runs
        self.folder = folder  # where results are kept, below which the address begins
        self.inner = inner  # what it computes
        self.depth = depth
        self.level = CACHED
        self.read_only: bool = infra.mode == "read-only"
        self.cache_type: str | None = step._exca_cache_type()
        self.caches: dict[tp.Any, tp.Any] = {}  # those in memory, shared with copies of the object
        # results that this object wants to replace, by key, and where they are: others go on reading them
        self.stale: dict[str, tuple[str, int]] = {}
        self._store: StageStore | None = None
        self._address: str | None = None

    @property
    def lineage(self) -> Lineage:
        """The steps of the pipeline it is part of."""
        return self.inner.lineage

    @property
    def name(self) -> str:
        """The class of the step or chain."""
        return type(self.step).__name__

    @property
    def address(self) -> str:
        """The folder of its results, below the folder of the infra."""
        if self._address is None:
            self._address = self.lineage.address(self.depth)
        return self._address

    @property
    def shares_address(self) -> bool:
        """Whether its last inner stage keeps the very same results."""
        return bool(self.inner.stages) and not self.inner.uncached

    @property
    def group_depth(self) -> int:
        """How many stages inside it keep the very same results, one in the other."""
        return 1 + self.inner.stages[-1].group_depth if self.shares_address else 0

    @property
    def code(self) -> "Code | None":
        """What judges its results by the code of its steps; None where code is not compared."""
        if self.infra.code == "off":
            return None
        inner = [self.inner, *(stage.inner for stage in self.inner.all_stages())]
        present = [placed for pipeline in inner for placed in pipeline.uncached]
        codes = self.lineage.codes(self.depth, self.infra, present)
        return _code_of(codes, self)

    @property
    def store(self) -> "StageStore":
        """Its results and errors.

        Raises
        ------
        InfraError
            if no folder was given anywhere
        """
        if self._store is None:
            if self.folder is None:
                raise InfraError(
                    f"{self.name} has infra={self.infra.name!r} and no folder to keep results in: set folder=... on "
                    "its infra, or on that of a chain around it"
                )
            self._store = StageStore(self)
        return self._store

    @property
    def claims_folder(self) -> Path:
        """Folder of the claims: a chain around a stage with the same results has one of its own."""
        folder, depth = self.store.folder, self.group_depth
        return folder / "chains" / str(depth) if depth else folder

    def share_bounds(self, cluster: str) -> tuple[int | None, int]:
        """Return the most shares of a computation, and the fewest items of a share."""
        from ..jobs import pools

        most, fewest = self.infra.shares()
        if cluster in ("threadpool", "processpool"):
            most = pools.worker_count(cluster, most)
        return most, fewest

    def split(
        self, keys: Sequence[str], cluster: str, *, size: int | None = None, of: int | None = None
    ) -> list[Sequence[str]]:
        """Cut items into shares."""
        from ..utils import even_chunks

        most, fewest = self.share_bounds(cluster)
        if size is not None:
            most = -(-len(keys) // size)
        elif of is not None and most is not None:
            most = max(1, most * len(keys) // max(1, of))
        return even_chunks(keys, max_chunks=most, min_items=fewest)

    def __getstate__(self) -> dict[str, tp.Any]:
        return {**self.__dict__, "_store": None, "caches": {}, "stale": dict(self.stale)}


class Pipeline:
    """Stages, and the uncached steps behind the last of them."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage  # all steps of the outermost pipeline
        self.stages: list[Stage] = []
        self.uncached: list[PlacedStep] = []
        self.typed: bool = False  # whether its code is typed into an interpreter, and changes at any moment
        self.judged_until: float = time.monotonic() + _JUDGED_SECONDS  # when its code is looked at again

    def judge_again(self) -> None:
        """Have results count by the code of this moment, where it may be another one."""
        now = time.monotonic()
        if now < self.judged_until and not self.typed:
            return
        self.judged_until = now + _JUDGED_SECONDS
        for stage in self.all_stages():
            if stage._store is not None:
                stage._store.judge()

    def all_stages(self) -> Iterator[Stage]:
        """Yield all stages, those inside a chain before the chain."""
        for stage in self.stages:
            yield from stage.inner.all_stages()
            yield stage


class _Compiler:
    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self._resolving: list[Step] = []

    def add(self, step: "Step", pipeline: Pipeline, folder: Path | None, level: int) -> int:
        """Add a step to a pipeline; return how much is computed again behind it."""
        resolved = step._resolve_step() if step._exca_traits.resolves else step
        if resolved is not step:
            return self._add_resolved(step, resolved, pipeline, folder, level)
        infra: Backend | None = step.infra
        if infra is not None and _clusters.redirection is not None:
            infra = infra.redirected(*_clusters.redirection)
        if infra is not None:
            level = max(level, _LEVELS[infra.mode])
            folder = infra.folder or folder
        target = pipeline if infra is None else Pipeline(self.lineage)
        if target is not pipeline:  # what is not kept in front of a stage is computed by the stage
            target.uncached, pipeline.uncached = pipeline.uncached, []
        if step._exca_is_chain:
            for sub in tp.cast("Chain", step).step_list:
                level = self.add(sub, target, folder, level)
        else:
            self.lineage.append(step, folder)
            target.uncached.append(PlacedStep(step, self.lineage, len(self.lineage.steps), folder, level))
            level = _level_within(step, level)
        if infra is not None:
            self._close(Stage(step, infra, folder, target, len(self.lineage.steps)), pipeline, level)
        return level

    def _close(self, stage: Stage, pipeline: Pipeline, level: int) -> None:
        stage.level = level
        if stage.read_only and level == FORCE:
            raise _forced_and_read_only(stage.name)
        pipeline.stages.append(stage)

    def _add_resolved(
        self, step: "Step", resolved: "Step", pipeline: Pipeline, folder: Path | None, level: int
    ) -> int:
        if any(type(known) is type(step) and known == step for known in self._resolving):
            names = " -> ".join(type(known).__name__ for known in [*self._resolving, step])
            raise ResolutionError(
                f"_resolve_step goes round in a circle: {names}. It has to return self, or steps that hold a copy of "
                "the step without what was resolved (such as its transforms)"
            )
        self._resolving.append(step)
        try:
            return self.add(resolved, pipeline, folder, level)
        finally:
            self._resolving.pop()


def _level_within(step: "Step", level: int) -> int:
    """Return how much of a step is computed again, that of the steps in its fields included."""
    modes = {(sub.infra.mode, type(sub).__name__) for sub in steps_within(step) if sub.infra is not None}
    level = max([level, *(_LEVELS[mode] for mode, _ in modes)])
    if level == FORCE:
        for mode, name in sorted(modes):
            if mode == "read-only":
                raise _forced_and_read_only(name)
    return level


def steps_within(step: "Step") -> "tp.Iterator[Step]":
    """Yield the steps in the fields of a step, and in theirs, in lists, dicts and other models as well."""
    yield from _steps_in([*vars(step).values(), *(step.__pydantic_extra__ or {}).values()], step._exca_root)


def _steps_in(values: tp.Iterable[tp.Any], root: "type[Step]") -> "tp.Iterator[Step]":
    for value in values:
        if isinstance(value, pydantic.BaseModel):
            if isinstance(value, root):
                yield value
            yield from _steps_in([*vars(value).values(), *(value.__pydantic_extra__ or {}).values()], root)
        elif type(value) in (list, tuple):
            yield from _steps_in(value, root)
        elif type(value) in (dict, OrderedDict):
            yield from _steps_in(value.values(), root)


def _forced_and_read_only(name: str) -> ModeError:
    return ModeError(
        f"{name} has mode='read-only', but a step before it, around it or in it has mode='force', so that its results "
        "would be those of old inputs: use mode='cached' for it, or do not force"
    )


def compiled(
    step: "Step", *, lineage: Lineage | None = None, folder: Path | None = None, level: int = CACHED
) -> Pipeline:
    """Make the resolved form of a step.

    Raises
    ------
    ResolutionError
        if a step resolves to itself
    ModeError
        if a forced step comes before one with mode "read-only"
    """
    pipeline = Pipeline(Lineage() if lineage is None else lineage)
    _Compiler(pipeline.lineage).add(step, pipeline, folder, level)
    return pipeline


def resolved(step: "Step") -> "Step":
    """Return what runs in place of a step: itself, or what its ``_resolve_step`` returns at last."""
    compiled(step)  # refuses circles
    while (inner := step._resolve_step()) is not step:
        step = inner
    return step


def pipeline_of(step: "Step") -> Pipeline:
    """Return the resolved form of a step, made when it is first asked for; freezes the step."""
    state = step._exca_state
    if state.pipeline is None:
        pipeline = compiled(step)
        for placed in pipeline.uncached:  # of the others, their uid is asked for
            identity.check_strict(placed.step, ignore_first_override=True)
        identity.freeze(step)
        for stage in pipeline.all_stages():
            stage.caches = state.caches
        if not hasattr(sys.modules.get("__main__"), "__file__"):
            steps = [each for step in pipeline.lineage.steps for each in (step, *steps_within(step))]
            pipeline.typed = any(type(each).__module__ == "__main__" for each in steps)
        state.pipeline = pipeline
    return state.pipeline


class _Taken(Iterator[tp.Any]):
    """Values on their way into a step, counted."""

    def __init__(self, values: Iterator[tp.Any]) -> None:
        self.values = values
        self.count = 0

    def __next__(self) -> tp.Any:
        value = next(self.values)
        self.count += 1
        return value


class Keyed(Iterator[tp.Any]):
    """Values on their way into a pipeline, with the keys that error messages name."""

    def __init__(self, batch: "Batch", fetch: Callable[[str], tp.Any]) -> None:
        self._batch = batch  # the keys
        self._numbers = batch.hand_out()
        self._fetch = fetch  # gives the value of a key
        self.keys: list[str] = []  # those handed out, one per value
        self.broken: bool = False  # whether a value could not be had: no fault of the steps that wanted it

    def __next__(self) -> tp.Any:
        key = self._batch.keys[next(self._numbers)]
        try:
            value = self._fetch(key)
        except Exception:
            self.broken = True
            raise
        self.keys.append(key)
        return value


def composed(
    placed_steps: Sequence[PlacedStep], keys: Iterable[str], values: Iterator[tp.Any]
) -> Iterator[tp.Any]:
    """Run steps one after the other, each item going through all of them where they do not collect batches.

    Raises
    ------
    BatchProtocolError
        if a step yields too few or too many results
    """
    for placed in placed_steps:
        values = _batch(placed, keys, values)
    return values


def _batch(placed: PlacedStep, keys: Iterable[str], values: Iterator[tp.Any]) -> Iterator[tp.Any]:
    step = placed.step
    taken = _Taken(values)
    done = 0
    try:
        for result in step._exca_run_placed(placed, keys, taken):
            if done >= taken.count:
                raise BatchProtocolError(
                    f"the batch of {describe(step)} yielded more results than it took values ({taken.count}): it must "
                    "yield exactly one result per value, in order"
                )
            yield result
            done += 1
        if done < taken.count or next(taken, _END) is not _END:
            raise BatchProtocolError(
                f"the batch of {describe(step)} yielded {done} result(s) and took at least {taken.count} value(s): "
                "it must yield exactly one result per value, in order"
            )
    except Exception as error:
        if not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{_NOTE}{describe(step)}.")
        raise


def describe(step: tp.Any) -> str:
    """Return a step as code, with the fields that differ from the defaults."""
    fields = type(step).__pydantic_fields__
    given = {k: v for k, v in step.__dict__.items() if k not in fields or v != fields[k].default}
    given.pop("infra", None)
    text = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"{type(step).__name__}({text if len(text) < 200 else text[:200] + '...'})"


# ---------------------------------------------------------------- the code of steps


class _StageMethod:
    """A stage as messages about its code name it."""

    infra_name = "infra"

    def __init__(self, stage: Stage) -> None:
        self.name = stage.name
        self.mode = stage.infra.mode
        self.home = stage.store.base
        self.folder = stage.store.folder
        self._stage = stage

    def class_names(self) -> dict[str, list[str]]:
        return self._stage.lineage.class_names(self._stage.depth)


def _code_of(codes: "list[CodeDigest | None]", stage: Stage) -> "Code | None":
    """What judges the results of a stage; None where code is not compared, or it cannot be told."""
    from ..codedigest.record import combined
    from ..engine.code import Code

    known = [code for code in codes if code is not None]
    if not known or len(known) < len(codes):
        return None
    method = tp.cast(tp.Any, _StageMethod(stage))
    return Code(combined(known), stage.infra.code, method, "use mode='force'")


def _digest_of_step(step: "Step", infra: "Backend") -> "CodeDigest | None":
    """The digest of the code of one step, and of those in its fields; None where it cannot be told."""
    from ..codedigest import digest_of
    from ..codedigest.record import combined
    from ..identity.freezing import classes_in

    found = []
    try:
        for each in (step, *steps_within(step)):
            held = classes_in(each)
            how: tp.Any = {"extra_classes": held, "roots": infra.code_roots, "packages": infra.code_packages}
            found += [digest_of(type(each), function, **how) for function in each._exca_code()]
        return combined(found) if found and all(code.digest for code in found) else None
    except Exception as e:  # of code of any kind: to compute counts more
        from ..engine.code import cannot_tell

        cannot_tell(type(step).__qualname__, e)
        return None


def _digest_in_job(step: "Step", infra: "Backend", sent: "CodeDigest | None") -> "CodeDigest | None":
    """The digest of a step that was sent: what was sent along tells where its class was sent by value."""
    now = _digest_of_step(step, infra)
    from ..engine.code import in_job

    return sent if now is None else in_job(type(step), now, sent)


# ---------------------------------------------------------------- results

ERRORS = "errors"  # folder of cached errors, beside that of the results


class StageStore:
    """Results and errors of one stage: two mappings by key in the folder of its address.

    A key has a result, an error, or none of them; where it has both, the result counts. A result that is to be
    replaced (mode "force") stays until the new outcome is there: it does not count for the object that asked, and
    does for all others.
    """

    def __init__(self, stage: "Stage") -> None:
        from ..cachedict import CacheDict

        assert stage.folder is not None, "only stages with a folder keep anything"
        self.stage = stage
        self.base: Path = Path(_files.name_root(os.path.abspath(stage.folder)))
        self._settled = False
        self._place: tuple[Path, tp.Any] | None = None  # where it is under a default that has changed since
        self.folder: Path = self._settle(create=False)
        self._errors: CacheDict[dict[str, tp.Any]] | None = None
        keep = stage.infra.keep_in_ram
        found = stage.caches.get(self.folder) if keep else None
        if found is None:
            found = CacheDict(self.folder / "cache", keep_in_ram=keep, cache_type=stage.cache_type)
        self.results: CacheDict[tp.Any] = found
        if keep:
            stage.caches[self.folder] = self.results
        stage._store = self
        self.judge()

    def judge(self) -> None:
        """Have results and errors count by the code of today."""
        code = self._code = self.stage.code
        for cache in (self.results, self._errors):
            if cache is not None:
                cache.judge_by(code, "" if code is None else code.digest)

    def _settle(self, *, create: bool) -> Path:
        from ..identity import configfolder

        stage = self.stage
        lineage, depth = stage.lineage, stage.depth
        names = identity.NotedNames(lambda: lineage.class_names(depth)) if create else None
        place, config = self._place or (self.base / stage.address, lineage.configs(depth))
        found = configfolder.ensure_config_folder(
            place,
            uid_config=config,
            full_uid_config=lambda: lineage.full_configs(depth),
            config=lambda: (lineage.everything(depth), lineage.new_fields(depth)),
            create=create,
            on_miss=None if create or self._place else self._under_earlier_default,
            names=names,
        )
        if names is not None:
            names.add_to(str(found))
        return found

    def _under_earlier_default(self) -> Path | None:
        from ..identity import configfolder

        lineage, depth = self.stage.lineage, self.stage.depth
        self._place = configfolder.under_earlier_default(
            lineage.configs(depth),
            lambda: lineage.full_configs(depth),
            lambda configs: f"{self.base}/{lineage.address_of(configs, depth)}",
        )
        return None if self._place is None else self._place[0]

    def open(self) -> None:
        """Make the folder, and write the configuration files into it."""
        if not self._settled:
            self._settle(create=True)
            _files.make_folders(f"{self.folder}/cache")
            if self._code is not None:
                self._code.kept()
            self._settled = True

    # ---------------------------------------------------------------- results

    def absent(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have no result, or still the one to be replaced, in order."""
        absent = self.results.missing(keys)
        stale = self.stage.stale
        asked = [key for key in keys if key in stale] if stale else []
        if not asked:
            return absent
        places = self.results.places_of(asked)
        for key in asked:
            if places.get(key) != stale.get(key):  # replaced, here or elsewhere
                self._forget_stale(key)
        gone = set(absent)
        return [key for key in keys if key in gone or key in stale]

    def has(self, key: str) -> bool:
        """Whether there is a result that counts."""
        return not self.absent([key]) if key in self.stage.stale else key in self.results

    def _forget_stale(self, key: str) -> None:
        self.stage.stale.pop(key, None)
        self.results.doubt([key])  # where another process has written the new one

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have neither a result nor an error, in order."""
        absent = self.absent(keys)
        return self.errors.missing(absent) if absent and self._has_errors() else absent

    def known(self) -> list[str]:
        """All keys that have a result or an error."""
        errors = self.errors if self._has_errors() else ()
        return list(dict.fromkeys([*self.results, *errors]))

    def put(self, key: str, value: tp.Any) -> None:
        """Keep a result; inside ``results.write()``."""
        self.results[key] = value
        if self.stage.stale:
            self.stage.stale.pop(key, None)

    def drop(self, keys: tp.Iterable[str]) -> int:
        """Remove results and errors; return how many results there were."""
        count = 0
        for key in keys:
            with contextlib.suppress(KeyError):
                del self.results[key]
                count += 1
        self.clear_errors(keys)
        return count

    def mark_stale(self, keys: tp.Sequence[str]) -> None:
        """Remember which results are to be replaced, and remove errors."""
        self.clear_errors(keys)
        places = self.results.places_of(keys)
        if places:
            self.stage.stale.update(places)
            logger.info("Computing %d item(s) of %s again (mode='force')", len(places), self.stage.address)

    # ---------------------------------------------------------------- errors

    def _has_errors(self) -> bool:
        if self._errors is not None or (self.folder / ERRORS).is_dir():
            return True
        # a network file system may remember that a folder was not there: the cache asks the server
        return _files.on_network(str(self.folder))

    @property
    def errors(self) -> "CacheDict[dict[str, tp.Any]]":
        """The cached errors, as JSON."""
        if self._errors is None:
            from ..cachedict import CacheDict, DumpOptions

            options = DumpOptions(group_writable=False)  # errors are kept as pickles, too
            self._errors = CacheDict(self.folder / ERRORS, cache_type="Json", options=options)
            self._errors.judge_by(self._code, "" if self._code is None else self._code.digest)
        return self._errors

    def failed(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have an error and no result, in order."""
        if not self._has_errors():
            return []
        absent = self.absent(keys)
        unknown = set(self.errors.missing(absent))
        return [key for key in absent if key not in unknown]

    def put_errors(self, keys: tp.Sequence[str], error: BaseException) -> None:
        """Keep an error as that of all the keys, in place of results that were to be replaced."""
        from ..jobs.remote_errors import error_content

        content = error_content(error)
        with self.errors.write():
            for key in keys:
                self.errors[key] = content
        stale = self.stage.stale
        replaced = self.results.places_of([key for key in keys if key in stale]) if stale else {}
        for key, place in replaced.items():
            if place == stale.get(key):  # not a newer one, of the process that took this computation over
                with contextlib.suppress(KeyError):
                    del self.results[key]
                self._forget_stale(key)

    def clear_errors(self, keys: tp.Iterable[str]) -> int:
        """Remove cached errors; return how many there were."""
        if not self._has_errors():
            return 0
        keys = list(keys)
        unknown = set(self.errors.missing(keys))
        known = [key for key in keys if key not in unknown]
        for key in known:
            with contextlib.suppress(KeyError):  # removed by another process, just now
                del self.errors[key]
        return len(known)

    def error(self, key: str) -> BaseException:
        """Rebuild a cached error, with a note on how to compute it again.

        Raises: KeyError where there is none.
        """
        from ..jobs.remote_errors import rebuild_error

        content = self.errors[key]
        error = rebuild_error(
            content, trusted=self.errors.trusts(key), where=f"{self.stage.name}, item {key!r}"
        )
        error.add_note(
            f"This is the cached error of {self.stage.address}, item {key!r}, in {self.base}. To compute it again: "
            f"mode='retry' on the infra of {self.stage.name}, or lookup(...).clear_cache()."
        )
        return error
