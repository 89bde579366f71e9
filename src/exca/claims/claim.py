"""A claim that is held: by us, or by a job on our behalf."""

import contextlib
import dataclasses
import os
import sys
import threading
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
    fresh_entry,
    name_of,
    new_token,
    revision_of,
    token_of,
)
from .owner import Owner


class Claim:
    """The right to compute some keys of a folder, until it is released.

    Use it as a context manager, so that an error releases it. A claim that was transferred to a job is released by
    that job, when it has finished or failed, but not when it is interrupted and may be requeued. All that changes it
    raises ClaimLostError where another process took it over.
    """

    def __init__(self, files: ClaimFolder, entry: Entry, keys: tuple[str, ...]) -> None:
        self._claim_files = files
        self._entry: Entry | None = entry
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
        if self._is_job() and self._claim_files.exists(
            names[0]
        ):  # else a later worker has succeeded this one
            # what the submitter may have written at the very moment of the adoption goes, too
            names += [n for n in self._claim_files.names() if token_of(n) == self.token and n not in names]
        self._entry = None
        for name in names:
            self._claim_files.drop(name)

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

        Claims of one array share the tag that the first of them returned, which goes into the job's comment; `task` is
        the number of the array's task that gets this claim.
        """
        tag = tag or f"exca:{self.token}"
        entry = self._current()
        self._succeed([dataclasses.replace(entry, announced=Announcement(cluster, tag, task))])
        return tag

    def transfer_to(self, owner: Owner) -> None:
        """Make a job the owner: from now on nothing depends on this process."""
        entry = dataclasses.replace(self._current(), owner=owner, announced=None)
        with contextlib.suppress(
            ClaimLostError
        ):  # the job was faster and adopted it; or lost it, and will find out
            self._succeed([entry])
        self._entry = None

    def give_back(self, keys: Collection[str]) -> None:
        """Let others claim some of the keys; those that are not in this claim do not matter."""
        with self._lock:
            rest = tuple(key for key in self.keys if key not in keys)
            if not rest:
                self.release()
            elif len(rest) < len(self.keys):
                self._succeed([dataclasses.replace(self._current(), body=dump_json(rest))])
            self.keys = rest

    def note_wait(self, number: int, wait: Wait | None) -> None:
        """Note in the claim file, under a number, that some of the keys wait for others; None when that is over."""
        with self._lock:
            if wait is None and self._waits.pop(number, None) is None:
                return
            if wait is not None:
                self._waits[number] = wait
            if self._entry is not None:
                self._succeed([dataclasses.replace(self._current(), waits=tuple(self._waits.values()))])

    def split(self, groups: Sequence[Sequence[str]]) -> list["Claim"]:
        """Divide the claim, one for each job of an array; keys in no group are released, and this one is void."""
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

    def _current(self) -> Entry:
        if self._entry is None or self._pid != os.getpid():
            raise ClaimLostError(f"Claim {self.token} in {self.folder} is not held by this process any more.")
        return self._entry

    def _succeed(self, entries: list[Entry], rename: bool = True) -> None:
        """Put new files in the place of the present one, so that no key is ever without one."""
        old = self._current()
        if rename:
            entries = [
                dataclasses.replace(entries[0], name=name_of(self.token, revision_of(old.name)[0] + 1))
            ]
        if not protocol.succeed(self._claim_files, old, entries):
            self._entry = None
            heartbeat.heart.forget(self._claim_files.path(old.name))
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
        self._entry: Entry | None = None
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
            heartbeat.heart.forget(self._claim_files.path(self._entry.name))
