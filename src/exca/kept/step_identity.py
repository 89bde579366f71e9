"""What the published release has of the identity of steps, as `exca.steps.identity`."""

import typing as tp
from pathlib import Path

from ..steps import addresses
from .typing import StepMode as ModeType

if tp.TYPE_CHECKING:
    from ..steps.base import Step

__all__ = [
    "MAX_STEP_UID_LENGTH",
    "STEP_UID_TAIL_BUDGET",
    "ModeType",
    "NoValue",
    "materialize_uid",
    "step_uid",
    "write_configs",
]

MAX_STEP_UID_LENGTH = addresses.MAX_ADDRESS
STEP_UID_TAIL_BUDGET = addresses.MAX_FOLDED
NoValue: type[addresses.NoInput] = type(addresses.NO_INPUT)


def materialize_uid(step: "Step", value: tp.Any) -> str:
    """Return the key under which the result for a value is kept."""
    return addresses.key_of(step, value)


def step_uid(steps: "tp.Sequence[Step]") -> str:
    """Return the folder of the results of steps that run one after the other, below the folder of their infra."""
    if not steps:
        return ""
    lineage = _lineage(steps)
    return tp.cast(str, lineage.address(len(lineage.steps)))


def write_configs(step_folder: Path, aligned_steps: "tp.Sequence[Step]", *, write: bool = True) -> None:
    """Check the configuration files in the folder of a step, and write those that are missing.

    Raises
    ------
    RuntimeError
        if the folder holds another configuration, or a default changed
    """
    from ..identity import configfolder

    lineage = _lineage(aligned_steps)
    configfolder.ensure_config_folder(
        Path(step_folder),
        uid_config=lineage.configs(),
        full_uid_config=lineage.full_configs,
        config=lineage.everything,
        create=write,
    )


def _lineage(steps: "tp.Sequence[Step]") -> tp.Any:
    from ..steps.base import Chain
    from ..steps.pipeline import compiled

    return compiled(Chain(steps=list(steps))).lineage
