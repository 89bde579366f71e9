"""The page that compares tools shows what was recorded of them, and each tool has a program that asks it."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "comparison"


def test_the_page_shows_the_recorded_answers() -> None:
    spec = importlib.util.spec_from_file_location("comparison_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    answers = json.loads(run.ANSWERS.read_text(encoding="utf-8"))
    page = run.DOCUMENT.read_text(encoding="utf-8")
    assert page.partition(run.BEGIN)[2].partition(run.END)[0] == run.table(answers)
    for tool in run.REQUIREMENTS:
        assert answers[tool].keys() == {"version", *run.QUESTIONS}
        program = "exca" if tool.startswith("exca") else tool
        assert (FOLDER / "tools" / f"{program}_tool.py").is_file()
