"""From an object to its configuration: everything, or what its uid is made of."""

import collections.abc
import typing as tp

import pydantic

from ..errors import ExportError, IdentityError
from . import exclusions, secrets
from .scalars import DROPPED, is_model
from .shapes import DISCRIMINATORS
from .values import ValueExporter, exporter


def export(
    obj: pydantic.BaseModel,
    *,
    uid: bool = False,
    exclude_defaults: bool = False,
    exclude: tp.Collection[str] = (),
    ignore_first_discriminator: bool = True,
    ignore_first_override: bool = False,
) -> dict[str, tp.Any]:
    """Returns the configuration of an object, as nested plain dicts of JSON values.

    Parameters
    ----------
    obj: the object
    uid: leave out what the object and its sub-models exclude from their uids, and sub-models that equal their
        default after that
    exclude_defaults: leave out fields that equal their default; discriminators stay
    exclude: names to leave out of the outcome, with dots for parts of it; what is not there needs no leaving out
    ignore_first_discriminator: leave out, at its default, the field by which the discriminated unions met so far
        would know the object (the key of a `DiscriminatedModel` is always written)
    ignore_first_override: do not call `_exca_uid_dict_override` of the object itself, so that it can build on this

    Returns
    -------
    A dict of fresh values. An OrderedDict stays one, sets are sorted by text, keys with dots are split into dicts
    (but where nothing at all is left out).

    Raises
    ------
    IdentityError: a model leaves `extra` unset, or a union of models has no discriminator (both only where `uid` and
        `exclude_defaults` are asked for), or a plain BaseModel is part of the object
    ExclusionError: a name that a class excludes is no field of it
    ExportError: a value has no JSON form
    """
    values = exporter(bool(uid), bool(exclude_defaults))
    out = _exported(values, obj, ignore_first_override)
    if not ignore_first_discriminator:
        _add_discriminator(obj, out)
    for name in exclusions.checked(type(obj), exclude) if exclude else ():
        _leave_out(out, name)
    if values.noticed.secrets:
        values.noticed.secrets = False
        if uid and exclude_defaults:
            secrets.warn_of_shared(obj, out)
    return out


def _exported(
    values: ValueExporter, obj: pydantic.BaseModel, ignore_first_override: bool
) -> dict[str, tp.Any]:
    try:
        plan = values.plan(obj)
        out = plan.run(obj) if not ignore_first_override else plan.unusual(obj)
    except (IdentityError, ExportError) as error:
        _tell_place(obj, error)
        raise
    if out is DROPPED:
        return {}
    if not isinstance(out, dict):
        raise ExportError(
            f"{type(obj).__qualname__} is written as {type(out).__name__}, but a configuration has named fields: make "
            "it a field of another model."
        )
    return out


def export_readable(
    obj: pydantic.BaseModel, *, ignore_first_override: bool = False
) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
    """Returns the whole configuration of an object as release 0.6 reads it, and apart from it what that cannot.

    Parameters
    ----------
    obj: the object
    ignore_first_override: as for `export`

    Returns
    -------
    The configuration, and by dotted path the fields that classes name in `_exca_new_fields`, where they are set to
    anything but their default
    """
    values = exporter(False, False, True)
    collected: list[tuple[tp.Any, dict[str, tp.Any]]] = []
    values.noticed.fields = collected
    config = _exported(values, obj, ignore_first_override)
    new = ((_path(obj, holder, set()), fields) for holder, fields in collected)
    return config, {f"{path}.{name}": value for path, fields in new for name, value in fields.items()}


def _add_discriminator(obj: pydantic.BaseModel, out: dict[str, tp.Any]) -> None:
    key = DISCRIMINATORS.get(type(obj))
    if key is not None and key in obj.__dict__:
        out.setdefault(key, exporter(False, False).value(obj.__dict__[key]))


def _leave_out(config: dict[str, tp.Any], name: str) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        config = config.get(parent, {})
        if not isinstance(config, dict):
            return
    config.pop(last, None)


def _tell_place(obj: tp.Any, error: IdentityError | ExportError) -> None:
    path = _path(obj, error.culprit, set()) if error.culprit is not None else None
    if path:
        error.add_note(f"Found at {path!r} of {type(obj).__module__}.{type(obj).__qualname__}.")


def _path(value: tp.Any, culprit: object, seen: set[int]) -> str | None:
    """Returns where the culprit lies below a value, like "models.0.inner"; "" if it is the value."""
    if value is culprit:
        return ""
    if id(value) in seen:
        return None
    seen.add(id(value))
    items: tp.Iterable[tuple[tp.Any, tp.Any]] = ()
    if is_model(value):
        items = [*value.__dict__.items(), *(value.__pydantic_extra__ or {}).items()]
    elif isinstance(value, collections.abc.Mapping):
        items = value.items()
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        items = enumerate(value)
    for key, item in items:
        below = _path(item, culprit, seen)
        if below is not None:
            return f"{key}.{below}" if below else str(key)
    return None
