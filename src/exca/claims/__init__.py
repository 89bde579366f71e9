"""Who computes what right now: exactly one owner per key, taken over when it died."""

from .claims import Claim, Claims, FirstClaim, Holder
from .owner import Owner
from .scheduler import JobState, job_states

__all__ = ["Claim", "Claims", "FirstClaim", "Holder", "JobState", "Owner", "job_states"]
