"""Which process computes what now, where the published release has it: kept for dependants."""

from ..kept.inflight import (
    InflightClaim,
    InflightRegistry,
    Liveness,
    Pid,
    Slurm,
    WorkerInfo,
    after_wait_log,
    inflight_session,
    logger,
)

__all__ = [
    "InflightClaim",
    "InflightRegistry",
    "Liveness",
    "Pid",
    "Slurm",
    "WorkerInfo",
    "after_wait_log",
    "inflight_session",
    "logger",
]
