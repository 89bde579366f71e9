"""How a claim is won: the order of steps, and why two owners are impossible.

There is no lock, hence no stale lock: every claimant makes a file of its own, under a name that nobody ever
uses again.

**What the file system must do.** (a) Renaming a whole draft to its name shows the file at once and whole.
(b) Who lists the folder after making a file there sees every file that was there before, and still is. (c)
Who opens a file sees what was written by those who closed it before. (d) Unlinking is final: names are
never used again. Local file systems do all that. NFS does (a) and (d) on the server; (b) since creating or
renaming makes the client's cached listing of that directory invalid, so that the listing after it comes
from the server; (c) by close-to-open consistency, which is why everything here opens before it reads and
closes after it writes. Directory mtimes, file locks and clocks are not relied on.

**Claiming.** 1. Make the file, in state *asked*. 2. List the folder, read all others. 3. Remove those of
dead owners. 4. Drop the keys that somebody holds. 5. Write *owned* (or a file with fewer keys over it), or
remove the file. Of two claimants A and B of one key let A's file appear first. Then B's listing shows A's
file (b), unless A has released it. B sees A *owned*: B drops the key. B sees A *asked*: both may see each
other, and the random part of the token decides: if A's is greater, B drops the key. If B's is greater, B
waits until A has decided, and reads A again: A may have listed before B's file appeared and own the key by
now; then B drops it. If A does not decide (it is slow, or stopped in the middle) B gives way after
``PATIENCE``. Giving way is always right; at worst nobody gets the key, both wait for the other to go, and
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
moment one of the two files stands. When two succeed at once (the submitter hands over while the job
adopts), both belong to one claim: the one that finds the old file gone succeeds the other, or leaves it.

**Where that ends.** It rests on liveness: a living owner is never thought dead by its own host (pid, start
time, boot) nor by the scheduler, nor by another host as long as its heartbeat process's beats come through. A host
that is cut off from the file system or frozen as a whole for longer than ``MISSED`` beats is thought dead
by others. It is harmless then: before publishing it asks ``Claim.is_valid`` (its file was removed, and
never comes back); between that and the publication lies no more than a rename, which is atomic, and whose
last writer wins with the result of the same computation.
"""

import time
import typing as tp

from . import scheduler
from .claimfile import ClaimFolder, Entry, revision_of, token_of
from .liveness import alive

PATIENCE = 0.05  # seconds for a rival who asks at the same time to decide; then it counts as the holder
LONG_PATIENCE = 5.0  # the same, where nothing but waiting can be done
PAUSE = 0.0005
SWEEP = 60.0  # seconds between two looks whether the owner of another process's keys is dead
MAX_JUDGED = 10_000
_judged: dict[str, float] = {}


def look(files: ClaimFolder, names: tp.Iterable[str] | None = None) -> list[Entry]:
    """All claims that stand now (or the named ones); jobs among them are asked about together."""
    names = files.names() if names is None else names
    entries = [e for e in map(files.read, names) if e is not None]
    ask_together(entries)
    return entries


def ask_together(entries: tp.Iterable[Entry]) -> None:
    """Ask the scheduler once about all jobs: each entry's own question is then answered from memory."""
    jobs = [e.owner.job_id for e in entries if e.owner is not None and e.owner.scheduled and e.owner.job_id]
    if len(jobs) > 1:
        scheduler.job_states(jobs)


class Contest(tp.NamedTuple):
    """What came of asking.

    Parameters
    ----------
    lost
        by key: the entry of who holds it
    others
        entries that are about other keys
    """

    lost: dict[str, Entry]
    others: list[Entry]


def contest(files: ClaimFolder, mine: Entry, keys: tp.Collection[str], exempt: frozenset[str]) -> Contest:
    """Find out which keys others hold, after our own file was placed.

    Parameters
    ----------
    files
        the folder's claim files
    mine
        our own entry, asked
    keys
        the keys it asks for
    exempt
        tokens whose claims we succeed
    """
    lost: dict[str, Entry] = {}
    others: list[Entry] = []
    settled = {mine.name}
    deadline = time.monotonic() + PATIENCE
    wanted = keys if len(keys) == 1 else frozenset(keys)
    while True:
        pending: list[tuple[Entry, tp.Collection[str]]] = []
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


def sweep_drafts(files: ClaimFolder, drafts: tp.Iterable[str]) -> int:
    """Remove unfinished files of dead makers, return how many; a live maker whose draft goes makes another."""
    dead = [d for d in drafts if not alive(files, Entry(d, None, 0.0, 5.0, owned=False))]
    for draft in dead:
        files.remove(draft)
    return len(dead)


def sweep(files: ClaimFolder, entries: tp.Iterable[Entry]) -> int:
    """Remove the claims of the dead among these, return how many; looked at now and then only."""
    now, due = time.monotonic(), []
    for entry in entries:
        path = files.path(entry.name)
        if now - _judged.get(path, -SWEEP) >= SWEEP:
            _judged[path] = now
            due.append(entry)
    if len(_judged) > MAX_JUDGED:
        _judged.clear()
    ask_together(due)
    dead = [e for e in due if not alive(files, e)]
    for entry in dead:
        files.remove(entry.name)
    return len(dead)


def shared(entry: Entry, wanted: tp.Collection[str]) -> tp.Collection[str]:
    """The wanted keys that the entry is about: all of them when its keys cannot be read."""
    if entry.keys is None:
        return wanted
    if len(wanted) == 1:
        return wanted if next(iter(wanted)) in entry.keys else ()
    return [k for k in entry.keys if k in wanted]


def others_decided(
    files: ClaimFolder, keys: tp.Iterable[str], exempt: frozenset[str], known: tp.Container[str] = ()
) -> bool:
    """Wait until everybody who asks for some keys right now has decided; False when somebody does not.

    Parameters
    ----------
    files
        the folder's claim files
    keys
        which ones: two successions of different keys must not wait for each other
    exempt
        tokens that are ours
    known
        names of files that are known to be decided
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


def latest(files: ClaimFolder, token: str) -> Entry | None:
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
