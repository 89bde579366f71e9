"""What the design says is true: the order of the rooms, the keys of a record, the handler of one's own."""

import ast
import json
import re
import subprocess
import sys
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import xxhash

import blocks
import exca
from exca.engine.task_job import TaskJob
from exca.jobs.backends import Submission

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "exca"
DESIGN = ROOT / "docs" / "design.md"
ON_DISK = ROOT / "docs" / "on-disk.md"
TEXT = DESIGN.read_text(encoding="utf-8")
TESTS = ROOT / "tests"
# what tests are about beside the rooms: several of them, the documents, and what surrounds the package
WITHOUT_ROOM = {
    *(
        "dependants",
        "explanation",
        "legacy_caches",
        "reference",
        "sharing",
        "support",
        "torture",
        "night",
        "typechecks",
    ),
    *(
        "call_counts",
        "demo",
        "design",
        "documents",
        "durability",
        "messages",
        "planted_files",
        "readme",
        "tooling",
    ),
}
HANDING_ON = {
    "__init__",
    "__main__",
    "base",
    "kept",
    "logconf",
    "slurm",
    "workdir",
}  # nothing here is built on them
# rooms of classes that users derive theirs from, so that what their files share is private to users
PRIVATE_TO_USERS = {"infra", "steps"}


def rooms() -> list[str]:
    """Return the rooms from top to bottom, as the table of the design has them."""
    return re.findall(r"^\| `(\w+)` \|", TEXT.partition("## The way of one call")[0], re.MULTILINE)


def room_of(module: str) -> str:
    return module.partition("/")[0]


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Return all nodes under ``if TYPE_CHECKING``."""
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    guarded = [node for node in checks if ast.unparse(node.test).endswith("TYPE_CHECKING")]
    return {inner for node in guarded for part in node.body for inner in ast.walk(part)}


def imports_of(path: Path) -> Iterator[str]:
    """Yield the files of the package that a file imports, as ``room/file``, wherever it does so."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = list(path.relative_to(PACKAGE).parent.parts)
    ignored = for_types_only(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in ignored:
            start = package[: len(package) + 1 - node.level]
            module = [*start, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                for parts in (
                    [*module, alias.name],
                    [*module, alias.name, "__init__"],
                    module,
                    [*module, "__init__"],
                ):
                    if PACKAGE.joinpath(*parts).with_suffix(".py").exists():
                        yield "/".join(parts)
                        break


def test_the_design_names_every_room() -> None:
    there = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(rooms()) == there - HANDING_ON


def test_tests_are_where_a_reader_of_the_house_looks_for_them() -> None:
    """Each folder and file of tests has the name of a room, or of what it is about instead."""
    folders = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/*.py")}
    files = {path.stem.removeprefix("test_") for path in TESTS.glob("*.py")} - {"conftest"}
    named = {room.removeprefix("_") for room in rooms()} | HANDING_ON
    assert (folders | files) - named - WITHOUT_ROOM == set()
    assert folders | files >= WITHOUT_ROOM, "what is gone leaves the list"


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


def circles_in(room: str) -> list[str]:
    """Return the files of a room that come back to themselves by the imports inside of it."""
    graph = {
        path.relative_to(PACKAGE).with_suffix("").as_posix(): set(imports_of(path))
        for path in (PACKAGE / room).rglob("*.py")
    }

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        rest = [start]
        while rest:
            new = graph.get(rest.pop(), set()) - found
            found |= new
            rest += new
        return found

    return sorted(file for file in graph if file in reached(file))


def test_no_circle_of_imports_inside_a_room() -> None:
    """At the top of a file or inside a function."""
    assert [file for room in rooms() for file in circles_in(room)] == []


def private_names(tree: ast.AST) -> set[str]:
    """Return the private names that a file defines or sets."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def reached_for(tree: ast.AST, foreign: set[str]) -> list[str]:
    """Return what a file takes of the private names of others; its own objects have what their classes inherit."""
    taken = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if name in foreign:
                taken.append(ast.unparse(node))
            case ast.ImportFrom(names=names, level=level) if level:
                taken += [alias.name for alias in names if alias.name in foreign]
    return taken


def test_no_file_reaches_for_the_private_names_of_another() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    own = {path: private_names(tree) for path, tree in trees.items()}
    shared = {
        room: set().union(*(names for path, names in own.items() if path.is_relative_to(PACKAGE / room)))
        for room in PRIVATE_TO_USERS
    }
    every = (
        set().union(*own.values()) - {path.stem for path in trees} - {"_fields", "_exca_discriminator_key"}
    )  # documented
    reaching = {
        path.relative_to(PACKAGE).as_posix(): taken
        for path, tree in trees.items()
        if (
            taken := reached_for(
                tree, every - own[path] - shared.get(path.relative_to(PACKAGE).parts[0], set())
            )
        )
    }
    assert reaching == {}


class Double(pydantic.BaseModel):
    """Doubles a number, or fails."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        if self.x < 0:
            raise ValueError("negative")
        return 2 * self.x


def test_every_key_of_a_record_is_described(tmp_path: Path) -> None:
    """The keys of job.json, of a result and of an error, here and in a job, are those of the table."""
    table = ON_DISK.read_text(encoding="utf-8").partition("**job.json**")[2].partition("**submission.json**")
    described = {
        key for row in re.findall(r"^\| (`.*?) \|", table[0], re.MULTILINE) for key in row.split(", ")
    }
    found: set[str] = set()
    for x, cluster in ((1, None), (-1, None), (2, "local")):
        task = Double.model_validate({"x": x, "infra": {"folder": tmp_path, "cluster": cluster}})
        assert (task.infra.job().exception() is None) == (x > 0)
        folder = task.infra.uid_folder()
        assert folder is not None
        found.update(json.loads((folder / "job.json").read_text()))
    [submission] = tmp_path.rglob("submission.json")
    died = TaskJob[tp.Any](tmp_path / "died", Submission("local", "12", str(tmp_path / "%j")))
    died.folder.mkdir()
    assert died.record_death() is not None  # of a job that left no outcome
    found.update(json.loads((died.folder / "job.json").read_text()))
    assert {f"`{key}`" for key in found | {"git", "attempts", "before"}} == described
    first_line = table[2].partition("\n")[0]
    assert all(f"`{key}`" in first_line for key in json.loads(submission.read_text()))


def test_every_file_of_the_tree_of_a_cache_is_named_in_the_code() -> None:
    tree = blocks.blocks_of(ON_DISK)[0]
    lines = [
        line.strip() for line in tree.body.splitlines() if not line.startswith(" " * 10)
    ]  # a comment goes on
    names = {part for line in lines for part in re.split(r"  +", line)[0].split("/")}
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    plain = {part for name in names for part in re.split(r"<[^>]*>", name) if re.search(r"[a-z]{2}", part)}
    assert {"uid.yaml", ".claim", ".exca-rows", ".optuna.jsonl"} <= plain
    assert [part for part in plain if part.strip("-,") not in code] == []


def test_the_claim_file_on_the_page_has_the_bytes_of_the_table() -> None:
    [example] = [block for block in blocks.blocks_of(ON_DISK) if block.body.startswith('{"state"')]
    line, keys, end = example.body.encode().split(b"\n")
    assert line[10:15] == b"owned"
    assert line[25:35] == b"0" * 10
    assert line[37:43] == b'"sum":'
    behind = line[37 + len(b'"sum":"') + 16 + len(b'",') :] + b"\n" + keys + b"\n" + end
    assert json.loads(line)["sum"] == xxhash.xxh3_64_hexdigest(behind)


def test_the_handler_of_the_documents_stores_and_loads(tmp_path: Path) -> None:
    [handler] = [
        block for block in blocks.blocks_of(ROOT / "docs" / "own-formats.md") if block.language == "python"
    ]
    (tmp_path / handler.file).write_text(handler.body, encoding="utf-8")
    store = "with cd.write():\n    cd['key'] = spectrum.Spectrum([1.5, 2.0])"
    for code in (store, "print(cd['key'].peaks)"):
        script = f"import spectrum\nfrom exca.cachedict import CacheDict\ncd = CacheDict('cache')\n{code}"
        ran = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[1.5, 2.0]\n"
    assert [path.read_text() for path in tmp_path.rglob("*.txt")] == ["1.5 2.0"]
