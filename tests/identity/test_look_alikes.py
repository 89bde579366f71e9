"""A model of a child class in a field that is declared with its parent, and nothing in the uid that tells which."""

import dataclasses
import typing as tp
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pydantic
import pydantic.dataclasses
import pytest

import exca
from exca import settings, steps
from exca.confdict import ConfDict
from exca.errors import LookAlikeError, RefusalWarning
from exca.helpers import DiscriminatedModel


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.VARIABLE, "")
    monkeypatch.setattr(settings, "_warned", set())


class Strict(pydantic.BaseModel):
    """A configuration that forbids unknown fields."""

    model_config = pydantic.ConfigDict(extra="forbid")


class Model(Strict):
    """What fields are declared with."""

    scale: int = 1
    kind: tp.Literal["plain"] = "plain"
    FACTOR: tp.ClassVar[int] = 1
    _offset: int = 0

    def value(self) -> int:
        return self.scale * self.FACTOR + self._offset

    @property
    def name(self) -> str:
        return "model"


class Overrides(Model):
    def value(self) -> int:
        return -self.scale


class Adds(Model):
    @property
    def other(self) -> int:
        return 3


class Validates(Model):
    @pydantic.field_validator("scale")
    @classmethod
    def _double(cls, scale: int) -> int:
        return scale


class ValidatesAll(Model):
    @pydantic.model_validator(mode="after")
    def _reset(self) -> tp.Self:
        return self


class Sets(Model):
    FACTOR = 5


class SetsPrivate(Model):
    _offset: int = 7


class PostInit(Model):
    def model_post_init(self, context: tp.Any, /) -> None:
        self._offset = 3


class Mixin:
    """Methods for models."""

    def value(self) -> int:
        return 9


class Mixed(Mixin, Model):
    pass


class AddsField(Overrides):
    more: int = 3


class Computes(Model):
    @pydantic.computed_field  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def twice(self) -> int:
        return 2 * self.scale


class OtherDefault(Model):
    scale: int = 2

    def value(self) -> int:
        return 0


# ---------------------------------------------------------------- children that compute the same, or are told apart


class Nothing(Model):
    """Adds nothing."""


class OnlyField(Model):
    more: int = 3
    NEW: tp.ClassVar[int] = 5  # no method of the parent knows it
    _new: int = 4


class SameConstant(Model):
    FACTOR = 1


class SaysSo(Model):
    _exca_same_results: tp.ClassVar[bool] = True

    def value(self) -> int:
        return self.scale + 0


class SaysSoPlainly(Model):
    _exca_same_results = True

    def value(self) -> int:
        return self.scale + 0


class BelowOneThatSaysSo(SaysSo):
    """Adds nothing to it."""


class Requires(Overrides):
    more: int


class OtherKind(Strict):
    kind: tp.Literal["plain"]

    def value(self) -> int:
        return 1


class WritesItself(Overrides):
    def _exca_uid_dict_override(self) -> dict[str, tp.Any]:
        return {"which": "this"}


class Serializes(Overrides):
    @pydantic.model_serializer
    def _write(self) -> dict[str, tp.Any]:
        return {"scale": "mine"}


REFUSED: list[type[Model]] = [
    *(Overrides, Adds, Validates, ValidatesAll, Sets, SetsPrivate, PostInit, Mixed, AddsField, OtherDefault),
]
FINE: list[type[Model]] = [Model, Nothing, OnlyField, SameConstant, SaysSo, SaysSoPlainly, BelowOneThatSaysSo]
TOLD: list[Model] = [Requires(more=2), AddsField(more=4), WritesItself(), Serializes(), Computes()]


class Holder(Strict):
    """Declares the parent in every kind of field."""

    one: Model = Model()
    maybe: Model | None = None
    several: list[Model] = []
    fixed: tuple[int, Model] | None = None
    table: dict[str, Model] = {}
    nested: dict[str, list[tp.Annotated[Model | None, "x"]]] = {}
    ordered: OrderedDict[str, Model] = OrderedDict()
    any_sequence: Sequence[Model] = ()


def places(model: Model) -> dict[str, Holder]:
    """Return holders with the model in each kind of field, by the path where it is found."""
    return {
        "one": Holder(one=model),
        "maybe": Holder(maybe=model),
        "several.1": Holder(several=[Model(), model]),
        "fixed.1": Holder(fixed=(1, model)),
        "table.a": Holder(table={"a": model}),
        "nested.a.1": Holder(nested={"a": [None, model]}),
        "ordered.a": Holder(ordered=OrderedDict(a=model)),
        "any_sequence.0": Holder(any_sequence=[model]),
    }


def uid(obj: pydantic.BaseModel) -> str:
    """Return the uid of a configuration."""
    return ConfDict.from_model(obj, uid=True, exclude_defaults=True).to_uid()


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("path", places(Model()))
def test_a_look_alike_is_refused_wherever_it_is(kind: type[Model], path: str) -> None:
    with pytest.raises(LookAlikeError, match=rf"found at '{path}'") as caught:
        uid(places(kind())[path])
    text = str(caught.value)
    field = path.partition(".")[0]
    assert text.startswith(
        f"Field {field!r} of {__name__}.Holder, declared with {__name__}.Model, holds an object of "
        f"{__name__}.{kind.__name__} (found at {path!r}). Nothing in the uid tells the two apart"
    )
    assert caught.value.code == "look-alike"


def test_the_error_says_what_differs_and_what_to_write() -> None:
    with pytest.raises(LookAlikeError) as caught:
        uid(Holder(one=Mixed()))
    assert "though they differ in value. Do one of these:" in str(caught.value)
    assert 'pydantic.Field(..., discriminator="kind")' in str(caught.value)
    assert "`_exca_same_results: typing.ClassVar[bool] = True` in Mixed" in str(caught.value)


@pytest.mark.parametrize("kind", FINE)
@pytest.mark.parametrize("path", places(Model()))
def test_a_child_that_computes_the_same_is_not(kind: type[Model], path: str) -> None:
    assert uid(places(kind())[path]) == uid(places(Model())[path])


@pytest.mark.parametrize("model", TOLD, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("path", places(Model()))
def test_a_child_that_the_uid_tells_apart_is_not(model: Model, path: str) -> None:
    assert uid(places(model)[path]) != uid(places(Model())[path])


class Deep(Strict):
    """Holds a holder."""

    holders: list[Holder] = []
    other: int = 1


def test_deep_in_the_object() -> None:
    with pytest.raises(LookAlikeError, match=r"found at 'holders\.0\.table\.a'"):
        uid(Deep(holders=[Holder(table={"a": Overrides()})]))


T = tp.TypeVar("T")
M = tp.TypeVar("M", bound=Model)


class Box(Strict, tp.Generic[T]):
    """A generic model."""

    content: T

    def get(self) -> T:
        return self.content


class Special(Box[int]):
    def get(self) -> int:
        return 0


class Plain(Box[int]):
    """Adds nothing."""


class Bound(Strict, tp.Generic[M]):
    """Holds any kind of model."""

    model: M


class Generics(Strict):
    """Fields with generic models."""

    some: Box[int] = Box[int](content=1)
    any_box: Box[tp.Any] = Box[tp.Any](content=2)
    bound: Bound[Model] | None = None


def test_a_parametrisation_is_no_look_alike() -> None:
    assert uid(Generics(some=Box[int](content=3))) == uid(Generics(some=Plain(content=3)))
    assert uid(Generics(any_box=Box[int](content=3))) == uid(Generics(any_box=Box[tp.Any](content=3)))
    with pytest.raises(LookAlikeError, match="differ in get"):
        uid(Generics(some=Special(content=3)))
    with pytest.raises(LookAlikeError, match=r"found at 'bound\.model'"):
        uid(Generics(bound=Bound[Model](model=Overrides())))


class Tagged(DiscriminatedModel):
    """The uid names the class."""

    x: int = 1


class TaggedChild(Tagged):
    def value(self) -> int:
        return 1


class Cat(Strict):
    kind: tp.Literal["cat"] = "cat"


class Dog(Strict):
    kind: tp.Literal["dog"] = "dog"

    def bark(self) -> None:
        """Make a noise."""


class Puppy(Dog):
    def bark(self) -> None:
        """Make less noise."""


class Unions(Strict):
    """Fields in which something tells the models apart."""

    tagged: Tagged = Tagged()
    pet: Cat | Dog = pydantic.Field(default=Cat(), discriminator="kind")
    mixed: int | str | Model | None = None


def test_unions_and_discriminated_models() -> None:
    assert uid(Unions(tagged=TaggedChild())) != uid(Unions())
    assert uid(Unions(pet=Dog())) != uid(Unions())
    with pytest.raises(LookAlikeError, match=r"declared with .*Dog, holds an object of .*Puppy"):
        uid(Unions(pet=Puppy()))
    with pytest.raises(LookAlikeError, match="found at 'mixed'"):
        uid(Unions(mixed=Overrides()))


class Excludes(Strict):
    """Some of it does not count."""

    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("free",)
    free: Model = Model()
    x: int = 1


def test_what_does_not_count_may_be_anything() -> None:
    assert uid(Excludes(free=Overrides(), x=2)) == uid(Excludes(x=2))
    assert uid(Deep(other=2)) != uid(Deep())


class DefaultIsChild(Strict):
    """The default is of another class than the field is declared with."""

    model: Model = Overrides()
    made: Model = pydantic.Field(default_factory=Overrides)
    made_again: Model = pydantic.Field(default_factory=lambda: Overrides(scale=1))


def test_the_default_of_a_field_is_what_counts() -> None:
    assert uid(DefaultIsChild()) == uid(DefaultIsChild(model=Overrides(), made=Overrides())) == ""
    assert uid(DefaultIsChild(model=Overrides(scale=3)))
    for name in DefaultIsChild.model_fields:
        with pytest.raises(
            LookAlikeError, match=rf"{name}' of .*, whose default is of .*Overrides, holds .*Model "
        ):
            uid(DefaultIsChild(**{name: Model()}))
    with pytest.raises(LookAlikeError, match=r"whose default is of .*, holds an object of .*Adds"):
        uid(DefaultIsChild(model=Adds()))


@pytest.mark.parametrize("cls", ["Model", "Overrides", "Holder"])
def test_allowed_it_is_a_warning(cls: str) -> None:
    exca.settings.allow("look-alike", f"{__name__}.{cls}")
    with pytest.warns(RefusalWarning, match="holds an object of .*Overrides"):
        assert uid(Holder(one=Overrides())) == uid(Holder())


# ---------------------------------------------------------------- tasks, maps and steps


class Task(pydantic.BaseModel):
    """A task with a model."""

    model: Model = Model()
    infra: exca.TaskInfra = exca.TaskInfra()
    free: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return self.model.value()

    @free.apply(exclude_from_cache_uid=["model"])
    def other(self) -> int:
        return 5


class Map(pydantic.BaseModel):
    """A map with a model."""

    model: Model = Model()
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield item * self.model.value()


class Scale(steps.Step):
    """A step with a model."""

    model: Model = Model()

    def _run(self, value: int) -> int:
        return value * self.model.value()


def test_no_task_answers_for_a_look_alike(tmp_path: Path) -> None:
    infra = exca.TaskInfra(folder=tmp_path)
    assert Task(infra=infra).run() == 1
    with pytest.raises(LookAlikeError, match="found at 'model'"):
        Task(model=Overrides(), infra=infra).run()
    assert Task(model=Requires(more=1), infra=infra).run() == -1
    assert Task(model=Overrides(), free=infra).other() == 5
    assert Task(model=Overrides()).run() == -1  # nothing is kept


def test_no_map_answers_for_a_look_alike(tmp_path: Path) -> None:
    infra = exca.MapInfra(folder=tmp_path)
    assert list(Map(infra=infra).run([1, 2])) == [1, 2]
    with pytest.raises(LookAlikeError, match="found at 'model'"):
        Map(model=Overrides(), infra=infra).run([1])
    assert list(Map(model=Overrides()).run([1])) == [-1]


@pytest.mark.parametrize("cluster", ["local", "processpool"])
def test_what_is_allowed_here_is_allowed_in_jobs(cluster: tp.Any, tmp_path: Path) -> None:
    exca.settings.allow("look-alike", Overrides)
    task = Task(
        model=Overrides(),
        infra=exca.TaskInfra(folder=tmp_path, cluster=None if cluster != "local" else cluster),
    )
    mapped = Map(model=Overrides(), infra=exca.MapInfra(folder=tmp_path, cluster=cluster))
    with pytest.warns(RefusalWarning, match="found at 'model'"):
        found = [task.run(), *mapped.run([1, 2])]
    assert found == [-1, -1, -2]


def test_no_step_answers_for_a_look_alike(tmp_path: Path) -> None:
    infra: tp.Any = {"backend": "Cached", "folder": tmp_path}
    assert Scale(infra=infra).run(3) == 3
    with pytest.raises(LookAlikeError, match="found at 'model'"):
        Scale(model=Overrides(), infra=infra).run(3)
    with pytest.raises(LookAlikeError, match="found at 'model'"):
        steps.Chain(steps=[Scale(), Scale(model=Overrides())], infra=infra).run(3)
    assert Scale(model=Overrides()).run(3) == -3


# ---------------------------------------------------------------------------------------------------- dataclasses


@dataclasses.dataclass
class Point:
    """What fields are declared with."""

    x: int = 1
    kind: tp.Literal["plain"] = "plain"
    FACTOR: tp.ClassVar[int] = 1

    def value(self) -> int:
        return self.x * self.FACTOR


@dataclasses.dataclass
class PointOverrides(Point):
    def value(self) -> int:
        return -self.x


@dataclasses.dataclass
class PointAdds(Point):
    more: int = 3  # pydantic writes the fields of the parent only


@dataclasses.dataclass
class PointSets(Point):
    FACTOR: tp.ClassVar[int] = 5


@dataclasses.dataclass
class PointPostInit(Point):
    def __post_init__(self) -> None:
        self.y = 3


@dataclasses.dataclass(repr=False, eq=False)
class PointEquals(Point):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # as without it


@dataclasses.dataclass
class PointNothing(Point):
    """Adds nothing but another default, which is in the uid."""

    x: int = 2


@dataclasses.dataclass(frozen=False, order=True)
class PointOrdered(Point):
    """Adds only what `dataclasses` writes."""


@dataclasses.dataclass
class PointSaysSo(Point):
    _exca_same_results: tp.ClassVar[bool] = True

    def value(self) -> int:
        return self.x + 0


@dataclasses.dataclass
class PointOfOtherKind(Point):
    kind: tp.Literal["other"] = "other"  # type: ignore[assignment]  # as subclasses of unions are written

    def value(self) -> int:
        return 0


@pydantic.dataclasses.dataclass
class Place:
    x: int = 1

    def value(self) -> int:
        return self.x


@pydantic.dataclasses.dataclass
class PlaceOverrides(Place):
    def value(self) -> int:
        return -self.x


@pydantic.dataclasses.dataclass
class PlaceNothing(Place):
    """Adds nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    x: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class SlotsOverrides(Slots):
    @property
    def twice(self) -> int:
        return 2 * self.x


@dataclasses.dataclass
class Outer:
    point: Point = dataclasses.field(default_factory=Point)
    model: Model = dataclasses.field(default_factory=Model)


@dataclasses.dataclass
class Unresolved:
    other: "NotThere | None" = None  # type: ignore[name-defined]  # noqa: F821  # as what is imported for types only


class HoldsDataclasses(Strict):
    point: Point | None = None
    points: dict[str, list[Point]] = {}
    place: Place = Place()
    slots: Slots = Slots()


class HoldsOuter(Strict):
    outer: tp.Annotated[Outer, pydantic.SkipValidation] = pydantic.Field(default_factory=Outer)


class Anything(Strict):
    what: tp.Any = None


class HasOddDefault(Strict):
    point: Point = PointOverrides()


@pytest.mark.parametrize(
    "holder",
    [
        *(
            HoldsDataclasses(point=kind())
            for kind in (PointOverrides, PointAdds, PointSets, PointPostInit, PointEquals)
        ),
        HoldsDataclasses(points={"a": [Point(), PointOverrides()]}),
        HoldsDataclasses(place=PlaceOverrides()),
        HoldsDataclasses(slots=SlotsOverrides()),
        HoldsOuter(outer=Outer(point=PointOverrides())),
        HoldsOuter(outer=Outer(model=Overrides())),
        HasOddDefault(point=Point()),
    ],
    ids=repr,
)
def test_a_dataclass_that_is_a_look_alike_is_refused(holder: Strict) -> None:
    with pytest.raises(LookAlikeError, match="Nothing in the uid tells the two apart"):
        uid(holder)


@pytest.mark.parametrize(
    "holder",
    [
        *(
            HoldsDataclasses(point=kind())
            for kind in (Point, PointNothing, PointOrdered, PointSaysSo, PointOfOtherKind)
        ),
        HoldsDataclasses(place=PlaceNothing(), slots=Slots(x=3)),
        HoldsOuter(),
        HasOddDefault(),
        Anything(what=[Unresolved()]),
    ],
    ids=repr,
)
def test_a_dataclass_that_is_none_is_not(holder: Strict) -> None:
    uid(holder)


class OfAnything(Strict):
    what: tp.Any = None
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return tp.cast(int, self.what.value())


@pytest.mark.parametrize(
    ("one", "other"), [(Point(x=3), PointOverrides(x=3)), (Model(), Overrides())], ids=repr
)
def test_in_a_field_declared_as_any_the_class_is_compared(one: tp.Any, other: tp.Any, tmp_path: Path) -> None:
    infra: tp.Any = {"folder": tmp_path}
    assert OfAnything(what=one, infra=infra).run() == one.value()
    with pytest.raises(exca.errors.OtherClassError, match="with other code"):
        OfAnything(what=other, infra=infra).run()
