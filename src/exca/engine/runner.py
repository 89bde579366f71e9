"""Where shares of items are computed: in threads or processes of this machine, or in jobs.

Jobs are submitted as one array, each with its part of the claim; what there is no room for in the queue is sent as
room comes.
"""

import contextlib
import dataclasses
import threading
import typing as tp

from .._log import logger
from .._polling import Poller
from ..errors import ClaimLostError, SubmissionError
from ..jobs import arrays, backends, losses, parts
from ..jobs.backends import Submission
from ..jobs.job import SAY_WHY, CallJob, say_they_go_on
from ..jobs.paths import fixed_folder, part_of
from ..jobs.watching import Watch
from . import record
from .call import ItemsCall, PickledWorker, Worker
from .once import Advance

if tp.TYPE_CHECKING:
    from ..claims import Claim, chain

_ROOM_EVERY = 5.0  # seconds between two attempts to send jobs that there was no room for
_OWN_COMMENT = ("slurm", "local")  # find a job by its tag alone, so that where its logs are need not be noted
Shares = tp.Sequence[tuple[list[str], list[tp.Any]]]
MakeRequest = tp.Callable[[list[tp.Callable[[], tp.Any]], str], backends.Request]


def run_shares(
    cluster: str,
    worker: Worker,
    shares: Shares,
    claim: "Claim | tp.Sequence[Claim] | None",
    *,
    request: MakeRequest,
    progress: Advance,
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
    progress: Advance,
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
        shared = PickledWorker.write(worker, fixed_folder(draft.logs), draft.resources.max_pickle_size_gb)
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
    lost: dict[int, list[losses.Attempt]] = dataclasses.field(default_factory=dict)  # by number of the share
    # numbers of lost shares that are to be sent again
    back: list[int] = dataclasses.field(default_factory=list)

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

    def send_left(self) -> dict[int, CallJob[tp.Any]]:
        """Send those that there was no room for, or did not answer; returns the new jobs by number."""
        first = len(self.calls) - len(self.left)
        try:
            return {first + k: CallJob(submission) for k, submission in enumerate(self.send())}
        except SubmissionError as e:
            # after the latter, a job that came through has the same claim
            if not e.passing or isinstance(e, arrays.UnsureError):
                raise
            logger.warning("%s. It is tried again in a while", e)
            return {}

    def take_back(self, number: int, job: CallJob[tp.Any]) -> bool:
        """Whether what a job ran that has ended is to be sent again, since it was lost; then it is noted."""
        lost = self.lost.setdefault(number, [])
        found = attempts_lost(job, self.calls[number].token, losses.Policy.of(self.whole.resources), lost)
        if found:
            lost += found
            self.back.append(number)
        return bool(found)

    def send_back(self, errors: dict[int, Exception]) -> dict[int, CallJob[tp.Any]]:
        """Send again what was lost, as far as there is room; returns the new jobs by number.

        Those that ask for the same are sent together. What others hold by now is left to them, and the error of what is
        refused is added to those given.
        """
        groups: list[tuple[backends.Request, float, list[int]]] = []
        for number in self.back:
            request, start = arrays.next_request(self.whole, self.lost[number], self.cluster)
            group = next((g for g in groups if g[0].resources == request.resources), None)
            if group is None:
                groups.append((request, start, [number]))
            else:
                group[2].append(number)
        jobs: dict[int, CallJob[tp.Any]] = {}
        for request, start, numbers in groups:
            try:
                jobs.update(self._send_group(request, start, numbers))
            except SubmissionError as e:
                # a job that came through all the same finds its claim gone, and computes nothing
                if e.passing:
                    logger.warning("%s. It is tried again in a while", e)
                    continue
                errors.update(dict.fromkeys(numbers, e))
                self.back = [number for number in self.back if number not in numbers]
        return jobs

    def _send_group(
        self, request: backends.Request, start: float, numbers: list[int]
    ) -> dict[int, CallJob[tp.Any]]:
        from ..claims import Claims

        with contextlib.ExitStack() as held:  # what is not sent is free for others meanwhile
            claims: dict[int, Claim] = {}
            for number in numbers:
                call = self.calls[number]
                claim, others = Claims(call.folder).acquire(call.keys)
                if claim is not None:
                    held.callback(claim.release)
                if claim is None or others:
                    self.back.remove(number)
                else:
                    claims[number] = claim
            request.calls = [
                dataclasses.replace(self.calls[number], token=claim.token, not_before=start)
                for number, claim in claims.items()
            ]
            if not claims:
                return {}
            request.tag = announce(list(claims.values()), self.cluster, request)
            jobs: dict[int, CallJob[tp.Any]] = {}
            sent = backends.submit(self.cluster, request)
            for (number, claim), submission in zip(claims.items(), sent, strict=True):
                if submission is None:
                    continue
                transfer_to(claim, submission)
                self.submissions.append(submission)
                self.back.remove(number)
                jobs[number] = CallJob(submission)
                losses.note_beside(jobs[number].paths.folder, self.lost[number])
            return jobs


def attempts_lost(
    job: CallJob[tp.Any], token: str, policy: losses.Policy, before: tp.Sequence[losses.Attempt]
) -> list[losses.Attempt]:
    """The runs of a job that has ended, where it was lost and what it ran is to be tried again; else none.

    How a job was lost is noted beside its logs, since no record is kept of shares and calls.
    """
    loss = job.loss(policy)
    if loss is None:
        return []
    host, began = job.began_at()
    where = job.submission.to_json()
    started = None if began is None else record.iso(began)
    attempt = record.loss_of(loss.kind, loss.reason, token, where, host=host, started=started)
    if not loss.counts:
        attempt["counts"] = False
    found = [*record.requeues(job.paths.folder, token, where), attempt]
    losses.note_beside(job.paths.folder, [*before, *found])
    if loss.counts and not policy.tries_again(loss.kind, before):
        return []
    counted = losses.number_of([*before, attempt])
    logger.info(
        "%s was lost (%s): attempt %d of up to %d follows",
        *(job.label(), loss.kind, counted + 1, policy.retries + 1),
    )
    return found


_waited_for: dict[int, _Sending] = {}  # by thread, the jobs that it waits for


def say_jobs_go_on(threads: tp.Iterable[threading.Thread]) -> None:
    """Say, when this thread is interrupted, that the jobs which other threads wait for on its behalf go on."""
    waited_for = [_waited_for.get(thread.ident or 0) for thread in threads]
    say_they_go_on([job for sending in waited_for if sending is not None for job in sending.unfinished()])


def _wait_for(
    sending: _Sending,
    keys: tp.Sequence[list[str]],
    progress: Advance,
    computed: tp.Callable[[list[str]], None] | None,
    nested: "chain.Waiting",
) -> dict[int, Exception]:
    """Wait until all jobs ended, in whatever order, and send those that there was no room for; errors by job."""
    watch = _Watched({k: CallJob(s) for k, s in enumerate(sending.submissions)})
    errors: dict[int, Exception] = {}
    poller, tried = Poller(), 0.0
    while watch.jobs or sending.left or sending.back:
        nested.look(poller.waited)
        if (sending.left or sending.back) and poller.waited - tried > _ROOM_EVERY:
            tried = poller.waited
            if sending.left:
                watch.add(sending.send_left())
            watch.add(sending.send_back(errors))
        ended = watch.ended()
        lost = [k for k, job in ended.items() if sending.take_back(k, job)]
        if lost:
            watch.add(sending.send_back(errors))
        for k in sorted(ended.keys() - set(lost)):
            error = _finish(ended[k], keys[k], sending.lost[k], computed)
            if error is not None:
                errors[k] = error
            progress(len(keys[k]))
        if watch.jobs and poller.is_time_once("to tell", after=SAY_WHY):
            logger.info(
                "Still waiting for %d job(s): %s", len(watch.jobs), next(iter(watch.jobs.values())).describe()
            )
        if ended:
            poller.restart()
        else:
            poller.pause()
    return errors


class _Watched:
    """Jobs by the number of their share, of which it is looked which have ended."""

    def __init__(self, jobs: tp.Mapping[int, CallJob[tp.Any]]) -> None:
        self.jobs: dict[int, CallJob[tp.Any]] = {}
        self._watch = Watch()
        self.add(jobs)

    def add(self, jobs: tp.Mapping[int, CallJob[tp.Any]]) -> None:
        """Look at some more."""
        self.jobs.update(jobs)
        for job in jobs.values():
            self._watch.add(job)

    def ended(self) -> dict[int, CallJob[tp.Any]]:
        """Look once; returns those that have ended, each of them once."""
        found = self._watch.look()
        for _, error in found:
            if error is not None:
                raise error
        done = {id(job) for job, _ in found}
        return {k: self.jobs.pop(k) for k, job in list(self.jobs.items()) if id(job) in done}


def _finish(
    job: CallJob[tp.Any],
    keys: list[str],
    lost: tp.Sequence[losses.Attempt],
    computed: tp.Callable[[list[str]], None] | None,
) -> Exception | None:
    """Tell which keys a job that has ended computed; returns its error, if it has one."""
    try:
        left = job.result() or ()
        if computed is not None:
            computed([key for key in keys if key not in left])
    except Exception as e:
        e.add_note(
            f"Raised by {job.label()}, which was given {len(keys)} item(s), from {keys[0]!r} to {keys[-1]!r}. "
            "Results computed before it are kept: ask again to compute the rest."
        )
        if lost:
            e.add_note(f"Attempts before it were lost: {losses.in_words(lost)}.")
        logger.warning("%s failed: %s", job.label(), e)
        return e
    return None
