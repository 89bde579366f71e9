"""Each message of an error or of the log has a test that its words come from: a message without one may never come."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "exca"
LENGTH = 10  # characters of a message that a text of a test has to hold
LOG_METHODS = ("warning", "error", "info", "critical", "exception", "warn")
GAP = "\0"  # in the place of a value
# file, text and why no test holds it
WITHOUT_TEST = {
    ("identity/discriminated.py", "{exca_message}"): "a template, whose message has a test where it is made",
    ("identity/discriminated.py", "missing_class"): "pydantic's kind of an error, not its message",
}


def template(node: ast.AST) -> str | None:
    """Return the text of an expression with gaps for values; None where it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (template(left) or GAP) + (template(right) or GAP)
        case ast.BinOp(left=left, op=ast.Mod()):
            return template(left)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{template(body) or GAP}{GAP}{template(orelse) or GAP}"
    return None


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each message that a file raises, returns as an error, or logs."""
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        match node:
            case ast.Raise(exc=ast.Call(args=args, keywords=keywords)):
                parts = [template(part) for part in [*args, *(keyword.value for keyword in keywords)]]
            case ast.Return(value=ast.Call(func=func, args=args)) if ast.unparse(func).endswith("Error"):
                parts = [template(part) for part in args]
            case ast.Call(func=ast.Attribute(attr=name), args=args) if name in LOG_METHODS:
                parts = [template(part) for part in args]
                parts = [part and re.sub(r"%[sdr]|%\.\d+f", GAP, part) for part in parts]
            case _:
                continue
        text = GAP.join(part for part in parts if part and re.search("[a-z]{3}", part))
        if text:
            yield node.lineno, text


@functools.cache
def words_of_tests() -> frozenset[str]:
    """Return all runs of characters of that length in texts of tests, documentation of functions left out."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if "legacy_caches" in path.parts or path == Path(__file__):
            continue
        tree = ast.parse(path.read_text("utf8"))
        nodes = list(ast.walk(tree))
        documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            text = None if id(node) in documentation else template(node)
            for each in {text, text and re.sub(r"\\(.)", r"\1", text)} - {
                None
            }:  # a text, and what its pattern matches
                assert each is not None
                found.update(each[start : start + LENGTH] for start in range(len(each) - LENGTH + 1))
    return frozenset(found)


def is_tested(text: str) -> bool:
    """Tell whether a text of a test holds some of a message, or all that it has between two values."""
    longest = max(text.split(GAP), key=len)
    runs = {text[start : start + LENGTH] for start in range(len(text) - LENGTH + 1)}
    runs = {run for run in runs if GAP not in run}
    return bool(runs & words_of_tests()) or (
        not runs and any(longest.strip() in word for word in words_of_tests())
    )


def test_each_message_has_a_test() -> None:
    untested = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("testing/"):  # which is a part of tests
            continue
        for line, text in texts_of(path):
            shown = text.replace(GAP, "{}")
            if (name, shown) not in WITHOUT_TEST and not is_tested(text):
                untested.append(f"{name}:{line}: {shown}")
    assert untested == []


def test_what_is_excused_is_there() -> None:
    there = {
        (path.relative_to(PACKAGE).as_posix(), text.replace(GAP, "{}"))
        for path in PACKAGE.rglob("*.py")
        for _, text in texts_of(path)
    }
    assert set(WITHOUT_TEST) <= there
