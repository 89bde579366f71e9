"""Jobs on a Dask cluster: submitted to its scheduler, run by its workers, asked about with one question for all.

Where the scheduler of a job is, and which one it is, is noted beside the logs of the job, so that any interpreter can
ask it: a scheduler that was started anew knows no job of the one before. The jobs are the scheduler's own ("fire and
forget"), which gives those of a lost worker to another one.
"""

import asyncio
import contextlib
import dataclasses
import importlib
import json
import logging
import os
import threading
import time
import typing as tp
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from .. import _files, _trust
from .._clusters import JobState
from .._log import logger
from .._polling import Poller
from ..errors import SubmissionError
from . import hosted, paths
from .backends import Request, Submission
from .silence import Silence

if tp.TYPE_CHECKING:
    from .resources import Resources

PLACE = "dask.json"  # beside the logs of a job: which scheduler knows it
CONNECT = 10.0  # seconds for a scheduler to take a connection
ANSWER = 20.0  # seconds for a scheduler to answer
REMEMBER = 1.0  # seconds an answer is good for
AGAIN = 5.0  # seconds after which a scheduler is asked again that gave no answer
_WORDS = {
    **dict.fromkeys(("released", "waiting", "no-worker", "queued"), "PENDING"),
    "processing": "RUNNING",
    "memory": "COMPLETED",
    "erred": "FAILED",
}


class NoAnswerError(SubmissionError):
    """A scheduler did not answer, and has nothing of what it was given."""

    passing = True


@dataclasses.dataclass(frozen=True)
class Place:
    """The scheduler of a job."""

    address: str
    scheduler: str  # its own id, another one after each start


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What a scheduler says of one of its tasks."""

    state: str | None  # its word; None where it does not know it
    kept: bool = False  # whether it keeps the task though no client asks for it
    why: str = ""  # how it failed, or what it waits for


class _Scheduler:
    """The connection of this process to one scheduler."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.lock = threading.Lock()
        self.id = ""
        self.silence = Silence(
            f"the Dask scheduler at {address}",
            "; where it is gone for good, clear_job() of the infra gives its jobs up",
        )
        self._client: tp.Any = None
        self._failure = ("", 0.0)  # why it gave no answer, and the time from which it is asked again
        self._known: dict[str, tuple[float, _Answer]] = {}

    def client(self) -> tp.Any:
        """The client; raises OSError where there is no connection within the time."""
        if self._client is not None and self._client.status != "running":
            # it is of no use any more, however it takes that
            with contextlib.suppress(Exception), _quiet_client():
                self._client.close(timeout=1)
            self._client = None
        if self._client is None:
            self.id = _identity(self.address)  # first: a client that finds no scheduler is hard to get rid of
            try:
                self._client = _distributed().Client(
                    self.address, timeout=CONNECT, set_as_default=False, name="exca", asynchronous=False
                )
            except Exception as e:  # whatever distributed raises
                raise OSError(f"{type(e).__name__}: {e}") from e
        return self._client

    def on_scheduler(self, function: tp.Callable[..., tp.Any], *args: tp.Any) -> tp.Any:
        """What a function returns in the scheduler; raises OSError where it does not answer within the time."""
        client = self.client()
        try:
            return client.sync(client._run_on_scheduler, function, *args, callback_timeout=ANSWER)
        except OSError:  # TimeoutError, and those of connections
            raise
        except Exception as e:  # distributed has many of its own, and they change
            raise OSError(f"{type(e).__name__}: {e}") from e

    def ask(self, keys: tp.Collection[str], *, remember: float = REMEMBER) -> dict[str, _Answer]:
        """What the scheduler says of tasks, by one question for all; raises OSError where it says nothing."""
        with self.lock:  # callers that come while it is asked wait for that answer
            now = time.monotonic()
            self._known = {key: known for key, known in self._known.items() if now - known[0] < remember}
            new = [key for key in keys if key not in self._known]
            why, again = self._failure
            if new and now < again:
                raise OSError(why)
            if new:
                try:
                    found = self.on_scheduler(_states_of(), new)
                except OSError as e:
                    self._failure = (str(e) or repr(e), time.monotonic() + AGAIN)
                    self.silence.begin(self._failure[0], now)
                    raise
                self.silence.end()
                self._failure, now = ("", 0.0), time.monotonic()
                self._known.update((key, (now, _Answer(*found[key]))) for key in new)
            return {key: self._known[key][1] for key in keys}


_schedulers: dict[tuple[int, str], _Scheduler] = {}  # by process, since a forked one has no connection
_places: dict[tuple[str, str], Place] = {}


def _scheduler(address: str) -> _Scheduler:
    return _schedulers.setdefault((os.getpid(), address), _Scheduler(address))


@contextlib.contextmanager
def _quiet_client() -> tp.Iterator[None]:
    """Keep a client of Dask that is closed while it looks for its scheduler from logging that with a traceback."""
    client = logging.getLogger("distributed.client")

    def nothing(record: logging.LogRecord) -> bool:
        return False

    client.addFilter(nothing)
    try:
        yield
    finally:
        client.removeFilter(nothing)


def _distributed() -> tp.Any:
    return importlib.import_module("distributed")  # without types of use


def _identity(address: str) -> str:
    """The id of the scheduler at an address; raises OSError where none answers within the time."""
    distributed = _distributed()

    async def ask() -> dict[str, tp.Any]:
        secrets = distributed.Security().get_connection_args("client")
        scheduler = distributed.rpc(address, timeout=CONNECT, connection_args=secrets)
        try:
            return tp.cast(dict[str, tp.Any], await asyncio.wait_for(scheduler.identity(), CONNECT))
        finally:
            await scheduler.close_rpc()

    with ThreadPoolExecutor(1) as thread:  # the caller may be in an event loop of its own
        try:
            found = thread.submit(lambda: asyncio.run(ask())).result()
            if found["type"] != "Scheduler":
                raise ValueError(f"a {found['type']} of Dask answers there, not a scheduler")
            return str(found["id"])
        except Exception as e:  # whatever distributed raises of a server that is none of Dask's
            raise OSError(f"{type(e).__name__}: {e}") from e


# The functions that run in the scheduler are made inside of others: so they are pickled by value, and the scheduler
# needs no exca.


def _states_of() -> tp.Callable[..., tp.Any]:
    def ask(keys: tp.Any, dask_scheduler: tp.Any = None) -> dict[str, tuple[str | None, bool, str]]:
        lost = "KilledWorker: it was given up, since the workers that ran it were lost"  # of which there is no text
        errors = getattr(dask_scheduler, "erred_tasks", ())
        failed = {error.key: error.exception_text or lost for error in errors}
        out: dict[str, tuple[str | None, bool, str]] = {}
        for key in keys:
            task = dask_scheduler.tasks.get(key)
            if task is None:
                out[key] = (None, False, failed.get(key, ""))
                continue
            kept = any(client.client_key == "fire-and-forget" for client in task.who_wants or ())
            needs = task.resource_restrictions or {}
            why = ", ".join(f"{name}={amount:g}" for name, amount in needs.items())
            out[key] = (str(task.state), kept, failed.get(key, "") if task.state == "erred" else why)
        return out

    return ask


def _workers_of() -> tp.Callable[..., tp.Any]:
    def ask(dask_scheduler: tp.Any = None) -> list[tuple[dict[str, float], float]]:
        workers = dask_scheduler.workers.values()
        return [(dict(worker.resources), float(worker.memory_limit or 0)) for worker in workers]

    return ask


class DaskBackend(hosted.HostedBackend):
    """Jobs on a Dask cluster, each in one of its workers."""

    name = "dask"
    decides = True

    def submit(self, request: Request) -> list[Submission | None]:
        """Submit the calls to the scheduler, and return once it has them."""
        resources = request.resources
        if resources.nodes > 1:
            raise SubmissionError(
                f"nodes={resources.nodes}: a job of Dask runs in one worker. Leave it out, or use cluster='slurm'"
            )
        scheduler, shown = connected(resources, request.logs)
        needs = _needs(scheduler, resources, shown)
        launches = self.launches(request)
        place = Place(scheduler.address, scheduler.id)
        try:
            for launch in launches:
                content = orjson.dumps(dataclasses.asdict(place))
                _files.write_atomically(launch.paths().folder / PLACE, content, mode=_files.OWN)
        except OSError as e:
            paths.remove_written(launch.paths() for launch in launches)
            raise SubmissionError(f"cannot write the jobs of {request.name} to {request.logs}: {e}") from e
        jobs: list[Submission | None] = [
            Submission(self.name, launch.job_id, launch.logs, launch.processes) for launch in launches
        ]
        try:
            self._hand_over(scheduler, launches, needs)
        except BaseException as e:  # the caller learns of none of them, so none may go on
            self.cancel([job for job in jobs if job is not None])
            if isinstance(e, OSError):
                raise NoAnswerError(
                    f"{shown} did not take {request.name}: {e}. Nothing of it goes on: check the scheduler"
                ) from e
            raise
        return jobs

    def _hand_over(
        self, scheduler: _Scheduler, launches: tp.Sequence[hosted.Launch], needs: dict[str, float]
    ) -> None:
        """Submit, and wait until the scheduler keeps the jobs by itself, so that the submitter may end."""
        client = scheduler.client()
        futures = [
            client.submit(launch, key=_key(launch.job_id), pure=False, resources=needs or None, retries=0)
            for launch in launches
        ]
        _distributed().fire_and_forget(futures)
        waiting = {_key(launch.job_id) for launch in launches}
        poller = Poller(ANSWER)
        while waiting:
            found = scheduler.ask(waiting, remember=0.0)
            waiting = {key for key, a in found.items() if not (a.kept or a.state in ("memory", "erred"))}
            if waiting and not poller.pause():
                raise TimeoutError(
                    f"the scheduler did not show {len(waiting)} of the jobs within {ANSWER:.0f} s"
                )

    def states(self, jobs: tp.Sequence[Submission]) -> list[JobState]:
        """``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``CANCELLED``, ``TIMEOUT``, or ``UNKNOWN``."""
        found: dict[Submission, JobState] = {}
        asked: dict[Place, list[Submission]] = {}
        for job in jobs:
            ended = hosted.state_by_files(job)
            if ended is not None:
                found[job] = ended
                continue
            try:
                asked.setdefault(place_of(job), []).append(job)
            except (OSError, ValueError) as e:
                found[job] = JobState(job.job_id, "UNKNOWN", f"where its scheduler is cannot be read: {e}")
        for place, some in asked.items():
            found.update(zip(some, _states(place, some), strict=True))
        return [found[job] for job in jobs]

    def waits_for(self, submission: Submission) -> str:
        """What a job that no worker can run waits for."""
        (state,) = self.states([submission])
        return state.reason if state.state == "PENDING" else ""

    def check_patience(self) -> None:
        """Raise SchedulerError where a scheduler has not answered for long."""
        for scheduler in list(_schedulers.values()):
            scheduler.silence.check()

    def cancel(self, submissions: tp.Sequence[Submission]) -> None:
        """End jobs: the scheduler forgets those that wait, and the workers end what runs."""
        self.mark_cancelled(submissions)
        of_place: dict[Place, list[str]] = {}
        for job in submissions:
            with contextlib.suppress(OSError, ValueError):  # the mark is all that can be done
                of_place.setdefault(place_of(job), []).append(_key(job.job_id))
        for place, keys in of_place.items():
            scheduler = _scheduler(place.address)
            try:
                client = scheduler.client()
                if scheduler.id == place.scheduler:
                    future = _distributed().Future
                    client.cancel([future(key, client=client) for key in keys], force=True)
            except OSError as e:
                logger.warning(
                    "The Dask scheduler at %s cannot be asked to end %d job(s): %s. They end as soon as a worker looks "
                    "at them",
                    *(place.address, len(keys), e),
                )


def _key(job_id: str) -> str:
    return f"exca-{job_id}"


def _states(place: Place, jobs: tp.Sequence[Submission]) -> list[JobState]:
    scheduler = _scheduler(place.address)
    try:
        answers = scheduler.ask([_key(job.job_id) for job in jobs])
    except (OSError, ImportError) as e:
        why = f"the Dask scheduler at {place.address} gives no answer: {e}"
        return [JobState(job.job_id, "UNKNOWN", why) for job in jobs]
    if scheduler.id != place.scheduler:
        why = f"The Dask scheduler at {place.address} was started anew, and does not know it"
        return [hosted.gone(job, why) for job in jobs]
    return [_state(job, answers[_key(job.job_id)]) for job in jobs]


def _state(job: Submission, answer: _Answer) -> JobState:
    if answer.state is None:  # done or lost: it may have ended between the two looks
        ended = hosted.state_by_files(job)
        if ended is None and answer.why:
            ended = JobState(job.job_id, "FAILED", f"Dask says {answer.why}", alive=False)
        return ended or hosted.gone(job, "The Dask scheduler knows it no more")
    word = _WORDS.get(answer.state, answer.state.upper())
    reason = answer.why
    if answer.state == "processing" and not hosted.began(job):
        word = "PENDING"  # a worker has it, and begins it as soon as it has room
    if answer.state == "no-worker":
        reason = f"no worker offers {answer.why}" if answer.why else "there is no worker"
    elif word == "PENDING":
        reason = "the workers are busy"
    return JobState(job.job_id, word, reason, alive=word in ("PENDING", "RUNNING"))


def place_of(job: Submission) -> Place:
    """Which scheduler knows a job, as its submitter noted it; raises OSError or ValueError where that is not there.

    Only a file of this user, root or a trusted one counts: a scheduler can run anything in what connects to it.
    """
    found = _places.get((job.logs, job.job_id))
    if found is None:
        content = orjson.loads(_trust.read_trusted(paths.JobPaths(job.logs, job.job_id).folder / PLACE))
        try:
            found = Place(str(content["address"]), str(content["scheduler"]))
        except (KeyError, TypeError) as e:
            raise ValueError(f"{PLACE} is damaged: {e!r}") from e
        _places[job.logs, job.job_id] = found
    return found


# -------------------------------------------------------------------------------- the cluster to submit to


def connected(resources: "Resources", logs: str) -> tuple[_Scheduler, str]:
    """The scheduler that resources name, connected, and what to call it in messages.

    Raises SubmissionError where there is none, or none that answers within the time.
    """
    try:
        dask, _ = importlib.import_module("dask"), _distributed()
    except ImportError as e:
        raise SubmissionError(
            f"cluster='dask' needs the package distributed, which cannot be imported here ({e}): pip install "
            "'exca[dask]'"
        ) from e
    given, spec = resources.dask_address, resources.dask_cluster
    if given is not None and spec is not None:
        raise SubmissionError("dask_address and dask_cluster are both set: set one of them")
    if spec is not None:
        from .dask_keeper import address_of

        address, shown = address_of(spec, logs), f"the Dask cluster of dask_cluster={spec.get('class')!r}"
    else:
        text = given or dask.config.get("scheduler-address", None)
        if text is None:
            raise SubmissionError(
                "cluster='dask' needs dask_address='tcp://<host>:<port>' (or the path of a scheduler file), or "
                "dask_cluster={'class': ..., ...}; DASK_SCHEDULER_ADDRESS in the environment will do, too"
            )
        address = _address_in(text)
        shown = f"the Dask scheduler of dask_address={text!r}"
    scheduler = _scheduler(address)
    try:
        with scheduler.lock:
            scheduler.client()
    except OSError as e:
        raise NoAnswerError(
            f"{shown} did not answer within {CONNECT:.0f} s ({e}). Nothing was submitted: check the address, and that "
            "the scheduler runs and can be reached from here"
        ) from e
    return scheduler, shown


def _address_in(text: str) -> str:
    """The address that a text is, or that is in the scheduler file that it names."""
    if "://" in text or (not text.endswith(".json") and not Path(text).is_file()):
        return text if "://" in text else f"tcp://{text}"
    path = _files.expand(text, "dask_address")
    try:
        return str(json.loads(_files.read_file(path))["address"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise SubmissionError(
            f"dask_address={text!r} is no scheduler file that can be read ({type(e).__name__}: {e}). Nothing was "
            "submitted: give the file that `dask scheduler --scheduler-file` writes, or an address 'tcp://<host>:<port>'"
        ) from e


def _needs(scheduler: _Scheduler, resources: "Resources", shown: str) -> dict[str, float]:
    """The resources of Dask that a job asks for.

    ``gpus_per_node`` is Dask's ``GPU``. ``mem_gb`` and ``cpus_per_task`` are ``MEMORY`` (bytes) and ``CPU`` where
    workers offer these. Raises SubmissionError where there are workers, and none of them has as much.
    """
    try:
        workers: list[tuple[dict[str, float], float]] = scheduler.on_scheduler(_workers_of())
    except OSError as e:
        raise NoAnswerError(
            f"{shown} did not answer within {ANSWER:.0f} s: {e}. Nothing was submitted"
        ) from e
    memory = (resources.mem_gb or 0.0) * 2**30
    wanted = {
        "GPU": ("gpus_per_node", float(resources.gpus_per_node or 0)),
        "MEMORY": ("mem_gb", memory),
        "CPU": ("cpus_per_task", float(resources.cpus_per_task or 0)),
    }
    needs: dict[str, float] = {}
    for name, (field, amount) in wanted.items():
        offered = [offer[name] for offer, _ in workers if name in offer]
        if not amount or (name != "GPU" and not offered):
            continue
        if workers and max(offered, default=0.0) < amount and resources.dask_cluster is None:
            raise SubmissionError(
                f"no worker of {shown} offers {name}={amount:g}, which {field}={getattr(resources, field)} asks for: "
                f"the most is {max(offered, default=0.0):g}. Nothing was submitted: ask for less, or start workers "
                f"with `dask worker --resources '{name}={amount:g}'`"
            )
        needs[name] = amount
    limits = [limit for _, limit in workers]
    if memory and limits and "MEMORY" not in needs and all(0 < limit < memory for limit in limits):
        raise SubmissionError(
            f"mem_gb={resources.mem_gb} is more than any worker of {shown} may use, which is "
            f"{max(limits) / 2**30:.3g}. Nothing was submitted: lower it, or start workers with a higher --memory-limit"
        )
    return needs


BACKEND = DaskBackend()
