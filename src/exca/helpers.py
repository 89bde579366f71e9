"""Helpers around infras: configurations from functions, jobs from their ids, models picked by a name."""

import typing as tp

from .identity import DiscriminatedModel
from .infra.earlier_uids import update_uids
from .infra.find_job import InfraSlurmJob, find_slurm_job
from .infra.from_function import (
    FuncConfig,
    FuncConfigProtocol,
    FunctionWithInfra,
    to_config,
    to_config_model,
    with_infra,
)
from .infra.signature import validate_kwargs

__all__ = [
    "DiscriminatedModel",
    "FuncConfig",
    "FuncConfigProtocol",
    "FunctionWithInfra",
    "InfraSlurmJob",
    "find_slurm_job",
    "to_config",
    "to_config_model",
    "update_uids",
    "validate_kwargs",
    "with_infra",
]


if not tp.TYPE_CHECKING:

    def __getattr__(name: str) -> tp.Any:  # kept for dependants: names of earlier releases
        if name.startswith("__"):
            raise AttributeError(name)
        from . import kept

        return kept.lookup(__name__, name)
