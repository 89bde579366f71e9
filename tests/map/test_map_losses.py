"""Jobs of maps and steps that are lost: what they ran is submitted again while the caller waits."""

import os
import signal
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
from exca.errors import JobError
from exca.steps import Step
from task_models import given

pytestmark = pytest.mark.long

CLUSTERS = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


def unlucky(place: Path, item: int, losses: int, how: str = "kill") -> int:
    """Ten times the item, after so many losses of those below 2."""
    with (place / f"began-{item}").open("a") as file:
        file.write("x")
    if item < 2 and len((place / f"began-{item}").read_text()) <= losses:
        if how == "raise":
            raise ConnectionError("for a moment")
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * item


class Mapped(pydantic.BaseModel):
    place: Path
    losses: int
    how: str = "kill"
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        for item in items:
            yield unlucky(self.place, item, self.losses, self.how)


class Stepped(Step):
    place: str
    losses: int

    def _run(self, item: int) -> int:
        return unlucky(Path(self.place), item, self.losses)


def policy(cluster: str, **fields: tp.Any) -> Infra:
    return {"cluster": cluster, "retry_on": ["killed"], "retry_backoff_s": 0, "max_jobs": 3, **fields}


@every_cluster
def test_shares_that_are_lost_are_submitted_again(cluster: str, slurm_folder: Path) -> None:
    infra = given({**policy(cluster), "folder": slurm_folder / "c"})
    task = Mapped(place=slurm_folder, losses=1, infra=infra)
    assert list(task.run(range(5))) == [0, 10, 20, 30, 40]
    # the first share has both items that are unlucky
    counts = [len((slurm_folder / f"began-{item}").read_text()) for item in range(5)]
    assert counts[1:] == [2, 1, 1, 1]


@every_cluster
def test_a_share_that_is_lost_too_often_is_an_error(cluster: str, slurm_folder: Path) -> None:
    fields = policy(cluster, retries=1)
    task = Mapped(place=slurm_folder, losses=2, infra=given({**fields, "folder": slurm_folder / "c"}))
    with pytest.raises(JobError, match=r"SIGKILL|137"):
        task.run([0, 3])
    assert len((slurm_folder / "began-0").read_text()) == 2
    assert list(task.run([0, 3])) == [0, 30]


@every_cluster
def test_exceptions_of_items_that_the_policy_names_are_losses(cluster: str, slurm_folder: Path) -> None:
    fields = policy(cluster, retry_on=["OSError"])
    infra = given({**fields, "folder": slurm_folder / "c"})
    task = Mapped(place=slurm_folder, losses=2, how="raise", infra=infra)
    assert list(task.run([1, 4])) == [10, 40]


def test_other_losses_of_shares_are_errors_at_once(tmp_path: Path) -> None:
    infra = given({"cluster": "local", "folder": tmp_path / "c"})
    with pytest.raises(JobError, match="SIGKILL"):
        Mapped(place=tmp_path, losses=1, infra=infra).run([0])
    assert (tmp_path / "began-0").read_text() == "x"


def test_shares_of_steps_that_are_lost_are_submitted_again(tmp_path: Path) -> None:
    fields = {name: value for name, value in policy("local").items() if name != "cluster"}
    infra = given({"backend": "LocalProcess", "folder": tmp_path / "c", **fields})
    step = Stepped(place=str(tmp_path), losses=1, infra=infra)
    assert list(step.run_many([0, 1, 2, 3])) == [0, 10, 20, 30]
