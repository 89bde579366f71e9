"""Plain functions whose results are kept by their arguments: `cached`, and `map_cached` for one item at a time."""

from .items import MappedFunction, map_cached
from .tasks import CachedFunction, Call, Calls, cached

__all__ = ["CachedFunction", "Call", "Calls", "MappedFunction", "cached", "map_cached"]
