"""From what is written where a step is expected to steps, and the checks of a chain."""

import pickle
import typing as tp
from collections import OrderedDict
from collections.abc import Mapping

import pydantic

from .. import identity
from ..identity.choices import AmbiguousNameError, choices, find

if tp.TYPE_CHECKING:
    from .base import Chain, Step

_adapters: dict[tp.Any, tuple[pydantic.TypeAdapter[tp.Any], pydantic.TypeAdapter[tp.Any]]] = {}


def coerce(cls: "type[Step]", value: tp.Any) -> tp.Any:
    """Convert a sequence of steps, or a dict of named steps, to a chain.

    Parameters: `cls` the class that is expected; `value` anything but an object of it.
    """
    if isinstance(value, list | tuple):
        return cls._exca_chain_class(steps=value)
    if isinstance(value, Mapping) and cls._exca_discriminator_key not in value:
        if _names_steps(cls, value):
            return cls._exca_chain_class(steps=OrderedDict(value))
        if not cls._exca_traits.runnable:
            known = ", ".join(name for name in choices(cls) if name != cls.__name__)
            raise ValueError(
                f"no {cls._exca_discriminator_key!r} says which step {dict(value)!r} is; known ones: "
                f"{known or 'none yet'}"
            )
    return value


def _names_steps(cls: "type[Step]", value: Mapping[tp.Any, tp.Any]) -> bool:
    """Whether a dict is one of steps by name, not one of the fields of a step."""
    from .base import Step

    if (
        not value
        or cls._exca_discriminator_key in value
        or not value.keys().isdisjoint(cls.__pydantic_fields__)
    ):
        return False
    keys = {cls._exca_discriminator_key, Step._exca_discriminator_key}
    return all(
        isinstance(sub, Step | str | list | tuple)
        or (isinstance(sub, Mapping) and (not keys.isdisjoint(sub) or _names_steps(cls, sub)))
        for sub in value.values()
    )


def as_fields(step: "Step") -> dict[str, tp.Any]:
    """Return what an equal step can be made of, with the steps of a chain as dicts, so that they can be patched.

    Parameters: `step` any.
    """
    from .base import Chain

    fields = identity.as_input(step)
    if isinstance(step, Chain):
        steps = step.__dict__["steps"]
        if isinstance(steps, dict):
            fields["steps"] = OrderedDict((name, _as_member(sub)) for name, sub in steps.items())
        else:
            fields["steps"] = [_as_member(sub) for sub in steps]
    return fields


def _as_member(step: "Step") -> tp.Any:
    from .base import Step

    kind = type(step)
    try:
        by_name = find(Step, kind.__name__) is kind
    except AmbiguousNameError:
        by_name = False
    if not by_name:
        return step.model_copy(deep=True)
    return {kind._exca_discriminator_key: kind.__name__, **as_fields(step)}


def read_steps(base: "type[Step]", value: tp.Any) -> tp.Any:
    """Read the steps of a chain.

    Parameters: `base` the class of steps that the chain is for; `value` what was given.
    Returns: a list, a tuple or an OrderedDict of steps.
    """
    if base not in _adapters:
        member = _member(base)
        _adapters[base] = (
            pydantic.TypeAdapter(tp.cast(tp.Any, list)[member]),
            pydantic.TypeAdapter(tp.cast(tp.Any, OrderedDict)[str, member]),
        )
    sequence, mapping = _adapters[base]
    if isinstance(value, Mapping):
        steps = mapping.validate_python(OrderedDict(value))
    elif isinstance(value, list | tuple):
        steps = sequence.validate_python(list(value))
        steps = tuple(steps) if isinstance(value, tuple) else steps
    elif isinstance(value, str) or not isinstance(value, tp.Iterable):
        raise ValueError(  # noqa: TRY004  # pydantic reports these as errors of the field
            f"steps must be a list, tuple or dict of steps, not {value!r}: write steps=[{value!r}] for a single one"
        )
    else:
        steps = sequence.validate_python(list(value))
    if not steps:
        raise ValueError("a chain needs at least one step, but steps is empty")
    return steps


def _member(base: "type[Step]") -> tp.Any:
    """The annotation of one step in a chain: of the chain's hierarchy, or any other that says so."""
    from .base import Step

    if base is Step:
        return Step
    own, other = base._exca_discriminator_key, Step._exca_discriminator_key
    foreign = pydantic.TypeAdapter(Step)

    def read(value: tp.Any, handler: tp.Any) -> tp.Any:
        if isinstance(value, Step) and not isinstance(value, base):
            return value
        if isinstance(value, Mapping) and own not in value and other in value:
            return foreign.validate_python(value)
        return handler(value)

    return tp.Annotated[base, pydantic.WrapValidator(read)]


def hand_folder(chain: "Chain") -> None:
    """Give the folder of a chain to its steps that have an infra and no folder; steps that are changed are copied."""
    if chain.infra is None or chain.infra.folder is None:
        return
    folder = chain.infra.folder
    steps = chain.__dict__["steps"]
    pairs = list(steps.items()) if isinstance(steps, dict) else list(enumerate(steps))
    new = [(key, _with_folder(step, folder)) for key, step in pairs]
    if all(step is old for (_, step), (_, old) in zip(new, pairs, strict=True)):
        return
    if isinstance(steps, dict):
        vars(chain)["steps"] = OrderedDict(tp.cast("list[tuple[str, Step]]", new))
    else:
        vars(chain)["steps"] = type(steps)(step for _, step in new)


def _with_folder(step: "Step", folder: tp.Any) -> "Step":
    from .base import Chain

    if step.infra is not None:
        if step.infra.folder is not None:
            return step
        step = step.model_copy(update={"infra": step.infra.model_copy(update={"folder": folder})})
        if isinstance(step, Chain):
            hand_folder(step)
    elif isinstance(step, Chain):
        subs = step.__dict__["steps"]
        values = list(subs.values()) if isinstance(subs, dict) else list(subs)
        new = [_with_folder(sub, folder) for sub in values]
        if any(sub is not old for sub, old in zip(new, values, strict=True)):
            made = OrderedDict(zip(subs, new, strict=True)) if isinstance(subs, dict) else type(subs)(new)
            step = step.model_copy(update={"steps": made})
    return step


def check_chain(chain: "Chain") -> None:
    """Check what no single step can tell.

    Parameters: `chain` with its steps in place.
    Raises: ValueError for a step that can never get or give what its place asks for.
    """
    before: list[Step] = []
    for number, step in enumerate(chain.step_list):
        if step._exca_alone:
            raise ValueError(
                f"{type(step).__name__} (step {number}) gives no output and cannot be part of a chain: run it by itself"
            )
        if number and not step._exca_traits.resolves and not step.takes_input():
            raise ValueError(
                f"{type(step).__name__} (step {number}) takes no input, so it can only be the first step of a chain: "
                "give its _run a parameter, or put it first"
            )
        if step.infra is not None:
            if not step.infra.inline:
                _check_sendable(before, number, step)
            before = []
        else:
            before.append(step)


def _check_sendable(before: "list[Step]", number: int, step: "Step") -> None:
    """Check that the steps whose outputs are not kept can travel with the one that runs in another process."""
    if step.infra.cluster in ("threadpool", "debug"):
        return
    for k, sub in enumerate(before):
        try:
            _try_pickling(sub)
        except Exception as error:
            raise ValueError(
                f"{type(step).__name__} (step {number}) runs off-process ({step.infra.name}), and the output of "
                f"{type(sub).__name__} (step {number - len(before) + k}) before it is not cached, so that step has to "
                f"be sent along, but it cannot be pickled: {error}. Give it an infra of its own, so that its "
                "output is cached"
            ) from error


def _try_pickling(step: "Step") -> None:
    state = {
        **step.__dict__,
        **{k: v for k, v in (step.__pydantic_private__ or {}).items() if k != "_exca_state"},
    }
    state.pop("infra", None)
    try:
        pickle.dumps(state)
    except Exception:
        import cloudpickle  # also takes what is defined in __main__ and in functions

        cloudpickle.dumps(state)
