"""What the documents quote exists: files, names in the code, make targets, options, variables, extras and links."""

import ast
import functools
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import blocks

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "exca"
DESIGN = ROOT / "docs" / "design.md"
ON_DISK = ROOT / "docs" / "on-disk.md"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "AGENTS.md", "scripts/slurm/README.md")
    ),
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "reference"),
]
SUFFIXES = (".py", ".md", ".toml", ".sh", ".json", ".lock", ".yaml", ".txt")
SEARCHED = ("src", "tests", "scripts", "benchmarks", "downstream", ".ci", "Makefile")


def prose(text: str) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def quoted(text: str) -> list[str]:
    """Return what is in backticks outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


@functools.cache
def on_disk() -> frozenset[str]:
    """Return the names of the files of a cache, of which the documents speak too."""
    return frozenset(re.findall(r"[\w.-]+", ON_DISK.read_text(encoding="utf-8")))


def missing_paths(document: Path, text: str) -> list[str]:
    """Return the quoted paths that lead nowhere: from the root, the package or the document, or by a file's name."""
    missing = []
    given = {block.file for block in blocks.blocks_of(document)}
    for path in quoted(text):
        first = path.split("/", maxsplit=1)[0]
        is_path = path.endswith(SUFFIXES) or (
            "/" in path and ((ROOT / first).is_dir() or (PACKAGE / first).is_dir())
        )
        if (
            not is_path
            or not re.fullmatch(r"[\w.-][\w./-]*", path)
            or set(path.split("/")) <= on_disk() | given
            or first == "build"  # made by a target
        ):
            continue
        near = [ROOT / path, PACKAGE / path, document.parent / path]
        if not any(each.exists() for each in near) and not any(PACKAGE.rglob(path.rstrip("/"))):
            missing.append(path)
    return missing


def missing_tests(text: str) -> list[str]:
    """Return the quoted tests, as ``file::name``, that are not there."""
    tests = [quote.split("::") for quote in quoted(text) if re.fullmatch(r"[\w/]+\.py::\w+", quote)]
    return [
        f"{file}::{name}"
        for file, name in tests
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]


@functools.cache
def names_of_code() -> frozenset[str]:
    """Return all names that the package defines, sets or takes as arguments, and those of its files and folders."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        found |= {path.stem, path.parent.name}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                    found.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    found.add(name)
    return frozenset(found)


def missing_names(text: str) -> list[str]:
    """Return the quoted dotted names that begin with a module, a room or a class of the package and lead nowhere."""
    dotted = (re.match(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?=$|\()", quote) for quote in quoted(text))
    names = [match[0].split(".") for match in dotted if match is not None]
    own = names_of_code()
    return [
        ".".join(parts)
        for parts in names
        if parts[0] in own and not f".{parts[-1]}".endswith(SUFFIXES) and not own.issuperset(parts)
    ]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the commands in shell blocks, in blocks that are indented, and in backticks."""
    fenced = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", prose(text), re.MULTILINE)
    for line in [*lines, *quoted(text)]:
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:  # prose with an apostrophe
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]) and len(words) > 1:
            words.pop(0)
        if words:
            yield words


def recipe(target: str) -> str:
    match = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return "" if match is None else match[1]


def without(options: list[str], script: Path) -> list[str]:
    """Return the options that a script does not know."""
    text = script.read_text(encoding="utf-8")
    names = (option.split("=", maxsplit=1)[0] for option in options if option.startswith("--"))
    return [name for name in names if f'"{name}"' not in text]


def wrong_with_make(arguments: list[str]) -> str | None:
    targets = [word for word in arguments if re.fullmatch(r"[a-z][a-z-]*", word)]
    for name in targets:
        if not re.search(rf"^{name}:", MAKEFILE, re.MULTILINE):
            return f"no target {name}"
    script = re.search(r"\S+\.py", "".join(map(recipe, targets)))
    for variable, _, value in (word.partition("=") for word in arguments):
        if variable.isupper() and not re.search(rf"\b{variable}\b", MAKEFILE):
            return f"no variable {variable}"
        unknown = (
            without(value.split(), ROOT / script[0]) if variable == "ARGS" and script is not None else []
        )
        if script is not None and unknown:
            return f"{script[0]} has no {unknown[0]}"
    return None


def wrong_with_script(name: str, options: list[str]) -> str | None:
    script = ROOT / name
    if not script.is_file():
        return f"no script {name}"
    unknown = without(options, script)
    return f"{name} has no {unknown[0]}" if unknown else None


def wrong_with(words: list[str], given: set[str]) -> str | None:
    """Return what is wrong with a command, in a document that gives its reader some files."""
    program, *arguments = words
    if program == "make":
        return wrong_with_make(arguments)
    if program in ("python", "python3") and arguments and arguments[0].endswith(".py"):
        return None if arguments[0] in given else wrong_with_script(arguments[0], arguments[1:])
    is_ours = re.fullmatch(r"(scripts|\.ci)/[\w/-]+(\.sh)?", program) is not None
    return f"no executable {program}" if is_ours and not os.access(ROOT / program, os.X_OK) else None


def wrong_commands(document: Path, text: str) -> list[str]:
    given = {block.file for block in blocks.blocks_of(document)}
    found = [(words, wrong_with(words, given)) for words in commands(text)]
    return [f"{' '.join(words)}: {wrong}" for words, wrong in found if wrong is not None]


@functools.cache
def searched() -> str:
    """Return the text of all that may read a variable of the environment."""
    files = [file for name in SEARCHED for file in [ROOT / name, *(ROOT / name).rglob("*")] if file.is_file()]
    wanted = (
        file for file in files if file.suffix in (".py", ".sh", "") and "legacy_caches" not in file.parts
    )
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in wanted)


def unknown_variables(text: str) -> list[str]:
    return [
        name for name in sorted(set(re.findall(r"\bEXCA_[A-Z0-9_]+", text))) if f"{name}" not in searched()
    ]


def unknown_extras(text: str) -> list[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra.strip() for group in re.findall(r"\bexca\[([\w, -]+)\]", text) for extra in group.split(",")
    }
    return sorted(named - set(extras))


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path, text: str) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_quotes_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert missing_paths(document, text) == []
    assert missing_tests(text) == []
    assert wrong_commands(document, text) == []
    assert unknown_variables(text) == []
    assert unknown_extras(text) == []
    assert broken_links(document, text) == []


def test_links_of_the_changelog_lead_somewhere() -> None:
    """Those of its next lines are read as they will be in the changelog."""
    changelog = ROOT / "CHANGELOG.md"
    for document in (changelog, *(ROOT / "changes").glob("+*.md")):
        assert broken_links(changelog, document.read_text(encoding="utf-8")) == [], document.name


@pytest.mark.parametrize(
    "document", [DESIGN, ON_DISK, DESIGN.with_name("decisions.md")], ids=lambda path: path.name
)
def test_the_names_that_the_design_quotes_exist(document: Path) -> None:
    assert missing_names(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`src/exca/nowhere.py`", ["src/exca/nowhere.py"]),
        ("`cachedict/nowhere.py`, `core.py` and `job.json`", ["cachedict/nowhere.py"]),
        ("`tests/nowhere`", ["tests/nowhere"]),
        ("`nowhere.py`", ["nowhere.py"]),
    ],
)
def test_a_path_that_leads_nowhere_is_found(text: str, wrong: list[str]) -> None:
    assert missing_paths(DESIGN, text) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`make nothing`", "no target nothing"),
        ("    make test WORKER=3   # a comment", "no variable WORKER"),
        ("```bash\nmake bench ARGS='--only maps --fast'\n```", "benchmarks/run.py has no --fast"),
        ("```bash\npython benchmarks/nothing.py\n```", "no script benchmarks/nothing.py"),
        ("`python benchmarks/run.py --slow`", "benchmarks/run.py has no --slow"),
        ("`scripts/slurm/sideways.sh`", "no executable scripts/slurm/sideways.sh"),
    ],
)
def test_a_command_that_does_not_work_is_found(text: str, wrong: str) -> None:
    assert [each.partition(": ")[2] for each in wrong_commands(DESIGN, text)] == [wrong]


def test_other_things_that_do_not_exist_are_found() -> None:
    assert unknown_variables("`EXCA_TRUSTED_USERS` and `EXCA_" + "TRUSTED_CATS=1`") == [
        "EXCA_" + "TRUSTED_CATS"
    ]
    assert unknown_extras("`pip install 'exca[tables,chairs]'`") == ["chairs"]
    assert missing_tests(
        "`tests/test_documents.py::test_no_such`, `tests/test_documents.py::missing_tests`"
    ) == ["tests/test_documents.py::test_no_such"]
    links = "[a](guarantees.md) [b](nowhere.md) [c](#storage) [d](#nowhere) [e](https://example.org)"
    assert broken_links(DESIGN, links) == ["nowhere.md", "#nowhere"]
    assert missing_names("`core.CacheDict`, `core.no_such_name`, `os.path.join`") == ["core.no_such_name"]
