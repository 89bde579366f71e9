"""Looking at all that lies in a cache folder, and mending what is broken without touching what is good."""

from .repairing import Repairs, repair
from .report import Damaged, FolderReport, Report
from .walking import verify

__all__ = ["Damaged", "FolderReport", "Repairs", "Report", "repair", "verify"]
