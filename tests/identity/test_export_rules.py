"""From an object to its configuration: what is left out, discriminators, errors, and the plans behind it."""

import gc
import typing as tp
import weakref
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pydantic
import pytest

from exca import errors
from exca.identity import export
from exca.identity.export import exporter
from identity_stand_ins import Conv, Dense, Model, Part, Placed, Strict


def short(obj: pydantic.BaseModel) -> dict[str, tp.Any]:
    """The uid configuration, less its defaults."""
    return export(obj, uid=True, exclude_defaults=True)


class Anything(Strict):
    value: tp.Any = None


class HasParts(Strict):
    part: Part = Part()
    parts: list[Part] = []
    named: dict[str, Part] = {}


# ---------------------------------------------------------------- exclusions


class ByVariable(Strict):
    a: int = 1
    b: int = 2
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("a",)


class ByList(ByVariable):
    _exclude_from_cls_uid: tp.ClassVar[list[str]] = ["a"]  # type: ignore[assignment] # any collection will do


class ByPrivate(Strict):
    a: int = 1
    b: int = 2
    _exclude_from_cls_uid: tuple[str, ...] = ("a",)


class ByMethod(Strict):
    a: int = 1
    b: int = 2

    def _exclude_from_cls_uid(self) -> set[str]:
        return {"a"} if self.b > 2 else set()


class ByClassMethod(Strict):
    a: int = 1
    b: int = 2

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return ["a"]


class ByStaticMethod(Strict):
    a: int = 1
    b: int = 2

    @staticmethod
    def _exclude_from_cls_uid() -> list[str]:
        return ["a"]


class ByProperty(Strict):
    a: int = 1
    b: int = 2

    @property
    def _exclude_from_cls_uid(self) -> list[str]:
        return ["a"]


EXCLUDING: list[tp.Any] = [ByVariable, ByList, ByPrivate, ByMethod, ByClassMethod, ByStaticMethod, ByProperty]


@pytest.mark.parametrize("cls", EXCLUDING)
def test_exclusions_at_any_depth(cls: tp.Any) -> None:
    part = cls(a=5, b=3)
    assert short(part) == {"b": 3}
    assert export(part, uid=True) == {"b": 3}
    assert export(part) == {"a": 5, "b": 3}
    assert short(Anything(value=part)) == {"value": {"b": 3}}
    assert short(Anything(value=[part, (part,)])) == {"value": [{"b": 3}, [{"b": 3}]]}
    assert short(Anything(value={"x": {"y": part}})) == {"value": {"x": {"y": {"b": 3}}}}


def test_exclusions_by_a_method_may_depend_on_the_object() -> None:
    assert short(ByMethod(a=5, b=2)) == {"a": 5}


def test_exclusions_changed_on_the_class_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert short(ByVariable(a=5, b=3)) == {"b": 3}
    monkeypatch.setattr(ByVariable, "_exclude_from_cls_uid", ("b",))
    assert short(ByVariable(a=5, b=3)) == {"a": 5}


class Dropped(Strict):
    a: int = 1
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = (".",)


class HasDropped(Strict):
    needed: Dropped
    plain: Dropped = Dropped()
    listed: list[Dropped] = []
    pair: tuple[Dropped, float] = (Dropped(), 1.0)
    named: dict[str, Dropped] = {}
    any: tp.Any = None


def test_a_model_may_drop_itself() -> None:
    part = Dropped(a=2)
    whole = HasDropped(needed=part, plain=part, listed=[part], pair=(part, 2.0), named={"x": part}, any=part)
    # in a list its place stays, so that those behind it keep theirs
    assert short(whole) == {"listed": [{}], "pair": [{}, 2.0], "named": {}}
    assert short(part) == {}


def test_unknown_exclusions_are_an_error() -> None:
    class Wrong(Strict):
        a: int = 1
        _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("nope",)

    class Text(Strict):
        a: int = 1
        _exclude_from_cls_uid: tp.ClassVar[str] = "a"

    with pytest.raises(ValueError, match=r"Wrong excludes 'nope' from its uid, .*fields are a"):
        short(Anything(value=[Wrong()]))
    with pytest.raises(
        TypeError, match=r"of .*Text must be a list, tuple or set of names, not 'a': write \('a',\)"
    ):
        short(Text())


def test_more_can_be_left_out_from_outside() -> None:
    whole = HasParts(part=Part(k=3, m=4))
    assert export(whole, uid=True, exclude_defaults=True, exclude=["part.k", "nope", "x.y"]) == {
        "part": {"m": 4}
    }
    assert export(whole, exclude=["part", "parts"]) == {"named": {}}
    with pytest.raises(errors.ExclusionError):
        export(whole, exclude="part")


class Overriding(Strict):
    a: int = 1
    b: int = 2
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("b",)

    def _exca_uid_dict_override(self) -> dict[str, tp.Any] | None:
        if self.a < 0:
            return None
        return {"twice": self.a * 2, "part": Placed(cpus=2), "pair": (1, Path("x")), "dot.ted": 1}


def test_a_model_may_write_its_own_part_of_the_uid() -> None:
    own = {"twice": 6, "part": {}, "pair": (1, Path("x")), "dot": {"ted": 1}}
    assert short(Overriding(a=3)) == own
    assert short(Anything(value=[Overriding(a=3)])) == {"value": [own]}
    assert export(Overriding(a=3), uid=True) == {"a": 3}
    assert export(Overriding(a=3)) == {"a": 3, "b": 2}
    assert short(Overriding(a=-1)) == {"a": -1}
    first = export(Overriding(a=3), uid=True, exclude_defaults=True, ignore_first_override=True)
    assert first == {"a": 3}


# ---------------------------------------------------------------- discriminated unions


class Chosen(Strict):
    model: Model = Conv()
    tuned: Model = Conv(layers=3)
    maybe: Model | None = None
    models: list[Model] = []
    nested: list[dict[str, Model]] = []
    pair: tuple[Model, int] = (Conv(), 1)
    alone: Conv = Conv()


def test_a_discriminator_stays_with_what_is_left() -> None:
    dense = Dense()
    assert short(Chosen()) == {}
    assert short(Chosen(model=dense, maybe=Conv())) == {"model": {"name": "dense"}, "maybe": {"name": "conv"}}
    assert short(Chosen(tuned=Conv())) == {"tuned": {"name": "conv"}}
    assert short(Chosen(models=[Conv(), Dense(width=2)])) == {
        "models": [{"name": "conv"}, {"width": 2, "name": "dense"}]
    }
    assert short(Chosen(nested=[{"a": dense}], pair=(dense, 2))) == {
        "nested": [{"a": {"name": "dense"}}],
        "pair": [{"name": "dense"}, 2],
    }
    # behind the other fields, where the recorded configurations have it
    assert list(short(Chosen(model=Dense(width=3)))["model"]) == ["width", "name"]
    assert list(export(Chosen())["model"]) == ["name", "layers"]


def test_outside_of_a_union_nobody_needs_the_discriminator() -> None:
    assert short(Chosen(alone=Conv(layers=2))) == {"alone": {"layers": 2}}
    assert short(Conv()) == {}
    short(Chosen())
    assert export(Conv(), uid=True, exclude_defaults=True, ignore_first_discriminator=False) == {
        "name": "conv"
    }


class InnerOne(Strict):
    name: tp.Literal["inner"] = "inner"
    kind: tp.Literal["one"] = "one"


class InnerTwo(Strict):
    name: tp.Literal["inner"] = "inner"
    kind: tp.Literal["two"] = "two"


Inner = tp.Annotated[InnerOne | InnerTwo, pydantic.Field(discriminator="kind")]


class Layered(Strict):
    model: tp.Annotated[Conv | Inner, pydantic.Field(discriminator="name")] = Conv()


def test_unions_in_unions_keep_both_discriminators() -> None:
    assert short(Layered(model=InnerTwo())) == {"model": {"name": "inner", "kind": "two"}}
    assert short(Layered(model=Conv(layers=1))) == {"model": {"layers": 1, "name": "conv"}}


def test_a_union_without_discriminator_is_an_error() -> None:
    class One(Strict):
        x: int = 1

    class Two(Strict):
        y: int = 1

    class Either(Strict):
        models: list[One | Two | None] = []

    class Excluded(Either):
        _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("models",)

    with pytest.raises(
        RuntimeError, match=r"Field 'models' of .*Either may hold One or Two.*discriminator=\"kind\""
    ):
        short(Either())
    assert export(Either()) == {"models": []}
    assert short(Excluded()) == {}


# ---------------------------------------------------------------- errors


class Loose(pydantic.BaseModel):
    x: int = 1


class Ignoring(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="ignore")
    x: int = 1


@pytest.mark.parametrize(
    ("value", "place"), [(Loose(), "value"), ([Loose()], "value.0"), ({"a": [1, Loose()]}, "value.a.1")]
)
def test_a_model_must_say_what_becomes_of_unknown_fields(value: tp.Any, place: str) -> None:
    with pytest.raises(RuntimeError, match=r'Loose does not say .*extra="forbid"') as caught:
        short(Anything(value=value))
    assert f"Found at {place!r} of test_export_rules.Anything." in caught.value.__notes__
    assert export(Anything(value=value), uid=True)


def test_unknown_fields_may_be_ignored_explicitly() -> None:
    assert short(Anything(value=Ignoring(x=2))) == {"value": {"x": 2}}


class Arrays(Strict):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    array: np.ndarray[tp.Any, tp.Any]


def test_values_without_a_form_are_named_with_their_place() -> None:
    whole = Anything(value=[Arrays(array=np.arange(3))])
    with pytest.raises(
        errors.ExportError, match=r"(?s)numpy\.ndarray has no place .*pydantic\.Field\(exclude=True\)"
    ) as caught:
        short(whole)
    assert "Found at 'value.0.array' of test_export_rules.Anything." in caught.value.__notes__


class OddArrays(Strict):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    good: pydantic.SecretStr = pydantic.SecretStr("a")
    bad: tp.Annotated[tp.Any, pydantic.PlainSerializer(lambda v: object())] = 1


def test_values_that_pydantic_cannot_write_are_named_too() -> None:
    with pytest.raises(
        errors.ExportError, match=r"The serializer for a value of .*\.int fails, .* unknown type"
    ) as caught:
        export(Anything(value=OddArrays(bad=2)))
    assert "Found at 'value.bad' of test_export_rules.Anything." in caught.value.__notes__


# ---------------------------------------------------------------- plans


def test_a_rebuilt_class_is_read_again() -> None:
    class Growing(Strict):
        x: int = 1

    assert short(Growing(x=2)) == {"x": 2}
    Growing.model_fields["x"].default = 2
    Growing.model_rebuild(force=True)
    assert short(Growing(x=2)) == {}


def test_plans_do_not_keep_classes_alive() -> None:
    class Passing(Strict):
        x: int = 1
        maybe: Model | None = None

    export(Passing(), uid=True, exclude_defaults=True)
    export(Passing())
    gone = weakref.ref(Passing)
    del Passing
    gc.collect()
    assert gone() is None


def test_methods_that_exclude_by_value_do_not_pile_up_plans() -> None:
    class Shifting(Strict):
        names: dict[str, int] = {}
        x: int = 1

        def _exclude_from_cls_uid(self) -> list[str]:
            return ["x"] * self.x

    for k in range(3):
        short(Shifting(x=k))
    assert len(exporter(True, True).plan(Shifting())._variants) == 2


def test_the_outcome_belongs_to_the_caller() -> None:
    whole = HasParts(parts=[Part()], named={"a": Part()})
    for uid, exclude_defaults in ((False, False), (True, False), (True, True)):
        flags: dict[str, tp.Any] = {"uid": uid, "exclude_defaults": exclude_defaults}
        first = export(whole, **flags)
        first.setdefault("parts", []).append(3)
        first.setdefault("named", {})["b"] = 4
        assert 3 not in export(whole, **flags)["parts"]
        assert "b" not in export(whole, **flags)["named"]


class Tree(Strict):
    size: int = 1
    left: "Tree | None" = None
    others: list["Tree"] = []


TREES = st.recursive(
    st.builds(Tree, size=st.integers(0, 2)),
    lambda inner: st.builds(
        Tree, size=st.integers(0, 2), left=st.none() | inner, others=st.lists(inner, max_size=2)
    ),
    max_leaves=5,
)


@hypothesis.given(TREES)
def test_everything_is_what_pydantic_writes(tree: Tree) -> None:
    assert export(tree) == tree.model_dump(mode="json")
    assert export(tree, exclude_defaults=True) == tree.model_dump(mode="json", exclude_defaults=True)


@hypothesis.given(TREES, TREES)
def test_equal_configurations_come_from_equal_objects(first: Tree, second: Tree) -> None:
    assert (short(first) == short(second)) == (first == second)
    assert Tree(**short(first)) == first
