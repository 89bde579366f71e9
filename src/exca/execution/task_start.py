"""Starting tasks: claimed first, then computed here or sent to jobs that own what they were given."""

import logging
import os
import typing as tp
from pathlib import Path

import orjson

from .. import _files, _trust
from ..errors import OddFileError, UntrustedFileError
from ..identity import check_secrets
from ..jobs import backends
from ..jobs.job import Job
from ..jobs.paths import JobPaths, fixed_folder
from ..jobs.submission import Submission
from . import once, record
from .record import KEY
from .requests import link_code, link_logs, request_for
from .task_call import TaskCall, compute
from .task_job import DoneTask, TaskJob

if tp.TYPE_CHECKING:
    from ..claims import Claim
    from ..claims.claimfile import Announcement
    from ..task import TaskInfra

logger = logging.getLogger("exca")
SUBMISSION = "submission.json"
UNSENT = "unsent.json"  # see `unsent`


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
    except FileNotFoundError:
        return None
    except (OddFileError, UntrustedFileError, ValueError, TypeError) as e:
        _trust.skip(f"{folder}/{SUBMISSION}", e)
        return None


def read_attempt(folder: Path) -> str:
    """Token of the attempt for which a job was last submitted; empty where there is none."""
    try:
        return str(orjson.loads(_files.read_file(f"{folder}/{SUBMISSION}"))["attempt"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def find_announced(announced: "Announcement", logs: str) -> Submission | None:
    """Find the job of a submission whose submitter died before it could say which it is.

    Parameters
    ----------
    announced: Announcement
        what was about to be submitted
    logs: str
        folder of a job's logs, with ``%j`` for its id
    """
    return backends.get(announced.cluster).tagged(announced.tag, announced.task, logs)


def start(
    infras: "list[TaskInfra]", through: "TaskInfra", max_workers: int = 256, *, listed: bool = False
) -> list[Job[tp.Any]]:
    """Claim tasks and compute or submit those that no other process computes.

    Parameters
    ----------
    infras: list of TaskInfra
        tasks without an outcome
    through: TaskInfra
        infra whose cluster, resources and mode are used
    max_workers: int
        how many jobs may run at once
    listed: bool
        whether those that there is no room for are on the list of them already
    """
    for infra in infras:
        check_secrets(infra._obj)
    cluster = through.resolved_cluster()
    if cluster is None:
        return _compute_here(infras, through.mode)
    logs = fixed_folder(str(through._logs_folder()))
    if not listed and os.access(logs / UNSENT, os.F_OK):
        from . import unsent

        unsent.send(logs)  # those that wait already come first
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
            jobs.update(_submit_groups(claimed, through, cluster, max_workers))
        left = [one for one in claimed if one.number not in jobs]
    except BaseException:
        for one in claimed:
            one.claim.release()
        raise
    if left:
        from . import unsent

        for one in left:
            one.claim.release()
        if not listed:
            unsent.add(logs, [one.infra for one in left], through, max_workers)
        jobs.update((one.number, unsent.UnsentJob(one.infra, logs, cluster)) for one in left)
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


def _submit_groups(
    claimed: list[_Claimed], through: "TaskInfra", cluster: str, max_workers: int
) -> dict[int, Job[tp.Any]]:
    """Submit claimed tasks, one array for each distinct set of resources; returns the jobs of those that were sent."""
    from ..jobs import arrays

    groups = arrays.by_resources([one.infra for one in claimed], through)
    jobs: dict[int, Job[tp.Any]] = {}
    workers = arrays.shares(max_workers, [len(members) for _, members in groups])
    workdir: Path | None = None
    submissions: list[Submission | None] = []
    for (resources, members), most in zip(groups, workers, strict=True):
        part = [claimed[m] for m in members]
        only = part[0].infra if len(part) == 1 else None  # jobs of an array share a name
        name = resources.job_name or (only._title(only.uid()) if only else through._title(through._factory()))
        request = request_for(through, [], max_workers=most, name=name, workdir=workdir)
        workdir = request.workdir  # one copy for all
        request.resources = resources
        sent = _submit(part, request, cluster)
        submissions += sent
        for one, submission in zip(part, sent, strict=True):
            if submission is not None:
                jobs[one.number] = _transferred(one, submission, request)
    arrays.report(submissions, through._factory(), cluster)
    return jobs


def _compute_here(infras: "list[TaskInfra]", mode: str) -> list[Job[tp.Any]]:
    """Compute tasks in this thread, but for those that another process is at."""
    return [_compute_one(infra, mode) for infra in infras]


def _compute_one(infra: "TaskInfra", mode: str) -> Job[tp.Any]:
    """Compute a task unless another process is at it."""
    claim = _claim_with_folder(infra)
    folder = tp.cast(Path, infra.uid_folder())
    if claim is None:
        claim, job = _claim_or_job(infra, mode)
        if claim is None:
            return tp.cast(Job[tp.Any], job)
    try:
        value = compute(infra, folder, claim, {})
        infra._state.forced.add(KEY)
    except Exception as e:
        infra._state.forced.add(KEY)
        kept = record.read(folder)
        if kept is not None and kept.state == "failed":
            e.add_note(infra._hint())
        return DoneTask(folder, None, e)
    finally:
        claim.release()
    return DoneTask(folder, value)


def _claim_with_folder(infra: "TaskInfra") -> "Claim | None":
    """Make the folder of a task with a claim in it; None where there is such a folder already."""
    from ..claims import FirstClaim

    first = FirstClaim(tp.cast(Path, infra.uid_folder()), [KEY])
    infra._settle(create=True, first_claim=first)
    return first.claim


def _submit(claimed: list[_Claimed], request: "backends.Request", cluster: str) -> list[Submission | None]:
    """Submit claimed tasks with the same resources."""
    for one in claimed:
        one.infra._require_unchanged()  # what is pickled now is what its folder is named after
    request.calls = [
        TaskCall(
            c.infra._obj,
            c.infra._infra_name,
            c.claim.folder,
            c.claim.token,
            request.logs,
            replaces=c.replaces,
        )
        for c in claimed
    ]
    for k, one in enumerate(claimed):
        many = len(claimed) > 1
        request.tag = one.claim.announce(cluster, tag=request.tag or None, task=k if many else None)
    return backends.submit(cluster, request)


def _transferred(one: _Claimed, submission: Submission, request: "backends.Request") -> Job[tp.Any]:
    """Make a job the owner of its task, and note which job it is."""
    infra, claim = one.infra, one.claim
    note = orjson.dumps({**submission.to_json(), "attempt": claim.token, "replaces": one.replaces})
    _files.write_atomically(claim.folder / SUBMISSION, note, mode=_files.OWN)
    if submission.cluster != "debug":
        once.transfer_to(claim, submission)
    link_code(claim.folder, request.workdir)
    link_logs(claim.folder, JobPaths(submission.logs, submission.job_id).folder)
    job: TaskJob[tp.Any] = TaskJob(claim.folder, submission, claim.token, infra._hint(), one.replaces)
    infra._state.job = job  # first: who sees that it was forced waits for it
    infra._state.forced.add(KEY)
    return job
