"""The command search: points that Optuna draws, computed as tasks; run again, it goes on."""

import argparse
import contextlib
import copy
import dataclasses
import importlib.util
import json
import math
import numbers
import os
import typing as tp
from collections.abc import Mapping, Sequence
from pathlib import Path

import pydantic

from .. import _files
from ..catalog import sweeps
from ..catalog.filters import Filter
from ..catalog.rows import Row, flat, text_of
from ..engine.current import METRICS, PRUNED
from ..errors import MissingPackageError, OddFileError, OverrideError, SearchError, SweepError
from .commandline import FAILED
from .configuring import File, Target, read_yaml, target
from .output import Output
from .overrides import Override, parse
from .spaces import Prune, Search, Space, Wanted
from .sweeping import Specification, base_of, earlier, read_specification

if tp.TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_PACKAGE = "optuna"
_TRIED = 20  # points that are looked at before the search begins
_MOST_REJECTED = 1000  # points in a row that do not fulfil the condition
_LOOK_EVERY = 0.5  # seconds between two looks at metrics
_SHOWN = 80  # characters of an error


def search(options: argparse.Namespace) -> int:
    """Search, from where an earlier process has stopped."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise MissingPackageError("exca search draws points with Optuna: pip install 'exca[search]'")
    plan = _plan(options)
    _try(plan)
    if options.dry_run:
        Output().write([*_described(plan), "nothing was computed or submitted (--dry-run)"])
        return 0
    from ..claims import Claims

    folder = f"{plan.folder}/{sweeps.FOLDER}"
    _files.make_folders(folder)
    claim, holders = Claims(folder).acquire([f"search {plan.name}"], thread_bound=False)
    if claim is None:
        who = ", ".join(holder.describe() for holder in holders.values()) or "another process"
        raise SearchError(
            f"the search {plan.name!r} in {plan.folder} is run by {who}: wait, or end that first"
        )
    with claim:
        return _Driver(plan).run()


@dataclasses.dataclass
class _Plan:
    """What is searched, and how."""

    name: str
    source: str
    what: Target
    space: Space
    search: Search
    where: Filter | None
    folder: str = ""
    cluster: str | None = None

    @property
    def jobs(self) -> int:
        return self.search.jobs or 1

    def task(self, point: Mapping[str, tp.Any]) -> tuple[pydantic.BaseModel, tp.Any]:
        """The object of a point, and its infra."""
        obj = self.space.object(point)
        return obj, self.what.infra_of(obj)

    def wants(self, obj: pydantic.BaseModel) -> bool:
        """Whether an object fulfils the condition."""
        if self.where is None:
            return True
        row = Row("", "")
        row.config.update(flat(obj.model_dump(mode="json", exclude={self.what.infra})))
        return self.where(row)


# ------------------------------------------------------------------------------------------------- what is written


def _plan(options: argparse.Namespace) -> _Plan:
    is_file = options.what.endswith((".yaml", ".yml"))
    if is_file:
        specification, file = read_specification(options.what)
        base = base_of(specification, file)
        source, name = os.path.abspath(options.what), Path(options.what).stem
    else:
        files = [text for text in options.arguments if text.endswith((".yaml", ".yml")) and "=" not in text]
        options.arguments = [text for text in options.arguments if text not in files]
        specification, base = Specification(task=options.what), read_yaml(files[0]) if files else None
        source, name = f"exca search {options.what}", options.what.rpartition(":")[2]
    what = target(specification.task)
    overrides = [parse(text) for text in options.arguments]
    asked = _asked(options, specification, overrides)
    base = _with_values(base, [o for o in overrides if len(o.values) == 1 or o.removes])
    if (asked.jobs or 1) > 1 or asked.prune is not None:
        base = _in_jobs(what, base)
    space = Space(what.config, base, asked.space, what.infra)
    where = None if specification.where is None else Filter(specification.where)
    return _Plan(options.name or name, source, what, space, asked, where)


def _asked(
    options: argparse.Namespace, specification: Specification, overrides: Sequence[Override]
) -> Search:
    """The search of the file, with what the command line changes."""
    given = (
        Search(jobs=specification.limits.running) if specification.search is None else specification.search
    )
    space = {**given.space, **{name: Wanted() for names in options.space for name in names.split(",")}}
    for override in overrides:
        if override.interval is not None:
            bounds = override.interval
            space[override.name] = Wanted(log=bounds) if override.log else Wanted(linear=bounds)
        elif len(override.values) > 1:
            space[override.name] = Wanted(choice=[value.parsed for value in override.values])
    changed = {
        name: getattr(options, name) for name in ("n", "jobs", "seed", "sampler") if getattr(options, name)
    }
    if options.seed is not None:
        changed["seed"] = options.seed
    if options.minimize or options.maximize:
        changed.update(minimize=options.minimize, maximize=options.maximize)
    if options.prune is not None:
        changed["prune"] = Prune(metric=options.prune)
    try:
        found = Search.model_validate({**dict(given), **changed, "space": space})
    except pydantic.ValidationError as e:
        raise SearchError("; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors())) from e
    _ = found.key  # raises where there is no goal
    return found


def _with_values(base: File | None, overrides: Sequence[Override]) -> File | None:
    """What all points share, with the values of the command line."""
    from ..confdict import ConfDict

    if not overrides:
        return base
    config = ConfDict({} if base is None else base.content)
    for override in overrides:
        if override.removes:
            raise OverrideError(
                f"{override.argument!r} is not for a search: leave {override.name} out of the file"
            )
        config.update({override.name: override.values[0].parsed})
    return File("the command line" if base is None else base.path, json.loads(json.dumps(config)), {})


def _in_jobs(what: Target, base: File | None) -> File:
    """What all points share, so that they are computed in jobs: several at a time, or to be ended early."""
    content = {} if base is None else dict(base.content)
    infra = dict(content.get(what.infra) or {})
    own = what.config.model_fields[what.infra].get_default(call_default_factory=True, validated_data={})
    if infra.get("cluster", getattr(own, "cluster", None)) is None:
        infra["cluster"] = "local"
    return File(
        "" if base is None else base.path, {**content, what.infra: infra}, {} if base is None else base.lines
    )


def _try(plan: _Plan) -> None:
    """Look whether points of the space are valid, before anything is computed."""
    import optuna

    from .studies import pruner, quiet, sampler

    sampler(plan.search, 0)
    pruner(plan.search)
    with quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        points = [plan.space.draw(study.ask()) for _ in range(_TRIED)]
    infra: tp.Any = None
    for point in points:
        try:
            _, infra = plan.task(point)
            infra.uid()
        except OverrideError as e:
            shown = ", ".join(f"{name}={text_of(value)}" for name, value in point.items())
            raise SearchError(f"the point {shown} is not valid, so nothing was computed: {e}") from e
    if infra.folder is None:
        raise SweepError(f"{plan.what.name} keeps no results: set {plan.what.infra}.folder")
    plan.folder, plan.cluster = os.path.abspath(infra.folder), infra.cluster


def _described(plan: _Plan) -> list[str]:
    described = plan.space.described()
    width = max(len(name) for name, _ in described)
    where = "here" if plan.cluster is None else f"on {plan.cluster}"
    goal = f"{'minimize' if plan.search.maximize is None else 'maximize'} {plan.search.key}"
    head = f"{plan.what.name}: {goal}, {plan.search.n} trials, {plan.jobs} at a time {where}"
    return [head, *(f"  {name:<{width}}  {text}" for name, text in described)]


# -------------------------------------------------------------------------------------------------------- its course


@dataclasses.dataclass
class _Trial:
    """A trial on its way."""

    asked: "optuna.Trial"
    point: dict[str, tp.Any]
    obj: pydantic.BaseModel
    infra: tp.Any
    job: tp.Any = None  # None where it is not in a job of its own
    done: bool = False
    pruned: bool = False
    read: int = 0  # bytes of its metrics
    step: float = -math.inf  # the last that was reported

    @property
    def uid(self) -> str:
        return str(self.infra.uid())


class _Driver:
    """Asks, has tasks computed, and tells.

    With a seed, results are reported to Optuna in the order of the trials, and each trial is asked for after the same
    number of reports: then a point depends on nothing but the results. Without one, they are reported as they end.
    """

    def __init__(self, plan: _Plan) -> None:
        from .studies import Study

        self._plan = plan
        self._out = Output()
        self._key = plan.search.key
        self._sweep = sweeps.Sweep(plan.name, plan.source, plan.what.name, [])
        before = earlier(plan.folder, self._sweep)
        self._sweep.uids = [] if before is None else before.uids
        path = sweeps.path_of(plan.folder, plan.name).removesuffix(".json") + ".optuna.jsonl"
        self._study = Study(path, plan.name, plan.search, plan.space)
        self._open: list[_Trial] = []
        self._pruned: set[str] = set()  # uids of tasks that were ended early
        self._asked = 0

    def run(self) -> int:
        """Search until all trials have ended; 1 where none of them has a result."""
        self._resume()
        try:
            while self._wants_more() or self._open:
                self._fill()
                self._wait()
                self._tell()
        except KeyboardInterrupt:
            running = sum(not trial.done for trial in self._open)
            self._out.write([f"{running} tasks go on; the same command goes on with the search"])
            raise
        return self._finish()

    def _resume(self) -> None:
        left = self._study.agree_with(self._truth)
        trials = self._study.optuna.get_trials(deepcopy=False)
        self._asked = sum(not trial.user_attrs.get("rejected") for trial in trials)
        for trial in left:
            point = self._plan.space.point(trial.params)
            assert point is not None  # others were left out
            now = _Trial(self._study.again(trial), point, *self._plan.task(point))
            now.pruned = bool(trial.user_attrs.get("pruned"))
            self._open.append(now)
        self._pruned = {trial.user_attrs["uid"] for trial in trials if trial.user_attrs.get("pruned")}
        if trials:
            self._out.write([f"goes on after {self._asked - len(left)} trials, {len(left)} on their way"])
        self._start(self._open)

    def _truth(self, trial: "FrozenTrial") -> "FrozenTrial | None":
        """A trial as the cache knows it; None where its task is another one now, or has no result any more."""
        if trial.user_attrs.get("rejected"):
            return trial
        point = self._plan.space.point(trial.params)
        try:
            obj, infra = self._plan.task(point) if point is not None else (None, None)
        except OverrideError:
            return None
        if infra is None or trial.user_attrs.get("uid") != infra.uid():
            return None
        name, value = trial.state.name, None
        if infra.status() == "completed" and name != "RUNNING":
            value = self._value(tp.cast(pydantic.BaseModel, obj), infra)
        if name in ("RUNNING", "FAIL", "PRUNED") and value is None:
            return trial
        if value is None:
            return None
        if name == "COMPLETE" and trial.value == value:
            return trial
        from optuna.trial import TrialState

        found = copy.deepcopy(trial)
        found.state, found.values = TrialState.COMPLETE, [value]
        return found

    def _value(self, obj: pydantic.BaseModel, infra: tp.Any) -> float | None:
        """The number of a result; None where it is not a number (NaN)."""
        value = number_in(self._plan.what.call(obj), self._key, str(infra.uid()))
        return None if math.isnan(value) else value

    def _wants_more(self) -> bool:
        return self._asked < self._plan.search.n and not self._study.exhausted

    def _fill(self) -> None:
        """Ask for as many trials as there is room for, and have them computed."""
        fresh: list[_Trial] = []
        rejected = 0
        while len(self._open) + len(fresh) < self._plan.jobs and self._wants_more():
            asked, point = self._study.ask()
            obj, infra = self._plan.task(point)
            if not self._plan.wants(obj):
                asked.set_user_attr("rejected", True)
                self._study.tell(asked, None)
                rejected += 1
                if rejected > _MOST_REJECTED:
                    raise SearchError(f"{rejected} points in a row do not fulfil the condition (where)")
                continue
            asked.set_user_attr("uid", infra.uid())
            fresh.append(_Trial(asked, point, obj, infra))
            self._asked += 1
            if self._plan.cluster is None:
                break
        self._study.keep()
        known = set(self._sweep.uids)
        new = [uid for uid in dict.fromkeys(trial.uid for trial in fresh) if uid not in known]
        if new:
            self._sweep.uids += new
            sweeps.write(self._plan.folder, self._sweep)
        self._open += fresh
        self._start(fresh)

    def _start(self, trials: Sequence[_Trial]) -> None:
        todo: list[_Trial] = []
        for trial in trials:
            trial.done = trial.infra.status() in ("completed", "failed")
            if trial.done:
                continue
            if self._plan.cluster is None:
                with contextlib.suppress(Exception):  # of the user's method: it is in the record
                    self._plan.what.call(trial.obj)
                trial.done = True
                continue
            todo.append(trial)
        if len(todo) > 1:
            with todo[0].infra.job_array(allow_repeated_tasks=True) as array:
                array.extend(trial.obj for trial in todo)
        for trial in todo:
            trial.job = trial.infra.job()

    def _wait(self) -> None:
        """Wait until a trial can be reported, and cancel those that are to be pruned."""
        from ..jobs.waiting import wait

        prunes = self._plan.search.prune is not None
        while self._open and not self._tellable():
            left = [trial for trial in self._open if not trial.done]
            timeout = _LOOK_EVERY if prunes else None
            ended = {id(job) for job in wait([t.job for t in left], timeout, "FIRST_COMPLETED").done}
            for trial in left:
                trial.done = id(trial.job) in ended
                if prunes:
                    self._prune(trial)
        for trial in self._open if prunes else ():
            self._report(trial)

    def _tellable(self) -> list[_Trial]:
        if self._plan.search.seed is not None:
            return self._open[:1] if self._open and self._open[0].done else []
        return [trial for trial in self._open if trial.done]

    def _prune(self, trial: _Trial) -> None:
        self._report(trial)
        if not trial.done and not trial.pruned and math.isfinite(trial.step) and trial.asked.should_prune():
            trial.pruned = True
            self._pruned.add(trial.uid)
            trial.asked.set_user_attr("pruned", True)
            self._study.keep()
            about = {"search": self._plan.name, "step": trial.step}
            with contextlib.suppress(OSError):  # then it is shown as cancelled
                _files.write_atomically(
                    f"{self._plan.folder}/{trial.uid}/{PRUNED}", json.dumps(about).encode(), mode=_files.OWN
                )
            trial.infra.cancel()

    def _report(self, trial: _Trial) -> None:
        """Tell Optuna what a task has logged since the last look."""
        path = f"{self._plan.folder}/{trial.uid}/{METRICS}"
        try:
            with _files.open_regular(path) as file:
                file.seek(trial.read)
                data = file.read()
        except (FileNotFoundError, OddFileError):
            return
        data = data[: data.rfind(b"\n") + 1]
        trial.read += len(data)
        for line in data.splitlines():
            value = _metric(line, tp.cast(Prune, self._plan.search.prune).metric)
            if value is not None and value[0] > trial.step:
                trial.step = value[0]
                trial.asked.report(value[1], value[0])

    def _tell(self) -> None:
        for trial in self._tellable():
            status = trial.infra.status()
            value = self._value(trial.obj, trial.infra) if status == "completed" else None
            pruned = status != "completed" and trial.uid in self._pruned
            self._study.tell(trial.asked, value, pruned=pruned)
            self._study.keep()
            self._open.remove(trial)
            self._out.write([self._line(trial, value, pruned=pruned, failed=status != "completed")])

    def _line(self, trial: _Trial, value: float | None, *, pruned: bool, failed: bool) -> str:
        if value is not None:
            told = f"{value:.6g}"
        else:
            told = f"pruned at {trial.step:g}" if pruned else "failed" if failed else "no number"
        best = self._best()
        mark = "*" if value is not None and best is not None and best.number == trial.asked.number else " "
        shown = " ".join(f"{name}={text_of(v)}" for name, v in trial.point.items())
        error = self._error(trial) if failed and not pruned else ""
        return f"{trial.asked.number:>5}{mark} {told:<12}  {_hash(trial.uid)}  {shown}{error}"

    def _error(self, trial: _Trial) -> str:
        from ..catalog.scan import look_again

        method, _, uid = trial.uid.rpartition("/")
        row = Row(method, uid)
        row.top = self._plan.folder
        found = look_again(row)
        error = "" if found is None else found.facts.get("error", "")
        return f"   {text_of(error)[:_SHOWN]}" if error else ""

    def _best(self) -> "FrozenTrial | None":
        try:
            return self._study.optuna.best_trial
        except ValueError:  # there is none
            return None

    def _finish(self) -> int:
        best = self._best()
        states = [trial.state.name for trial in self._study.optuna.get_trials(deepcopy=False)
                  if not trial.user_attrs.get("rejected")]  # fmt: skip
        counts = [(states.count(name), text) for name, text in
                  (("COMPLETE", "completed"), ("PRUNED", "pruned"), ("FAIL", "failed"))]  # fmt: skip
        lines = [f"{len(states)} trials: " + ", ".join(f"{count} {text}" for count, text in counts if count)]
        if best is not None:
            point = self._plan.space.point(best.params) or {}
            shown = " ".join(f"{name}={text_of(value)}" for name, value in point.items())
            lines.append(f"best: {best.value:.6g}  {_hash(str(best.user_attrs['uid']))}  {shown}")
        lines.append(f"`exca table {self._plan.folder} --sweep {self._plan.name}` shows all of them")
        self._out.write(lines)
        return 0 if best is not None else FAILED


def _hash(uid: str) -> str:
    return Row("", uid.rpartition("/")[2]).id


def _metric(line: bytes, name: str) -> tuple[int, float] | None:
    """Step and value of a line of metrics, where it has this one."""
    import orjson

    try:
        content = orjson.loads(line)
        step, value = content["step"], content[name]
    except (ValueError, KeyError, TypeError):
        return None
    return (int(step), float(value)) if isinstance(value, (int, float)) and step >= 0 else None


def number_in(result: tp.Any, key: str, uid: str) -> float:
    """The number at a key of a result, nested by dots. Raises SearchError where there is none."""
    found = result
    for part in key.split(".") if key != "." else ():
        try:
            if isinstance(found, Mapping):
                found = found[part]
            elif isinstance(found, (list, tuple)) and part.isdecimal():
                found = found[int(part)]
            else:
                found = getattr(found, part)
        except (LookupError, AttributeError):
            raise SearchError(
                f"the result of {uid} has nothing at {key!r}: it is {_kind_of(found)}"
            ) from None
    found = found.item() if hasattr(found, "item") and getattr(found, "size", 1) == 1 else found
    if not isinstance(found, numbers.Real):
        raise SearchError(f"what the result of {uid} has at {key!r} is no number: it is {_kind_of(found)}")
    return float(found)


def _kind_of(value: tp.Any) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(str, value))}"
    return f"a {type(value).__name__}"
