"""From asked to stored, exactly once: look up, claim what is missing, run it, wait for what others run, look again."""

import typing as tp
from pathlib import Path

if tp.TYPE_CHECKING:
    from ..claims import Claim, Holder

Advance = tp.Callable[[int], None]  # called with the number of items that are done since the last call


class Work(tp.Protocol):
    """Keyed results in a folder, and the way to compute them."""

    @property
    def folder(self) -> Path:
        """Folder of the claims on the keys."""
        ...

    def missing(self, keys: tp.Sequence[str], /) -> list[str]:
        """Those of the keys that have no result yet, in order."""
        ...

    def execute(self, claim: "Claim", keys: tp.Sequence[str]) -> None:
        """Compute these claimed keys, here or in jobs, and return when that is done."""


class Claimed(tp.NamedTuple):
    """What came of claiming: the claim with the keys to compute under it, if any, and the holders of the others."""

    claim: "Claim | None"
    keys: list[str]
    held: "dict[str, Holder]"


def claim_missing(
    folder: Path, keys: tp.Sequence[str], missing: tp.Callable[[tp.Sequence[str]], list[str]]
) -> Claimed:
    """Claim the keys of a folder that no other process computes and that are still missing then."""
    from ..claims import Claims

    claim, held = Claims(folder).acquire(keys)
    if claim is None:
        return Claimed(None, [], held)
    mine: list[str] = []
    try:
        mine = missing(claim.keys)  # another process may have finished between our look and our claim
    finally:
        if not mine:
            claim.release()
    return Claimed(claim if mine else None, mine, held)


def compute_once(work: Work, keys: tp.Sequence[str]) -> None:
    """Return when every key has a result, computing those that no other process computes."""
    from ..claims import Claims, chain

    remaining = work.missing(keys)
    while remaining:
        chain.let_nested_compute(work.folder, remaining)
        claim, mine, held = claim_missing(work.folder, remaining, work.missing)
        if claim is not None:
            with claim, chain.under(claim):
                work.execute(claim, mine)
        if held:
            others = [key for key in remaining if key in held]
            # computed in order, so that the last one comes last
            Claims(work.folder).wait(
                others,
                done=lambda: not work.missing(others[-1:]),  # noqa: B023 # called right here
                missing=work.missing,
            )
        remaining = work.missing(remaining)
