"""Which code a method reaches, and of what value: the parts that are digested.

It starts at the method and follows what the code refers to (`references`), through the modules of the project
(`modules`), until nothing new is found. What an attribute of ``self`` is, the order of the classes says; what an
attribute of a field is, the annotation of the field. Where a value comes from elsewhere, an attribute of this name of
every class that is reached counts: which is meant can be known only when it runs.

Values in memory are asked only where there is no file: in notebooks, for closures, for what ``exec`` made.
"""

import ast
import builtins
import copy
import functools
import os
import sys
import types
import typing as tp
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from . import modules, normal, references
from .modules import Binding, SourceModule
from .references import Chain, References

_DEFS = (ast.FunctionDef, ast.AsyncFunctionDef)
_VALIDATORS = frozenset(("field_validator", "model_validator", "validator", "root_validator"))
_DUMPERS = frozenset(("field_serializer", "model_serializer", "serializer", "computed_field"))
_SHOWN = frozenset(
    ("__repr__", "__str__", "__format__", "__repr_args__", "__repr_name__", "__rich_repr__", "__pretty__")
)
_SCALARS = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_MISSING: tp.Final = object()
_MOST_PARTS = 4000  # which take some seconds
CODE_TAG: tp.Final = (sys.implementation.cache_tag or sys.implementation.name).replace("-", "")


class LiveModule:
    """A module that has no file: its names have the values that they have now."""

    def __init__(self, title: str, names: dict[str, tp.Any]) -> None:
        self.title: str = title
        self.names: dict[str, tp.Any] = names


Place = SourceModule | LiveModule


class ClassInfo:
    """A class of the project.

    Attributes
    ----------
    place
        module that it is in
    qualname
        its qualified name
    node
        its source
    runtime
        the class, if it is in memory
    members
        what its body binds to each name
    """

    def __init__(self, place: Place, qualname: str, node: ast.ClassDef | None, runtime: type | None) -> None:
        self.place: Place = place
        self.qualname: str = qualname
        self.node: ast.ClassDef | None = node
        self.runtime: type | None = runtime
        self.members: modules.Bindings = modules.bindings_of(node.body) if node is not None else {}
        self.title: str = f"{place.title}.{qualname}"


class _Scope(tp.NamedTuple):
    """Where a piece of code looks for names."""

    place: Place
    owner: ClassInfo | None = None  # for what is evaluated in a class body
    cells: Mapping[str, tp.Any] = types.MappingProxyType({})


class _Asker(tp.NamedTuple):
    """The part whose code is followed, and whether it is part of a configuration."""

    title: str
    config: bool = False


class Part(tp.NamedTuple):
    """A part of the code that counts: where it is in its file, its digest, and what to show of it."""

    position: tuple[int, int]
    digest: str
    text: str


class Reach:
    """Finds all that a method reaches.

    Parameters
    ----------
    cls
        class of the object
    extra
        classes of the models in the object
    finder
        finds modules

    Attributes
    ----------
    parts
        what counts, by name
    unresolved
        what can't be told, by the name of the part that it is in
    live
        values in memory that were asked: the names of a module, the name, and the value
    stable
        whether all came from files, so that it can be found again by them
    """

    def __init__(self, cls: type, extra: Iterable[type], finder: modules.Finder) -> None:
        self.finder: modules.Finder = finder
        self.parts: dict[str, set[Part]] = {}
        self.unresolved: dict[str, set[str]] = {}
        self.live: list[tuple[Mapping[str, tp.Any], str, tp.Any]] = []
        self.stable: bool = True
        self._todo: list[Callable[[], None]] = []
        self._done: set[tp.Any] = set()
        self._keep: list[tp.Any] = []  # objects whose ids are noted
        self._classes: dict[int, ClassInfo] = {}
        self._mros: dict[int, list[ClassInfo | type | None]] = {}
        self._reached: dict[int, ClassInfo] = {}
        self._config: set[int] = set()
        self._names: set[str] = set()
        self._shows: bool = False
        self._dumps: bool = False
        self._cells: dict[str, tuple[ast.Module, str] | None] = {}
        self._references: dict[int, References] = {}
        self._changing: dict[int, dict[str, str]] = {}
        self._extra: list[type] = sorted(set(extra), key=lambda each: (each.__module__, each.__qualname__))
        self.main: ClassInfo | None = self.class_of(cls)

    # ------------------------------------------------------------------------------------------ the start

    def run(self, cls: type, function: tp.Any) -> str:
        """Follow all that a method of a class reaches; return the name of its part."""
        if self.main is not None:
            self.reach_class(self.main, config=True)
        title = self._start(cls, function)
        self._drain()
        self._body_values()
        if len(self.parts) >= _MOST_PARTS:
            self.note(title, f"it reaches more than {_MOST_PARTS} parts of code; the others are not followed")
        return title

    def _body_values(self) -> None:
        """Count what classes hold that no configuration does, once all that is part of one is known."""
        while pending := [info for key, info in self._reached.items() if key not in self._config]:
            before = len(self._done)
            for info in pending:
                self._count_body(info)
            self._drain()
            if len(self._done) == before:
                break

    def _start(self, cls: type, function: tp.Any) -> str:
        functions = list(modules.functions_in(function))
        for info in self.mro(self.main) if self.main is not None else ():
            if not isinstance(info, ClassInfo) or self.main is None:
                continue
            for each in functions:
                name = each.__name__
                of_class = each.__code__.co_qualname == f"{info.qualname}.{name}" and name in info.members
                if of_class and (isinstance(info.place, LiveModule) or _same_file(info.place, each.__code__)):
                    self._use_found(self.main, info, name)
                    return f"{info.title}.{name}"
        for each in functions:
            self.reach_live_function(each, receiver=self.main)
        return self._title_of(functions[0]) if functions else str(getattr(function, "__qualname__", function))

    def _title_of(self, function: types.FunctionType) -> str:
        name = function.__module__ or "__main__"
        file = function.__code__.co_filename if modules.is_main(name) else None
        title = modules.title_of(
            name, file if file and file.endswith(".py") and os.path.isfile(file) else None
        )
        return f"{title}.{function.__code__.co_qualname}"

    def _drain(self) -> None:
        while self._todo and len(self.parts) < _MOST_PARTS:
            self._todo.pop()()

    def _once(self, *key: tp.Any) -> bool:
        if key in self._done:
            return False
        self._done.add(key)
        return True

    def _later(self, work: Callable[..., None], *args: tp.Any, **kwargs: tp.Any) -> None:
        self._todo.append(functools.partial(work, *args, **kwargs))

    # ------------------------------------------------------------------------------------------ what counts

    def add(
        self, title: str, nodes: Sequence[ast.AST], context: normal.Context, at: ast.AST | None = None
    ) -> None:
        """Count source code."""
        at = at if at is not None else nodes[0]
        position = (getattr(at, "lineno", 0), getattr(at, "col_offset", 0))
        text = normal.shown(nodes, context)
        self.parts.setdefault(title, set()).add(
            Part(position, normal.digest(normal.form(nodes, context)), text)
        )

    def add_code(self, title: str, code: types.CodeType) -> None:
        """Count a code object, which has no source that is its own."""
        why = "source not available: it is digested as compiled"
        self.stable = False
        digest = f"{CODE_TAG}-{normal.digest(modules.code_text(code))}"
        self.parts.setdefault(title, set()).add(Part((0, 0), digest, f"# {why}"))
        self.note(title, why)

    def add_value(self, title: str, value: tp.Any) -> None:
        """Count a value, where there is no source and it can't change."""
        self.stable = False
        if is_plain(value):
            text = value_text(value)
            self.parts.setdefault(title, set()).add(Part((0, 0), normal.digest(f"value {text}"), text))
        else:
            self.note(title, f"its value, a {type(value).__qualname__}, has no source and may change")

    def note(self, title: str, reason: str) -> None:
        """List what can't be told."""
        self.unresolved.setdefault(title, set()).add(reason)

    # ------------------------------------------------------------------------------------------ names

    def follow(
        self, found: References, scope: _Scope, asker: _Asker, receiver: ClassInfo | None = None
    ) -> None:
        """Reach all that a piece of code refers to."""
        for chain in sorted(found.free):
            self.reach_name(scope, chain, asker)
        for chain in sorted(found.outer):
            outer = _Scope(scope.place, receiver if receiver is not None else scope.owner, scope.cells)
            self.reach_name(outer, chain, _Asker(asker.title))
        if receiver is not None:
            for chain in sorted(found.own):
                self.use_chain(receiver, chain)
        else:
            found.attributes.update(name for chain in found.own for name in chain)
        for name in sorted(found.attributes):
            self.use_name(name)
        for imported, attributes in sorted(found.imports, key=repr):
            package = scope.place.package if isinstance(scope.place, SourceModule) else ""
            self.reach_import(modules.absolute(imported, package), imported.name, attributes, asker)
        for reason in found.unknown:
            self.note(asker.title, reason)
        self._note_uses(found)

    def _note_uses(self, found: References) -> None:
        """Reach what turns objects into text, or into data, once a piece of code does that."""
        if found.shows and not self._shows:
            self._shows = True
            for info in list(self._reached.values()):
                for name in sorted(_SHOWN):
                    self.use_member(info, name)
        if found.dumps and not self._dumps:
            self._dumps = True
            for info in list(self._reached.values()):
                self._use_dumpers(info)

    def reach_name(self, scope: _Scope, chain: Chain, asker: _Asker) -> None:
        """Reach what a name means, and what is read of it."""
        name, attributes = chain[0], chain[1:]
        if name in scope.cells:
            self.stable = False
            self.reach_value(f"{asker.title}.{name}", scope.cells[name], attributes, config=asker.config)
            return
        if scope.owner is not None and name in scope.owner.members:
            self.use_chain(scope.owner, chain)
            return
        if isinstance(scope.place, LiveModule):
            self.reach_live_name(scope.place, name, attributes, asker)
        else:
            self.reach_source_name(scope.place, name, attributes, asker)

    def reach_live_name(self, place: LiveModule, name: str, attributes: Chain, asker: _Asker) -> None:
        """Reach a name of a module that has no file."""
        value = place.names.get(name, _MISSING)
        self.stable = False
        if value is _MISSING and hasattr(builtins, name):
            self._use_names(attributes)
            return
        self.live.append((place.names, name, value))
        if value is _MISSING:
            self.note(asker.title, f"{name} is not defined")
        else:
            if isinstance(value, types.ModuleType):
                if not self._is_made_up(value):
                    self._count_import(place, name, value.__name__, None)
            elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
                module = str(getattr(value, "__module__", None) or "builtins")
                if not modules.is_main(module):
                    self._count_import(place, name, module, value.__qualname__)
            self.reach_value(f"{place.title}.{name}", value, attributes, config=asker.config)

    def reach_source_name(self, place: SourceModule, name: str, attributes: Chain, asker: _Asker) -> None:
        """Reach a name of a module, as its file binds it."""
        if not self._once("name", id(place), name, attributes, asker.config):
            return
        for binding in place.bindings.get(name, ()):
            self._later(self.reach_binding, place, name, binding, attributes, asker)
        if name in place.bindings:
            return
        for star in place.stars:
            module = self.finder.module(modules.absolute(star, place.package))
            if module is not None and self._has(module, name):
                self._later(self.reach_source_name, module, name, attributes, asker)
                return
        self._reach_unbound(place, name, attributes, asker)

    def _reach_unbound(self, place: SourceModule, name: str, attributes: Chain, asker: _Asker) -> None:
        """Reach a name that the file of its module binds nowhere."""
        value = (place.memory or {}).get(name, _MISSING)
        if value is not _MISSING and (place.problem or (place.may_differ and place.changed)):
            live = LiveModule(place.title, place.memory or {})  # the file has no such name any more
            self._later(self.reach_live_name, live, name, attributes, asker)
        elif hasattr(builtins, name) or (name.startswith("__") and name.endswith("__")):
            self._use_names(attributes)
        elif place.problem:
            self.note(asker.title, place.problem)
        elif name not in place.for_types and not self._is_installed(value):
            self.note(asker.title, f"{name} is set in a way that its module does not show")
            for getter in place.bindings.get("__getattr__", ()):
                self._later(self.reach_binding, place, "__getattr__", getter, (), _Asker(asker.title))

    def _is_installed(self, value: tp.Any) -> bool:
        """Whether a value is of an installed package, of which all names were imported."""
        if not isinstance(value, (type, types.FunctionType, types.ModuleType)):
            return False
        module = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        return self.finder.module(str(module)) is None

    def _has(self, module: SourceModule, name: str, depth: int = 0) -> bool:
        if name in module.bindings:
            return True
        inner = (self.finder.module(modules.absolute(star, module.package)) for star in module.stars)
        return depth < 16 and any(each is not None and self._has(each, name, depth + 1) for each in inner)

    def reach_binding(
        self, place: SourceModule, name: str, binding: Binding, attributes: Chain, asker: _Asker
    ) -> None:
        """Reach what gives a name of a module its value."""
        node = binding.node
        if binding.imported is not None:
            module = modules.absolute(binding.imported, place.package)
            self._count_import(place, name, module, binding.imported.name)
            self.reach_import(module, binding.imported.name, attributes, asker)
        elif isinstance(node, ast.ClassDef):
            info = self.class_of_source(place, node, name)
            self.reach_class(info, config=asker.config)
            if attributes:
                self.use_chain(info, attributes)
        elif isinstance(node, _DEFS):
            self.reach_function(_Scope(place), node, f"{place.title}.{name}", guards=binding.guards)
            self._use_names(attributes)
        else:
            self.reach_statement(place, name, binding, config=asker.config)
            self._use_names(attributes)

    def _count_import(self, place: Place, name: str, module: str, of_module: str | None) -> None:
        """Count what a name is imported from, where that is not followed and the name itself does not show it."""
        if (of_module is None and module == name) or self.finder.module(module) is not None:
            return
        target = module if of_module is None else f"{module}.{of_module}"
        if of_module is None:
            text = f"import {module} as {name}"
        else:
            text = f"from {module} import {of_module}" + (f" as {name}" if name != of_module else "")
        part = Part((0, 0), normal.digest(f"import {target}"), text)
        self.parts.setdefault(f"{place.title}.{name}", set()).add(part)

    def reach_import(self, module: str, name: str | None, attributes: Chain, asker: _Asker) -> None:
        """Reach a module, or a name in it."""
        found = self.finder.module(module)
        if found is None:
            value = sys.modules.get(module) if modules.is_main(module) else None
            if value is not None and name is not None:
                live = LiveModule(modules.title_of(module, None), vars(value))
                self.reach_live_name(live, name, attributes, asker)
            elif module in self.finder.missing:
                self.note(asker.title, f"the module {module} is not found")
            return
        if name is None:
            self.reach_module(found, attributes, asker)
            return
        bound = found.bindings.get(name, ())
        itself = [
            each.imported is not None
            and (modules.absolute(each.imported, found.package), each.imported.name) == (module, name)
            for each in bound
        ]
        if all(itself) and (inner := self.finder.module(f"{module}.{name}")) is not None:
            self.reach_module(inner, attributes, asker)
        else:
            self.reach_source_name(found, name, attributes, asker)

    def reach_module(self, module: SourceModule, attributes: Chain, asker: _Asker) -> None:
        """Reach what is read of a module."""
        if not attributes:
            self.note(asker.title, f"what is used of the module {module.title} is known only when it runs")
            return
        name, rest = attributes[0], attributes[1:]
        if not self._has(module, name):
            inner = self.finder.module(f"{module.name}.{name}")
            if inner is not None:
                self.reach_module(inner, rest, asker)
                return
            self.finder.missing.discard(f"{module.name}.{name}")
        self.reach_source_name(module, name, rest, asker)

    # ------------------------------------------------------------------------------------------ functions

    def reach_function(
        self,
        scope: _Scope,
        node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
        title: str,
        *,
        owner: ClassInfo | None = None,
        receiver: ClassInfo | None = None,
        guards: tuple[ast.AST, ...] = (),
        function: types.FunctionType | None = None,
    ) -> None:
        """Count a function, and follow it; ``owner``: the class whose body it is in, ``receiver``: of ``self``."""
        cells = tuple(sorted((name, id(value)) for name, value in scope.cells.items()))
        if not self._once("function", id(node), id(receiver), cells):
            return
        self._keep.append((node, receiver, scope.cells))
        code = self._other_code(scope.place, node, owner, function)
        if code is not None:
            self.reach_code(scope, code, title, owner=owner, receiver=receiver)
            return
        counted: ast.AST = node
        if owner is not None and not isinstance(node, ast.Lambda):
            counted = _without_appliers(node, owner)
        self.add(title, [*guards, counted], "class" if owner is not None else "module", node)
        first = references.first_argument(node) if receiver is not None and not _is_static(node) else None
        key = id(node)
        if key not in self._references:
            self._references[key] = references.of_function(tp.cast("ast.FunctionDef", counted), first)
            self._keep.append(counted)
        found = self._references[key]
        self.follow(found, _Scope(scope.place, None, scope.cells), _Asker(title), receiver)
        if guards:
            self.follow(references.of_nodes(guards), scope, _Asker(title))
        if receiver is not None and owner is not None:
            for chain in sorted(found.parent):
                if chain:
                    self.use_member(receiver, chain[0], after=owner)
        for name in sorted(found.rebinds):
            self.note(title, f"it gives {name}, a name of its module, another value")

    def _other_code(
        self, place: Place, node: ast.AST, owner: ClassInfo | None, function: types.FunctionType | None
    ) -> types.CodeType | None:
        """The code in memory, where it is not that of the source."""
        if not isinstance(place, SourceModule) or not place.may_differ:
            return None
        name = getattr(node, "name", "<lambda>")
        if function is not None:
            return place.runs(function.__code__.co_qualname, function.__code__)
        if owner is None:
            return place.runs(name)
        if owner.runtime is None:
            return place.runs(f"{owner.qualname}.{name}")
        qualname = f"{owner.qualname}.{name}"
        for each in modules.functions_in(vars(owner.runtime).get(name)):
            if each.__code__.co_qualname == qualname:
                return place.runs(qualname, each.__code__)
        return None

    def reach_code(
        self,
        scope: _Scope,
        code: types.CodeType,
        title: str,
        *,
        owner: ClassInfo | None = None,
        receiver: ClassInfo | None = None,
    ) -> None:
        """Count a code object, and follow it."""
        self.add_code(title, code)
        first = code.co_varnames[0] if receiver is not None and code.co_argcount else None
        found = references.of_code(code, first)
        self.follow(found, _Scope(scope.place, None, scope.cells), _Asker(title), receiver)
        if receiver is not None and owner is not None:
            for name in (
                sorted(set(code.co_names))
                if "super" in code.co_names
                else sorted(chain[0] for chain in found.parent)
            ):
                self.use_member(receiver, name, after=owner)

    def reach_live_function(
        self, function: types.FunctionType, receiver: ClassInfo | None = None, title: str | None = None
    ) -> None:
        """Reach a function that is in memory: by its source, if that is found and its own."""
        code = function.__code__
        if not self._once("live", id(function), id(receiver)):
            return
        self._keep.append(function)
        cells = modules.cells_of(function)
        if cells:
            self.stable = False
        place, node = self._source_of(function)
        if place is None:
            return
        name = title or f"{place.title}.{code.co_qualname}"
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            if node is None:
                self.reach_value(f"{name}.<default>", value, ())
        scope = _Scope(place, None, cells)
        if node is None:
            self.reach_code(scope, code, name, receiver=receiver)
        else:
            self.reach_function(scope, node, name, receiver=receiver, function=function)

    def _source_of(
        self, function: types.FunctionType
    ) -> tuple[Place | None, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None]:
        """The module of a function, None for one that is not the project's, and its source if that is found."""
        code, name = function.__code__, function.__module__ or "__main__"
        place = self._place_of(name, code, function.__globals__)
        if place is None:
            return None, None
        if isinstance(place, SourceModule) and _same_file(place, code):
            node = modules.find_node(place.tree.body, code.co_qualname, code)
            if node is None or place.runs(code.co_qualname, code) is not None:
                return place, None
        else:
            self.stable = False
            node = self._in_cell(code)
            if isinstance(place, SourceModule):
                place = LiveModule(place.title, function.__globals__)
        return place, node if isinstance(node, (*_DEFS, ast.Lambda)) else None

    def _place_of(
        self, name: str, code: types.CodeType | None, names: dict[str, tp.Any] | None
    ) -> Place | None:
        """The module of a function or class; None if it is not the project's."""
        loaded = sys.modules.get(name)
        file = code.co_filename if code is not None else None
        known = loaded is not None and (names is None or vars(loaded) is names)
        if modules.is_main(name) and file is not None and not known and os.path.isfile(file):
            script = self.finder.script(name, file, names or {})
            if script is not None:
                return script
        module = self.finder.module(name)
        if module is not None:
            return module
        if modules.is_main(name) or (loaded is None and names is not None):
            if names is None:
                names = vars(loaded) if loaded is not None else {}
            return LiveModule(modules.title_of(name, None) if modules.is_main(name) else name, names)
        if loaded is not None and not modules.file_of(loaded) and self._is_made_up(loaded):
            return LiveModule(name, vars(loaded))
        return None

    @staticmethod
    def _is_made_up(module: types.ModuleType) -> bool:
        """Whether a module was made in memory, by no import."""
        return getattr(module, "__spec__", None) is None and not getattr(module, "__file__", None)

    def _in_cell(self, code: types.CodeType) -> ast.AST | None:
        """The source of a function that a notebook's cell, or the prompt, defined."""
        if code.co_filename not in self._cells:
            self._cells[code.co_filename] = None
            text = modules.remembered(code.co_filename)
            if text:
                try:
                    self._cells[code.co_filename] = normal.parse(text), text
                except normal.SourceError:
                    pass
        cell = self._cells[code.co_filename]
        if cell is None or not modules.is_compiled_from(code, cell[1]):
            return None
        return modules.find_node(cell[0].body, code.co_qualname, code)

    # ------------------------------------------------------------------------------------------ statements

    def reach_statement(
        self, place: SourceModule, name: str, binding: Binding, *, config: bool = False
    ) -> None:
        """Count a statement that gives a module's name its value, and follow it."""
        if not self._once("statement", id(binding.node), name, config):
            return
        title = f"{place.title}.{name}"
        nodes = [*binding.guards, binding.node]
        if self._is_of_file(place, place.memory or {}, name, binding.node, title):
            self.add(title, nodes, "module", binding.node)
        found = references.of_nodes(_values_in(nodes))
        self.follow(found, _Scope(place), _Asker(title, config))
        if reason := self._changing_of(place).get(name):
            self.note(title, reason)

    def _is_of_file(
        self, place: Place, names: Mapping[str, tp.Any], name: str, node: ast.AST, title: str
    ) -> bool:
        """Whether a statement of a file is what was run; where not, the value in memory is counted."""
        if not isinstance(place, SourceModule) or not place.may_differ or name not in names:
            return True
        value = getattr(node, "value", None)
        try:
            expected = ast.literal_eval(value) if isinstance(value, ast.expr) else _MISSING
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            expected = _MISSING
        if expected is not _MISSING and isinstance(node, (ast.Assign, ast.AnnAssign)):
            if type(expected) is type(names[name]) and repr(expected) == repr(names[name]):
                return True
            if is_plain(names[name]) and is_plain(expected):
                self.add_value(title, names[name])
                return False
        if name in self._changing_of(place):  # what it holds now tells nothing of the source
            return True
        if place.changed:
            self.add_value(title, names[name])
            return False
        self.note(
            title,
            "its file changed after this process began, and its value can't be compared with the source",
        )
        return True

    def _changing_of(self, place: SourceModule) -> dict[str, str]:
        """Names of a module whose values its functions change, and which function does."""
        known = self._changing.get(id(place))
        if known is None:
            known = {}
            for node in ast.walk(place.tree):
                if isinstance(node, _DEFS):
                    found = references.of_function(node, None)
                    for name in found.rebinds | found.mutates:
                        known.setdefault(name, f"{node.name}() changes it")
            for name, called in modules.given_to_calls(place.tree.body):
                values = (getattr(each.node, "value", None) for each in place.bindings.get(name, ()))
                if not all(isinstance(value, ast.Constant) for value in values):
                    known.setdefault(name, f"{called}() is called with it, and may change it")
            self._changing[id(place)] = known
        return known

    # ------------------------------------------------------------------------------------------ classes

    def class_of(self, cls: type) -> ClassInfo | None:
        """What is known of a class that is in memory; None if it is not the project's."""
        if id(cls) in self._classes:
            return self._classes[id(cls)]
        if not modules.is_main(cls.__module__) and self.finder.is_foreign(cls.__module__):
            return None
        functions = [
            each
            for value in list(vars(cls).values())
            for each in modules.functions_in(value)
            if each.__code__.co_qualname.startswith(f"{cls.__qualname__}.")
        ]
        code = functions[0].__code__ if functions else None
        place = self._place_of(cls.__module__, code, functions[0].__globals__ if functions else None)
        if place is None:
            return None
        node: ast.AST | None = None
        if isinstance(place, SourceModule) and (code is None or _same_file(place, code)):
            node = self._class_node(place.tree.body, cls, code)
        if node is None and "[" in cls.__qualname__:  # Model[int]: the class itself comes after it
            return None
        if node is None:
            self.stable = False
            place = LiveModule(place.title, functions[0].__globals__ if functions else _globals(place, cls))
            node = self._class_in_cells(cls, functions)
        if "<locals>" in cls.__qualname__:
            self.stable = False
        elif isinstance(node, ast.ClassDef) and id(node) in self._classes:
            info = self._classes[id(node)]
            info.runtime = info.runtime or cls
            self._classes[id(cls)] = info
            return info
        info = ClassInfo(place, cls.__qualname__, node if isinstance(node, ast.ClassDef) else None, cls)
        self._classes[id(cls)] = info
        if node is not None and "<locals>" not in cls.__qualname__:
            self._classes[id(node)] = info
        self._keep.append((cls, node))
        return info

    @staticmethod
    def _class_node(body: Iterable[ast.stmt], cls: type, code: types.CodeType | None) -> ast.AST | None:
        if code is None:
            return modules.find_node(body, cls.__qualname__)
        method = modules.find_node(body, code.co_qualname, code)
        for node in ast.walk(ast.Module(body=list(body), type_ignores=[])):
            named = isinstance(node, ast.ClassDef) and node.name == cls.__name__ and method is not None
            if named and any(method is each for each in _in_body(tp.cast("ast.ClassDef", node))):
                return node
        return modules.find_node(body, cls.__qualname__)

    def _class_in_cells(self, cls: type, functions: Sequence[types.FunctionType]) -> ast.AST | None:
        for function in functions:
            if self._in_cell(function.__code__) is not None:
                cell = self._cells[function.__code__.co_filename]
                if cell is not None:
                    return self._class_node(cell[0].body, cls, function.__code__)
        return None

    def class_of_source(self, place: SourceModule, node: ast.ClassDef, qualname: str) -> ClassInfo:
        """What is known of a class by its source."""
        if id(node) not in self._classes:
            first, *names = qualname.split(".")
            runtime: tp.Any = (place.memory or {}).get(first)
            for name in names:
                runtime = (
                    vars(runtime).get(name) if runtime is not None and hasattr(runtime, "__dict__") else None
                )
            if not (isinstance(runtime, type) and runtime.__qualname__ == qualname):
                runtime = None
            self._classes[id(node)] = ClassInfo(place, qualname, node, runtime)
        return self._classes[id(node)]

    def mro(self, info: ClassInfo) -> list[ClassInfo | type | None]:
        """The classes in which an attribute is looked for; None for one that is not known."""
        if id(info) not in self._mros:
            runtime = info.runtime
            known: list[ClassInfo | type | None]
            if runtime is None:
                known = self._static_mro(info, set())
            else:
                known = [info if cls is runtime else self.class_of(cls) or cls for cls in runtime.__mro__]
            self._mros[id(info)] = known
        return self._mros[id(info)]

    def _static_mro(self, info: ClassInfo, seen: set[int]) -> list[ClassInfo | type | None]:
        bases = info.node.bases if info.node is not None else []
        found = [self.look_up(info.place, base) for base in bases]
        if id(info) in seen:
            return [info]
        seen = {*seen, id(info)}
        lines = [[None] if base is None else self._static_mro(base, seen) for base in found]
        return [info, *_merged([*lines, list(found)])]

    def look_up(self, place: Place, node: ast.AST) -> ClassInfo | None:
        """The class of the project that an expression names."""
        while isinstance(node, ast.Subscript):
            node = node.value
        base, attributes = references.chain_of(node)
        return self._looked_up(place, (base.id, *attributes)) if isinstance(base, ast.Name) else None

    def _looked_up(self, place: Place, chain: Chain, depth: int = 0) -> ClassInfo | None:
        if isinstance(place, LiveModule):
            value = place.names.get(chain[0])
            for name in chain[1:]:
                value = getattr(value, name, None)
            return self.class_of(value) if isinstance(value, type) else None
        if depth > 32:
            return None
        name, rest = chain[0], chain[1:]
        for binding in place.bindings.get(name, ()):
            if isinstance(binding.node, ast.ClassDef) and not rest:
                return self.class_of_source(place, binding.node, name)
            if binding.imported is not None:
                module = modules.absolute(binding.imported, place.package)
                found = self.finder.module(module)
                wanted: Chain = (binding.imported.name, *rest) if binding.imported.name else rest
                while found is not None and len(wanted) > 1 and not self._has(found, wanted[0]):
                    found, wanted = self.finder.module(f"{found.name}.{wanted[0]}"), wanted[1:]
                if found is not None and wanted:
                    return self._looked_up(found, wanted, depth + 1)
        for star in place.stars:
            found = self.finder.module(modules.absolute(star, place.package))
            if found is not None and self._has(found, name):
                return self._looked_up(found, chain, depth + 1)
        return None

    def reach_class(self, info: ClassInfo, *, config: bool) -> None:
        """Reach a class: how it is made, and all that is read of it anywhere.

        ``config``: whether it is part of the configuration, whose values are noted elsewhere.
        """
        key = id(info)
        self._keep.append(info)
        if config:
            self._config.add(key)
        if key in self._reached:
            return
        self._reached[key] = info
        every = [each for each in self.mro(info) if isinstance(each, ClassInfo)]
        for each in every:
            self._count_header(each)
            for name in _run_when_made(each):
                if name not in _SHOWN or self._shows:
                    self.use_member(info, name)
        if self._dumps:
            self._use_dumpers(info)
        for name in sorted(self._names):
            self.use_member(info, name)

    def _use_dumpers(self, info: ClassInfo) -> None:
        """Reach what pydantic calls to write a model as data."""
        for each in self.mro(info):
            if isinstance(each, ClassInfo):
                for name in _decorated_by(each, _DUMPERS):
                    self.use_member(info, name)

    def _count_header(self, info: ClassInfo) -> None:
        if info.node is None or not self._once("header", id(info.node)):
            return
        self._keep.append(info.node)
        nodes: list[ast.AST] = [*info.node.decorator_list, *info.node.keywords]
        if nodes:
            self.add(info.title, nodes, "module", info.node)
            self.follow(references.of_nodes(nodes), _Scope(info.place), _Asker(info.title))

    def _count_body(self, info: ClassInfo) -> None:
        """Count the values of a class that the code itself makes objects of, and no configuration holds."""
        if not self._once("body", id(info)):
            return
        for each in self.mro(info):
            if not isinstance(each, ClassInfo) or id(each) in self._config:
                continue
            if each.node is not None and each.node.bases and self._once("bases", id(each.node)):
                self.add(each.title, each.node.bases, "module", each.node)
            for name, found in each.members.items():
                for binding in found:
                    if not isinstance(binding.node, (*_DEFS, ast.ClassDef)) and binding.imported is None:
                        self.use_statement(info, each, name, binding, whole=True)

    def _use_names(self, names: Iterable[str]) -> None:
        for name in names:
            self.use_name(name)

    def use_name(self, name: str) -> None:
        """Reach an attribute of any class."""
        if name not in self._names:
            self._names.add(name)
            for info in list(self._reached.values()):
                self.use_member(info, name)

    def use_chain(self, info: ClassInfo, chain: Chain) -> None:
        """Reach an attribute of a class, and what is read of that."""
        self.use_member(info, chain[0])
        if len(chain) == 1:
            return
        classes = self._classes_of_field(info, chain[0])
        for each in classes:
            self._later(self.use_chain, each, chain[1:])
        if not classes:
            self._use_names(chain[1:])

    def use_member(self, info: ClassInfo, name: str, after: ClassInfo | None = None) -> None:
        """Reach an attribute of a class, in the order of its bases; ``after``: only of those behind this one."""
        if not self._once("member", id(info), name, id(after)):
            return
        order = self.mro(info)
        if after is not None:
            order = order[order.index(after) + 1 :] if after in order else []
        for each in order:
            if each is None:
                continue
            if isinstance(each, type):
                if name in vars(each):
                    return
            elif name in each.members:
                self._use_found(info, each, name)
                return
            elif each.node is None and each.runtime is not None and name in vars(each.runtime):
                self._later(self._use_live, info, each, name)
                return
        if after is None:
            self.use_name(name)  # of its metaclass

    def _use_found(self, info: ClassInfo, owner: ClassInfo, name: str) -> None:
        for binding in owner.members[name]:
            self._later(self.use_binding, info, owner, name, binding)

    def use_binding(self, info: ClassInfo, owner: ClassInfo, name: str, binding: Binding) -> None:
        """Reach what gives an attribute of a class its value."""
        node = binding.node
        if isinstance(node, _DEFS):
            function = None
            if owner.runtime is not None and "<locals>" in owner.qualname:
                qualname = f"{owner.qualname}.{node.name}"
                found = modules.functions_in(vars(owner.runtime).get(name))
                function = next((each for each in found if each.__code__.co_qualname == qualname), None)
            cells = modules.cells_of(function) if function is not None else {}
            self.reach_function(
                _Scope(owner.place, owner, cells),
                node,
                f"{owner.title}.{name}",
                owner=owner,
                receiver=info,
                guards=binding.guards,
            )
        elif isinstance(node, ast.ClassDef):
            if isinstance(owner.place, SourceModule):
                self.reach_class(
                    self.class_of_source(owner.place, node, f"{owner.qualname}.{name}"), config=False
                )
            elif owner.runtime is not None:
                self._use_live(info, owner, name)
        elif binding.imported is not None:
            package = owner.place.package if isinstance(owner.place, SourceModule) else ""
            module = modules.absolute(binding.imported, package)
            self.reach_import(module, binding.imported.name, (), _Asker(owner.title))
        else:
            self.use_statement(info, owner, name, binding, whole=False)

    def use_statement(
        self, info: ClassInfo, owner: ClassInfo, name: str, binding: Binding, *, whole: bool
    ) -> None:
        """Count a statement of a class body; of a field of a configuration, only what it may hold."""
        node = binding.node
        if isinstance(node, ast.AnnAssign) and not whole and _is_field(owner, name, node):
            self._use_field(owner, name, node)
            return
        if not self._once("class statement", id(node), name, id(info)):
            return
        title = f"{owner.title}.{name}"
        nodes = [*binding.guards, node]
        names = vars(owner.runtime) if owner.runtime is not None else {}
        if self._is_of_file(owner.place, names, name, node, title):
            self.add(title, nodes, "class", node)
        found = references.of_nodes(_values_in(nodes), in_class=True)
        self.follow(found, _Scope(owner.place, info), _Asker(title))

    def _use_field(self, owner: ClassInfo, name: str, node: ast.AnnAssign) -> None:
        if not self._once("field", id(node)):
            return
        title = f"{owner.title}.{name}"
        held = ast.AnnAssign(target=node.target, annotation=node.annotation, value=None, simple=node.simple)
        self.add(title, [held], "class", node)
        nodes = list(_annotation_nodes(node.annotation))
        replaced = {id(each) for each in self._classes_of_field(owner, name)}
        for chain in sorted(references.of_nodes(nodes).free):
            found = self._looked_up(owner.place, chain)
            if found is None or id(found) in replaced:
                self.reach_name(_Scope(owner.place, owner), chain, _Asker(title, config=True))
        for each in self._classes_of_field(owner, name):
            self._later(self.reach_class, each, config=True)

    def _classes_of_field(self, info: ClassInfo, name: str) -> list[ClassInfo]:
        """The classes of the project that a field may hold; those that the object holds, where they are known."""
        for owner in self.mro(info):
            if isinstance(owner, ClassInfo) and name in owner.members:
                node = owner.members[name][-1].node
                if not isinstance(node, ast.AnnAssign):
                    return []
                found: dict[int, ClassInfo] = {}
                for each in _annotation_nodes(node.annotation):
                    self._classes_named(owner.place, each, found, 0)
                return list(found.values())
        return []

    def _classes_named(self, place: Place, node: ast.AST, found: dict[int, ClassInfo], depth: int) -> None:
        for chain in sorted(references.of_nodes([node]).free):
            info = self._looked_up(place, chain)
            if info is not None:
                for each in self._held_instead(info.runtime) or [info]:
                    found[id(each)] = each
            elif depth < 8:
                for inner_place, inner in self._alias(place, chain):
                    self._classes_named(inner_place, inner, found, depth + 1)
                for each in self._held_instead(self._foreign(place, chain)):
                    found[id(each)] = each

    def _held_instead(self, declared: tp.Any) -> list[ClassInfo]:
        if not isinstance(declared, type):
            return []
        held = (self.class_of(each) for each in self._extra if declared in each.__mro__)
        return [each for each in held if each is not None]

    def _foreign(self, place: Place, chain: Chain) -> tp.Any:
        """What a name of an annotation means that is not the project's: ``Any`` may be any class."""
        names = (place.memory or {}) if isinstance(place, SourceModule) else {}
        value = (place.names if isinstance(place, LiveModule) else names).get(chain[0])
        for name in chain[1:]:
            value = vars(value).get(name) if isinstance(value, types.ModuleType) else None
        return object if value is tp.Any or isinstance(value, tp.TypeVar) else value

    def _alias(self, place: Place, chain: Chain) -> Iterator[tuple[Place, ast.AST]]:
        """What a name of an annotation stands for."""
        name, *more = chain
        if not isinstance(place, SourceModule) or more:
            return
        for binding in place.bindings.get(name, ()):
            if binding.imported is not None and binding.imported.name:
                module = self.finder.module(modules.absolute(binding.imported, place.package))
                if module is not None:
                    yield module, ast.Name(id=binding.imported.name, ctx=ast.Load())
            elif not isinstance(binding.node, (*_DEFS, ast.ClassDef)):
                value = getattr(binding.node, "value", None)
                for each in _annotation_nodes(value) if isinstance(value, ast.expr) else ():
                    yield place, each

    def _use_live(self, info: ClassInfo, owner: ClassInfo, name: str) -> None:
        assert owner.runtime is not None
        self.stable = False
        value = vars(owner.runtime)[name]
        functions = [] if isinstance(value, type) else [*modules.functions_in(value)]
        for function in functions:
            self.reach_live_function(function, receiver=info)
        if not functions:
            self.reach_value(f"{owner.title}.{name}", value, ())

    # ------------------------------------------------------------------------------------------ values in memory

    def reach_value(self, title: str, value: tp.Any, attributes: Chain, *, config: bool = False) -> None:
        """Reach what a value in memory is made of."""
        if isinstance(value, types.ModuleType):
            self._reach_live_module(value, attributes, _Asker(title, config))
            return
        if isinstance(value, type):
            info = self.class_of(value)
            if info is not None:
                self._later(self.reach_class, info, config=config)
                if attributes:
                    self.use_chain(info, attributes)
            return
        self._use_names(attributes)
        functions = list(modules.functions_in(value))
        for function in functions:
            self._later(self.reach_live_function, function)
        for number, each in enumerate(_held_by(value)):
            self.reach_value(f"{title}.<{number}>", each, ())
        if not functions and not callable(value):
            info = self.class_of(type(value))
            if info is not None:
                self._later(self.reach_class, info, config=False)
            self.add_value(title, value)

    def _reach_live_module(self, value: types.ModuleType, attributes: Chain, asker: _Asker) -> None:
        module = self.finder.module(value.__name__)
        if module is not None:
            self.reach_module(module, attributes, asker)
        elif self._is_made_up(value) and attributes:
            live = LiveModule(value.__name__, vars(value))
            self.reach_live_name(live, attributes[0], attributes[1:], asker)


# ------------------------------------------------------------------------------------------------- helpers


def _held_by(value: tp.Any) -> Iterator[tp.Any]:
    """What else a callable object works with."""
    if isinstance(value, types.MethodType):
        yield type(value.__self__)
    elif isinstance(value, functools.partial):
        yield from (*value.args, *value.keywords.values())
    elif isinstance(getattr(value, "registry", None), Mapping):  # functools.singledispatch
        yield from list(value.registry.values())
    elif callable(value) and not isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        yield type(value)


def _same_file(place: Place, code: types.CodeType) -> bool:
    return isinstance(place, SourceModule) and os.path.abspath(code.co_filename) == place.file


def _globals(place: Place, cls: type) -> dict[str, tp.Any]:
    loaded = sys.modules.get(cls.__module__)
    return place.names if isinstance(place, LiveModule) else vars(loaded) if loaded is not None else {}


def _in_body(node: ast.ClassDef) -> Iterator[ast.AST]:
    for binding in modules.bindings_of(node.body).values():
        for each in binding:
            yield each.node
            if not isinstance(each.node, (*_DEFS, ast.ClassDef)):
                yield from ast.walk(each.node)


def _without_appliers(
    node: ast.FunctionDef | ast.AsyncFunctionDef, owner: ClassInfo
) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """A method without the decorators ``@name.apply`` of what its class body makes, which is configuration."""
    kept = [each for each in node.decorator_list if not _applies(each, owner)]
    if len(kept) == len(node.decorator_list):
        return node
    shortened = copy.copy(node)
    shortened.decorator_list = kept
    return shortened


def _applies(decorator: ast.expr, owner: ClassInfo) -> bool:
    base, names = modules.called(decorator)
    return names == ["apply"] and isinstance(base, ast.Name) and base.id in owner.members


def _is_static(node: ast.AST) -> bool:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in decorators)


def _run_when_made(info: ClassInfo) -> list[str]:
    """The members of a class that are read by no name: validators, what Python calls, what a protocol asks for."""
    if info.node is None:
        found = [(name, value) for name, value in vars(info.runtime).items() if _is_called_by_python(name)]
        return [name for name, value in found if any(modules.functions_in(value))]
    if any(modules.last_name(each) == "runtime_checkable" for each in info.node.decorator_list):
        return list(info.members)
    methods = (
        name
        for name, found in info.members.items()
        if _is_called_by_python(name) and any(isinstance(each.node, _DEFS) for each in found)
    )
    return list(dict.fromkeys([*methods, *_decorated_by(info, _VALIDATORS)]))


def _decorated_by(info: ClassInfo, decorators: frozenset[str]) -> list[str]:
    """The methods of a class that have one of these decorators."""
    return [
        name
        for name, found in info.members.items()
        for binding in found
        if isinstance(binding.node, _DEFS)
        and any(modules.last_name(each) in decorators for each in binding.node.decorator_list)
    ]


def _is_called_by_python(name: str) -> bool:
    """Whether Python, pydantic or an enum calls a method of this name by itself."""
    if name == "model_post_init" or (name.startswith("__") and name.endswith("__")):
        return True
    return name in ("_generate_next_value_", "_missing_")


def _is_field(owner: ClassInfo, name: str, node: ast.AnnAssign) -> bool:
    """Whether a name of a class body is a field of a configuration, whose default is noted elsewhere."""
    if owner.runtime is not None:
        return any(
            name in (getattr(owner.runtime, kind, None) or ())
            for kind in ("__pydantic_fields__", "__dataclass_fields__")
        )
    annotation = node.annotation.value if isinstance(node.annotation, ast.Subscript) else node.annotation
    return not name.startswith("_") and modules.last_name(annotation) != "ClassVar"


def _annotation_nodes(node: ast.expr) -> Iterator[ast.AST]:
    """The expressions of an annotation, also of those in quotes."""
    stack: list[ast.AST] = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            try:
                stack.append(ast.parse(each.value.strip(), mode="eval").body)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
        elif isinstance(each, ast.Subscript) and modules.last_name(each.value) == "Literal":
            continue
        elif isinstance(each, (ast.Subscript, ast.BinOp, ast.Tuple, ast.List)):
            stack += ast.iter_child_nodes(each)
        else:
            yield each


def _values_in(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    """What is evaluated in statements: a name that they set refers to nothing."""
    found: list[ast.AST] = []
    for node in nodes:
        if isinstance(node, ast.Assign):
            found += [node.value, *(each for each in node.targets if not isinstance(each, ast.Name))]
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
            found += [node.value] if node.value is not None else []
            if isinstance(node, ast.AnnAssign):
                found.append(node.annotation)
        else:
            found.append(node)
    return found


def _merged(lines: list[list[tp.Any]]) -> list[tp.Any]:
    """The order of classes, as Python makes it of the orders of the bases (C3)."""
    result: list[tp.Any] = []
    lines = [[each for each in line if each is not None] for line in lines]
    while lines := [line for line in lines if line]:
        for line in lines:
            first = line[0]
            if not any(first in other[1:] for other in lines):
                break
        else:
            first = lines[0][0]
        result.append(first)
        lines = [[each for each in line if each is not first] for line in lines]
    return result


def is_plain(value: tp.Any) -> bool:
    """Whether a value is a scalar that can't change, or a tuple of such."""
    stack = [value]
    while stack:
        each = stack.pop()
        if type(each) in (tuple, frozenset):
            stack += each
        elif type(each) not in _SCALARS:
            return False
    return True


def value_text(value: tp.Any) -> str:
    """A plain value as text, the same in every process."""
    if isinstance(value, frozenset):
        return f"frozenset({', '.join(sorted(map(value_text, value)))})"
    if isinstance(value, tuple):
        return f"({' '.join(value_text(each) + ',' for each in value)})"
    return ascii(value)
