"""Who computes what right now: exactly one owner per key, taken over when it died."""

from .claims import Claim, Claims, FirstClaim, Holder
from .owner import Owner

__all__ = ["Claim", "Claims", "FirstClaim", "Holder", "Owner"]
