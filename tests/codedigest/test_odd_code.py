"""Odd code: much of it, circles, what can't be read, what other interpreters write; and the real thing, an infra."""

import subprocess
import typing as tp
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

import exca
from exca.codedigest import digest_of, modules, normal
from projects import Project, interpreters, unresolved

PLAIN = "import helper\nclass Model:\n    def run(self):\n        return helper.f(1)\n"


def test_circles_of_modules_classes_and_bases(project: Project) -> None:
    project.write(
        {
            "model.py": "import helper\nclass Model:\n    def run(self):\n        return helper.f(Model, other)\n"
            "from helper import *\nother = 1\n",
            "helper.py": "def f(x, y):\n    import model\n    return model.Model, model.other, model.g()\n"
            "from model import *\n"
            "from package import a\n",
            "package/__init__.py": "from . import a\nfrom .a import b as a\n",
            "package/a.py": "from . import *\nfrom package import a as b\n",
        }
    )
    code = project.digest()
    assert {"model.Model.run", "helper.f", "model.other"} <= set(code.content.parts)
    assert "g is set in a way" in str(unresolved(code))


@pytest.mark.long
def test_thousands_of_functions(project: Project) -> None:
    """The time grows with the code, not with its square."""
    lines = [f"def f{n}(x):\n    return f{n + 1}(x) + K{n} + it.a{n}\nK{n} = {n}\n" for n in range(1000)]
    methods = "".join(f"    def a{n}(self):\n        return self.a{n + 1}()\n" for n in range(1000))
    project.write(
        {
            "model.py": PLAIN.replace("f(1)", "f0(1)"),
            "helper.py": "".join(lines) + f"def f1000(x): return 1\nclass It:\n{methods}it = It()\n",
        }
    )
    code = project.digest()
    assert len(code.content.parts) > 3000
    assert code.digest == project.elsewhere().digest


def test_not_more_than_some_thousands_are_followed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from exca.codedigest import reach

    lines = [f"def f{n}(x):\n    return f{n + 1}(x)\n" for n in range(100)]
    project.write({"model.py": PLAIN.replace("f(1)", "f0(1)"), "helper.py": "".join(lines)})
    assert "f100 is set" in str(unresolved(project.digest()))
    monkeypatch.setattr(reach, "_MOST_PARTS", 50)
    before = project.digest()
    assert "more than 50 parts" in str(unresolved(before)["model.Model.run"])
    assert len(before.content.parts) == 50
    project.write({"helper.py": "".join(lines).replace("f90(x)", "f91(x)")})
    assert project.digest().digest == before.digest


@pytest.mark.parametrize(
    "source",
    [
        b"def f(:",
        b"x = 1\0",
        b"\xff\xfe",
        b"x = " + b"(" * 300 + b"1" + b")" * 300,
        b"x = " + b"-" * 50_000 + b"1",
        b"",
        b"# coding: latin-1\ndef f(x):\n    return '\xe9'\n",
        b"def f(x):\n    return " + b" + ".join([b"x"] * 900) + b"\n",
        b"def f(x):\n    return " + b"g(" * 80 + b"x" + b")" * 80 + b"\n",
    ],
    ids=["syntax", "null", "encoding", "brackets", "minus", "empty", "latin", "sum", "calls"],
)
def test_a_module_that_can_not_be_read_is_unresolved(project: Project, source: bytes) -> None:
    """It was imported lazily, or edited after it was imported: nothing of it is run, and nothing fails."""
    text = "class Model:\n    def run(self):\n        import helper\n        return helper.f(1)\n"
    project.write({"model.py": text})
    (project.folder / "helper.py").write_bytes(source)
    code = project.digest()
    assert "model.Model.run" in code.content.parts
    assert ("helper.f" in code.content.parts) or unresolved(code)


def test_a_file_that_became_unreadable_after_it_was_imported(project: Project) -> None:
    project.write({"model.py": PLAIN, "helper.py": "def f(x):\n    return x\n"})
    before = project.digest()
    project.write({"helper.py": "def f(:"})
    cls: tp.Any = project.load("Model")
    from exca.codedigest.computing import compute

    content = compute(cls, cls.run, (), (), ())[2]
    assert content.digest() != before.digest
    assert content.parts["model.Model.run"] == before.content.parts["model.Model.run"]
    assert content.parts["helper.f"].startswith("cpython3")


FOR_ALL = {
    "model.py": """
        import helper
        class Base:
            def above(self):
                return 1
        class Model(Base):
            LIMIT = helper.K
            def run(self):
                x: int = self.above()
                return f"{helper.f(x)} {self.LIMIT!r:>{x}}" "" f"{x}", helper.It(1).go()
    """,
    "helper.py": """
        import functools, dataclasses
        K = 3
        @functools.cache
        def f(x, *, k=K):
            match x:
                case [1, *rest]:
                    return [y for y in rest]
                case _:
                    return {y: z for y, z in []}
        @dataclasses.dataclass
        class It:
            x: int = 1
            def go(self):
                try:
                    return [lambda: self.x + i for i in range(3)]
                except* ValueError:
                    self.x = None
    """,
}


@pytest.mark.parametrize("python", interpreters().values(), ids=interpreters().keys())
def test_every_python_finds_the_same_digest(project: Project, python: str) -> None:
    project.write(FOR_ALL)
    found = project.elsewhere(python=python)
    assert found.parts == project.digest().content.parts
    assert found.digest == "6766a0bd26e31b47"


NEW = """
    type Number = int | float
    class Model[T]:
        x: T | None = None
        def run[S](self, y: S) -> S:
            def inner[R](z: R) -> R:
                return helped(z)
            return inner(y), f"{f"{self.x}" + "\\n"}"
        def unused(self):
            return 1
    class Child(Model[int]):
        pass
    def helped[T: Number](x: T) -> T:
        return x
"""


@pytest.mark.parametrize("python", interpreters().values(), ids=interpreters().keys())
def test_type_parameters(project: Project, python: str) -> None:
    if subprocess.run([python, "-c", "type X = int"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("it has no type parameters")
    project.write({"model.py": NEW})
    before = project.elsewhere("model:Child.run", python)
    assert sorted(before.parts) == ["model.Model.run", "model.Model.x", "model.helped"]
    for old, new, counts in (
        ("return x", "return -x", True),
        ("T: Number", "T: int", False),
        ("return 1", "return 2", False),
        ("-> S", "", False),
    ):
        project.write({"model.py": NEW.replace(old, new)})
        assert (project.elsewhere("model:Child.run", python).digest != before.digest) is counts, old


# ----------------------------------------------------------------------------------------------- with an infra

INFRA = """
import exca, pydantic
class Base(pydantic.BaseModel):
    def helped(self):
        return 1
class Model(Base):
    x: int = 2
    infra: exca.TaskInfra = exca.TaskInfra(version="1")
    _map: exca.MapInfra = exca.MapInfra()
    @infra.apply(exclude_from_cache_uid=("y",))
    def run(self):
        "Doc."
        return self.helped() + self.x + len(list(self.each([1, 2])))
    @_map.apply(item_uid=str)
    def each(self, items):
        for item in items:
            yield item + 3
    y: int = 4
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ('version="1"', 'version="2"', False),
        ("MapInfra()", "MapInfra(cluster='local')", False),
        ('("y",)', '("x",)', False),
        ("x: int = 2", "x: int = 3", False),
        ("y: int = 4", "y: float = 4", False),
        ("return 1", "return 5", True),
        ("item + 3", "item + 5", True),
    ],
)
def test_infras_are_configuration(project: Project, old: str, new: str, counts: bool) -> None:
    """A method is the same however it is run and where its results are kept."""

    def digest(text: str) -> str:
        project.write({"model.py": text})
        project.digest("Base.helped")
        cls = project.load("Model")
        function = next(each for each in _functions(vars(cls)["run"]) if each.__qualname__ == "Model.run")
        code = digest_of(cls, function)
        assert {"model.Model.run", "model.Model.each", "model.Base.helped"} <= set(code.content.parts)
        assert not unresolved(code)
        assert not any(part.startswith("exca") for part in code.content.parts)
        return code.digest

    before = digest(INFRA)
    assert (digest(INFRA.replace(old, new)) != before) is counts


def _functions(value: tp.Any) -> list[tp.Any]:
    from exca.codedigest.modules import functions_in

    return [each for each in functions_in(value) if each.__module__ == "model"]


def test_the_package_itself_is_never_part_of_a_project() -> None:
    """Also where its repository is the project."""
    from exca.codedigest.modules import Finder

    assert Finder("exca.task", ()).module("exca.task") is None
    assert Finder("test_odd_code", ["exca", Path(exca.__file__).parent]).module("exca.task") is None


# ---------------------------------------------------------------------------------------------- properties

_LINES = st.sampled_from(
    [
        "x = helper(x) + {n}",
        "x += self.other({n})",
        "for i in range({n}):\n    x = [helper(j) for j in (i, {n})]",
        "def inner(y, z={n}):\n    return helper(y) + z\nx = inner(x)",
        "x = (lambda q: q * {n})(x)",
        "if x > {n}:\n    x = CONSTANT",
        "with context({n}) as c:\n    x = c",
    ]
)
_DECORATORS = st.sampled_from(["", "@wrapped\n", "@cached({n})\n"])


@st.composite
def programs(draw: st.DrawFn) -> dict[str, str]:
    """Write the pieces of a module, by name: those that the method reaches, and those that it does not."""
    pieces = {}
    for name in ("run", "other", "helper", "spare_method", "spare"):
        lines = draw(st.lists(st.tuples(_LINES, st.integers(1, 8)), min_size=1, max_size=3))
        body = "\n".join(text.format(n=number) for text, number in lines) + "\nreturn x"
        if name == "run":
            body = "x = self.other(helper(CONSTANT)) + wrapped(cached(1)(context))\n" + body
        decorator = draw(_DECORATORS).format(n=draw(st.integers(1, 8)))
        first = "self, x" if name in ("run", "other", "spare_method") else "x"
        default = f", k={draw(st.integers(1, 8))}"
        pieces[name] = f"{decorator}def {name}({first}{default}):\n" + _indented(body)
    pieces["constant"] = f"CONSTANT = {draw(st.integers(1, 8))}"
    return pieces


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


START = """
import contextlib, functools
def wrapped(f):
    return functools.wraps(f)(lambda *a: f(*a))
def cached(n):
    return lambda f: wrapped(f)
@contextlib.contextmanager
def context(n):
    yield n
"""


def module_of(pieces: dict[str, str]) -> str:
    methods = "\n".join(_indented(pieces[name]) for name in ("run", "other", "spare_method"))
    return START + "\n".join(
        [pieces["constant"], pieces["helper"], pieces["spare"], "class Model:", methods, ""]
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tp.Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("properties"))
    yield made
    made.forget()


settings = hypothesis.settings(max_examples=60, deadline=None)


@settings
@hypothesis.given(programs(), st.data())
def test_what_is_not_reached_never_counts(
    written: Project, pieces: dict[str, str], data: st.DataObject
) -> None:
    """Comments, layout, docstrings, annotations, and all that is in functions that the method does not reach."""
    written.write({"model.py": module_of(pieces)})
    before = written.digest().digest
    changed = dict(pieces)
    for name, text in pieces.items():
        if name.startswith("spare"):
            digits = [at for at, char in enumerate(text) if char.isdigit()]
            at = data.draw(st.sampled_from(digits))
            changed[name] = text[:at] + "9" + text[at + 1 :]
        elif name != "constant":
            head, rest = text.split("):\n", 1)
            note = data.draw(st.sampled_from(['    """Doc."""\n', "    # a comment\n", "\n\n", "    ...\n"]))
            result = data.draw(st.sampled_from(["", " -> int", " -> 'list[Unknown]'"]))
            changed[name] = f"{head}){result}:\n{note}{rest}  # at the end"
    written.write({"model.py": "# at the start\n" + module_of(changed)})
    assert written.digest().digest == before


@settings
@hypothesis.given(programs(), st.data())
def test_what_is_reached_always_counts(written: Project, pieces: dict[str, str], data: st.DataObject) -> None:
    """A constant, an operator, a callee, a decorator, a default argument."""
    written.write({"model.py": module_of(pieces)})
    before = written.digest().digest
    changed = dict(pieces)
    name = data.draw(st.sampled_from(["run", "other", "helper", "constant"]))
    text = pieces[name]
    swaps = {"+": "-", "*": "/", "helper(": "spare(", ">": "<", "@wrapped\n": "", "(lambda": "(lambda *_, "}
    ways = [(at, char, "9") for at, char in enumerate(text) if char.isdigit()]
    ways += [
        (at, old, new) for old, new in swaps.items() for at in range(len(text)) if text.startswith(old, at)
    ]
    at, old, new = data.draw(
        st.sampled_from([way for way in ways if f"def {way[1]}" not in text[: way[0] + 9][-16:]])
    )
    changed[name] = text[:at] + new + text[at + len(old) :]
    written.write({"model.py": module_of(changed)})
    try:
        compile(module_of(changed), "model.py", "exec")
    except SyntaxError:
        hypothesis.reject()
    assert written.digest().digest != before


def test_a_source_of_more_bytes_than_any_has_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.py").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(normal.SourceError, match="it has more than 64 MiB"):
        modules._read(str(tmp_path / "large.py"))
