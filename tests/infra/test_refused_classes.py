"""Classes that are refused when they are made: infras on methods, and in places, that can't work."""

import typing as tp
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca import settings, steps
from exca.errors import ExtraFieldsError, InfraError, RefusalWarning

KINDS: tp.Any = [exca.TaskInfra, exca.MapInfra, exca.SubmitInfra]


@pytest.fixture(autouse=True)
def _nothing_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_warned", set())


def applied(infra: tp.Any, function: tp.Any) -> None:
    """Apply an infra of any kind."""
    if isinstance(infra, exca.MapInfra):
        infra.apply(item_uid=str)(function)
    else:
        infra.apply(function)


async def awaits(self: tp.Any) -> int:
    return 1


async def awaits_items(self: tp.Any, items: tp.Any) -> int:
    return 1


async def yields_and_awaits(self: tp.Any) -> AsyncIterator[int]:
    yield 1


async def yields_and_awaits_items(self: tp.Any, items: tp.Any) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("functions", [(awaits, awaits_items), (yields_and_awaits, yields_and_awaits_items)])
def test_an_async_method(kind: tp.Any, functions: tuple[tp.Any, tp.Any]) -> None:
    function = functions[kind is exca.MapInfra]
    refused = f"{kind.__name__} cannot be applied to .*{function.__name__}, which is an async def"
    with pytest.raises(InfraError, match=refused) as caught:
        applied(kind(), function)
    assert caught.value.code == "async-method"


def test_an_async_method_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tp.Any:
        class Fetch(pydantic.BaseModel):
            infra: exca.TaskInfra = exca.TaskInfra()

            @infra.apply
            async def run(self) -> int:
                return 3

        return Fetch

    with pytest.raises(InfraError, match=r"which is an async def.*asyncio\.run") as caught:
        make()
    name = f"{__name__}.test_an_async_method_of_a_class.<locals>.make.<locals>.Fetch"
    assert f"exca.settings.allow('async-method', {name!r})" in str(caught.value)
    monkeypatch.setenv(settings.VARIABLE, f"async-method:{name}")
    with pytest.warns(RefusalWarning, match="which is an async def"):
        cls = make()
    coroutine = cls().run()
    with pytest.raises(StopIteration, match="3"):
        coroutine.send(None)


def test_a_task_that_yields(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tp.Any:
        class Stream(pydantic.BaseModel):
            infra: exca.TaskInfra = exca.TaskInfra()

            @infra.apply
            def run(self) -> Iterator[int]:
                yield 3

        return Stream

    with pytest.raises(
        InfraError, match=r"TaskInfra cannot be applied to .*Stream.run, which yields"
    ) as caught:
        make()
    assert caught.value.code == "generator-method"
    monkeypatch.setenv(settings.VARIABLE, "generator-method")
    with pytest.warns(RefusalWarning, match="which yields"):
        cls = make()
    assert list(cls().run()) == [3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("private", [False, True])
def test_a_default_of_another_kind(kind: tp.Any, private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    other = KINDS[KINDS.index(kind) - 1]
    name = "_infra" if private else "infra"

    def make() -> tp.Any:
        default = other()
        applied(default, items_of if other is exca.MapInfra else value_of)
        body = {"__module__": __name__, "__annotations__": {name: kind | None}, name: default}
        return type(
            "Wrong", (pydantic.BaseModel,), body
        )()  # private attributes are looked at with the first object

    with pytest.raises(InfraError, match=f"'{name}' of .*Wrong is annotated with {kind.__name__}, and its default is a "
        f"{other.__name__}: write `{name}: {other.__name__}`") as caught:  # fmt: skip
        make()
    assert caught.value.code == "infra-kind"
    monkeypatch.setenv(settings.VARIABLE, "infra-kind")
    with pytest.warns(RefusalWarning, match="is annotated with"):
        assert getattr(make(), name)._infra_name == name


def value_of(self: tp.Any) -> int:
    return 1


def items_of(self: tp.Any, items: Iterable[int]) -> Iterator[int]:
    yield from items


if tp.TYPE_CHECKING:
    from exca import MapInfra as AnyInfra
else:
    AnyInfra = exca.TaskInfra | exca.MapInfra


CONTAINERS: dict[str, tuple[tp.Any, tp.Any]] = {
    "list": (list[exca.TaskInfra], []),
    "filled": (list[tp.Any], [exca.TaskInfra()]),
    "dict": (dict[str, exca.MapInfra], {}),
    "filled dict": (tp.Any, {"a": [exca.MapInfra()]}),
    "tuple": (tuple[int, exca.SubmitInfra] | None, None),
    "nested": (dict[str, list[exca.TaskInfra | None]], {}),
    "annotated": (tp.Annotated[list[tp.Annotated[exca.TaskInfra, "x"]], "y"], []),
}


@pytest.mark.parametrize("case", CONTAINERS)
@pytest.mark.parametrize("placed", [True, False])
def test_infras_in_containers(case: str, placed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    annotation, default = CONTAINERS[case]
    if not placed and case.startswith("filled"):
        pytest.skip("nothing but the annotation of a class without an infra is seen")

    def make() -> tp.Any:
        body: dict[str, tp.Any] = {
            "__module__": __name__,
            "__annotations__": {"infras": annotation},
            "infras": default,
        }
        if placed:
            body["__annotations__"]["infra"] = exca.TaskInfra
            body["infra"] = exca.TaskInfra()
            body["infra"].apply(value_of)
        return type("Several", (pydantic.BaseModel,), body)

    with pytest.raises(
        InfraError, match=r"'infras' of .*Several holds infras in a list, tuple, set or dict"
    ) as caught:
        make()
    assert caught.value.code == "infra-in-container"
    monkeypatch.setenv(settings.VARIABLE, f"infra-in-container:{__name__}.Several")
    with pytest.warns(RefusalWarning, match="holds infras in a list"):
        make()()


def test_models_with_infras_may_be_in_containers(tmp_path: Path) -> None:
    class Part(pydantic.BaseModel):
        x: int = 1
        infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> int:
            return self.x

    class Whole(pydantic.BaseModel):
        parts: list[Part] = [Part()]
        infra: AnyInfra = exca.MapInfra()
        _other: "AnyInfra" = exca.MapInfra()

        @infra.apply(item_uid=str)
        def run(self, items: Iterable[int]) -> Iterator[int]:
            yield from items

        @_other.apply(item_uid=str)
        def rest(self, items: Iterable[int]) -> Iterator[int]:
            yield from items

    assert [part.run() for part in Whole(parts=[Part(), Part(x=2)]).parts] == [1, 2]


# ------------------------------------------------------------------ models that ignore unknown fields


class Lax(pydantic.BaseModel):
    """Ignores fields that it does not know."""

    layers: int = 1


class Free(pydantic.BaseModel, extra="allow"):
    """Takes any field."""


class Uses(pydantic.BaseModel):
    """A task and a map over models."""

    free: Free = Free()
    models: list[Lax] = []
    ignored: Lax | None = None
    infra: exca.TaskInfra = exca.TaskInfra()
    mapped: exca.MapInfra = exca.MapInfra()

    @infra.apply(exclude_from_cache_uid=["ignored"])
    def run(self) -> int:
        return sum(model.layers for model in self.models)

    @mapped.apply(item_uid=str, exclude_from_cache_uid=["ignored"])
    def items(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield item * len(self.models)


@pytest.mark.parametrize("method", ["run", "items", "job"])
def test_a_model_that_ignores_unknown_fields_without_a_folder(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(obj: Uses) -> tp.Any:
        if method == "items":
            return list(obj.items([1, 2]))
        return obj.run() if method == "run" else obj.infra.job().result()

    mistyped = [{"layres": 3}]
    with pytest.raises(
        ExtraFieldsError, match=r"Lax \(found at 'models\.0'\) does not say what to do with unknown"
    ) as caught:
        call(Uses.model_validate({"models": mistyped}))
    assert caught.value.code == "extra-fields"
    assert call(Uses(ignored=Lax())) is not None
    monkeypatch.setenv(settings.VARIABLE, f"extra-fields:{__name__}.Lax")
    with pytest.warns(RefusalWarning, match=r"found at 'models\.0'"):
        assert call(Uses.model_validate({"models": mistyped})) is not None


class Stepping(steps.Step):
    """A step over a model."""

    model: Lax = Lax()

    def _run(self, value: int) -> int:
        return value * self.model.layers


class Around(steps.Step):
    """A step that holds another one and keeps it out of its uid."""

    inner: Stepping = Stepping()

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return ["inner"]

    def _run(self, value: int) -> int:
        return value


@pytest.mark.parametrize("kind", ["step", "chain", "behind a cached step"])
def test_a_model_that_ignores_unknown_fields_in_a_step_without_an_infra(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step: steps.Step = Stepping.model_validate({"model": {"layres": 3}})
    if kind == "chain":
        step = steps.Chain(steps=[step])
    elif kind != "step":
        cached = Around.model_validate({"infra": {"backend": "Cached", "folder": tmp_path}})
        step = steps.Chain(steps=[cached, step])
    for _ in range(2):
        with pytest.raises(ExtraFieldsError, match=r"Lax \(found at 'model'\) does not say what") as caught:
            step.run(2)
        with pytest.raises(ExtraFieldsError):
            list(step.run_many([2]))
        assert caught.value.code == "extra-fields"
    assert Around().run(2) == 2
    monkeypatch.setenv(settings.VARIABLE, f"extra-fields:{__name__}.Stepping")
    with pytest.warns(RefusalWarning, match=r"found at 'model'"):
        assert step.run(2) == 2


def test_an_object_that_has_no_uid_runs_without_a_folder() -> None:
    class Odd(pydantic.BaseModel):
        _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("unknown",)

    class Holds(pydantic.BaseModel):
        odd: Odd = Odd()
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def run(self) -> int:
            return 4

    assert Holds().run() == 4
