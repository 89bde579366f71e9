"""From the folders of a cache back to the objects whose results they hold."""

import contextlib
import itertools
import os
import typing as tp
from pathlib import Path

import pydantic

from .._log import logger
from ..identity import configfolder
from ..jobs.resources import Resources

if tp.TYPE_CHECKING:
    from .base import BaseInfra

_SHARE = 5000  # names sorted together
_skipped: set[str] = set()  # folders that were reported


def objects_in(folder: Path, asking: "BaseInfra") -> tp.Iterator[tp.Any]:
    """Make the objects that have an outcome in the folder of a method, for the infra through which they are asked for.

    They get its folder, and where a ``config.yaml`` may be another user's, all its fields, since some of them run
    commands in jobs. A folder that does not fit the class is skipped, and reported once.
    """
    for name in _names(folder):
        place = folder / name
        if name.startswith(".") or not asking._has_outcome(place):
            continue
        try:
            found = _object(place, asking)
        except FileNotFoundError:  # no configuration, so no uid folder: the logs, for one
            continue
        except Exception as error:  # of the files, or of the validators of the class
            if str(place) not in _skipped:
                _skipped.add(str(place))
                logger.warning("Skipped %s, which is no %s: %s", place, type(asking._obj).__qualname__, error)
            continue
        yield found


def _names(folder: Path) -> tp.Iterator[str]:
    """What is in a folder, in shares that are sorted, so that the first needs no look at all."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        while share := list(itertools.islice(entries, _SHARE)):
            yield from sorted([entry.name for entry in share])


def _object(place: Path, asking: "BaseInfra") -> tp.Any:
    from . import attribute

    config, ours = configfolder.read_config(place)
    name, cls = asking._infra_name, type(asking._obj)
    attributes = attribute.infra_attributes(cls)
    if not attributes[name].private:
        known = config.get(name)
        if ours and isinstance(known, dict):
            config[name] = {**known, "folder": asking.folder}
        else:
            config[name] = asking._unbound_copy()
    new = cls(**config)
    if attributes[name].private:
        attributes[name].__set__(new, asking._unbound_copy())
    if not ours:
        _replace_resources(new, asking._obj)
    getattr(new, name)._state.origin = place
    return new


def _replace_resources(new: tp.Any, asking: tp.Any) -> None:
    """Give all models about where things run the fields that it has in the asking object, or else the defaults."""
    from ..utils import find_models

    own: dict[str, tp.Any] = dict(find_models(asking, pydantic.BaseModel))
    found: dict[str, tp.Any] = dict(find_models(new, pydantic.BaseModel))
    for path, model in found.items():
        if not isinstance(model, Resources) and not getattr(model, "_exca_runs_things", False):
            continue
        like: tp.Any = own.get(path)
        fields = type(model).__pydantic_fields__
        if like is not None and type(like) is type(model):
            content = {name: like.__dict__[name] for name in fields}
            given = set(like.__pydantic_fields_set__)
        else:
            content = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
            given = set()
        if "version" in fields:  # part of the address
            content["version"] = model.__dict__["version"]
        vars(model).update(content)
        object.__setattr__(model, "__pydantic_fields_set__", given)


def uid_config_of(folder: Path, full: tp.Any) -> tp.Any:
    """What the uid of a folder was computed from, if the folder is of this very configuration, defaults included."""
    from ..identity.nesting import absorb

    with contextlib.suppress(OSError, ValueError):
        if configfolder.same(absorb(full, dict), configfolder.load(folder / configfolder.FULL)[0]):
            return configfolder.load(folder / configfolder.UID)[0]
    return None
