"""Functions in jobs and in several processes: where they run, and that each call is computed once."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import typing as tp
import warnings
from pathlib import Path

import numpy as np
import pytest

import exca
from exca.errors import JobError
from waiting import wait_for

CALLS: list[tp.Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def total(x: np.ndarray, scale: float = 1.0) -> float:
    CALLS.append(x)
    return float(x.sum()) * scale


def test_arrays_travel_to_jobs(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path, cluster="local")(total)
    x = np.arange(1_000_000.0)
    job = cached.submit(x)
    assert job.result() == x.sum() == cached(x)
    assert not CALLS
    assert job.job_id
    assert cached.infra_of(x).status() == "completed"
    assert exca.cached(folder=tmp_path)(total)(x) == x.sum()


def own_process(value: int) -> int:
    return os.getpid() if value else 0


def die_once(marker: str) -> str:
    if not os.path.exists(marker):
        Path(marker).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_calls_are_submitted_together(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path, cluster="local")(own_process)
    with cached.job_array(max_workers=2) as calls:
        for value in (1, 2, 3):
            calls.append(value)
    assert len(calls) == len(set(calls.results())) == 3
    assert os.getpid() not in calls.results()
    assert [job.result() for job in calls.jobs()] == calls.results() == [cached(v) for v in (1, 2, 3)]
    assert [call.build() for call in calls[:2]] == calls.results()[:2]
    with pytest.raises(RuntimeError, match="nothing was added"), cached.job_array():
        pass
    with cached.job_array(allow_empty=True):
        pass
    with pytest.raises(ValueError, match="twice"), cached.job_array() as repeated:  # noqa: PT012 # raised on leaving
        repeated.append(4)
        repeated.append(value=4)
    assert cached.infra_of(4).status() == "not submitted"


def test_a_job_that_was_killed_is_computed_by_a_retry(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path / "cache", cluster="local")(die_once)
    marker = str(tmp_path / "marker")
    for _ in range(2):
        with pytest.raises(JobError, match="SIGKILL"):
            cached(marker)
    assert cached.using(mode="retry")(marker) == "done"
    assert cached(marker) == "done"


@pytest.mark.slurm
def test_functions_run_on_slurm(slurm_folder: Path) -> None:
    cached = exca.cached(folder=slurm_folder, cluster="slurm")(total)
    with cached.job_array() as calls:
        calls.append(np.arange(3.0))
        calls.append(np.arange(4.0), scale=2.0)
    assert calls.results() == [3.0, 12.0]
    assert not CALLS
    assert cached.submit(np.arange(4.0), 2.0).result() == 12.0


MODULE = """
import concurrent.futures
import os
import sys
import numpy as np
import exca

@exca.cached(folder={folder!r}, cluster={cluster!r})
def double(value: int) -> tuple[int, int]:
    return 2 * value, os.getpid()

@exca.cached(folder={folder!r}, cluster={cluster!r}, unannotated="hash")
def deep(depth, x=np.zeros(2)):
    return depth and 1 + deep.func(depth - 1)

class Holder:
    @staticmethod
    @exca.cached(folder={folder!r}, cluster={cluster!r})
    def inner(value: int) -> int:
        return 3 * value

    @exca.cached(folder={folder!r}, cluster={cluster!r})
    @staticmethod
    def outer(value: int) -> int:
        return 5 * value

def make():
    @exca.cached(folder={folder!r}, cluster={cluster!r})
    def nested(value: int) -> int:
        return 7 * value
    return nested

@exca.map_cached(folder={folder!r}, cluster={pool!r})
def square(item: int, offset: int = 0) -> tuple[int, int]:
    return item * item + offset, os.getpid()
"""

SCRIPT = """
import pickle
{imports}

if __name__ == "__main__":
    assert double(3) == double(value=3)
    assert double(3)[0] == 6 and double(3)[1] != os.getpid()
    assert deep(4) == 4 == deep(4, np.zeros(2))
    assert Holder.inner(2) == 6 == Holder().inner(2)
    assert Holder.outer(2) == 10 == Holder().outer(2)
    assert make()(2) == 14
    assert double.using(version="9")(4)[0] == 8
    found = list(square.map([1, 2, 3], offset=1))
    assert [value for value, _ in found] == [2, 5, 10]
    assert os.getpid() not in [pid for _, pid in found]
    assert list(square.map([3, 1], offset=1)) == [found[2], found[0]] and square(2, 1) == found[1]
    if double.func.__module__ != "__main__":
        assert pickle.loads(pickle.dumps(double)) is double
        assert pickle.loads(pickle.dumps(double.using(version="9")))(4) == double.using(version="9")(4)
        assert pickle.loads(pickle.dumps(double.config(3))).build() == double(3)
        assert pickle.loads(pickle.dumps(square)) is square
    print("fine")
"""


@pytest.mark.parametrize("place", ["script", pytest.param("module", marks=pytest.mark.long)])
def test_functions_run_in_jobs_wherever_they_are_defined(tmp_path: Path, place: str) -> None:
    module = MODULE.format(folder=str(tmp_path / "cache"), cluster="local", pool="processpool")
    (tmp_path / "functions.py").write_text(module)
    names = "Holder, deep, double, make, np, os, square"
    imports = module if place == "script" else f"from functions import {names}"
    (tmp_path / "script.py").write_text(SCRIPT.format(imports=imports))
    command = [sys.executable, "script.py"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
        assert done.stdout == "fine\n", done.stderr
    name = "__main__" if place == "script" else "functions"
    places = {path.name for path in (tmp_path / "cache").iterdir()}
    assert places == {
        f"{name}.double_FuncConfig.build,1",
        f"{name}.double_FuncConfig.build,9",
        f"{name}.deep,1",
        f"{name}.Holder.inner_FuncConfig.build,1",
        f"{name}.Holder.outer_FuncConfig.build,1",
        f"{name}.nested_FuncConfig.build,1",
        f"{name}.square,1",
    }


ONCE = """
import os, sys, time
from pathlib import Path
import exca

@exca.cached(folder="cache")
def slow(value: int) -> int:
    Path(f"started-{os.getpid()}").touch()
    while not os.path.exists("gate"):
        time.sleep(0.01)
    return value

if __name__ == "__main__":
    Path(f"asking-{os.getpid()}").touch()
    print(slow(3))
"""


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_compute_once(tmp_path: Path, killed: bool) -> None:
    """Both ask at once and one computes; where that is killed, the other does."""
    (tmp_path / "once.py").write_text(ONCE)
    command = [sys.executable, "once.py"]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    wait_for(lambda: len(list(tmp_path.glob("asking-*"))) == 2, "both processes")
    [started] = wait_for(lambda: list(tmp_path.glob("started-*")), "a computation")
    pid = int(started.name.rpartition("-")[2])
    if killed:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(list(tmp_path.glob("started-*"))) == 2, "the other one to take over")
    (tmp_path / "gate").touch()
    outputs = {process.pid: process.communicate(timeout=100) for process in both}
    for process_id, (stdout, stderr) in outputs.items():
        assert stdout == ("" if killed and process_id == pid else "3\n"), stderr
    assert len(list(tmp_path.glob("started-*"))) == 1 + killed


@pytest.mark.long
def test_many_threads_call_a_new_function(tmp_path: Path) -> None:
    """Its model is made once or several times, and each call is computed once."""
    for turn in range(5):

        def double(value: int, x: tp.Any = None) -> int:
            CALLS.append(value)
            return 2 * value

        CALLS.clear()
        cached = exca.cached(folder=tmp_path / str(turn))(double)
        mapped = exca.map_cached(folder=tmp_path / f"map-{turn}")(double)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(cached, [1, 2] * 8, [np.zeros(2)] * 16))
            lists = list(map(list, pool.map(mapped.map, [[1, 2], [2, 3]] * 8)))
        assert found == [2, 4] * 8
        assert lists == [[2, 4], [4, 6]] * 8
        assert sorted(CALLS) == [1, 1, 2, 2, 3]
    assert exca.verify(tmp_path).sound


CELLS = (
    """
import os
import exca

@exca.cached(folder="cache", cluster="local")
def double(value: int) -> tuple[int, int]:
    return 2 * value, os.getpid()

@exca.map_cached(folder="cache", cluster="processpool")
def square(item: int) -> int:
    return item * item
""",
    """
first = double(3)
assert first[0] == 6 and first[1] != os.getpid()
assert list(square.map([2, 3])) == [4, 9]
""",
    """
@exca.cached(folder="cache", cluster="local")
def double(value: int) -> tuple[int, int]:
    return 2 * value, os.getpid()

assert double(3) == first
print("fine")
""",
)


def test_functions_of_a_notebook_run_in_jobs(tmp_path: Path) -> None:
    """Their source is in no file; a cell that is run again finds what the first one left."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client
        nbclient.NotebookClient(
            notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
    assert "fine" in notebook.cells[-1].outputs[0].text
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {
        "__main__.double_FuncConfig.build,1",
        "__main__.square,1",
    }
