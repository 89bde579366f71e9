"""Tasks that have to be done before another one begins (`after`).

The cache is the truth: a task begins once those before it have a result there, and its own job looks before it begins.
That a scheduler keeps the job from beginning until the jobs before it have ended only saves it from beginning in vain:
those may have been lost, and have another job by then. Such a job ends at once, as an attempt that does not count, and
is submitted again behind the later job.
"""

import contextlib
import contextvars
import dataclasses
import itertools
import os
import re
import typing as tp
from pathlib import Path

from pydantic_core import SchemaSerializer, core_schema

from .. import _files
from .._log import logger
from ..errors import EarlierTaskError, InfraError
from ..jobs import losses
from ..jobs.backends import Submission
from ..jobs.job import DoneJob
from ..jobs.paths import fixed_folder
from . import record, unsent
from .record import KEY
from .task_job import TaskJob, job_behind

if tp.TYPE_CHECKING:
    from ..claims import Claim
    from .method import Method

BEFORE = "before"  # key of a record that tells of the earlier task for which this one failed
EVERY = 5.0  # seconds between two looks whether an earlier task was lost
_PATIENCE = 5.0  # seconds that a job which may begin gives a task before it to be known to have ended
_METHOD_FOLDER = r"[^,]+\.[^,]+,[^,]+"  # <module>.<Class>.<method>,<version>
_MOST = 100  # earlier tasks one before the other, of which it is asked whether they still count as failed
_starting: contextvars.ContextVar[tuple[Path, ...]] = contextvars.ContextVar("exca_starting", default=())
Word = tp.Literal["done", "failed", "running", "lost", "unsent", "nothing"]


class Known(tp.Protocol):
    """A task whose object is at hand, so that it can be started: `tasks.Task`."""

    method: "Method"
    job: tp.Any

    def start(self) -> tp.Any:
        """The job of the task, started now if there is neither a job nor a result."""


class Earlier:
    """What has to be done before: a task, or all tasks of a method; it travels as an address.

    Parameters
    ----------
    address: str
        uid or address of a method, below the folder of the infra that comes after; or a path
    ask: callable, optional
        gives the task itself, where its object is at hand
    logs: str
        folder of the logs of its jobs, with ``%j`` for their ids, where that is known
    replaces: str, optional
        the attempt whose outcome does not count, since it is computed again
    """

    # by which pydantic writes what is in a field of any type
    __pydantic_serializer__: tp.ClassVar[SchemaSerializer] = SchemaSerializer(
        core_schema.any_schema(serialization=core_schema.to_string_ser_schema(when_used="always"))
    )

    def __init__(
        self,
        address: str,
        ask: tp.Callable[[], Known] | None = None,
        logs: str = "",
        replaces: str | None = None,
    ) -> None:
        self._address, self._ask = address, ask
        self.logs: str = logs
        self.replaces: str | None = replaces
        self.task: Known | None = None

    def known(self) -> Known | None:
        """The task itself, where its object is at hand."""
        if self.task is None and self._ask is not None:
            self.task = self._ask()
            self._address, self.logs = str(self.task.method.folder), str(self.task.method.logs)
        return self.task

    def folders(self, root: Path, *, strict: bool = False) -> list[Path]:
        """The uid folders that are meant; one that does not exist where there are none, or an InfraError."""
        self.known()
        place = Path(os.path.abspath(root / _files.expand(self._address, "after")))
        if self.task is not None:
            return [place]
        if re.fullmatch(_METHOD_FOLDER, place.parent.name):
            if not place.is_dir():  # the cache was moved, with what tells of this task
                place = root / place.parent.name / place.name
            found = [place] if place.is_dir() else []
        else:
            known = re.fullmatch(_METHOD_FOLDER, place.name) is not None
            found = [folder for folder in _folders_in(place) if _is_known(folder)] if known else []
        if not found and strict:
            raise InfraError(
                f"after holds {self._address!r}, and there is no such task in {place}: give its object, its job, its "
                "uid as infra.uid() tells it (below the folder of this infra), or the path of its uid folder. It must "
                "have been submitted before"
            )
        _files.name_root(str((found or [place])[0].parent.parent))
        return found or [place]

    def __str__(self) -> str:
        self.known()
        return self._address

    def __repr__(self) -> str:
        return self._address or "<a task>"  # its uid may not be asked for yet

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Earlier) and bool(self._address) and self._address == other._address
        )

    __hash__: tp.ClassVar[None] = None  # type: ignore[assignment] # its address comes late

    def __copy__(self) -> "Earlier":
        return self

    def __deepcopy__(self, memo: tp.Any) -> "Earlier":
        return self

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return Earlier, (str(self), None, self.logs, self.replaces)


def _folders_in(place: Path) -> list[Path]:
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        return sorted(place / entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


def _is_known(folder: Path) -> bool:
    """Whether a folder is that of a task which has an outcome, or has had a job."""
    return any(os.access(folder / name, os.F_OK) for name in record.OUTCOMES)


def of(method: "Method") -> tp.Sequence[Earlier]:
    """What has to be done before a task."""
    return tp.cast("tp.Sequence[Earlier]", getattr(method.resources, "after", None) or ())


# ------------------------------------------------------------------- how an earlier task is


class Standing(tp.NamedTuple):
    """How an earlier task is."""

    folder: Path
    word: Word
    found: record.Record | None = None  # its outcome, where that counts
    job: Submission | None = None  # that computes it

    @property
    def name(self) -> str:
        """The uid."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def attempt(self) -> str:
        """The attempt that left the outcome."""
        return "" if self.found is None else self.found.attempt


def look(folder: Path, one: Earlier | None = None, *, depth: int = 0) -> Standing:
    """How a task is, by its folder; how a job ended that left no outcome is noted, as by any caller that waits."""
    from ..claims import Claims

    claims = Claims(folder)
    holder = claims.holders([KEY]).get(KEY)
    found = record.latest(folder)
    while holder is not None and (found is None or found.attempt != holder.token):
        again = one is not None and found is not None and found.attempt == one.replaces
        if found is not None and found.state == "completed" and not again:
            return Standing(folder, "done", found)
        if holder.alive():
            job = job_behind(folder, holder, found, str(fixed_folder(_logs_of(folder, one)) / "%j"))
            return Standing(folder, "running", job=job.submission if job.job_id else None)
        if holder.owner.kind == "job":
            job_behind(folder, holder, found, "").record_death()
            claims.wait([record.end_of(holder.token)], done=lambda: False)  # another process may publish it
        dead = holder.path
        # it may have handed over, or been followed, between the looks
        holder = claims.holders([KEY]).get(KEY)
        found = record.latest(folder)
        if holder is not None and holder.path == dead:
            break
    if found is not None and not (found.state == "failed" and is_past(found, depth=depth)):
        return Standing(folder, "failed" if found.state == "failed" else "done", found)
    if record.lost_before(folder, None if found is None else found.attempt):
        return Standing(folder, "lost")
    if unsent.holds(fixed_folder(_logs_of(folder, one)), folder):
        return Standing(folder, "unsent")
    return Standing(folder, "nothing")


def _logs_of(folder: Path, one: Earlier | None) -> str:
    if one is not None and one.logs:
        return one.logs
    # where they are unless another place was set
    return str(folder.parent / "logs" / _files.user_name() / "%j")


def is_past(found: record.Record, *, depth: int = 0) -> bool:
    """Whether a failure is only that of an earlier task, and that one has another outcome, or a job, by now."""
    before = found.content.get(BEFORE)
    if not isinstance(before, dict) or not found.trusted or depth > _MOST:
        return False
    folder, attempt = before.get("folder"), before.get("attempt")
    if not isinstance(folder, str):
        return False
    now = look(Path(os.path.normpath(found.folder / folder)), depth=depth + 1)
    return not (now.word in ("failed", "nothing") and now.attempt == attempt)


# ------------------------------------------------------------------- before a task is started


# by folder and address, how the tasks are which are meant, and the attempt whose outcome does not count
Looked = dict[tuple[Path, str], tuple[list[Standing], str | None]]


@dataclasses.dataclass
class Verdict:
    """What follows for a task from those before it."""

    failed: Standing | None = None  # it can't be computed for this one
    waits: list[Standing] = dataclasses.field(default_factory=list)  # they are not done yet

    def behind(self, takes: tp.Callable[[Submission], bool]) -> tuple[Submission, ...] | None:
        """The jobs that its own job has to begin after; None where a backend cannot do that."""
        jobs = [one.job for one in self.waits]
        if any(job is None or not takes(job) for job in jobs):
            return None
        return tuple(dict.fromkeys(job for job in jobs if job is not None))


def start_before(
    method: "Method",
    together: tp.Callable[[tp.Sequence[Known]], None],
    looked: Looked,
    *,
    here: bool,
    listed: bool = False,
) -> Verdict:
    """Start what has to be done before a task, where its object is at hand, and tell how all of that is.

    ``together`` submits several at once. ``here``: wait until it is done. ``listed``: the task waits to be sent, and
    there is no caller for an error.
    """
    chain = (*_starting.get(), method.folder)
    verdict = Verdict()
    outer = _starting.set(chain)
    try:
        root = method.home.parent
        keys = {(root, str(one)): one for one in of(method)}
        new = {key: one for key, one in keys.items() if key not in looked}
        folders = {key: one.folders(root, strict=not listed) for key, one in new.items()}
        for folder in itertools.chain.from_iterable(folders.values()):
            _refuse_circle(chain, folder)
        together([task for one in new.values() if (task := one.known()) is not None])
        for key, one in new.items():
            looked[key] = [_started(one, folder, here=here) for folder in folders[key]], one.replaces
    finally:
        _starting.reset(outer)
    for key, one in keys.items():
        found, one.replaces = looked[key]
        for now in found:
            _refuse_circle(chain, now.folder)
            if now.word == "nothing" and not listed:
                raise InfraError(
                    f"{method.uid} is to come after {now.name}, which has neither a result nor a job: nothing was "
                    "submitted. Submit that one first (infra.job()), or give its object in after"
                )
            if here and now.word not in ("failed", "done"):
                raise InfraError(
                    f"{method.uid} is to come after {now.name}, whose job was lost and is yet to be submitted again: "
                    "nothing was computed. Have that done first (infra.job()), or give its object in after"
                )
            if now.word in ("failed", "nothing"):
                verdict.failed = verdict.failed or now
            elif now.word != "done":
                verdict.waits.append(now)
    return verdict


def _refuse_circle(chain: tuple[Path, ...], folder: Path) -> None:
    if folder in chain:
        names = [f"{each.parent.name}/{each.name}" for each in (*chain[chain.index(folder) :], folder)]
        raise InfraError(
            "Tasks come after each other in a circle: "
            + ", which comes after ".join(names)
            + ". Nothing of it was "
            "submitted: take one of them out of after"
        )


def _started(one: Earlier, folder: Path, *, here: bool) -> Standing:
    task = one.known()
    if task is None:
        return wait_for(one, folder) if here else look(folder, one)
    while True:
        job = task.start()
        if here:
            job.wait()
        one.replaces = getattr(job, "replaces", None)
        now = look(folder, one)
        if not here or now.word in ("done", "failed") or job.nothing_kept:
            return now
        if job.error is not None if isinstance(job, DoneJob) else job.cluster is not None:
            job.result()  # raises what was not kept
            return now
        # else the process ended that computed it


def go_on(method: "Method") -> None:
    """Submit again what was lost of that before a task, since a caller waits for this one."""
    for one in of(method):
        task = one.known()
        if task is None or not isinstance(task.job, TaskJob):
            continue
        if task.job.is_lost():
            task.start()
        elif task.job.is_listed():  # it waits to be sent, perhaps for what was lost before it
            go_on(task.method)


# ------------------------------------------------------------------- before a task begins


def wait_for(one: Earlier, folder: Path) -> Standing:
    """Wait for an earlier task as long as it is computed, or waits to be sent."""
    from .._polling import Poller
    from ..claims import Claims

    poller = Poller()
    while True:
        now = look(folder, one)
        if now.word == "running":
            Claims(folder).wait([KEY], done=lambda: False)
        elif now.word == "unsent":
            unsent.send(fixed_folder(_logs_of(folder, one)))
            poller.pause(at_least=0.2)
        else:
            return now


def first_in_the_way(method: "Method") -> Standing | None:
    """The earlier task for which a job cannot compute: one that failed, or else one that is not done yet."""
    from .._polling import Poller

    late: Standing | None = None
    poller = Poller(_PATIENCE)
    for one in of(method):
        for folder in one.folders(method.home.parent):
            now = look(folder, one)
            while now.word == "running" and poller.pause():
                now = look(folder, one)
            if now.word in ("failed", "nothing"):
                return now
            if now.word != "done":
                late = late or now
    return late


def publish_failure(
    method: "Method", claim: "Claim", now: Standing, where: dict[str, tp.Any], attempt: str = ""
) -> EarlierTaskError:
    """Publish, under the claim on a task, that it is not computed since an earlier one failed."""
    root, folder = str(method.home.parent), str(now.folder)
    below = folder.startswith(f"{root}{os.sep}")
    before: dict[str, tp.Any] = {
        "folder": os.path.relpath(folder, claim.folder) if below else folder,
        "attempt": now.attempt,
        **_cause(now),
    }
    error = EarlierTaskError(
        f"{method.uid} was not computed, since {before['task']}, which comes before it, {before['why']}. Have that one "
        "computed again (by mode='retry' or clear_job() of its infra), and ask this one again: its own failure counts "
        "no more then"
    )
    record.Attempt(claim.folder, attempt or claim.token, where, {BEFORE: before}).failed(error)
    logger.warning("%s", error)
    return error


def _cause(now: Standing) -> dict[str, str]:
    """The task that has failed, which may be one before that before, and how."""
    if now.found is None:
        return {
            "task": now.name,
            "why": "has no result, and no job that would bring one (cancelled, or cleared)",
        }
    before = now.found.content.get(BEFORE)
    if isinstance(before, dict) and {"task", "why"} <= before.keys():
        return {"task": str(before["task"]), "why": str(before["why"])}
    error = now.found.content.get("error", {})
    kind = str(error.get("type") or "JobError").rpartition(".")[2]
    return {"task": now.name, "why": f"failed ({kind}: {error.get('message')})"}


def loss_of(now: Standing, attempt: str, where: dict[str, tp.Any], started: float) -> losses.Attempt:
    """Describe the attempt of a job that began before an earlier task was done; it does not count."""
    return {
        **record.loss_of(
            losses.SENT_BACK,
            f"it began, and the task before it, {now.name}, was not done: {now.word}",
            attempt,
            where,
            host=_files.host_name(),
            started=record.iso(started),
        ),
        "counts": False,
    }
