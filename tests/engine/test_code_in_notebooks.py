"""A cell that is run again with another body: its results are told, for tasks, maps and steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
START = f"""
import sys, typing as tp, warnings
sys.path.insert(0, {str(ROOT / "src")!r})
import pydantic, exca
from exca import steps

def told(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    print(result, *(str(w.message).partition(": ")[2].partition(" changed")[0] for w in found))
"""
HELPER = "def helper(x):\n    return x + 1"
TASK = """
class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(folder="cache")

    @infra.apply
    def run(self):
        return helper(self.x) * 1
"""
MAP = """
class Map(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra(folder="cache", keep_in_ram=False)

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield helper(item) * 1
"""
STEP = """
class Doubled(steps.Step):
    infra: steps.backends.Backend | None = steps.backends.Cached(folder="cache")

    def _run(self, x: int) -> int:
        return helper(x) * 1
"""
KINDS = {
    "task": (TASK, "obj = Task()", "told(obj.run)", "Task.run"),
    "kept": (
        TASK.replace('cache")', 'cache", keep_in_ram=True)'),
        "obj = Task()",
        "told(obj.run)",
        "Task.run",
    ),
    "kept map": (
        MAP.replace(", keep_in_ram=False", ""),
        "obj = Map()",
        "told(lambda: next(iter(obj.run([1]))))",
        "Map.run",
    ),
    "map": (MAP, "obj = Map()", "told(lambda: next(iter(obj.run([1]))))", "Map.run"),
    "step": (STEP, "obj = Doubled()", "told(lambda: obj.run(1))", "Doubled._run"),
}


def run(folder: Path, *cells: str) -> list[str]:
    """Run cells in a notebook; return what each but the first printed."""
    command = [sys.executable, str(ROOT / "tests" / "codedigest" / "notebook.py")]
    home = {"JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(folder), "HOME": str(folder)}
    ran = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **home, "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
        input=json.dumps([START, *cells]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [out.strip() for out in json.loads(ran.stdout.splitlines()[-1])[1:]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_that_is_run_again_with_another_body_is_told_each_time(kind: str, tmp_path: Path) -> None:
    cell, make, call, name = KINDS[kind]
    printed = run(
        tmp_path,
        HELPER,
        cell,
        make,
        call,
        cell,
        make,
        call,  # the same body: nothing is told
        cell.replace("* 1", "* 2"),
        make,
        call,
        call,
        cell.replace("* 1", "* 3"),
        make,
        call,
        HELPER.replace("+ 1", "+ 5"),
        call,  # the helper only, and the same object
    )
    said = [text for text in printed if text]
    assert said[:3] == ["2", "2", f"2 __main__.{name}"]
    assert said[3] == "2"
    assert said[4] == f"2 __main__.{name}"
    assert said[5].startswith("2 __main__.")
    assert "helper" in said[5]
