"""How a claim is won: the order of steps, and why two owners are impossible.

There is no lock, hence no stale lock: every claimant makes a file of its own, under a name that is never
used again.

**What the file system must do.** (a) Renaming a whole draft to its name shows the file at once and whole.
(b) A process that lists the folder after making a file there sees every file that was there before, and still is. (c)
A process that opens a file sees what was written by those that closed it before. (d) Unlinking is final: names are
never used again. Local file systems do all that. NFS does (a) and (d) on the server; (b) since creating or
renaming makes the client's cached listing of that directory invalid, so that the listing after it comes
from the server; (c) by close-to-open consistency, which is why everything here opens before it reads and
closes after it writes. Directory mtimes, file locks and clocks are not relied on.

**Claiming.** 1. Make the file, in state *asked*. 2. List the folder, read all others. 3. Remove those of
dead owners. 4. Drop the keys that others hold. 5. Write *owned* (or a file with fewer keys over it), or
remove the file. Of two claimants A and B of one key let A's file appear first. Then B's listing shows A's
file (b), unless A has released it. B sees A *owned*: B drops the key. B sees A *asked*: both may see each
other, and the random part of the token decides: if A's is greater, B drops the key. If B's is greater, B
waits until A has decided, and reads A again: A may have listed before B's file appeared and own the key by
now; then B drops it. If A does not decide (it is slow, or stopped in the middle) B gives way after
``PATIENCE``. Giving way is always right; at worst neither gets the key, both wait for the other to go, and
ask anew. What B reads may be old on NFS: *asked* instead of *owned*, or more keys than there are now: both
make B more careful, not less.

**Death.** A file whose owner is dead is ignored and removed. Two that find the same dead owner need no
agreement on that: they settle it between themselves by the files that they have made. A crash at any step
leaves a file of a dead owner, or a draft; both are swept by the next claimant.

**Succession.** A claim that changes (announced, handed over, split, adopted) never rewrites its file, which
would bring back one that was removed meanwhile. It makes the next file *asked* (1), lists (2), waits until
all others that ask for some of its keys have decided, opens the old file, and only if that is still there writes
*owned* and removes the old. A rival R who thinks the old owner dead removes the old file before it writes *owned* (3
before 5). If R's listing came before our new file, then R's file was there when we listed: we waited for R
to decide, and found the old file gone. If it came after, R sees the new file, whose owner lives. At every
moment one of the two files is there. When two succeed at once (the submitter transfers while the job
adopts), both belong to one claim: the one that finds the old file gone succeeds the other, or leaves it.

**Where that ends.** It rests on liveness: a living owner is never thought dead by its own host (pid, start
time, boot) nor by the backend of a job, nor by another host as long as its heartbeat process's beats come
through. A host that is cut off from the file system or frozen as a whole for longer than ``MISSED`` beats is thought
dead by others. It is harmless then: before publishing it asks ``Claim.is_valid`` (its file was removed, and
never comes back); between that and the publication is no more than a rename, which is atomic, and whose
last writer wins with the result of the same computation.
"""

import time
import typing as tp
from collections.abc import Collection, Container, Iterable

from .. import _clusters
from .claimfile import (
    Announcement,
    ClaimEntry,
    ClaimFolder,
    dump_json,
    revision_of,
    token_of,
)
from .owner import Process, heart, observer

PATIENCE = 0.05  # seconds for a rival who asks at the same time to decide; then it counts as the holder
LONG_PATIENCE = 5.0  # the same, where nothing but waiting can be done
PAUSE = 0.0005
SWEEP = 60.0  # seconds between two looks whether the owner of another process's keys is dead
GRACE = 2.5  # seconds for a submission to come through whose submitter died in the middle of it
MAX_REMEMBERED = 10_000
_judged: dict[str, float] = {}
_first_seen_dead: dict[str, float] = {}


# ---------------------------------------------------------------- claiming


class Contest(tp.NamedTuple):
    """What came of asking: by lost key the entry that holds it, and the entries that are about other keys."""

    lost: dict[str, ClaimEntry]
    others: list[ClaimEntry]


def contest(files: ClaimFolder, mine: ClaimEntry, keys: Collection[str], exempt: frozenset[str]) -> Contest:
    """Find out which keys others hold, after our own file was placed; `exempt` are the tokens that we succeed."""
    lost: dict[str, ClaimEntry] = {}
    others: list[ClaimEntry] = []
    settled = {mine.name}
    deadline = time.monotonic() + PATIENCE
    wanted = keys if len(keys) == 1 else frozenset(keys)
    while True:
        pending: list[tuple[ClaimEntry, Collection[str]]] = []
        names, drafts = files.listing()
        sweep_drafts(files, drafts)
        found = [files.read(n) for n in names if n not in settled and token_of(n) not in exempt]
        rivals = [(e, shared(e, wanted)) for e in found if e is not None]
        ask_together(e for e, overlap in rivals if overlap)
        for entry, overlap in rivals:
            if not overlap:
                others.append(entry)
                settled.add(entry.name)  # the keys of a file never grow
            elif not alive(files, entry):
                files.remove(entry.name)  # before we decide: see "Succession" in the argument
                settled.add(entry.name)
            elif entry.owned or (entry.rank, entry.name) > (mine.rank, mine.name):
                lost.update(dict.fromkeys(overlap, entry))
                settled.add(entry.name)
            else:
                pending.append((entry, overlap))
        if not pending or time.monotonic() > deadline:
            for entry, overlap in pending:
                lost.update(dict.fromkeys(overlap, entry))
            return Contest(lost, others)
        time.sleep(PAUSE)


def take(
    files: ClaimFolder, entry: ClaimEntry, keys: tuple[str, ...], lost: Collection[str]
) -> tuple[ClaimEntry, tuple[str, ...]] | None:
    """Decide: own the keys that are not lost; None when none is left, or our file is gone."""
    if not lost:
        if files.decide(entry.name):
            return entry, keys
    else:
        keys = tuple(k for k in keys if k not in lost)
        if keys and files.exists(entry.name):
            entry = entry._replace(owned=True, body=dump_json(keys))
            files.replace(entry)  # over the file that asks: there is one at any moment
            return entry, keys
    files.drop(entry.name)
    return None


# ---------------------------------------------------------------- succession


def succeed(files: ClaimFolder, old: ClaimEntry, entries: list[ClaimEntry]) -> bool:
    """Replace a decided file by new ones, see "Succession" above; False when it was taken over."""
    names = [e.name for e in entries]
    succeeded = False
    try:
        for entry in entries:
            files.place(entry._replace(owned=False))
        ours = frozenset(e.token for e in entries) | {old.token}
        others_decided(files, old.keys or (), ours, known=_OwnFiles(files))
        succeeded = files.exists(old.name)
    finally:
        if not succeeded:
            for name in names:
                files.drop(name)
    if succeeded:
        for name in names:
            files.decide(name)
        files.drop(old.name)
    return succeeded


class _OwnFiles:
    """The claim files that this process holds: a container of names."""

    def __init__(self, files: ClaimFolder) -> None:
        self._claim_files = files

    def __contains__(self, name: object) -> bool:
        return self._claim_files.path(str(name)) in heart.watched


def others_decided(
    files: ClaimFolder, keys: Iterable[str], exempt: frozenset[str], known: Container[str] = ()
) -> bool:
    """Wait until all others that ask for some of the keys right now have decided; False when one does not.

    Two successions of different keys must not wait for each other. Neither tokens of `exempt` are waited for, which are
    ours, nor files whose names are `known` to be decided.
    """
    settled: set[str] = set()
    wanted: frozenset[str] | None = None
    deadline = time.monotonic() + LONG_PATIENCE
    while True:
        asking = False
        for name in files.names():
            if name in settled or name in known or token_of(name) in exempt:
                continue
            entry = files.read(name)
            if entry is not None and not entry.owned:
                wanted = frozenset(keys) if wanted is None else wanted
                if shared(entry, wanted) and alive(files, entry):
                    asking = True
                    continue
            settled.add(name)
        if not asking or time.monotonic() > deadline:
            return not asking
        time.sleep(PAUSE)


def latest(files: ClaimFolder, token: str) -> ClaimEntry | None:
    """The newest revision of a claim, a decided one if there is one; what another user wrote is none."""
    before: list[str] = []
    while names := sorted([n for n in files.names() if token_of(n) == token], key=revision_of, reverse=True):
        entries = [e for e in map(files.read, names) if e is not None and e.trusted]
        if entries:
            return next((e for e in entries if e.owned), entries[0])
        if names == before:  # they are there, and no claims
            return None
        before = names
        # what was listed has gone since: released, or succeeded by a file that is there now
        time.sleep(PAUSE)
    return None


# ---------------------------------------------------------------- looking


def look(files: ClaimFolder, names: Iterable[str] | None = None) -> list[ClaimEntry]:
    """All claims there are now (or the named ones); jobs among them are asked about together."""
    names = files.names() if names is None else names
    entries = [e for e in map(files.read, names) if e is not None]
    ask_together(entries)
    return entries


def ask_together(entries: Iterable[ClaimEntry]) -> None:
    """Ask each backend once about all of its jobs: each entry's own question is then answered from memory."""
    owners = [e.owner for e in entries if e.owner is not None and e.owner.scheduled and e.owner.job_id]
    if len(owners) > 1:
        _clusters.states(owner.submission for owner in owners)


def shared(entry: ClaimEntry, wanted: Collection[str]) -> Collection[str]:
    """The wanted keys that the entry is about: all of them when its keys cannot be read."""
    if entry.keys is None:
        return wanted
    if len(wanted) == 1:
        return wanted if next(iter(wanted)) in entry.keys else ()
    return [k for k in entry.keys if k in wanted]


def sweep_drafts(files: ClaimFolder, drafts: Iterable[str]) -> int:
    """Remove unfinished files of dead makers, return how many; a live maker whose draft goes makes another."""
    dead = [d for d in drafts if not alive(files, ClaimEntry(d, None, 0.0, 5.0, owned=False))]
    for draft in dead:
        files.remove(draft)
    return len(dead)


def sweep(files: ClaimFolder, entries: Iterable[ClaimEntry]) -> int:
    """Remove the claims of the dead among these, return how many; looked at now and then only."""
    now, due = time.monotonic(), []
    for entry in entries:
        path = files.path(entry.name)
        if now - _judged.get(path, -SWEEP) >= SWEEP:
            _judged[path] = now
            due.append(entry)
    if len(_judged) > MAX_REMEMBERED:
        _judged.clear()
    ask_together(due)
    dead = [e for e in due if not alive(files, e)]
    for entry in dead:
        files.remove(entry.name)
    return len(dead)


# ---------------------------------------------------------------- dead or alive


def alive(files: ClaimFolder, entry: ClaimEntry) -> bool:
    """Whether the owner of a claim lives: never "dead" of a live one, however slow or stopped.

    A job lives when it does for its backend, or the worker does; a process when it does; and a submission that was
    under way when its submitter died lives when the backend knows a job with its tag.
    """
    owner = entry.owner
    if entry.private:
        return True  # what cannot be read is left alone
    if _given_up(files, entry):
        return False
    if owner is None:
        return _process_lives(files, entry, entry.maker())
    if owner.scheduled and owner.job_id is not None:
        backend = _clusters.asked(owner.cluster or "")
        (state,) = backend.states([owner.submission])
        if state.alive is None and owner.cluster == "local":
            return _process_lives(files, entry, None)  # its files are gone, and nothing beats for it
        if state.alive or (state.alive is None and (backend.decides or owner.process is None)):
            return True  # a backend that cannot be asked may be about to requeue the job
        if owner.process is None or owner.thread is None:
            return False  # it has not begun, so there is no worker
        if state.ended:
            return bool(owner.process.alive())
    if _process_lives(files, entry, owner.process):
        return True
    return entry.announced is not None and _submitted(files.path(entry.name), entry.announced)


def _given_up(files: ClaimFolder, entry: ClaimEntry) -> bool:
    """Whether this process made the file and holds it no more: it could not be removed when it was released.

    A file that is gone was succeeded or released after the caller had listed it: a successor may hold its keys.
    """
    me, owner = Process.current(), entry.owner
    if owner is None or owner.kind != "process" or owner.process != me or entry.name in heart.held:
        return False
    return entry.maker_is(me) and files.exists(entry.name)


def _process_lives(files: ClaimFolder, entry: ClaimEntry, process: Process | None) -> bool:
    """On its own host a process is looked at; elsewhere its heartbeat is."""
    lives = None if process is None else process.alive()
    if lives is not None:
        return lives
    path = files.path(entry.name)
    return not observer.still(path, files.beat(entry.name), entry.every)


def _submitted(path: str, announced: Announcement) -> bool:
    """Whether the announced job exists: not at the first look, since the submit command may outlive its caller."""
    now = time.monotonic()
    if len(_first_seen_dead) > MAX_REMEMBERED:
        _first_seen_dead.clear()  # forgetting only delays
    late = _first_seen_dead.setdefault(path, now) + GRACE
    if now < late:
        return True
    if announced.cluster == "local":
        return False  # its worker would have adopted the claim by now; if it comes later, it finds out that it lost it
    backend = _clusters.asked(announced.cluster)
    try:
        job = backend.tagged(announced.tag, announced.task, announced.logs or "", not_before=late)
    except OSError:
        return True  # one that cannot be asked about is not robbed
    return job is not None and backend.states([job])[0].alive is not False
