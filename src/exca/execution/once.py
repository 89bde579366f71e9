"""From asked to stored, exactly once: the path that maps and pipelines share.

Look up, claim what is missing, compute it here or in jobs, wait for what others are computing, look again.
"""

import dataclasses
import itertools
import logging
import os
import pickle
import threading
import time
import typing as tp
import uuid
from pathlib import Path

from .. import _files
from ..errors import ClaimLostError, UntrustedFileError
from ..jobs import arrays, backends
from ..jobs.current import current_job
from ..jobs.job import SAY_WHY, CallJob, say_they_go_on
from ..jobs.remote_errors import RemoteError
from ..jobs.submission import Submission

if tp.TYPE_CHECKING:
    from ..claims import Claim, Claims, chain

logger = logging.getLogger("exca")
_ROOM_EVERY = 5.0  # seconds between two attempts to send jobs that there was no room for
_OTHERS_EVERY = 0.5  # seconds, while waiting for one job, between looks at the others


class Work(tp.Protocol):
    """Keyed results in a folder, and the way to compute them."""

    @property
    def folder(self) -> Path:
        """Folder that holds the results and the claims on them."""
        ...

    def missing(self, keys: tp.Sequence[str]) -> list[str]:
        """Those of the keys that have no result yet, in order."""
        ...

    def execute(self, claim: "Claim", keys: tp.Sequence[str]) -> None:
        """Compute these claimed keys, here or in jobs, and return when that is done."""


def compute_once(work: Work, keys: tp.Sequence[str]) -> None:
    """Return when every key has a result, computing those that no other process computes.

    Parameters
    ----------
    work: Work
        the results and the way to compute them
    keys: sequence of str
        what is wanted
    """
    from ..claims import Claims, chain

    remaining = work.missing(keys)
    claims = Claims(work.folder)
    while remaining:
        chain.let_nested_compute(work.folder, remaining)
        claim, held = claims.acquire(remaining)
        if claim is not None:
            with claim, chain.under(claim):
                mine = work.missing(
                    claim.keys
                )  # another process may have finished between our look and our claim
                if mine:
                    work.execute(claim, mine)
        if held:
            _wait_for_others(work, claims, [key for key in remaining if key in held])
        remaining = work.missing(remaining)


def _wait_for_others(work: Work, claims: "Claims", held: list[str]) -> None:
    """Wait until the last of the keys has a result (they are computed in order), or a holder is gone."""
    claims.wait(held, done=lambda: not work.missing(held[-1:]))


class Computer(tp.Protocol):
    """What travels to a job: computes items and stores their results."""

    def compute(self, keys: tp.Sequence[str], items: tp.Sequence[tp.Any]) -> tp.Sequence[str] | None:
        """Compute the items and store each result under its key; returns the keys left to others, if any."""


@dataclasses.dataclass
class Shared:
    """An object that many jobs need, pickled once beside their logs.

    Parameters
    ----------
    path: Path
        its pickle
    digest: str
        of what was written there; it travels with the call, which is checked itself
    """

    path: Path
    digest: str

    @classmethod
    def write(cls, value: tp.Any, folder: Path, max_gb: float | None) -> "Shared":
        """Pickle a value into a fresh file of a folder."""
        data = backends.pickled(value, max_gb)
        _files.make_folders(os.fspath(folder))
        path = folder / f"{uuid.uuid4().hex}.shared.pkl"
        _files.write_atomically(path, data, mode=_files.PRIVATE)
        return cls(path, _files.digest(data))

    def load(self) -> tp.Any:
        """Load the value."""
        data = _files.read_file(str(self.path))
        if _files.digest(data) != self.digest:
            raise UntrustedFileError(
                f"{self.path} is not what was submitted: it was exchanged, so it is not loaded"
            )
        return pickle.loads(data)


@dataclasses.dataclass(repr=False)
class ItemsCall:
    """What a job runs: a share of the items of one computation.

    Parameters
    ----------
    computer: Shared
        pickled once for all jobs
    folder: Path
        folder that holds the results and the claims on them
    token: str
        token of the claim under which the job runs
    keys: list of str
        keys of the items
    items: list
        the items
    logs: str
        folder of the job's logs, with ``%j`` for its id
    """

    computer: Shared
    folder: Path
    token: str
    keys: list[str]
    items: list[tp.Any]
    logs: str

    def __repr__(self) -> str:
        return f"{len(self.keys)} item(s) of {self.folder.parent.name}/{self.folder.name}"

    def __call__(self) -> tp.Any:
        """Compute in a job; an error is carried to the caller as a value."""
        from ..claims import Claims, chain

        _, rank = current_job(self.logs)
        if rank > 0:
            return None
        claim = Claims(self.folder).adopt(self.token)
        if claim is None:
            logger.warning("%r are computed by another process by now: leaving them to it", self)
            return None
        with claim, chain.under(claim):
            try:
                return self.computer.load().compute(self.keys, self.items)
            except Exception as e:
                logger.exception("%r failed", self)
                return RemoteError(e)


def run_in_jobs(
    claim: "Claim | tp.Sequence[Claim]",
    groups: tp.Sequence[tuple[list[str], list[tp.Any]]],
    computer: Computer,
    *,
    cluster: str,
    request: tp.Callable[[list[tp.Callable[[], tp.Any]], str], backends.Request],
    progress: tp.Callable[[int], None],
    computed: tp.Callable[[list[str]], None] | None = None,
) -> None:
    """Submit shares of items as one array and wait for the jobs, each owning what it was given.

    Parameters
    ----------
    claim: Claim or sequence of Claim
        claim on all the keys, or one a group where these lie in several folders
    groups: sequence of (keys, items)
        one a job
    computer: Computer
        computes and stores
    cluster: str
        where to run
    request: callable (calls, tag) -> Request
        makes the request for the backend
    progress: callable (number of items)
        told when a job is done
    computed: callable (keys), optional
        told when a job did all that it was given

    Raises
    ------
    Exception
        the error of the first job that failed, with its own type where it can be carried, once all jobs ended
    JobError
        if a job ended without an outcome
    """
    from ..claims import chain

    if isinstance(claim, tp.Sequence):
        claims = list(claim)
    else:
        claims = claim.split([keys for keys, _ in groups])
    folder = claims[0].folder
    shared: Shared | None = None
    try:
        draft = request([], "")
        pattern = Path(draft.logs)
        stable = Path(*itertools.takewhile(lambda part: "%" not in part, pattern.parts))
        shared = Shared.write(computer, stable, draft.resources.max_pickle_size_gb)
        calls: list[tp.Callable[[], tp.Any]] = [
            ItemsCall(shared, c.folder, c.token, keys, items, draft.logs)
            for c, (keys, items) in zip(claims, groups, strict=True)
        ]
        tag = ""
        for k, c in enumerate(claims):
            tag = c.announce(cluster, tag=tag or None, task=k if len(claims) > 1 else None)
        final = dataclasses.replace(draft, calls=calls, tag=tag)  # one working directory for all
        sending = _Sending(cluster, final, claims)
        sending.send()
        arrays.report(sending.submissions + [None] * len(sending.left), final.name, cluster)
    except BaseException as e:
        for c in claims:
            c.release()
        if shared is not None and isinstance(e, Exception) and not isinstance(e, arrays.UnsureError):
            shared.path.unlink(missing_ok=True)  # else jobs that have begun may need it
        raise
    keys_of = [keys for keys, _ in groups]
    with sending, chain.Waiting(folder, [key for keys in keys_of for key in keys]) as waiting:
        errors = _wait_for(sending, keys_of, progress, computed, waiting)
    shared.path.unlink(missing_ok=True)  # not when interrupted: the jobs still need it
    if errors:
        raise errors[min(errors)]


class _Sending:
    """Jobs of one computation, those that were sent and those that there is no room for yet.

    Parameters
    ----------
    cluster: str
        where they run
    request: Request
        all of them
    claims: list of Claim
        one per job
    """

    def __init__(self, cluster: str, request: backends.Request, claims: "list[Claim]") -> None:
        self.cluster = cluster
        self.request = request
        self.left = claims
        self.submissions: list[Submission] = []
        self._before: _Sending | None = None

    def __enter__(self) -> None:
        """This thread waits for the jobs from now on."""
        self._before = _waited_for.get(threading.get_ident())
        _waited_for[threading.get_ident()] = self

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        """It does no more: what was not sent is left to others, and what was goes on."""
        del _waited_for[threading.get_ident()]
        if self._before is not None:
            _waited_for[threading.get_ident()] = self._before
        for claim in self.left:
            claim.release()
        if kind is KeyboardInterrupt:
            say_they_go_on(self.unfinished())

    def unfinished(self) -> list[CallJob[tp.Any]]:
        """Jobs that have left no outcome yet."""
        jobs = [CallJob[tp.Any](submission) for submission in self.submissions]
        return [job for job in jobs if not job.paths.result_pickle.exists()]

    def send(self) -> list[Submission]:
        """Send what there is room for, and hand the claims over; returns the new ones."""
        sent = [s for s in backends.submit(self.cluster, self.request) if s is not None]
        if self.cluster != "debug":
            for c, submission in zip(self.left, sent, strict=False):
                transfer_to(c, submission)
        self.left = self.left[len(sent) :]
        self.request = arrays.rest_of(self.request, len(sent))
        self.submissions += sent
        return sent


_waited_for: dict[int, _Sending] = {}  # by thread, the jobs that it waits for


def say_jobs_go_on(threads: tp.Iterable[threading.Thread]) -> None:
    """Say, when this thread is interrupted, that the jobs which others wait for on its behalf go on.

    Parameters
    ----------
    threads: iterable of Thread
        the others
    """
    waited_for = [_waited_for.get(thread.ident or 0) for thread in threads]
    say_they_go_on([job for sending in waited_for if sending is not None for job in sending.unfinished()])


def transfer_to(claim: "Claim", submission: Submission) -> None:
    """Make a submitted job the owner of a claim, unless it has adopted the claim by itself already.

    Parameters
    ----------
    claim: Claim
        the claim under which the job was submitted
    submission: Submission
        the job
    """
    from ..claims import Owner

    assert submission.cluster is not None, "only jobs take claims over"
    job_id = str(submission.pid or submission.job_id)  # the owner of a local job is its process
    try:
        claim.transfer_to(Owner.for_job(cluster=submission.cluster, job_id=job_id, folder=submission.logs))
    except ClaimLostError:
        logger.debug("%s already stands behind %r", submission.job_id, claim)


def _wait_for(
    sending: _Sending,
    keys: tp.Sequence[list[str]],
    progress: tp.Callable[[int], None],
    computed: tp.Callable[[list[str]], None] | None,
    nested: "chain.Waiting",
) -> dict[int, Exception]:
    """Wait until all jobs ended, in whatever order, and send those that there was no room for.

    Returns
    -------
    dict
        the errors by the number of the job
    """
    waiting: dict[int, CallJob[tp.Any]] = {k: CallJob(s) for k, s in enumerate(sending.submissions)}
    errors: dict[int, Exception] = {}
    start = tried = started = time.monotonic()
    while waiting or sending.left:
        nested.look(time.monotonic() - start)
        if sending.left and time.monotonic() - tried > _ROOM_EVERY:
            tried, first = time.monotonic(), len(sending.submissions)
            waiting.update((first + k, CallJob(s)) for k, s in enumerate(sending.send()))
        if not waiting:
            time.sleep(_OTHERS_EVERY)
            continue
        ended = _ended(waiting)
        if started and time.monotonic() - started > SAY_WHY:
            started = 0.0  # said once
            logger.info(
                "Still waiting for %d job(s): %s", len(waiting), next(iter(waiting.values())).describe()
            )
        for k in sorted(ended):
            job = waiting.pop(k)
            try:
                left = job.result() or ()
                if computed is not None:
                    computed([key for key in keys[k] if key not in left])
            except Exception as e:
                errors[k] = e
                e.add_note(
                    f"Raised by {job._name()}, which was given {len(keys[k])} item(s), from {keys[k][0]!r} "
                    f"to {keys[k][-1]!r}. Results computed before it are kept: ask again to compute the rest."
                )
                logger.warning("%s failed: %s", job._name(), e)
            progress(len(keys[k]))
    return errors


def _ended(waiting: dict[int, CallJob[tp.Any]]) -> set[int]:
    """Numbers of the jobs that ended, after waiting a little for one of them."""
    first = next(iter(waiting))
    done = waiting[first].wait(timeout=_OTHERS_EVERY) or waiting[first].done()
    ended = {first} if done else set()
    return ended | {k for k, job in waiting.items() if job.paths.result_pickle.exists()}
