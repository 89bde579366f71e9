"""What `exca.testing` gives to the tests of code that uses exca."""

import subprocess
import sys
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca import steps, testing
from exca.testing import MissError

Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time
REAL = "/not-to-be-touched"


class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(folder=REAL, cluster="slurm", slurm_partition="nowhere")

    @infra.apply
    def run(self) -> int:
        return 2 * self.x


class Map(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra(folder=REAL, cluster="processpool")

    @infra.apply(item_uid=str)
    def run(self, items: Iterable[int]) -> Iterator[int]:
        for item in items:
            yield 2 * item


class Call(pydantic.BaseModel):
    infra: exca.SubmitInfra = exca.SubmitInfra(folder=REAL, cluster="local")

    @infra.apply
    def run(self, x: int) -> int:
        return 2 * x


class Twice(steps.Step):
    def _run(self, x: int) -> int:
        return 2 * x


def chain(folder: str = REAL) -> steps.Chain:
    return steps.Chain.model_validate(
        {"steps": [Twice(), Twice()], "infra": {"backend": "Slurm", "folder": folder, "partition": "nowhere"}}
    )


def test_everything_goes_to_one_folder_and_runs_here(tmp_path: Path) -> None:
    with testing.redirect(tmp_path) as folder, testing.computed() as done:
        assert folder == tmp_path
        task = Task()
        assert (task.run(), task.infra.job().result(), task.infra.status()) == (2, 2, "completed")
        with Task().infra.job_array() as array:
            array += [Task(x=x) for x in (1, 2)]
        assert [each.run() for each in array] == [2, 4]
        assert list(Map().run([1, 2])) == [2, 4]
        assert Call().run(3) == 6
        assert chain().run(1) == 4
        assert [uid.rpartition(".")[2] for uid in done[:2]] == ["run,0/default", "run,0/x=2-b85ad11f"]
        assert len(done) == 4
        with testing.hits():
            assert (Task().run(), Task(x=2).run(), list(Map().run([2, 1])), chain().run(1)) == (
                2,
                4,
                [4, 2],
                4,
            )
        assert len(done) == 4
    assert task.infra.uid() == Task().infra.uid()
    assert Task().infra.folder == REAL
    assert not Path(REAL).exists()
    names = sorted(path.name.partition(",")[0].partition("-")[0] for path in tmp_path.iterdir())
    assert names == [".code", "test_testing.Map.run", "test_testing.Task.run", "type=Twice"]


def test_folders_and_clusters_may_stay(tmp_path: Path) -> None:
    with testing.redirect(tmp_path, in_process=False):
        assert (Map().infra.folder, Map().infra.cluster) == (tmp_path, "processpool")
    with testing.redirect():
        assert (Task().infra.folder, Task().infra.cluster) == (REAL, None)
    with testing.redirect(tmp_path):
        assert Task(infra=exca.TaskInfra(folder=None)).infra.folder is None


MISSES: dict[str, tp.Callable[[Path], object]] = {
    "task": lambda folder: Task().run(),
    "array": lambda folder: Task().infra.job(),
    "map": lambda folder: list(Map().run([1, 2, 3])),
    "chain": lambda folder: chain().run(5),
}


@pytest.mark.parametrize("kind", MISSES)
@pytest.mark.parametrize("cluster", ["here", "elsewhere"])
def test_what_is_no_hit_is_told_and_not_computed(kind: str, cluster: str, tmp_path: Path) -> None:
    with testing.redirect(tmp_path, in_process=cluster == "here"), testing.computed() as done:
        with (
            testing.hits(),
            pytest.raises(MissError, match=r"not a hit: .*, is about to be computed\. exca\.why"),
        ):
            MISSES[kind](tmp_path)
        assert not list(tmp_path.rglob("job.json"))
        assert not list(tmp_path.rglob("*.claim"))
        if cluster == "here":
            del done[:]
            MISSES[kind](tmp_path)
            assert len(done) == 1
            with testing.hits():
                MISSES[kind](tmp_path)


def test_without_a_cache_nothing_is_a_hit() -> None:
    task = Task(infra=exca.TaskInfra(folder=None, cluster=None))
    with testing.hits(), pytest.raises(MissError, match=r"not a hit: .*, which has no cache, is about"):
        task.run()


TEST = """
import pydantic
import exca

class Task(pydantic.BaseModel):
    infra: exca.TaskInfra = exca.TaskInfra(folder="/not-to-be-touched", cluster="slurm")

    @infra.apply
    def run(self) -> int:
        return 2

def test_twice(exca_cache, exca_computed):
    assert Task().run() == Task().run() == 2
    assert [uid.partition(",")[0] for uid in exca_computed] == ["test_mine.Task.run"]
    assert list(exca_cache.rglob("job.json"))

def test_is_not_seen_by_another(exca_cache):
    with exca.testing.hits():
        Task().run()
"""


def test_the_plugin_in_a_project_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["exca.testing.plugin"]\n')
    (tmp_path / "test_mine.py").write_text(TEST)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "MissError: not a hit: test_mine.Task.run,0/default, which has no result in" in done.stdout
