"""Identity: from a configuration to its uid, and all that keeps the two true to each other."""

from .export import export as export
