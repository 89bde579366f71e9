"""What modules do when they are imported, beyond giving values to their own names.

``random.seed(3)`` or ``np.seterr(all="raise")`` may change any result of the process, or none. Such a statement is
listed, and not counted: it would have a method warn for each path, plot or log level that a module sets, and
differ between machines (``sys.path.insert(0, ...)``) where results do not.
"""

import ast
import textwrap
import typing as tp
from collections.abc import Iterable, Iterator, Sequence

from . import modules

_MOST_CHARACTERS: tp.Final = 100  # of a statement
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_HARMLESS: tp.Final = frozenset(("logging", "print"))  # what they do reaches no result


def effects(module: modules.SourceModule) -> set[str]:
    """The statements of a module that act on what it did not make itself, as text.

    Not those that change a value of the module's own: they count with the name (`modules.bindings_of`). Neither what
    it does only as a script.
    """
    own = _made_by(module.bindings)
    own -= {name for name in own if any(_is_alias(each.node, own) for each in module.bindings[name])}
    return {
        textwrap.shorten(
            ("@" if isinstance(node, _DEFINED) else "") + ast.unparse(shown),
            _MOST_CHARACTERS,
            placeholder=" ...",
        )
        for node, names in _executed(module.tree.body, own)
        for shown in _acts(node, names)
    }


def _made_by(bindings: modules.Bindings) -> set[str]:
    return {name for name, found in bindings.items() if any(each.imported is None for each in found)}


def _executed(body: Iterable[ast.stmt], own: set[str]) -> Iterator[tuple[ast.stmt, set[str]]]:
    """The statements that an import executes, also those in the bodies of classes, each with the names made there."""
    stack = list(body)
    while stack:
        node = stack.pop()
        yield node, own
        if isinstance(node, ast.ClassDef):
            yield from _executed(node.body, own | _made_by(modules.bindings_of(node.body)))
        elif isinstance(node, ast.If) and _is_for_scripts(node.test):
            stack += node.orelse
        else:
            stack += [each for inner, _ in modules.inside(node) for each in inner]


def _is_alias(node: ast.AST, own: set[str]) -> bool:
    """Whether a name is given something that was imported: ``options = pandas.options``."""
    match node:
        case ast.Assign(value=ast.Attribute() | ast.Name() as value):
            return _root(value) not in own
        case ast.Assign(value=ast.Call() as call):
            return modules.last_name(call) in ("import_module", "__import__")
        case _:
            return False


def _is_for_scripts(test: ast.AST) -> bool:
    match test:
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()]):
            return True
        case ast.Compare(ops=[ast.Eq()], comparators=[ast.Name(id="__name__")]):
            return True
        case _:
            return False


def _acts(node: ast.stmt, own: set[str]) -> Iterator[ast.AST]:
    """The statement, or its decorators, where they act on what is not the module's own."""
    targets: Sequence[ast.AST] = ()
    match node:
        case ast.Expr(value=value):
            if _does(value, own):
                yield node
        case ast.Assign(targets=[ast.Name(id="_")], value=ast.Call()):
            yield node
        case ast.Assign() | ast.Delete():
            targets = node.targets
        case ast.AnnAssign() | ast.AugAssign():
            targets = [node.target]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            for each in node.decorator_list:
                if modules.last_name(each).startswith("register") and _root(each) not in own:
                    yield each
        case _:
            pass
    if any(_is_foreign(each, own) for each in targets):
        yield node


def _does(value: ast.expr, own: set[str]) -> bool:
    """Whether an expression that is a statement may act on what the module did not make."""
    match value:
        case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[first, *_]):
            return _root(first) not in own
        case ast.Call(func=func):
            root = _root(func)
            return root not in _HARMLESS and not (isinstance(func, ast.Attribute) and root in own)
        case _:
            return any(isinstance(each, (ast.Call, ast.Await)) for each in ast.walk(value))


def _is_foreign(target: ast.AST, own: set[str]) -> bool:
    """Whether an attribute or an item is set or removed of what the module did not make."""
    return any(
        isinstance(each, (ast.Attribute, ast.Subscript))
        and not isinstance(each.ctx, ast.Load)
        and _root(each) not in own
        for each in ast.walk(target)
    )


def _root(node: ast.AST) -> str | None:
    """The name that an expression begins with: ``logging`` of ``logging.getLogger("x").setLevel``."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None
