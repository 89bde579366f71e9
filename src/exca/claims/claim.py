"""A claim that is held: by us, or by a job on our behalf."""

import contextlib
import dataclasses
import os
import sys
import threading
import time
import typing as tp
from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import ClaimLostError
from . import heartbeat, protocol
from .claimfile import (
    Announcement,
    ClaimFolder,
    Entry,
    Wait,
    dump_json,
    name_of,
    new_token,
    revision_of,
    token_of,
)
from .owner import Owner, Process


class Claim:
    """The right to compute some keys of a folder, until it is released.

    Use it as a context manager, so that an error releases it. A claim that was handed over to a job is released by
    that job, when it has finished or failed, but not when it is interrupted and may be requeued.

    Parameters
    ----------
    files
        the folder's claim files
    entry
        the claim file that stands
    keys
        what is claimed
    """

    def __init__(self, files: ClaimFolder, entry: Entry, keys: tuple[str, ...]) -> None:
        self._claim_files = files
        self._entry: Entry | None = entry
        self._pid = os.getpid()
        self.token = entry.token
        self.folder: Path = files.folder
        self.keys = keys
        self._lock = (
            threading.RLock()
        )  # threads that compute shares of it give back and note what they wait for
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
        if self._is_job() and self._claim_files.exists(
            names[0]
        ):  # else a later worker has succeeded this one
            # what the submitter may have written at the very moment of the adoption goes, too
            names += [n for n in self._claim_files.names() if token_of(n) == self.token and n not in names]
        self._entry = None
        for name in names:
            drop(self._claim_files, name)

    def is_valid(self) -> bool:
        """Whether no other owner took the claim over: to be asked before a result is published."""
        heartbeat.heart.ensure()
        return (
            self._entry is not None
            and self._pid == os.getpid()
            and self._claim_files.exists(self._entry.name)
        )

    def announce(self, cluster: str, *, tag: str | None = None, task: int | None = None) -> str:
        """Note that the keys are about to be submitted, so that the job is found should we die in the middle.

        Parameters
        ----------
        cluster
            "slurm" or "local"
        tag
            for the claims of one array: the tag that the first of them returned
        task
            number of the array's task that gets this claim

        Returns
        -------
        str
            the tag to be put into the job's comment

        Raises
        ------
        ClaimLostError
            when the claim was taken over, so that nothing must be submitted
        """
        tag = tag or f"exca:{self.token}"
        entry = self._current()
        self._succeed([dataclasses.replace(entry, announced=Announcement(cluster, tag, task))])
        return tag

    def transfer_to(self, owner: Owner) -> None:
        """Make a job the owner: from now on nothing depends on this process.

        Parameters
        ----------
        owner
            the job, see :meth:`Owner.for_job`

        Raises
        ------
        ClaimLostError
            when this process released the claim before
        """
        entry = dataclasses.replace(self._current(), owner=owner, announced=None)
        with contextlib.suppress(
            ClaimLostError
        ):  # the job was faster and adopted it; or lost it, and will find out
            self._succeed([entry])
        self._entry = None

    def give_back(self, keys: Collection[str]) -> None:
        """Let others claim some of the keys, the others stay.

        Parameters
        ----------
        keys
            which ones; those that are not in this claim do not matter

        Raises
        ------
        ClaimLostError
            when the claim was taken over
        """
        with self._lock:
            rest = tuple(key for key in self.keys if key not in keys)
            if not rest:
                self.release()
            elif len(rest) < len(self.keys):
                self._succeed([dataclasses.replace(self._current(), body=dump_json(rest))])
            self.keys = rest

    def note_wait(self, number: int, wait: Wait | None) -> None:
        """Note in the claim file that some of the keys wait for others, or no more do.

        Parameters
        ----------
        number
            of the wait
        wait
            what waits for what; None when it is over

        Raises
        ------
        ClaimLostError
            when the claim was taken over
        """
        with self._lock:
            if wait is None and self._waits.pop(number, None) is None:
                return
            if wait is not None:
                self._waits[number] = wait
            if self._entry is not None:
                self._succeed([dataclasses.replace(self._current(), waits=tuple(self._waits.values()))])

    def split(self, groups: Sequence[Sequence[str]]) -> list["Claim"]:
        """Divide the claim, one for each job of an array; this one is void afterwards.

        Parameters
        ----------
        groups
            disjoint groups of the claim's keys; keys in no group are released

        Raises
        ------
        ClaimLostError
            when the claim was taken over
        ValueError
            when a key is not in this claim, or in two groups
        """
        flat = [k for group in groups for k in group]
        if len(set(flat)) != len(flat) or not set(flat) <= set(self.keys):
            raise ValueError(
                f"Claim {self.token} is split into groups that overlap or hold keys it has not got."
            )
        entry = self._current()
        parts = [
            dataclasses.replace(entry, name=name_of(new_token(), 0), body=dump_json(list(group)))
            for group in groups
        ]
        self._succeed(parts, rename=False)
        self._entry = None
        return [
            Claim(self._claim_files, part, tuple(group)) for part, group in zip(parts, groups, strict=True)
        ]

    def _path(self) -> str | None:
        """Where the claim file of this process is; None for a job's."""
        if self._entry is None or self._pid != os.getpid() or self._is_job():
            return None
        return self._claim_files.path(self._entry.name)

    def _current(self) -> Entry:
        if self._entry is None or self._pid != os.getpid():
            raise ClaimLostError(f"Claim {self.token} in {self.folder} is not held by this process any more.")
        return self._entry

    def _succeed(self, entries: list[Entry], rename: bool = True) -> None:
        """Put new files in the place of the one that stands, so that no key is ever without one."""
        old = self._current()
        if rename:
            entries = [
                dataclasses.replace(entries[0], name=name_of(self.token, revision_of(old.name)[0] + 1))
            ]
        if not succeed(self._claim_files, old, entries):
            self._entry = None
            heartbeat.heart.forget(self._claim_files.path(old.name))
            raise ClaimLostError(
                f"Claim {self.token} in {self.folder} was taken over by another owner, who found this process dead."
            )
        self._entry = entries[0]


class FirstClaim:
    """A claim that comes into the world together with its folder.

    Nobody can have claimed anything in a folder that is not there yet. So the claim file may say "owned" from the
    start if it lies in a draft of the folder that is then renamed to its name: the rename fails when another process
    made the folder first, and otherwise folder and claim appear in one step.

    Parameters
    ----------
    folder
        the folder that is about to be made
    keys
        what is claimed
    spare
        a claim that has served and is about to be released: its file may become the new one
    """

    def __init__(self, folder: Path, keys: Sequence[str], spare: Claim | None = None) -> None:
        self._claim_files = ClaimFolder(folder)
        self._keys = tuple(keys)
        self._spare = spare
        self._entry: Entry | None = None
        self.claim: Claim | None = None  # once the draft became the folder

    def write_into(self, draft: str) -> None:
        """Put the claim file into the draft of the folder.

        Parameters
        ----------
        draft
            path of the draft
        """
        owner = Owner.current()
        assert owner.process is not None
        entry = fresh_entry(self._keys, owner, owned=True)
        heartbeat.heart.watch(self._claim_files.path(entry.name), owner.process)
        self._entry = entry
        spare = None if self._spare is None else self._spare._path()
        self._claim_files.write_unseen(entry, draft, spare)

    def settle(self, *, made: bool) -> None:
        """Say what became of the draft.

        Parameters
        ----------
        made
            whether it became the folder
        """
        entry, self._entry = self._entry, None
        if entry is None:
            return
        if made:
            self.claim = Claim(self._claim_files, entry, self._keys)
        else:
            heartbeat.heart.forget(self._claim_files.path(entry.name))


def place(files: ClaimFolder, entry: Entry) -> None:
    """Make a claim file, with somebody to beat for it."""
    process, me = None if entry.owner is None else entry.owner.process, Process.current()
    if process is not None and process.host == me.host:  # without one, the scheduler is asked
        heartbeat.heart.watch(files.path(entry.name), process, remember=process == me)
    try:
        files.place(entry)
    except BaseException:
        heartbeat.heart.forget(files.path(entry.name))
        raise


def drop(files: ClaimFolder, name: str) -> None:
    """Take a claim file of ours away; what can't be removed now is given up all the same, and removed later."""
    path = files.path(name)
    if files.remove(name):
        heartbeat.heart.forget(path)
    else:
        heartbeat.heart.discard(path)


def succeed(files: ClaimFolder, old: Entry, entries: list[Entry]) -> bool:
    """Replace a decided file by new ones, see "Succession" in the argument; False when it was taken over."""
    names = [e.name for e in entries]
    try:
        for entry in entries:
            place(files, dataclasses.replace(entry, owned=False))
        ours = frozenset(e.token for e in entries) | {old.token}
        protocol.others_decided(files, old.keys or (), ours, known=OwnFiles(files))
        if not files.exists(old.name):
            raise ClaimLostError("taken over")
    except BaseException as e:
        for name in names:
            drop(files, name)
        if isinstance(e, ClaimLostError):
            return False
        raise
    for name in names:
        files.decide(name)
    drop(files, old.name)
    return True


class OwnFiles:
    """The claim files that this process holds: a container of names."""

    def __init__(self, files: ClaimFolder) -> None:
        self._claim_files = files

    def __contains__(self, name: object) -> bool:
        return self._claim_files.path(str(name)) in heartbeat.heart.watched


def fresh_entry(keys: Sequence[str], owner: Owner, *, owned: bool = False) -> Entry:
    """An entry of a new token that asks for the keys, or owns them already."""
    name = name_of(new_token(), 0)
    return Entry(name, owner, time.time(), heartbeat.period(), owned, None, dump_json(keys))
