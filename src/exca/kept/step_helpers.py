"""What the published release has around steps, as `exca.steps.utils`."""

import contextlib
import inspect
import typing as tp
from pathlib import Path

import pydantic

from ..steps import inquiry

if tp.TYPE_CHECKING:
    from ..steps.base import Step

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


@contextlib.contextmanager
def capture_logs(log_folder: Path | None) -> tp.Iterator[None]:
    """Write what is printed inside the context also into a folder; do nothing where there is none.

    Parameters
    ----------
    log_folder: Path, optional
        the folder
    """
    if log_folder is None:
        yield
        return
    from ..steps.run import printing_to

    with printing_to(Path(log_folder)):
        yield


def get_infra_folder(step: "Step") -> Path | None:
    """Return the folder of the infra of a step, if it has both.

    Parameters
    ----------
    step: Step
        the step
    """
    return None if step.infra is None else tp.cast("Path | None", step.infra.folder)


def has_all_defaults(method: tp.Callable[..., tp.Any]) -> bool:
    """Tell whether a function can be called without arguments, and has no ``*args`` or ``**kwargs``.

    Parameters
    ----------
    method: callable
        the function
    """
    parameters = inspect.signature(method).parameters.values()
    return all(parameter.default is not inspect.Parameter.empty for parameter in parameters)


def nested_steps(step: "Step") -> "dict[str, Step]":
    """Return the steps in the fields of a step, by dotted path.

    Parameters
    ----------
    step: Step
        the step
    """
    found: dict[str, Step] = {}
    for field, content in inquiry.parts_of(step):
        if isinstance(content, list):
            found |= {f"{field}.{name or number}": sub for number, (name, sub) in enumerate(content)}
        else:
            found[field] = content
    return found


def propagate_folder(step: "Step", parent_folder: Path) -> None:
    """Set a folder on the infra of a step, where it has one and no folder yet.

    Parameters
    ----------
    step: Step
        the step
    parent_folder: Path
        the folder
    """
    if step.infra is not None and step.infra.folder is None:
        step.infra = step.infra.model_copy(update={"folder": parent_folder})


def resolved_step(step: "Step") -> "Step":
    """Return what runs in place of a step: itself, or what its ``_resolve_step`` returns at last.

    Parameters
    ----------
    step: Step
        the step

    Raises
    ------
    ResolutionError
        if it resolves to itself
    """
    from ..steps.pipeline import resolved

    return resolved(step)


def step_label(step: "Step") -> str:
    """Return the class of a step, what differs from its defaults, and its infra, in one line.

    Parameters
    ----------
    step: Step
        the step
    """
    return inquiry.title(step, {field for field, _ in inquiry.parts_of(step)}, {})


def step_lines(step: "Step") -> list[str]:
    """Return the lines of the tree of a step.

    Parameters
    ----------
    step: Step
        the step
    """
    return list(inquiry.tree_lines(step, "", {}))


def _unchanged(value: tp.Any) -> tp.Any:
    return value


# models hand nothing to the steps in them but through the steps themselves
infra_validator_after: tp.Any = pydantic.model_validator(mode="after")(_unchanged)
infra_validator_before: tp.Any = pydantic.model_validator(mode="before")(_unchanged)
