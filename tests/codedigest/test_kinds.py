"""Each kind of code that a method may reach: what of it counts, and what is listed as unresolved."""

import random
import re
import textwrap
import typing as tp

import pytest

from exca.codedigest.record import WHEN
from projects import Project, unresolved

MODEL = "from pydantic import BaseModel\nimport helper\nfrom helper import *\nclass Model(BaseModel):\n    x: int = 1\n"


def model(body: str, above: str = "") -> str:
    """Write a module with a model whose method has one line."""
    return above + MODEL + f"    def run(self):\n        return {body}\n"


# what the method does, the helper module, changes that count, changes that don't
CASES: dict[str, tuple[str, str, list[tuple[str, str]], list[tuple[str, str]]]] = {
    "decorator without wraps": (
        "helper.f(1)",
        """
        def deco(g):
            def wrapper(*a):
                return g(*a) + 1
            return wrapper
        @deco
        def f(x):
            return x
        def other():
            return 3
        """,
        [("+ 1", "+ 2"), ("return x", "return -x"), ("@deco\n", "")],
        [("return 3", "return 4")],
    ),
    "decorator with arguments": (
        "helper.f(1)",
        """
        def deco(n):
            def inner(g):
                return lambda *a: g(*a) + n
            return inner
        N = 5
        @deco(N)
        def f(x):
            return x
        """,
        [("N = 5", "N = 6"), ("+ n", "- n"), ("@deco(N)", "@deco(7)")],
        [],
    ),
    "default argument": (
        "helper.f()",
        """
        def make():
            return 3
        def f(x=make()):
            return x
        """,
        [("return 3", "return 4")],
        [],
    ),
    "lru_cache": (
        "helper.f(1)",
        """
        import functools
        @functools.lru_cache(8)
        def f(x):
            return x + 1
        """,
        [("+ 1", "+ 2")],
        [],
    ),
    "partial": (
        "helper.f(1)",
        """
        import functools
        def g(x, y):
            return x + y
        f = functools.partial(g, 3)
        """,
        [("x + y", "x - y"), (", 3)", ", 4)")],
        [],
    ),
    "singledispatch": (
        "helper.f(1)",
        """
        import functools
        @functools.singledispatch
        def f(x):
            return 1
        @f.register(int)
        def _(x):
            return 2
        def _of_str(x):
            return 3
        f.register(str, _of_str)
        def other():
            return 9
        """,
        [
            ("return 1", "return 5"),
            ("return 2", "return 5"),
            ("return 3", "return 5"),
            ("register(int)", "register(list)"),
        ],
        [("return 9", "return 8")],
    ),
    "a registry that is filled": (
        "helper.TABLE['a'](1)",
        """
        TABLE = {}
        def one(x):
            return 1
        TABLE['a'] = one
        TABLE.update(b=2)
        TABLE['c'] = []
        TABLE['c'].append(6)
        del TABLE['b']
        """,
        [
            *(("return 1", "return 5"), ("b=2", "b=3"), ("TABLE = {}", "TABLE = {3: 4}")),
            *(("append(6)", "append(7)"), ("del TABLE['b']", "del TABLE['c']")),
        ],
        [],
    ),
    "lambda": (
        "helper.f(1)",
        """
        K = 1
        f = lambda x: x + K
        """,
        [("K = 1", "K = 2"), ("x + K", "x - K")],
        [],
    ),
    "nested functions": (
        "helper.f(1)",
        """
        def deep():
            return 1
        def f(x):
            def g():
                class A:
                    def h(self):
                        return [deep() for _ in range(2)]
                return A().h()
            return g()
        """,
        [("return 1", "return 2"), ("range(2)", "range(3)")],
        [],
    ),
    "local names hide those of the module": (
        "helper.f(1)",
        """
        def a():
            return 1
        def b():
            return 2
        def c():
            return 3
        def d():
            return 4
        def e():
            return 5
        def f(a):
            b = 1
            for c in []: pass
            try:
                pass
            except ValueError as d:
                d
            [e for e in []]
            return a, b, c
        """,
        [],
        [
            ("return 1", "return 9"),
            ("return 2", "return 9"),
            ("return 3", "return 9"),
            ("return 5", "return 9"),
        ],
    ),
    "recursion": (
        "helper.f(1)",
        """
        def f(x):
            return g(x - 1) if x else 0
        def g(x):
            return f(x - 2) if x else 0
        """,
        [("x - 1", "x - 3"), ("x - 2", "x - 3")],
        [],
    ),
    "async": (
        "helper.f(1)",
        """
        async def g():
            return 1
        async def f(x):
            async with x as y:
                return [await g() async for i in y]
        """,
        [("return 1", "return 2")],
        [],
    ),
    "conditional definitions": (
        "helper.f(1)",
        """
        import sys
        FLAG = 1
        if FLAG > 0:
            def f(x):
                return 1
        else:
            def f(x):
                return 2
        try:
            from nothing import g
        except ImportError:
            def g():
                return 3
        """,
        [
            ("return 1", "return 9"),
            ("return 2", "return 9"),
            ("FLAG > 0", "FLAG > 5"),
            ("FLAG = 1", "FLAG = 2"),
        ],
        [("return 3", "return 9")],
    ),
    "constant that is computed": (
        "helper.C",
        """
        def make(x):
            return x + 1
        A = 1
        C = make(A)
        C += 7
        UNUSED = make(3)
        """,
        [("x + 1", "x + 2"), ("A = 1", "A = 2"), ("C += 7", "C += 8")],
        [("make(3)", "make(4)")],
    ),
    "constants of loops": (
        "helper.SQUARES",
        """
        SQUARES = []
        for i in range(3):
            SQUARES.append(i * i)
        """,
        [("range(3)", "range(4)"), ("i * i", "i * 2")],
        [],
    ),
    "class": (
        "helper.A(1).go()",
        """
        class Base:
            k = 1
            def __init__(self, x):
                self.x = x + 2
            def helped(self):
                return 3
            def unused(self):
                return 4
        class A(Base):
            def go(self):
                return self.helped() + self.k
            def __len__(self):
                return 6
            def __repr__(self):
                return '7'
            @property
            def unread(self):
                return 8
        """,
        [("k = 1", "k = 5"), ("x + 2", "x + 5"), ("return 3", "return 5"), ("return 6", "return 5")],
        [("return 4", "return 5"), ("'7'", "'5'"), ("return 8", "return 5")],
    ),
    "repr counts where something is shown": (
        "str(helper.A())",
        """
        class A:
            def __repr__(self):
                return '7'
        """,
        [("'7'", "'8'")],
        [],
    ),
    "dataclass": (
        "helper.A().go()",
        """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class A:
            x: int = 1
            def go(self):
                return self.x
            def unused(self):
                return 3
        """,
        [("x: int = 1", "x: int = 2"), ("frozen=True", "frozen=False"), ("x: int", "x: float")],
        [("return 3", "return 4")],
    ),
    "enum": (
        "helper.E.A",
        """
        import enum
        class E(enum.Enum):
            A = 1
            B = 2
        """,
        [("A = 1", "A = 3"), ("enum.Enum", "enum.IntEnum")],
        [],
    ),
    "cached_property and class method": (
        "helper.A().p + helper.A.c()",
        """
        import functools
        class A:
            @functools.cached_property
            def p(self):
                return 1
            @classmethod
            def c(cls):
                return cls.d()
            @staticmethod
            def d():
                return 2
            @property
            def q(self):
                return 3
        """,
        [("return 1", "return 9"), ("return 2", "return 9")],
        [("return 3", "return 9")],
    ),
    "an instance of the module": (
        "helper.it.go()",
        """
        class A:
            def __init__(self, x):
                self.x = x
            def go(self):
                return 1
            def unused(self):
                return 2
        it = A(3)
        """,
        [("return 1", "return 9"), ("A(3)", "A(4)")],
        [("return 2", "return 9")],
    ),
    "an attribute by its name": (
        "getattr(helper.A(), 'go')() + getattr(self, 'own')()",
        """
        class A:
            def go(self):
                return 1
            def unused(self):
                return 2
        """,
        [("return 1", "return 9")],
        [("return 2", "return 9")],
    ),
    "generic class": (
        "helper.A[int]().go()",
        """
        import typing
        T = typing.TypeVar('T')
        class A(typing.Generic[T]):
            def go(self):
                return 1
        """,
        [("return 1", "return 9")],
        [],
    ),
    "C functions": (
        "math.sin(helper.f(1))",
        """
        import math
        f = math.cos
        """,
        [("math.cos", "math.tan")],
        [],
    ),
    "callable object": (
        "helper.f(1)",
        """
        class A:
            def __call__(self, x):
                return 1
        f = A()
        """,
        [("return 1", "return 9")],
        [],
    ),
    "context manager and iterator": (
        "helper.f()",
        """
        class A:
            def __enter__(self):
                return 1
            def __exit__(self, *a):
                return 2
        def f():
            with A() as a:
                return a
        """,
        [("return 1", "return 9"), ("return 2", "return 9")],
        [],
    ),
    "exceptions": (
        "helper.f()",
        """
        class E(ValueError):
            def __init__(self):
                super().__init__(1)
        def f():
            raise E
        """,
        [("(1)", "(2)")],
        [],
    ),
    "names of packages": (
        "helper.f(helper.m.exp(1))",
        """
        import math as m
        from math import sqrt as f
        from math import log
        """,
        [
            ("math as m", "cmath as m"),
            ("sqrt as f", "cbrt as f"),
            ("from math import sqrt", "from numpy import sqrt"),
        ],
        [("from math import log", "from cmath import log")],
    ),
    "metaclass": (
        "helper.A().go()",
        """
        class M(type):
            def __call__(cls):
                return super().__call__(), 1
        class A(metaclass=M):
            def go(self):
                return 2
        """,
        [(", 1", ", 3"), ("return 2", "return 3")],
        [],
    ),
    "attributes that the module sets": (
        "helper.A().go() + helper.A().come() + helper.K",
        """
        class A:
            pass
        def new(self):
            return 1
        def other(self):
            return 2
        A.go = new
        setattr(A, "come", other)
        [K := 3]
        """,
        [("return 1", "return 9"), ("return 2", "return 9"), ("K := 3", "K := 9")],
        [],
    ),
    "an object that is passed on": (
        "helper.f(self) + helper.g(helper.A())",
        """
        import operator
        class A:
            def go(self):
                return 1
            def unused(self):
                return 2
        def f(model):
            return model.x
        def g(a):
            return operator.methodcaller("go")(a)
        """,
        [("return 1", "return 9"), ("model.x", "model.y")],
        [("return 2", "return 9")],
    ),
    "named tuple": (
        "helper.P().go()",
        """
        import typing
        class P(typing.NamedTuple):
            a: int = 1
            def go(self):
                return 2
        """,
        [("a: int = 1", "a: int = 3"), ("return 2", "return 3")],
        [],
    ),
    "match": (
        "helper.f(1)",
        """
        class P:
            @property
            def a(self):
                return 1
        def f(x):
            match x:
                case P(a=1):
                    return 2
        """,
        [("return 1", "return 3"), ("return 2", "return 3"), ("a=1", "a=5")],
        [],
    ),
    "type checking only": (
        "helper.f(1)",
        """
        import typing
        if typing.TYPE_CHECKING:
            K = 1
        else:
            K = 2
        def f(x: 'K') -> K:
            return K
        """,
        [("K = 2", "K = 3")],
        [("K = 1", "K = 3")],
    ),
    "what is called by no name": (
        "helper.Dumped().model_dump(), helper.E(7), helper.f('3'), helper.g(3), helper.h(3), isinstance(3, helper.P)",
        """
        import enum, functools, typing
        import pydantic
        from pydantic import BeforeValidator, validate_call
        class Inner(pydantic.BaseModel):
            b: int = 1
            @pydantic.model_serializer
            def dump(self):
                return 2
        class Dumped(pydantic.BaseModel):
            a: int = 1
            inner: Inner = Inner()
            @pydantic.field_serializer("a")
            def dump_a(self, value):
                return value + 3
            @pydantic.computed_field
            @property
            def c(self) -> int:
                return 4
            def unused(self):
                return 5
        class E(enum.Enum):
            @staticmethod
            def _generate_next_value_(name, start, count, last):
                return name + "6"
            @classmethod
            def _missing_(cls, value):
                return cls.B
            A = enum.auto()
            B = enum.auto()
        def number(value):
            return int(value) + 7
        @validate_call
        def f(x: typing.Annotated[int, BeforeValidator(number)]) -> int:
            return x
        @functools.singledispatch
        def g(x: object) -> int:
            return 8
        @g.register
        def _(x: int) -> int:
            return 9
        def h(x: int) -> int:
            return x
        @typing.runtime_checkable
        class P(typing.Protocol):
            name: int
            def go(self):
                ...
        """,
        [
            *(("return 2", "return 0"), ("+ 3", "+ 0"), ("return 4", "return 0"), ('zer("a"', 'zer("inner"')),
            *(('+ "6"', '+ "0"'), ("return cls.B", "return cls.A")),
            *(("+ 7", "+ 0"), ("[int,", "[float,"), ("_(x: int)", "_(x: str)")),
            *(("def go", "def come"), ("name:", "title:")),
        ],
        [
            *(
                ("return 5", "return 0"),
                ("h(x: int)", "h(x: float)"),
                ("h(x: int) -> int", "h(x: int) -> str"),
            ),
            *(("g(x: object)", "g(x: int)"), ("_(x: int) -> int", "_(x: int) -> float")),
        ],
    ),
}


@pytest.mark.parametrize(("body", "helper", "counts", "does_not"), CASES.values(), ids=CASES.keys())
def test_kinds(
    project: Project, body: str, helper: str, counts: list[tuple[str, str]], does_not: list[tuple[str, str]]
) -> None:
    project.write({"model.py": model(body, "import math\n"), "helper.py": helper})
    helper = textwrap.dedent(helper)
    before = project.digest()
    assert project.elsewhere().digest == before.digest
    assert not unresolved(before)
    for changes, expected in ((counts, True), (does_not, False)):
        for old, new in changes:
            assert old in helper, old
            project.write({"helper.py": helper.replace(old, new)})
            after = project.digest()
            assert (after.digest != before.digest) is expected, (old, sorted(after.content.parts))


def test_serializers_of_what_is_not_dumped_do_not_count(project: Project) -> None:
    body, helper, counts, _ = CASES["what is called by no name"]
    body = body.replace("model_dump()", "a")
    project.write({"model.py": model(body), "helper.py": helper})
    before = project.digest()
    for old, new in counts[:4]:
        project.write({"helper.py": textwrap.dedent(helper).replace(old, new)})
        assert project.digest().digest == before.digest


UNRESOLVED: dict[str, tuple[str, str, str, str]] = {
    "a computed name": (
        "getattr(self, 'x' * 1)",
        "def f(): pass\n",
        "model.Model.run",
        "known only when it runs",
    ),
    "text that is run": (
        "eval('helper.f()')",
        "def f(): pass\n",
        "model.Model.run",
        "eval\\(\\)",
    ),
    "a rebound name": (
        "helper.K",
        """
        K = 1
        def f():
            global K
            K = 2
        """,
        "helper.K",
        "f\\(\\) changes it",
    ),
    "a changed value": (
        "helper.K",
        """
        K = []
        def f():
            K.append(2)
        """,
        "helper.K",
        "f\\(\\) changes it",
    ),
    "a value that a function is given": (
        "helper.K",
        """
        SIZE = 3
        K = []
        def fill(values, size):
            values.append(size)
        fill(K, SIZE)
        """,
        "helper.K",
        "fill\\(\\) is called with it, and may change it",
    ),
    "an item that is set": (
        "helper.K",
        """
        K = {}
        def f():
            K[1] = 2
        """,
        "helper.K",
        "f\\(\\) changes it",
    ),
    "a module as a value": (
        "str(helper)",
        "K = 1\n",
        "model.Model.run",
        "the module helper",
    ),
    "a name set from elsewhere": (
        "helper.K",
        "globals()['K'] = 1\n",
        "model.Model.run",
        "K is set in a way",
    ),
    "classes that are derived elsewhere": (
        "helper.A.__subclasses__()",
        "class A: pass\n",
        "model.Model.run",
        r"__subclasses__\(\)",
    ),
    "a docstring": (
        "helper.f.__doc__",
        "def f(): pass\n",
        "model.Model.run",
        "docstrings do not count",
    ),
    "modules by their names": (
        "sys.modules['helper'].f(), helper.g()",
        "import sys\ndef f(): pass\ndef g(): pass\n",
        "model.Model.run",
        "sys.modules",
    ),
    "a plug-in": (
        "helper.f('x')",
        """
        import importlib
        def f(name):
            return importlib.import_module(name)
        """,
        "helper.f",
        "import_module",
    ),
}


@pytest.mark.parametrize(("body", "helper", "part", "reason"), UNRESOLVED.values(), ids=UNRESOLVED.keys())
def test_what_is_unresolved_is_listed(
    project: Project, body: str, helper: str, part: str, reason: str
) -> None:
    project.write({"model.py": model(body), "helper.py": helper})
    found = unresolved(project.digest())
    assert [name for name in found if not name.endswith(WHEN)] == [part]
    [text] = found[part]
    assert re.search(reason, text)


IMPORTED = """
import importlib, logging, os, random, sys, warnings
import random as r
logger = logging.getLogger(__name__)
VALUES = {}
alias = os.path
lazily = importlib.import_module("random")
def own(): pass
def f(): return random.random()
"""
# statements of a module, and how each is listed
ACTS = {
    "random.seed(3)": "random.seed(3)",
    "r.seed( 3 )  # a comment": "r.seed(3)",
    "os.environ['LANGUAGE_OF_NOTHING'] = '1'": "os.environ['LANGUAGE_OF_NOTHING'] = '1'",
    "random.of_nothing = 1": "random.of_nothing = 1",
    "random.of_nothing: int = 1": "random.of_nothing: int = 1",
    "random.BPF += 0": "random.BPF += 0",
    "random.of_nothing = 2; del random.of_nothing": "del random.of_nothing",
    "setattr(random, 'of_nothing', 1)": "setattr(random, 'of_nothing', 1)",
    "own()": "own()",
    "(lambda: random.seed(3))()": "(lambda: random.seed(3))()",
    "[random.seed(i) for i in range(2)]": "[random.seed(i) for i in range(2)]",
    "_ = random.seed(3)": "_ = random.seed(3)",
    "if VALUES:\n    pass\nelse:\n    random.seed(3)": "random.seed(3)",
    "with warnings.catch_warnings():\n    random.seed(3)": "random.seed(3)",
    "for i in range(2):\n    random.seed(i)": "random.seed(i)",
    "while not random.seed(3):\n    random.seed(4)\n    break": "random.seed(4)",
    "try:\n    random.seed(3)\nexcept ImportError:\n    pass": "random.seed(3)",
    "try:\n    pass\nfinally:\n    random.seed(3)": "random.seed(3)",
    "match 1:\n    case 1:\n        random.seed(3)": "random.seed(3)",
    "if __name__ == '__main__':\n    pass\nelse:\n    random.seed(3)": "random.seed(3)",
    "alias.sep = alias.sep": "alias.sep = alias.sep",
    "lazily.seed(3)": "lazily.seed(3)",
    "import atexit\n@atexit.register\ndef at_the_end(): pass": "@atexit.register",
    "class A:\n    random.seed(3)": "random.seed(3)",
    "class A:\n    import random as inside\n    inside.seed(3)": "inside.seed(3)",
    "class A:\n    class B:\n        if VALUES is not None:\n            random.seed(3)": "random.seed(3)",
}

DO_NOT_ACT = [
    "'a docstring'",
    "__all__ = ['f']",
    "VALUES['a'] = own",  # counts, where VALUES does
    "VALUES.update(a=1)",
    "setattr(own, 'a', 1)",
    "logger.setLevel(logging.INFO)",
    "logging.getLogger('of_nothing').setLevel(logging.INFO)",
    "x = y = random.Random(3)",
    "if __name__ == '__main__':\n    random.seed(3)",
    "if '__main__' == __name__:\n    random.seed(3)",
    "def g():\n    random.seed(3)",
    "class A:\n    a = 1",
    "class A:\n    a = {}\n    a['b'] = 1\n    a.update(b=2)",
    "class A:\n    def a(self): random.seed(3)",
]


def test_what_a_module_does_when_it_is_imported_is_listed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed and does not count, since whether it changes a result is known only when it runs."""
    monkeypatch.setenv("LANGUAGE_OF_NOTHING", "0")
    monkeypatch.setattr(random, "of_nothing", 0, raising=False)
    project.write({"model.py": model("helper.f()"), "helper.py": IMPORTED})
    before = project.digest()
    assert not unresolved(before)
    for statement, shown in ACTS.items():
        project.write({"helper.py": f"{IMPORTED}{statement}\n"})
        after = project.digest()
        assert unresolved(after) == {f"helper{WHEN}": [shown]} or shown.startswith("del "), statement
        assert shown in unresolved(after)[f"helper{WHEN}"]
        assert after.digest == before.digest
    for statement in DO_NOT_ACT:
        project.write({"helper.py": f"{IMPORTED}{statement}\n"})
        assert not unresolved(project.digest()), statement


def test_what_packages_above_a_module_do_when_they_are_imported_is_listed(project: Project) -> None:
    """Python runs them before the module, though no code names them."""
    files = {"helper.py": "", "model.py": model("leaf.f()", "from above.below import leaf\n")}
    files |= {f"{folder}/__init__.py": IMPORTED for folder in ("above", "above/below")}
    project.write({**files, "above/below/leaf.py": "def f():\n    return 1\n"})
    before = project.digest()
    assert not unresolved(before)
    project.write({"above/__init__.py": f"{IMPORTED}random.seed(3)\n"})
    after = project.digest()
    assert unresolved(after) == {f"above{WHEN}": ["random.seed(3)"]}
    assert after.digest == before.digest


def test_serializers_of_what_is_dumped_as_by_earlier_pydantic_count(project: Project) -> None:
    body, helper, counts, _ = CASES["what is called by no name"]
    for name in ("dict", "json"):
        project.write({"model.py": model(body.replace("model_dump()", f"{name}()")), "helper.py": helper})
        before = project.digest()
        for old, new in counts[:4]:
            project.write({"helper.py": textwrap.dedent(helper).replace(old, new)})
            assert project.digest().digest != before.digest, (name, old)
        project.write({"helper.py": helper})


NESTED = """
import re
import typing as tp
import pydantic
from pydantic import BaseModel, field_validator
class Sub(BaseModel):
    n: int = 3
    unread: int = 4
    FACTOR: tp.ClassVar[int] = 5
    _private: int = 6
    @field_validator("n")
    @classmethod
    def check(cls, value):
        return value + 7
    def build(self):
        return self.n * self.FACTOR + self._private
    def unused(self):
        return 8
class Other(BaseModel):
    kind: tp.Literal["other"] = "other"
    def build(self):
        return 9
class Child(Sub):
    def build(self):
        return 10
Either = tp.Annotated[tp.Union[Other, "Third"], pydantic.Field(discriminator="kind")]
class Third(BaseModel):
    kind: tp.Literal["third"] = "third"
    def build(self):
        return 11
def double(x):
    return x * 12
class Model(BaseModel):
    sub: Sub = Sub(n=13)
    either: Either = Other()
    many: list["Fourth"] = []
    number: tp.Annotated[int, pydantic.AfterValidator(double)] = 14
    ignored: "Fifth | None" = None
    anything: tp.Any = None
    def run(self):
        return self.sub.build() + self.either.build() + self.number + [each.go() for each in self.many][0]
    def run_any(self):
        return self.anything.build()
class Fourth(BaseModel):
    def go(self):
        return 15
class Fifth(BaseModel):
    def go(self):
        return 16
    def build(self):
        return 17
"""


@pytest.mark.parametrize("number", range(3, 18))
def test_nested_models(project: Project, number: int) -> None:
    """Methods and validators that are called count, and so do the classes that a field may hold; defaults don't."""
    counts = number in (5, 6, 7, 9, 11, 12, 15)
    project.write({"model.py": NESTED})
    before = project.digest()
    project.write({"model.py": NESTED.replace(f" {number}\n", " 99\n").replace(f"n={number}", "n=99")})
    after = project.digest()
    assert (before.digest != after.digest) is counts, sorted(before.content.parts)
    assert not unresolved(before)


def test_the_type_of_a_field_counts(project: Project) -> None:
    project.write({"model.py": NESTED})
    before = project.digest()
    project.write({"model.py": NESTED.replace("n: int", "n: float")})
    assert project.digest().digest != before.digest


def test_the_classes_that_the_object_holds_count(project: Project) -> None:
    """Where a field holds an object of a subclass, its methods count, and not those it has replaced."""
    project.write({"model.py": NESTED})
    declared = project.digest()
    held = project.digest(held=["Child"])
    assert "model.Child.build" in held.content.parts
    assert "model.Sub.build" not in held.content.parts
    assert "model.Child.build" not in declared.content.parts
    both = project.digest("Model.run_any", held=["Fifth", "Other"])
    assert {"model.Fifth.build", "model.Other.build"} <= set(both.content.parts)
    assert "model.Third.build" not in both.content.parts


def test_the_order_of_the_classes_held_does_not_count(project: Project) -> None:
    project.write({"model.py": NESTED})
    project.digest()
    held = [project.load(name) for name in ("Child", "Fifth", "Other")]
    cls: tp.Any = project.load("Model")
    from exca.codedigest.computing import compute

    one, other = (
        compute(cls, cls.run_any, classes, (), ())[2].digest()
        for classes in (held, [*reversed(held), held[0]])
    )
    assert one == other
