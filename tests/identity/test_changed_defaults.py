"""What becomes of results when a default changes, or a field is renamed or removed, in the code around them."""

import typing as tp
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca import steps
from exca.errors import ChangedDefaultError, GoneFieldWarning, ReadOnlyError

COMPUTED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_computed() -> None:
    COMPUTED.clear()


class Inner(pydantic.BaseModel):
    """A model in a configuration."""

    model_config = pydantic.ConfigDict(extra="forbid")
    layers: int = 2


def task(**defaults: tp.Any) -> tp.Any:
    """Return the class as code with these defaults has it, always under one name."""
    infra = exca.TaskInfra()

    def run(self: tp.Any) -> str:
        COMPUTED.append(repr(self))
        return f"result {len(COMPUTED)}"

    run.__qualname__ = "Train.run"
    return _class("Train", pydantic.BaseModel, defaults, infra=infra, run=infra.apply(run))


def mapped(**defaults: tp.Any) -> tp.Any:
    """Return the same as a map."""
    infra = exca.MapInfra()

    def run(self: tp.Any, items: Iterable[int]) -> Iterator[str]:
        for item in items:
            COMPUTED.append(repr(self))
            yield f"result {len(COMPUTED)} {item}"

    run.__qualname__ = "Train.run"
    return _class("Train", pydantic.BaseModel, defaults, infra=infra, run=infra.apply(item_uid=str)(run))


def step(**defaults: tp.Any) -> tp.Any:
    """Return the same as a step."""

    def _run(self: tp.Any, value: int) -> str:
        COMPUTED.append(repr(self))
        return f"result {len(COMPUTED)} {value}"

    class Isolated(steps.Step):
        """Steps of one name would be taken for one class."""

    return _class("Train", Isolated, defaults, _run=_run)


def _class(name: str, base: tp.Any, defaults: dict[str, tp.Any], **body: tp.Any) -> tp.Any:
    annotations: dict[str, tp.Any] = {field: type(value) for field, value in defaults.items()}
    if "infra" in body:
        annotations["infra"] = type(body["infra"])
    return type(name, (base,), {"__module__": __name__, "__annotations__": annotations, **defaults, **body})


def ask(kind: str, cls: tp.Any, folder: Path, mode: str = "cached", **fields: tp.Any) -> tp.Any:
    """Ask an object of the class for its result."""
    if kind == "step":
        infra = {"backend": "Cached", "folder": folder, "mode": mode}
        return cls(infra=infra, **fields).run(3)
    obj = cls(infra={"folder": folder, "mode": mode}, **fields)
    return obj.run() if kind == "task" else list(obj.run([3]))


MAKERS: dict[str, tp.Any] = {"task": task, "map": mapped, "step": step}
KINDS = pytest.mark.parametrize("kind", MAKERS)


@KINDS
def test_the_earlier_value_given_finds_the_result(kind: str, tmp_path: Path) -> None:
    make = MAKERS[kind]
    result = ask(kind, make(lr=0.1, size=3), tmp_path)
    changed = make(lr=0.2, size=3)
    with pytest.raises(ChangedDefaultError, match=r"lr: was 0\.1, is now 0\.2"):
        ask(kind, changed, tmp_path)
    for mode in ("read-only", "cached"):
        assert ask(kind, changed, tmp_path, mode, lr=0.1) == result
    assert ask(kind, changed, tmp_path, lr=0.3) != result
    assert ask(kind, changed, tmp_path, lr=0.1, size=4) != result
    assert len(COMPUTED) == 3
    if kind != "step":
        obj = changed(lr=0.1, infra={"folder": tmp_path})
        assert obj.infra.uid().rpartition("/")[2].startswith("lr=0.10-")
        assert obj.infra.uid_folder(create=True).name == "default"
        assert changed(lr=0.1, infra={"folder": tmp_path}).infra.uid_folder(create=True).name == "default"


@KINDS
def test_with_other_values_and_in_a_model(kind: str, tmp_path: Path) -> None:
    make = MAKERS[kind]
    before = make(lr=0.1, size=3, inner=Inner(layers=2))
    result = ask(kind, before, tmp_path, size=4, inner={"layers": 3})
    once = make(lr=0.2, size=3, inner=Inner(layers=2))
    assert ask(kind, once, tmp_path, lr=0.1, size=4, inner={"layers": 3}) == result
    twice = make(lr=0.2, size=5, inner=Inner(layers=2))
    assert ask(kind, twice, tmp_path, lr=0.1, size=4, inner={"layers": 3}) == result
    plain = ask(kind, before, tmp_path)
    assert ask(kind, twice, tmp_path, lr=0.1, size=3) == plain
    inside = make(lr=0.1, size=3, inner=Inner(layers=7))
    assert ask(kind, inside, tmp_path, inner={"layers": 2}) == plain
    assert len(COMPUTED) == 2


@KINDS
@pytest.mark.parametrize("given", [5, 20])
def test_two_earlier_values_among_many(kind: str, given: int, tmp_path: Path) -> None:
    """What were defaults together is told by the folders beside; also the last of many values may be one."""
    make = MAKERS[kind]
    names = [f"f{k:02}" for k in range(given)]
    defaults = dict.fromkeys(names, 0) | {"lr": 0.1, "size": 3}
    values: tp.Any = {name: k + 1 for k, name in enumerate(names)}
    before = make(**defaults)
    for other in range(3):  # of the same defaults
        ask(kind, before, tmp_path, **values | {"f00": other + 7})
    result = ask(kind, before, tmp_path, **values)
    once = make(**defaults | {"size": 4})
    assert ask(kind, once, tmp_path, size=3, **values) == result
    ask(kind, once, tmp_path, **values | {"lr": 5.0})  # of later defaults
    twice = make(**defaults | {"lr": 0.2, "size": 4})
    for _ in range(2):
        assert ask(kind, twice, tmp_path, lr=0.1, size=3, **values) == result
    assert len(COMPUTED) == 5
    ask(kind, twice, tmp_path, lr=0.1, size=3, **values | {"f01": 100})
    assert len(COMPUTED) == 6


@KINDS
def test_other_values_of_the_field_are_computed(kind: str, tmp_path: Path) -> None:
    """The address without the value is that of another configuration, or of nothing."""
    make = MAKERS[kind]
    ask(kind, make(lr=0.1, size=3), tmp_path)
    same = make(lr=0.1, size=3)
    assert ask(kind, same, tmp_path, lr=0.2) == ask(kind, same, tmp_path, lr=0.2)
    with pytest.raises((ReadOnlyError, RuntimeError)):
        ask(kind, same, tmp_path, "read-only", lr=0.5)
    renamed = make(rate=0.1, size=3)  # the result may have been computed otherwise
    ask(kind, renamed, tmp_path, rate=0.3)
    assert len(COMPUTED) == 3


def test_what_is_computed_again_there_stays_there(tmp_path: Path) -> None:
    ask("task", task(lr=0.1), tmp_path)
    changed = task(lr=0.2)
    result = ask("task", changed, tmp_path, "force", lr=0.1)
    obj = changed(lr=0.1, infra={"folder": tmp_path})
    assert (obj.infra.status(), obj.run()) == ("completed", result)
    obj.infra.clear_job()
    new = changed(lr=0.1, infra={"folder": tmp_path})
    assert new.run() == "result 3"
    names = {path.name for path in (tmp_path / f"{__name__}.Train.run,0").iterdir()}
    assert names == {"default", ".code"}


@KINDS
def test_a_renamed_field_is_said_once(kind: str, tmp_path: Path) -> None:
    make = MAKERS[kind]
    result = ask(kind, make(dim=64, lr=0.1), tmp_path)
    ask(kind, make(dim=64, lr=0.1), tmp_path, lr=0.2)
    renamed = make(size=999, lr=0.1)
    told = (
        rf"Since the results in {tmp_path}.*removed or left out of the uid: .*dim \(was 64\); "
        r"new are: .*size \(999\)\. The"
    )
    with pytest.warns(GoneFieldWarning, match=told):
        assert ask(kind, renamed, tmp_path) == result
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for lr in (0.1, 0.1, 0.2):
            ask(kind, renamed, tmp_path, lr=lr)
    assert len(COMPUTED) == 2


@KINDS
def test_a_field_that_came_since_is_not_said(kind: str, tmp_path: Path) -> None:
    make = MAKERS[kind]
    result = ask(kind, make(dim=64), tmp_path)
    assert ask(kind, make(dim=64, size=3), tmp_path) == result


def test_a_field_of_a_model_that_was_removed_is_said(tmp_path: Path) -> None:
    class Fewer(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")

    ask("task", task(inner=Inner()), tmp_path)
    with pytest.warns(
        GoneFieldWarning, match=r"removed or left out of the uid: inner\.layers \(was 2\)\. The results"
    ):
        ask("task", task(inner=Fewer()), tmp_path)
