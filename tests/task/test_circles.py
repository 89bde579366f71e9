"""Tasks that need each other's results are told so instead of waiting for ever."""

import concurrent.futures
import typing as tp
from pathlib import Path

import pytest

from exca.errors import ReentrantClaimError
from task_models import Asking


@pytest.mark.parametrize("cluster", [None, "local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_a_circle_of_tasks_is_named(slurm_folder: Path, cluster: str | None) -> None:
    asks = {"one": "two", "two": "one"}
    infra: tp.Any = {"folder": slurm_folder / "cache", "cluster": cluster}
    tasks = [Asking(name=name, place=slurm_folder, asks=asks, infra=infra) for name in asks]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        errors = [future.exception() for future in [pool.submit(task.run) for task in tasks]]
    assert {type(error) for error in errors} == {ReentrantClaimError}
    assert any("wait for each other in a circle" in str(error) for error in errors)


def test_a_task_that_asks_for_itself_by_way_of_another(tmp_path: Path) -> None:
    (tmp_path / "two").touch()
    infra: tp.Any = {"folder": tmp_path / "cache"}
    task = Asking(name="one", place=tmp_path, asks={"one": "two", "two": "one"}, infra=infra)
    with pytest.raises(ReentrantClaimError, match="asks for its own result"):
        task.run()
