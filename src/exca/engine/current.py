"""What a method may ask while it runs: what it computes, in which folder, attempt and process; and its metrics."""

import dataclasses
import math
import numbers
import os
import time
import typing as tp
from pathlib import Path

from .. import _files
from ..confdict import ConfDict
from ..errors import NotComputingError
from ..jobs.environment import current_job
from .method import Computed, Kind, running

METRICS = "metrics.jsonl"
PRUNED = "pruned.json"  # written by a search, beside the record of a task whose job it ended
_OURS = ("step", "time", "attempt")  # keys of a line that are no metrics


@dataclasses.dataclass(frozen=True)
class Current:
    """The computation that a method is in the middle of: see `exca.current`."""

    obj: tp.Any  # the configuration that is computed: the object with the infra, or the step
    attempt: str  # unique to this attempt, and the same after a job was requeued; "" where nothing is kept
    rank: int = 0  # number of this process among those of the job
    processes: int = 1  # of the job
    cluster: str | None = None  # None in the process of the caller
    job_id: str | None = None
    _computed: Computed = dataclasses.field(repr=False, kw_only=True)
    _kind: Kind = dataclasses.field(repr=False, kw_only=True)

    @property
    def uid(self) -> str:
        """The address of the results of the configuration."""
        return self._computed.uid

    @property
    def folder(self) -> Path | None:
        """The folder of the results of the configuration, for further files of it; None without a cache."""
        return self._computed.folder if self._kind != "call" else None

    @property
    def config(self) -> ConfDict:
        """The whole configuration with its defaults, nested and in JSON types; ``config.flat()`` has dotted keys."""
        return ConfDict(self._computed.full_config())


def current() -> Current:
    """Tell a method what it is computing.

    To be called in a decorated method, or in what that calls. One line connects each of the usual trackers; a job that
    is preempted and requeued goes on with the same run::

        now = exca.current()
        wandb.init(project="study", id=now.attempt, resume="allow", config=now.config, dir=now.folder)
        mlflow.start_run(run_name=now.uid)
        mlflow.log_params(now.config.flat())
        trackio.init(project="study", name=now.attempt, config=now.config)
        lightning.Trainer(
            default_root_dir=now.folder, logger=CSVLogger(now.folder, name="", version=now.attempt)
        )

    Returns
    -------
    Current
        ``obj``, ``uid``, ``folder``, ``config``, ``attempt``, ``rank``, ``processes``, ``cluster`` and ``job_id``; in a
        map or a pipeline those of the map or the stage, whatever the item

    Raises
    ------
    NotComputingError
        outside of a computation, as in a thread that the method started itself
    """
    found = running.get()
    if found is None:
        raise NotComputingError(
            "exca.current() and exca.log_metrics() are about the computation that calls them, and none runs here. Call "
            "them in a decorated method; a thread that the method starts needs its context, as by "
            "threading.Thread(target=contextvars.copy_context().run, args=(function,))"
        )
    computed, attempt, kind = found
    computed = computed() if callable(computed) else computed
    if not attempt and kind == "items":
        from ..claims import chain

        attempt = chain.attempt()
    where, rank = current_job("")
    if where["cluster"] == "debug" and not where["job_id"]:  # in no job at all
        return Current(computed.obj, attempt, _computed=computed, _kind=kind)
    return Current(
        computed.obj,
        attempt,
        rank,
        where.get("processes", 1),
        where["cluster"],
        where["job_id"],
        _computed=computed,
        _kind=kind,
    )


def log_metrics(step: int, /, **metrics: float) -> None:
    """Append numbers to ``metrics.jsonl`` beside the record of the task that is being computed.

    Each call is one line of JSON with ``step``, ``time`` (seconds since the epoch), ``attempt`` and the numbers, to be
    read by ``pandas.read_json(path, lines=True)``. Numbers that are not finite are the texts ``nan``, ``inf`` and
    ``-inf``. Lines of a later attempt follow those of earlier ones. Further processes of a job write
    ``metrics-<rank>.jsonl``, maps and stages of pipelines ``metrics-<attempt>.jsonl``. Nothing is written where the
    infra has no folder.

    Parameters
    ----------
    step: int
        to what the numbers belong
    **metrics: float
        numbers by name, also those of NumPy and tensors of one number

    Raises
    ------
    NotComputingError
        outside of a computation
    TypeError
        if something else than a number is given
    ValueError
        if a metric is named ``step``, ``time`` or ``attempt``
    """
    import orjson

    now = current()
    line = {"step": _number("step", step), "time": round(time.time(), 3), "attempt": now.attempt}
    for name, value in metrics.items():
        if name in _OURS:
            raise ValueError(
                f"a metric cannot be named {name!r}, which each line of {METRICS} has itself: rename it"
            )
        line[name] = _number(name, value)
    folder = now.folder
    if folder is None:
        return
    with _files.append_text(folder / _name(now)) as file:
        file.write(f"{orjson.dumps(line).decode()}\n")


def _name(now: Current) -> str:
    stem, _, suffix = METRICS.partition(".")
    if now._kind == "items":
        return f"{stem}-{now.attempt}.{suffix}"
    return METRICS if now.rank == 0 else f"{stem}-{now.rank}.{suffix}"


def _number(name: str, value: tp.Any) -> int | float | str:
    number = value.item() if hasattr(value, "item") else value  # NumPy's, and tensors of one number
    if not isinstance(number, numbers.Real):
        raise TypeError(f"log_metrics takes numbers, not {name}={value!r} of type {type(value).__qualname__}")
    number = int(number) if isinstance(number, numbers.Integral) else float(number)
    return number if math.isfinite(number) else str(number)


def remove_metrics(folder: Path) -> None:
    """Remove what was logged, and that it was pruned, where the outcome of a task is removed."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    stem, _, suffix = METRICS.partition(".")
    for name in names:
        if name in (METRICS, PRUNED) or (name.startswith(f"{stem}-") and name.endswith(f".{suffix}")):
            _files.remove(f"{folder}/{name}")
