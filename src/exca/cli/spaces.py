"""What a search draws points from: dimensions made of the fields' own types and bounds, or of what is asked for."""

import dataclasses
import enum
import inspect
import json
import math
import types
import typing as tp
from collections.abc import Iterator, Mapping, Sequence

import pydantic

from ..catalog.rows import text_of
from ..errors import SearchError
from ..identity import discriminated
from .configuring import Configurator, File, near
from .overrides import Value

if tp.TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

_NUMBER = "write the bounds, as in [0.0, 0.5], {log: [1.0e-4, 0.1]} or {integer: [1, 8]}, or {choice: [...]}"
_Conditions = tuple[tuple[str, tp.Any], ...]


class Wanted(pydantic.BaseModel):
    """What is asked for a field: bounds or choices; where there are none, the field's own count."""

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    log: bool | tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    choice: list[tp.Any] | None = None
    step: pydantic.PositiveFloat | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _short(cls, value: tp.Any) -> tp.Any:
        """``null`` is the field as it is, ``log`` the same with a logarithmic scale, a list bounds or choices."""
        if value is None or value == "log":
            return {"log": True} if value else {}
        if isinstance(value, list):
            numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
            if numbers and len(value) != 2:
                raise ValueError(f"two bounds are expected, and {value} has {len(value)} numbers: for choices, "
                                 f"write {{choice: {value}}}")  # fmt: skip
            return {"linear": value} if numbers else {"choice": value}
        return value

    @pydantic.model_validator(mode="after")
    def _one(self) -> "Wanted":
        given = [name for name in ("linear", "integer", "choice") if getattr(self, name) is not None]
        if isinstance(self.log, tuple):
            given.append("log")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given, and one is expected")
        bounds = self.bounds
        if bounds is not None and not (bounds[0] < bounds[1] and all(map(math.isfinite, bounds))):
            raise ValueError(f"the bounds {list(bounds)} are not two rising numbers")
        if bounds is not None and self.log and bounds[0] <= 0:
            raise ValueError(f"the logarithm of {bounds[0]} does not exist: begin above 0")
        if self.choice is not None and not self.choice:
            raise ValueError("there is nothing to choose from")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The bounds that are given."""
        if isinstance(self.log, tuple):
            return self.log
        return self.integer if self.integer is not None else self.linear


class Prune(pydantic.BaseModel):
    """Which trials are ended early.

    Parameters
    ----------
    metric: str
        a number that the method gives to ``exca.log_metrics``
    pruner: str or dict
        a class of ``optuna.pruners``, with its arguments
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    metric: str
    pruner: str | dict[str, tp.Any] = "MedianPruner"

    @pydantic.model_validator(mode="before")
    @classmethod
    def _short(cls, value: tp.Any) -> tp.Any:
        return {"metric": value} if isinstance(value, str) else value


class Search(pydantic.BaseModel):
    """A search as a file describes it.

    Parameters
    ----------
    minimize, maximize: str
        a key of the result, nested by dots; ``.`` is the result itself
    space: dict, or list of str
        by dotted name, bounds or choices; of names alone those that the types of the fields give
    n: int
        how many trials
    jobs: int
        how many at a time
    seed: int, optional
        the same seed gives the same points
    sampler: str or dict
        a class of ``optuna.samplers``, with its arguments
    prune: optional
        which trials are ended early
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    minimize: str | None = None
    maximize: str | None = None
    space: dict[str, Wanted] = {}
    n: pydantic.PositiveInt = 100
    jobs: pydantic.PositiveInt | None = None
    seed: pydantic.NonNegativeInt | None = None
    sampler: str | dict[str, tp.Any] = "TPESampler"
    prune: Prune | None = None

    @pydantic.field_validator("space", mode="before")
    @classmethod
    def _names(cls, space: tp.Any) -> tp.Any:
        return dict.fromkeys(space) if isinstance(space, list) else space

    @property
    def key(self) -> str:
        """The key of the result that counts. Raises SearchError where none, or two, are given."""
        if (self.minimize is None) == (self.maximize is None):
            raise SearchError(
                "the search has no goal: give minimize or maximize with a key of the result, or . for the result itself"
            )
        return str(self.minimize if self.maximize is None else self.maximize)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a dotted name leads to: a field, in one of the variants of each union on the way."""

    name: str
    annotation: tp.Any
    metadata: tuple[tp.Any, ...]
    conditions: _Conditions = ()

    @property
    def key(self) -> str:
        """The name with the variants that it is of: ``model[network].layers``."""
        key = self.name
        for name, variant in self.conditions:
            holder = name.rpartition(".")[0]
            key = f"{holder}[{variant}]{key.removeprefix(holder)}" if key.startswith(f"{holder}.") else key
        return key


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One dimension of a space.

    Parameters
    ----------
    place: Place
        the field, and the variants for which it is there
    distribution: BaseDistribution
        what Optuna draws from
    choices: dict
        by the label that Optuna knows, the value
    """

    place: Place
    distribution: "BaseDistribution"
    choices: dict[tp.Any, tp.Any] | None = None

    def value(self, drawn: tp.Any) -> tp.Any:
        """The value of a draw; of numbers as many digits as one likes to read."""
        if self.choices is not None:
            return self.choices[drawn]
        if isinstance(drawn, float):
            short = float(f"{drawn:.9g}")
            low, high = self.distribution.low, self.distribution.high  # type: ignore[attr-defined] # it draws numbers
            return short if low <= short <= high else drawn
        return drawn

    def describe(self) -> str:
        """What is drawn, for people."""
        if self.choices is not None:
            return ", ".join(map(text_of, self.choices.values()))
        given = tp.cast(tp.Any, self.distribution)
        parts = [f"{text_of(given.low)} to {text_of(given.high)}"]
        parts += [f"in steps of {text_of(given.step)}"] if given.step not in (None, 1) else []
        return " ".join([*parts, *(["(log)"] if given.log else [])])


class Space:
    """The space of a search.

    Parameters
    ----------
    config: type
        the class of the objects
    base: File, optional
        what all points share
    wanted: dict
        by dotted name, what is asked for

    Raises
    ------
    SearchError
        if there is no field of a name, or its type gives neither choices nor bounds
    """

    def __init__(
        self,
        config: type[pydantic.BaseModel],
        base: File | None,
        wanted: Mapping[str, Wanted],
        infra: str = "infra",
    ) -> None:
        self._config = config
        self._base = base
        self._infra = infra
        found: dict[str, Dimension] = {}
        for name, each in wanted.items():
            places = list(self._places(name))
            for place in places:
                own = {dimension.place.key: dimension for dimension in self._dimensions(place, each)}
                # what is given in detail counts
                found = {**own, **found} if each == Wanted() else {**found, **own}
        # variants are chosen before what they hold
        self.dimensions: list[Dimension] = sorted(found.values(), key=lambda d: len(d.place.conditions))
        if not self.dimensions:
            raise SearchError("the space of the search is empty: name the fields that it may change")

    def described(self) -> list[tuple[str, str]]:
        """The names of the dimensions, and what is drawn, for people."""
        return [(dimension.place.key, dimension.describe()) for dimension in self.dimensions]

    def draw(self, trial: "Trial") -> dict[str, tp.Any]:
        """The values of a trial, by dotted name."""
        point: dict[str, tp.Any] = {}
        for dimension in self.dimensions:
            if all(self._chosen(name, point) == variant for name, variant in dimension.place.conditions):
                drawn = trial._suggest(dimension.place.key, dimension.distribution)
                point[dimension.place.name] = dimension.value(drawn)
        return point

    def point(self, params: Mapping[str, tp.Any]) -> dict[str, tp.Any] | None:
        """The values of what Optuna drew earlier; None where it is of another space."""
        left = dict(params)
        point: dict[str, tp.Any] = {}
        for dimension in self.dimensions:
            if all(self._chosen(name, point) == variant for name, variant in dimension.place.conditions):
                key = dimension.place.key
                if key not in left or not _contains(dimension, left[key]):
                    return None
                point[dimension.place.name] = dimension.value(left.pop(key))
        return None if left else point

    def distributions(self, params: Mapping[str, tp.Any]) -> dict[str, "BaseDistribution"]:
        """The distributions of what Optuna drew."""
        return {d.place.key: d.distribution for d in self.dimensions if d.place.key in params}

    def object(self, point: Mapping[str, tp.Any]) -> pydantic.BaseModel:
        """The object of a point. Raises OverrideError where it is not valid."""
        given = {name: Value(value, text_of(value)) for name, value in point.items()}
        return Configurator(self._config, self._base_for(point)).object(given)

    def _base_for(self, point: Mapping[str, tp.Any]) -> File | None:
        """What all points share, without what belongs to a variant that this one does not choose."""
        if self._base is None:
            return None
        content = self._base.content
        for dimension in self.dimensions:
            name = dimension.place.name
            holder, _, last = name.rpartition(".")
            there = _at(content, holder) if holder else None
            variants = any(name == chosen for d in self.dimensions for chosen, _ in d.place.conditions)
            if variants and name in point and isinstance(there, dict) and there.get(last) != point[name]:
                content = _with(content, holder.split("."), {last: point[name]})
        return File(self._base.path, content, self._base.lines)

    def _chosen(self, name: str, point: Mapping[str, tp.Any]) -> tp.Any:
        """The variant of a union: what the point chose, the base, or the default."""
        given = None if self._base is None else _at(self._base.content, name)
        if name in point or given is not None:
            return point.get(name, given)
        current: tp.Any = self._config
        for part in name.split("."):
            if isinstance(current, pydantic.BaseModel):
                current = getattr(current, part, type(current).__name__)
            elif current is self._config and part in self._config.model_fields:
                field = self._config.model_fields[part]
                current = field.get_default(call_default_factory=True, validated_data={})
            else:
                return None
        return current

    # ------------------------------------------------------------------------------------------------ from names

    def _places(self, name: str) -> Iterator[Place]:
        found = list(self._below(self._config, name.split("."), "", ()))
        if found:
            yield from found
            return
        raise SearchError(f"{self._config.__qualname__} has no field {name!r}{self._hint(name)}")

    def _hint(self, name: str) -> str:
        *above, last = name.split(".")
        holders: list[tp.Any] = [self._config]
        for part in above:
            fields = [h.model_fields[part].annotation for h in holders if part in h.model_fields]
            holders = [model for annotation in fields for model in _variants(annotation)[1].values()]
        names = dict.fromkeys(field for holder in holders for field in holder.model_fields)
        return near(last, names) if names else ""

    def _below(
        self, model: type[pydantic.BaseModel], parts: Sequence[str], prefix: str, conditions: _Conditions
    ) -> Iterator[Place]:
        first, *rest = parts
        field = model.model_fields.get(first)
        if field is None or (not prefix and first == self._infra):
            return
        name = f"{prefix}{first}"
        if not rest:
            yield Place(name, field.annotation, tuple(field.metadata), conditions)
            return
        key, variants = _variants(field.annotation)
        if rest == [key]:
            yield _which(f"{name}.{key}", variants, conditions)
            return
        for variant, each in variants.items():
            chosen = () if key is None else ((f"{name}.{key}", variant),)
            yield from self._below(each, rest, f"{name}.", (*conditions, *chosen))

    # ----------------------------------------------------------------------------------------------- dimensions

    def _dimensions(self, place: Place, wanted: Wanted) -> Iterator[Dimension]:
        _, variants = _variants(place.annotation)
        if not variants or wanted.choice is not None:
            yield _dimension(place, wanted)
            return
        if wanted != Wanted():
            raise SearchError(f"{place.name} is a model, and has no bounds: name its fields")
        yield from _all_in(place)


def _all_in(place: Place) -> Iterator[Dimension]:
    """What can be drawn of a model: which variant it is, and the fields whose types give choices or bounds."""
    key, variants = _variants(place.annotation)
    if key is not None:
        yield _dimension(_which(f"{place.name}.{key}", variants, place.conditions), Wanted())
    for variant, model in variants.items():
        chosen = () if key is None else ((f"{place.name}.{key}", variant),)
        for name, field in model.model_fields.items():
            if name == key:
                continue
            conditions = (*place.conditions, *chosen)
            below = Place(f"{place.name}.{name}", field.annotation, tuple(field.metadata), conditions)
            if _variants(field.annotation)[1]:
                yield from _all_in(below)
                continue
            try:
                yield _dimension(below, Wanted())
            except SearchError:  # its type gives neither choices nor bounds, so it stays at its default
                continue


def _which(name: str, variants: Mapping[tp.Any, tp.Any], conditions: _Conditions) -> Place:
    """The place of the field that names the variant of a union."""
    return Place(name, tp.Literal[tuple(variants)], (), conditions)


def _variants(annotation: tp.Any) -> tuple[str | None, dict[tp.Any, type[pydantic.BaseModel]]]:
    """The models that a field may hold, by what names them, and the field that does; None where there is but one."""
    plain = list(_plain_models(annotation))
    if len(plain) == 1 and isinstance(key := getattr(plain[0], "_exca_discriminator_key", None), str):
        known = tp.cast("dict[tp.Any, type[pydantic.BaseModel]]", discriminated.by_name(plain[0]))
        return key, {name: known[name] for name in discriminated.choices(plain[0])}
    for name in plain[0].model_fields if len(plain) > 1 else ():
        fields = [model.model_fields.get(name) for model in plain]
        tags = [_literals(field.annotation) if field is not None else [] for field in fields]
        if all(tags) and len({tag for each in tags for tag in each}) == sum(map(len, tags)):
            return name, {tag: model for each, model in zip(tags, plain, strict=True) for tag in each}
    return None, {model.__name__: model for model in plain}


def _plain_models(annotation: tp.Any) -> Iterator[type[pydantic.BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    elif tp.get_origin(annotation) in (tp.Union, types.UnionType, tp.Annotated):
        for part in tp.get_args(annotation):
            yield from _plain_models(part)


def _literals(annotation: tp.Any) -> list[tp.Any]:
    return list(tp.get_args(annotation)) if tp.get_origin(annotation) is tp.Literal else []


# ---------------------------------------------------------------------------------------------- from types


class _Kind(tp.NamedTuple):
    """The values of a type."""

    number: type | None = None  # int or float
    choices: tuple[tp.Any, ...] = ()
    rules: tuple[tp.Any, ...] = ()  # Ge, Le, MultipleOf...


def _kind(annotation: tp.Any, rules: tuple[tp.Any, ...] = ()) -> _Kind:
    origin = tp.get_origin(annotation)
    if origin is tp.Annotated:
        inner, *more = tp.get_args(annotation)
        more = [rule for each in more for rule in getattr(each, "metadata", (each,))]
        return _kind(inner, (*rules, *more))
    if origin is tp.Literal:
        return _Kind(choices=tp.get_args(annotation))
    if origin in (tp.Union, types.UnionType):
        kinds = [_kind(part, rules) for part in tp.get_args(annotation) if part is not type(None)]
        if len(kinds) == 1 and kinds[0].number is not None:
            return kinds[0]  # a number or None: a number is drawn
        if kinds and all(kind.choices for kind in kinds):
            none = (None,) if type(None) in tp.get_args(annotation) else ()
            return _Kind(choices=(*(c for kind in kinds for c in kind.choices), *none))
        if kinds and all(kind.number is not None for kind in kinds):
            return kinds[-1] if kinds[-1].number is float else kinds[0]
        return _Kind()
    if annotation is bool:
        return _Kind(choices=(False, True))
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return _Kind(choices=tuple(member.value for member in annotation))
    if annotation in (int, float):
        return _Kind(annotation, rules=rules)
    return _Kind()


def _dimension(place: Place, wanted: Wanted) -> Dimension:
    from optuna.distributions import FloatDistribution, IntDistribution

    kind = _kind(place.annotation, place.metadata)
    choices = kind.choices if wanted.choice is None else tuple(wanted.choice)
    if choices and wanted.bounds is None:
        if wanted.log:
            raise SearchError(f"{place.name} is one of {len(choices)} values, which have no logarithm")
        return _of_choices(place, choices)
    if kind.number is None and wanted.bounds is None:
        kind_name = getattr(place.annotation, "__name__", place.annotation)
        raise SearchError(f"{place.name} is a {kind_name}, which has neither choices nor bounds: {_NUMBER}")
    is_int = wanted.integer is not None or (kind.number is int and wanted.integer is None)
    step = _rule(kind.rules, "multiple_of", max) if wanted.step is None else wanted.step
    low, high = _bounds(place, kind, wanted, is_int=is_int)
    log = bool(wanted.log)
    if log and low <= 0:
        raise SearchError(
            f"{place.name} begins at {low:g}, which has no logarithm: give {{log: [low, high]}}"
        )
    if log and step is not None and not is_int:
        raise SearchError(f"{place.name} has steps of {step:g}, and cannot be on a logarithmic scale too")
    if step is not None and not log:
        low = math.ceil(low / step - 1e-9) * step
        high = math.floor(high / step + 1e-9) * step
    if low > high:
        raise SearchError(f"{place.name} has no values between its bounds")
    if is_int:
        given = 1 if step is None or log else int(step)
        return Dimension(place, IntDistribution(int(low), int(high), log=log, step=given))
    return Dimension(place, FloatDistribution(low, high, log=log, step=None if log else step))


def _bounds(place: Place, kind: _Kind, wanted: Wanted, *, is_int: bool) -> tuple[float, float]:
    """The bounds that are asked for, within those of the field."""
    least, most = _rule(kind.rules, "ge", max), _rule(kind.rules, "le", min)
    above, below = _rule(kind.rules, "gt", max), _rule(kind.rules, "lt", min)
    if above is not None and (least is None or above >= least):
        least = math.floor(above) + 1 if is_int else math.nextafter(above, math.inf)
    if below is not None and (most is None or below <= most):
        most = math.ceil(below) - 1 if is_int else math.nextafter(below, -math.inf)
    if wanted.bounds is None:
        if least is None or most is None:
            side = (
                "bounds"
                if least is None and most is None
                else "lower bound"
                if least is None
                else "upper bound"
            )
            raise SearchError(f"{place.name} is a number without {side}: {_NUMBER}")
        return least, most
    low, high = wanted.bounds
    if is_int and not (float(low).is_integer() and float(high).is_integer()):
        raise SearchError(f"{place.name} is a whole number, and its bounds {low:g} and {high:g} are not")
    if (least is not None and low < least) or (most is not None and high > most):
        raise SearchError(
            f"{place.name} is searched from {low:g} to {high:g}, and the field itself allows "
            f"{'any' if least is None else f'{least:g}'} to {'any' if most is None else f'{most:g}'}"
        )
    return low, high


def _rule(rules: Sequence[tp.Any], name: str, strictest: tp.Callable[[tp.Any], tp.Any]) -> float | None:
    found = [value for rule in rules if isinstance(value := getattr(rule, name, None), (int, float))]
    return strictest(found) if found else None


def _of_choices(place: Place, choices: tuple[tp.Any, ...]) -> Dimension:
    """A dimension of values; what Optuna cannot keep is known to it by its text."""
    from optuna.distributions import CategoricalDistribution

    plain = [c.value if isinstance(c, enum.Enum) else c for c in choices]
    labels = [
        c if isinstance(c, (str, int, float)) or c is None else json.dumps(c, default=str) for c in plain
    ]
    known = {_distinct(label): value for label, value in zip(labels, plain, strict=True)}
    return Dimension(place, CategoricalDistribution(list(known)), known)


def _distinct(label: tp.Any) -> tp.Any:
    """A label that no equal one of another type is taken for: True and 1, 1 and 1.0."""
    return label if not isinstance(label, (bool, float)) else json.dumps(label)


def _contains(dimension: Dimension, drawn: tp.Any) -> bool:
    if dimension.choices is not None:
        return drawn in dimension.choices
    return isinstance(drawn, (int, float)) and dimension.distribution._contains(drawn)


def _at(content: tp.Any, name: str) -> tp.Any:
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _with(content: dict[str, tp.Any], parts: Sequence[str], value: tp.Any) -> dict[str, tp.Any]:
    first, *rest = parts
    return {**content, first: _with(content[first], rest, value) if rest else value}
