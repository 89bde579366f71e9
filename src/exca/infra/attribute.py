"""Placing an infra on a class and binding it to the objects of that class."""

import typing as tp
from pathlib import Path

import pydantic

from .. import _clusters
from ..errors import ExclusionError, InfraError
from .overriding import warn_of_plain

if tp.TYPE_CHECKING:
    from .base import BaseInfra

# (class, attribute name, default infra) waiting until pydantic has collected the fields of the class
_WAITING: list[tuple[type, str, "BaseInfra"]] = []


class InfraAttribute:
    """Data descriptor through which an object's infra is read, always bound to that very object.

    A descriptor rather than a hook at construction: objects also come to be by unpickling, copying
    and ``model_copy``, and an infra bound to another object would answer for the wrong configuration.
    """

    def __init__(self, name: str, default: "BaseInfra", owner: type) -> None:
        self.name = name
        self.default = default  # on the class; its set fields seed those of each object
        self.owner = owner
        self.private: bool = name.startswith("_")

    def __get__(self, obj: tp.Any, cls: type | None = None) -> tp.Any:
        if obj is None:  # pydantic expects a field to be no attribute of the class
            raise AttributeError(self.name)
        try:
            infra = (obj.__pydantic_private__ if self.private else obj.__dict__)[self.name]
        except (KeyError, TypeError):
            raise AttributeError(f"{type(obj).__name__!r} object has no attribute {self.name!r}") from None
        if infra is None or (infra._obj is obj and infra._infra_name == self.name):
            return infra
        return self._bind(obj, infra)

    def __set__(self, obj: tp.Any, value: tp.Any) -> None:
        (obj.__pydantic_private__ if self.private else obj.__dict__)[self.name] = value

    def _bind(self, obj: tp.Any, infra: "BaseInfra") -> "BaseInfra":
        """Bind the infra to the object, or a copy of it where it belongs to another object or attribute already."""
        if infra._obj is not None or infra is self.default:
            infra = infra._unbound_copy()
            self.__set__(obj, infra)
        seeds = self.default.model_fields_set - infra.model_fields_set
        if seeds:
            vars(infra).update({n: self.default.__dict__[n] for n in seeds})
            infra.__pydantic_fields_set__.update(seeds)
        if _clusters.redirection is not None:
            _redirect(infra, *_clusters.redirection)
        infra._infra_name, infra._applied, infra._owner = self.name, self.default._applied, self.owner
        infra._obj = obj  # last: another thread may look while we write
        return infra


def _redirect(infra: "BaseInfra", folder: Path | None, in_process: bool) -> None:
    """Have an infra use what a test wants it to."""
    if folder is not None and infra.folder is not None:
        vars(infra)["folder"] = folder
    if in_process:
        vars(infra)["cluster"] = None


def place(owner: type, name: str, default: "BaseInfra") -> None:
    """Prepare a class for the infra that is the default of one of its attributes."""
    if not issubclass(owner, pydantic.BaseModel):
        raise InfraError(
            f"{type(default).__name__} {name!r} was placed on {owner.__qualname__}, which is no pydantic model: "
            f"let {owner.__qualname__} inherit from pydantic.BaseModel"
        )
    if owner.model_config.get("extra") is None:
        owner.model_config["extra"] = "forbid"
    if name in owner.__dict__.get("__private_attributes__", ()):  # older pydantic makes them first
        setattr(owner, name, InfraAttribute(name, default, owner))
    else:  # pydantic has yet to make a field or a private attribute of it
        _WAITING.append((owner, name, default))
    owner._exca_check_infras = pydantic.model_validator(mode="after")(_check_infras)  # type: ignore[attr-defined] # picked up by pydantic's class building


def place_waiting() -> None:
    """Put the descriptors on the classes whose fields pydantic has collected by now.

    Called wherever an infra may come to be read: when a schema is built, an object validated, copied or unpickled.
    """
    for item in list(_WAITING):
        owner, name, default = item
        if name not in owner.__dict__:
            setattr(owner, name, InfraAttribute(name, default, owner))
            _WAITING.remove(item)
            _check_exclusions(owner, default)
            default._check_placed(owner, name)


def _check_exclusions(owner: type, default: "BaseInfra") -> None:
    """Check that the names listed in ``exclude_from_cache_uid`` are fields of the class."""
    names = default._applied.exclude if default._applied is not None else ()
    if not isinstance(names, tuple):
        return  # only an object can tell
    cls: tp.Any = owner
    known = (*cls.__pydantic_fields__, *cls.__pydantic_decorators__.computed_fields)
    # of a dotted name, the rest may belong to a child class of what the field is annotated with
    unknown = [name for name in names if name.partition(".")[0] not in known]
    if unknown and cls.model_config.get("extra") != "allow":
        raise ExclusionError(
            f"exclude_from_cache_uid of {cls.__qualname__}.{tp.cast(tp.Any, default._applied).name} names "
            f"{', '.join(map(repr, unknown))}, but the fields of {cls.__qualname__} are {', '.join(known)}: "
            "correct the name"
        )


def methods_with_infras(cls: type) -> dict[str, str]:
    """Names of the methods of a class that have an infra, and the names of these."""
    applied = {name: attribute.default._applied for name, attribute in infra_attributes(cls).items()}
    return {one.name: name for name, one in applied.items() if one is not None}


def infra_attributes(cls: type) -> dict[str, InfraAttribute]:
    """All infra attributes of a class, by name, parents' first."""
    cached = cls.__dict__.get("_exca_infra_attributes")
    if cached is None:
        found = {}
        for base in reversed(cls.__mro__):
            found.update({n: v for n, v in vars(base).copy().items() if isinstance(v, InfraAttribute)})
        cached = found
        type.__setattr__(cls, "_exca_infra_attributes", cached)
        warn_of_plain(cls, cached)
    return tp.cast(dict[str, InfraAttribute], cached)


def has_infra(obj: tp.Any, name: str) -> bool:
    """Whether an object is of a class on which an infra of this name was placed."""
    return isinstance(obj, pydantic.BaseModel) and name in infra_attributes(type(obj))


def _check_infras(self: pydantic.BaseModel) -> pydantic.BaseModel:
    """Validate what only shows once an infra is merged with the default on its class."""
    if _WAITING:
        place_waiting()
    for name, attribute in infra_attributes(type(self)).items():
        if attribute.default._applied is None:
            raise InfraError(
                f"{type(attribute.default).__name__} {name!r} of {type(self).__qualname__} is not applied to a method: "
                f"decorate the method to run with @{name}.apply"
            )
        if attribute.private and self.__pydantic_private__ is None:
            continue  # private attributes are filled after validators in some pydantic versions
        infra = getattr(self, name)
        if infra is not None:
            infra._check_bound()
    return self
