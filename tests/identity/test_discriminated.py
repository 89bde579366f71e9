"""Models for whose class any subclass may stand, chosen by name."""

import abc
import gc
import pickle
import sys
import types
import typing as tp
import weakref

import pydantic
import pytest

from exca.identity import DiscriminatedModel, as_input, export


class Step(DiscriminatedModel):
    pass


class Add(Step):
    value: int = 1


class Mul(Step):
    coeff: float = 2.0
    inner: Step = Add()


class AddMore(Add):
    more: int = 2


class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    step: Step = Add()
    steps: list[Step] = []
    named: dict[str, Step] = {}
    maybe: Step | None = None
    add: Add = Add()
    either: Step | int = 3


def hold(**fields: tp.Any) -> Holder:
    return Holder(**fields)


def errors(**fields: tp.Any) -> dict[str, str]:
    """The messages of a failing validation, by the path of what failed."""
    with pytest.raises(pydantic.ValidationError) as caught:
        Holder(**fields)
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


# ---------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"type": "Add"}, Add()),
        ({"type": "Mul", "coeff": 3}, Mul(coeff=3)),
        ({"type": "Mul", "inner": {"type": "Mul"}}, Mul(inner=Mul())),
        ({"type": "AddMore", "value": 4}, AddMore(value=4)),
        ({"type": "Step"}, Step()),
        ({}, Step()),
        ("Mul", Mul()),
        (Mul(coeff=4), Mul(coeff=4)),
    ],
)
def test_the_key_chooses_the_class(given: tp.Any, chosen: Step) -> None:
    before = repr(given)
    whole = hold(step=given, steps=[given, given], named={"a": given}, maybe=given, either=given)
    for step in (whole.step, *whole.steps, whole.named["a"], whole.maybe, whole.either):
        assert step == chosen
        assert type(step) is type(chosen)
    assert repr(given) == before


def test_objects_are_taken_as_they_are() -> None:
    step = Mul()
    assert hold(step=step).step is step


def test_without_key_a_dict_is_the_annotated_class() -> None:
    assert hold(add={"value": 3}).add == Add(value=3)
    assert hold(add={"type": "AddMore", "more": 3}).add == AddMore(more=3)


def test_a_class_can_be_called_with_its_key_or_that_of_a_child() -> None:
    made: tp.Any = Step
    assert made(type="Mul", coeff=3) == Mul(coeff=3)
    assert type(made(type="Mul")) is Mul
    assert type(Step.model_validate({"type": "Mul"})) is Mul
    assert type(Holder.model_validate_json('{"step": {"type": "Mul"}}').step) is Mul
    with pytest.raises(
        pydantic.ValidationError, match="'Add' is not a kind of Mul; available for 'type': Mul"
    ):
        tp.cast(tp.Any, Mul)(type="Add")


def test_classes_defined_later_are_known() -> None:
    class Later(Step):
        z: int = 3

    assert hold(step={"type": "Later"}).step == Later()


# ---------------------------------------------------------------- errors


def test_errors_carry_the_path_of_the_user() -> None:
    assert errors(steps=["Add", {"type": "Mul", "inner": {"type": "Mul", "coeff": "x"}}]).keys() == {
        "steps.1.inner.coeff"
    }
    assert errors(step={"type": "Mul", "zz": 1}) == {"step.zz": "Extra inputs are not permitted"}
    assert errors(named={"a": {"type": "Add", "value": "{x}"}}).keys() == {"named.a.value"}


def test_unknown_classes() -> None:
    for name in ("Nope", 3, None, "{braces}"):
        message = errors(step={"type": name})["step"]
        assert message.startswith(f"{name!r} is not a kind of Step; available for 'type': Add, AddMore, ")
    assert "available for 'type': Add, AddMore" in errors(maybe="Nope")["maybe"]
    assert "available for 'type': Add, AddMore" in errors(add={"type": "Mul"})["add"]


def test_a_missing_key_is_guessed_at() -> None:
    found = errors(steps=[{"value": 3}])
    assert found["steps.0.value"] == "Extra inputs are not permitted"
    assert found["steps.0"].startswith(
        "no 'type' is given, which names the class; available for 'type': Add, "
    )


def test_other_values() -> None:
    assert errors(step=3) == {"step": "Input should be a valid dictionary or instance of Step"}
    assert errors(step=None) == {"step": "Input should be a valid dictionary or instance of Step"}
    assert errors(add=Mul()) == {"add": "Input should be a valid dictionary or instance of Add"}
    assert errors(either="x").keys() == {"either.function-wrap[Step()]", "either.int"}


def test_a_field_named_like_the_key_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"Clash has a field 'type', but 'type' is the key"):

        class Clash(Step):
            type: str = "x"

    with pytest.raises(RuntimeError, match="AliasClash has a field 'kind'"):

        class AliasClash(Step):
            kind: str = pydantic.Field("x", alias="type")


def test_two_classes_of_one_name_are_told_apart_by_objects_and_whole_names() -> None:
    def first() -> type[Step]:
        class Twin(Step):
            a: int = 1

        return Twin

    def second() -> type[Step]:
        class Twin(Step):
            b: int = 1

        return Twin

    one, two = first(), second()
    message = errors(steps=[{"type": "Twin"}])["steps.0"]
    assert f"{one.__module__}.{one.__qualname__}" in message
    assert f"{two.__module__}.{two.__qualname__}" in message
    assert "write one of these whole names" in message
    assert hold(step=one()).step == one()
    for cls in (one, two):
        assert type(hold(step={"type": f"{cls.__module__}.{cls.__qualname__}"}).step) is cls
        assert type(hold(step=f"{cls.__module__}.{cls.__qualname__}").step) is cls
    assert "is not a kind of Step" in errors(steps=[{"type": "elsewhere.Twin"}])["steps.0"]
    # nothing is ambiguous once one of them is gone
    gone = weakref.ref(one)
    del one, cls
    assert type(hold(step={"type": "Twin"}).step) is two
    assert gone() is None


def test_the_last_definition_of_a_place_counts() -> None:
    """As when the cell of a notebook is run again."""

    def cell(default: int) -> type[Step]:
        class Rerun(Step):
            value: int = default

        return Rerun

    old, new = cell(1), cell(2)
    assert type(hold(step={"type": "Rerun"}).step) is new
    assert export(hold(step=old()), uid=True, exclude_defaults=True) == {"step": {"type": "Rerun"}}


class Abstract(DiscriminatedModel, abc.ABC):
    @abc.abstractmethod
    def work(self) -> int: ...


class Concrete(Abstract):
    x: int = 1

    def work(self) -> int:
        return self.x


class HasAbstract(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    worker: Abstract


def test_abstract_classes_cannot_be_chosen() -> None:
    make: tp.Any = HasAbstract
    assert make(worker={"type": "Concrete"}).worker.work() == 1
    with pytest.raises(
        pydantic.ValidationError, match="'Abstract' is abstract; available for 'type': Concrete"
    ):
        make(worker={"type": "Abstract"})
    with pytest.raises(pydantic.ValidationError, match=r"no 'type' is given.*available for 'type': Concrete"):
        make(worker={})
    with pytest.raises(TypeError, match="abstract"):
        tp.cast(tp.Any, Abstract)()


class Childless(DiscriminatedModel, abc.ABC):
    @abc.abstractmethod
    def work(self) -> int: ...


def test_an_abstract_class_without_children_cannot_be_read() -> None:
    adapter = pydantic.TypeAdapter(Childless)
    with pytest.raises(
        pydantic.ValidationError, match="Childless is abstract, and no class derives from it: define one"
    ):
        adapter.validate_python({})


# ---------------------------------------------------------------- writing


def test_dumps_begin_with_the_key_and_keep_all_fields() -> None:
    whole = hold(step=Mul(), steps=[AddMore(value=2)], add=AddMore(), maybe=Step(), either=Add())
    add_more = {"type": "AddMore", "value": 2, "more": 2}
    dump = whole.model_dump()
    assert dump["step"] == {"type": "Mul", "coeff": 2.0, "inner": {"type": "Add", "value": 1}}
    assert list(dump["step"]) == ["type", "coeff", "inner"]
    assert dump["steps"] == [add_more]
    assert dump["add"] == {"type": "AddMore", "value": 1, "more": 2}
    assert dump["maybe"] == {"type": "Step"}
    assert dump["either"] == {"type": "Add", "value": 1}
    assert whole.model_dump(mode="json") == dump
    assert Holder.model_validate_json(whole.model_dump_json()) == whole
    assert Holder.model_validate(dump) == whole


def test_options_of_dumps_reach_subclasses() -> None:
    whole = hold(step=Mul(coeff=3), add=AddMore(more=3))
    assert whole.model_dump(exclude_defaults=True) == {
        "step": {"type": "Mul", "coeff": 3.0},
        "add": {"type": "AddMore", "more": 3},
    }
    assert whole.model_dump(exclude_unset=True) == whole.model_dump(exclude_defaults=True)
    assert whole.model_dump(include={"step": {"coeff"}}) == {"step": {"type": "Mul", "coeff": 3.0}}
    assert whole.model_dump(include={"add": {"more"}}) == {"add": {"type": "AddMore", "more": 3}}
    assert Mul().model_dump(exclude={"inner"}) == {"type": "Mul", "coeff": 2.0}


def test_exports_begin_with_the_key() -> None:
    whole = hold(
        step=Mul(coeff=3), steps=[Add(value=3), Mul()], named={"x": AddMore()}, maybe=Add(), either=Mul()
    )
    assert export(whole, uid=True, exclude_defaults=True) == {
        "step": {"type": "Mul", "coeff": 3.0},
        "steps": [{"type": "Add", "value": 3}, {"type": "Mul"}],
        "named": {"x": {"type": "AddMore"}},
        "maybe": {"type": "Add"},
        "either": {"type": "Mul"},
    }
    assert export(hold(), uid=True, exclude_defaults=True) == {}
    assert export(hold())["step"] == {"type": "Add", "value": 1}
    assert export(Mul(), uid=True, exclude_defaults=True) == {"type": "Mul"}
    assert list(export(Mul())) == ["type", "coeff", "inner"]
    assert export(whole) == whole.model_dump(mode="json")


def test_the_key_is_no_field() -> None:
    assert list(Mul.model_fields) == ["coeff", "inner"]
    assert not hasattr(Mul(), "type")
    assert repr(hold(step=Mul(coeff=3)).step) == "Mul(coeff=3.0, inner=Add(value=1))"


def test_json_schemas_can_be_made() -> None:
    for mode in ("validation", "serialization"):
        assert Holder.model_json_schema(mode=mode)["properties"]["step"]
        assert "coeff" in Mul.model_json_schema(mode=mode)["properties"]


def test_objects_pickle_and_copy() -> None:
    whole = hold(step=Mul(), steps=[Add(value=3)])
    assert pickle.loads(pickle.dumps(whole)) == whole
    copied = whole.model_copy(deep=True)
    assert copied == whole
    assert copied.step is not whole.step
    assert Holder(**as_input(whole)) == whole


class Base(Step):
    x: int = 0

    @pydantic.field_serializer("x")
    def _write(self, x: int) -> str:
        return f"<{x}>"

    @pydantic.model_validator(mode="after")
    def _check(self) -> "Base":
        if self.x < 0:
            raise ValueError("x must not be negative")
        return self


class Derived(Base):
    @pydantic.field_validator("x")
    @classmethod
    def _double(cls, x: int) -> int:
        return 2 * x


def test_validators_and_serializers_of_each_class_are_heeded() -> None:
    assert hold(step={"type": "Derived", "x": 2}).step == Derived(x=2)
    assert hold(step={"type": "Derived", "x": 2}).model_dump()["step"] == {"type": "Derived", "x": "<4>"}
    assert export(Derived(x=2)) == {"type": "Derived", "x": "<4>"}
    assert errors(step={"type": "Derived", "x": -1}) == {"step": "Value error, x must not be negative"}


class OwnInit(Step):
    x: int = 0

    def __init__(self, **fields: tp.Any) -> None:
        fields.setdefault("x", 7)
        super().__init__(**fields)


def test_constructors_of_users_are_called() -> None:
    assert hold(step={"type": "OwnInit"}).step == OwnInit(x=7)
    assert OwnInit().x == 7


# ---------------------------------------------------------------- hierarchies


class Named(DiscriminatedModel, discriminator_key="name"):
    size: int = 1


class NamedChild(Named):
    deep: "Named | None" = None


class HasNamed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    named: Named


def test_a_hierarchy_may_have_a_key_of_its_own() -> None:
    made = HasNamed.model_validate(
        {"named": {"name": "NamedChild", "deep": {"name": "NamedChild", "size": 3}}}
    )
    assert made.named == NamedChild(deep=NamedChild(size=3))
    assert made.model_dump()["named"]["deep"] == {"name": "NamedChild", "size": 3, "deep": None}
    assert export(made, uid=True, exclude_defaults=True) == {
        "named": {"name": "NamedChild", "deep": {"name": "NamedChild", "size": 3}}
    }
    assert Named._exca_discriminator_key == "name"
    assert NamedChild._exca_discriminator_key == "name"
    assert Step._exca_discriminator_key == "type"


class Open(DiscriminatedModel):
    model_config = pydantic.ConfigDict(extra="allow")


def test_extra_fields_may_be_allowed() -> None:
    made = Open.model_validate({"type": "Open", "z": 3})
    assert made.model_dump() == {"type": "Open", "z": 3}
    assert export(made) == {"type": "Open", "z": 3}


T = tp.TypeVar("T")


class Generic(DiscriminatedModel, tp.Generic[T]):
    content: T


class Ints(Generic[int]):
    pass


def test_generic_hierarchies() -> None:
    class HasGeneric(pydantic.BaseModel):
        box: Generic[int]

    made = HasGeneric.model_validate({"box": {"type": "Ints", "content": "3"}})
    assert made.box == Ints(content=3)
    assert made.model_dump() == {"box": {"type": "Ints", "content": 3}}


class Coerced(DiscriminatedModel):
    size: int = 0
    parts: list["Coerced"] = []

    @classmethod
    def _exca_coerce(cls, value: tp.Any) -> tp.Any:
        if isinstance(value, int):
            return Coerced(size=value)
        return {"type": "Sum", "parts": value} if isinstance(value, list) else value


class Sum(Coerced):
    pass


class HasCoerced(pydantic.BaseModel):
    whole: Coerced


def test_a_hierarchy_may_convert_what_it_is_given() -> None:
    made = HasCoerced.model_validate({"whole": [1, [2], "Sum"]})
    assert made.whole == Sum(parts=[Coerced(size=1), Sum(parts=[Coerced(size=2)]), Sum()])
    assert type(made.whole.parts[2]) is Sum


def test_a_module_defined_twice_keeps_working(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a module is reloaded: the new classes are chosen, where the new base is annotated."""
    source = (
        "import pydantic\nfrom exca.identity import DiscriminatedModel\n"
        "class Base(DiscriminatedModel): pass\nclass Kind(Base): pass\n"
        "class Owner(pydantic.BaseModel):\n    base: Base\n"
    )
    owners = []
    for _ in range(2):
        module = types.ModuleType("reloaded_module")
        monkeypatch.setitem(sys.modules, "reloaded_module", module)
        exec(source, module.__dict__)
        owners.append(module)
    for module in owners:
        assert type(module.Owner(base={"type": "Kind"}).base) is module.Kind


class Instrument(DiscriminatedModel, discriminator_key="name"):
    """Finds its kinds when they are first named, as packages with plug-ins do."""

    seen: tp.ClassVar[list[tp.Any]] = []

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _discover(cls, value: tp.Any, handler: pydantic.ValidatorFunctionWrapHandler) -> tp.Any:
        Instrument.seen.append(value if isinstance(value, str | dict) else type(value))
        if isinstance(value, dict) and value.get("name") == "Flute":
            if "Flute" not in cls._get_discriminated_subclasses():
                globals()["Flute"] = type("Flute", (Piano,), {"__module__": __name__})
        elif isinstance(value, dict) and value.get("name") == "Fortepiano":
            value = {**value, "name": "Piano"}
        return handler(value)


class Piano(Instrument):
    keys: int = 88


class Band(pydantic.BaseModel):
    lead: Instrument
    rest: list[Instrument] = []


def test_a_wrap_validator_may_define_the_class_that_is_named() -> None:
    try:
        band = Band.model_validate({"lead": {"name": "Flute", "keys": 3}, "rest": [{"name": "Flute"}]})
        assert type(band.lead).__name__ == type(band.rest[0]).__name__ == "Flute"
        assert band.model_dump() == {
            "lead": {"name": "Flute", "keys": 3},
            "rest": [{"name": "Flute", "keys": 88}],
        }
    finally:
        globals().pop("Flute", None)
        gc.collect()


def test_a_class_made_by_its_hierarchy_may_be_defined_on_the_way() -> None:
    try:
        assert type(Instrument(name="Flute", keys=5)).__name__ == "Flute"  # type: ignore[call-arg] # the key and fields of a kind
    finally:
        globals().pop("Flute", None)
        gc.collect()


def test_a_wrap_validator_may_name_another_class() -> None:
    made = [
        Band.model_validate({"lead": {"name": "Fortepiano", "keys": 61}}).lead,
        Instrument.model_validate({"name": "Fortepiano", "keys": 61}),
        Instrument(name="Fortepiano", keys=61),  # type: ignore[call-arg] # the key and fields of a kind
    ]
    assert [(type(one), one.model_dump()) for one in made] == [(Piano, {"keys": 61, "name": "Piano"})] * 3


def test_a_wrap_validator_sees_what_was_given_once_before_the_choice() -> None:
    Instrument.seen.clear()
    Band.model_validate({"lead": {"name": "Piano", "keys": 2}, "rest": ["Piano", Piano()]})
    given = [{"name": "Piano", "keys": 2}, {"keys": 2}, "Piano", {}, {}, Piano]
    assert sorted(map(repr, Instrument.seen)) == sorted(map(repr, given))


def test_a_name_that_no_wrap_validator_defines_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="'Tuba' is not a kind of Instrument"):
        Band.model_validate({"lead": {"name": "Tuba"}})


def test_classes_by_name_hold_the_class_itself_and_abstract_ones() -> None:
    assert Instrument._get_discriminated_subclasses() == {"Piano": Piano, "Instrument": Instrument}
    assert Piano._get_discriminated_subclasses() == {"Piano": Piano}


class WritesField(pydantic.BaseModel):
    """Writes a field itself, by what would be written anyway."""

    step: Step

    @pydantic.field_serializer("step", mode="wrap")
    def _written(self, value: Step, handler: pydantic.SerializerFunctionWrapHandler) -> tp.Any:
        return handler(value)


def test_a_serializer_of_a_field_keeps_the_key() -> None:
    assert WritesField(step=AddMore()).model_dump()["step"] == {"type": "AddMore", "value": 1, "more": 2}
