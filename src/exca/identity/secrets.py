"""Secrets in configurations: a mask stands for them in uids and files, so nothing can be computed from it."""

import collections
import typing as tp
import warnings
import weakref

import pydantic

from ..errors import MaskedSecretError
from .fields import may_hold_models
from .values import SCALARS, SECRETS, is_model

# for each class: the fields in which secrets or models may be, and those that were warned of
_fields: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()
_warned: weakref.WeakKeyDictionary[type, set[str]] = weakref.WeakKeyDictionary()


def warn_of_shared(obj: pydantic.BaseModel, config: dict[str, tp.Any]) -> None:
    """Warn, once per field of a class, of a secret in the uid configuration of an object."""
    known = _warned.setdefault(type(obj), set())
    for path, _ in _secrets_in(obj, "", set()):
        field = path.partition(".")[0]
        if field not in known and _is_part(config, path):
            known.add(field)
            name = f"{type(obj).__module__}.{type(obj).__qualname__}"
            warnings.warn(
                f"{name}: the secret {path!r} is part of the uid, where a mask stands for it, so that objects with two "
                f"different secrets share a result. Leave {path.split('.')[-1]!r} out of the uid, with "
                "_exclude_from_cls_uid on its class, or change the version of the infra together with the secret.",
                stacklevel=2,
            )


def check_secrets(obj: tp.Any) -> None:
    """Raise a MaskedSecretError where an object holds a mask in place of a secret, which cannot be computed with."""
    if not is_model(obj):
        return
    for path, secret in _secrets_in(obj, "", set()):
        value = secret.get_secret_value()
        if value and str(value) == str(secret):
            raise MaskedSecretError(
                f"{type(obj).__module__}.{type(obj).__qualname__} cannot be computed: {path!r} holds {str(secret)!r}, "
                "the mask that stands for the secret in config.yaml, from which the object was made. Give it the "
                f"secret: obj.infra.clone_obj({{{path!r}: ...}}) has the same uid."
            )


def _secrets_in(value: tp.Any, path: str, above: set[int]) -> tp.Iterator[tuple[str, tp.Any]]:
    """The secrets in a value, with their dotted paths."""
    if isinstance(value, SECRETS):
        yield path, value
    elif id(value) in above:
        return  # a circle
    elif is_model(value):
        names = _fields.get(type(value))
        if names is None:
            fields = type(value).__pydantic_fields__.items()
            names = _fields[type(value)] = tuple(name for name, f in fields if may_hold_models(f.annotation))
        inner = [(name, value.__dict__.get(name)) for name in names]
        yield from _among([*inner, *(value.__pydantic_extra__ or {}).items()], path, above | {id(value)})
    elif isinstance(value, dict):
        yield from _among(value.items(), path, above | {id(value)})
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        yield from _among(enumerate(value), path, above | {id(value)})


def _among(
    items: tp.Iterable[tuple[tp.Any, tp.Any]], path: str, above: set[int]
) -> tp.Iterator[tuple[str, tp.Any]]:
    for name, value in items:
        if type(value) not in SCALARS:
            yield from _secrets_in(value, f"{path}.{name}" if path else str(name), above)


def _is_part(config: tp.Any, path: str) -> bool:
    for part in path.split("."):
        if isinstance(config, dict) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return False
    return True
