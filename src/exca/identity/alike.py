"""Look-alikes: a model or dataclass of another class than its field is declared with, which no configuration tells.

Objects with one or the other share a uid, and so a result. That is refused, unless the two classes compute the same as
far as their bodies tell: a child that only adds fields, or that says so (``_exca_same_results``).
"""

import dataclasses
import inspect
import types
import typing as tp
import weakref

import pydantic
import typing_extensions

from .. import settings
from ..errors import LookAlikeError
from .fields import MISSING, MODEL, SCALARS, class_has, is_discriminated, is_model, members
from .parts import Part, annotations, model_fields, parts, values_of

if tp.TYPE_CHECKING:
    from .export import ValueExporter

SAME: tp.Final = "_exca_same_results"
_CONTAINERS: tp.Final = frozenset((list, tuple, set, dict))
_OWN_WRITERS: tp.Final = ("_exca_uid_dict_override",)
# of a class's body, what no method of it reads
_NO_PARTS: tp.Final = frozenset(("_abc_impl", "model_config", "model_fields", "model_computed_fields"))


def is_suspect(cls: type[pydantic.BaseModel]) -> bool:
    """Whether a field that is declared with a parent of this class had better not hold its objects."""
    kin = [base for base in cls.__mro__[1:] if isinstance(base, MODEL) and not _is_library(base)]
    return not _is_told_by_name(cls) and any(differences(cls, base) for base in kin)


def holds_dataclasses(cls: type[pydantic.BaseModel]) -> bool:
    """Whether a field is declared with a dataclass, whose children pydantic takes as they are, and writes as it."""
    return any(_names_dataclass(field.annotation) for field in cls.__pydantic_fields__.values())


def _names_dataclass(annotation: tp.Any) -> bool:
    return any(
        (dataclasses.is_dataclass(member) and isinstance(member, type))
        or any(_names_dataclass(arg) for arg in tp.get_args(member))
        for member in members(annotation)
    )


def has_odd_default(cls: type[pydantic.BaseModel]) -> bool:
    """Whether the default of a field is a look-alike of what the field is declared with."""
    return any(
        field.default is not None
        and any(issubclass(field.default, m) and differences(field.default, m) for m in field.declared.models)
        for field in model_fields(cls)
        if field.default not in field.declared.models
    )


def check_look_alikes(values: "ValueExporter", obj: pydantic.BaseModel, **told: tp.Any) -> None:
    """Refuse an object that holds a look-alike; `told` as for `parts`.

    Raises
    ------
    LookAlikeError: it does
    """
    if _is_as_declared(obj):  # most are, and this takes a tenth of the time
        return
    for part in parts(values, obj, **told):
        kind = type(part.model)
        meant = _meant(kind, part)
        if meant is None or _is_told_by_name(kind):
            continue
        differing = differences(kind, meant)
        if differing and not _is_told_apart(_written(values, part.model, meant), kind, meant):
            settings.complain("look-alike", _error(part, kind, meant, differing), kind, meant, part.holder)


def _is_as_declared(obj: tp.Any) -> bool:
    """Whether it is certain that all models in an object are of the very classes that fields are declared with."""
    values = values_of(obj)
    for name, declared, default in model_fields(type(obj)):
        value = values.get(name)
        kind = type(value)
        if kind in SCALARS or (kind in _CONTAINERS and not value):
            continue
        if kind not in declared.models or (default is not None and default not in declared.models):
            return False
        if not _is_as_declared(value):
            return False
    return not getattr(obj, "__pydantic_extra__", None)


def _written(values: "ValueExporter", obj: tp.Any, meant: type) -> tp.Any:
    """What a uid holds of a model; of a dataclass, which is written as what its field is declared with, its values."""
    if is_model(obj):
        return values.plan(obj).run(obj)
    return {name: getattr(obj, name, None) for name in annotations(meant)}


def _meant(kind: type, part: Part) -> type[tp.Any] | None:
    """The class whose results a model of this class would be given; None where that is its own."""
    nearest = _nearest(kind, part)
    if (
        part.default is not None
        and part.default not in part.declared.models
        and nearest is _nearest(part.default, part)
    ):
        return None if kind is part.default else part.default
    return None if kind is nearest else nearest


def _nearest(kind: type, part: Part) -> type[tp.Any] | None:
    return next((base for base in kind.__mro__ if base in part.declared.models), None)


def _is_told_by_name(cls: type) -> bool:
    """Whether the configuration holds the name of the class; or the class is that of an infra, which never counts."""
    return is_discriminated(cls) or class_has(cls, "_infra_name")


def _is_told_apart(exported: tp.Any, kind: type, meant: type[tp.Any]) -> bool:
    """Whether what is written of a model shows that it is not of the class that is meant."""
    between = [base for base in kind.__mro__ if base not in meant.__mro__]
    for base in between:
        decorators = base.__dict__.get("__pydantic_decorators__")
        if any(name in base.__dict__ for name in _OWN_WRITERS):
            return True
        if decorators is not None and set(decorators.model_serializers) & set(base.__dict__):
            return True
    if not isinstance(exported, dict):
        return False
    known = annotations(meant)
    if (
        isinstance(meant, MODEL)
        and meant.model_config.get("extra") != "allow"
        and set(exported) - {*known, *meant.__pydantic_computed_fields__}
    ):
        return True
    return any(name in exported and not _may_be(exported[name], each) for name, each in known.items())


def _may_be(value: tp.Any, annotation: tp.Any) -> bool:
    """False only for a value that is none of those of a Literal."""
    alternatives = members(annotation)
    if not all(tp.get_origin(member) in (tp.Literal, typing_extensions.Literal) for member in alternatives):
        return True
    return any(value in tp.get_args(member) for member in alternatives)


def _error(part: Part, kind: type, meant: type, differing: list[str]) -> LookAlikeError:
    holder, field = f"{part.holder.__module__}.{part.holder.__qualname__}", part.field
    one, other = kind.__name__, meant.__name__
    shown = ", ".join(differing[:4]) + (f" and {len(differing) - 4} more" if len(differing) > 4 else "")
    declared = "declared with" if meant in part.declared.models else "whose default is of"
    error = LookAlikeError(
        f"Field {field!r} of {holder}, {declared} {meant.__module__}.{meant.__qualname__}, holds an object of "
        f"{kind.__module__}.{kind.__qualname__} (found at {part.path!r}). Nothing in the uid tells the two apart, so "
        f"that they would share results, though they differ in {shown}. Do one of these:\n"
        f"* declare the field with {one} where it always holds one;\n"
        '* give each of the two a field like `kind: typing.Literal["..."] = "..."` with a text of its own, and write '
        f'`{field}: {other} | {one} = pydantic.Field(..., discriminator="kind")`, or derive both from '
        "exca.helpers.DiscriminatedModel (either changes the uid);\n"
        f"* write `{SAME}: typing.ClassVar[bool] = True` in {one} where it computes the same as {other}."
    )
    error.culprit = part.model
    return error


# ---------------------------------------------------------------- what the bodies of two classes tell


def differences(one: type, other: type) -> list[str]:
    """What one of two classes has in its body, or in those of its parents, that may have it compute something else.

    Methods, properties and validators that only one of them has, and variables that both have and set differently.
    Classes that say so (``_exca_same_results``) and those of pydantic and the standard library add nothing.
    """
    found: dict[str, None] = {}
    for cls, against in ((one, other), (other, one)):
        for base in cls.__mro__:
            if base in against.__mro__ or _is_library(base) or _says_same(base):
                continue
            for name, is_method in own_names(base).items():
                if is_method or _sets_differently(name, one, other):
                    found[name] = None
    if not isinstance(one, MODEL):  # a dataclass is written as its parent: what it adds is in no uid
        found |= dict.fromkeys(name for name in annotations(one) if name not in annotations(other))
    return list(found)


def _sets_differently(name: str, one: type, other: type) -> bool:
    first, second = (_variable(cls, name) for cls in (one, other))
    if first is MISSING or second is MISSING:
        return False
    try:
        return not (first is second or (type(first) is type(second) and bool(first == second)))
    except Exception:  # arrays and what else has no truth value
        return True


def _variable(cls: type, name: str) -> tp.Any:
    """A class variable, or the default of a private attribute."""
    private = getattr(cls, "__private_attributes__", {})
    if name in private:
        return (
            private[name].get_default()
            if private[name].default_factory is None
            else private[name].default_factory
        )
    return inspect.getattr_static(cls, name, MISSING)


_owned: "weakref.WeakKeyDictionary[type, dict[str, bool]]" = weakref.WeakKeyDictionary()


def own_names(cls: type) -> dict[str, bool]:
    """The names in the body of a class that may bear on what it computes, and whether each is a method or alike."""
    found = _owned.get(cls)
    if found is None:
        found = {name: True for name, value in list(vars(cls).items()) if _is_method(cls, name, value)}
        # a model has the defaults of its fields elsewhere
        fields = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
        found |= {
            name: False
            for name, value in list(vars(cls).items())
            if _is_variable(name, value) and name not in found and name not in fields
        }
        found |= {
            name: False for name in _own_private(cls) if name not in found and not name.startswith("_exca_")
        }
        _owned[cls] = found
    return found


def _is_method(cls: type, name: str, value: tp.Any) -> bool:
    if name in _NO_PARTS or name.startswith(("__pydantic", "_exca_")):
        return False
    if dataclasses.is_dataclass(cls) and _is_generated(value):
        return False
    if name == "model_post_init":  # pydantic writes one that calls that of the parent
        value = inspect.unwrap(value)
        if any(
            inspect.unwrap(vars(base).get(name, value)) is value
            for base in cls.__mro__[1:]
            if name in vars(base)
        ):
            return False
    if not _is_descriptor(value) or isinstance(
        value, (types.MemberDescriptorType, types.GetSetDescriptorType)
    ):
        return False
    if type(value).__module__.startswith("exca."):  # of an infra
        return False
    return not str(getattr(value, "__module__", "")).startswith(("pydantic.", "pydantic_core."))


def _is_generated(value: tp.Any) -> bool:
    """Whether `dataclasses` or pydantic wrote a method: of source that is no file, or of a function of theirs."""
    function = inspect.unwrap(value)
    code = getattr(function, "__code__", None)
    return getattr(function, "__module__", "").partition(".")[0] in ("dataclasses", "pydantic") or (
        code is not None and code.co_filename == "<string>"
    )


def _is_variable(name: str, value: tp.Any) -> bool:
    return not (
        name in _NO_PARTS
        or name.startswith(("__", "_exca_", "_exclude_from_cls_uid"))
        or _is_descriptor(value)
    )


def _is_descriptor(value: tp.Any) -> bool:
    return hasattr(type(value), "__get__") and not isinstance(value, type)


def _own_private(cls: type) -> tp.Iterator[str]:
    """The private attributes that a class defines itself: pydantic keeps those of its parents with them."""
    for name, attribute in vars(cls).get("__private_attributes__", {}).items():
        inherited = (getattr(base, "__private_attributes__", {}).get(name) for base in cls.__bases__)
        if all(attribute is not known for known in inherited):
            yield name


def _says_same(cls: type) -> bool:
    if SAME in vars(cls):
        return bool(vars(cls)[SAME])
    # pydantic takes it for a private attribute where it is not annotated
    return SAME in _own_private(cls) and bool(vars(cls)["__private_attributes__"][SAME].default)


def _is_library(cls: type) -> bool:
    """Whether a class is of pydantic or Python, or only names the parameters of a generic class."""
    generic = vars(cls).get("__pydantic_generic_metadata__") or {}
    return generic.get("origin") is not None or cls.__module__.partition(".")[0] in _LIBRARIES


_LIBRARIES: tp.Final = frozenset(
    ("abc", "builtins", "collections", "enum", "pydantic", "pydantic_settings", "typing")
)
