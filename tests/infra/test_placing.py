"""Where an infra may stand on a class, what becomes of one that is given twice or not at all, and what it excludes."""

import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca.errors import BareModelError, ExclusionError, InfraError

# ------------------------------------------------------------------ one instance in several places


class Two(pydantic.BaseModel):
    """Two tasks, each with an infra."""

    x: int = 1
    first: exca.TaskInfra = exca.TaskInfra()
    second: exca.TaskInfra = exca.TaskInfra()
    _third: exca.TaskInfra = exca.TaskInfra()

    @first.apply
    def one(self) -> str:
        return f"one {self.x}"

    @second.apply
    def two(self) -> str:
        return f"two {self.x}"

    @_third.apply
    def three(self) -> str:
        return f"three {self.x}"


def test_one_infra_in_two_fields_is_copied(tmp_path: Path) -> None:
    infra = exca.TaskInfra(folder=tmp_path, keep_in_ram=True)
    obj = Two(first=infra, second=infra)
    for _ in range(2):  # from the method, then from memory
        assert (obj.one(), obj.two()) == ("one 1", "two 1")
    assert obj.first.uid().endswith("Two.one,0/default")
    assert obj.second.uid().endswith("Two.two,0/default")
    again = Two(x=2, first=obj.first, second=obj.first)
    assert (again.two(), again.one(), obj.one()) == ("two 2", "one 2", "one 1")


def test_an_infra_moved_to_another_field_answers_for_that_one(tmp_path: Path) -> None:
    obj = Two(first=exca.TaskInfra(folder=tmp_path))
    obj.second = obj._third = obj.first
    assert (obj.two(), obj.three(), obj.one()) == ("two 1", "three 1", "one 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{__name__}.Two.{name},0" for name in ("one", "three", "two")
    ]


# ------------------------------------------------------------------ no infra at all


if tp.TYPE_CHECKING:  # to checkers, the decorators below stand on what may be None
    from exca import MapInfra as MaybeMap
    from exca import SubmitInfra as MaybeSubmit
    from exca import TaskInfra as MaybeTask
else:
    MaybeTask, MaybeMap = exca.TaskInfra | None, tp.Optional[exca.MapInfra]  # noqa: UP045 # as users write it
    MaybeSubmit = exca.SubmitInfra | None
NO_INFRA: tp.Any = None


class Maybe(pydantic.BaseModel):
    """All infras may be left out."""

    x: int = 3
    task: MaybeTask = exca.TaskInfra(version="5")
    mapped: MaybeMap = exca.MapInfra()
    submit: MaybeSubmit = exca.SubmitInfra()
    static: MaybeSubmit = exca.SubmitInfra()
    _private: MaybeTask = exca.TaskInfra()

    @task.apply
    def compute(self) -> int:
        return 2 * self.x

    @mapped.apply(item_uid=str)
    def times(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield self.x * item

    @submit.apply
    def add(self, y: int) -> int:
        return self.x + y

    @static.apply
    @staticmethod
    def plus(x: int, y: int = 1) -> int:
        return x + y

    @_private.apply
    def hidden(self) -> int:
        return -self.x


def test_an_object_without_infras_runs_its_methods(tmp_path: Path) -> None:
    obj = Maybe(task=NO_INFRA, mapped=NO_INFRA, submit=NO_INFRA, static=NO_INFRA)
    obj._private = NO_INFRA
    for now in (obj, obj.model_copy(), Maybe.model_validate(obj.model_dump(exclude={"_private"}))):
        assert now.task is None
        assert (now.compute(), list(now.times([1, 2])), now.add(4)) == (6, [3, 6], 7)
        assert (now.plus(4), now.plus(4, y=2), now.hidden()) == (5, 6, -3)
    assert repr(obj) == "Maybe(x=3, task=None, mapped=None, submit=None, static=None)"
    some = Maybe(task=exca.TaskInfra(folder=tmp_path), mapped=NO_INFRA)
    some._private = NO_INFRA
    assert (some.compute(), list(some.times([1])), some.hidden()) == (6, [3], -3)
    assert some.task.uid().endswith("Maybe.compute,5/mapped=None-6cdb058b")  # as in 0.6.0
    assert list(some.task.obj_infras()) == ["task", "submit", "static"]
    clone = some.task.clone_obj(x=4)
    assert (clone.compute(), list(clone.times([1])), clone.mapped, clone._private) == (8, [4], None, None)
    assert [found.x for found in some.task.iter_cached()] == [3, 4]


def test_a_task_without_an_infra_cannot_join_an_array(tmp_path: Path) -> None:
    obj = Maybe(task=exca.TaskInfra(folder=tmp_path))
    with pytest.raises(InfraError, match="takes objects with such an infra"), obj.task.job_array() as array:
        array.append(Maybe(task=NO_INFRA))


def test_a_child_may_drop_the_infra_of_its_parent() -> None:
    class Child(Maybe):
        task: MaybeTask = NO_INFRA

    assert Child().task is NO_INFRA
    assert Child().compute() == 6


# ------------------------------------------------------------------ plain BaseModel


@pytest.mark.parametrize("annotation", [pydantic.BaseModel, list[pydantic.BaseModel]])
def test_a_field_that_drops_what_it_is_given_is_an_error(tmp_path: Path, annotation: tp.Any) -> None:
    class Holder(pydantic.BaseModel):
        model: annotation  # pyright: ignore[reportInvalidTypeForm] # known when the class is made
        infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> int:
            return 1

    value = {"y": 1} if annotation is pydantic.BaseModel else [{"y": 1}]
    obj = Holder(model=value)
    for ask in (obj.run, obj.infra.uid, obj.infra.config, lambda: obj.infra.clone_obj(model=value)):
        with pytest.raises(BareModelError, match="what it was given is lost"):
            ask()
    with pytest.raises(BareModelError) as caught:
        obj.infra.uid()
    assert any("model" in note for note in caught.value.__notes__)


# ------------------------------------------------------------------ exclude_from_cache_uid


def excluding(exclude: tp.Any) -> type[pydantic.BaseModel]:
    """Define a class that leaves something out of its uid."""

    class Part(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        z: int = 2

    class Excluding(pydantic.BaseModel):
        x: int = 1
        part: Part = Part()
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply(exclude_from_cache_uid=exclude)
        def run(self) -> int:
            return 1

        @pydantic.computed_field
        def double(self) -> int:
            return 2 * self.x

        def names(self) -> list[str]:
            return ["x"]

    return Excluding


@pytest.mark.parametrize("exclude", [["y"], ("x", "y"), {"y.z"}, ["_x"]])
def test_excluding_a_field_that_does_not_exist_is_an_error_of_the_class(exclude: tp.Any) -> None:
    with pytest.raises(
        ExclusionError,
        match=r"exclude_from_cache_uid of .*Excluding\.run names '(y|y\.z|_x)', but the fields of .*Excluding are x, "
        "part, infra, double: correct the name",
    ):
        excluding(exclude)


@pytest.mark.parametrize("exclude", ["x", "", 3, [1], None])
def test_excluding_no_list_of_names_is_an_error_where_it_is_written(exclude: tp.Any) -> None:
    with pytest.raises(ExclusionError, match="names no fields: give a list of names") as caught:
        excluding(exclude)
    assert isinstance(caught.value, TypeError)  # what earlier releases raised


@pytest.mark.parametrize(
    ("exclude", "text"),
    [
        (["x"], "double=4,part.z=3"),
        (iter(["x", "double"]), "part.z=3"),
        (["part.z", "x"], "part={},double=4"),
        ("method:names", "double=4,part.z=3"),
        (lambda self: ["x", "double", "part"], "default"),
        (["infra.version", "infra"], "x=2,double=4,part.z=3"),
    ],
)
def test_fields_that_exist_may_be_excluded(exclude: tp.Any, text: str) -> None:
    obj: tp.Any = excluding(exclude).model_validate({"x": 2, "part": {"z": 3}})
    uid = obj.infra.uid().partition("/")[2]
    assert uid == text or uid.rpartition("-")[0] == text


def test_excluding_by_a_method_that_does_not_exist_is_an_error() -> None:
    infra = excluding("method:nope")().infra  # type: ignore[attr-defined] # of the class above
    with pytest.raises(InfraError, match=r"asks for a method that .*Excluding does not have: define 'nope'"):
        infra.uid()


def test_a_class_that_takes_any_field_may_exclude_any() -> None:
    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply(exclude_from_cache_uid=["y"])
        def run(self) -> int:
            return 1

    assert Open(y=3, z=4).infra.uid().endswith("/z=4-89a58687")  # type: ignore[call-arg] # any field
