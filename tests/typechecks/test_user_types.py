"""Type checkers see the true types of a user's decorated methods, and refuse wrong uses of them."""

import json
import os
import re
import shutil
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((Path(__file__).parent / "data").glob("*.py"))
Findings = dict[int, str]  # by line: "R: type" or "E: code"


def expected(file: Path, checker: int) -> Findings:
    """Read what the checker with this place in the comments must say of each line of a file."""
    found: Findings = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.search(r"  # ([RE]): (.+)$", line)
        if mark is not None:
            text = mark[2].split(", ")[checker] if mark[1] == "E" else mark[2]
            found[number] = f"{mark[1]}: {text}"
    return found


def plain(revealed: str) -> str:
    """Write a type in the way that both checkers share: no module names, no values of defaults."""
    named = re.sub(r"tuple\[[^\[\]]*, fallback=([\w.]+)\]", r"\1", revealed)  # how mypy shows a named tuple
    text = re.sub(r"\b(?:\w+\.)+(?=[A-Za-z_])", "", named.removeprefix("def "))
    text = re.sub(r" ?=(?: [^,)]+)?(?=[,)])", " = ...", text)
    literals = re.findall(r"Literal\[('[^']*')\]", text)
    joined = " | ".join(f"Literal[{literal}]" for literal in literals)
    return text.replace(joined, f"Literal[{', '.join(literals)}]") if literals else text


def marks(checker: int) -> dict[str, Findings]:
    """Return what is expected of all files, by their names."""
    return {file.name: expected(file, checker) for file in FILES}


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """Give a folder as a user has it: with the files, and outside of the repository."""
    for file in FILES:
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.mark.timeout(300)  # the first run reads the types of pydantic, numpy, pandas and torch
def test_mypy_strict_sees_the_types(user_folder: Path, pytestconfig: pytest.Config) -> None:
    """mypy --strict says of each line what is written behind it, and nothing of the others."""
    cache: tp.Any = pytestconfig.cache  # there mypy remembers the packages for the next run
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    command += ["--hide-error-context", "--no-pretty", "--cache-dir", str(cache.mkdir("typechecks"))]
    command += [file.name for file in FILES]
    env = os.environ | {"MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=user_folder, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert not done.stderr, done.stderr
    found: dict[str, Findings] = {file.name: {} for file in FILES}
    for line in done.stdout.splitlines():
        place = re.fullmatch(r"(?P<file>[^:]+):(?P<line>\d+): (?P<kind>\w+): (?P<text>.+)", line)
        assert place is not None, line
        revealed = re.fullmatch(r'Revealed type is "(.+)"', place["text"])
        if revealed is not None:
            found[place["file"]][int(place["line"])] = f"R: {plain(revealed[1])}"
        elif place["kind"] == "error":
            found[place["file"]][int(place["line"])] = f"E: {place['text'].rpartition('[')[2].rstrip(']')}"
    assert found == marks(0)


@pytest.mark.timeout(300)
def test_pyright_sees_the_types(user_folder: Path) -> None:
    """Pyright says of each line what is written behind it, and nothing of the others."""
    settings = {"extraPaths": [str(ROOT / "src")], "typeCheckingMode": "standard"}
    (user_folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=user_folder, capture_output=True, text=True, timeout=280, check=False)
    found: dict[str, Findings] = {file.name: {} for file in FILES}
    for diagnostic in json.loads(done.stdout)["generalDiagnostics"]:
        line = diagnostic["range"]["start"]["line"] + 1
        revealed = re.fullmatch(r'Type of ".+" is "(.+)"', diagnostic["message"])
        text = f"R: {plain(revealed[1])}" if revealed else f"E: {diagnostic['rule']}"
        found[Path(diagnostic["file"]).name][line] = text
    assert found == marks(1)
