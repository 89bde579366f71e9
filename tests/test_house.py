"""The rooms of the package stand as the design says: imports go down only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "exca"
HANDING_ON = {"__init__", "base", "slurm", "workdir"}  # hold nothing of their own
GUESTS = {"infra/from_function": "helpers", "execution/map_call": "map"}  # lie in the folder of another room


def rooms() -> list[str]:
    """Return the rooms from top to bottom, as the table of the design has them."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \|", text.partition("## The way of one call")[0], re.MULTILINE)


def room_of(module: str) -> str:
    return GUESTS.get(module, module.split("/", maxsplit=1)[0])


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Return all nodes under ``if TYPE_CHECKING``."""
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    guarded = [node for node in checks if ast.unparse(node.test).endswith("TYPE_CHECKING")]
    return {inner for node in guarded for part in node.body for inner in ast.walk(part)}


def imports_of(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, wherever it does so."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = list(path.relative_to(PACKAGE).parent.parts)
    ignored = for_types_only(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in ignored:
            start = package[: len(package) + 1 - node.level]
            if node.module:
                yield "/".join([*start, *node.module.split(".")])
            else:
                yield from ("/".join([*start, alias.name]) for alias in node.names)


def test_the_design_names_every_room() -> None:
    there = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(rooms()) == there - HANDING_ON


def test_imports_go_down_only() -> None:
    """No file imports from a room above its own, so no circle of rooms can be."""
    order = rooms()
    upward = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if room_of(module) in HANDING_ON:
            continue
        for target in imports_of(path):
            room = room_of(target)
            if room in order and order.index(room) < order.index(room_of(module)):
                upward.append(f"{module} -> {target}")
    assert upward == []
