"""What this thread is in the middle of computing: the claims it holds while it asks for something else.

A computation may ask for other results, which others compute, who may need in turn what is claimed here. So:

* *Nested calls.* What a batch has claimed and not started is given back when a call from inside of the batch asks for
  it; that call claims and computes it. What the batch has taken from its items counts as started: it is computed by the
  nested call as well, and the second result is dropped; but if it can only be the very item that is being computed,
  then it asks for itself.
* *Waiting.* A thread that waits gives back all that it has not started, so that batches that need each other's items
  go on without any circle.
* *Circles.* A thread that still waits after a while writes into its claims which of their keys wait, and for what. All
  that wait follow these notes from claim to claim, in whatever folder and of whatever process, and where they lead back
  to what the thread computes itself, in two looks running, the circle is real: an error names it.

Threads that a backend starts on behalf of a computation run in a copy of its context, and belong to the chain.
"""

import collections
import contextlib
import contextvars
import itertools
import os
import typing as tp
from collections.abc import Collection, Iterator, Sequence

from ..errors import ClaimLostError, ReentrantClaimError
from . import protocol
from .claimfile import ClaimFolder, Wait

if tp.TYPE_CHECKING:
    from .claims import Claim

GIVE_BACK = 0.1  # seconds of waiting after which all that has not been started is given back
NOTE = 1.0  # seconds of waiting after which it is noted in the claims, and between two looks for a circle
MOST = 1000  # keys in a note
_ids = itertools.count(1)
_chain: contextvars.ContextVar[tuple["Batch", ...]] = contextvars.ContextVar("exca_chain", default=())
_claim: contextvars.ContextVar["Claim | None"] = contextvars.ContextVar("exca_claim", default=None)


class Batch:
    """Claimed keys that are computed in this thread, handed out one after the other."""

    def __init__(self, claim: "Claim | None", keys: Sequence[str]) -> None:
        self.claim = claim
        self.keys = keys
        self.folder: str | None = None if claim is None else _normal(claim.folder)
        self.taken: collections.deque[str] = collections.deque()  # handed out and not answered yet
        self.given: set[str] = set()  # given back: not handed out, or their results are dropped
        self.promised: bool = False  # whether the method counts on getting all of them
        self._next = 0

    def hand_out(self) -> Iterator[int]:
        """Yield the numbers of the keys, those left out that were given back; what was yielded is being computed."""
        keys, given, take = self.keys, self.given, self.taken.append
        while (number := self._next) < len(keys):
            self._next = number + 1
            key = keys[number]
            if key not in given or self.promised:
                take(key)
                yield number

    def answered(self) -> str | None:
        """The key whose result comes next; None when there is none left."""
        if not self.taken:
            self.promised = True  # who answers without having taken anything knows all of them
            if next(self.hand_out(), None) is None:
                return None
        return self.taken.popleft()

    def left(self) -> list[str]:
        """What is still to be handed out."""
        return [key for key in self.keys[self._next :] if key not in self.given or self.promised]

    def unstarted(self) -> list[str]:
        """What others may compute in the place of this batch; what was promised is computed here, too, and dropped."""
        return [key for key in self.keys[self._next :] if key not in self.given]

    def give_back(self, keys: Collection[str]) -> None:
        """Let others compute some of the keys."""
        if self.claim is None or not keys:
            return
        self.given.update(keys)
        with contextlib.suppress(ClaimLostError):
            self.claim.give_back(keys)


def attempt() -> str:
    """The token of the claim under which this thread computes; empty where there is none."""
    claim = _claim.get()
    return "" if claim is None else claim.token


@contextlib.contextmanager
def under(claim: "Claim | None") -> Iterator[None]:
    """Context in which batches are computed under a claim."""
    before = _claim.set(claim)
    try:
        yield
    finally:
        _claim.reset(before)


@contextlib.contextmanager
def computing(keys: Sequence[str], *, started: bool = False) -> Iterator[Batch]:
    """Context in which keys of the current claim are computed, all of them from the beginning if `started`."""
    batch = Batch(_claim.get(), keys)
    if started:
        for _ in batch.hand_out():
            pass
    if batch.claim is None:
        yield batch
        return
    before = _chain.set((*_chain.get(), batch))
    try:
        yield batch
    finally:
        _chain.reset(before)


def is_computing() -> bool:
    """Whether this thread is in the middle of a computation that has claimed something."""
    return bool(_chain.get())


def let_nested_compute(folder: tp.Any, keys: Sequence[str]) -> None:
    """Give back what this thread has claimed and a call inside of that computation asks for.

    Raises ReentrantClaimError where one of them is what is being computed.
    """
    chain = _chain.get()
    if not chain:
        return
    place, wanted = _normal(folder), frozenset(keys)
    mine = [batch for batch in chain if batch.folder == place]
    for batch in mine:
        for key in wanted.intersection(batch.taken):
            again = sum(key in other.taken for other in mine)
            if len(batch.taken) == 1 or again > 1:
                raise asks_for_itself(key, folder)
        batch.give_back(wanted.intersection((*batch.left(), *batch.taken)) - batch.given)


def asks_for_itself(key: str, folder: tp.Any) -> ReentrantClaimError:
    """The error of a computation that would wait for itself."""
    return ReentrantClaimError(
        f"The computation of {key!r} in {folder} asks for its own result: it would wait for "
        "itself for ever. Look in the traceback where the decorated method is called again, and break the circle."
    )


class Waiting:
    """Context in which a thread waits for keys; a folder of None is one that no other process can look into."""

    def __init__(self, folder: tp.Any, keys: Sequence[str]) -> None:
        self._chain = _chain.get()
        self._folder, self._keys = folder, keys
        self._id = next(_ids)
        self._gave_back = self._noted = False
        self._next_look = NOTE
        self._suspected: list[str] = []

    @property
    def matters(self) -> bool:
        """Whether there is anything to be done meanwhile."""
        return bool(self._chain)

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(self, *args: object) -> None:
        if self._noted:
            self._note(None)

    def look(self, waited: float) -> None:
        """To be called now and then, with the seconds waited so far; raises ReentrantClaimError for a circle."""
        if not self._chain:
            return
        if not self._gave_back and waited >= GIVE_BACK:
            self._gave_back = True
            for batch in self._chain:
                batch.give_back(batch.unstarted())
        if self._folder is not None and waited >= self._next_look:
            self._next_look = waited + NOTE
            if not self._noted:
                self._noted = True
                self._note((_normal(self._folder), list(self._keys[:MOST])))
            self._look_for_circle()

    def _note(self, wanted: tuple[str, list[str]] | None) -> None:
        for batch in self._chain:
            if batch.claim is not None and (batch.taken or wanted is None):
                wait = None if wanted is None else Wait(list(batch.taken)[:MOST], *wanted)
                with contextlib.suppress(ClaimLostError, OSError):
                    batch.claim.note_wait(self._id, wait)

    def _look_for_circle(self) -> None:
        found = self._circle()
        if found and found == self._suspected:  # a note may be a moment older than what it waits for
            raise ReentrantClaimError(
                "Computations wait for each other in a circle, and would for ever: "
                + ", which needs ".join(found)
                + ". Break the circle: one of them must do without the result of the next."
            )
        self._suspected = found

    def _circle(self) -> list[str]:
        """The steps of a circle, each with the owner of its claim; empty where there is none."""
        mine: dict[str, set[str]] = {}
        for batch in self._chain:
            mine.setdefault(batch.folder or "", set()).update(set(batch.taken) - batch.given)
        pending: list[tuple[str, frozenset[str], list[str]]] = []
        pending.append((_normal(self._folder), frozenset(self._keys), []))
        seen: set[tuple[str, str]] = set()
        while pending:
            folder, keys, path = pending.pop()
            files = ClaimFolder(folder)
            for entry in protocol.look(files):
                held = frozenset(protocol.shared(entry, keys))
                for wait in entry.waits if entry.trusted else ():
                    blocked = sorted(held.intersection(wait.keys))
                    if not blocked or (entry.name, wait.folder) in seen:
                        continue
                    seen.add((entry.name, wait.folder))
                    who = "" if entry.owner is None else f" ({entry.owner.describe()})"
                    steps = [*path, _name(folder, blocked[0]) + who]
                    closing = sorted(mine.get(wait.folder, set()).intersection(wait.wanted))
                    if closing:
                        return [
                            *self._way_here(wait.folder, closing[0]),
                            *steps,
                            _name(wait.folder, closing[0]),
                        ]
                    pending.append((wait.folder, frozenset(wait.wanted), steps))
        return []

    def _way_here(self, folder: str, key: str) -> list[str]:
        """From a key that this thread computes to what waits now: each asked for the next."""
        numbers = [n for n, b in enumerate(self._chain) if b.folder == folder and key in b.taken]
        inner = [b for b in self._chain[numbers[0] + 1 :] if b.taken] if numbers else []
        return [_name(folder, key), *(_name(b.folder or "", b.taken[0]) for b in inner)]


def _name(folder: str, key: str) -> str:
    return f"{key!r} in {folder}"


def _normal(folder: tp.Any) -> str:
    return str(os.path.abspath(folder))
