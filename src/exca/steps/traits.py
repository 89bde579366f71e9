"""What the methods of a step class tell about it, read once from their signatures."""

import dataclasses
import inspect
import typing as tp

_WAYS = ("_run", "_run_batch", "_run_items", "_resolve_step")


@dataclasses.dataclass(frozen=True)
class Traits:
    """What is known of a step class before there is an object.

    Parameters
    ----------
    runnable: bool
        whether there is anything to run
    needs_input: bool
        whether it cannot run without a value
    takes_input: bool
        whether it can take a value at all
    batched: bool
        whether it computes batches in a way of its own
    resolves: bool
        whether another step may run in its place
    """

    runnable: bool = False
    needs_input: bool = True
    takes_input: bool = True
    batched: bool = False
    resolves: bool = False


def read(cls: type, root: type) -> Traits:
    """Read the traits of a class.

    Parameters
    ----------
    cls: type
        the class
    root: type
        the class whose methods count as not written
    """
    own = {name: getattr(cls, name) is not getattr(root, name) for name in _WAYS}
    needs, takes = signature_traits(cls._run) if own["_run"] else (True, True)  # type: ignore[attr-defined] # of a Step
    return Traits(
        runnable=any(own.values()),
        needs_input=needs,
        takes_input=takes,
        batched=own["_run_batch"] or own["_run_items"],
        resolves=own["_resolve_step"],
    )


def signature_traits(function: tp.Any) -> tuple[bool, bool]:
    """Tell whether a method needs a value, and whether it takes one.

    Parameters
    ----------
    function: callable
        method whose first parameter is the object

    Raises
    ------
    TypeError
        if it needs more than one value
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise TypeError(
            f"{function.__qualname__} takes {', '.join(p.name for p in required)}, but a step computes from one value: "
            "make the others fields of the step, or give them defaults"
        )
    takes = bool(positional) or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return bool(required), takes
