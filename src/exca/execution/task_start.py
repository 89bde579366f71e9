"""Starting tasks: claimed first, then computed here or sent to jobs that own what they were given."""

import logging
import typing as tp
from pathlib import Path

import orjson

from .. import _files
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
        return Submission.from_json(orjson.loads(_files.read_file(f"{folder}/{SUBMISSION}")))
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
    from ..claims import Claims

    cluster = through.resolved_cluster()
    if cluster is None:
        return _compute_here(infras, through.mode)
    jobs: dict[int, Job[tp.Any]] = {}
    claimed: list[tuple[int, TaskInfra, Claim]] = []
    try:
        for k, infra in enumerate(infras):
            folder = tp.cast(Path, infra.uid_folder(create=True))
            claim, held = Claims(folder).acquire([KEY])
            found = infra._usable_record(through.mode)
            if claim is None:
                jobs[k] = infra._job_of(folder, held[KEY])
            elif found is not None:
                claim.release()
                jobs[k] = infra._job_of_record(found)
            else:
                claimed.append((k, infra, claim))
        if claimed:
            sent = _submit([c[1] for c in claimed], [c[2] for c in claimed], through, cluster, max_workers)
            jobs.update(zip((c[0] for c in claimed), sent, strict=True))
    except BaseException:
        for _, _, claim in claimed:
            claim.release()
        raise
    return [jobs[k] for k in range(len(infras))]


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
    from ..claims import Claims

    try:
        claim = _claim_with_folder(infra, spare)
    finally:
        if spare is not None:
            spare.release()
    folder = tp.cast(Path, infra.uid_folder())
    if claim is None:
        claim, held = Claims(folder).acquire([KEY])
        if claim is None:
            return infra._job_of(folder, held[KEY]), None
        found = infra._usable_record(mode)
        if found is not None:
            claim.release()
            return infra._job_of_record(found), None
    infra._state.forced.add(KEY)
    try:
        value = compute(infra, folder, claim, {})
    except Exception as e:
        claim.release()
        kept = record.read(folder)
        if kept is not None and kept.state == "failed":
            e.add_note(infra._hint())
        return DoneJob(None, e, folder), None
    except BaseException:
        claim.release()
        raise
    return DoneJob(value, None, folder), claim


def _claim_with_folder(infra: "TaskInfra", spare: "Claim | None") -> "Claim | None":
    """Make the folder of a task with a claim in it; None where there is such a folder already."""
    from ..claims import FirstClaim

    folder = tp.cast(Path, infra.uid_folder())
    first = FirstClaim(folder, [KEY], spare)
    infra._settle(create=True, first_claim=first)
    return first.claim


def _submit(
    infras: "list[TaskInfra]", claims: "list[Claim]", through: "TaskInfra", cluster: str, max_workers: int
) -> list[Job[tp.Any]]:
    """Submit claimed tasks and hand the claims over to their jobs."""
    logs = str(through._logs_folder())
    folders = [tp.cast(Path, infra.uid_folder()) for infra in infras]
    calls = [
        TaskCall(i._obj, i._infra_name, f, c.token, logs)
        for i, f, c in zip(infras, folders, claims, strict=True)
    ]
    tag = ""
    for k, claim in enumerate(claims):
        tag = claim.announce(cluster, tag=tag or None, task=k if len(claims) > 1 else None)
    only = infras[0] if len(infras) == 1 else None  # jobs of an array share a name
    name = through.job_name or (only._title(only.uid()) if only else through._title(through._factory()))
    request = request_for(through, list(calls), max_workers=max_workers, tag=tag, name=name)
    submissions = backends.submit(cluster, request)
    jobs: list[Job[tp.Any]] = []
    for infra, folder, claim, submission in zip(infras, folders, claims, submissions, strict=True):
        note = orjson.dumps({**submission.to_json(), "attempt": claim.token})
        _files.write_atomically(folder / SUBMISSION, note, mode=_files.OWN)
        if cluster != "debug":
            once.hand_over(claim, submission)
        link_code(folder, request.workdir)
        link_logs(folder, JobPaths(logs, submission.job_id).folder)
        infra._state.forced.add(KEY)
        jobs.append(TaskJob(folder, submission, claim.token, infra._hint()))
    ids = (
        submissions[0].job_id
        if len(submissions) == 1
        else f"{submissions[0].job_id}...{submissions[-1].job_id}"
    )
    logger.info("Submitted %d job(s) for %s to %s: %s", len(jobs), through._factory(), cluster, ids)
    return jobs
