"""Whether the owner of a claim lives: never "dead" of a live one, however slow or stopped."""

import time

from . import scheduler
from .claimfile import Announcement, ClaimFolder, Entry
from .heartbeat import heart, observer
from .owner import Process

GRACE = 2.5  # seconds for a submission to come through whose submitter died in the middle of it

_first_seen_dead: dict[str, float] = {}


def alive(files: ClaimFolder, entry: Entry) -> bool:
    """Whether somebody stands behind the claim.

    A job lives when the scheduler says so, or the worker does; a process when it does; and a submission that was
    under way when its submitter died lives when the scheduler knows a job with its tag.

    Parameters
    ----------
    files, entry
        the claim file
    """
    owner = entry.owner
    if entry.private:
        return True  # who may not know leaves it alone
    if _given_up(entry):
        return False
    if owner is None:
        return _process_lives(files, entry, entry.maker())
    if owner.scheduled and owner.job_id is not None:
        state = scheduler.job_states([owner.job_id])[owner.job_id]
        if state.alive or state.alive is None:
            return True  # a scheduler that cannot be asked may be about to requeue the job
        if owner.process is None:
            return False
        if state.ended:
            return bool(owner.process.alive())
    if _process_lives(files, entry, owner.process):
        return True
    return entry.announced is not None and _submitted(files.path(entry.name), entry.announced)


def _given_up(entry: Entry) -> bool:
    """Whether this process made the file and holds it no more: it could not be removed when it was released."""
    me, owner = Process.current(), entry.owner
    if owner is None or owner.kind != "process" or owner.process != me or entry.name in heart.held:
        return False
    return entry.maker_is(me)


def _process_lives(files: ClaimFolder, entry: Entry, process: Process | None) -> bool:
    """On its own host a process is looked at; elsewhere its heartbeat is."""
    lives = None if process is None else process.alive()
    if lives is not None:
        return lives
    path = files.path(entry.name)
    return not observer.still(path, files.beat(entry.name), entry.every)


def _submitted(path: str, announced: Announcement) -> bool:
    """Whether the announced job exists: the submit command may outlive who started it, so not at the first look."""
    now = time.monotonic()
    if len(_first_seen_dead) > 10_000:
        _first_seen_dead.clear()  # forgetting only delays
    late = _first_seen_dead.setdefault(path, now) + GRACE
    if now < late:
        return True
    if announced.cluster == "local":
        return False  # its worker would have adopted the claim by now; if it comes later, it is told that it lost it
    try:
        job_id = scheduler.tagged_job(announced.tag, announced.task, not_before=late)
    except OSError:
        return True  # who cannot be asked about is not robbed
    return job_id is not None and scheduler.job_states([job_id])[job_id].alive is not False
