"""The reference of the documentation is complete: names, fields, errors, commands and options."""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
import types
import typing as tp
from pathlib import Path

import pytest

import exca
from exca import errors
from exca.cli import commandline

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "docs" / "reference.py")
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

PAGES: dict[str, str] = {name: page() for name, page in reference.PAGES.items()}


def headings(page: str) -> set[str]:
    return set(re.findall(r"^#+ `(.+)`$", PAGES[page], re.MULTILINE))


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of the rows of tables by the first one."""
    found = {}
    for line in re.findall(r"^\| (`.+) \|$", text, re.MULTILINE):
        first, *rest = re.split(r"(?<!\\)\|", line)
        found[first.strip().strip("`")] = [cell.strip() for cell in rest]
    return found


def test_every_public_name_has_a_heading() -> None:
    public = {f"exca.{name}" for name in exca.__all__ if name != "__version__"}
    for module in ("helpers", "steps", "cachedict", "testing", "utils"):
        public |= {f"exca.{module}.{name}" for name in getattr(exca, module).__all__}
    public |= {f"exca.settings.{name}" for name in ("allow", "refuse", "is_allowed")}
    public = {name for name in public if f"{name}" not in sys.modules}  # what is listed by its own names
    listed = headings("python.md") | {f"exca.{name}" for name in headings("infras.md")}
    assert public - listed == set()


def test_every_field_has_its_meaning_default_and_unit() -> None:
    classes = [*reference.infra_classes().values(), *reference.backend_classes().values()]
    tables = rows(PAGES["infras.md"] + PAGES["backends.md"])
    for cls in classes:
        for name in cls.model_fields:
            _kind, default, unit, meaning = tables[name]
            assert default, f"{cls.__name__}.{name} has no default"
            assert meaning, f"{cls.__name__}.{name} is in no docstring"
            assert bool(unit) == name.endswith(("_min", "_s", "_gb")), name


def test_every_error_is_listed_and_each_code_once() -> None:
    listed = rows(PAGES["errors.md"])
    assert {name for name, value in vars(errors).items() if isinstance(value, type)} <= set(listed)
    raised = reference.raised_by()
    assert set(exca.settings.REFUSALS) == set(raised)
    assert set(raised.values()) <= {name for name, value in vars(errors).items() if isinstance(value, type)}
    for code, name in raised.items():
        assert f"`{code}`" in listed[name][1]


@pytest.mark.parametrize("name", sorted(reference.subcommands()))
def test_every_option_of_a_command_is_listed(name: str) -> None:
    text = PAGES["commands.md"].partition(f"## `exca {name}`\n")[2].partition("\n## ")[0]
    assert text
    for action in reference.subcommands()[name]._actions:
        if action.help != "==SUPPRESS==":
            assert action.help, f"exca {name} {action.dest} has no help"
            assert all(f"`{option}`" in text for option in action.option_strings)


def test_every_command_of_the_parser_is_there() -> None:
    usage = commandline.parser().format_help()
    assert {name.removeprefix("exca ") for name in headings("commands.md")} >= set(
        re.findall(r"^    ([a-z]+) ", usage, re.MULTILINE)
    )


def test_docstrings_hold_no_markup_that_a_page_would_show_as_it_is() -> None:
    found = [
        line for page in PAGES.values() for line in page.splitlines() if re.search(r":[a-z]+:`|``[^`]", line)
    ]
    assert [line for line in found if not line.startswith("```")] == []


def functions() -> dict[str, tp.Callable[..., tp.Any]]:
    """Return the public functions, and the public methods of public classes, that are defined here."""
    found: dict[types.FunctionType, str] = {}
    named = reference.public_names() | reference.infra_classes() | reference.backend_classes()
    for place in reference.HANDED_OUT:
        module, _, name = place.partition(":")
        named[name] = getattr(importlib.import_module(f"exca.{module}"), name)
    for name, value in named.items():
        each = [(name, value)]
        if isinstance(value, type):
            each = [(f"{name}.{method}", function) for method, function in reference.methods(value)]
        for full, function in each:
            function = inspect.unwrap(getattr(function, "__func__", function))
            if isinstance(function, types.FunctionType) and str(SOURCE) in function.__code__.co_filename:
                found.setdefault(function, full)
    return {name: function for function, name in found.items()}


SOURCE = Path(exca.__file__).parent
FUNCTIONS = functions()
# what a first sentence may begin with that says itself what is returned
SAYS_WHAT = (
    "Return ",
    "Yield ",
    "Whether ",
    "Context ",
    "Make ",
    "Wait for the job and return",
    "Remove a dotted key and",
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_has_parameters_returns_and_errors(name: str) -> None:
    function = FUNCTIONS[name]
    parts = reference.sections(function.__doc__)
    described = {
        each.strip("* ")
        for entry, _, _ in reference.entries(parts.get("Parameters", []))
        for each in entry.split(",")
    }
    signature = inspect.signature(function)
    assert set(signature.parameters) - {"self", "cls"} - described == set()
    if signature.return_annotation not in (None, "None", tp.NoReturn, "tp.NoReturn", inspect.Signature.empty):
        assert {"Returns", "Yields"} & set(parts) or says_what(parts[""])
    raised = {
        node.exc.func.id
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    }
    told = " ".join((*parts.get("Raises", []), parts[""][0]))
    assert [error for error in raised if error[0].isupper() and error not in told] == []


def says_what(text: list[str]) -> bool:
    first = " ".join(text).partition(". ")[0]
    return first.startswith(SAYS_WHAT) or "return" in first


def test_every_page_is_in_the_contents() -> None:
    """What no page leads to would be a warning when the site is built, which the tests do not do."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {
        line
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line and not line.startswith(":")
    }
    pages = {
        page.relative_to(DOCS).with_suffix("").as_posix()
        for page in DOCS.rglob("*.md")
        if page.parent.name != "reference"
    }
    assert listed == (pages - {"index"}) | {
        f"reference/{name.removesuffix('.md')}" for name in reference.PAGES
    }


def test_the_overview_for_language_models_names_every_page() -> None:
    text = reference.llms_text(DOCS)
    for page in DOCS.rglob("*.md"):
        assert f"(_sources/{page.relative_to(DOCS)})" in text
