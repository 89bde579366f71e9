"""The command export --to: parameters, results and metrics written as runs of an experiment tracker, without a server.

A run has an id made of the address of its task, so that a second export brings it up to date.
"""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# (the trackers are in an environment of their own, and TensorBoard makes its names at run time)

import argparse
import contextlib
import dataclasses
import datetime
import glob
import hashlib
import importlib.util
import logging
import math
import os
import tempfile
import typing as tp
from collections.abc import Callable, Iterator, Sequence

from .. import _files
from ..catalog.rows import Row, text_of
from ..engine.current import METRICS
from ..errors import MissingPackageError, NoSuchTaskError
from .tasks import selection

_STATES = ("completed", "failed", "pruned", "running", "interrupted", "damaged")
_LONGEST = 500  # characters of a parameter, which all trackers take
_LARGEST = 1 << 28  # bytes of metrics that are read
_LINE = ("step", "time", "attempt")  # what a line of metrics has beside them


class Point(tp.NamedTuple):
    """One number of a run."""

    name: str
    value: float
    step: int
    time: float  # seconds since the epoch


@dataclasses.dataclass(frozen=True)
class Run:
    """What a tracker is given of a task.

    Parameters
    ----------
    id: str
        16 hexadecimal digits of the address of the task
    name: str
        the address
    state: str
        as ``exca ls`` shows it
    params: dict
        the configuration with its defaults, by dotted name
    tags: dict
        who computed it, where, with which code
    points: list of Point
        what the method gave to ``exca.log_metrics``, the last attempt's where several have a step; and the result
    start, end: float
        seconds since the epoch
    """

    id: str
    name: str
    state: str
    params: dict[str, tp.Any]
    tags: dict[str, str]
    points: list[Point]
    start: float
    end: float


def track(options: argparse.Namespace) -> int:
    """Write tasks as runs of a tracker."""
    rows = [row for row in selection(options).rows() if row.state in _STATES]
    if not rows:
        raise NoSuchTaskError("no task fits, so nothing is exported: `exca ls` shows what there is")
    if importlib.util.find_spec(options.to) is None:
        raise MissingPackageError(
            f"exca export --to {options.to} needs {options.to}: pip install {options.to}, or all trackers with "
            "pip install 'exca[trackers]'"
        )
    place = _WRITERS[options.to]([run_of(row) for row in rows], options.output or "", options.project)
    print(f"wrote {len(rows)} runs to {place}")
    return 0


def run_of(row: Row) -> Run:
    """A task as a run."""
    facts = row.facts
    end = _moment(facts.get("finished")) or row.when
    start = _moment(facts.get("started")) or end
    points = metrics_of(row)
    last = max((point.step for point in points), default=0)
    results = {name: value for name, value in facts.items() if name == "value" or name.startswith("value.")}
    results["seconds"] = facts.get("seconds")
    points += [
        Point(name, float(value), last, end)
        for name, value in results.items()
        if isinstance(value, (int, float))
    ]
    known = (
        "user",
        "host",
        "cluster",
        "job_id",
        "python",
        "exca",
        "git.commit",
        "git.dirty",
        "code.digest",
        "error",
    )
    tags = {f"exca.{name}": _short(facts[name]) for name in known if name in facts}
    tags.update({"exca.state": row.state, "exca.method": row.method, "exca.uid": _short(row.address)})
    tags.update((f"exca.{n}", _short(v)) for n, v in results.items() if isinstance(v, str))
    params = {_short(n): v if isinstance(v, (int, float)) else _short(v) for n, v in row.full.items()}
    name = hashlib.sha256(row.address.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Run(name, _short(row.address), row.state, params, tags, points, start, end)


def metrics_of(row: Row) -> list[Point]:
    """What the method gave to ``exca.log_metrics``; of several attempts the last one's."""
    import orjson

    try:
        with _files.open_regular(f"{row.folder}/{METRICS}") as file:
            data = file.read(_LARGEST)
    except OSError:  # there are none, or what is there is no file
        return []
    found: dict[tuple[str, int], Point] = {}
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            content = orjson.loads(line)
            step, when = int(content["step"]), float(content["time"])
        except (ValueError, KeyError, TypeError):
            continue
        for name, value in content.items():
            if name not in _LINE and (isinstance(value, (int, float)) or value in ("nan", "inf", "-inf")):
                found[name, step] = Point(name, float(value), step, when)
    return sorted(found.values(), key=lambda point: point.step)


def _short(value: tp.Any) -> str:
    return text_of(value)[:_LONGEST]


def _moment(text: object) -> float:
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _by_step(run: Run) -> Iterator[tuple[int, float, dict[str, float]]]:
    """The numbers of a run, step by step, with the time of the last one."""
    steps: dict[int, list[Point]] = {}
    for point in run.points:
        steps.setdefault(point.step, []).append(point)
    for step, points in steps.items():
        yield step, max(point.time for point in points), {point.name: point.value for point in points}


# ------------------------------------------------------------------------------------------------------ the trackers


def _to_tensorboard(runs: Sequence[Run], output: str, project: str) -> str:
    """One folder per run, with one file of events, which is replaced."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    top = os.path.abspath(output or "runs")
    for run in runs:
        with tempfile.TemporaryDirectory() as draft:
            writer = EventFileWriter(draft)
            status = {"completed": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}.get(
                run.state, "STATUS_UNKNOWN"
            )
            params = {name: value for name, value in run.params.items() if value is not None}
            end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(status), end_time_secs=run.end)
            about = plugin_data_pb2.HParamsPluginData(session_end_info=end)
            ended = Summary.Value(
                tag=metadata.SESSION_END_INFO_TAG,
                metadata=metadata.create_summary_metadata(about),
                tensor=metadata.NULL_TENSOR,
            )
            began = summary_v2.hparams_pb(params, trial_id=run.id, start_time_secs=run.start)
            for each in (began, Summary(value=[ended])):
                writer.add_event(Event(wall_time=run.start, summary=each))
            for point in run.points:
                value = Summary.Value(tag=point.name, simple_value=point.value)
                writer.add_event(Event(wall_time=point.time, step=point.step, summary=Summary(value=[value])))
            writer.close()
            [made] = glob.glob(f"{draft}/*")
            folder = (
                os.path.join(top, project, *run.name.split("/")) if project else os.path.join(top, run.name)
            )
            _files.make_folders(folder)
            with open(made, "rb") as file:
                _files.write_atomically(f"{folder}/events.out.tfevents.{run.id}", file.read())
    return top


def _to_mlflow(runs: Sequence[Run], output: str, project: str) -> str:
    """Runs of an experiment in a database of MLflow, found again by a tag."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    place = output or os.environ.get("MLFLOW_TRACKING_URI", "mlflow.db")
    if "://" not in place:
        place = f"sqlite:///{os.path.abspath(place)}"
    client = MlflowClient(tracking_uri=place)
    found = client.get_experiment_by_name(project or "exca")
    experiment = client.create_experiment(project or "exca") if found is None else found.experiment_id
    for run in runs:
        before = client.search_runs([experiment], f"tags.`exca.id` = '{run.id}'", max_results=1)
        known = before[0] if before else client.create_run(
            experiment, start_time=int(run.start * 1000), run_name=run.name, tags={"exca.id": run.id}
        )  # fmt: skip
        params = {_for_mlflow(name): str(value) for name, value in run.params.items()}
        tags = {_for_mlflow(name): value for name, value in run.tags.items()}
        logged = [
            *(Param(name, value) for name, value in params.items() if name not in known.data.params),
            *(RunTag(name, value) for name, value in tags.items()),
            *(Metric(_for_mlflow(p.name), p.value, int(p.time * 1000), p.step) for p in run.points),
        ]
        for k in range(0, len(logged), 100):
            part = logged[k : k + 100]
            client.log_batch(
                known.info.run_id,
                metrics=[each for each in part if isinstance(each, Metric)],
                params=[each for each in part if isinstance(each, Param)],
                tags=[each for each in part if isinstance(each, RunTag)],
            )
        status = {"completed": "FINISHED", "running": "RUNNING"}.get(run.state, "FAILED")
        if status != "RUNNING":
            client.set_terminated(known.info.run_id, status, int(run.end * 1000))
    return place


def _for_mlflow(name: str) -> str:
    """A name of the characters that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)[:250] or "_"


def _to_wandb(runs: Sequence[Run], output: str, project: str) -> str:
    """Runs that `wandb sync` sends, or that are sent at once with WANDB_MODE=online."""
    import wandb

    top = os.path.abspath(output or ".")
    _files.make_folders(top)
    mode = os.environ.get("WANDB_MODE", "offline")
    wanted = {
        "silent": True,
        "console": "off",
        "disable_code": True,
        "disable_git": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
    }
    settings = wandb.Settings(**{k: v for k, v in wanted.items() if k in wandb.Settings.model_fields})  # type: ignore[arg-type, unused-ignore] # it takes those that it knows
    for run in runs:
        before = glob.glob(f"{glob.escape(top)}/wandb/offline-run-*-{run.id}")
        with wandb.init(
            project=project or "exca",
            id=run.id,
            name=run.name,
            config=run.params,
            tags=[run.state],
            notes="\n".join(f"{name}: {value}" for name, value in run.tags.items()),
            dir=top,
            mode=tp.cast(tp.Any, mode),
            resume="allow",
            settings=settings,
        ) as live:
            for step, _, numbers in _by_step(run):
                live.log(numbers, step=step)
            live.finish(exit_code=int(run.state != "completed"))
        for folder in before:  # which this one takes the place of
            if not os.path.islink(folder):
                _files.remove_tree(folder)
    return f"{top}/wandb" if mode == "offline" else f"the project {project or 'exca'}"


def _to_trackio(runs: Sequence[Run], output: str, project: str) -> str:
    """Runs of a project of Trackio, in the place of those of an earlier export."""
    if output:
        os.environ["TRACKIO_DIR"] = os.path.abspath(output)  # read when it is imported
    import trackio
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import TRACKIO_DIR

    project = project or "exca"
    with contextlib.suppress(Exception):  # there is no such project yet
        mine = {run.name for run in runs}
        for known in list(trackio.Api().runs(project)):
            if known.name in mine:
                known.delete()
    for run in runs:
        steps = list(_by_step(run)) or [(0, run.end, {"seconds": math.nan})]
        SQLiteStorage.bulk_log(
            project,
            run.name,
            [numbers for _, _, numbers in steps],
            steps=[step for step, _, _ in steps],
            timestamps=[datetime.datetime.fromtimestamp(t, datetime.UTC).isoformat() for _, t, _ in steps],
            config={
                **run.params,
                **run.tags,
                "_Username": run.tags.get("exca.user", ""),
                "_Created": datetime.datetime.fromtimestamp(run.start, datetime.UTC).isoformat(),
            },
            run_id=run.id,
        )
    return str(TRACKIO_DIR)


_WRITERS: dict[str, Callable[[Sequence[Run], str, str], str]] = {
    "mlflow": _to_mlflow,
    "wandb": _to_wandb,
    "trackio": _to_trackio,
    "tensorboard": _to_tensorboard,
}
