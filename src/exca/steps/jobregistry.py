"""Import path of earlier releases, kept for dependants."""

from ..kept.steps import JobInfo, JobRegistry

__all__ = ["JobInfo", "JobRegistry"]
