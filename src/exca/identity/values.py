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


class Noticed(threading.local):
    """What a thread met in the export that it makes.

    fields: new fields that were left out, with the object that holds them
    secrets: whether a secret may have been written since this was last looked at
    """

    def __init__(self) -> None:
        self.fields: list[tuple[tp.Any, dict[str, tp.Any]]] = []
        self.secrets = False


class ValueExporter:
    """Writes values as plain dicts, lists and scalars, with one plan a model class.

    Parameters
    ----------
    uid: leave out what models exclude from their uid
    exclude_defaults: leave out fields that equal their default
    readable: leave out fields that classes name as new, and collect what they are set to
    within: the mode of which this is the part below discriminated models. There values are written by their own type,
        whatever their field is annotated with: all fields of a dataclass, and nothing that `Annotated` adds. (Uids were
        computed like this from the start.)
    """

    def __init__(
        self, uid: bool, exclude_defaults: bool, readable: bool, within: "ValueExporter | None" = None
    ) -> None:
        self.uid = uid
        self.exclude_defaults = exclude_defaults
        # config.yaml keeps the keys of dicts as they are: everywhere else a dot is a level
        self.splits: bool = uid or exclude_defaults
        self.readable = readable
        self.noticed: Noticed = Noticed() if within is None else within.noticed
        self.told: dict[str, bool] = {
            "exclude_defaults": exclude_defaults,
            "serialize_as_any": within is not None,
        }
        self.below_discriminated: ValueExporter = (
            ValueExporter(uid, exclude_defaults, readable, self) if within is None else self
        )
        self._name = f"export {uid} {exclude_defaults} {readable} {within is not None}"

    @property
    def by_type(self) -> bool:
        """Whether values are written by their own type."""
        return self.below_discriminated is self

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
            self.noticed.secrets = True
        return json_value(value, **self.told)

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
