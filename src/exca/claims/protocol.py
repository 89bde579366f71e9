"""How a claim is won: the order of steps, and why two owners are impossible."""

import time
import typing as tp

from . import scheduler
from .ledger import Entry, Ledger, revision_of, token_of
from .liveness import alive

PATIENCE = 0.05  # seconds for a rival who asks at the same time to decide; then it counts as the holder
LONG_PATIENCE = 5.0  # the same, where nothing but waiting can be done
PAUSE = 0.0005


def look(ledger: Ledger, skip: tp.Callable[[str], bool] | None = None) -> list[Entry]:
    """All claims that stand now; jobs among them are asked about together."""
    names = [n for n in ledger.names() if skip is None or not skip(n)]
    entries = [e for e in map(ledger.read, names) if e is not None]
    jobs = [e.owner.job_id for e in entries if e.owner is not None and e.owner.scheduled and e.owner.job_id]
    if len(jobs) > 1:
        scheduler.job_states(jobs)  # one query: each entry's own is then answered from memory
    return entries


def contest(
    ledger: Ledger, mine: Entry, keys: tp.Collection[str], exempt: frozenset[str]
) -> dict[str, Entry]:
    """Find out which keys others hold, after our own file was placed.

    Parameters
    ----------
    ledger
        the folder's claim files
    mine
        our own entry, asked
    keys
        the keys it asks for
    exempt
        tokens whose claims we succeed

    Returns
    -------
    dict
        by key: the entry of who holds it
    """
    lost: dict[str, Entry] = {}
    settled = {mine.name}
    deadline = time.monotonic() + PATIENCE
    wanted: tp.Collection[str] = ()
    while True:
        pending: list[tuple[Entry, tp.Collection[str]]] = []
        for entry in look(ledger, lambda n: n in settled or token_of(n) in exempt):
            wanted = wanted or (keys if len(keys) == 1 else frozenset(keys))
            overlap = shared(entry, wanted)
            if overlap and not alive(ledger, entry):
                ledger.remove(entry.name)  # before we decide: see "Succession" in the argument
                settled.add(entry.name)
            elif not overlap:
                settled.add(entry.name)  # the keys of a file never grow
            elif entry.owned or (entry.rank, entry.name) > (mine.rank, mine.name):
                lost.update(dict.fromkeys(overlap, entry))
                settled.add(entry.name)
            else:
                pending.append((entry, overlap))
        if not pending:
            return lost
        if time.monotonic() > deadline:
            for entry, overlap in pending:
                lost.update(dict.fromkeys(overlap, entry))
            return lost
        time.sleep(PAUSE)


def shared(entry: Entry, wanted: tp.Collection[str]) -> tp.Collection[str]:
    """The wanted keys that the entry is about: all of them when its keys cannot be read."""
    if entry.keys is None:
        return wanted
    if len(wanted) == 1:
        return wanted if next(iter(wanted)) in entry.keys else ()
    return [k for k in entry.keys if k in wanted]


def others_decided(ledger: Ledger, exempt: frozenset[str], known: tp.Container[str] = ()) -> bool:
    """Wait until everybody who asks right now has decided; False when somebody does not.

    Parameters
    ----------
    ledger
        the folder's claim files
    exempt
        tokens that are ours
    known
        names of files that are known to be decided
    """
    settled: set[str] = set()
    deadline = time.monotonic() + LONG_PATIENCE
    while True:
        asking = False
        for name in ledger.names():
            if name in settled or name in known or token_of(name) in exempt:
                continue
            entry = ledger.read(name)
            if entry is not None and not entry.owned and alive(ledger, entry):
                asking = True
            else:
                settled.add(name)
        if not asking or time.monotonic() > deadline:
            return not asking
        time.sleep(PAUSE)


def latest(ledger: Ledger, token: str) -> Entry | None:
    """The newest revision of a claim, a decided one if there is one."""
    names = sorted((n for n in ledger.names() if token_of(n) == token), key=revision_of, reverse=True)
    entries = [e for e in map(ledger.read, names) if e is not None]
    return next((e for e in entries if e.owned), entries[0] if entries else None)
