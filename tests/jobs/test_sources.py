"""Tracebacks of what was pickled by value show the lines of its source, also where the file is not what it was."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pydantic
import pydantic.main
import pytest

import exca
import exca.task
from exca.jobs import pickling

ROOT = Path(__file__).parents[2]
START = f"""
import sys, time, typing as tp
from pathlib import Path
sys.path.insert(0, {str(ROOT / "src")!r})
import pydantic, exca
from exca import steps
"""
WAIT = """
def wait(folder: str) -> None:
    Path(folder, "began").touch()
    while not Path(folder, "gate").exists():
        time.sleep(0.01)
"""
TASK = """
class Task(pydantic.BaseModel):
    here: str
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        wait(self.here)
        raise ValueError("not today")  # of the task
"""
MAP = """
class Map(pydantic.BaseModel):
    here: str
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        wait(self.here)
        yield from (self.fail(item) for item in items)

    def fail(self, item: int) -> int:
        raise ValueError("not today")  # of the map
"""
STEP = """
class Fails(steps.Step):
    here: str

    def _run(self, x: int) -> int:
        wait(self.here)
        raise ValueError("not today")  # of the step
"""
CALL = """
class Calls(pydantic.BaseModel):
    infra: exca.SubmitInfra = exca.SubmitInfra()

    @infra.apply
    def call(self, here: str) -> int:
        wait(here)
        raise ValueError("not today")  # of the call
"""
# the file is another one by the time that the error comes
END = """
import threading
here = str(Path.cwd())

def change() -> None:
    while not Path(here, "began").exists():
        time.sleep(0.01)
    if "__file__" in globals():
        Path(__file__).write_text("changed = True\\n" * 100)
    Path(here, "gate").touch()

threading.Thread(target=change).start()
try:
    ASK
except ValueError as e:
    print(*e.__notes__)
"""
LOCAL = 'infra={"folder": here, "cluster": "local"}'
KINDS = {
    "task": (TASK, f"Task(here=here, {LOCAL}).run()"),
    "map": (MAP, f"list(Map(here=here, {LOCAL}).run([3]))"),
    "pool": (MAP, f"list(Map(here=here, {LOCAL.replace('local', 'processpool')}).run([3, 4]))"),
    "step": (STEP, 'Fails(here=here, infra={"backend": "LocalProcess", "folder": here}).run(3)'),
    "call": (CALL, f"Calls({LOCAL}).call(here)"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_traceback_shows_the_lines_of_a_script_that_has_changed_since(kind: str, tmp_path: Path) -> None:
    definition, ask = KINDS[kind]
    script = tmp_path / "script.py"
    script.write_text(START + WAIT + definition + END.replace("ASK", ask))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100
    )
    assert f'    raise ValueError("not today")  # of the {kind.replace("pool", "map")}\n' in done.stdout, (
        done.stdout
    )
    assert f'File "{script}", line ' in done.stdout
    assert "changed = True" not in done.stdout


def test_no_lines_of_installed_packages_travel(tmp_path: Path) -> None:
    """A class that is pickled by value is so with all that pydantic and exca keep in it."""

    class Local(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

        @infra.apply
        def run(self) -> int:
            return 1  # of the class

    pickled = pickling.dumps(Local())
    assert b"  # of the class" in pickled
    for module in (exca.task, pydantic.main):
        assert inspect.getsource(module).splitlines()[0].encode() not in pickled


@pytest.mark.parametrize("kind", KINDS)
def test_a_traceback_shows_the_lines_of_a_cell(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    definition, ask = KINDS[kind]
    cells = [START, WAIT, definition, END.replace("ASK", ask)]
    runner = ROOT / "tests" / "codedigest" / "notebook.py"
    done = subprocess.run(
        [sys.executable, str(runner)],
        cwd=tmp_path,
        input=json.dumps(cells),
        capture_output=True,
        text=True,
        check=True,
        timeout=110,
    )
    said = "".join(json.loads(done.stdout))
    assert f'    raise ValueError("not today")  # of the {kind.replace("pool", "map")}\n' in said, said
