"""Where shares of items are computed: in threads or processes of this machine, or in jobs.

Jobs are submitted as one array, each with its part of the claim; what there is no room for in the queue is sent as
room comes.
"""

import dataclasses
import itertools
import logging
import threading
import time
import typing as tp
from pathlib import Path

from .._polling import Poller
from ..errors import ClaimLostError
from ..jobs import arrays, backends, losses, parts
from ..jobs.backends import Submission
from ..jobs.job import SAY_WHY, CallJob, say_they_go_on
from ..jobs.paths import part_of
from .call import ItemsCall, PickledWorker, Worker

if tp.TYPE_CHECKING:
    from ..claims import Claim, chain

logger: logging.Logger = logging.getLogger("exca")
_ROOM_EVERY = 5.0  # seconds between two attempts to send jobs that there was no room for
_OWN_COMMENT = ("slurm", "local")  # find a job by its tag alone, so that where its logs are need not be noted
_OTHERS_EVERY = 0.5  # seconds, while waiting for one job, between looks at the others
Shares = tp.Sequence[tuple[list[str], list[tp.Any]]]
Progress = tp.Callable[[int], None]
MakeRequest = tp.Callable[[list[tp.Callable[[], tp.Any]], str], backends.Request]


def run_shares(
    cluster: str,
    worker: Worker,
    shares: Shares,
    claim: "Claim | tp.Sequence[Claim] | None",
    *,
    request: MakeRequest,
    progress: Progress,
    cache: tp.Any = None,
    computed: tp.Callable[[list[str]], None] | None = None,
) -> None:
    """Have shares of items computed in threads, processes or jobs, and return when that is done.

    The claim is on all the keys, or for jobs one per share; there is none where the caller holds it, or where nothing
    is kept. The cache takes the results of processes where there is no folder. ``computed`` gets the keys that another
    process stored.
    """
    if cluster in ("threadpool", "processpool"):
        from ..jobs import pools

        if cluster == "threadpool":
            pools.run_in_threads(worker, shares, progress)
        else:
            one = tp.cast("Claim | None", claim)
            pools.run_in_processes(worker, shares, cache, progress, computed=computed, claim=one)
        return
    assert claim is not None, "each job owns what it was given"
    run_in_jobs(claim, shares, worker, cluster=cluster, request=request, progress=progress, computed=computed)


def run_in_jobs(
    claim: "Claim | tp.Sequence[Claim]",
    shares: Shares,
    worker: Worker,
    *,
    cluster: str,
    request: MakeRequest,
    progress: Progress,
    computed: tp.Callable[[list[str]], None] | None = None,
) -> None:
    """Submit shares of items as one array and wait for the jobs, each owning what it was given.

    The error of the first job that failed is raised once all jobs ended.
    """
    from ..claims import chain

    claims = list(claim) if isinstance(claim, tp.Sequence) else claim.split([keys for keys, _ in shares])
    folder = claims[0].folder
    shared: PickledWorker | None = None
    try:
        draft = request([], "")
        stable = Path(*itertools.takewhile(lambda part: "%" not in part, Path(draft.logs).parts))
        shared = PickledWorker.write(worker, stable, draft.resources.max_pickle_size_gb)
        calls = [
            ItemsCall(c.folder, c.token, draft.logs, shared, keys, items)
            for c, (keys, items) in zip(claims, shares, strict=True)
        ]
        tag = announce(claims, cluster, draft)
        final = dataclasses.replace(
            draft, calls=list[tp.Callable[[], tp.Any]](calls), tag=tag, files=(shared.path,)
        )  # one working directory
        sending = _Sending(cluster, final, claims, final, calls)
        sending.send()
        arrays.report(sending.submissions + [None] * len(sending.left), final.name, cluster)
    except BaseException as e:
        for c in claims:
            c.release()
        if shared is not None and isinstance(e, Exception) and not isinstance(e, arrays.UnsureError):
            shared.path.unlink(missing_ok=True)  # else jobs that have begun may need it
        raise
    keys_of = [keys for keys, _ in shares]
    with sending, chain.Waiting(folder, [key for keys in keys_of for key in keys]) as waiting:
        errors = _wait_for(sending, keys_of, progress, computed, waiting)
    shared.path.unlink(missing_ok=True)  # not when interrupted: the jobs still need it
    if errors:
        raise errors[min(errors)]


def announce(claims: "tp.Sequence[Claim]", cluster: str, request: backends.Request) -> str:
    """Note in claims that they are about to be submitted together; returns the tag by which they are found again."""
    tag, place = "", None if cluster in _OWN_COMMENT else request.logs
    for claim, (task, logs) in zip(claims, parts.places(request, cluster, len(claims)), strict=True):
        tag = claim.announce(cluster, tag=tag or None, task=task, logs=logs or place)
    return tag


def transfer_to(claim: "Claim", submission: Submission) -> None:
    """Make a submitted job the owner of a claim, unless it has adopted the claim by itself already."""
    from ..claims import Owner
    from ..claims.owner import Process

    assert submission.cluster is not None, "only jobs take claims over"
    if submission.cluster == "debug":
        return  # it has run here already
    process = None if submission.pid is None else Process.of(submission.pid)
    owner = Owner.for_job(
        cluster=submission.cluster,
        job_id=submission.job_id,
        folder=submission.logs,
        process=process,
        shared=part_of(submission.logs) is not None,
    )
    try:
        claim.transfer_to(owner)
    except ClaimLostError:
        logger.debug("%s has adopted %r already", submission.job_id, claim)


@dataclasses.dataclass
class _Sending:
    """Jobs of one computation, those that were sent and those that there is no room for yet."""

    cluster: str
    request: backends.Request  # of those that are left
    left: "list[Claim]"  # one per job
    whole: backends.Request  # of all of them
    calls: list[ItemsCall]
    submissions: list[Submission] = dataclasses.field(default_factory=list)
    before: "_Sending | None" = None  # what this thread waited for already
    lost: dict[int, list[losses.Attempt]] = dataclasses.field(default_factory=dict)  # by number of the job

    def __enter__(self) -> None:
        """This thread waits for the jobs from now on."""
        self.before = _waited_for.get(threading.get_ident())
        _waited_for[threading.get_ident()] = self

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        """It does no more: what was not sent is left to others, and what was goes on."""
        del _waited_for[threading.get_ident()]
        if self.before is not None:
            _waited_for[threading.get_ident()] = self.before
        for claim in self.left:
            claim.release()
        if kind is KeyboardInterrupt:
            say_they_go_on(self.unfinished())

    def unfinished(self) -> list[CallJob[tp.Any]]:
        """Jobs that have left no outcome yet."""
        jobs = [CallJob[tp.Any](submission) for submission in self.submissions]
        return [job for job in jobs if not job.paths.result_pickle.exists()]

    def send(self) -> list[Submission]:
        """Send what there is room for, with the claims; returns the new ones."""
        sent = [s for s in backends.submit(self.cluster, self.request) if s is not None]
        for claim, submission in zip(self.left, sent, strict=False):
            transfer_to(claim, submission)
        self.left = self.left[len(sent) :]
        self.request = arrays.rest_of(self.request, len(sent))
        self.submissions += sent
        return sent

    def again(self, number: int, job: CallJob[tp.Any]) -> "CallJob[tp.Any] | bool":
        """Submit again what a job ran that was lost; False where it is not to be, or there is no room.

        True where others compute it by now: then there is nothing to wait for here.
        """
        from ..claims import Claims

        policy, lost = losses.Policy.of(self.whole.resources), self.lost.setdefault(number, [])
        kind, call = job.loss(policy), self.calls[number]
        if kind is None or not policy.tries_again(kind, lost):
            return False
        lost.append(losses.attempt(kind, "", job.job_id, lost=time.time()))
        logger.info(
            "%s was lost (%s): attempt %d of up to %d follows",
            *(job.label(), kind, len(lost) + 1, policy.retries + 1),
        )
        claim, held = Claims(call.folder).acquire(call.keys)
        if claim is None or held:
            if claim is not None:
                claim.release()
            return True
        try:
            request, not_before = arrays.next_request(self.whole, lost, self.cluster)
            request.calls = [dataclasses.replace(call, token=claim.token, not_before=not_before)]
            request.tag = announce([claim], self.cluster, request)
            (submission,) = backends.submit(self.cluster, request)
        except BaseException:
            claim.release()
            raise
        if submission is None:
            claim.release()
            return False
        transfer_to(claim, submission)
        self.submissions.append(submission)
        return CallJob(submission)


_waited_for: dict[int, _Sending] = {}  # by thread, the jobs that it waits for


def say_jobs_go_on(threads: tp.Iterable[threading.Thread]) -> None:
    """Say, when this thread is interrupted, that the jobs which other threads wait for on its behalf go on."""
    waited_for = [_waited_for.get(thread.ident or 0) for thread in threads]
    say_they_go_on([job for sending in waited_for if sending is not None for job in sending.unfinished()])


def _wait_for(
    sending: _Sending,
    keys: tp.Sequence[list[str]],
    progress: Progress,
    computed: tp.Callable[[list[str]], None] | None,
    nested: "chain.Waiting",
) -> dict[int, Exception]:
    """Wait until all jobs ended, in whatever order, and send those that there was no room for; errors by job."""
    waiting: dict[int, CallJob[tp.Any]] = {k: CallJob(s) for k, s in enumerate(sending.submissions)}
    errors: dict[int, Exception] = {}
    poller, tried = Poller(), 0.0
    while waiting or sending.left:
        nested.look(poller.waited)
        if sending.left and poller.waited - tried > _ROOM_EVERY:
            tried, first = poller.waited, len(sending.calls) - len(sending.left)
            waiting.update((first + k, CallJob(s)) for k, s in enumerate(sending.send()))
        if not waiting:
            poller.pause(at_least=_OTHERS_EVERY)
            continue
        ended = _ended(waiting)
        if poller.is_time_once("to tell", after=SAY_WHY):
            logger.info(
                "Still waiting for %d job(s): %s", len(waiting), next(iter(waiting.values())).describe()
            )
        for k in sorted(ended):
            job = waiting.pop(k)
            later = sending.again(k, job)
            if isinstance(later, CallJob):
                waiting[k] = later
                continue
            if later:
                continue
            try:
                left = job.result() or ()
                if computed is not None:
                    computed([key for key in keys[k] if key not in left])
            except Exception as e:
                errors[k] = e
                e.add_note(
                    f"Raised by {job.label()}, which was given {len(keys[k])} item(s), from {keys[k][0]!r} "
                    f"to {keys[k][-1]!r}. Results computed before it are kept: ask again to compute the rest."
                )
                logger.warning("%s failed: %s", job.label(), e)
            progress(len(keys[k]))
    return errors


def _ended(waiting: dict[int, CallJob[tp.Any]]) -> set[int]:
    """Numbers of the jobs that ended, after waiting a little for one of them."""
    first = next(iter(waiting))
    done = waiting[first].wait(timeout=_OTHERS_EVERY) or waiting[first].done()
    ended = {first} if done else set()
    return ended | {k for k, job in waiting.items() if job.paths.result_pickle.exists()}
