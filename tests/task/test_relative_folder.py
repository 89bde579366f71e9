"""A folder given relative to the current directory stays the same one wherever the job runs."""

import os
import pickle
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca


class Mover(pydantic.BaseModel):
    """Writes a file of its own beside its result, from another directory."""

    to: Path = Path()
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> str:
        os.chdir(self.to)
        folder = self.infra.uid_folder()
        assert folder is not None
        (folder / "own").write_text("here")
        return os.getcwd()


class MovingMap(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: tp.Iterable[int]) -> tp.Iterator[str]:
        for _ in items:
            yield os.getcwd()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code.py").write_text("")
    return tmp_path


def test_a_method_may_change_the_current_directory(here: Path) -> None:
    (here / "elsewhere").mkdir()
    task = Mover(to=Path("elsewhere"), infra=exca.TaskInfra(folder="cache"))
    assert task.run() == str(here / "elsewhere")
    os.chdir(here)
    assert task.infra.status() == "completed"
    assert [path.parent for path in here.rglob("own")] == [task.infra.uid_folder()]


@pytest.mark.parametrize("cluster", ["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_a_job_in_a_copy_of_the_code_uses_the_folder_of_the_caller(here: Path, cluster: str) -> None:
    infra = {"folder": "cache", "cluster": cluster, "workdir": {"copied": ["code.py"]}}
    task = Mover.model_validate({"infra": infra})
    assert Path(task.run()).parent.name == "code"
    assert task.infra.status() == "completed"
    assert [path.parent for path in here.rglob("own")] == [task.infra.uid_folder()]
    mapped = MovingMap.model_validate({"infra": infra})
    assert [Path(where).parent.name for where in mapped.process([1, 2])] == ["code"] * 2
    assert {path.name for path in here.iterdir()} == {"cache", "code.py"}


def test_a_pickled_object_keeps_its_folder(here: Path) -> None:
    task = Mover(infra=exca.TaskInfra(folder="cache"))
    data = pickle.dumps(task)
    os.chdir("/")
    again = pickle.loads(data)
    assert again.infra.uid_folder() == here / "cache" / again.infra.uid()
    assert task.infra.folder == "cache"
