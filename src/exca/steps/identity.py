"""Where the published release has the identity of steps: kept for dependants."""

from ..kept.step_identity import (
    MAX_STEP_UID_LENGTH,
    STEP_UID_TAIL_BUDGET,
    ModeType,
    NoValue,
    materialize_uid,
    step_uid,
    write_configs,
)

__all__ = [
    "MAX_STEP_UID_LENGTH",
    "STEP_UID_TAIL_BUDGET",
    "ModeType",
    "NoValue",
    "materialize_uid",
    "step_uid",
    "write_configs",
]
