"""Write the reference pages of the documentation, from docstrings and from the parser of the command line.

python scripts/docs/reference.py FOLDER    # conf.py does it before each build
"""

import argparse
import ast
import importlib
import inspect
import re
import sys
import types
import typing as tp
from pathlib import Path

import pydantic

import exca
from exca.cli.commandline import parser

# modules whose public names the reference lists, beside those of the package itself; what they export counts
MODULES = ("steps", "helpers", "cachedict", "testing", "settings", "utils")
STEPS = ("helpers", "patterns")  # of which ready-made steps are listed
# what functions hand out: nobody makes one, but everybody calls their methods
HANDED_OUT = (
    *("jobs.job:Job", "engine.array:JobArray", "engine.current:Current", "explaining:Why"),
    *("functions.tasks:CachedFunction", "functions.tasks:Calls", "functions.items:MappedFunction"),
    *("functions.executor:JobFuture", "verifying.report:Report", "verifying.repair:Repairs"),
)
UNITS = {"_min": "minutes", "_s": "seconds", "mem_gb": "GiB", "size_gb": "GB"}
SECTIONS = ("Parameters", "Returns", "Yields", "Raises", "Attributes", "Example", "Examples")
Sections = dict[str, list[str]]


def code(text: str) -> str:
    """Return text of a docstring as Markdown."""
    text = re.sub(r":(?:code|class|func|meth|mod):(?=`)", "", re.sub(r"``(.+?)``", r"`\1`", text))
    return re.sub(r"(?<!`)<(?=[a-z])", r"\\<", text) if "`" not in text else text


def sections(doc: str | None) -> Sections:
    """Return the lines of a docstring by the section they are in; those before the first one by ``""``."""
    found: Sections = {"": []}
    name = ""
    lines = inspect.cleandoc(doc or "").splitlines()
    for number, line in enumerate(lines):
        under = lines[number + 1] if number + 1 < len(lines) else ""
        if line in SECTIONS and set(under) == {"-"}:
            name = line
            found[name] = []
        elif not (set(line) == {"-"} and lines[number - 1] in SECTIONS):
            found[name].append(line)
    return found


def entries(lines: list[str]) -> list[tuple[str, str, str]]:
    """Return name, type and meaning of each entry of a section."""
    found: list[tuple[str, str, str]] = []
    for line in lines:
        if line and not line.startswith(" "):
            names, _, kind = line.partition(": ")
            found.append((names, kind, ""))
        elif found:
            name, kind, meaning = found[-1]
            found[-1] = (name, kind, f"{meaning} {line.strip()}".strip())
    return found


def meanings(cls: type) -> dict[str, str]:
    """Return what is written of each field of a class, in its docstring or in those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("exca"):
            for names, _, meaning in entries(sections(base.__doc__).get("Parameters", [])):
                found |= {name.strip("* "): meaning for name in names.split(",")}
    return found


def prose(lines: list[str]) -> list[str]:
    """Return paragraphs of a docstring as Markdown, with what is indented behind ``::`` as code."""
    out: list[str] = []
    literal = False
    for line in lines:
        if literal and line and not line.startswith("    "):
            out.append("```")
            literal = False
        out.append(line[4:] if literal else code(re.sub("::$", ":", line)))
        if line.endswith("::"):
            out += ["", "```text"]
            literal = True
    return [*out, "```"] if literal else out


def documented(obj: tp.Any) -> list[str]:
    """Return the docstring of anything as Markdown."""
    parts = sections(getattr(obj, "__doc__", None))
    out = [*prose(parts.pop("")), ""]
    for name, lines in parts.items():
        if name.startswith("Example"):
            end = lines.index("") if "" in lines else len(lines)
            out += ["```pycon", *lines[:end], "```", *prose(lines[end:]), ""]
            continue
        out += [f"*{name}*", ""]
        for entry, kind, meaning in entries(lines):
            if not meaning:  # in one line, without a type
                kind, meaning = "", kind
            if "``" in entry:  # prose
                out.append(f"* {code(' '.join(filter(None, (entry, kind, meaning))))}")
                continue
            label = f"`{entry}`" + (f" ({code(kind)})" if kind else "")
            out.append(f"* {label}" + (f": {code(meaning)}" if meaning else ""))
        out.append("")
    return out


def signature(name: str, obj: tp.Any) -> list[str]:
    """Return how something is called, as a block."""
    try:
        text = str(inspect.signature(obj))
    except (TypeError, ValueError):
        return []
    text = re.sub(r"<(?:function|object|class) ?'?([\w.<>]*)[^>]*>", r"\1", text)
    text = re.sub(r"\b(?:typing|tp|collections\.abc|pathlib)\.", "", text)
    text = re.sub(r"\*?\bexca\.[a-z_.]+\.(?=[A-Z])", "", text)
    return ["```text", name + text, "```", ""]


def type_text(annotation: tp.Any) -> str:
    """Return a type as people write it."""
    text = re.sub(r"\b[\w.]+\.(?=[A-Z])", "", inspect.formatannotation(annotation))
    text = re.sub(r"Annotated\[(\w+), Gt\(gt=(\w+)\)\]", r"\1 > \2", text)
    text = re.sub(r"Annotated\[(\w+), Ge\(ge=(\w+)\)\]", r"\1 >= \2", text)
    return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)


def table_of_fields(cls: type[pydantic.BaseModel], names: tp.Iterable[str] = ()) -> list[str]:
    """Return a table of the fields of a model: type, default, unit and meaning."""
    known = meanings(cls)
    out = ["| field | type | default | unit | |", "|---|---|---|---|---|"]
    for name, field in cls.model_fields.items():
        if names and name not in names:
            continue
        kind = type_text(field.annotation)
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        cells = [f"`{name}`", f"`{kind}`", default, unit, code(known.get(name, ""))]
        out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*out, ""]


def methods(cls: type) -> list[tuple[str, tp.Any]]:
    """Return the public methods and properties of a class that are ours, each once."""
    found: dict[str, tp.Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("exca"):
            found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    kinds = (types.FunctionType, classmethod, staticmethod, property)
    validators = set(
        getattr(cls, "__pydantic_decorators__", pydantic.BaseModel.__pydantic_decorators__).field_validators
    )
    return [
        (name, value)
        for name, value in found.items()
        if isinstance(value, kinds) and name not in validators and getattr(value, "__doc__", None)
    ]


def described(name: str, obj: tp.Any, level: int = 2) -> list[str]:
    """Return all that the reference has on one public name."""
    out = [f"{'#' * level} `{name}`", ""]
    model = obj if isinstance(obj, type) and issubclass(obj, pydantic.BaseModel) else None
    if model is None and callable(obj):
        out += signature(name.rpartition(".")[2], obj)
    if isinstance(obj, type) or callable(obj) or isinstance(obj, types.ModuleType):
        out += documented(obj) if model is None else [*prose(sections(obj.__doc__)[""]), ""]
    else:
        out += [f"`{obj!r}`" if len(repr(obj)) < 80 else "A constant.", ""]
    if model is not None and model.model_fields:
        out += table_of_fields(model)
    if isinstance(obj, type):
        for method, value in methods(obj):
            call = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            out += [f"{'#' * (level + 1)} `{name.rpartition('.')[2]}.{method}`", ""]
            out += [] if isinstance(value, property) else signature(method, call)
            out += documented(value.fget if isinstance(value, property) else call)
    return out


def exported(module: types.ModuleType) -> list[tuple[str, tp.Any]]:
    """Return what a module exports, by its full name; without ``__all__``, what is defined in it."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return [(f"{module.__name__}.{name}", getattr(module, name)) for name in names]


def public_names() -> dict[str, tp.Any]:
    """Return all public names that are no modules, with what they stand for."""
    modules = [exca, *(importlib.import_module(f"exca.{name}") for name in MODULES)]
    modules += [importlib.import_module(f"exca.steps.{name}") for name in STEPS]
    found = {name: value for module in modules for name, value in exported(module)}
    found |= {"exca.wait": exca.wait, "exca.workdir.WorkDir": exca.workdir.WorkDir}
    infras = {id(infra) for infra in infra_classes().values()}
    return {
        name: value
        for name, value in found.items()
        if not isinstance(value, types.ModuleType) and id(value) not in infras and name != "exca.__version__"
    }


def infra_classes() -> dict[str, type[pydantic.BaseModel]]:
    """Return the infras of configurations."""
    return {"TaskInfra": exca.TaskInfra, "MapInfra": exca.MapInfra, "SubmitInfra": exca.SubmitInfra}


def backend_classes() -> dict[str, type[pydantic.BaseModel]]:
    """Return what may be the infra of a step."""
    from exca.steps import backends

    return {
        name: value
        for name, value in vars(backends).items()
        if isinstance(value, type) and issubclass(value, backends.Backend) and not name.startswith("_")
    }


def infras_page() -> str:
    out = [
        "# Infras",
        "",
        "Where a method runs, with what, and where its results are kept. All fields have defaults.",
        "",
    ]
    shared = set.intersection(*(set(cls.model_fields) for cls in infra_classes().values()))
    shared -= {"mode", "keep_in_ram"}
    out += ["## Fields of all three", "", *table_of_fields(exca.TaskInfra, shared)]
    out += [
        "## `WorkDir`",
        "",
        *prose(sections(exca.workdir.WorkDir.__doc__)[""]),
        "",
        *table_of_fields(exca.workdir.WorkDir),
    ]
    for name, cls in infra_classes().items():
        out += [f"## `{name}`", "", *prose(sections(cls.__doc__)[""]), ""]
        own = set(cls.model_fields) - shared
        out += table_of_fields(cls, own) if own else []
        for method, value in methods(cls):
            call = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            out += [f"### `{name}.{method}`", ""]
            out += [] if isinstance(value, property) else signature(method, call)
            out += documented(value.fget if isinstance(value, property) else call)
    return "\n".join(out)


def backends_page() -> str:
    out = [
        "# Backends of steps",
        "",
        'What the `infra` of a step or a chain may be: `{"backend": "Slurm", ...}`.',
        "",
    ]
    for name, cls in backend_classes().items():
        out += [f"## `{name}`", "", *prose(sections(cls.__doc__)[""]), "", *table_of_fields(cls)]
    return "\n".join(out)


def return_types(tree: ast.Module) -> dict[str, str]:
    """Return what the functions of a file are annotated to return."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns)
    return {node.name: ast.unparse(node.returns) for node in functions if node.returns is not None}


def raised_by() -> dict[str, str]:
    """Return which error each refusal raises, by its code, as the source calls ``settings.complain``."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(exca.__file__).parent.rglob("*.py")]
    found: dict[str, str] = {}
    everywhere = {name: kind for tree in trees for name, kind in return_types(tree).items()}
    for tree in trees:
        returned = everywhere | return_types(tree)
        assigned = {
            node.targets[0].id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="complain"), args=[ast.Constant(value=str(name)), error, *_]
                ):
                    made = assigned[error.id] if isinstance(error, ast.Name) else error
                    assert isinstance(made, ast.Call), ast.unparse(node)
                    by = ast.unparse(made.func).rpartition(".")[2]
                    found[name] = returned.get(by, by)
    return found


def errors_page() -> str:
    from exca import errors

    codes_of = raised_by()

    out = [
        "# Errors and warnings",
        "",
        "All are in `exca.errors`, and derive from the builtin that you would catch anyway.",
        "",
    ]
    out += ["| | is also | code | |", "|---|---|---|---|"]
    for name, cls in error_classes(errors).items():
        bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__)
        codes = ", ".join(f"`{each}`" for each, raised in sorted(codes_of.items()) if raised == name)
        out.append(
            f"| `{name}` | {bases} | {codes} | {code(inspect.cleandoc(cls.__doc__ or '').splitlines()[0])} |"
        )
    out += ["", "## Refusals by their code", ""]
    out += ["`error.code` of what can be made a warning with `exca.settings.allow(code)`:", ""]
    out += ["| code | error | refused where |", "|---|---|---|"]
    out += [f"| `{each}` | `{codes_of[each]}` | {text} |" for each, text in exca.settings.REFUSALS.items()]
    return "\n".join([*out, ""])


def error_classes(errors: types.ModuleType) -> dict[str, type]:
    """Return the classes of errors and warnings by their names."""
    return {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def python_page() -> str:
    out = [
        "# Python",
        "",
        "What `import exca` gives beside the [infras](infras.md), and what its functions return.",
        "",
    ]
    for name, value in public_names().items():
        out += described(name, value)
    return "\n".join(out)


def objects_page() -> str:
    out = ["# Objects", "", "What functions and infras return: jobs, arrays of tasks, reports.", ""]
    for place in HANDED_OUT:
        module, _, name = place.partition(":")
        out += described(name, getattr(importlib.import_module(f"exca.{module}"), name))
    return "\n".join(out)


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all commands by their names."""
    [actions] = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(actions.choices)


def command_line_page() -> str:
    top = parser()
    [actions] = [each for each in top._actions if isinstance(each, argparse._SubParsersAction)]
    helps = {each.dest: each.help for each in actions._choices_actions}
    out = [
        "# Commands",
        "",
        "What each command does and all its options; [The command line](../command-line.md) says how to use them.",
        "",
    ]
    for name, command in subcommands().items():
        usage = re.sub(r"\s+", " ", command.format_usage()).removeprefix("usage: ")
        out += [
            f"## `exca {name}`",
            "",
            f"{(helps.get(name) or command.description or '').capitalize()}.",
            "",
        ]
        out += ["```text", usage, "```", "", "| | |", "|---|---|"]
        for action in command._actions:
            if action.help == argparse.SUPPRESS:
                continue
            label = (
                ", ".join(f"`{text}`" for text in action.option_strings)
                or f"`{action.metavar or action.dest}`"
            )
            value = action.metavar if action.option_strings and action.nargs != 0 else None
            text = (action.help or "").replace("%%", "%")
            out.append(f"| {label}{f' `{value}`' if value else ''} | {text} |".replace("||", "|"))
        out.append("")
    return "\n".join(out)


PAGES: dict[str, tp.Callable[[], str]] = {
    "infras.md": infras_page,
    "backends.md": backends_page,
    "python.md": python_page,
    "objects.md": objects_page,
    "errors.md": errors_page,
    "commands.md": command_line_page,
}


def llms_text(docs: Path) -> str:
    """Return an overview of the site for language models (https://llmstxt.org): each page with what it is about."""
    out = [
        "# exca",
        "",
        f"> Execution and caching for Python, release {exca.__version__}: {(exca.__doc__ or '').splitlines()[0]}",
        "",
    ]
    for title, folder in (
        ("Pages", "."),
        ("Tutorial", "tutorial"),
        ("How to", "how-to"),
        ("Reference", "reference"),
    ):
        out += [f"## {title}", ""]
        for page in sorted((docs / folder).glob("*.md")):
            heading, _, rest = page.read_text(encoding="utf-8").partition("\n")
            about = rest.strip().partition("\n\n")[0].replace("\n", " ")
            about = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", about)
            out.append(f"- [{heading.lstrip('# ')}](_sources/{page.relative_to(docs)}): {about}")
        out.append("")
    return "\n".join(out)


def write(folder: Path) -> None:
    """Write all pages of the reference into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
