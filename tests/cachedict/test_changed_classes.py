"""A stored value of a class that has changed since: its value where it still fits, else an error of its own."""

import pathlib
import sys
import textwrap
import types
import typing as tp

import pytest

from exca.cachedict import CacheDict, DumpContext
from exca.errors import StoredValueError, UnknownHandlerError

HEAD = """
import dataclasses, enum, typing as tp, pydantic
def fails():
    raise ValueError("no default today")
"""
BEFORE = """
@dataclasses.dataclass
class Data:
    x: int
class Point(tp.NamedTuple):
    x: int
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
class Model(pydantic.BaseModel):
    x: int
VALUES = {"data": Data(1), "point": Point(1), "enum": Colour.RED, "model": Model(x=1)}
"""
ADDED = """
@dataclasses.dataclass
class Data:
    x: int
    y: int = 2
    z: list = dataclasses.field(default_factory=list)
class Point(tp.NamedTuple):
    w: int = 0
    x: int = 5
class Colour(enum.Enum):
    GREEN = 0
    RED = 1
class Model(pydantic.BaseModel):
    x: int
    y: int = 2
    z: list = pydantic.Field(default_factory=list)
VALUES = {"data": Data(1), "point": Point(x=1), "enum": Colour.RED, "model": Model(x=1)}
"""
CHANGED = {
    "a field with no default": """
@dataclasses.dataclass
class Data:
    x: int
    y: int
class Point(tp.NamedTuple):
    x: int
    y: int
class Colour(enum.Enum):
    BLUE = 2
class Model(pydantic.BaseModel):
    x: int
    y: int
""",
    "a field that is gone": """
@dataclasses.dataclass
class Data:
    y: int = 1
class Point(tp.NamedTuple):
    y: int = 1
class Colour(enum.Enum):
    BLUE = 2
class Model(pydantic.BaseModel):
    y: int = 1
""",
    "another kind": """
class Data: pass
class Point(tuple): pass
Colour = Model = 3
""",
    "a default that fails": """
@dataclasses.dataclass
class Data:
    x: int
    y: int = dataclasses.field(default_factory=fails)
class Model(pydantic.BaseModel):
    x: int
    y: int = pydantic.Field(default_factory=fails)
class Point: pass
class Colour: pass
""",
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    found = types.ModuleType("classes_that_change")
    monkeypatch.setitem(sys.modules, found.__name__, found)
    return found


def define(module: types.ModuleType, code: str) -> tp.Any:
    for name in ("Data", "Point", "Colour", "Model"):
        vars(module).pop(name, None)
    exec(textwrap.dedent(HEAD + code), vars(module))
    return module


def store(module: types.ModuleType, folder: pathlib.Path) -> CacheDict[tp.Any]:
    cd = CacheDict[tp.Any](folder)
    with cd.write():
        for name, value in define(module, BEFORE).VALUES.items():
            cd[name] = value
            cd[f"nested {name}"] = [value]
    return cd


def test_a_field_with_a_default_has_come(module: types.ModuleType, tmp_path: pathlib.Path) -> None:
    store(module, tmp_path)
    values = define(module, ADDED).VALUES
    cd = CacheDict[tp.Any](tmp_path)
    for name, value in values.items():
        assert cd[name] == value
        assert cd[f"nested {name}"] == [value]


def test_a_named_tuple_stored_without_its_names(module: types.ModuleType, tmp_path: pathlib.Path) -> None:
    define(module, BEFORE)
    line = '{"content":[1],"class_":"classes_that_change:Point","#type":"py.named_tuple","#key":"a"}\n'
    (tmp_path / "host-1-info.jsonl").write_text(line)
    cd = CacheDict[tp.Any](tmp_path)
    assert cd["a"] == module.Point(1)
    exec("class Point(tp.NamedTuple):\n    x: int\n    y: int = 3", vars(module))
    assert cd["a"] == (1, 3)
    exec("class Point(tp.NamedTuple): pass", vars(module))
    with pytest.raises(StoredValueError, match="has no field"):
        cd["a"]


@pytest.mark.parametrize("how", CHANGED)
def test_a_class_that_no_longer_fits(how: str, module: types.ModuleType, tmp_path: pathlib.Path) -> None:
    store(module, tmp_path)
    define(module, CHANGED[how])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    cd = CacheDict[tp.Any](tmp_path)
    for name in ("data", "point", "enum", "model"):
        for key in (name, f"nested {name}"):
            assert key in cd
            with pytest.raises(
                (StoredValueError, UnknownHandlerError), match=r"classes_that_change"
            ) as caught:
                cd[key]
            assert not isinstance(caught.value, KeyError)
            with pytest.raises((StoredValueError, UnknownHandlerError)):
                cd.get(key, "default")
    with pytest.raises((StoredValueError, UnknownHandlerError)):
        list(cd.items())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    define(module, BEFORE)
    assert {name: cd[name] for name in ("data", "point")} == {
        "data": module.Data(1),
        "point": module.Point(1),
    }


@pytest.mark.parametrize("nested", [False, True])
def test_no_handler_makes_a_mapping_say_that_a_key_is_missing(nested: bool, tmp_path: pathlib.Path) -> None:
    class Fails:
        pass

    @DumpContext.register(default_for=Fails)
    class FailsHandler:
        @classmethod
        def __dump_info__(cls, ctx: DumpContext, value: Fails) -> dict[str, tp.Any]:
            name = ctx.key_path(".txt")
            (ctx.folder / name).write_text("x")
            return {"name": name}

        @classmethod
        def __load_from_info__(cls, ctx: DumpContext, name: str) -> Fails:
            raise KeyError("of the handler")

        @classmethod
        def __delete_info__(cls, ctx: DumpContext, name: str) -> None:
            raise KeyError("of the handler")

    cd = CacheDict[tp.Any](tmp_path)
    with cd.write():
        cd["a"] = [Fails()] if nested else Fails()
        cd["b"] = 1
    match = "FailsHandler failed to load an entry of .*unharmed.*of the handler.*repair the handler"
    for ask in (cd.__getitem__, lambda key: cd.get(key, None)):
        with pytest.raises(StoredValueError, match=match):
            ask("a")
    with pytest.raises(StoredValueError, match=match):
        list(cd.items())
    with pytest.raises(StoredValueError, match=match):
        list(cd.iter_values(["a"]))
    assert "a" in cd
    with pytest.raises(StoredValueError, match="failed to delete"):
        del cd["a"]
