"""Reads a model class once, and writes the plan by which its objects are exported."""

import functools
import typing as tp

import pydantic
from pydantic.fields import FieldInfo

from ..errors import DiscriminatorError, ExtraFieldsError, IdentityError
from . import exclusions
from .plans import MISSING, FieldDefault, Plan, Step, is_unsafe
from .scalars import OVERRIDE, SCALARS, Export
from .secrets import covers
from .shapes import Shape, ShapeReader

if tp.TYPE_CHECKING:
    from .values import ValueExporter

# their results are always equal: they need not be called for every object
_PURE_FACTORIES: tp.Final = frozenset((list, dict, set, frozenset, tuple, str, int, float, bool))
_NOTHING: tp.Final[frozenset[type]] = frozenset()
_BY_ANNOTATION: tp.Final[dict[tp.Any, frozenset[type]]] = {
    int: SCALARS - {bool},
    float: SCALARS - {bool, int},
    int | None: SCALARS - {bool},
    float | None: SCALARS - {bool, int},
}


def compile_plan(
    values: "ValueExporter", cls: type[pydantic.BaseModel], excluded: frozenset[str] | None = None
) -> Plan:
    """Returns the plan of a class.

    Parameters
    ----------
    values: the mode
    cls: a class, complete since there is an object of it
    excluded: names of fields to leave out; None for those that the class itself names
    """
    key = getattr(cls, "_exca_discriminator_key", None)
    if isinstance(key, str):
        values = values.below_discriminated
    plan = Plan(values, cls)
    plan._compile = functools.partial(compile_plan, values, cls)
    if excluded is not None:
        plan.excluded = excluded
    elif values.uid:
        static = exclusions.fixed(cls)
        plan.dynamic = static is None
        plan.static = static
        plan.excluded = frozenset(static or ())
    elif values.readable:
        plan.excluded = frozenset(getattr(cls, exclusions.NEW_FIELDS, ()))
    if isinstance(key, str):
        plan.head = (key, cls.__name__)
    if not plan.dynamic:
        _read_fields(plan)
    _choose(plan)
    return plan


def _choose(plan: Plan) -> None:
    """Sets the shortest way that does all that the class asks for."""
    cls = plan.cls
    plan.open = cls.model_config.get("extra") == "allow"
    if exclusions.WHOLE not in plan.excluded and not plan.open:
        exclusions.check_known(cls, plan.excluded)
    if plan.values.uid and plan.values.exclude_defaults and hasattr(cls, OVERRIDE):
        plan.overrides = True
        plan.run = plan.overridden
    elif plan.values.readable and plan.excluded:
        plan.run = plan.without_new
    elif exclusions.WHOLE in plan.excluded:
        plan.run = plan.left_out
    elif (
        plan.dynamic
        or plan.fault is not None
        or plan.root is not None
        or plan.asked
        or plan.by_serializer
        or plan.open
    ):
        plan.run = plan.unusual


def _read_fields(plan: Plan) -> None:
    cls, values = plan.cls, plan.values
    decorators = cls.__pydantic_decorators__
    reader = ShapeReader(values, cls.model_config)
    serialized = {name for d in decorators.field_serializers.values() for name in d.info.fields}
    steps: list[Step] = []
    asked: dict[str, Export | None] = {}
    plan.fault = _fault(plan)
    for name, field in cls.__pydantic_fields__.items():
        if name in plan.excluded or field.exclude:
            continue
        plan.secrets = plan.secrets or covers(field.annotation)
        shape = reader.read(field)
        if shape.ambiguous and plan.fault is None and values.uid and values.exclude_defaults:
            plan.fault = functools.partial(_ambiguous, cls.__qualname__, name, shape)
        if not serialized.isdisjoint((name, "*")) or getattr(field, "exclude_if", None):
            write = _step(values, name, field, shape, serialized=True)[-1]
            asked[name] = write if shape.scalars else None
        elif issubclass(cls, pydantic.RootModel):
            plan.root = shape.export
        else:
            steps.append(_step(values, name, field, shape))
    computed = [name for name in cls.__pydantic_computed_fields__ if name not in plan.excluded]
    plan.steps = tuple(steps)
    plan.asked = asked | dict.fromkeys(computed)
    head = [] if plan.head is None else [plan.head[0]]
    plan.order = (*head, *cls.__pydantic_fields__, *computed)
    plan.by_serializer = bool(decorators.model_serializers or cls.model_config.get("json_encoders"))


def _step(
    values: "ValueExporter", name: str, field: FieldInfo, shape: Shape, *, serialized: bool = False
) -> Step:
    export = shape.export
    direct = _BY_ANNOTATION.get(field.annotation, SCALARS) if shape.scalars else _NOTHING
    default: tp.Any = MISSING
    factory = field.default_factory
    if factory is not None and not field.default_factory_takes_validated_data:
        default = tp.cast(tp.Callable[[], tp.Any], factory)() if factory in _PURE_FACTORIES else MISSING
    elif not field.is_required() and factory is None:
        default = field.default
    changing = factory is not None and default is MISSING and not field.default_factory_takes_validated_data
    if not values.exclude_defaults or (default is MISSING and not changing):
        return name, direct, MISSING, export
    maker = tp.cast(tp.Callable[[], tp.Any], factory) if changing else None
    write = FieldDefault(values, export, default, maker, serialized).written
    if changing or is_unsafe(default):
        return name, _NOTHING, MISSING, write
    return name, direct, default, write


def _fault(plan: Plan) -> tp.Callable[[], IdentityError] | None:
    cls = plan.cls
    checked = plan.values.uid and plan.values.exclude_defaults
    if checked and cls.model_config.get("extra") is None and not issubclass(cls, pydantic.RootModel):
        return functools.partial(_unset_extra, f"{cls.__module__}.{cls.__qualname__}")
    return None


def _unset_extra(name: str) -> IdentityError:
    return ExtraFieldsError(
        f"{name} does not say what to do with unknown fields, so that a typing error would be ignored and change no "
        'uid. Add `model_config = pydantic.ConfigDict(extra="forbid")` to the class (or extra="allow", if they '
        "are meant)."
    )


def _ambiguous(cls: str, name: str, shape: Shape) -> IdentityError:
    kinds = [kind.__name__ for kind in shape.ambiguous]
    return DiscriminatorError(
        f"Field {name!r} of {cls} may hold {' or '.join(kinds)}, and its uid would not tell which. Give each of them "
        'a field like `kind: typing.Literal["..."] = "..."` with a text of its own, and write '
        f'`{name}: {" | ".join(kinds)} = pydantic.Field(..., discriminator="kind")` (for a member of a list or '
        'dict: `typing.Annotated[A | B, pydantic.Field(discriminator="kind")]`).'
    )
