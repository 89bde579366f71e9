"""What computes the results of a folder now, by the claims on them: of maps, and of the stages of pipelines."""

import typing as tp
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..jobs import backends
from ..jobs.backends import Submission
from ..jobs.job import CallJob
from .reports import Progress

if tp.TYPE_CHECKING:
    from .._clusters import JobState
    from ..claims import Holder


def submission_of(holder: "Holder", logs: str) -> Submission:
    """The job behind a claim; `logs` are those of its folder, where the claim does not tell."""
    owner = holder.owner
    pid = owner.process.pid if owner.cluster == "local" and owner.process is not None else None
    return Submission(
        owner.cluster, holder.job_id or "", owner.folder or logs, pid=pid, trusted=holder.trusted
    )


def holders_in(folders: Iterable[Path], keys: Sequence[str] | None = None) -> "dict[str, Holder]":
    """The living holders of keys in folders, by key."""
    from ..claims import Claims

    found: dict[str, Holder] = {}
    for folder in folders:
        if folder.is_dir():
            found.update(Claims(folder).holders(keys))
    alive = {token: holder.alive() for token, holder in {h.token: h for h in found.values()}.items()}
    return {key: holder for key, holder in found.items() if alive[holder.token]}


def jobs_of(holders: "Iterable[Holder]", logs: str) -> list[CallJob[tp.Any]]:
    """The jobs behind claims, each of them once."""
    of_jobs = (submission_of(holder, logs) for holder in holders if holder.owner.kind == "job")
    return [CallJob(submission) for submission in dict.fromkeys(of_jobs)]


def progress_of(
    keys: Sequence[str],
    holders: "dict[str, Holder]",
    missing: Callable[[Sequence[str]], list[str]],
    *,
    failed: int = 0,
) -> Progress:
    """How far the computation of some keys is, of which so many have an error."""
    absent = missing(keys)
    pending = _pending(holders[key] for key in absent if key in holders)
    waiting = sum(key in holders and holders[key].token in pending for key in absent)
    running = sum(key in holders for key in absent) - waiting
    return Progress(len(keys), len(keys) - len(absent) - failed, failed, running, waiting)


def _pending(holders: "Iterable[Holder]") -> set[str]:
    """Tokens of the claims whose jobs wait in a queue, by one question to each backend."""
    of_cluster: dict[str | None, dict[str, Submission]] = {}
    for holder in holders:
        if holder.owner.kind == "job":
            submission = submission_of(holder, "")
            of_cluster.setdefault(submission.cluster, {})[holder.token] = submission
    pending: set[str] = set()
    for jobs in of_cluster.values():
        some = list(jobs.values())
        states: list[JobState] = backends.of_job(some[0]).states(some)
        pending.update(token for token, state in zip(jobs, states, strict=True) if state.state == "PENDING")
    return pending
