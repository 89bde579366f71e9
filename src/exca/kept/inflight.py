"""Which process computes what now, as the published releases had it, over our claims."""

import contextlib
import dataclasses
import logging
import os
import time
import typing as tp
from pathlib import Path

from .. import _files
from ..claims import Claim, Holder
from ..identity import DiscriminatedModel
from ..jobs.slurm_queue import job_states
from .registries import AdvisoryRegistry

__all__ = [
    "InflightClaim",
    "InflightRegistry",
    "Liveness",
    "Pid",
    "Slurm",
    "WorkerInfo",
    "after_wait_log",
    "inflight_session",
]

logger: logging.Logger = logging.getLogger("exca.cachedict.inflight")


class Liveness(DiscriminatedModel):
    """By what one can tell whether a worker is alive."""

    def is_alive(self) -> bool | None:
        """Return whether it is alive; None where that cannot be told."""
        return None

    @classmethod
    def here(cls) -> "Liveness | None":
        """Return that of this process."""
        return Slurm.here() or Pid.here()


class Pid(Liveness):
    """A process.

    Parameters
    ----------
    host: str
        name of its machine
    pid: int
        its number there
    """

    host: str
    pid: int

    def is_alive(self) -> bool | None:
        """Return whether it is there; None on another machine."""
        import psutil

        return psutil.pid_exists(self.pid) if self.host == _files.host_name() else None

    @classmethod
    def here(cls) -> "Pid":
        """Return this process."""
        return cls(host=_files.host_name(), pid=os.getpid())


class Slurm(Liveness):
    """A job of Slurm.

    Parameters
    ----------
    job_id: str
        its id
    """

    job_id: str

    def is_alive(self) -> bool | None:
        """Return whether Slurm holds or runs it; None where Slurm does not answer."""
        return job_states([self.job_id])[self.job_id].alive

    @classmethod
    def here(cls) -> "Slurm | None":
        """Return the job that this process runs in, if any."""
        job_id = os.environ.get("SLURM_JOB_ID")
        return None if job_id is None else cls(job_id=job_id)


@dataclasses.dataclass
class WorkerInfo:
    """Who computes something.

    Parameters
    ----------
    token: str
        under which it was claimed
    liveness: Liveness
        by what one can tell whether the worker is alive
    claimed_at: float, optional
        when it was claimed
    """

    token: str
    liveness: Liveness
    claimed_at: float | None = None
    holder: Holder | None = None

    def is_alive(self, no_job_timeout: float = 600.0) -> bool:
        """Return whether the worker is alive.

        Parameters
        ----------
        no_job_timeout: float
            seconds after which a worker of which nothing can be told counts as dead
        """
        if self.holder is not None:
            return self.holder.alive()
        alive = self.liveness.is_alive()
        return alive if alive is not None else time.time() - (self.claimed_at or 0) < no_job_timeout


class InflightRegistry(AdvisoryRegistry):
    """Who computes the keys of a folder now.

    Parameters
    ----------
    folder: Path or str
        the folder
    worker: WorkerInfo, optional
        taken for compatibility: claims know their process
    """

    def __init__(self, folder: Path | str, worker: WorkerInfo | None = None) -> None:
        super().__init__(folder)
        self._held: dict[str, Claim] = {}

    def claim(self, item_uids: list[str]) -> list[str]:
        """Claim keys, and return those that no other process or thread computes.

        Parameters
        ----------
        item_uids: list of str
            the keys
        """
        new = [uid for uid in item_uids if uid not in self._held]
        if new:
            self.folder.mkdir(parents=True, exist_ok=True)
        for uid in new:  # one by one, so that each can be released by itself
            claim, _ = self.claims.acquire([uid])
            if claim is not None:
                self._held[uid] = claim
        return [uid for uid in item_uids if uid in self._held]

    def release(self, item_uids: list[str]) -> None:
        """Give keys back.

        Parameters
        ----------
        item_uids: list of str
            the keys
        """
        for uid in item_uids:
            claim = self._held.pop(uid, None)
            if claim is not None:
                claim.release()

    def get(self, item_uids: list[str] | None = None) -> dict[str, WorkerInfo]:
        """Return who computes keys.

        Parameters
        ----------
        item_uids: list of str, optional
            the keys; all by default
        """
        holders = self.claims.holders(item_uids)
        return {uid: WorkerInfo(holder.token, Liveness(), None, holder) for uid, holder in holders.items()}

    def wait_for_inflight(self, item_uids: list[str]) -> None:
        """Wait until no other living process computes any of the keys.

        Parameters
        ----------
        item_uids: list of str
            the keys
        """
        theirs = [uid for uid in item_uids if uid not in self._held]
        self.claims.wait(
            theirs, done=lambda: not any(h.alive() for h in self.claims.holders(theirs).values())
        )

    def close(self) -> None:
        """Give back all that is held."""
        self.release(list(self._held))


@dataclasses.dataclass
class InflightClaim:
    """Keys that were claimed for a while.

    Parameters
    ----------
    uids: tuple of str
        the keys
    waited: bool
        whether others were waited for
    """

    uids: tuple[str, ...]
    waited: bool = False
    worker: WorkerInfo | None = None
    folder: Path | None = None


@contextlib.contextmanager
def inflight_session(
    reg: InflightRegistry | None, item_uids: tp.Collection[str]
) -> tp.Iterator[InflightClaim]:
    """Claim keys for the time of the context, once no other process or thread computes them.

    Parameters
    ----------
    reg: InflightRegistry, optional
        of their folder; without it nothing is claimed
    item_uids: collection of str
        the keys
    """
    uids = list(item_uids)
    if reg is None:
        yield InflightClaim(tuple(uids))
        return
    waited = False
    try:
        while len(reg.claim(uids)) < len(uids):
            waited = True
            reg.release(uids)  # a waiting process holds nothing, so that no two can wait for each other
            reg.wait_for_inflight(uids)
        yield InflightClaim(tuple(uids), waited, folder=reg.folder)
    finally:
        reg.release(uids)


def after_wait_log(name: str, before: int, after: int) -> None:
    """Log how many keys others have computed meanwhile.

    Parameters
    ----------
    name: str
        of what is computed
    before, after: int
        how many keys were missing before and after waiting
    """
    logger.debug("%s: others computed %d of %d", name, before - after, before)
