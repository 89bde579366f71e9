"""Beside a configuration are kept the whole names of classes of which its address has no more than the bare names."""

import json
import subprocess
import sys
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
from exca import steps
from exca.errors import OtherClassError
from exca.helpers import DiscriminatedModel
from exca.identity.classnames import FILE, NotedNames, read


class Shape(DiscriminatedModel):
    """Chosen by its name."""


class Ball(Shape):
    size: int = 1


class Throws(pydantic.BaseModel):
    """A task and a map with such models."""

    shapes: list[Shape] = []
    free: Shape = Ball()
    infra: exca.TaskInfra = exca.TaskInfra()
    mapped: exca.MapInfra = exca.MapInfra()

    @infra.apply(exclude_from_cache_uid=["free"])
    def run(self) -> int:
        return len(self.shapes)

    @mapped.apply(item_uid=str, exclude_from_cache_uid=["free"])
    def items(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        yield from items


class Doubles(steps.Step):
    """A step with such a model."""

    shape: Shape = Ball(size=2)

    def _run(self, value: int) -> int:
        return value * 2


def names(folder: Path) -> list[tp.Any]:
    """Return what all files with names below a folder hold, by their depth."""
    files = sorted(folder.rglob(FILE), key=lambda path: len(path.parts))
    return [json.loads(path.read_text()) for path in files]


def test_of_tasks_and_maps(tmp_path: Path) -> None:
    Throws(infra=exca.TaskInfra(folder=tmp_path)).run()
    assert names(tmp_path) == []  # the address holds all there is to know
    obj = Throws(
        shapes=[Ball(), Shape()], infra=exca.TaskInfra(folder=tmp_path), mapped=exca.MapInfra(folder=tmp_path)
    )
    obj.run()
    list(obj.items([1]))
    classes = {"Ball": [f"{__name__}.Ball"], "Shape": [f"{__name__}.Shape"]}
    assert names(tmp_path) == [{"version": 1, "classes": classes}] * 2


class Twice(pydantic.BaseModel, extra="forbid"):
    """What a field holds that is declared as Any."""

    x: int = 1

    def value(self) -> int:
        return 2 * self.x


class Thrice(pydantic.BaseModel, extra="forbid"):
    """The same fields, and another result."""

    x: int = 1

    def value(self) -> int:
        return 3 * self.x


class Copied(pydantic.BaseModel, extra="forbid"):
    """Another class whose methods are not used."""

    x: int = 1


class Holds(pydantic.BaseModel):
    """A task, and a map, of values of any class."""

    parts: list[tp.Any] = []
    infra: exca.TaskInfra = exca.TaskInfra()
    mapped: exca.MapInfra = exca.MapInfra()
    counting: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return sum(part.value() for part in self.parts)

    @mapped.apply(item_uid=str)
    def items(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield item + sum(part.value() for part in self.parts)

    @counting.apply
    def count(self) -> int:
        return len(self.parts)


class Adds(steps.Step):
    """A step of them."""

    part: pydantic.BaseModel

    def _run(self, value: int) -> int:
        return value + tp.cast(tp.Any, self.part).value()  # type: ignore[no-any-return] # declared as any model


def results(part: pydantic.BaseModel, folder: Path) -> list[tp.Callable[[], tp.Any]]:
    infra = exca.TaskInfra(folder=folder)
    obj = Holds(parts=[part, part], infra=infra, mapped=exca.MapInfra(folder=folder), counting=infra)
    step = Adds(part=part, infra=steps.backends.Cached(folder=folder))
    return [obj.run, lambda: list(obj.items([1])), lambda: step.run(1), obj.count]


def test_of_fields_that_are_declared_with_no_class(tmp_path: Path) -> None:
    """Objects of two classes with the same fields share an address, and are told apart by their code."""
    assert [call() for call in results(Twice(), tmp_path)] == [4, [5], 3, 2]
    files = names(tmp_path)
    assert {"version": 1, "classes": {"parts": [f"{__name__}.Twice"]}} in files
    assert all(f"{__name__}.Twice" in str(each) for each in files)
    assert len(files) == 4
    assert [call() for call in results(Twice(), tmp_path)] == [4, [5], 3, 2]
    *others, count = results(Thrice(), tmp_path)
    for call in others:
        with pytest.raises(OtherClassError, match=r"fields of what is at 'parts?', not its class"):
            call()
    assert count() == 2
    assert results(Copied(), tmp_path)[-1]() == 2


def test_of_steps(tmp_path: Path) -> None:
    infra: tp.Any = {"backend": "Cached", "folder": tmp_path}
    chain = steps.Chain(
        steps=[Doubles(infra=infra), {"type": "Doubles", "shape": {"type": "Shape"}}], infra=infra
    )
    assert chain.run(3) == 12
    doubles, ball, shape = ([f"{__name__}.{name}"] for name in ("Doubles", "Ball", "Shape"))
    first, second = names(tmp_path)
    assert first["classes"] == {"Doubles": doubles, "Ball": ball}
    assert second["classes"] == {"Doubles": doubles, "Ball": ball, "Shape": shape}


def test_another_name_is_added_and_an_old_cache_gets_one(tmp_path: Path) -> None:
    obj = Throws(shapes=[Ball()], mapped=exca.MapInfra(folder=tmp_path))
    list(obj.items([1]))
    (file,) = tmp_path.rglob(FILE)
    file.unlink()
    assert list(Throws(shapes=[Ball()], mapped=exca.MapInfra(folder=tmp_path)).items([1])) == [1]
    assert not file.exists()  # nothing was computed
    list(Throws(shapes=[Ball()], mapped=exca.MapInfra(folder=tmp_path)).items([2]))
    assert read(str(file.parent)) == {"Ball": [f"{__name__}.Ball"]}
    moved = type("Ball", (Shape,), {"__module__": "moved", "__annotations__": {"size": int}, "size": 1})
    list(Throws(shapes=[moved()], mapped=exca.MapInfra(folder=tmp_path)).items([3]))
    assert read(str(file.parent)) == {"Ball": ["moved.Ball", f"{__name__}.Ball"]}
    assert [found.damaged for found in exca.verify(tmp_path).folders] == [[]]
    file.write_text("{")
    assert [damaged.file for found in exca.verify(tmp_path).folders for damaged in found.damaged] == [FILE]


@pytest.mark.parametrize(
    "content", [b'{"version": 2, "classes": []}', b"{", b"[]", b'{"version": 1, "classes": 3}']
)
def test_a_file_of_a_later_release_or_a_damaged_one_is_left_alone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    NotedNames(lambda: {"Ball": ["a.Ball"]}).add_to(str(tmp_path))
    assert ((tmp_path / FILE).read_bytes(), read(str(tmp_path))) == (content, None)


SCRIPT = """
import sys, pydantic, exca

class Train(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return self.x

Train(infra={"folder": sys.argv[1], "cluster": sys.argv[2] or None}).run()
"""


@pytest.mark.parametrize("cluster", ["", "local"])
def test_of_scripts_the_name_of_the_file(cluster: str, tmp_path: Path) -> None:
    for name in ("first.py", "second.py"):
        script = tmp_path / name
        script.write_text(SCRIPT)
        subprocess.run([sys.executable, str(script), str(tmp_path / name[:-3]), cluster], check=True)
        assert names(tmp_path / name[:-3]) == [{"version": 1, "classes": {"Train": [f"{name}:Train"]}}]
