"""What a piece of code refers to: names from outside of it, attributes, what it imports, what can't be told.

Where there is source, its syntax tree is read, with the scopes that Python would make of it; else the code object.
"""

import ast
import types
import typing as tp
from collections.abc import Iterable, Iterator

from . import normal

if tp.TYPE_CHECKING:
    import dis

Chain = tuple[str, ...]  # a name and attributes of it, one after the other

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_BY_NAME = frozenset(("getattr", "hasattr", "setattr", "delattr"))
_RUNS_TEXT = frozenset(("eval", "exec", "compile", "__import__", "globals", "vars"))
_SHOWS = frozenset(("str", "repr", "format", "ascii", "print"))
_DUMPS = frozenset(
    (
        "model_dump",
        "model_dump_json",
        "dump_python",
        "dump_json",
        "to_jsonable_python",
        "to_json",
        "to_python",
    )
)
_DUMPS_OF_OLD = frozenset(("dict", "json"))  # methods of models that pydantic deprecated; only as attributes
_UNTOLD = {  # attributes, by what is not known of what they give
    "__subclasses__": "what __subclasses__() gives is known only when it runs",
    "__doc__": "it reads __doc__, and docstrings do not count",
}
CHANGES = frozenset(
    (
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft"),
        *("remove", "reverse", "setdefault", "sort", "update"),
    )
)
_GETTERS = frozenset(("attrgetter", "methodcaller"))


class Import(tp.NamedTuple):
    """A module, or a name in it, that an import statement in a function gives a local name."""

    module: str
    name: str | None
    level: int


class References:
    """What a piece of code refers to.

    Attributes
    ----------
    free
        names from outside, with the attributes that are read of them
    outer
        the same for decorators and default arguments, which are evaluated where the function is defined
    own
        attributes of ``self`` or ``cls``
    parent
        attributes of ``super()``
    attributes
        attributes of anything else
    imports
        what is imported inside, with the attributes that are read of it
    unknown
        what can't be told, and why
    rebinds, mutates
        names from outside that get another value, or whose value is changed
    shows
        whether something may be turned into text
    dumps
        whether pydantic may write a model as data
    """

    def __init__(self) -> None:
        self.free: set[Chain] = set()
        self.outer: set[Chain] = set()
        self.own: set[Chain] = set()
        self.parent: set[Chain] = set()
        self.attributes: set[str] = set()
        self.imports: set[tuple[Import, Chain]] = set()
        self.unknown: set[str] = set()
        self.rebinds: set[str] = set()
        self.mutates: set[str] = set()
        self.shows: bool = False
        self.dumps: bool = False

    def read_attribute(self, name: str) -> None:
        """Note what reading an attribute of this name means, whatever it is read of."""
        self.dumps |= name in _DUMPS or name in _DUMPS_OF_OLD
        if name in _UNTOLD:
            self.unknown.add(_UNTOLD[name])


class _Scope:
    __slots__ = ("bound", "imports", "is_class", "parent")

    def __init__(self, parent: "_Scope | None", *, is_class: bool = False) -> None:
        self.bound: set[str] = set()
        self.imports: dict[str, Import] = {}
        self.is_class: bool = is_class
        self.parent: _Scope | None = parent

    def for_inner(self) -> "_Scope":
        """The scope that functions defined in this one see."""
        scope = self
        while scope.is_class and scope.parent is not None:
            scope = scope.parent
        return scope

    def holder(self, name: str) -> "_Scope | None":
        scope: _Scope | None = self
        while scope is not None and name not in scope.bound:
            scope = scope.parent
        return scope


def of_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, receiver: str | None
) -> References:
    """What a function refers to; ``receiver`` is the name of its first argument where that is its object or class."""
    reader = _Reader(receiver)
    reader.enter_function(node, reader.outside, top=True)
    reader.run()
    return reader.found


def of_nodes(nodes: Iterable[ast.AST], *, in_class: bool = False) -> References:
    """What statements or expressions of a module, or of a class body, refer to."""
    reader = _Reader(None)
    scope = _Scope(None, is_class=True) if in_class else reader.outside
    reader.stack += [(node, scope) for node in nodes]
    reader.run()
    return reader.found


def first_argument(node: ast.AST) -> str | None:
    """Name of the first positional argument of a function."""
    if not isinstance(node, (*_FUNCTIONS, ast.Lambda)):
        return None
    arguments = [*node.args.posonlyargs, *node.args.args]
    return arguments[0].arg if arguments else None


def chain_of(node: ast.AST) -> tuple[ast.AST, list[str]]:
    """What attributes are read from, and their names from there."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return node, names[::-1]


class _Reader:
    def __init__(self, receiver: str | None) -> None:
        self.found: References = References()
        self.receiver: str | None = receiver
        self.outside: _Scope = _Scope(None)
        self.top: _Scope | None = None
        self.stack: list[tuple[ast.AST, _Scope]] = []

    def run(self) -> None:
        while self.stack:
            node, scope = self.stack.pop()
            self.read(node, scope)

    def read(self, node: ast.AST, scope: _Scope) -> None:
        if isinstance(node, (ast.Attribute, ast.Name)):
            self.read_chain(node, scope)
        elif isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            self.enter_function(node, scope)
        elif isinstance(node, ast.ClassDef):
            inner = _Scope(scope, is_class=True)
            inner.bound = bound_in(node.body, inner)
            self.stack += [(each, scope) for each in (*node.decorator_list, *node.bases, *node.keywords)]
            self.stack += [(each, inner) for each in node.body]
        elif isinstance(node, _COMPREHENSIONS):
            self.enter_comprehension(node, scope)
        elif isinstance(node, ast.AnnAssign) and not scope.is_class:
            self.stack += [(each, scope) for each in (node.target, node.value) if each is not None]
        else:
            if isinstance(node, ast.Call):
                self.read_call(node, scope)
            elif isinstance(node, (ast.JoinedStr, ast.Mod)):
                self.found.shows = True
            elif isinstance(node, ast.MatchClass):
                self.found.attributes.update(node.kwd_attrs)
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                base, _ = chain_of(node.value)
                if isinstance(base, ast.Name) and self.is_free(base.id, scope):
                    self.found.mutates.add(base.id)
            self.stack += [(each, scope) for each in ast.iter_child_nodes(node)]

    def enter_function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: _Scope, *, top: bool = False
    ) -> None:
        arguments = node.args
        defaults = [each for each in (*arguments.defaults, *arguments.kw_defaults) if each is not None]
        decorators = [] if isinstance(node, ast.Lambda) else [*node.decorator_list]
        if not isinstance(node, ast.Lambda) and normal.executes_annotations(node):
            every_argument = (each for each in ast.walk(arguments) if isinstance(each, ast.arg))
            decorators += [each.annotation for each in every_argument if each.annotation is not None]
        inner = _Scope(scope.for_inner())
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
        inner.bound = bound_in(body, inner)
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        inner.bound |= {each.arg for each in (*every, arguments.vararg, arguments.kwarg) if each is not None}
        if top:
            self.top = inner
            header = _Reader(None)
            header.stack = [(each, header.outside) for each in (*defaults, *decorators)]
            header.run()
            self.found.outer = header.found.free
            self.found.attributes |= header.found.attributes
            self.found.unknown |= header.found.unknown
            self.found.shows |= header.found.shows
            self.found.dumps |= header.found.dumps
        else:
            self.stack += [(each, scope) for each in (*defaults, *decorators)]
        self.stack += [(each, inner) for each in body]

    def enter_comprehension(self, node: ast.AST, scope: _Scope) -> None:
        assert isinstance(node, _COMPREHENSIONS)
        inner = _Scope(scope.for_inner())
        inner.bound = {
            each.id
            for generator in node.generators
            for each in ast.walk(generator.target)
            if isinstance(each, ast.Name)
        }
        first = node.generators[0]
        self.stack.append((first.iter, scope))
        parts = [each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.comprehension)]
        self.stack += [(each, inner) for each in parts]
        for generator in node.generators:
            iterated = [] if generator is first else [generator.iter]
            self.stack += [(each, inner) for each in (generator.target, *iterated, *generator.ifs)]

    def read_chain(self, node: ast.Attribute | ast.Name, scope: _Scope) -> None:
        base, names = chain_of(node)
        for name in names:
            self.found.read_attribute(name)
        if isinstance(base, ast.Name):
            self.read_name(base, names, node, scope)
        elif (
            isinstance(base, ast.Call)
            and isinstance(base.func, ast.Name)
            and self.is_free(base.func.id, scope)
        ):
            if base.func.id == "super":
                self.found.parent.add(tuple(names))
                self.found.attributes.update(names[1:])
            elif base.func.id == "type" and len(base.args) == 1 and self.is_receiver(base.args[0], scope):
                self.found.own.add(tuple(names))
            else:
                self.found.attributes.update(names)
            self.stack.append((base, scope))
        else:
            self.found.attributes.update(names)
            self.stack.append((base, scope))

    def is_free(self, name: str, scope: _Scope) -> bool:
        return scope.holder(name) is None

    def is_receiver(self, node: ast.AST, scope: _Scope) -> bool:
        return (
            isinstance(node, ast.Name)
            and node.id == self.receiver
            and self.top is not None
            and scope.holder(node.id) is self.top
        )

    def read_name(
        self, base: ast.Name, names: list[str], node: ast.Attribute | ast.Name, scope: _Scope
    ) -> None:
        holder = scope.holder(base.id)
        if base.id == "sys" and names[:1] == ["modules"]:
            self.found.unknown.add("what it takes from sys.modules is known only when it runs")
        if holder is None:
            self.found.free.add((base.id, *names))
            if base.id in _RUNS_TEXT and not names:
                self.found.unknown.add(f"what {base.id}() reaches is known only when it runs")
            self.found.shows |= base.id in _SHOWS
            self.found.dumps |= base.id in _DUMPS
            if not isinstance(node.ctx, ast.Load):
                (self.found.mutates if names else self.found.rebinds).add(base.id)
        elif self.is_receiver(base, scope):
            while names and names[0] == "__class__":
                names = names[1:]
            if names:
                self.found.own.add(tuple(names))
        elif base.id in holder.imports:
            self.found.imports.add((holder.imports[base.id], tuple(names)))
        else:
            self.found.attributes.update(names)

    def read_call(self, node: ast.Call, scope: _Scope) -> None:
        base, names = chain_of(node.func)
        if (
            len(names) == 1
            and names[0] in CHANGES
            and isinstance(base, ast.Name)
            and self.is_free(base.id, scope)
        ):
            self.found.mutates.add(base.id)
        called = names[-1] if names else base.id if isinstance(base, ast.Name) else ""
        if called in _BY_NAME and not names and len(node.args) >= 2 and self.is_free(called, scope):
            self.read_by_name(called, node.args[0], node.args[1], scope)
        elif called in _GETTERS and node.args:
            for each in node.args if called == "attrgetter" else node.args[:1]:
                self.read_by_name(called, None, each, scope)
        elif called == "import_module" and node.args:
            module = node.args[0]
            if isinstance(module, ast.Constant) and isinstance(module.value, str) and len(node.args) == 1:
                self.found.imports.add((Import(module.value, None, 0), ()))
            else:
                self.found.unknown.add("import_module() with a name that is known only when it runs")

    def read_by_name(self, called: str, of: ast.AST | None, name: ast.AST, scope: _Scope) -> None:
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            self.found.unknown.add(f"{called}() with a name that is known only when it runs")
            return
        names = name.value.split(".")
        if of is not None and self.is_receiver(of, scope):
            self.found.own.add(tuple(names))
            return
        base, before = chain_of(of) if of is not None else (None, [])
        if isinstance(base, ast.Name) and self.is_free(base.id, scope):
            self.found.free.add((base.id, *before, *names))
        else:
            self.found.attributes.update(names)


def bound_in(body: Iterable[ast.AST], scope: _Scope) -> set[str]:
    """The names that statements of one scope bind; what they import is noted in the scope."""
    bound: set[str] = set()
    outside: set[str] = set()
    stack: list[tuple[ast.AST, bool]] = [(node, False) for node in body]
    while stack:
        node, nested = stack.pop()
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            bound |= set() if nested else {node.name}
            continue
        if isinstance(node, ast.Lambda):
            continue
        match node:
            case ast.NamedExpr(target=ast.Name(id=name)):
                bound.add(name)  # also in a comprehension
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if not nested:
                bound.add(name)
            case ast.Import() | ast.ImportFrom():
                for name, imported in imports_of(node):
                    bound.add(name)
                    scope.imports[name] = imported
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                outside.update(names)
            case _:
                pass
        nested = nested or isinstance(node, _COMPREHENSIONS)
        stack += [(each, nested) for each in ast.iter_child_nodes(node)]
    return bound - outside


def imports_of(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    """The names that an import statement binds, and to what."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, Import(node.module or "", alias.name, node.level)
        elif alias.asname:
            yield alias.asname, Import(alias.name, None, 0)
        else:
            yield alias.name.partition(".")[0], Import(alias.name.partition(".")[0], None, 0)


# --------------------------------------------------------------------------------- where there is no source


def of_code(code: types.CodeType, receiver: str | None) -> References:
    """What a code object refers to, with the code in it."""
    found = References()
    stack: list[tuple[types.CodeType, frozenset[str]]] = [(code, frozenset())]
    while stack:
        code, local = stack.pop()
        _read_code(code, local, receiver, found)
        inner = local | frozenset(code.co_cellvars)
        stack += [(const, inner) for const in code.co_consts if isinstance(const, types.CodeType)]
    return found


def _read_code(code: types.CodeType, local: frozenset[str], receiver: str | None, found: References) -> None:
    import dis

    chain: list[str] = []
    kept: set[Chain] | None = None
    for each in dis.get_instructions(code):
        name = each.opname
        if name in _READS:
            chain.append(each.argval)
        elif name not in _IDLE:
            _keep_chain(chain, kept, found)
            chain, kept = _begun(each, code, local, receiver, found)
    _keep_chain(chain, kept, found)
    found.shows |= bool(_SHOWS & set(code.co_names))
    for text in code.co_names:
        found.read_attribute(text)
    for text in _RUNS_TEXT & set(code.co_names):
        found.unknown.add(f"what {text}() reaches is known only when it runs")


_READS = frozenset(("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"))
_IDLE = frozenset(("CACHE", "PRECALL", "PUSH_NULL", "RESUME", "COPY_FREE_VARS"))


def _keep_chain(chain: list[str], kept: set[Chain] | None, found: References) -> None:
    if kept is None:
        found.attributes.update(chain)
    elif chain:
        kept.add(tuple(chain))


def _begun(
    each: "dis.Instruction",
    code: types.CodeType,
    local: frozenset[str],
    receiver: str | None,
    found: References,
) -> tuple[list[str], set[Chain] | None]:
    """What an instruction begins to read from, and where that is noted."""
    name, value = each.opname, each.argval
    if name in ("LOAD_GLOBAL", "LOAD_NAME"):
        return [value], found.free
    if name == "LOAD_SUPER_ATTR":
        found.parent.add((value,))
    elif name in ("STORE_GLOBAL", "DELETE_GLOBAL"):
        found.rebinds.add(value)
    elif name == "IMPORT_NAME":
        found.imports.add((Import(value, None, 0), ()))
    elif name.startswith("FORMAT_"):
        found.shows = True
    elif name.startswith("LOAD_") and name != "LOAD_CONST" and isinstance(value, str):
        if value == receiver:
            return [], found.own
        if value in code.co_freevars and value not in local:
            return [value], found.free
    return [], None
