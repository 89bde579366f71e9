"""From an object to its configuration: values and defaults."""

import collections
import datetime
import decimal
import enum
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

from exca import errors
from exca.identity import export
from identity_stand_ins import Part, Placed, Strict


def short(obj: pydantic.BaseModel) -> dict[str, tp.Any]:
    """The uid configuration, less its defaults."""
    return export(obj, uid=True, exclude_defaults=True)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


# ---------------------------------------------------------------- values


class Anything(Strict):
    value: tp.Any = None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((1, 2), [1, 2]),
        ({3, 12, 4}, [12, 3, 4]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (collections.deque([1]), [1]),
        (Path("x/y"), "x/y"),
        (Color.BLUE, "blue"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), "2024-01-02T00:00:00Z"),
        (datetime.timedelta(1), "P1D"),
        (decimal.Decimal("1.50"), "1.50"),
        (b"text", "text"),
        (np.float64(3.5), 3.5),
        ({1: 2, "a": 3}, {"1": 2, "a": 3}),
        ({None: 1}, {"None": 1}),
        ({True: 1}, {"true": 1}),
        ({Color.RED: 1}, {"red": 1}),
        ({(1, 2): 3}, {"1,2": 3}),
        ({"a.b": 1, "a.c": 2}, {"a": {"b": 1, "c": 2}}),
        ({"a.b": {"c.d": 1}, "a.b.c.e": 3}, {"a": {"b": {"c": {"d": 1, "e": 3}}}}),
        ({"a": 3, "a.b": 1}, {"a": {"b": 1}}),
        ([Part(k=3)], [{"k": 3}]),
        ({"q": Part()}, {"q": {}}),
        ([(1, [Path("x")])], [[1, ["x"]]]),
        (pydantic.SecretStr("hidden"), "**********"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*the secret 'value' is part of the uid")
def test_values_of_any_type(value: tp.Any, written: tp.Any) -> None:
    assert short(Anything(value=value)) == {"value": written}


def test_floats_that_json_does_not_know_stay_floats() -> None:
    value = short(Anything(value=[float("inf"), -float("inf"), {"x": float("nan")}]))["value"]
    assert value[:2] == [float("inf"), -float("inf")]
    assert value[2]["x"] != value[2]["x"]


def test_an_ordered_dict_stays_one_with_its_dots() -> None:
    value = collections.OrderedDict([("b.x", 1), ("a", collections.OrderedDict(z=1))])
    written = short(Anything(value={"in": value}))["value"]["in"]
    assert type(written) is collections.OrderedDict
    assert list(written) == ["b.x", "a"]
    assert type(written["a"]) is collections.OrderedDict


class Numbers(Strict):
    plain: float = 1
    maybe: float | None = 1
    listed: list[float] = [1, 2]
    table: dict[str, float] = {"a": 1}
    pair: tuple[float, int] = (1, 1)
    either: int | float = 1
    truth: int = True
    many: set[float] = {1}


def test_defaults_that_were_never_validated_read_as_given_values_do() -> None:
    """`x: float = 1` is 1.0, as it would be had the user given it."""
    expected = {
        "plain": 1.0,
        "maybe": 1.0,
        "listed": [1.0, 2.0],
        "table": {"a": 1.0},
        "pair": [1.0, 1],
        "either": 1,
    }
    written = export(Numbers())
    assert repr(written) == repr({**expected, "truth": 1, "many": [1.0]})


class Odd(Strict):
    model_config = pydantic.ConfigDict(ser_json_timedelta="float", ser_json_bytes="base64")
    first: int = 1
    span: datetime.timedelta = datetime.timedelta(1)
    raw: bytes = b"a"
    secret: pydantic.SecretStr = pydantic.SecretStr("a")
    marked: tp.Annotated[int, pydantic.PlainSerializer(lambda v: f"<{v}>")] = 2
    last: int = 1

    @pydantic.field_serializer("last")
    def _serialize(self, value: int) -> int:
        return value * 100


def test_serializers_and_settings_of_a_model_are_pydantics_business() -> None:
    odd = Odd(span=datetime.timedelta(2), raw=b"\xff", marked=3, last=4)
    written = export(odd)
    assert written == {**odd.model_dump(mode="json")}
    assert list(written) == list(Odd.model_fields)
    # pydantic itself does not compare with the default where a method serializes
    assert short(Odd()) == {"last": 100}


class Aliased(Strict):
    x: int = pydantic.Field(1, alias="xx")
    y: int = pydantic.Field(2, serialization_alias="yy")


def test_field_names_count_not_aliases() -> None:
    assert export(Aliased.model_validate({"xx": 3})) == {"x": 3, "y": 2}


class Computed(Strict):
    x: int = 1

    @pydantic.computed_field  # type: ignore[prop-decorator] # mypy knows no decorated property
    @property
    def double(self) -> int:
        return 2 * self.x


class HasComputed(Strict):
    part: Computed = Computed()


def test_computed_fields_count() -> None:
    assert short(Computed()) == {"double": 2}
    assert short(HasComputed()) == {}
    assert short(HasComputed(part=Computed(x=2))) == {"part": {"x": 2, "double": 4}}


class Numbered(pydantic.RootModel[list[int]]):
    pass


class HasRoot(Strict):
    root: Numbered = Numbered([1])


def test_root_models_are_their_root() -> None:
    assert short(HasRoot()) == {}
    assert short(HasRoot(root=Numbered([2]))) == {"root": [2]}
    with pytest.raises(errors.ExportError, match="Numbered is written as list"):
        export(Numbered([1]))


class Whole(Strict):
    x: int = 1

    @pydantic.model_serializer(mode="plain")
    def write(self) -> dict[str, tp.Any]:
        raise ValueError("not today")


class OneField(Strict):
    x: int = 1

    @pydantic.field_serializer("x")
    def write(self, value: int) -> int:
        raise ValueError("not today")


class Nothing(Strict):
    @pydantic.model_serializer(mode="plain")
    def write(self) -> dict[str, tp.Any]:
        raise ValueError("not today")


@pytest.mark.parametrize("obj", [Whole(x=2), OneField(x=2), Nothing()], ids=lambda obj: type(obj).__name__)
def test_a_serializer_that_fails_is_named_and_no_value_is_blamed(obj: pydantic.BaseModel) -> None:
    words = rf"serializer for a value of type {__name__}\.{type(obj).__name__} fails, .*not today\. Correct"
    with pytest.raises(errors.ExportError, match=words):
        export(obj)


T = tp.TypeVar("T")


class Box(Strict, tp.Generic[T]):
    content: T


class HasBox(Strict):
    box: Box[int] = Box[int](content=2)
    free: Box[tp.Any] = Box[tp.Any](content=Part(k=4))


def test_generic_models() -> None:
    assert short(HasBox()) == {}
    assert short(HasBox(box=Box[int](content=3))) == {"box": {"content": 3}}
    assert export(HasBox())["free"] == {"content": {"k": 4, "m": 2}}


class Wrapping(Strict):
    x: int = 1
    part: Placed = Placed()

    @pydantic.model_serializer(mode="wrap")
    def _serialize(self, handler: tp.Any) -> dict[str, tp.Any]:
        return {**handler(self), "more": 1}


class Replacing(Strict):
    x: int = 1

    @pydantic.model_serializer
    def _serialize(self) -> dict[str, int]:
        return {"z": self.x}


class HasSerializers(Strict):
    wrapping: Wrapping = Wrapping()
    replacing: Replacing = Replacing()


def test_model_serializers_are_heeded_and_looked_through() -> None:
    assert short(HasSerializers()) == {}
    changed = HasSerializers(wrapping=Wrapping(x=2, part=Placed(cpus=8)), replacing=Replacing(x=3))
    assert short(changed)["replacing"] == {"z": 3}
    assert short(changed)["wrapping"] == {"x": 2, "more": 1}
    assert export(changed, uid=True)["wrapping"] == {"x": 2, "part": {"version": "0"}, "more": 1}


class Free(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: int = 1


def test_allowed_extra_fields_count() -> None:
    free = Free.model_validate({"z": [1], "y": Part(k=3), "a.b": 2})
    assert short(free) == {"z": [1], "y": {"k": 3}, "a": {"b": 2}}


class Child(Part):
    more: int = 3


class HasParts(Strict):
    part: Part = Part()
    parts: list[Part] = []
    named: dict[str, Part] = {}


def test_fields_of_a_child_class_count_where_its_parent_is_annotated() -> None:
    child = Child(more=4)
    whole = HasParts(part=child, parts=[child], named={"a": child})
    assert short(whole) == {"part": {"more": 4}, "parts": [{"more": 4}], "named": {"a": {"more": 4}}}
    assert export(whole)["part"] == {"k": 1, "m": 2, "more": 4}


class Hidden(Strict):
    x: int = 1
    secret: int = pydantic.Field(1, exclude=True)
    _private: int = 1


def test_excluded_fields_and_private_attributes_do_not_count() -> None:
    assert export(Hidden(secret=2)) == {"x": 1}


# ---------------------------------------------------------------- defaults


class Made(Strict):
    items: list[int] = pydantic.Field(default_factory=lambda: [1, 2])
    table: dict[str, int] = pydantic.Field(default_factory=dict)
    part: Part = pydantic.Field(default_factory=lambda: Part(k=5))
    a: int = 3
    derived: int = pydantic.Field(default_factory=lambda data: data["a"] * 2)


def test_default_factories() -> None:
    assert short(Made()) == {"derived": 6}  # pydantic, too, knows no default that depends on other fields
    assert short(Made(items=[1], part=Part())) == {"items": [1], "part": {}, "derived": 6}


SETTINGS = {"size": 1}


class FromSettings(Strict):
    sizes: list[int] = pydantic.Field(default_factory=lambda: [SETTINGS["size"]])


def test_a_factory_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert short(FromSettings(sizes=[1])) == {}
    monkeypatch.setitem(SETTINGS, "size", 2)
    assert short(FromSettings(sizes=[1])) == {"sizes": [1]}
    assert short(FromSettings()) == {}


class Changing(Strict):
    model_config = pydantic.ConfigDict(validate_default=True)
    x: int = 5

    @pydantic.field_validator("x")
    @classmethod
    def _add(cls, value: int) -> int:
        return value + 1


def test_what_validators_made_of_a_default_is_no_default() -> None:
    assert short(Changing()) == {"x": 6}
    assert short(Changing(x=4)) == {}


class Missing(Strict):
    x: float = float("nan")
    y: tp.Any = np.arange(1)
    z: tp.Any = np.arange(3)


def test_defaults_that_do_not_equal_themselves() -> None:
    array = Missing.model_fields["z"].default
    assert short(Missing(z=array)) == {}
    assert short(Missing(x=float("nan"), z=array)) == {}
    assert short(Missing(x=1, y=3, z=0)) == {"x": 1.0, "y": 3, "z": 0}


class Tuned(Strict):
    tuned: Part = Part(k=16)
    needed: Part
    infra: Placed = Placed(version="1")


def test_sub_models_are_compared_with_their_own_default() -> None:
    part = Part()
    assert short(Tuned(needed=part)) == {"needed": {}}
    assert short(Tuned(needed=part, tuned=Part(k=16), infra=Placed(version="1", cpus=9))) == {"needed": {}}
    assert short(Tuned(needed=part, tuned=Part())) == {"needed": {}, "tuned": {}}
    assert short(Tuned(needed=part, infra=Placed(version="2"))) == {"needed": {}, "infra": {"version": "2"}}


class Lists(Strict):
    parts: list[Placed] = [Placed()]


def test_what_is_excluded_still_tells_lists_of_models_apart() -> None:
    assert short(Lists(parts=[Placed()])) == {}
    assert short(Lists(parts=[Placed(cpus=3)])) == {"parts": [{}]}


def test_outside_of_uids_another_class_is_another_value() -> None:
    assert export(HasParts(part=Child()), exclude_defaults=True) == {"part": {}}
    assert short(HasParts(part=Child())) == {}


def test_a_half_built_object_is_written_as_far_as_it_goes() -> None:
    assert export(Part.model_construct(k=3)) == {"k": 3, "m": 2}
    obj = HasBox.model_construct()
    del obj.box
    assert list(export(obj)) == ["free"]
