"""Methods with an infra that a child class overrides without one: plain, said once, and never under a wrong address."""

import logging
import random
import typing as tp
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca import settings
from exca.errors import InfraError, ReadOnlyError, RefusalWarning, UncachedOverrideWarning

pytestmark = pytest.mark.filterwarnings("ignore::exca.errors.UncachedOverrideWarning")


@pytest.fixture(autouse=True)
def _nothing_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_warned", set())


random.getstate()  # what a module does on import is listed, and no reason to keep nothing


class Parent(pydantic.BaseModel):
    """A task, a map and a call, each of which uses another method."""

    x: int = 1
    FACTOR: tp.ClassVar[int] = 10
    task: exca.TaskInfra = exca.TaskInfra()
    mapped: exca.MapInfra = exca.MapInfra()
    call: exca.SubmitInfra = exca.SubmitInfra()
    dynamic: exca.TaskInfra = exca.TaskInfra()

    @task.apply
    def run(self) -> int:
        return self.scaled(1)

    @mapped.apply(item_uid=str)
    def items(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield self.scaled(item)

    @call.apply
    def add(self, y: int) -> int:
        return self.x + y

    @dynamic.apply
    def found(self) -> int:
        return int(getattr(self, "sca" + "led")(1))

    def scaled(self, value: int) -> int:
        return self.x * value * self.FACTOR

    def unused(self) -> int:
        return 3


class Plain(Parent):
    """Overrides all of them without an infra."""

    def run(self) -> int:
        return super().run() + 1

    def items(self, items: Iterable[int]) -> Iterator[int]:
        for item in super().items(items):
            yield item + 1

    def add(self, y: int) -> int:
        return super().add(y) + 1

    def found(self) -> int:
        return super().found() + 1


class Harmless(Plain):
    """Overrides what the methods do not use, and has a field of its own."""

    more: int = 3
    other: tp.ClassVar[int] = 5

    def unused(self) -> int:
        return 4


class Scales(Plain):
    """Overrides what they use."""

    def scaled(self, value: int) -> int:
        return 1000 * value


class Sets(Plain):
    """The same by a class variable that one of these uses."""

    FACTOR = 1000


class Starts(Plain):
    """The same by what runs when the object is made."""

    def model_post_init(self, context: tp.Any, /) -> None:
        vars(self)["x"] = 100


class Validates(Plain):
    """The same by a validator."""

    @pydantic.model_validator(mode="after")
    def _set(self) -> tp.Self:
        vars(self)["x"] = 100
        return self


class Applied(Scales):
    """Applies an infra of its own again."""

    task: exca.TaskInfra = exca.TaskInfra()

    @task.apply
    def run(self) -> int:
        return super().run() + 1


class Twice(Plain):
    """Makes another infra the one of the overriding method."""

    second: exca.TaskInfra = exca.TaskInfra()

    @second.apply
    def run(self) -> int:
        return 7


def infras(folder: Path, **fields: tp.Any) -> dict[str, tp.Any]:
    """Return infras for all methods."""
    mapped = {key: value for key, value in fields.items() if value != "retry"}
    return {
        "task": {"folder": folder, **fields},
        "mapped": {"folder": folder, **mapped},
        "dynamic": {"folder": folder, **fields},
    }


def warned(cls: type[Parent], **fields: tp.Any) -> list[str]:
    """Make an object, and return what was said of its class."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cls(**fields)
    return [str(w.message) for w in caught if issubclass(w.category, UncachedOverrideWarning)]


def test_one_warning_per_class_says_how_to_decorate() -> None:
    class Overrides(Parent):
        def run(self) -> int:
            return 5

        def items(self, items: Iterable[int]) -> Iterator[int]:
            yield from items

    class Child(Overrides):
        pass

    (task, mapped) = warned(Overrides)
    name = f"{__name__}.{Overrides.__qualname__}"
    assert task.startswith(
        f"{name} overrides Parent.run (by {Overrides.__qualname__}.run) without an infra: it is called"
    )
    assert "write `task: TaskInfra = TaskInfra(...)` into the class and `@task.apply` above 'run'" in task
    assert "`@mapped.apply(item_uid=...)` above 'items'" in mapped
    assert warned(Overrides) == []
    assert len(warned(Child)) == 2
    assert warned(Child) == []
    assert Child().run() == 5


def test_what_is_decorated_again_is_not_warned_of() -> None:
    class Again(Parent):
        task: exca.TaskInfra = exca.TaskInfra()
        other: exca.TaskInfra = exca.TaskInfra()

        @task.apply
        def run(self) -> int:
            return 5

        @other.apply
        def found(self) -> int:
            return 5

    class Below(Again):
        def scaled(self, value: int) -> int:
            return value

    assert warned(Again) == warned(Below) == []
    assert Again().other.status() == Again().task.status() == "not submitted"


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("asked", ["job", "status", "clear_job", "job_array", "submit"])
def test_what_would_speak_of_the_parents_result_is_refused(
    folder: bool, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = Harmless(**(infras(tmp_path) if folder else {}))

    def ask() -> tp.Any:
        if asked == "submit":
            return obj.call.submit(3)
        if asked == "job_array":
            with Parent().task.job_array() as array:
                array.append(obj)
            return array
        return getattr(obj.task, asked)()

    name, method = ("call", "add") if asked == "submit" else ("task", "run")
    refused = rf"{name}\.{asked}\(\) is about Parent\.{method}, and {__name__}\.Plain overrides that without .*To cache"
    with pytest.raises(InfraError, match=refused) as caught:
        ask()
    assert caught.value.code == "plain-override"
    monkeypatch.setenv(settings.VARIABLE, f"plain-override:{__name__}.Plain")
    with pytest.warns(RefusalWarning, match=refused):
        ask()


def test_the_parents_result_is_not_cleared_for_a_child(tmp_path: Path) -> None:
    parent = Parent(**infras(tmp_path))
    parent.run()
    with pytest.raises(InfraError, match="so that it would remove the result of another method"):
        Harmless(**infras(tmp_path)).task.clear_job()
    assert parent.task.status() == "completed"
    parent.task.clear_job()
    assert parent.task.status() == "not submitted"


def test_the_cache_of_a_map_is_the_parents_or_refused(tmp_path: Path) -> None:
    assert list(Parent(**infras(tmp_path)).items([1])) == [10]
    assert dict(Harmless(**infras(tmp_path)).mapped.cache_dict) == {"1": 10}
    with pytest.raises(InfraError, match=r"mapped\.cache_dict\(\) is about Parent\.items"):
        _ = Scales(**infras(tmp_path)).mapped.cache_dict


HARMFUL: list[type[Plain]] = [Scales, Sets, Starts, Validates]


def test_super_reads_and_writes_the_parents_address_where_nothing_it_uses_is_overridden(
    tmp_path: Path,
) -> None:
    for obj in (Plain(**infras(tmp_path)), Harmless(**infras(tmp_path))):
        assert (obj.run(), list(obj.items([1, 2])), obj.add(1)) == (11, [11, 21], 3)
    (task,) = tmp_path.glob(f"{__name__}.Parent.run,0/*/job.json")
    assert task.parent.name == "default"
    parent = Parent(**infras(tmp_path, mode="read-only"))
    assert (parent.run(), list(parent.items([1, 2]))) == (10, [10, 20])


@pytest.mark.parametrize("kind", HARMFUL)
@pytest.mark.parametrize("first", [True, False])
def test_super_does_neither_where_it_is(
    kind: type[Plain], first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not first:
        assert (Parent(**infras(tmp_path)).run(), list(Parent(**infras(tmp_path)).items([1]))) == (10, [10])
    with caplog.at_level(logging.WARNING, logger="exca"):
        for _ in range(2):
            obj = kind(**infras(tmp_path))
            assert (obj.run(), list(obj.items([1]))) == (1001, [1001])
    if first:
        assert not list(tmp_path.rglob("job.json")) + list(tmp_path.rglob("*-info.jsonl"))
        said = [record.getMessage() for record in caplog.records]
        assert len(said) <= 2  # once per class and method, for all tests
        assert all(f"{kind.__name__} overrides what Parent." in text for text in said)
    parent = Parent(**infras(tmp_path))
    assert (parent.run(), list(parent.items([1]))) == (10, [10])


def test_what_cannot_be_told_is_not_kept(tmp_path: Path) -> None:
    class Only(Parent):
        more: int = 3

        def found(self) -> int:
            return super().found() + 1

        def new(self) -> int:
            return 5

    for obj in (Scales(**infras(tmp_path)), Harmless(**infras(tmp_path))):
        assert obj.found() == (1001 if isinstance(obj, Scales) else 11)
    with pytest.raises(ReadOnlyError):
        Parent(**infras(tmp_path, mode="read-only")).found()
    assert Only(**infras(tmp_path)).found() == 11
    assert Parent(**infras(tmp_path, mode="read-only")).found() == 10


@pytest.mark.parametrize("kind", HARMFUL)
def test_read_only_computes_nothing_of_it(kind: type[Plain], tmp_path: Path) -> None:
    Parent(**infras(tmp_path)).run()
    obj = kind(**infras(tmp_path, mode="read-only"))
    with pytest.raises(
        ReadOnlyError,
        match=rf"Parent\.run,0 has no result for a {kind.__name__}, which overrides",
    ):
        obj.run()
    with pytest.raises(
        ReadOnlyError,
        match=rf"Parent\.items,0 has no results for a {kind.__name__}, which overrides",
    ):
        list(obj.items([1]))


def test_a_child_with_an_infra_of_its_own_keeps_its_own_result(tmp_path: Path) -> None:
    assert Parent(**infras(tmp_path)).run() == 10
    for _ in range(2):
        assert Applied(**infras(tmp_path)).run() == 1002
    assert Twice(**infras(tmp_path), second=exca.TaskInfra(folder=tmp_path)).run() == 7
    assert sorted(path.parts[-3] for path in tmp_path.rglob("job.json")) == [
        f"{__name__}.{name}.run,0" for name in ("Applied", "Parent", "Twice")
    ]
