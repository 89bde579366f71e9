"""The normal form of source code: what of it runs, and nothing else.

It is a walk of our own over the syntax tree, since ``ast.dump`` differs from one Python to the next. Left out are
comments, positions and layout (which a tree does not have), docstrings and other statements that do nothing, empty
fields, and annotations that nothing executes: of parameters, of what is returned, and of variables outside of class
bodies. Those in class bodies are kept, since pydantic and dataclasses execute them, and those of functions with a
decorator that is known to execute them (`executes_annotations`). Texts are written in ASCII, since
which characters can be printed differs between versions as well.

This file needs the standard library alone and can be run by itself, so that any interpreter can check the digests in
``tests/codedigest/data``. What changes a digest there needs another `SCHEME`.
"""

import ast
import hashlib
import typing as tp
from collections.abc import Iterable, Iterator, Sequence

SCHEME: tp.Final = 1
LENGTH: tp.Final = 16  # hexadecimal digits of a digest

# the scope that holds a statement: whose annotations run; or the parameters of a function whose decorator executes them
Context = tp.Literal["module", "class", "function", "parameters"]
_Item = tuple[tp.Any, Context]

_LEFT_OUT: tp.Final = frozenset(("ctx", "kind", "type_comment", "type_ignores", "returns"))
_FUNCTIONS: tp.Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_BODIES: tp.Final = frozenset(("body", "orelse", "finalbody"))
_EXECUTE: tp.Final = frozenset(("validate_call", "validate_arguments"))  # of pydantic


class SourceError(ValueError):
    """A text is no source code that this Python can read."""


def parse(source: bytes | str) -> ast.Module:
    """Read source code.

    Raises SourceError for what this Python can't read: wrong syntax, null bytes, a wrong encoding, too deep nesting.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as e:
        raise SourceError(f"{type(e).__name__}: {e}") from e


def digest(text: str) -> str:
    """The digest of a normal form, or of a text made of digests."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:LENGTH]


def form(nodes: Iterable[ast.AST], context: Context = "module") -> str:
    """Write the normal form of nodes that are one after the other in a scope."""
    out: list[str] = []
    stack: list[_Item | str] = [(list(nodes), context)]
    while stack:  # no recursion: how deep it may go would depend on the caller
        item = stack.pop()
        if isinstance(item, str):
            out.append(item)
            continue
        value, context = item
        if isinstance(value, ast.AST):
            stack.extend(reversed(_written(value, context)))
        elif isinstance(value, list):
            stack.append("]")
            stack.extend((each, context) for each in reversed(_kept(value, context)))
            out.append("[")
        else:
            out.append(_plain(value))
    return "".join(out)


def _written(node: ast.AST, context: Context) -> list[_Item | str]:
    """What a node is written as: texts, and what is written in the place of the fields that count."""
    if isinstance(node, ast.Constant):
        return [f"<{_plain(node.value)}>"]
    if isinstance(node, ast.JoinedStr):
        return _formatted(node, context)
    written: list[_Item | str] = [f"({_name(node, context)}"]
    for name, value, inside in _fields(node, context):
        if isinstance(value, list) and not _kept(value, inside):
            continue
        written += [f" {name}=", (value, inside)]
    return [*written, ")"]


def _name(node: ast.AST, context: Context) -> str:
    """The kind of a node; a variable outside of class bodies counts as if it had no annotation."""
    return "Assign" if isinstance(node, ast.AnnAssign) and context != "class" else type(node).__name__


def _fields(node: ast.AST, context: Context) -> Iterator[tuple[str, tp.Any, Context]]:
    """The fields of a node that count, each with the scope that it is in."""
    if isinstance(node, ast.AnnAssign) and context != "class":
        yield "targets", [node.target], context
        yield "value", node.value, context
        return
    for name, value in ast.iter_fields(node):
        if value is None or name in _LEFT_OUT or _is_left_out(node, name, context):
            continue
        if name == "level" and value == 0:
            continue
        if name == "format_spec" and not value.values:
            continue
        yield name, value, _inside(node, name, context)


def _inside(node: ast.AST, name: str, context: Context) -> Context:
    """The scope that a field of a node is in."""
    if name == "args" and isinstance(node, _FUNCTIONS) and executes_annotations(node):
        return "parameters"
    if name != "body":
        return context
    if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
        return "function"
    return "class" if isinstance(node, ast.ClassDef) else context


def executes_annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a decorator computes with the annotations of parameters: pydantic's, `register` of singledispatch."""
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Attribute):
            if called.attr in _EXECUTE or (called.attr == "register" and called is decorator):
                return True
        elif isinstance(called, ast.Name) and called.id in _EXECUTE:
            return True
    return False


def _kept(values: list[tp.Any], context: Context) -> list[tp.Any]:
    """A list of nodes without the statements that do nothing."""
    return [value for value in values if not _does_nothing(value, context)]


def _does_nothing(node: tp.Any, context: Context) -> bool:
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.AnnAssign(value=None):
            return context != "class"
        case _:
            return False


def _formatted(node: ast.JoinedStr, context: Context) -> list[_Item | str]:
    """An f-string: which parts of its text are constants of their own differs between versions."""
    parts: list[_Item | str] = []
    text = ""
    for value in node.values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text += value.value
            continue
        if text:
            parts.append(f"<{_plain(text)}>")
        text = ""
        parts.append((value, context))
    if text or not parts:
        parts.append(f"<{_plain(text)}>")
    return parts if len(parts) == 1 and isinstance(parts[0], str) else ["(JoinedStr", *parts, ")"]


def _plain(value: object) -> str:
    """A constant, with its type: 1, 1.0 and True are three things."""
    if isinstance(value, str):
        return ascii(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"int:{value:#x}"  # decimal digits of large ones are refused
    return f"{type(value).__name__}:{value!r}"


# --------------------------------------------------------------------------------------------- for people


def shown(nodes: Sequence[ast.AST], context: Context = "module") -> str:
    """Source code of nodes, as what counts of it would be written. For people: its digest is another one."""
    try:
        return "\n".join(ast.unparse(_shortened(node, context)) for node in _kept(list(nodes), context))
    except (RecursionError, ValueError):
        return "# too deeply nested to be shown"


def _shortened(node: ast.AST, context: Context) -> ast.AST:
    """A copy of a node, with what counts of it."""
    if isinstance(node, ast.AnnAssign) and context != "class" and node.value is not None:
        node = ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)
    copied = type(node).__new__(type(node))  # without fields, its own initialiser warns from Python 3.13 on
    for name in node._attributes:
        setattr(copied, name, getattr(node, name, 0))
    for name, value in ast.iter_fields(node):
        inside = _inside(node, name, context)
        if _is_left_out(node, name, context):
            setattr(copied, name, [] if isinstance(value, list) else None)
        elif isinstance(value, list):
            kept = _kept(value, inside) if name in _BODIES else value
            new = [_shortened(each, inside) if isinstance(each, ast.AST) else each for each in kept]
            setattr(copied, name, new or ([ast.Pass()] if value and name == "body" else []))
        elif isinstance(value, ast.AST):
            setattr(copied, name, _shortened(value, inside))
        else:
            setattr(copied, name, value)
    return copied


def _is_left_out(node: ast.AST, name: str, context: Context) -> bool:
    if name in _NOT_SHOWN or (name == "annotation" and isinstance(node, ast.arg) and context != "parameters"):
        return True
    return name == "type_params" and isinstance(node, _FUNCTIONS)


_NOT_SHOWN: tp.Final = _LEFT_OUT - {"ctx", "kind"}
