"""The claims of one folder: who computes what right now, and a claim that is held, by us or by a job on our behalf."""

import contextlib
import os
import sys
import threading
import time
import typing as tp
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from .. import _clusters
from .._log import logger
from .._polling import Poller
from ..errors import ClaimLostError
from . import chain, protocol
from .claimfile import (
    Announcement,
    ClaimEntry,
    ClaimFolder,
    Wait,
    dump_json,
    fresh_entry,
    name_of,
    new_token,
    revision_of,
    token_of,
)
from .owner import Owner, heart, period
from .protocol import alive


class Claim:
    """The right to compute some keys of a folder, until it is released.

    Use it as a context manager, so that an error releases it. A claim that was transferred to a job is released by
    that job, when it has finished or failed, but not when it is interrupted and may be requeued. All that changes it
    raises ClaimLostError where another process took it over.
    """

    def __init__(self, files: ClaimFolder, entry: ClaimEntry, keys: tuple[str, ...]) -> None:
        self._claim_files = files
        self._entry: ClaimEntry | None = entry
        self._pid = os.getpid()
        self.token: str = entry.token
        self.folder: Path = files.folder
        self.keys: tuple[str, ...] = keys
        # threads that compute shares of it give back and note what they wait for
        self._lock = threading.RLock()
        self._waits: dict[int, Wait] = {}

    def __repr__(self) -> str:
        return f"<Claim {self.token} of {len(self.keys)} keys in {self.folder}>"

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        if kind is None or issubclass(kind, Exception) or not self._is_job():
            self.release()
        # a worker that exits in the middle may be about to be requeued: the scheduler knows how its job is

    def __del__(self) -> None:
        # when the interpreter ends, the file is stale in a moment anyway
        if self._entry is not None and not self._is_job() and not sys.is_finalizing():
            self.release()

    def _is_job(self) -> bool:
        owner = None if self._entry is None else self._entry.owner
        return owner is not None and owner.kind == "job"

    def release(self) -> None:
        """Give the keys back, if they are still ours to give; may be called again."""
        if self._entry is None or self._pid != os.getpid():  # a forked child holds nothing
            return
        names = [self._entry.name]
        # where the file is gone, a later worker has succeeded this one
        if self._is_job() and self._claim_files.exists(names[0]):
            # what the submitter may have written at the very moment of the adoption goes, too
            names += [n for n in self._claim_files.names() if token_of(n) == self.token and n not in names]
        self._entry = None
        for name in names:
            self._claim_files.drop(name)

    def is_valid(self) -> bool:
        """Whether no other owner took the claim over: to be asked before a result is published."""
        heart.ensure()
        return (
            self._entry is not None
            and self._pid == os.getpid()
            and self._claim_files.exists(self._entry.name)
        )

    def announce(
        self, cluster: str, *, tag: str | None = None, task: int | None = None, logs: str | None = None
    ) -> str:
        """Note that the keys are about to be submitted, so that the job is found should we die in the middle.

        Claims of one array share the tag that the first of them returned, which goes into the job's comment; `task` is
        the number of the array's task that gets this claim, `logs` the folder of the job's logs.
        """
        tag = tag or f"exca:{self.token}"
        entry = self._current()
        self._succeed([entry._replace(announced=Announcement(cluster, tag, task, logs))])
        return tag

    def transfer_to(self, owner: Owner) -> None:
        """Make a job the owner: from now on nothing depends on this process."""
        entry = self._current()._replace(owner=owner, announced=None)
        # the job was faster and adopted it; or lost it, and will find out
        with contextlib.suppress(ClaimLostError):
            self._succeed([entry])
        self._entry = None

    def give_back(self, keys: Collection[str]) -> None:
        """Let others claim some of the keys; those that are not in this claim do not matter."""
        with self._lock:
            rest = tuple(key for key in self.keys if key not in keys)
            if not rest:
                self.release()
            elif len(rest) < len(self.keys):
                self._succeed([self._current()._replace(body=dump_json(rest))])
            self.keys = rest

    def note_wait(self, number: int, wait: Wait | None) -> None:
        """Note in the claim file, under a number, that some of the keys wait for others; None when that is over."""
        with self._lock:
            if wait is None and self._waits.pop(number, None) is None:
                return
            if wait is not None:
                self._waits[number] = wait
            if self._entry is not None:
                self._succeed([self._current()._replace(waits=tuple(self._waits.values()))])

    def split(self, groups: Sequence[Sequence[str]]) -> list["Claim"]:
        """Divide the claim, one for each job of an array; keys in no group are released, and this one is void."""
        flat = [k for group in groups for k in group]
        if len(set(flat)) != len(flat) or not set(flat) <= set(self.keys):
            raise ValueError(
                f"Claim {self.token} is split into groups that overlap or hold keys it has not got."
            )
        entry = self._current()
        parts = [
            entry._replace(name=name_of(new_token(), 0), body=dump_json(list(group))) for group in groups
        ]
        self._succeed(parts, rename=False)
        self._entry = None
        return [
            Claim(self._claim_files, part, tuple(group)) for part, group in zip(parts, groups, strict=True)
        ]

    def _current(self) -> ClaimEntry:
        if self._entry is None or self._pid != os.getpid():
            raise ClaimLostError(f"Claim {self.token} in {self.folder} is not held by this process any more.")
        return self._entry

    def _succeed(self, entries: list[ClaimEntry], rename: bool = True) -> None:
        """Put new files in the place of the present one, so that no key is ever without one."""
        old = self._current()
        if rename:
            entries = [entries[0]._replace(name=name_of(self.token, revision_of(old.name)[0] + 1))]
        if not protocol.succeed(self._claim_files, old, entries):
            self._entry = None
            heart.forget(self._claim_files.path(old.name))
            raise ClaimLostError(
                f"Claim {self.token} in {self.folder} was taken over by another owner, who found this process dead."
            )
        self._entry = entries[0]


class FirstClaim:
    """A claim that comes into the world together with its folder.

    No process can have claimed anything in a folder that is not there yet. So the claim file may be "owned" from the
    start if it is in a draft of the folder that is then renamed to its name: the rename fails when another process
    made the folder first, and otherwise folder and claim appear in one step.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self._claim_files = ClaimFolder(folder)
        self._keys = tuple(keys)
        self._entry: ClaimEntry | None = None
        self.claim: Claim | None = None  # once the draft became the folder

    def write_into(self, draft: str) -> None:
        """Put the claim file into the draft of the folder."""
        self._entry = fresh_entry(self._keys, Owner.current(), owned=True)
        self._claim_files.write_unseen(self._entry, draft)

    def confirm(self) -> None:
        """The draft became the folder."""
        if self._entry is not None:
            self.claim = Claim(self._claim_files, self._entry, self._keys)

    def abandon(self) -> None:
        """The draft did not become the folder."""
        if self._entry is not None:
            heart.forget(self._claim_files.path(self._entry.name))


SAY_SO = 1.0  # seconds of waiting after which it is logged
MAX_SAID = 10_000
_said: set[str] = set()
_said_lock = threading.Lock()


class Holder:
    """The owner of a claim on some keys, by its claim file."""

    def __init__(self, files: ClaimFolder, entry: ClaimEntry) -> None:
        self._claim_files, self._entry = files, entry
        self.owner: Owner = entry.owner or Owner("process", "unknown", entry.maker())
        self.token: str = entry.token
        self.since: float = entry.since
        self.trusted: bool = entry.trusted
        self.path: Path = Path(files.path(entry.name))

    @property
    def job_id(self) -> str | None:
        """The backend's id of the job behind the claim, also when its submitter died before noting it."""
        announced = self._entry.announced
        if self.owner.job_id is None and announced is not None and announced.cluster != "local":
            with contextlib.suppress(OSError):
                backend = _clusters.asked(announced.cluster)
                job = backend.tagged(announced.tag, announced.task, announced.logs or "")
                return None if job is None else job.job_id
        return self.owner.job_id

    @property
    def announced(self) -> Announcement | None:
        """The submission that was under way, of a claim whose submitter has not noted which job it became."""
        return self._entry.announced

    @property
    def keys(self) -> tuple[str, ...]:
        """What is held; empty when the file is damaged or may not be read."""
        return self._entry.keys or ()

    def alive(self) -> bool:
        """Whether the owner lives now."""
        return alive(self._claim_files, self._entry)

    def describe(self) -> str:
        """For log lines and errors: which owner, since when, and how to look."""
        owner, since = self.owner, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        if owner.scheduled and owner.job_id is not None:
            backend = _clusters.asked(owner.cluster or "")
            (state,) = backend.states([owner.submission])
            why = f": {state.reason}" if state.alive is None and state.reason else ""
            look = backend.how_to_look(owner.job_id)
            text = f"{owner.describe()} ({state.state}{why}) since {since}"
            return f"{text}, look with: {look}" if look else text
        text = f"{owner.describe()} since {since}"
        if self._entry.announced is not None:
            text += f", submitting to {self._entry.announced.cluster}"
        if owner.process is not None:
            text += f", look with: ps -fp {owner.process.pid}"
        return text

    def __repr__(self) -> str:
        return f"<Holder {self.describe()}>"


class Claims:
    """The claims of a folder, over all threads, processes and hosts that share it."""

    def __init__(self, folder: Path | str) -> None:
        self.folder: Path = folder if isinstance(folder, Path) else Path(folder)
        self._claim_files = ClaimFolder(self.folder)

    def acquire(
        self, keys: Sequence[str], *, thread_bound: bool = True
    ) -> tuple[Claim | None, dict[str, Holder]]:
        """Claim all keys that no live owner holds.

        Returns the claim (None when there was nothing left) and, by key, the holders of the rest. A claim that is not
        `thread_bound` is on work that other threads do, so that this thread may wait for it.
        """
        keys = tuple(dict.fromkeys(keys))
        owner = Owner.current(thread_bound=thread_bound)
        files = self._claim_files
        while keys:
            entry = fresh_entry(keys, owner)
            files.place(entry)
            try:
                lost, others = protocol.contest(files, entry, keys, frozenset())
                taken = protocol.take(files, entry, keys, lost)
            except BaseException:
                files.drop(entry.name)
                raise
            protocol.sweep(files, others)
            if taken is not None or len(lost) == len(keys):
                return None if taken is None else Claim(files, *taken), self._holders(lost)
            # swept away by another process, which thought us dead: ask again
        return None, {}

    def _holders(self, entries: dict[str, ClaimEntry]) -> dict[str, Holder]:
        holders = {id(e): Holder(self._claim_files, e) for e in entries.values()}
        return {k: holders[id(e)] for k, e in entries.items()}

    def holders(self, keys: Sequence[str] | None = None) -> dict[str, Holder]:
        """The holders of some keys (None: of all), dead ones included (:meth:`Holder.alive` tells)."""
        wanted = None if keys is None else frozenset(keys)
        found: dict[str, ClaimEntry] = {}
        for entry in protocol.look(self._claim_files):
            mine = (entry.keys or ()) if wanted is None else protocol.shared(entry, wanted) if wanted else ()
            for key in mine:
                if key not in found or self._rather(entry, found[key]):
                    found[key] = entry
        return self._holders(found)

    def _rather(self, new: ClaimEntry, old: ClaimEntry) -> bool:
        """Of two claims on one key (one of them dead, or both still asking), the one that counts."""
        if new.owned != old.owned:
            return new.owned
        return not alive(self._claim_files, old)

    def _dead(self) -> list[ClaimEntry]:
        return [e for e in protocol.look(self._claim_files) if not alive(self._claim_files, e)]

    def stale(self) -> list[Holder]:
        """Claims of dead owners, which the next claimant sweeps away."""
        return [Holder(self._claim_files, e) for e in self._dead()]

    def sweep(self) -> int:
        """Remove the claims of dead owners, return how many there were."""
        dead = self._dead()
        for entry in dead:
            self._claim_files.remove(entry.name)
        return len(dead) + protocol.sweep_drafts(self._claim_files, self._claim_files.listing()[1])

    def adopt(self, token: str, job_id: str = "") -> Claim | None:
        """Called by a job when it starts: its process is now behind the claim that it was given.

        The id of the job is needed where its submitter may not have noted which job it became.

        Returns None when the claim was lost to another process, or released: then nothing is to be computed.
        """
        while (old := protocol.latest(self._claim_files, token)) is not None:
            if old.owner is None or old.keys is None:
                return None  # damaged: others wait for it only as long as its maker lives
            adopted = self._adopt(old, old.owner, old.keys, job_id)
            if adopted is not None or self._claim_files.exists(old.name):
                return adopted
            # the submitter wrote its own succession (see Claim.transfer_to) at the same moment: succeed that one
        return None

    def _adopt(self, old: ClaimEntry, before: Owner, keys: tuple[str, ...], job_id: str) -> Claim | None:
        files, token = self._claim_files, old.token
        name = name_of(token, revision_of(old.name)[0] + 1)
        owner = before if before.kind == "job" else _job_of_announcement(before, old.announced, job_id)
        entry = old._replace(name=name, owner=owner.with_worker(), owned=False, announced=None)
        entry = entry._replace(every=period())
        files.place(entry)
        try:
            lost = self._lost_meanwhile(old, entry, keys)
            taken = protocol.take(files, entry, keys, lost)
        except BaseException:
            files.drop(name)
            raise
        if taken is not None:
            for other in files.names():
                if token_of(other) == token and other != name:
                    files.remove(other)
        return None if taken is None else Claim(files, *taken)

    def _lost_meanwhile(self, old: ClaimEntry, entry: ClaimEntry, keys: tuple[str, ...]) -> Collection[str]:
        """The keys that others took from the earlier claim, thinking its owner dead."""
        family = frozenset((entry.token,))
        if not old.owned:
            return protocol.contest(self._claim_files, entry, keys, family).lost
        decided = protocol.others_decided(self._claim_files, keys, family)
        return () if decided and self._claim_files.exists(old.name) else keys

    def revoke(self, token: str) -> None:
        """Remove a claim of any holder: after its job was cancelled."""
        for name in self._claim_files.names():
            if token_of(name) == token:
                self._claim_files.drop(name)

    def wait(
        self,
        keys: Sequence[str],
        *,
        done: Callable[[], bool],
        missing: Callable[[Sequence[str]], Sequence[str]] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Wait until it is done, a holder of some of the keys is gone, or the time is over: then look and claim again.

        So it is where a missing key was given back, though its holder keeps others of the keys, which may be there.

        Raises ReentrantClaimError when this very thread holds one of the keys, so that it would wait for itself, or
        what it waits for waits for what it computes.
        """
        first: dict[str, Holder] | None = None
        free: list[str] = []
        entries = _Overlapping(self._claim_files, keys)
        poller = Poller(timeout)
        with chain.Waiting(self.folder, keys) as waiting:
            while not done():
                now = {e.token: Holder(self._claim_files, e) for e in entries.living()}
                if first is None:
                    first = now
                    self._refuse_own(now.values(), keys)
                if not now or not first.keys() <= now.keys():
                    return
                if missing is not None and entries.changed:
                    known = [h.keys for h in now.values()]  # nothing of a claim that cannot be read
                    held = set[str]().union(*known)
                    free = [key for key in keys if key not in held] if all(known) else []
                if free and missing is not None and missing(free):
                    return
                if poller.waited >= SAY_SO:
                    self._say(first.values(), len(keys))
                    for cluster in {h.owner.cluster for h in first.values() if h.owner.scheduled}:
                        _clusters.asked(cluster or "").check_patience()
                waiting.look(poller.waited)
                if not poller.pause():
                    return

    def _refuse_own(self, holders: Iterable[Holder], keys: Sequence[str]) -> None:
        for holder in holders:
            if holder.owner.is_this_thread():
                wanted = frozenset(keys)
                what = next((k for k in holder.keys if k in wanted), keys[0])
                raise chain.asks_for_itself(what, self.folder)

    def _say(self, holders: Iterable[Holder], count: int) -> None:
        with _said_lock:
            new = [h for h in holders if h.token not in _said]
            if len(_said) > MAX_SAID:
                _said.clear()
            _said.update(h.token for h in new)
        if new:
            who = "; ".join(h.describe() for h in new[:3]) + (
                "" if len(new) <= 3 else f"; and {len(new) - 3} more"
            )
            what = "a result" if count == 1 else f"{count} results"
            logger.info("Waiting for %s in %s, being computed by %s", what, self.folder, who)


def _job_of_announcement(before: Owner, announced: Announcement | None, job_id: str) -> Owner:
    """The owner of a claim whose submitter did not (yet) write which job it had become."""
    if announced is None or announced.cluster == "local":
        return before._replace(kind="job", cluster="local", job_id=job_id or str(os.getpid()))
    cluster, folder = announced.cluster, announced.logs
    return before._replace(kind="job", cluster=cluster, job_id=job_id or None, folder=folder)


class _Overlapping:
    """The living claims on some keys, looked at again and again: a file's keys are read once."""

    def __init__(self, files: ClaimFolder, keys: Sequence[str]) -> None:
        self._claim_files = files
        self._wanted = frozenset(keys)
        self._known: dict[str, ClaimEntry | None] = {}
        self._names: list[str] = []
        self.changed = False  # whether there were other files at the last look than before

    def living(self) -> list[ClaimEntry]:
        names = self._claim_files.names()
        self.changed, self._names = names != self._names, names
        self._known = {name: self._known[name] for name in names if name in self._known}
        asking: list[ClaimEntry] = []  # which are read again the next time
        for name in names:
            entry = None if name in self._known else self._claim_files.read(name)
            if entry is not None:
                overlapping = entry if protocol.shared(entry, self._wanted) else None
                if entry.owned:
                    self._known[name] = overlapping
                elif overlapping is not None:
                    asking.append(entry)
        entries = [*asking, *(e for e in self._known.values() if e is not None)]
        protocol.ask_together(entries)
        return [e for e in entries if alive(self._claim_files, e)]
