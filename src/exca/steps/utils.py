"""Where the published release has helpers around steps: kept for dependants."""

from ..kept.step_helpers import (
    capture_logs,
    get_infra_folder,
    has_all_defaults,
    infra_validator_after,
    infra_validator_before,
    nested_steps,
    propagate_folder,
    resolved_step,
    step_label,
    step_lines,
)

__all__ = [
    "capture_logs",
    "get_infra_folder",
    "has_all_defaults",
    "infra_validator_after",
    "infra_validator_before",
    "nested_steps",
    "propagate_folder",
    "resolved_step",
    "step_label",
    "step_lines",
]
