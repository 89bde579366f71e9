"""The normal form: what it leaves out, what it keeps, and that every Python makes the same of the same source."""

import ast
import json
import re
import subprocess
import sys
import typing as tp
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from exca.codedigest import normal
from exca.codedigest.digest import SCHEME
from projects import interpreters

GOLDEN = Path(__file__).parent / "data" / "golden.json"
CASES: list[dict[str, tp.Any]] = json.loads(GOLDEN.read_text())["sources"]
CHECK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import normal
golden = json.load(open(sys.argv[2]))
assert normal.SCHEME == golden["scheme"]
for each in golden["sources"]:
    if sys.version_info >= tuple(each["python"]):
        found = normal.digest(normal.form(normal.parse(each["source"]).body))
        print(each["name"] if found != each["digest"] else "ok")
"""


def digest(source: str) -> str:
    return normal.digest(normal.form(normal.parse(source).body))


@pytest.mark.parametrize("python", interpreters().values(), ids=interpreters().keys())
def test_every_python_makes_the_recorded_digests(python: str) -> None:
    """The file needs nothing but the standard library."""
    room = Path(normal.__file__).parent
    command = [python, "-I", "-c", CHECK, str(room), str(GOLDEN)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) >= 40
    assert set(ran.stdout.splitlines()) == {"ok"}


def test_records_name_the_scheme() -> None:
    assert SCHEME == normal.SCHEME


def test_no_two_of_the_recorded_sources_are_the_same() -> None:
    digests = [case["digest"] for case in CASES]
    assert len(digests) == len(set(digests)) >= 40


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x", "def f(x: int) -> str:\n    'doc'\n    return (x)  # comment"),
        ("def f():\n x = 1", "def f():\n x: int = 1\n y: str"),
        ("def f(): pass", "def f():\n 'doc'"),
        ("def f(): pass", "def f(): ..."),
        ("class A:\n x: int = 1", "class A:\n 'doc'\n x: int = 1\n 'of x'"),
        ("x = 'ab'", "x = \"a\" 'b'"),
        ("x = f'ab'", "x = 'ab'"),
        ("x = 255", "x = 0xff"),
        ("x = 1", "x: int = 1"),
        ("if x:\n a()", "if x:\n a()\nelse:\n pass"),
        ("async def f(x): return x", "async def f(x: int) -> str:\n return x"),
        ("f = lambda: 1", "f = (lambda:\n 1)"),
    ],
)
def test_the_same(one: str, other: str) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = None", "x = 'None'"),
        ("x = ''", "x = f'{y}'"),
        ("f'{x}'.a", "f'{x!r}'.a"),
        ("f'{x}'.a", "f'{x:1}'.a"),
        ("def f(x=1): pass", "def f(x=2): pass"),
        ("def f(x): pass", "def f(*, x): pass"),
        ("def f(x): pass", "async def f(x): pass"),
        ("@a\ndef f(): pass", "@b\ndef f(): pass"),
        ("class A:\n x: int = 1", "class A:\n x: str = 1"),
        ("class A:\n x: int", "class A:\n pass"),
        ("a = b + c", "a = b - c"),
        ("a = b + c", "a = c + b"),
        ("a(b, c)", "a(b)(c)"),
        ("a = [b]", "a = (b,)"),
        ("import a", "import a as b"),
        ("from . import a", "from .. import a"),
        ("from . import a", "from a import a"),
        ("{**a}.b", "{None: a}.b"),
        ("def f():\n return", "def f():\n return None"),
        ("a = 'é'", "a = 'e\u0301'"),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_is_shown_has_the_same_normal_form(case: dict[str, tp.Any]) -> None:
    """What people see of a source is all of it that counts."""
    if sys.version_info < tuple(case["python"]):
        pytest.skip(f"it needs Python {case['python']}")
    body = normal.parse(case["source"]).body
    shown = normal.shown(body)
    if case["name"] == "large numbers":
        assert shown.startswith("# too deeply nested")
        return
    assert normal.form(normal.parse(shown).body) == normal.form(body)


@pytest.mark.parametrize(
    "source",
    [
        b"def f(:",
        b"x = 1\0",
        b"\xff\xfe\x00",
        b"# coding: nothing-of-this-name\nx = 1",
        b"(" * 500 + b")" * 500,
        b"x = " + b"-" * 100_000 + b"1",
        b"x = 1\n  y = 2",
        b"x = '\xe9'",
        b"x = " + b"9" * 5000,
    ],
)
def test_what_is_no_source_is_an_error_of_its_own(source: bytes) -> None:
    with pytest.raises(normal.SourceError):
        normal.parse(source)


def test_a_deep_tree_needs_no_deep_stack() -> None:
    source = "x = " + " + ".join(["a"] * 900)
    tree = normal.parse(source).body
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(__import__("inspect").stack()) + 40)
    try:
        found = normal.digest(normal.form(tree))
    finally:
        sys.setrecursionlimit(limit)
    assert found == digest(source)


# ------------------------------------------------------------------------------------------------ properties

_STATEMENTS = st.sampled_from(
    [
        "x = a + {n}",
        "if x > {n}:\n    y = b({n})\nelse:\n    y = None",
        "for i in range({n}):\n    c(i, k={n})",
        "def inner(q, r={n}):\n    return q * r",
        "return f'{{x}} {n}' + \"{n}\"",
        "with open(x) as f:\n    z = [f(j) for j in x if j != {n}]",
        "try:\n    d[{n}] = x\nexcept KeyError as e:\n    raise ValueError({n}) from e",
        "x = lambda s={n}: s",
        "class Inner:\n    v: int = {n}",
        "assert x, {n}",
        "x, *y = {{'a': {n}}}, {n}",
        "global g\ng = {n}",
    ]
)


@st.composite
def functions(draw: st.DrawFn) -> str:
    """Write a function of some statements, each with a number."""
    statements = draw(st.lists(st.tuples(_STATEMENTS, st.integers(0, 9)), min_size=1, max_size=6))
    lines = [line for text, number in statements for line in text.format(n=number).split("\n")]
    return "def method(self, a, b=1):\n" + "\n".join(f"    {line}" for line in lines)


@hypothesis.given(functions(), st.data())
def test_comments_and_layout_never_count(source: str, data: st.DataObject) -> None:
    lines = []
    for line in source.split("\n"):
        if data.draw(st.booleans()):
            lines.append("# " + data.draw(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=10)))
        ending = data.draw(
            st.sampled_from(["", "  ", "  # a comment", " \\\n" if line.endswith("+") else ""])
        )
        lines.append(line + ending)
        lines += [""] * data.draw(st.integers(0, 2))
    lines.insert(
        len(lines) - lines[::-1].index(next(x for x in lines if x.startswith("def"))), '    """Docs."""'
    )
    assert digest("\n".join(lines)) == digest(source)
    assert digest(ast.unparse(ast.parse(source))) == digest(source)


@hypothesis.given(functions(), st.data())
def test_every_number_counts(source: str, data: st.DataObject) -> None:
    found = list(re.finditer(r"\d", source))
    at = data.draw(st.sampled_from(found))
    changed = source[: at.start()] + str((int(at[0]) + 1) % 10) + source[at.end() :]
    assert digest(changed) != digest(source)


@hypothesis.given(functions(), st.data())
def test_every_operator_and_callee_counts(source: str, data: st.DataObject) -> None:
    found = list(re.finditer(r" (\+|>|\*|!=) |\b(b|c|f|range|open|KeyError|ValueError)(?=[( ])", source))
    hypothesis.assume(found)
    at = data.draw(st.sampled_from(found))
    other = {" + ": " - ", " > ": " >= ", " * ": " ** ", " != ": " == "}.get(at[0], "other")
    assert digest(source[: at.start()] + other + source[at.end() :]) != digest(source)


@hypothesis.given(functions(), functions())
def test_two_functions_have_one_digest_only_if_they_run_the_same(one: str, other: str) -> None:
    def runs(source: str) -> str:
        return ast.dump(ast.parse(source))

    assert (digest(one) == digest(other)) == (runs(one) == runs(other))
