"""Modules of the project: where they are, what their files bind to which name, and whether that is what runs.

A file is read, never imported, so that it makes no difference whether a module was imported already: a digest must
not. What a process runs may be older than the file: it was edited after the import. A file that has not changed since
the process began (`usercache`) is what was imported; else, its functions are compiled and compared with those that are
in memory, and where they differ the code in memory counts (`SourceModule.runs`).
"""

import ast
import importlib.machinery
import os
import sys
import types
import typing as tp
from collections.abc import Iterable, Iterator, Sequence

from . import normal, references, usercache

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
INSTALLED = frozenset(("site-packages", "dist-packages"))
_STANDARD = os.path.dirname(os.path.realpath(os.__file__))
_OURS = __name__.partition(".")[0]
_MAIN = ("__main__", "__mp_main__")  # the second: in processes that multiprocessing starts
_DOCSTRING = 0x4000000  # CO_HAS_DOCSTRING, from Python 3.13 on
_FUTURE = 0x1000000  # CO_FUTURE_ANNOTATIONS, the only one that still changes what is compiled
_MAX_SOURCE = 64 << 20  # bytes


class Binding(tp.NamedTuple):
    """What gives a name a value, or changes its value.

    Parameters
    ----------
    node
        a function, a class, or another statement
    guards
        what decides whether it is run: conditions, what is iterated over
    imported
        the module and the name in it, of an import
    """

    node: ast.AST
    guards: tuple[ast.AST, ...] = ()
    imported: references.Import | None = None


Bindings = dict[str, list[Binding]]


def is_main(name: str) -> bool:
    """Whether a name is that of the script, or of the notebook, that is run."""
    return name in _MAIN


class SourceModule:
    """A module of the project as its file has it.

    Attributes
    ----------
    name
        what it was imported as
    title
        what its parts are named after: for a script, the name of its file
    file
        path of its file; none for a folder without ``__init__.py``
    status
        of the file, when it was read
    bindings
        what gives each name a value
    stars
        modules of which all names are imported
    for_types
        names that only type checkers see
    """

    def __init__(self, name: str, title: str, file: str | None, *, package: bool) -> None:
        self.name: str = name
        self.title: str = title
        self.file: str | None = file
        self.package: str = name if package else name.rpartition(".")[0]
        self.status: os.stat_result | None = None
        self.bindings: Bindings = {}
        self.stars: list[references.Import] = []
        self.for_types: set[str] = set()
        self.imports: list[references.Import] = []
        self.tree: ast.Module = ast.Module(body=[], type_ignores=[])
        self.problem: str | None = None
        self.may_differ: bool = False  # from what is in memory
        self.by_value: dict[str, tp.Any] | None = None  # names of a script that came from another process
        self._compiled: dict[str, list[types.CodeType]] | None = None
        self._running: dict[str, list[types.CodeType]] | None = None
        self._changed: bool | None = None
        self._source: bytes | str = b""

    def read(self, *, may_differ: bool = False) -> None:
        """Read the file, or what is known of it from before it was edited."""
        if self.file is None:
            return
        try:
            self._source, self.status = _read(self.file)
            self.may_differ = may_differ or not usercache.unchanged_since_start(self.status)
            self._take(self._source)
        except (OSError, normal.SourceError) as e:
            self.may_differ, self.problem = True, f"{os.path.basename(self.file)} can't be read: {e}"
        if (self.problem or (self.may_differ and self.changed)) and (earlier := remembered(self.file)):
            before = (self._source, self.tree, self.problem)
            self._compiled = self._changed = None
            try:
                self._source = earlier
                self._take(earlier)
                self.problem = None
                if not self.changed:
                    return
            except normal.SourceError:
                pass
            self._source, self.tree, self.problem = before
            self._compiled = self._changed = None
            if self.problem is None:
                self._take(self._source)

    def _take(self, source: bytes | str) -> None:
        self.tree = normal.parse(source)
        self.bindings = bindings_of(self.tree.body)
        self.imports, self.stars = [], []
        for found in self.bindings.values():
            self.imports += [each.imported for each in found if each.imported is not None]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.If) and _is_for_types(node.test):
                self.for_types.update(bindings_of(node.body))
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                self.stars.append(references.Import(node.module or "", None, node.level))

    @property
    def loaded(self) -> types.ModuleType | None:
        """The module in memory, if it was imported."""
        module = sys.modules.get(self.name)
        return module if module is not None and file_of(module) == self.file else None

    @property
    def memory(self) -> dict[str, tp.Any] | None:
        """The names of the module in memory, if it is there."""
        if self.by_value is not None:
            return self.by_value
        return vars(self.loaded) if self.loaded is not None else None

    @property
    def changed(self) -> bool:
        """Whether some function in memory is not that of the file."""
        if self._changed is None:
            self._changed = any(
                not any(same_code(code, each) for each in self.compiled().get(name, ()))
                for name, codes in self.running().items()
                for code in codes
            )
        return self._changed

    def runs(self, qualname: str, code: types.CodeType | None = None) -> types.CodeType | None:
        """The code in memory where it is not that of the file; None where it is, or where it is not in memory.

        Parameters
        ----------
        qualname
            of the function
        code
            what runs, where the caller has it
        """
        if not self.may_differ and code is None:
            return None
        codes = [code] if code is not None else self.running().get(qualname, [])
        for each in codes:
            if not any(same_code(each, other) for other in self.compiled().get(qualname, ())):
                return each
        return None

    def compiled(self) -> dict[str, list[types.CodeType]]:
        """The functions of the file, by their qualified names."""
        if self._compiled is None:
            self._compiled = _compiled(self._source, self.file or "")
        return self._compiled

    def running(self) -> dict[str, list[types.CodeType]]:
        """The functions in memory that the file had when it was imported, by their qualified names."""
        if self._running is None:
            self._running = {}
            if self.memory is not None and self.file is not None:
                for code in _codes_in(list(self.memory.values()), self.file, self.name):
                    self._running.setdefault(code.co_qualname, []).append(code)
        return self._running


def _read(path: str) -> tuple[bytes, os.stat_result]:
    """Read a file, and its status from before."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if status.st_size > _MAX_SOURCE:
            raise normal.SourceError(f"it has more than {_MAX_SOURCE >> 20} MiB")
        return file.read(_MAX_SOURCE), status


def remembered(path: str) -> str | None:
    """What the file held when a traceback was last shown, or what a notebook's cell holds."""
    linecache = sys.modules.get("linecache")
    entry = linecache.cache.get(path) if linecache is not None else None
    return "".join(entry[2]) if entry is not None and len(entry) == 4 else None


def file_of(module: types.ModuleType) -> str | None:
    """Path of the source file of a module."""
    file = getattr(module, "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) and file.endswith(".py") else None


# ------------------------------------------------------------------------------------- what is bound to names


def bindings_of(body: Iterable[ast.stmt]) -> Bindings:
    """What gives each name of a module, or of a class body, its value, in the order of the source."""
    found: Bindings = {}
    changes: list[tuple[str, Binding]] = []
    for name, binding, is_change in _bound(body, ()):
        if is_change:
            changes.append((name, binding))
        else:
            found.setdefault(name, []).append(binding)
    for name, binding in changes:  # of what the module itself made
        if any(each.imported is None for each in found.get(name, ())):
            found[name].append(binding)
    return found


_Guarded = tuple[list[ast.stmt], tuple[ast.AST, ...]]


def _bound(body: Iterable[ast.stmt], guards: tuple[ast.AST, ...]) -> Iterator[tuple[str, Binding, bool]]:
    """Each name that gets a value, what gives it, and whether that only changes a value it has."""
    stack: list[tuple[ast.stmt, tuple[ast.AST, ...]]] = [(node, guards) for node in reversed(list(body))]
    while stack:
        node, guards = stack.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from _defined(node, guards)
            case ast.Import() | ast.ImportFrom():
                for name, imported in references.imports_of(node):
                    yield name, Binding(node, guards, imported), False
            case ast.For() | ast.AsyncFor():
                for name in _names_in(node.target):
                    yield name, Binding(ast.Assign(targets=[node.target], value=node.iter), guards), False
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    for name in _names_in(item.optional_vars):
                        yield name, Binding(ast.Expr(item.context_expr), guards), False
            case _:
                yield from _assigned(node, guards)
        for inner, around in reversed(inside(node)):
            stack += [(each, (*guards, *around)) for each in reversed(inner)]


def inside(node: ast.stmt) -> list[_Guarded]:
    """The statements in a statement, each list with what decides whether it is run."""
    match node:
        case ast.If() | ast.While():
            body = [] if isinstance(node, ast.If) and _is_for_types(node.test) else node.body
            return [(body, (node.test,)), (node.orelse, (node.test,))]
        case ast.For() | ast.AsyncFor():
            return [(node.body, (node.iter,)), (node.orelse, (node.iter,))]
        case ast.With() | ast.AsyncWith():
            return [(node.body, tuple(item.context_expr for item in node.items))]
        case ast.Try() | ast.TryStar():
            handled = [each for handler in node.handlers for each in handler.body]
            return [(body, ()) for body in (node.body, handled, node.orelse, node.finalbody)]
        case ast.Match():
            return [(case.body, (node.subject, case.pattern)) for case in node.cases]
        case _:
            return []


def _is_for_types(test: ast.AST) -> bool:
    return isinstance(test, (ast.Name, ast.Attribute)) and last_name(test) == "TYPE_CHECKING"


def _defined(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, guards: tuple[ast.AST, ...]
) -> Iterator[tuple[str, Binding, bool]]:
    if any(last_name(each) == "overload" for each in node.decorator_list):
        return
    yield node.name, Binding(node, guards), False
    for base, names in map(called, node.decorator_list):  # as by singledispatch: @function.register
        if names == ["register"] and isinstance(base, ast.Name) and base.id != node.name:
            yield base.id, Binding(node, guards), True


def called(node: ast.AST) -> tuple[ast.AST, list[str]]:
    """`references.chain_of` of a decorator, with or without arguments."""
    return references.chain_of(node.func if isinstance(node, ast.Call) else node)


def last_name(node: ast.AST) -> str:
    """The last name of a decorator, or of a type."""
    base, names = called(node)
    return names[-1] if names else base.id if isinstance(base, ast.Name) else ""


def _assigned(node: ast.stmt, guards: tuple[ast.AST, ...]) -> Iterator[tuple[str, Binding, bool]]:
    targets: Sequence[ast.AST] = ()
    match node:
        case ast.Assign() | ast.Delete():
            targets = node.targets
        case ast.AnnAssign() | ast.AugAssign():
            targets = [node.target]
        case ast.Expr(value=ast.Call(func=ast.Attribute() as func)):
            if name := _changed_name(func):
                yield name, Binding(node, guards), True
        case ast.Expr(value=ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=name), *_])):
            yield name, Binding(node, guards), True
        case _ if type(node).__name__ == "TypeAlias":  # from Python 3.12 on
            targets = [tp.cast("tp.Any", node).name]
    for each in ast.walk(node):
        if isinstance(each, ast.NamedExpr):
            yield each.target.id, Binding(node, guards), False
    for target in targets:
        for name in _names_in(target):
            yield name, Binding(node, guards), False
        for name in _changed_in(target):
            yield name, Binding(node, guards), True


def _changed_in(target: ast.AST) -> Iterator[str]:
    """Names whose attributes or items are set or removed."""
    for each in ast.walk(target):
        if isinstance(each, (ast.Attribute, ast.Subscript)) and not isinstance(each.ctx, ast.Load):
            name = _changed_name(each)
            if name is not None:
                yield name


def _changed_name(node: ast.AST) -> str | None:
    """The name of which an expression is an attribute or an item."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def given_to_calls(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The names that statements of a module do nothing with but give them to a function, and its name.

    What `setattr` is given counts as an assignment (`_assigned`).
    """
    stack = list(body)
    while stack:
        node = stack.pop()
        match node:
            case ast.Expr(value=ast.Call(args=args) as call):
                for each in args if last_name(call) not in {*references.CHANGES, "setattr"} else ():
                    if isinstance(each, ast.Name):
                        yield each.id, last_name(call)
            case _:
                stack += [each for inner, _ in inside(node) for each in inner]


def _names_in(target: ast.AST | None) -> Iterator[str]:
    for node in ast.walk(target) if target is not None else ():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def find_node(body: Iterable[ast.stmt], qualname: str, code: types.CodeType | None = None) -> ast.AST | None:
    """The function or class of a qualified name, also in functions; of several, the one at the line of the code."""
    candidates: list[ast.AST] = [*body]
    parts = [part for part in qualname.split(".") if part != "<locals>"]
    for place, part in enumerate(parts):
        found: list[ast.AST] = []
        for node in _below(candidates):
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                if node.name == part:
                    found.append(node)
            elif part == "<lambda>" and isinstance(node, ast.Lambda):
                found.append(node)
        if place == len(parts) - 1:
            return _at_line(found, code)
        candidates = [inner for node in found for inner in ast.iter_child_nodes(node)]
    return None


def _below(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Nodes, and those in them that are in no other function or class."""
    stack = [*reversed(nodes)]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            stack += reversed(list(ast.iter_child_nodes(node)))
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            stack += node.decorator_list


def _at_line(found: list[ast.AST], code: types.CodeType | None) -> ast.AST | None:
    if not found:
        return None
    if code is not None and len(found) > 1:
        lines = {line for *_, line in code.co_lines() if line is not None}
        for node in found:
            start, end = first_line(node), getattr(node, "end_lineno", 0)
            if start <= code.co_firstlineno <= end and all(start <= line <= end for line in lines):
                if isinstance(node, ast.Lambda) and not _at_column(node, code):
                    continue
                return node
    return found[-1]


def _at_column(node: ast.Lambda, code: types.CodeType) -> bool:
    columns = [(line, column) for line, _, column, _ in code.co_positions() if line and column]
    start, end = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
    return all(start <= each <= end for each in columns)


def first_line(node: ast.AST) -> int:
    """The line at which a function or class begins, with its decorators."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([getattr(node, "lineno", 0), *(each.lineno for each in decorators)])


# -------------------------------------------------------------------------------------------- comparing code


def same_code(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two code objects do the same, wherever they are in their files, and whatever their docstrings."""
    if _of_code(one) == _of_code(other):
        return True
    if not (one.co_flags | other.co_flags) & _DOCSTRING:
        return False
    # a docstring is a constant more, by whose numbers instructions name them
    return _of_code(one, by_value=True) == _of_code(other, by_value=True)


def _of_code(code: types.CodeType, *, by_value: bool = False) -> tuple[tp.Any, ...]:
    consts: tuple[tp.Any, ...] = code.co_consts
    if code.co_flags & _DOCSTRING if sys.version_info >= (3, 13) else code.co_name[0] != "<":
        consts = consts[1:]  # before 3.13, it is None where there is no docstring
    return (
        _instructions(code) if by_value else code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & ~_DOCSTRING),
        code.co_exceptiontable,
        tuple(_of_const(const, by_value=by_value) for const in consts),
    )


def _instructions(code: types.CodeType) -> tuple[tp.Any, ...]:
    import dis

    return tuple(
        (each.opcode, _of_const(each.argval) if each.opname == "LOAD_CONST" else each.arg)
        for each in dis.get_instructions(code)
    )


def _of_const(value: tp.Any, *, by_value: bool = False) -> tp.Any:
    if isinstance(value, types.CodeType):
        return _of_code(value, by_value=by_value)
    if isinstance(value, tuple):
        return ("tuple", *(_of_const(each) for each in value))
    if isinstance(value, frozenset):
        return ("frozenset", *sorted(map(repr, map(_of_const, value))))
    return type(value).__name__, repr(value)


def code_text(code: types.CodeType) -> str:
    """What a code object does, as text, the same in every process of one version of Python."""
    return repr(_of_code(code))


def is_compiled_from(code: types.CodeType, text: str) -> bool:
    """Whether a function was compiled from a text: that of a notebook's cell, say."""
    flags = code.co_flags & _FUTURE | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return any(same_code(code, each) for each in _compiled(text, "", flags).get(code.co_qualname, ()))


def _compiled(source: bytes | str, file: str, flags: int = 0) -> dict[str, list[types.CodeType]]:
    """The functions of source code, by their qualified names; none where it cannot be compiled."""
    found: dict[str, list[types.CodeType]] = {}
    try:
        stack = [compile(source, file, "exec", flags=flags, dont_inherit=True)]
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return found
    while stack:
        for const in stack.pop().co_consts:
            if isinstance(const, types.CodeType):
                found.setdefault(const.co_qualname, []).append(const)
                stack.append(const)
    return found


def functions_in(value: tp.Any) -> Iterator[types.FunctionType]:
    """The functions that an attribute or a decorated function is made of."""
    seen: set[int] = set()
    stack = [value]
    while stack and len(seen) < 256:
        value = stack.pop()
        if id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, types.FunctionType):
                yield value
            stack += _made_of(value)


def _made_of(value: tp.Any) -> Iterator[tp.Any]:
    if isinstance(value, types.FunctionType):
        yield from (each for each in cells_of(value).values() if isinstance(each, types.FunctionType))
    elif isinstance(value, (staticmethod, classmethod, types.MethodType)):
        yield value.__func__
    elif isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    if isinstance(value, type):
        return
    # of lru_cache, partial, cached_property, pydantic's decorators
    for name in ("__wrapped__", "func", "wrapped"):
        try:
            inner = getattr(value, name, None)
        except Exception:  # noqa: S112  # an attribute of anybody's may raise anything
            continue
        if inner is not None:
            yield inner


def cells_of(function: types.FunctionType) -> dict[str, tp.Any]:
    """What a function finds in the functions around it."""
    found: dict[str, tp.Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # still empty
            continue
    found.pop("__class__", None)
    return found


def _codes_in(values: Iterable[tp.Any], file: str, module: str) -> Iterator[types.CodeType]:
    stack = list(values)
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, type):
            if value.__module__ == module:
                stack += vars(value).values()
            continue
        for function in functions_in(value):
            code = function.__code__
            if os.path.abspath(code.co_filename) == file:
                yield code


# ---------------------------------------------------------------------------------------- which are the project's


class Finder:
    """Finds modules by name, and knows which are the project's: those that are not installed.

    Parameters
    ----------
    own
        name of the module that holds the class: its package counts also where it is installed
    roots
        folders, or packages by name, that count although they are installed
    """

    def __init__(self, own: str, roots: Iterable[str | os.PathLike[str]]) -> None:
        self._packages: set[str] = {own.partition(".")[0]}
        self._roots: list[str] = []
        for root in roots:
            if isinstance(root, str) and root.replace(".", "").isidentifier():
                self._packages.add(root)
            else:
                self._roots.append(os.path.join(os.path.realpath(root), ""))
        self.modules: dict[str, SourceModule | None] = {}
        self.installed: set[str] = set()  # top names of what is imported and not the project's
        self.missing: set[str] = set()

    def module(self, name: str) -> SourceModule | None:
        """A module of the project; None for any other."""
        if name not in self.modules:
            self.modules[name] = None
            self.modules[name] = self._find(name)
        return self.modules[name]

    def _find(self, name: str) -> SourceModule | None:
        top = name.partition(".")[0]
        loaded = sys.modules.get(name)
        if top == _OURS or (loaded is None and top in sys.stdlib_module_names):
            return None
        if loaded is not None:
            file, package = file_of(loaded), hasattr(loaded, "__path__")
            if file is None and not package:
                if top not in sys.stdlib_module_names and not is_main(name):
                    self.installed.add(top)
                return None
            folders = list(getattr(loaded, "__path__", ()))
        else:
            spec = find_spec(name)
            if spec is None:
                self.missing.add(name)
                return None
            package = spec.submodule_search_locations is not None
            folders = list(spec.submodule_search_locations or ())
            file = os.path.abspath(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        place = file or (folders[0] if folders else "")
        if not self.is_local(name, place):
            if top not in sys.stdlib_module_names:
                self.installed.add(top)
            return None
        module = SourceModule(name, title_of(name, file), file, package=package)
        module.read()
        return module

    def script(self, name: str, file: str, names: dict[str, tp.Any]) -> SourceModule | None:
        """The module of a class that came by value, from a script that another process runs."""
        key = f"{name}:{file}"
        if key not in self.modules:
            self.modules[key] = None
            if os.path.isfile(file) and self.is_local(name, file):
                module = SourceModule(name, title_of(name, file), os.path.abspath(file), package=False)
                module.by_value = names
                module.read(may_differ=True)
                self.modules[key] = module
        return self.modules[key]

    def is_foreign(self, name: str) -> bool:
        """Whether a module was imported from somewhere and is not the project's."""
        loaded = sys.modules.get(name)
        imported = loaded is not None and getattr(loaded, "__spec__", None) is not None
        return imported and self.module(name) is None

    def is_local(self, name: str, file: str) -> bool:
        """Whether a module belongs to the project."""
        top = name.partition(".")[0]
        if top == _OURS or not file:
            return False
        if top in self._packages or f"{name}.".startswith(tuple(f"{each}." for each in self._packages)):
            return True
        real = os.path.realpath(file)
        if real.startswith(tuple(self._roots)):
            return True
        if self._roots:
            return False
        return INSTALLED.isdisjoint(real.split(os.sep)) and not real.startswith(_STANDARD + os.sep)


def title_of(name: str, file: str | None) -> str:
    """What the parts of a module are named after."""
    if not is_main(name):
        return name
    main = sys.modules.get(name)
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec is not None else ""
    if name and not is_main(name) and main is not None and file_of(main) == file:
        return str(name)
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"


def find_spec(name: str) -> "importlib.machinery.ModuleSpec | None":
    """What would be imported under a name; nothing is imported to find it."""
    parent = name.rpartition(".")[0]
    path: Sequence[str] | None = None
    if parent:
        loaded = sys.modules.get(parent)
        if loaded is not None:
            path = getattr(loaded, "__path__", None)
        else:
            above = find_spec(parent)
            path = above.submodule_search_locations if above is not None else None
        if path is None:
            return None
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except Exception:  # noqa: S112  # a finder of anybody's may raise anything
            continue
        if spec is not None:
            return spec
    return None


def absolute(imported: references.Import, package: str) -> str:
    """The full name of the module of an import in a package."""
    if not imported.level:
        return imported.module
    above = package.split(".")
    base = ".".join(above[: len(above) - imported.level + 1])
    return f"{base}.{imported.module}".strip(".") if imported.module else base
