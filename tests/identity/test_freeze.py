"""Freezing objects whose uid is in use, and taking objects apart to make changed ones."""

import collections
import copy
import pickle
import subprocess
import sys
import threading
import typing as tp
from pathlib import Path

import cloudpickle
import hypothesis
import hypothesis.strategies as st
import pydantic
import pytest

from exca.errors import FrozenError
from exca.identity import DiscriminatedModel, as_input, export, freeze, is_frozen
from identity_stand_ins import Conv, Dense, Model, Part, Strict


class Whole(Strict):
    x: int = 1
    part: Part = Part()
    parts: list[Part] = []
    table: dict[str, tp.Any] = {}
    pair: tuple[Part, ...] = ()
    any: tp.Any = None
    _private: int = 1

    @property
    def prop(self) -> int:
        return self._private

    @prop.setter
    def prop(self, value: int) -> None:
        self._private = value


def whole() -> Whole:
    return Whole(parts=[Part()], table={"q": [Part()]}, pair=(Part(),), any={1: Part()}, part=Part(k=2))


def models_in(obj: Whole) -> list[tp.Any]:
    return [obj, obj.part, obj.parts[0], obj.table["q"][0], obj.pair[0], obj.any[1]]


# ---------------------------------------------------------------- freezing


def test_fields_of_a_frozen_object_cannot_be_set_at_any_depth() -> None:
    obj = whole()
    freeze(obj)
    for model in models_in(obj):
        name = next(iter(type(model).model_fields))
        before = getattr(model, name)
        with pytest.raises(
            RuntimeError, match=rf"{type(model).__qualname__}\.{name} cannot be set.*clone_obj"
        ):
            setattr(model, name, 7)
        with pytest.raises(FrozenError, match="cannot be deleted"):
            delattr(model, name)
        assert getattr(model, name) == before
    with pytest.raises(FrozenError):
        obj.unknown = 3  # type: ignore[attr-defined] # that is the point


def test_private_attributes_and_properties_can_be_set() -> None:
    obj = whole()
    freeze(obj)
    obj._private = 2
    obj.prop = 3
    assert obj.prop == 3


def test_other_objects_of_the_class_are_free() -> None:
    freeze(whole())
    obj = whole()
    obj.x = 2
    assert not is_frozen(obj)
    assert obj.x == 2
    with pytest.raises(ValueError, match='"Whole" object has no field "unknown"'):
        obj.unknown = 3  # type: ignore[attr-defined] # that is the point


def test_freezing_shows_nowhere_else() -> None:
    obj, twin = whole(), whole()
    freeze(obj)
    freeze(obj)
    assert is_frozen(obj)
    assert obj == twin
    assert repr(obj) == repr(twin)
    assert obj.model_dump() == twin.model_dump()
    assert obj.model_dump_json(exclude_unset=True) == twin.model_dump_json(exclude_unset=True)
    assert obj.model_fields_set == twin.model_fields_set
    assert repr(obj.model_fields_set) == repr(set(obj.model_fields_set))
    assert Whole.model_validate(obj) is obj
    assert export(obj) == export(twin)


COPIES: dict[str, tp.Callable[[Whole], Whole]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda obj: obj.model_copy(),
    "model_copy deep": lambda obj: obj.model_copy(deep=True),
    "model_copy update": lambda obj: obj.model_copy(update={"x": 3}),
    "pickle": lambda obj: pickle.loads(pickle.dumps(obj)),
    "cloudpickle": lambda obj: cloudpickle.loads(cloudpickle.dumps(obj)),
    "as_input": lambda obj: Whole(**as_input(obj)),
}


@pytest.mark.parametrize("name", list(COPIES))
def test_copies_are_not_frozen(name: str) -> None:
    obj = whole()
    freeze(obj)
    other = COPIES[name](obj)
    assert not is_frozen(other)
    assert type(other.model_fields_set) is set
    other.x = 5
    assert obj.x == 1


def test_deep_copies_are_free_at_any_depth() -> None:
    obj = whole()
    freeze(obj)
    for other in (copy.deepcopy(obj), pickle.loads(pickle.dumps(obj))):
        assert not any(is_frozen(model) for model in models_in(other))
    assert all(is_frozen(model) for model in models_in(obj))


class Listening(Strict):
    x: int = 1
    _heard: list[str] = []

    def __setattr__(self, name: str, value: tp.Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("_"):
            self._heard.append(name)


class ListeningChild(Listening):
    y: int = 1

    def __setattr__(self, name: str, value: tp.Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("_"):
            self._heard.append("child's " + name)


class ListeningGrandChild(ListeningChild):
    pass


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_methods_that_set_attributes_are_still_called_once(order: tuple[int, ...]) -> None:
    classes: list[tp.Any] = [Listening, ListeningChild, ListeningGrandChild]
    for k in order:
        obj = classes[k]()
        freeze(obj)
        with pytest.raises(FrozenError):
            obj.x = 2
        assert obj._heard == []
    obj = ListeningGrandChild()
    obj.y = 3
    assert obj._heard == ["y", "child's y"]


class Slotted(Strict):
    __slots__ = ("extra_slot",)
    x: int = 1


class Free(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)
    x: int = 1


def test_odd_classes_freeze_too() -> None:
    slotted = Slotted()
    free = Free.model_validate({"z": [Part()]})
    for obj in (slotted, free):
        freeze(obj)
        with pytest.raises(FrozenError):
            obj.x = 2
    with pytest.raises(FrozenError):
        free.z[0].k = 2  # type: ignore[attr-defined] # an extra field
    with pytest.raises(FrozenError):
        free.new = 2  # type: ignore[attr-defined] # an extra field
    thawed = free.model_copy()
    thawed.x = "3"  # type: ignore[assignment] # validated on assignment
    assert thawed.x == 3


class InfraLike(Strict):
    folder: str | None = None
    _infra_name: str = ""


class Placed(Strict):
    x: int = 1
    infra: InfraLike = InfraLike()


def test_infras_stay_as_they_are() -> None:
    obj = Placed(infra=InfraLike())
    freeze(obj)
    obj.infra.folder = "elsewhere"
    with pytest.raises(FrozenError):
        obj.x = 2


def test_many_threads_may_freeze_one_object() -> None:
    class Fresh(Strict):
        parts: list[Part] = []

    obj = Fresh(parts=[Part() for _ in range(100)])
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        freeze(obj)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(is_frozen, obj.parts))
    with pytest.raises(FrozenError):
        obj.parts = []
    Fresh().parts = [Part()]


IN_ANOTHER_PROCESS = """
import pickle, sys
from exca.identity import export, freeze, is_frozen

cls, obj = pickle.load(sys.stdin.buffer)
assert not is_frozen(obj)
obj.x = 3
assert export(obj, uid=True, exclude_defaults=True) == {"x": 3}
freeze(obj)
try:
    obj.x = 4
except RuntimeError:
    cls().x = 5
    print("frozen", obj.x)
"""


def test_a_class_that_froze_travels_by_value() -> None:
    """What lies on the class for freezing and exporting must not keep it from being sent to a job."""

    class Local(Strict):
        x: int = 1
        _seen: bool = False

        def __setattr__(self, name: str, value: tp.Any) -> None:
            super().__setattr__(name, value)

    obj = Local(x=2)
    export(obj, uid=True, exclude_defaults=True)
    as_input(obj)
    freeze(obj)
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=cloudpickle.dumps((Local, obj)),
        env={"PYTHONPATH": f"{root / 'src'}:{root / 'tests' / 'support'}"},
        check=True,
        capture_output=True,
    )
    assert run.stdout == b"frozen 3\n"


# ---------------------------------------------------------------- taking apart


def changed(obj: tp.Any, **fields: tp.Any) -> tp.Any:
    return type(obj)(**{**as_input(obj), **fields})


class Kind(DiscriminatedModel):
    pass


class KindOne(Kind):
    size: int = 1


class KindTwo(Kind):
    inner: Kind = KindOne(size=2)


class Child(Part):
    more: int = 3


class Many(Strict):
    model: Model = Conv()
    models: list[Model] = [Conv(), Dense(width=2)]
    maybe: Model | None = None
    tuned: Part = Part(k=16)
    part: Part = Part()
    either: Part | int = 3
    named: dict[str, Part] = {}
    ordered: collections.OrderedDict[str, Part] = collections.OrderedDict()
    pair: tuple[Part, int] = (Part(), 1)
    kind: Kind = KindTwo()
    kinds: list[Kind] = []
    any: tp.Any = None
    where: Path = Path("x")
    values: list[int] = [1, 2]


def test_sub_models_become_dicts_of_what_was_given() -> None:
    many = Many(
        models=[Dense(width=3)],
        part=Part(m=3),
        either=Part(),
        named={"a": Part(k=2)},
        kinds=[KindOne(size=4)],
    )
    assert as_input(many) == {
        "model": {"name": "conv"},
        "models": [{"name": "dense", "width": 3}],
        "tuned": {"k": 16},
        "part": {"m": 3},
        "either": {},
        "named": {"a": {"k": 2}},
        "pair": ({}, 1),
        "kind": {"type": "KindTwo", "inner": {"type": "KindOne", "size": 2}},
        "kinds": [{"type": "KindOne", "size": 4}],
        "values": [1, 2],
    }


def test_a_patched_default_keeps_the_rest_of_it() -> None:
    given = as_input(Many())
    given["tuned"]["m"] = 7
    given["model"]["layers"] = 3
    given["models"][1]["width"] = 5
    given["kind"]["inner"]["size"] = 9
    patched = Many(**given)
    assert patched.tuned == Part(k=16, m=7)
    assert patched.model == Conv(layers=3)
    assert patched.models == [Conv(), Dense(width=5)]
    assert patched.kind == KindTwo(inner=KindOne(size=9))


def test_what_a_dict_cannot_bring_back_is_copied() -> None:
    child = Child(more=4)
    any_part = Part(k=3)
    many = Many(part=child, any=[any_part, {1, 2}], named={"a": child})
    given = as_input(many)
    assert given["part"] == child
    assert given["part"] is not child
    assert given["named"]["a"] == child
    assert given["any"] == [any_part, {1, 2}]
    assert given["any"][0] is not any_part
    again = Many(**given)
    assert again == many
    assert type(again.part) is Child


def test_the_new_object_shares_nothing_and_is_not_frozen() -> None:
    many = Many(any={"x": [1]}, named={"a": Part()}, values=[3])
    freeze(many)
    again = Many(**as_input(many))
    again.any["x"].append(2)
    again.named["a"].k = 5
    again.values.append(4)
    again.pair[0].k = 6
    assert (many.any, many.values) == ({"x": [1]}, [3])
    assert (many.named["a"].k, many.pair[0].k) == (1, 1)


def test_a_default_changed_in_place_is_kept() -> None:
    many = Many()
    many.values.append(3)
    many.part.k = 5
    again = Many(**as_input(many))
    assert again.values == [1, 2, 3]
    assert again.part.k == 5


class Aliased(Strict):
    x: int = pydantic.Field(1, alias="xx")
    y: int = pydantic.Field(1, validation_alias=pydantic.AliasChoices(pydantic.AliasPath("a", 0), "yy"))


class ByName(Strict):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    x: int = pydantic.Field(1, alias="xx")


class Rooted(pydantic.RootModel[dict[str, Part]]):
    pass


class Special(Strict):
    rooted: Rooted = Rooted({})
    secret: pydantic.SecretStr = pydantic.SecretStr("a")
    made: str = pydantic.Field(default_factory=lambda: "made")
    several: Part | Child | None = None
    either: Part | dict[str, int] = {}
    listed: list[Part] | Part = []
    frozen: frozenset[int] = frozenset()
    lock: tp.Any = None


def test_special_fields() -> None:
    aliased = Aliased.model_validate({"xx": 3, "yy": 4})
    assert as_input(aliased) == {"xx": 3, "yy": 4}
    assert as_input(ByName.model_validate({"x": 3})) == {"x": 3}
    lock = threading.Lock()
    rooted = Rooted({"a": Part(k=2)})
    special = Special(
        rooted=rooted, secret=pydantic.SecretStr("b"), several=Child(), either=Part(), lock=lock
    )
    given = as_input(special)
    assert given["rooted"] == {"a": {"k": 2}}
    assert given["secret"].get_secret_value() == "b"
    assert given["several"] == Child()
    assert given["either"] == Part()
    assert given["lock"] is lock  # it cannot be copied
    assert Special(**given) == special
    assert as_input(Special(listed=[Part(k=2)]))["listed"] == [{"k": 2}]
    assert as_input(Special(listed=Part(k=2)))["listed"] == {"k": 2}


def test_extra_fields_come_along() -> None:
    free = Free.model_validate({"z": [Part(k=2)]})
    assert changed(free) == free
    assert changed(free).z[0] is not free.z[0]  # type: ignore[attr-defined] # an extra field


PARTS = st.builds(Part, k=st.integers(0, 2)) | st.builds(Part) | st.builds(Child, more=st.integers(0, 2))
MODELS = (
    st.builds(Conv) | st.builds(Conv, layers=st.integers(0, 2)) | st.builds(Dense, width=st.integers(0, 2))
)
KINDS = st.recursive(
    st.builds(Kind) | st.builds(KindOne, size=st.integers(0, 2)),
    lambda inner: st.builds(KindTwo) | st.builds(KindTwo, inner=inner),
    max_leaves=3,
)
MANY = st.builds(
    Many,
    model=MODELS,
    models=st.lists(MODELS, max_size=2),
    maybe=st.none() | MODELS,
    tuned=PARTS,
    either=st.integers(0, 2) | PARTS,
    named=st.dictionaries(st.text("ab", max_size=1), PARTS, max_size=2),
    pair=st.tuples(PARTS, st.integers(0, 2)),
    kind=KINDS,
    kinds=st.lists(KINDS, max_size=2),
    any=st.none() | PARTS | st.lists(PARTS, max_size=1),
)


@hypothesis.given(MANY)
def test_an_equal_object_comes_back(many: Many) -> None:
    again = Many(**as_input(many))
    assert again == many
    assert export(again) == export(many)
    assert as_input(again) == as_input(many)
