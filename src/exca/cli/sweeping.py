"""The command sweep: many points of one task, computed where they are missing; run again, it goes on."""

import argparse
import collections
import importlib.util
import itertools
import math
import os
import sys
import typing as tp
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pydantic

from ..catalog import sweeps
from ..catalog.filters import Filter
from ..catalog.rows import Row, flat, text_of
from ..errors import MissingPackageError, OverrideError, SweepError
from .acting import end_jobs, jobs_behind
from .commandline import FAILED
from .configuring import Configurator, File, Target, model_at, near, read_yaml, target
from .output import Output
from .overrides import Value
from .spaces import Search

_MOST = 1_000_000  # points


class Spaced(pydantic.BaseModel):
    """Numbers between two bounds, spaced evenly, or evenly in their logarithm."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    log: tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    num: pydantic.PositiveInt

    @pydantic.model_validator(mode="after")
    def _one(self) -> "Spaced":
        if (self.log is None) == (self.linear is None):
            raise ValueError("give either log: [low, high] or linear: [low, high]")
        if self.log is not None and min(self.log) <= 0:
            raise ValueError(f"log: {list(self.log)} has a bound that is not positive")
        return self

    def values(self) -> list[float]:
        """The numbers."""
        low, high = (
            map(math.log, self.log) if self.log is not None else tp.cast("tuple[float, float]", self.linear)
        )
        step = (high - low) / (self.num - 1) if self.num > 1 else 0.0
        found = [low + k * step for k in range(self.num)]
        return (
            [float(f"{math.exp(x):.12g}") for x in found]
            if self.log is not None
            else [float(f"{x:.12g}") for x in found]
        )


class Interval(pydantic.BaseModel):
    """Where a sample is drawn from."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    log: tuple[pydantic.PositiveFloat, pydantic.PositiveFloat] | None = None
    linear: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    choice: list[tp.Any] | None = None

    def at(self, share: float) -> tp.Any:
        """The value at a share of the way, from 0 to 1."""
        if self.choice is not None:
            return self.choice[min(int(share * len(self.choice)), len(self.choice) - 1)]
        if self.integer is not None:
            least, most = self.integer
            return min(least + int(share * (most - least + 1)), most)
        if self.log is not None:
            low, high = map(math.log, self.log)
            return float(f"{math.exp(low + share * (high - low)):.9g}")
        low, high = tp.cast("tuple[float, float]", self.linear)
        return float(f"{low + share * (high - low):.9g}")


class Sample(pydantic.BaseModel):
    """Points drawn from a space."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    method: tp.Literal["random", "sobol", "halton", "lhs"] = "random"
    n: pydantic.PositiveInt
    seed: int = 0
    space: dict[str, Interval]

    @pydantic.field_validator("space", mode="before")
    @classmethod
    def _bounds(cls, space: tp.Any) -> tp.Any:
        """Bounds alone are linear: ``dropout: [0.0, 0.5]``."""
        if not isinstance(space, dict):
            return space
        return {
            name: {"linear": value} if isinstance(value, list) else value for name, value in space.items()
        }

    def points(self) -> Iterator[dict[str, tp.Any]]:
        """The points."""
        names = list(self.space)
        for shares in self._shares(len(names)):
            yield {name: self.space[name].at(float(share)) for name, share in zip(names, shares, strict=True)}

    def _shares(self, dimensions: int) -> tp.Any:
        if self.method == "random":
            import random

            draw = random.Random(self.seed)  # noqa: S311 # points of a sweep are no secrets
            return [[draw.random() for _ in range(dimensions)] for _ in range(self.n)]
        try:
            from scipy.stats import qmc  # type: ignore[import-untyped, unused-ignore] # stubs are not everywhere
        except ImportError as e:
            raise MissingPackageError(f"sample.method={self.method} needs scipy: pip install scipy") from e
        engines = {"sobol": qmc.Sobol, "halton": qmc.Halton, "lhs": qmc.LatinHypercube}
        return engines[self.method](d=dimensions, rng=self.seed).random(self.n)


class Limits(pydantic.BaseModel):
    """How much runs at once."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    running: pydantic.PositiveInt | None = None


class Specification(pydantic.BaseModel):
    """A sweep as its file says it."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    task: str
    base: str | dict[str, tp.Any] | None = None
    grid: dict[str, list[tp.Any] | Spaced] = {}
    zip: list[dict[str, list[tp.Any]]] = []
    points: list[dict[str, tp.Any]] = []
    where: str | None = None
    sample: Sample | None = None
    search: Search | None = None
    limits: Limits = Limits()

    @pydantic.field_validator("zip")
    @classmethod
    def _equal_lengths(cls, groups: list[dict[str, list[tp.Any]]]) -> list[dict[str, list[tp.Any]]]:
        for group in groups:
            if len({len(values) for values in group.values()}) > 1:
                lengths = ", ".join(f"{name} has {len(values)}" for name, values in group.items())
                raise ValueError(f"what is zipped must have equally many values: {lengths}")
        return groups

    @pydantic.model_validator(mode="after")
    def _either(self) -> "Specification":
        axes = [name for name in ("grid", "zip", "points", "sample") if getattr(self, name)]
        if self.search is not None and axes:
            raise ValueError(f"a search draws its own points: leave out {', '.join(axes)}")
        return self

    def all_points(self) -> Iterator[dict[str, tp.Any]]:
        """All points, before equal ones are joined."""
        axes: list[list[dict[str, tp.Any]]] = []
        for name, values in self.grid.items():
            listed = values.values() if isinstance(values, Spaced) else values
            axes.append([{name: value} for value in listed])
        for group in self.zip:
            names = list(group)
            axes.append(
                [dict(zip(names, values, strict=True)) for values in zip(*group.values(), strict=True)]
            )
        if self.sample is not None:
            axes.append(list(self.sample.points()))
        if math.prod(map(len, axes)) > _MOST:
            raise SweepError(
                f"the sweep has {math.prod(map(len, axes))} points, more than {_MOST}: make the grid coarser"
            )
        if axes:
            for parts in itertools.product(*axes):
                yield {name: value for part in parts for name, value in part.items()}
        yield from self.points
        if not axes and not self.points:
            yield {}


def read_specification(path: str) -> tuple[Specification, File]:
    """Read the file of a sweep or a search. Raises SweepError, with the line, where it cannot be read."""
    file = read_yaml(path)
    try:
        return Specification.model_validate(file.content), file
    except pydantic.ValidationError as e:
        lines = []
        for each in e.errors(include_url=False):
            name = ".".join(map(str, each["loc"]))
            line = next((file.lines[p] for p in _prefixes(each["loc"]) if p in file.lines), None)
            hint = (
                near(str(each["loc"][-1]), _fields_at(each["loc"][:-1]))
                if each["type"] == "extra_forbidden"
                else ""
            )
            lines.append(f"{path}:{line or 1}: {name}: {each['msg']}{hint}")
        raise SweepError("the sweep cannot be read:\n  " + "\n  ".join(lines)) from e


def _fields_at(loc: tuple[int | str, ...]) -> Mapping[str, tp.Any]:
    """The fields that may be written at a place of the file."""
    model = model_at(Specification, loc) or Specification
    return model.model_fields


def _prefixes(loc: Sequence[int | str]) -> Iterator[str]:
    for k in range(len(loc), 0, -1):
        yield ".".join(str(part) for part in loc[:k])


def _from_python(text: str) -> tuple[Callable[[], tp.Any], str]:
    """The generator in a file of Python: ``grids.py:wide``."""
    path, _, name = text.partition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not os.path.exists(path):
        raise SweepError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise SweepError(f"{path} has no function {name!r} that yields the points of a sweep")
    task = getattr(module, "task", None) or getattr(function, "task", None)
    if not isinstance(task, str):
        raise SweepError(
            f'{path} does not name the task to sweep: write task = "train:Train.loss" at its top'
        )
    return function, task


def sweep(options: argparse.Namespace) -> int:
    """Compute what is missing of a sweep."""
    python = ".py:" in options.file
    if python:
        function, task = _from_python(options.file)
        specification = Specification(task=task, points=list(function()))
        base = None
        path = options.file.partition(":")[0]
        name = options.name or options.file.rpartition(":")[2]
    else:
        specification, file = read_specification(options.file)
        path, name = options.file, options.name or Path(options.file).stem
        if specification.search is not None:
            raise SweepError(f"{path} describes a search: run it with `exca search {path}`")
        base = base_of(specification, file)
    what = target(specification.task)
    configurator = Configurator(what.config, base)
    objects, count = _objects(what, configurator, specification)
    sweep = sweeps.Sweep(name, os.path.abspath(path), what.name, list(objects))
    return _submit(options, what, objects, (sweep, count), specification.limits.running)


def base_of(specification: Specification, file: File) -> File | None:
    """What all points of a sweep or a search share."""
    if isinstance(specification.base, dict):
        prefix = "base."
        lines = {n.removeprefix(prefix): line for n, line in file.lines.items() if n.startswith(prefix)}
        return File(file.path, specification.base, lines)
    if specification.base is None:
        return None
    beside = Path(file.path).parent / specification.base
    return read_yaml(str(beside if beside.exists() else specification.base))


def _objects(
    what: Target, configurator: Configurator, specification: Specification
) -> tuple[dict[str, pydantic.BaseModel], int]:
    """All points that fulfil the condition, valid, by uid; and how many there were before equal ones were joined."""
    test = None if specification.where is None else Filter(specification.where)
    found: dict[str, pydantic.BaseModel] = {}
    count = 0
    for point in specification.all_points():
        given = {name: Value(value, text_of(value)) for name, value in point.items()}
        try:
            obj = configurator.object(given)
        except OverrideError as e:
            shown = ", ".join(f"{name}={text_of(value)}" for name, value in point.items())
            raise SweepError(
                f"the point {shown or '(no changes)'} is not valid, so nothing was submitted: {e}"
            ) from e
        if test is not None:
            row = Row("", "")
            row.config.update(flat(obj.model_dump(mode="json", exclude={what.infra})))
            if not test(row):
                continue
        count += 1
        found.setdefault(what.infra_of(obj).uid(), obj)
    return found, count


def _submit(
    options: argparse.Namespace,
    what: Target,
    objects: dict[str, pydantic.BaseModel],
    points: tuple[sweeps.Sweep, int],  # and how many there were before equal ones were joined
    limit: int | None,
) -> int:
    now, count = points
    out = Output()
    if not objects:
        raise SweepError("the sweep has no points: its condition (where) is fulfilled by none")
    infras = {uid: what.infra_of(obj) for uid, obj in objects.items()}
    first = next(iter(infras.values()))
    if first.folder is None:
        raise SweepError(f"{what.name} keeps no results: set {what.infra}.folder in the base of the sweep")
    folder = os.fspath(first.folder)
    before = earlier(folder, now)
    states = {uid: infra.status() for uid, infra in infras.items()}
    again = _retried(options)
    todo = [
        uid
        for uid, state in states.items()
        if state == "not submitted" or (state == "failed" and "failed" in again)
    ]
    equal = f" ({count - len(objects)} equal)" if count > len(objects) else ""
    lines = [f"{count} points -> {len(objects)} tasks{equal}   {_counted(states, todo, first.cluster)}"]
    gone = [] if before is None else [uid for uid in before.uids if uid not in objects]
    if gone:
        lines.append(
            f"{len(gone)} tasks of before are no longer in the sweep: --cancel-removed ends those that run"
        )
    if options.dry_run:
        out.write([*lines, "nothing was computed or submitted (--dry-run)"])
        return 0
    out.write(lines)
    sweeps.write(folder, now)
    if gone and options.cancel_removed and before is not None:
        if not before.trusted:
            left = [
                "left: another user may have written which tasks were in the sweep, so no jobs are ended on its word"
            ]
        else:
            left = _cancel(folder, gone)
        Output(sys.stderr).write(left)
    for uid in todo:
        if states[uid] == "failed":
            infras[uid].clear_job()
    if first.cluster is None:
        return _here(what, objects, out)
    with first.job_array(**({} if limit is None else {"max_workers": limit}), allow_empty=True) as array:
        array.extend(objects[uid] for uid in todo)
        if options.wait:
            array.extend(objects[uid] for uid, state in states.items() if state == "running")
    if todo:
        out.write([f"submitted {len(todo)}: `exca ls {folder} --sweep {now.name}` shows them"])
    return wait_for(array, infras.values(), out) if options.wait else 0


def _retried(options: argparse.Namespace) -> set[str]:
    """The states that are computed again."""
    again = {state for states in options.retry or () for state in states.split(",")}
    if again - {"failed"}:
        raise SweepError(
            f"--retry takes failed, not {', '.join(sorted(again - {'failed'}))}: `exca retry --lost` computes again "
            "what lost jobs left"
        )
    return again


def earlier(folder: str, now: sweeps.Sweep) -> sweeps.Sweep | None:
    """What is kept of a sweep or search that was run before. Raises SweepError where it is another one's."""
    before = sweeps.read(folder, now.name)
    if before is not None and before.source != now.source:
        raise SweepError(
            f"there is a sweep {now.name!r} in {folder} already, of {before.source}: give this one another name "
            "(--name)"
        )
    return before


def wait_for(array: tp.Any, infras: Iterable[tp.Any], out: Output) -> int:
    """Wait for the jobs of an array, and say what has become of tasks; 1 where some have failed."""
    array.wait()
    states = collections.Counter(infra.status() for infra in infras)
    out.write([", ".join(f"{count} {state}" for state, count in sorted(states.items()))])
    return FAILED if set(states) - {"completed"} else 0


def _here(what: Target, objects: dict[str, pydantic.BaseModel], out: Output) -> int:
    failed = 0
    for uid, obj in objects.items():
        try:
            what.call(obj)
        except Exception as e:  # of the user's method
            failed += 1
            out.write([f"  {os.path.basename(uid)} failed: {type(e).__name__}: {e}"])
    out.write([f"{len(objects) - failed} completed, {failed} failed"])
    return FAILED if failed else 0


def _counted(states: dict[str, str], todo: Sequence[str], cluster: str | None) -> str:
    counts = collections.Counter(states.values())
    where = "to compute here" if cluster is None else f"to submit to {cluster}"
    parts = [(counts["completed"], "cached"), (counts["running"], "running")]
    parts.append((counts["failed"], "failed (kept; --retry failed)"))
    parts.append((len(todo), where))
    return "  ".join(f"{number} {text}" for number, text in parts if number)


def _cancel(folder: str, uids: Sequence[str]) -> list[str]:
    """End the jobs of tasks; why some could not be ended."""
    found = [jobs_behind(f"{folder}/{uid}") for uid in uids if os.path.isdir(f"{folder}/{uid}")]
    jobs = list(dict.fromkeys(job for some, _ in found for job in some))
    return [*(f"left: {reason}" for _, others in found for reason in others), *end_jobs(jobs)]
