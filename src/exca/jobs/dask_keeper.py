"""Dask clusters of a specification: one process per cluster, which holds it as long as it has something to do.

A cluster of ``dask_jobqueue`` and the like ends with the process that made it, so no job could outlive its submitter.
Therefore a process of its own makes it, and ends when the cluster has had no task for some minutes. Submissions with
the same specification and place of logs share it.

``python -m exca.jobs.dask_keeper <file>`` is what it runs; the file holds the specification.
"""

import importlib
import os
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import orjson

from .. import _files, _trust
from .._polling import Poller
from ..claims import Claims
from ..claims.owner import Process
from ..errors import SubmissionError
from . import entry, paths
from .environment import clean_environment, import_path

START = 120.0  # seconds for a cluster to be made
OWN = ("class", "scale", "adapt", "idle_min")  # what a specification holds beside arguments of the class
IDLE = 5.0  # minutes without a task after which a cluster is closed


def address_of(spec: tp.Mapping[str, tp.Any], logs: str) -> str:
    """The address of the scheduler of the cluster of a specification, which is made where there is none yet."""
    try:
        _class_of(spec)
        content = orjson.dumps(dict(spec), option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError) as e:
        raise SubmissionError(f"dask_cluster={dict(spec)!r}: {e}. Nothing was submitted") from e
    folder = paths.fixed_folder(logs) / f".dask-{_files.digest(content)[:12]}"
    paths.make_log_folder(logs, folder)
    claims = Claims(folder)
    claim, _ = claims.acquire(["cluster"])
    while claim is None:  # another process makes it just now
        claims.wait(["cluster"], done=lambda: False)
        claim, _ = claims.acquire(["cluster"])
    with claim:
        return _living(folder) or _made(folder, content)


def _class_of(spec: tp.Mapping[str, tp.Any]) -> tp.Any:
    """The class that a specification names; raises ValueError where there is none."""
    text = spec.get("class")
    module, _, name = str(text).rpartition(".")
    if not isinstance(text, str) or not module:
        raise ValueError(
            "it needs the whole name of a class, as in {'class': 'dask_jobqueue.PBSCluster', 'cores': 4, ...}"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as e:
        raise ValueError(f"its class cannot be imported: {type(e).__name__}: {e}") from e


def _living(folder: Path) -> str | None:
    """The address of the cluster that a living process keeps."""
    keeper = entry.noted_process(folder / "keeper")
    if keeper is None or keeper.alive() is False:
        return None
    try:
        return _trust.read_trusted(folder / "address").decode()
    except OSError:
        return None


def _made(folder: Path, content: bytes) -> str:
    """Start a process that makes the cluster, and return the address once there is one."""
    address = folder / "address"
    address.unlink(missing_ok=True)
    _files.write_atomically(folder / "specification.json", content, mode=_files.OWN)
    with clean_environment():
        environment = {**os.environ, "PYTHONPATH": import_path(None)}
    with paths.open_log(folder / "keeper.log") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "exca.jobs.dask_keeper", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    entry.note_process(folder / "keeper", Process.of(process.pid))
    poller = Poller(START)
    while not address.exists():
        if process.poll() is not None or not poller.pause():
            process.kill()
            process.wait()
            raise SubmissionError(
                f"the Dask cluster of dask_cluster={content.decode()} could not be made within {START:.0f} s. Nothing "
                f"was submitted. End of {folder / 'keeper.log'}:\n{paths.tail(folder / 'keeper.log')}"
            )
    _KEPT.append(process)
    return address.read_text()


_KEPT: list["subprocess.Popen[bytes]"] = []  # or the interpreter would warn of a child that runs on


def main(folder: Path) -> int:
    """Make a cluster and hold it until it has had nothing to do for a while."""
    distributed: tp.Any = importlib.import_module("distributed")
    spec = orjson.loads(_files.read_file(str(folder / "specification.json")))
    cluster = _class_of(spec)(**{name: value for name, value in spec.items() if name not in OWN})
    if "adapt" in spec:
        cluster.adapt(**spec["adapt"])
    elif "scale" in spec:
        scale = spec["scale"]
        cluster.scale(**scale) if isinstance(scale, dict) else cluster.scale(scale)
    client = distributed.Client(cluster, set_as_default=False)
    _files.write_atomically(folder / "address", cluster.scheduler_address.encode(), mode=_files.OWN)
    idle, used = 60.0 * float(spec.get("idle_min", IDLE)), time.monotonic()
    while time.monotonic() - used < idle:
        time.sleep(min(1.0, idle / 4))
        if client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            used = time.monotonic()
    (folder / "address").unlink(missing_ok=True)  # first: none is to submit to what is about to end
    client.close()
    cluster.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
