"""Values of every kind, by their runtime type."""

import collections
import collections.abc
import enum
import functools
import pathlib
import threading
import typing as tp

import pydantic

from . import exclusions
from .compiling import compile_plan
from .perclass import keep, kept, refuse_bare
from .plans import Plan
from .scalars import (
    DROPPED,
    SCALARS,
    SECRETS,
    Export,
    is_model,
    json_value,
    key_text,
    listed,
    split_dots,
    text_order,
)


class Collected(threading.local):
    """New fields that were left out of the export that a thread makes, with the object that holds them."""

    def __init__(self) -> None:
        self.fields: list[tuple[tp.Any, dict[str, tp.Any]]] = []


class ValueExporter:
    """Writes values as plain dicts, lists and scalars, with one plan a model class.

    Parameters
    ----------
    uid: leave out what models exclude from their uid
    exclude_defaults: leave out fields that equal their default
    readable: leave out fields that classes name as new, and collect what they are set to
    """

    def __init__(self, uid: bool, exclude_defaults: bool, readable: bool = False) -> None:
        self.uid = uid
        self.exclude_defaults = exclude_defaults
        # config.yaml keeps the keys of dicts as they are: everywhere else a dot is a level
        self.splits = uid or exclude_defaults
        self.met_secrets = False  # whether a secret may have been written since this was last looked at
        self.readable = readable
        self.collected = Collected()
        self._name = f"export {uid} {exclude_defaults} {readable}"

    @property
    def whole(self) -> "ValueExporter":
        """The mode that leaves out nothing."""
        return exporter(False, False)

    def plan(self, obj: pydantic.BaseModel) -> Plan:
        """Returns the plan for the class of an object, compiled anew if the class was changed since."""
        plan: Plan | None = kept(obj, self._name)
        if plan is None or (plan.static and getattr(obj, exclusions.ATTRIBUTE, None) is not plan.static):
            refuse_bare(obj)
            plan = compile_plan(self, type(obj))
            keep(plan, self._name)
        return plan

    def value(self, value: tp.Any) -> tp.Any:
        """Returns the JSON form of any value, an OrderedDict staying one."""
        kind = type(value)
        if kind in SCALARS:
            return value
        if kind is list or kind is tuple:
            return [item if type(item) in SCALARS else self._item(item) for item in value]
        if kind is dict:
            return self._dict(value)
        if is_model(value):
            return self.plan(value).run(value)
        return self._rare(value)

    def _dict(self, value: dict[tp.Any, tp.Any]) -> dict[str, tp.Any]:
        out = {}
        for key, item in value.items():
            if type(key) is not str or "." in key:
                return self.mapping(value)
            exported = item if type(item) in SCALARS else self.value(item)
            if exported is not DROPPED:
                out[key] = exported
        return out

    def _item(self, value: tp.Any) -> tp.Any:
        return listed(self.value(value), self.splits)

    def _rare(self, value: tp.Any) -> tp.Any:
        if isinstance(value, enum.Enum):
            return self.value(value.value)
        if isinstance(value, pathlib.PurePath):
            return str(value)
        if isinstance(value, list | tuple | collections.deque):
            return [self._item(item) for item in value]
        if isinstance(value, set | frozenset):
            return sorted((self._item(item) for item in value), key=text_order)
        if isinstance(value, collections.abc.Mapping):
            return self.mapping(value)
        if isinstance(value, SECRETS):
            self.met_secrets = True
        return json_value(value, self.exclude_defaults)

    def mapping(self, value: tp.Mapping[tp.Any, tp.Any], export: Export | None = None) -> dict[str, tp.Any]:
        """Returns a mapping with text for keys, dotted ones split, and values written by `export` if given."""
        ordered = isinstance(value, collections.OrderedDict)
        out: dict[str, tp.Any] = collections.OrderedDict() if ordered else {}
        dotted = False
        for key, item in value.items():
            if type(key) is not str:
                key = key_text(key)
            if export is not None:
                exported = export(item)
            else:
                exported = item if type(item) in SCALARS else self.value(item)
            if exported is not DROPPED:
                out[key] = exported
                dotted = dotted or "." in key
        return split_dots(out) if dotted and self.splits and not ordered else out


@functools.cache
def exporter(uid: bool, exclude_defaults: bool, readable: bool = False) -> ValueExporter:
    """Returns the one exporter of a mode."""
    return ValueExporter(uid, exclude_defaults, readable)
