"""Starting tasks: claimed first, then computed here or sent to jobs that own what they were given."""

import logging
import typing as tp
from pathlib import Path

import orjson

from .. import _files, _trust
from ..identity import check_secrets
from . import backends, once, record
from .job import DoneJob, Job, TaskJob
from .paths import JobPaths
from .requests import link_code, link_logs, request_for
from .submission import Submission
from .task_call import KEY, TaskCall, compute

if tp.TYPE_CHECKING:
    from ..claims import Claim
    from ..task import TaskInfra

logger = logging.getLogger("exca")
SUBMISSION = "submission.json"


def read_submission(folder: Path) -> Submission | None:
    """Read which job was last submitted for a uid folder.

    Parameters
    ----------
    folder: Path
        uid folder
    """
    try:
        data, status = _files.read_judged(f"{folder}/{SUBMISSION}")
        return Submission.from_json(orjson.loads(data), trusted=_trust.is_trusted(status))
    except (FileNotFoundError, ValueError):
        return None


def start(infras: "list[TaskInfra]", through: "TaskInfra", max_workers: int = 256) -> list[Job[tp.Any]]:
    """Claim tasks and compute or submit those that nobody else computes.

    Parameters
    ----------
    infras: list of TaskInfra
        tasks without an outcome
    through: TaskInfra
        infra whose cluster, resources and mode are used
    max_workers: int
        how many jobs may run at once
    """
    for infra in infras:
        check_secrets(infra._obj)
    cluster = through.resolved_cluster()
    if cluster is None:
        return _compute_here(infras, through.mode)
    jobs: dict[int, Job[tp.Any]] = {}
    claimed: list[_Claimed] = []
    try:
        for k, infra in enumerate(infras):
            infra.uid_folder(create=True)
            claim, job = _claim_or_job(infra, through.mode)
            if claim is None:
                jobs[k] = tp.cast(Job[tp.Any], job)
            else:
                before = record.latest(claim.folder)
                claimed.append(_Claimed(k, infra, claim, None if before is None else before.attempt))
        if claimed:
            sent = _submit(claimed, through, cluster, max_workers)
            jobs.update(zip((c.number for c in claimed), sent, strict=True))
    except BaseException:
        for one in claimed:
            one.claim.release()
        raise
    return [jobs[k] for k in range(len(infras))]


class _Claimed(tp.NamedTuple):
    """A task to be submitted."""

    number: int
    infra: "TaskInfra"
    claim: "Claim"
    replaces: str | None  # the attempt whose outcome is there


def _claim_or_job(infra: "TaskInfra", mode: str) -> "tuple[Claim | None, Job[tp.Any] | None]":
    """The claim on a task, or the job that computes it or has left an outcome."""
    from ..claims import Claims

    folder = tp.cast(Path, infra.uid_folder())
    while True:
        claim, _ = Claims(folder).acquire([KEY])
        if claim is None:
            running = infra._running_job(mode)
            if running is not None:
                return None, running
            continue  # it has ended this moment
        found = infra._usable_record(mode)
        if found is None:
            return claim, None
        claim.release()
        return None, infra._job_of_record(found)


def _compute_here(infras: "list[TaskInfra]", mode: str) -> list[Job[tp.Any]]:
    """Compute tasks in this thread, but for those that somebody else is at."""
    jobs: list[Job[tp.Any]] = []
    spare: Claim | None = None
    for infra in infras:
        job, spare = _compute_one(infra, mode, spare)
        jobs.append(job)
    if spare is not None:
        spare.release()
    return jobs


def _compute_one(infra: "TaskInfra", mode: str, spare: "Claim | None") -> "tuple[Job[tp.Any], Claim | None]":
    """Compute a task unless somebody else is at it; returns its claim as well, if it is yet to be released.

    Parameters
    ----------
    infra: TaskInfra
        the task
    mode: str
        whether an outcome that is there counts
    spare: Claim, optional
        the claim on a task that is done, to be released now
    """
    try:
        claim = _claim_with_folder(infra, spare)
    finally:
        if spare is not None:
            spare.release()
    folder = tp.cast(Path, infra.uid_folder())
    if claim is None:
        claim, job = _claim_or_job(infra, mode)
        if claim is None:
            return tp.cast(Job[tp.Any], job), None
    try:
        value = compute(infra, folder, claim, {})
    except Exception as e:
        infra._state.forced.add(KEY)
        claim.release()
        kept = record.read(folder)
        if kept is not None and kept.state == "failed":
            e.add_note(infra._hint())
        return DoneJob(None, e, folder), None
    except BaseException:
        claim.release()
        raise
    infra._state.forced.add(KEY)
    return DoneJob(value, None, folder), claim


def _claim_with_folder(infra: "TaskInfra", spare: "Claim | None") -> "Claim | None":
    """Make the folder of a task with a claim in it; None where there is such a folder already."""
    from ..claims import FirstClaim

    folder = tp.cast(Path, infra.uid_folder())
    first = FirstClaim(folder, [KEY], spare)
    infra._settle(create=True, first_claim=first)
    return first.claim


def _submit(
    claimed: list[_Claimed], through: "TaskInfra", cluster: str, max_workers: int
) -> list[Job[tp.Any]]:
    """Submit claimed tasks and hand the claims over to their jobs."""
    logs = str(through._logs_folder())
    calls = [
        TaskCall(c.infra._obj, c.infra._infra_name, c.claim.folder, c.claim.token, logs, replaces=c.replaces)
        for c in claimed
    ]
    tag = ""
    for k, one in enumerate(claimed):
        tag = one.claim.announce(cluster, tag=tag or None, task=k if len(claimed) > 1 else None)
    only = claimed[0].infra if len(claimed) == 1 else None  # jobs of an array share a name
    name = through.job_name or (only._title(only.uid()) if only else through._title(through._factory()))
    request = request_for(through, list(calls), max_workers=max_workers, tag=tag, name=name)
    submissions = backends.submit(cluster, request)
    jobs: list[Job[tp.Any]] = []
    for (_, infra, claim, replaces), submission in zip(claimed, submissions, strict=True):
        folder = claim.folder
        note = orjson.dumps({**submission.to_json(), "attempt": claim.token, "replaces": replaces})
        _files.write_atomically(folder / SUBMISSION, note, mode=_files.OWN)
        if cluster != "debug":
            once.hand_over(claim, submission)
        link_code(folder, request.workdir)
        link_logs(folder, JobPaths(logs, submission.job_id).folder)
        job: TaskJob[tp.Any] = TaskJob(folder, submission, claim.token, infra._hint(), replaces)
        infra._state.job = job  # first: who sees that it was forced waits for it
        infra._state.forced.add(KEY)
        jobs.append(job)
    ids = (
        submissions[0].job_id
        if len(submissions) == 1
        else f"{submissions[0].job_id}...{submissions[-1].job_id}"
    )
    logger.info("Submitted %d job(s) for %s to %s: %s", len(jobs), through._factory(), cluster, ids)
    return jobs
