"""From what is written where a step is expected to steps, and the checks of a chain."""

import operator
import pickle
import typing as tp
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import pydantic

from .. import identity
from ..identity.discriminated import choices, is_found

if tp.TYPE_CHECKING:
    from .base import Chain, Step

_PLAIN: tp.Final = frozenset((str, int, float, bool, bytes, type(None)))  # hold no steps
_adapters: dict[tp.Any, tuple[pydantic.TypeAdapter[tp.Any], pydantic.TypeAdapter[tp.Any]]] = {}


def coerce(cls: "type[Step]", value: tp.Any) -> tp.Any:
    """Convert a sequence of steps, or a dict of named steps, to a chain."""
    if isinstance(value, list | tuple):
        return cls._exca_chain_class(steps=value)
    if isinstance(value, Mapping) and cls._exca_discriminator_key not in value:
        if _names_steps(cls, value):
            return cls._exca_chain_class(steps=OrderedDict(value))
        if not cls._exca_traits.runnable:
            known = ", ".join(name for name in choices(cls) if name != cls.__name__)
            raise ValueError(
                f"{dict(value)!r} has no {cls._exca_discriminator_key!r}, which names the class of a step; "
                f"known classes: {known or 'none yet'}"
            )
    return value


def _names_steps(cls: "type[Step]", value: Mapping[tp.Any, tp.Any]) -> bool:
    """Whether a dict is one of steps by name, not one of the fields of a step."""
    root = cls._exca_root
    if (
        not value
        or cls._exca_discriminator_key in value
        or not value.keys().isdisjoint(cls.__pydantic_fields__)
    ):
        return False
    keys = {cls._exca_discriminator_key, root._exca_discriminator_key}
    return all(
        isinstance(sub, (root, str, list, tuple))
        or (isinstance(sub, Mapping) and (not keys.isdisjoint(sub) or _names_steps(cls, sub)))
        for sub in value.values()
    )


def as_fields(step: "Step", wanted: int = identity.PATCHABLE) -> dict[str, tp.Any]:
    """Return what an equal step can be made of, with the steps of a chain as dicts, so that they can be patched."""
    fields = identity.as_input(step, wanted)
    if step._exca_is_chain:
        steps = step.__dict__["steps"]
        if isinstance(steps, dict):
            fields["steps"] = OrderedDict((name, _as_member(sub, wanted)) for name, sub in steps.items())
        else:
            fields["steps"] = [_as_member(sub, wanted) for sub in steps]
    return fields


def _as_member(step: "Step", wanted: int) -> tp.Any:
    kind = type(step)
    if not is_found(step._exca_root, kind):
        return step.model_copy(deep=True)
    return {kind._exca_discriminator_key: kind.__name__, **as_fields(step, wanted)}


def read_steps(base: "type[Step]", value: tp.Any) -> tp.Any:
    """Read the steps of a chain."""
    if base not in _adapters:
        member = _member(base)
        _adapters[base] = (
            pydantic.TypeAdapter(tp.cast(tp.Any, list)[member]),
            pydantic.TypeAdapter(tp.cast(tp.Any, OrderedDict)[str, member]),
        )
    sequence, mapping = _adapters[base]
    if isinstance(value, Mapping):
        steps = mapping.validate_python(OrderedDict(value))
    elif isinstance(value, str) or not isinstance(value, tp.Iterable):
        raise ValueError(  # noqa: TRY004  # pydantic reports these as errors of the field
            f"steps must be a list, tuple or dict of steps, not {value!r}: write steps=[{value!r}] for a single one"
        )
    else:
        steps = sequence.validate_python(list(value))
        steps = tuple(steps) if isinstance(value, tuple) else steps
    if not steps:
        raise ValueError("a chain needs at least one step, but steps is empty")
    return steps


def _member(base: "type[Step]") -> tp.Any:
    """The annotation of one step in a chain: of the chain's hierarchy, or of the one that a dict names."""
    root = base._exca_root
    if base is root:
        return root
    own, other = base._exca_discriminator_key, root._exca_discriminator_key
    foreign = pydantic.TypeAdapter(root)

    def read(value: tp.Any, handler: tp.Any) -> tp.Any:
        if isinstance(value, root) and not isinstance(value, base):
            return value
        if isinstance(value, Mapping) and own not in value and other in value:
            return foreign.validate_python(value)
        return handler(value)

    return tp.Annotated[base, pydantic.WrapValidator(read)]


def hand_folder(step: "Step") -> None:
    """Give the folder of a step to the steps in its fields that have an infra and no folder.

    These are found in lists, dicts and other models, too. What is changed is copied: the caller's objects stay.
    """
    if step.infra is not None and step.infra.folder is not None:
        fields, extra = _changes(step, step.infra.folder, step._exca_root)
        vars(step).update(fields)
        (step.__pydantic_extra__ or {}).update(extra)


def _changes(
    model: pydantic.BaseModel, folder: Path, root: "type[Step]"
) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
    """Return the fields of a model that hold steps without folder, and such extra ones, with the folder."""
    return _changed(vars(model), folder, root), _changed(model.__pydantic_extra__ or {}, folder, root)


def _changed(values: Mapping[str, tp.Any], folder: Path, root: "type[Step]") -> dict[str, tp.Any]:
    new = {k: _with_folder(value, folder, root) for k, value in values.items() if type(value) not in _PLAIN}
    return {k: value for k, value in new.items() if value is not values[k]}


def _with_folder(value: tp.Any, folder: Path, root: "type[Step]") -> tp.Any:
    """Return a value whose steps have the folder: itself where there is nothing to change, else a copy."""
    if isinstance(value, pydantic.BaseModel):
        return _model_with_folder(value, folder, root)
    kind = type(value)
    if kind in (list, tuple):
        new = [_with_folder(part, folder, root) for part in value]
        return value if all(map(operator.is_, new, value)) else kind(new)
    if kind in (dict, OrderedDict):
        pairs = [(key, _with_folder(part, folder, root)) for key, part in value.items()]
        same = all(new is old for (_, new), old in zip(pairs, value.values(), strict=True))
        return value if same else kind(pairs)
    return value


def _model_with_folder(model: pydantic.BaseModel, folder: Path, root: "type[Step]") -> pydantic.BaseModel:
    infra = model.infra if isinstance(model, root) else None
    if infra is not None and infra.folder is not None:
        return model  # and has handed that on
    fields, extra = _changes(model, folder, root)
    if infra is not None:
        fields["infra"] = infra.model_copy(update={"folder": folder})
    if not fields and not extra:
        return model
    copied = model.model_copy()
    vars(copied).update(fields)  # beside the fields that were set: the user did not choose this folder for it
    (copied.__pydantic_extra__ or {}).update(extra)
    return copied


def check_chain(chain: "Chain") -> None:
    """Check what no single step can tell."""
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
            if step.infra.cluster is not None:
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
    state = {**step.__dict__, **(step.__pydantic_private__ or {})}
    for name in ("infra", "_exca_state"):
        state.pop(name, None)
    try:
        pickle.dumps(state)
    except Exception:
        import cloudpickle  # also takes what is defined in __main__ and in functions

        cloudpickle.dumps(state)
