"""The page that compares tools shows what was recorded of them, and each tool has a program that asks it."""

import ast
import importlib.util
import json
import typing as tp
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "comparison"


@pytest.fixture(scope="module")
def run() -> tp.Any:
    """The program that asks the tools."""
    spec = importlib.util.spec_from_file_location("comparison_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_recorded_answers(run: tp.Any) -> None:
    answers = json.loads(run.ANSWERS.read_text(encoding="utf-8"))
    page = run.DOCUMENT.read_text(encoding="utf-8")
    assert page.partition(run.BEGIN)[2].partition(run.END)[0] == run.table(answers)
    for tool in run.REQUIREMENTS:
        assert answers[tool].keys() == {"version", *run.QUESTIONS}
        program = "exca" if tool.startswith("exca") else tool
        assert (FOLDER / "tools" / f"{program}_tool.py").is_file()


def test_the_page_shows_in_what_others_are_ahead(run: tp.Any) -> None:
    found = json.loads(run.AHEAD.read_text(encoding="utf-8"))
    page = run.DOCUMENT.read_text(encoding="utf-8")
    shown = page.partition(run.AHEAD_BEGIN)[2].partition(run.AHEAD_END)[0]
    assert shown.strip() == run.ahead_tables(found).strip()
    assert found.keys() >= {claim.tool for claim in run.CLAIMS}
    program = ast.parse((FOLDER / "tools" / "ahead.py").read_text(encoding="utf-8"))
    assert {claim.name for claim in run.CLAIMS} <= {
        node.name for node in program.body if isinstance(node, ast.FunctionDef)
    }
